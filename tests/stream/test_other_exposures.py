"""Other exposures that a message names: found, read, kept, and looked at as `detect` looks at them."""

import functools
import shutil
from dataclasses import replace

import pytest

from detector.fits import read_frames
from detector.fitsarchive import file_pointing
from detector.fitsheader import Limits
from models.simulate.exposure import CAMERAS, Plan, write_fields
from stream.claims import Claims
from stream.commands.science import load_science
from stream.commands.streaming import message_reader
from stream.fieldwise import Fieldwise, examine_exposures
from stream.messages import Message
from stream.otherexposures import OtherExposures
from stream.service import Examiner, answer_to
from stream.settings import load_settings
from tests.stream.archives import Ready, pointed
from tests.stream.stand_in import findings, streaks

READ = message_reader(None, Limits())


class Worker:
    """A worker that only remembers what it was shown, and what it prepared."""

    def __init__(self, root, max_bytes=10_000):
        self.prepared, self.shown = [], []
        others = OtherExposures(Claims((root,)), READ, self.prepare, max_bytes)
        self.examiner = Examiner(read=READ, examine=self.examine, others=others, clock=lambda: 1.7e9)

    def prepare(self, frame):
        ready = Ready(frame.header)
        self.prepared.append(ready.name)
        return ready

    def examine(self, frame, *, others=()):
        self.shown.append([one.name for one in others])
        return findings(frame.header, streaks(1, seed=3))

    def take(self, file, *named):
        """The words of the frames' flags; ``named`` are files or URIs."""
        uris = [name if isinstance(name, str) else name.as_uri() for name in named]
        headers = tuple(("other-exposure", uri.encode()) for uri in uris)
        answer = answer_to(Message("frames", 0, 7, None, file.read_bytes(), headers), self.examiner)
        assert not answer.rejects
        return [found.flags for found in answer.findings]


def test_what_shows_the_field_is_looked_at_in_the_order_of_the_message(tmp_path):
    a, b, c = (pointed(tmp_path / f"{name}.fits", minutes=minutes) for name, minutes in (("a", 0), ("b", 9), ("c", 5)))
    beside = pointed(tmp_path / "beside.fits", minutes=7, east_arcsec=30.0)
    worker = Worker(tmp_path)
    flags = worker.take(a, b, beside, a, c, b)
    assert worker.shown == [["b.fits[0]", "c.fits[0]"]]
    assert "other-exposures-unread" not in flags[0]
    worker.take(a)
    assert worker.shown[1] == []


def test_each_frame_of_a_mosaic_is_shown_with_the_one_that_looked_where_it_did(tmp_path):
    whole = pointed(tmp_path / "whole.fits", minutes=9, n_hdus=3)
    worker = Worker(tmp_path)
    worker.take(pointed(tmp_path / "a.fits", minutes=0, n_hdus=3), whole)
    # A primary's coordinates are nobody's where there are several frames.
    assert worker.shown == [[], [], []]
    one = pointed(tmp_path / "one.fits", minutes=0, n_hdus=1)
    worker.take(one, pointed(tmp_path / "other.fits", minutes=9, n_hdus=1))
    assert worker.shown[3:] == [["other.fits[1]"]]


def test_what_was_prepared_is_kept_until_the_file_changes_or_the_room_is_full(tmp_path):
    a, b, c = (pointed(tmp_path / f"{name}.fits", minutes=minutes) for name, minutes in (("a", 0), ("b", 9), ("c", 5)))
    worker = Worker(tmp_path)
    worker.take(a, b, c)
    worker.take(c, a, b)
    assert worker.prepared == ["b.fits[0]", "c.fits[0]", "a.fits[0]"]
    shutil.move(pointed(tmp_path / "new.fits", minutes=9, seed=55), b)
    worker.take(a, b, c)
    assert worker.prepared[3:] == ["b.fits[0]"]

    small = Worker(tmp_path, max_bytes=250)
    small.take(a, b, c)
    small.take(b, a)
    small.take(a, c, b)
    # Two have room: a comes, b goes, which was not looked at for the longest time.
    assert small.prepared == ["b.fits[0]", "c.fits[0]", "a.fits[0]", "b.fits[0]"]
    assert small.shown[-1] == ["c.fits[0]", "b.fits[0]"]


@pytest.mark.parametrize("what", ["missing", "outside", "no FITS", "no URI", "all of it bad"])
def test_an_exposure_that_cannot_be_had_is_left_out_and_the_frame_is_flagged(tmp_path, what):
    root = tmp_path / "root"
    a, b = pointed(root / "a.fits", minutes=0), pointed(root / "b.fits", minutes=9)
    (root / "text.fits").write_bytes(b"hm")
    (root / "blank.fits").write_bytes(pointed(tmp_path / "blank.fits", minutes=4, size=32).read_bytes()[:5760])
    named = {
        "missing": root / "gone.fits",
        "outside": pointed(tmp_path / "outside.fits", minutes=5),
        "no FITS": root / "text.fits",
        "no URI": "http://[",
        "all of it bad": root / "blank.fits",
    }
    worker = Worker(root)
    (flags,) = worker.take(a, named[what], b)
    assert "other-exposures-unread" in flags
    assert worker.shown == [["b.fits[0]"]]


def test_a_worker_finds_what_detect_finds_when_it_is_shown_the_other_exposures(tmp_path, monkeypatch):
    monkeypatch.setitem(CAMERAS, "euclid-vis", CAMERAS["euclid-vis"]._replace(dither_arcsec=(2.0, 8.0)))
    write_fields(tmp_path, Plan("euclid-vis", asteroids=150, shape=(420, 420), dithers=3), 71)
    files = sorted(tmp_path.glob("*.fits"))
    science = load_science(load_settings(None, {}), "streaknet", link_threshold=0.001)
    way = Fieldwise(
        read=lambda file: read_frames(file, name=str(file)),
        point=functools.partial(file_pointing, limits=Limits()),
        prepare=science.prepare,
        examine=science.examine_prepared,
        max_bytes=10**9,
    )
    expected = [outcome[1] for outcome in examine_exposures(files, way)]
    others = OtherExposures(Claims((tmp_path,)), READ, science.prepare, 10**9)
    examiner = Examiner(read=READ, examine=science.examine, others=others)
    differs = 0
    for file, told in zip(files, expected, strict=True):
        headers = tuple(("other-exposure", other.as_uri().encode()) for other in files if other != file)
        message = Message("frames", 0, 1, None, file.read_bytes(), headers)
        (found,) = answer_to(message, examiner).findings
        assert {"prepare others", "other exposures"} <= set(found.seconds)
        for name in ("streaks", "candidates"):
            assert getattr(found, name).tobytes() == getattr(told, name).tobytes()
        (alone,) = answer_to(replace(message, headers=()), examiner).findings
        differs += len(alone.candidates) != len(found.candidates)
    assert differs
