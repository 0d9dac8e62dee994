"""Merging: many windows, one streak."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.merging import merge, reached
from detector.proposals import Proposals
from detector.repeats import first_rows
from detector.snippets import Snippets, snippets
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


def windows_along(path: np.ndarray, noise_px: float, *, scale: float = 1.0, seed: int = 0) -> Proposals:
    """What windows of 96 px (times the scale) say whose middles lie on ``path`` ``[n, 2]``, each with a slope error."""
    rng = np.random.default_rng(seed)
    tangent = np.gradient(path, axis=0)
    tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    half = 48.0 * scale * rng.uniform(0.8, 1.1, len(path))[:, None]
    ends = np.concatenate([path - half * tangent, path + half * tangent], axis=1)
    ends += rng.normal(size=ends.shape) * noise_px * scale
    return Proposals(ends, rng.uniform(-1.0, 2.0, len(path)), np.full(len(path), scale), np.ones(len(path), np.int64))


def together(*tables: Proposals) -> Proposals:
    return Proposals(
        np.concatenate([table.ends for table in tables]),
        np.concatenate([table.logit for table in tables]),
        np.concatenate([table.scale for table in tables]),
        np.concatenate([table.members for table in tables]),
    )


def length_of(ends: np.ndarray) -> float:
    return float(np.hypot(*(ends[2:] - ends[:2])))


def test_a_curved_trail_across_four_thousand_pixels_is_one_row_at_all_scales() -> None:
    t = np.linspace(-1.0, 1.0, 500)
    path = np.stack([2048 + 2000 * t, 1000 + 700 * t + 6.0 * (1 - t**2)], axis=1)
    seen = together(*(windows_along(path[:: int(s)], 3.0, scale=s, seed=int(s)) for s in (1.0, 2.0, 4.0)))
    merged = merge(seen)
    assert len(merged) == 1
    assert merged.members[0] == len(seen)
    assert 0.97 * 4240 < length_of(merged.ends[0]) < 1.08 * 4240


def test_a_trail_torn_by_stars_and_dead_columns_is_one_row() -> None:
    t = np.linspace(0.0, 2000.0, 251)
    path = np.stack([20 + 0.8 * t, 50 + 0.6 * t], axis=1)
    there = ~(((t > 500) & (t < 700)) | ((t > 1300) & (t < 1460)))
    merged = merge(windows_along(path[there], 3.0))
    assert len(merged) == 1
    assert length_of(merged.ends[0]) > 1900


def test_a_wide_trail_seen_on_several_lines_beside_each_other_is_one_row() -> None:
    t = np.linspace(0.0, 1500.0, 188)
    path = np.stack([100 + t, 300 + 0.2 * t], axis=1)
    beside = [windows_along(path + np.array([0.0, shift]), 2.0, seed=k) for k, shift in enumerate((-5.0, 0.0, 5.0))]
    merged = merge(together(*beside), fwhm_px=8.0)
    assert len(merged) == 1


def test_two_trails_that_cross_stay_two() -> None:
    t = np.linspace(-600.0, 600.0, 151)
    one = np.stack([700 + t * math.cos(0.3), 700 + t * math.sin(0.3)], axis=1)
    other = np.stack([700 + t * math.cos(0.9), 700 + t * math.sin(0.9)], axis=1)
    merged = merge(together(windows_along(one, 2.0), windows_along(other, 2.0, seed=1)))
    long = [row for row in merged.ends if length_of(row) > 1000]
    assert len(long) == 2


def test_many_doubtful_windows_on_one_line_come_before_one_that_is_surer() -> None:
    t = np.linspace(0.0, 120.0, 16)
    faint = windows_along(np.stack([200 + t, 200 + 0.5 * t], axis=1), 2.0)
    faint = Proposals(faint.ends, np.zeros(16), faint.scale, faint.members)
    surer = Proposals(np.array([[600.0, 600.0, 612.0, 600.0]]), np.array([1.5]), np.ones(1), np.ones(1, np.int64))
    merged = merge(together(surer, faint))
    assert len(merged) == 2
    np.testing.assert_allclose(merged.logit, [math.log(16), 1.5])


def test_a_joiner_decides_which_snippets_make_a_streak() -> None:
    t = np.linspace(0.0, 500.0, 63)
    seen = windows_along(np.stack([100 + t, 100 + 0.3 * t], axis=1), 1.0)
    windows = seen.take(np.argsort(-seen.logit))
    table, owner = snippets(windows)
    assert len(table.logit) > 3
    assert owner.max() + 1 == len(table.logit)

    def all_of_them(asked: Snippets) -> np.ndarray:
        assert asked.features.shape[:2] == asked.neighbours.shape
        return (asked.neighbours >= 0).astype(float)

    assert len(merge(seen, joiner=all_of_them)) == 1


def test_a_piece_sees_itself_and_its_neighbours_in_order_along_its_line() -> None:
    t = np.linspace(0.0, 300.0, 39)
    seen = windows_along(np.stack([100 + t, 100 + 0.3 * t], axis=1), 1.0)
    table, _ = snippets(seen.take(np.argsort(-seen.logit)))
    for row in range(len(table.logit)):
        there = table.neighbours[row] >= 0
        assert (table.neighbours[row] == row).sum() == 1
        assert there[: there.sum()].all()
        middle = table.features[row, there, 1:3].mean(axis=1)
        assert (np.diff(middle) >= -1e-6).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(0.01, 1.0)), min_size=1, max_size=20),
    st.floats(0.01, 5.0),
)
def test_what_is_reached_is_where_so_much_weight_lies_beyond(rows: list[tuple[float, float]], least: float) -> None:
    t, weight = np.array(rows).T
    found = reached(np.ascontiguousarray(t), np.ascontiguousarray(weight), least)
    assert found in t
    beyond = weight[t > found].sum()
    assert beyond < least + 1e-9
    assert weight[t >= found].sum() >= min(least, weight.sum()) - 1e-9


def kept(ends: list[list[float]], score: list[float], width_px: float = 2.0) -> list[int]:
    return sorted(first_rows(np.array(ends), np.array(score), width_px).tolist())


def test_pieces_and_wings_of_a_fitted_trail_are_left_out() -> None:
    trail = [100.0, 100.0, 500.0, 300.0]
    piece = [200.0, 151.0, 260.0, 180.0]
    wing = [300.0, 204.5, 420.0, 264.5]
    turned = [250.0, 170.0, 300.0, 204.0]
    assert kept([trail, piece, wing, turned], [0.9, 0.5, 0.4, 0.3]) == [0]


def test_a_longer_row_about_as_good_takes_the_place_of_its_piece() -> None:
    piece, trail = [200.0, 150.0, 260.0, 180.0], [100.0, 100.0, 500.0, 300.0]
    assert kept([piece, trail], [0.95, 0.9]) == [1]
    assert kept([piece, trail], [0.95, 0.1]) == [0]


def test_what_a_fit_left_of_a_torn_trail_is_one_row() -> None:
    assert kept([[100.0, 100.0, 500.0, 300.0], [560.0, 330.0, 960.0, 530.0]], [0.9, 0.8]) == [0]
    assert kept([[100.0, 100.0, 110.0, 105.0], [130.0, 115.0, 140.0, 120.0]], [0.9, 0.8]) == [0, 1]


def test_crossing_and_parallel_streaks_stay_two() -> None:
    assert kept([[100.0, 100.0, 200.0, 150.0], [120.0, 160.0, 180.0, 95.0]], [0.9, 0.8]) == [0, 1]
    assert kept([[100.0, 100.0, 200.0, 100.0], [100.0, 106.5, 200.0, 106.5]], [0.9, 0.8]) == [0, 1]
    assert kept([[100.0, 100.0, 104.0, 100.0], [100.0, 107.0, 104.0, 107.0]], [0.9, 0.8]) == [0, 1]


def test_wings_of_a_wide_trail_are_looked_for_as_far_out() -> None:
    beside = [[100.0, 100.0, 500.0, 100.0], [150.0, 112.0, 400.0, 112.0]]
    assert kept(beside, [0.9, 0.8], width_px=2.0) == [0, 1]
    assert kept(beside, [0.9, 0.8], width_px=8.0) == [0]


def test_a_thousand_doubtful_windows_along_a_border_are_not_summed_without_end() -> None:
    t = np.linspace(0.0, 1500.0, 1000)
    seen = windows_along(np.stack([50 + t, np.full(1000, 60.0)], axis=1), 1.0)
    merged = merge(Proposals(seen.ends, np.full(1000, -5.0), seen.scale, seen.members))
    assert len(merged) == 1
    assert merged.logit[0] < 0.0
