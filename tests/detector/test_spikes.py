"""Spikes: what points at a bright star is doubted, the rest is left alone."""

import numpy as np

from detector.frame import MaskBit
from detector.spikes import (
    FARTHEST_RADII,
    beside_stars,
    bright_stars,
    doubted,
    doubted_by_angle,
    lies_along,
    points_at_star,
    spike_angles,
)


def test_bright_and_saturated_stars_are_found_where_they_are_widest() -> None:
    whitened = np.zeros((300, 400), np.float32)
    mask = np.zeros(whitened.shape, np.uint8)
    whitened[100:105, 200:205] = 5_000.0
    mask[40:60, 298:303] = MaskBit.SATURATED  # a core, and the charge that bled up its column
    mask[60:250, 300] = MaskBit.SATURATED
    whitened[10, 10] = 9_000.0  # a cosmic ray
    stars = bright_stars(whitened, mask)
    np.testing.assert_allclose(stars[np.argsort(stars[:, 0])], [[202.0, 102.0, 3.0], [300.0, 49.5, 3.0]], atol=1.5)
    assert bright_stars(np.full((20, 20), np.nan, np.float32), np.zeros((20, 20), np.uint8)).shape == (0, 3)


def test_only_a_line_that_points_at_a_star_nearby_is_a_spike() -> None:
    stars = np.array([[100.0, 100.0, 3.0]])
    lines = np.array(
        [
            [120.0, 120.0, 180.0, 180.0],  # away from it
            [40.0, 100.0, 160.0, 101.0],  # through it
            [120.0, 135.0, 180.0, 195.0],  # parallel, 11 px beside it
            [400.0, 400.0, 430.0, 430.0],  # points at it from afar
            [103.0, 103.0, 106.0, 106.0],  # too short to point at anything
            [np.nan] * 4,
        ]
    )
    spike = points_at_star(lines, stars)
    assert spike.tolist() == [True, True, False, False, False, False]
    score = doubted(np.full(6, 0.9), spike, lines, 1e-6)
    np.testing.assert_allclose(score[:2], 0.009 / 0.109, rtol=0.01)
    np.testing.assert_array_equal(score[2:], 0.9)
    # Where bright stars are everywhere, pointing at one says nothing.
    np.testing.assert_allclose(doubted(np.full(6, 0.9), spike, lines, 1e-2), 0.9)


def test_how_near_a_star_is_counts_in_its_own_radii() -> None:
    stars = np.array([[100.0, 100.0, 5.0], [300.0, 100.0, 20.0]])
    lines = np.array(
        [
            [140.0, 100.0, 160.0, 100.0],  # points at both: 50 px are 10 radii of the one, 150 px 7.5 of the other
            [100.0, 150.0, 110.0, 150.0],  # parallel, 50 px above the first
            [np.nan] * 4,
        ]
    )
    near, at = -beside_stars(lines, stars).T
    np.testing.assert_allclose(np.exp(near[:2]), [7.5, np.hypot(5.0, 50.0) / 5.0], rtol=1e-6)
    np.testing.assert_allclose(np.exp(at[:2]), [7.5, FARTHEST_RADII], rtol=1e-6)
    np.testing.assert_allclose(np.exp(near[2]), FARTHEST_RADII)
    np.testing.assert_allclose(np.exp(-beside_stars(lines[:1], stars[:0])), FARTHEST_RADII)


def sky_with_spikes(angles_deg: tuple[float, ...], stars: np.ndarray, seed: int = 1) -> np.ndarray:
    """Noise, and stars with wings that fade as the distance cubed and spikes that fade as its square."""
    y, x = np.mgrid[:600, :700].astype(np.float32)
    out = np.random.default_rng(seed).normal(size=x.shape)
    for sx, sy in stars:
        r = np.hypot(x - sx, y - sy) + 1.0
        out += 5e5 / r**3
        for angle in np.radians(angles_deg):
            across = (y - sy) * np.cos(angle) - (x - sx) * np.sin(angle)
            out += 2e4 / r**2 * np.exp(-0.5 * (across / 0.8) ** 2)
    return out.astype(np.float32)


def test_the_directions_of_spikes_are_measured_on_the_stars_of_the_frame() -> None:
    stars = np.array([[150.0, 200.0], [500.0, 420.0], [380.0, 90.0]])
    mask = np.zeros((600, 700), np.uint8)
    frame = sky_with_spikes((23.0, 83.0, 143.0), stars)
    found = bright_stars(frame, mask)
    np.testing.assert_allclose(found[np.argsort(found[:, 0]), :2], stars[np.argsort(stars[:, 0])], atol=1.0)
    np.testing.assert_allclose(spike_angles(frame, found), [23.0, 83.0, 143.0], atol=1.0)
    assert len(spike_angles(sky_with_spikes((), stars), found)) == 0
    assert len(spike_angles(frame, found[:0])) == 0


def test_a_ghost_and_bled_charge_do_not_move_a_star() -> None:
    y, x = np.mgrid[:200, :200]
    frame = np.where(np.hypot(x - 90, y - 100) < 20, 5e3, 0.0)
    frame[np.hypot(x - 115, y - 95) < 9] = 5e3
    frame[:, 88:91] = 5e3
    (star,) = bright_stars(frame.astype(np.float32), np.zeros(frame.shape, np.uint8))
    np.testing.assert_allclose(star, [90.0, 100.0, 20.0], atol=2.0)


def test_a_long_line_in_the_direction_of_spikes_is_doubted_by_as_much_as_few_fly_so() -> None:
    lines = np.array(
        [[10.0, 10.0, 110.0, 10.5], [10.0, 10.0, 110.0, 20.0], [10.0, 10.0, 15.0, 10.0], [110.0, 9.0, 10.0, 10.0]]
    )
    along = lies_along(lines, np.array([0.2, 60.0, 120.0]))
    assert along.tolist() == [True, False, False, True]
    assert not lies_along(lines, np.zeros(0)).any()
    score = doubted_by_angle(np.full(4, 0.5), along, np.array([0.2, 60.0, 120.0]))
    np.testing.assert_allclose(score, [0.05 / 1.05, 0.5, 0.5, 0.05 / 1.05], rtol=1e-6)
