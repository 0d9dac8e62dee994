"""How deep the search goes tonight, by streaks put into copies of its own frames."""

import functools

import numpy as np
import pytest

from detector.evidence import NAMES
from detector.examine import Search, examine
from detector.frame import Frame, FrameHeader
from detector.streaks import Findings, empty
from detector.survey import GENERIC
from models.evaluate.sensitivity import Sensitivity, try_frame

SHAPE = (300, 400)


class SnrJudge:
    """In the place of the networks: what the fit calls brighter than SNR 7 is a streak."""

    window, step = 96, 8

    def __call__(self, strip: np.ndarray, fwhm_px: float) -> np.ndarray:  # noqa: ARG002
        raise AssertionError("the matched filter alone proposes here")

    def judge(self, stamps: np.ndarray, evidence: np.ndarray) -> np.ndarray:  # noqa: ARG002
        return 10 * (evidence[:, NAMES.index("snr")] - np.log(7.0))

    def probability(self, logit: np.ndarray, expected_per_frame: float) -> np.ndarray:  # noqa: ARG002
        return 1 / (1 + np.exp(-logit))


EXAMINE = functools.partial(examine, network=SnrJudge(), search=Search(method="matched", threshold=0.5))


def night(exposure, sky_e=400.0, **header):
    pixels = np.random.default_rng(len(exposure)).poisson(sky_e, SHAPE).astype(np.float32)
    known = {"exposure": exposure, "ccd": "1", "zero_point": 25.0, "exposure_s": 100.0} | header
    return Frame(FrameHeader("a.fits", 0, SHAPE, GENERIC, **known), pixels, np.zeros(SHAPE, np.uint8))


def nothing(frame):
    return Findings(frame.header, empty(0), 0.0, 0.0, 2.5, {}, {}, ())


@functools.cache
def halves(sky_e, zero_point=25.0):
    measured = Sensitivity(EXAMINE, share=1.0, window=200)
    for number in range(6):
        frame = night(f"E{number}", sky_e, zero_point=zero_point)
        trial = measured.measure(frame, nothing(frame))
    return trial.half_magnitude, trial.half_snr


def test_a_brighter_sky_takes_magnitudes_away_and_leaves_the_snr_of_half_alone():
    dark, dark_snr = halves(400.0)
    bright, bright_snr = halves(1600.0)
    assert dark - bright == pytest.approx(2.5 * np.log10(2.0), abs=0.2)  # four times the sky, twice the noise
    assert bright_snr == pytest.approx(dark_snr, rel=0.2)
    assert 5.0 < dark_snr < 10.0


def test_half_the_light_at_the_same_sky_takes_what_the_zero_point_says():
    assert halves(400.0)[0] - halves(400.0, zero_point=24.25)[0] == pytest.approx(0.75, abs=0.01)


def test_the_magnitude_bins_hold_every_streak_once():
    frame = night("E1")
    trial = try_frame(frame, nothing(frame), EXAMINE)
    bins = list(trial.by_magnitude())
    assert sum(injected for _, injected, _ in bins) == len(trial.mag) >= 8
    assert sum(found for _, _, found in bins) == trial.found.sum() > 0
    assert all((middle / 0.5) % 1 == 0.5 for middle, _, _ in bins)
    assert trial.system == "AB"


def test_a_frame_tells_the_same_however_often_it_is_asked_and_its_pixels_stay():
    frame = night("E1")
    before = frame.pixels.copy()
    first, second = (try_frame(frame, nothing(frame), EXAMINE) for _ in range(2))
    np.testing.assert_array_equal(first.mag, second.mag)
    np.testing.assert_array_equal(first.found, second.found)
    np.testing.assert_array_equal(frame.pixels, before)


def test_what_the_frame_shows_by_itself_is_not_counted_as_found():
    frame = night("E1")
    shown = []
    trial = try_frame(frame, nothing(frame), lambda copy: shown.append(EXAMINE(copy)) or shown[-1])
    again = try_frame(frame, shown[0], EXAMINE)
    assert trial.found.any()
    assert not again.found.any()


def test_the_share_is_chosen_by_the_frames_identity():
    frames = [night(f"E{number}", sky_e=1.0) for number in range(400)]
    chosen = [Sensitivity(nothing, share=0.1, window=30).wants(frame) for frame in frames]
    assert 20 <= sum(chosen) <= 65
    assert chosen == [Sensitivity(nothing, share=0.1, window=30).wants(frame) for frame in frames]
    assert not any(Sensitivity(nothing, share=0.0, window=30).wants(frame) for frame in frames)
    assert all(Sensitivity(nothing, share=1.0, window=30).wants(frame) for frame in frames)


def test_magnitudes_are_instrumental_without_a_zero_point_and_a_frame_without_room_tells_nothing():
    frame = night("E1", zero_point=None)
    assert try_frame(frame, nothing(frame), EXAMINE).system == "instrumental"
    small = Frame(
        FrameHeader("b.fits", 0, (18, 18), GENERIC), np.full((18, 18), 9.0, np.float32), np.zeros((18, 18), np.uint8)
    )
    assert try_frame(small, nothing(small), nothing) is None
