"""Files as exposures of their fields: who is looked at beside whom, in what order, and in how much memory."""

import functools
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest
from astropy.io import fits

from detector.fits import read_frames
from detector.fitsarchive import file_pointing, frame_labels
from detector.fitsheader import Limits
from detector.frame import BadFrame
from stream.export import Refused
from stream.fieldwise import Fieldwise, Looks, examine_exposures
from stream.inventory import Inventory
from tests.stream.archives import Ready, image, pointed
from tests.stream.stand_in import findings, streaks

POINT = functools.partial(file_pointing, limits=Limits())


@dataclass
class Detect:
    """The loop of ``detect`` with a science that only remembers: what was prepared, and what each was shown."""

    max_bytes: int = 10_000
    prepared: list = field(default_factory=list)
    shown: list = field(default_factory=list)

    def prepare(self, frame):
        ready = Ready(frame.header)
        self.prepared.append(ready.name)
        return ready

    def examine(self, ready, *, others):
        if ready.header.ccd == "13":
            raise BadFrame("constant", "all pixels are equal")
        self.shown.append((ready.name, [one.name for one in others]))
        return findings(ready.header, streaks(1, seed=3))

    def run(self, files, read=lambda file: read_frames(file, name=str(file))):
        way = Fieldwise(read, POINT, self.prepare, self.examine, self.max_bytes)
        return list(examine_exposures(files, way))


def test_files_that_show_one_field_come_one_after_the_other(tmp_path):
    told = {
        "a1": {"minutes": 0},
        "b1": {"minutes": 5, "east_arcsec": 60.0},
        "a2": {"minutes": 10, "east_arcsec": 5.0},
        "b2": {"minutes": 15, "east_arcsec": 55.0},
        "a2-copy": {"minutes": 10, "east_arcsec": 5.0},
        "a-other-filter": {"minutes": 20, "filter": "i"},
        "a-other-chip": {"minutes": 21, "size": 22},
        "a-half-a-day-later": {"minutes": 760},
    }
    told |= {f"a{k}": {"minutes": 30 + k} for k in range(3, 10)}
    files = [pointed(tmp_path / f"{name}.fits", **words) for name, words in told.items()]
    nowhere = image(tmp_path / "nowhere.fits")
    assert [[file.stem for file in group] for group in Looks([*files, nowhere], POINT).in_turns()] == [
        ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"],
        ["b1", "b2"],
        ["a2-copy", "a9"],
        ["a-other-filter"],
        ["a-other-chip"],
        ["a-half-a-day-later"],
        ["nowhere"],
    ]


def test_who_shows_a_field_is_settled_as_an_archive_that_is_replayed_settles_it(tmp_path):
    rng = np.random.default_rng(8)
    files = [
        pointed(tmp_path / f"{k:02d}.fits", minutes=int(rng.integers(0, 900)), east_arcsec=float(rng.uniform(0, 40)))
        for k in range(40)
    ]
    files += [shutil.copy(files[3], tmp_path / "copy.fits"), image(tmp_path / "nowhere.fits")]
    inventory = Inventory(tmp_path / "state" / "inventory.sqlite", "1")
    inventory.scan([tmp_path], functools.partial(frame_labels, limits=Limits()), looked=lambda _: None)
    inventory.point(POINT, looked=lambda _: None)
    looks = Looks(files, POINT)
    fields = [looks.field_of(file) for file in files]
    assert fields == [inventory.field_of(file) for file in files]
    assert {1, 8} <= {len(one) for one in fields}


def test_each_frame_is_shown_the_others_of_its_field_and_each_is_prepared_once(tmp_path):
    # The outer two do not see each other.
    files = [pointed(tmp_path / f"{k}.fits", minutes=9 * k, east_arcsec=15.0 * k) for k in range(3)]
    detect = Detect()
    outcomes = detect.run([*files, image(tmp_path / "nowhere.fits")])
    assert dict(detect.shown) == {
        "0.fits[0]": ["1.fits[0]"],
        "1.fits[0]": ["0.fits[0]", "2.fits[0]"],
        "2.fits[0]": ["1.fits[0]"],
        "nowhere.fits[0]": [],
    }
    assert sorted(detect.prepared) == sorted(name for name, _ in detect.shown)
    assert all(frame.header.name == found.header.name for frame, found in outcomes)


def mosaic(path, *, minutes, places):
    """A file of CCDs, each so many arcsec East."""
    hdus = []
    for number, east_arcsec in enumerate(places):
        alone = pointed(path.with_suffix(f".{number}.fits"), minutes=minutes, east_arcsec=east_arcsec)
        with fits.open(alone) as file:
            header = file[0].header
            for keyword in ("SIMPLE", "EXTEND"):
                header.remove(keyword)
            header["CCD"] = number + 1
            hdus.append(fits.ImageHDU(file[0].data, header))
        alone.unlink()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def test_a_mosaic_goes_ccd_by_ccd_and_each_is_shown_the_one_that_looked_where_it_did(tmp_path):
    places = (0.0, 100.0, 200.0)
    files = [mosaic(tmp_path / f"{k}.fits", minutes=9 * k, places=places) for k in range(2)]
    # The third has its second and third CCD the other way round.
    files.append(mosaic(tmp_path / "2.fits", minutes=18, places=(0.0, 200.0, 100.0)))
    detect = Detect(max_bytes=400)
    detect.run(files)
    assert [name for name, _ in detect.shown] == [f"{k}.fits[{hdu}]" for hdu in (1, 2, 3) for k in (0, 1, 2)]
    shown = dict(detect.shown)
    assert shown["0.fits[1]"] == ["1.fits[1]", "2.fits[1]"]
    assert shown["0.fits[2]"] == ["1.fits[2]", "2.fits[3]"]
    assert shown["2.fits[2]"] == ["0.fits[3]", "1.fits[3]"]


def test_what_has_no_room_is_prepared_again_and_gives_the_same(tmp_path):
    files = [pointed(tmp_path / f"{k}.fits", minutes=9 * k) for k in range(3)]
    roomy, cramped = Detect(max_bytes=300), Detect(max_bytes=100)
    roomy.run(files)
    cramped.run(files)
    assert roomy.shown == cramped.shown
    assert len(roomy.prepared) == 3
    assert len(cramped.prepared) > 3


@pytest.mark.parametrize("trouble", ["no FITS", "gone", "goes while it is open"])
def test_what_cannot_be_read_is_refused_and_the_others_say_that_they_were_not_shown_it(tmp_path, trouble):
    files = [pointed(tmp_path / f"{k}.fits", minutes=9 * k) for k in range(3)]
    looked_at = POINT(files[1])
    broken = files[1]

    def read(file):
        if file == broken and trouble == "no FITS":
            broken.write_bytes(b"nothing")
        if file == broken and trouble == "gone":
            broken.unlink()
        reading = read_frames(file, name=str(file))
        if file == broken and trouble == "goes while it is open":
            broken.unlink()
        return reading

    detect = Detect()
    way = Fieldwise(
        read, lambda file: looked_at if file == broken else POINT(file), detect.prepare, detect.examine, 10_000
    )
    outcomes = list(examine_exposures(files, way))
    (refused,) = [one for one in outcomes if isinstance(one, Refused)]
    assert refused.frame == str(broken)
    assert refused.reason == ("not-fits" if trouble == "no FITS" else "unreadable")
    done = [one[1] for one in outcomes if not isinstance(one, Refused)]
    assert ["other-exposures-unread" in found.flags for found in done] == [True, True]
    assert [others for _, others in detect.shown] == [["2.fits[0]"], ["0.fits[0]"]]


def test_a_frame_that_cannot_be_examined_is_refused_with_its_hdu(tmp_path):
    detect = Detect()
    outcomes = detect.run([image(tmp_path / "a.fits", ccd=13), image(tmp_path / "b.fits", ccd=12)])
    assert isinstance(outcomes[0], Refused)
    assert (outcomes[0].extension, outcomes[0].reason) == (0, "constant")
    assert not isinstance(outcomes[1], Refused)
