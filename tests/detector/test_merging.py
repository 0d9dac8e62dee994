"""Merging: many windows, one streak."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.merging import Proposals, first_rows, merge
from detector.tiling import Tiling
from models.training.cells import label_cells


def proposals_of(trails: list[list[float]], shape: tuple[int, int], noise_px: float, seed: int = 0) -> Proposals:
    """What a perfect network, but for noise on the ends, would say of these trails."""
    tiling, rng = Tiling(), np.random.default_rng(seed)
    ends, logits = [], []
    for trail in trails:
        row = np.array([[*trail, 1000.0, 1.0]])
        target, _ = label_cells(row, tiling.grid(shape), tiling.window, tiling.step)
        for r, c in zip(*np.nonzero(target[0]), strict=True):
            origin = [tiling.step * c - tiling.margin, tiling.step * r - tiling.margin] * 2
            ends.append(target[1:, r, c] + origin + rng.normal(size=4) * noise_px)
            logits.append(rng.uniform(2, 6))
    n = len(logits)
    return Proposals(np.array(ends).reshape(-1, 4), np.array(logits), np.ones(n), np.ones(n, np.int64))


def off(found: np.ndarray, truth: list[float]) -> float:
    direct, swapped = np.abs(found - truth).max(), np.abs(found[[2, 3, 0, 1]] - truth).max()
    return float(min(direct, swapped))


def test_a_streak_across_four_windows_is_one_streak() -> None:
    trail = [100.0, 103.0, 260.0, 211.0]
    seen = proposals_of([trail], (400, 400), 0.5)
    assert len(seen) >= 4
    merged = merge(seen)
    assert len(merged) == 1
    assert merged.members[0] == len(seen)
    assert off(merged.ends[0], trail) < 3.0


@settings(max_examples=25, deadline=None)
@given(st.floats(0, math.pi), st.integers(0, 1000))
def test_a_trail_that_crosses_the_frame_is_one_row(angle: float, seed: int) -> None:
    dx, dy = 900 * math.cos(angle), 900 * math.sin(angle)
    seen = proposals_of([[512 - dx, 512 - dy, 512 + dx, 512 + dy]], (1024, 1024), 1.0, seed)
    merged = merge(seen)
    assert len(merged) == 1
    length = math.hypot(*(merged.ends[0][2:] - merged.ends[0][:2]))
    assert length > 0.95 * 1024


def test_two_streaks_of_one_window_stay_two() -> None:
    parallel = [[100.0, 100.0, 130.0, 100.0], [100.0, 112.0, 130.0, 112.0]]
    crossing = [[200.0, 200.0, 240.0, 240.0], [200.0, 240.0, 240.0, 205.0]]
    assert len(merge(proposals_of(parallel, (400, 400), 0.5))) == 2
    assert len(merge(proposals_of(crossing, (400, 400), 0.5))) == 2


def test_the_best_comes_first_with_the_summed_odds_of_its_windows() -> None:
    seen = proposals_of([[50.0, 50.0, 90.0, 60.0], [200.0, 300.0, 360.0, 310.0]], (400, 400), 0.5)
    merged = merge(seen)
    assert merged.logit.tolist() == sorted(merged.logit, reverse=True)
    short = seen.ends[:, 1] < 100.0
    sums = [np.log(np.exp(seen.logit[rows]).sum()) for rows in (short, ~short)]
    np.testing.assert_allclose(merged.logit, sorted(sums, reverse=True))


def test_a_doubtful_window_does_not_make_a_certain_streak_longer() -> None:
    ends = np.array([[100.0, 100.0, 130.0, 100.0], [125.0, 100.0, 190.0, 100.0]])
    pair = Proposals(ends, np.array([8.0, -5.0]), np.ones(2), np.ones(2, np.int64))
    merged = merge(pair)
    assert len(merged) == 1
    np.testing.assert_array_equal(merged.ends[0], ends[0])


def test_nothing_merges_to_nothing() -> None:
    nothing = Proposals(np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    assert len(merge(nothing)) == 0
    assert len(first_rows(nothing.ends, nothing.logit)) == 0


def test_a_short_streak_is_not_made_longer_by_doubtful_windows_on_its_line() -> None:
    ends = np.array([[100.0, 100.0, 110.0, 100.0], [105.0, 100.0, 150.0, 101.0], [60.0, 99.0, 108.0, 100.0]])
    seen = Proposals(ends, np.array([1.2, -1.0, -1.5]), np.ones(3), np.ones(3, np.int64))
    merged = merge(seen)
    assert len(merged) == 1
    np.testing.assert_allclose(merged.ends[0], ends[0])
