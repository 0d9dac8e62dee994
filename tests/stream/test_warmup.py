"""A worker's first frame finds everything compiled."""

import gc

import pytest
from numba.core.registry import CPUDispatcher

from detector.fits import read_frames
from detector.fitsheader import Limits
from models.simulate.exposure import Plan, write_fields
from stream.commands.science import load_science
from stream.commands.streaming import message_reader
from stream.machine import MachineError
from stream.service import Examiner, warmed_up
from stream.settings import load_settings
from stream.warmup import warm_up, warming_frame


def compiled():
    """How many versions of each kernel of the detector this process has."""
    kernels = [one for one in gc.get_objects() if isinstance(one, CPUDispatcher)]
    named = {f"{one.py_func.__module__}.{one.py_func.__qualname__}": len(one.signatures) for one in kernels}
    return {name: count for name, count in named.items() if name.startswith("detector.")}


def test_after_warming_up_a_frame_compiles_nothing(tmp_path):
    write_fields(tmp_path, Plan("euclid-vis", asteroids=200, shape=(512, 512), dithers=2), 71)
    science = load_science(load_settings(None, {}), "streaknet", link_threshold=0.001)
    read = message_reader(None, Limits())
    warm_up(read, science.prepare, science.examine)
    before = compiled()
    assert sum(before.values()) > 30
    one, other = (
        next(iter(read(path.read_bytes(), name=path.name, survey=None, extension=None)))
        for path in sorted(tmp_path.glob("*.fits"))
    )
    found = science.examine(one, others=(science.prepare(other),))
    assert len(found.streaks)
    more = {name: (before.get(name, 0), count) for name, count in compiled().items() if count != before.get(name, 0)}
    assert not more


def test_a_gpu_that_fails_while_warming_up_is_told_as_such_and_a_defect_of_ours_is_not():
    def examiner(error):
        return Examiner(read=None, examine=None, warm_up=lambda: (_ for _ in ()).throw(error))

    with pytest.raises(MachineError, match=r"warming up: the GPU failed.*No message was taken"):
        warmed_up(examiner(RuntimeError("CUDA error: an illegal memory access was encountered")))
    with pytest.raises(RuntimeError, match="changed size"):
        warmed_up(examiner(RuntimeError("dictionary changed size during iteration")))


def test_the_frame_to_warm_up_with_is_a_frame_of_the_same_sky_each_time():
    one, later = (next(iter(read_frames(warming_frame(minutes), name="warm-up"))) for minutes in (0, 10))
    assert not {"no-wcs", "no-time", "no-gain"} & {*one.header.flags, *later.header.flags}
    assert abs(later.header.mid_time_mjd_tai - one.header.mid_time_mjd_tai - 10.0 / 1440.0) < 1e-9
    assert (one.mask != 0).any()
    assert warming_frame(0) == warming_frame(0) != warming_frame(10)
