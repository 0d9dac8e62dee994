"""Flag maps in files of their own: by a pattern beside the frames, or by a header of the message."""

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from detector.fits import read_flags, read_frames
from detector.fitsheader import Limits
from detector.frame import BadFrame, MaskBit
from stream.claims import Claims
from stream.cli import app
from stream.commands.streaming import message_reader
from stream.flagfiles import flags_beside, flags_path, without_flags
from stream.messages import Message
from stream.service import Examiner, answer_to
from tests.stream.stand_in import findings, streaks


def frame_and_flags(folder, *, names=("A", "B"), flag_names=("A", "B"), shape=(20, 30)):
    """A file of two images and one of their flags, whose first map has one flagged pixel, the second one two."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    images = [fits.ImageHDU(rng.normal(100, 5, (20, 30)).astype(np.float32), name=f"{name}.SCI") for name in names]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(folder / "night.fits")
    maps = []
    for k, name in enumerate(flag_names):
        flags = np.zeros(shape, np.int32)
        flags[3, 4 : 5 + k] = 1
        maps.append(fits.ImageHDU(flags, name=name))
    fits.HDUList([fits.PrimaryHDU(), *maps]).writeto(folder / "night_flag.fits")
    return folder / "night.fits", folder / "night_flag.fits"


def flagged_pixels(file, flags):
    frames = list(read_frames(file, name="night", flags=flags))
    assert all(not isinstance(frame, BadFrame) for frame in frames)
    return [int((frame.mask & MaskBit.BAD > 0).sum()) for frame in frames], [frame.header.flags for frame in frames]


@pytest.mark.parametrize(
    ("flag_names", "expected"),
    [(("A.FLG", "B.FLG"), [1, 2]), (("B.FLG", "A.FLG"), [2, 1]), (("", ""), [1, 2]), (("DQ1", "DQ2"), [1, 2])],
)
def test_a_map_belongs_to_the_frame_of_its_name_or_else_of_its_number(tmp_path, flag_names, expected):
    file, flags = frame_and_flags(tmp_path, flag_names=flag_names)
    counts, words = flagged_pixels(file, read_flags(flags, name="flags"))
    assert counts == expected
    assert not any("mask-unreadable" in word for word in words)


def test_what_does_not_fit_or_cannot_be_had_is_not_used_and_the_frames_say_so(tmp_path):
    file, flags = frame_and_flags(tmp_path, shape=(20, 31))
    for given in (read_flags(flags, name="flags"), BadFrame("claim-missing", "no such file")):
        counts, words = flagged_pixels(file, given)
        assert counts == [0, 0]
        assert all("mask-unreadable" in word for word in words)
    assert flagged_pixels(file, None)[0] == [0, 0]


def test_a_single_map_serves_a_single_frame_whatever_it_is_called(tmp_path):
    fits.PrimaryHDU(np.random.default_rng(1).normal(100, 5, (20, 30)).astype(np.float32)).writeto(tmp_path / "a.fits")
    flags = np.zeros((20, 30), np.uint8)
    flags[5, 5:9] = 3
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(flags)]).writeto(tmp_path / "pixels.fits")
    assert flagged_pixels(tmp_path / "a.fits", read_flags(tmp_path / "pixels.fits", name="flags"))[0] == [4]


def test_a_pattern_says_where_flags_lie_and_they_are_no_frames(tmp_path):
    night = tmp_path / "night"
    files = [night / name for name in ("a.fits", "b.fits.fz", "a_flag.fits")]
    assert flags_path(files[1], "../masks/*_flag.fits") == night / "../masks/b_flag.fits"
    assert flags_path(files[1], "{name}.mask") == night / "b.fits.fz.mask"
    assert flags_path(files[0], "{stem}-{stem}.fits") == night / "a-a.fits"
    assert without_flags(files, "*_flag.fits") == files[:2]
    assert without_flags(files, "/calibration/bad.fits") == files
    assert isinstance(flags_beside(files[0], "*_flag.fits", Limits()), BadFrame)


def test_detect_reads_flags_by_a_pattern_and_says_which_are_missing(tmp_path):
    frame_and_flags(tmp_path / "in", flag_names=("A.FLG", "B.FLG"))
    image = fits.PrimaryHDU(np.random.default_rng(1).normal(100, 5, (60, 80)).astype(np.float32))
    image.writeto(tmp_path / "in" / "other.fits")
    words = ["detect", str(tmp_path / "in"), "--flags", "*_flag.fits", "--out", str(tmp_path / "out"), "--alone"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    rows = (tmp_path / "out" / "frames.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0].rpartition("/")[2] for row in rows] == ["night.fits", "night.fits", "other.fits"]
    assert ["mask-unreadable" in row for row in rows] == [False, False, True]
    assert "other_flag.fits: No such file" in done.output


@pytest.mark.parametrize(("uri", "counts"), [("night_flag.fits", [1, 2]), ("gone.fits", [0, 0])])
def test_a_message_may_say_where_its_flags_lie(tmp_path, uri, counts):
    file, _ = frame_and_flags(tmp_path, flag_names=("A.FLG", "B.FLG"))
    seen = []

    def examine(frame):
        seen.append(int((frame.mask & MaskBit.BAD > 0).sum()))
        return findings(frame.header, streaks(1, seed=3))

    examiner = Examiner(read=message_reader(None, Limits()), examine=examine, claims=Claims((tmp_path,)))
    headers = (("flags-uri", (tmp_path / uri).as_uri().encode()),)
    answer = answer_to(Message("frames", 0, 1, None, file.read_bytes(), headers), examiner)
    assert seen == counts
    assert not answer.rejects
