"""Spikes: what points at a bright star is doubted, the rest is left alone."""

import numpy as np

from detector.frame import MaskBit
from detector.spikes import FARTHEST_RADII, beside_stars, bright_stars, doubted, points_at_star


def test_bright_and_saturated_stars_are_found_where_they_are_widest() -> None:
    whitened = np.zeros((300, 400), np.float32)
    mask = np.zeros(whitened.shape, np.uint8)
    whitened[100:105, 200:205] = 5_000.0
    mask[40:60, 298:303] = MaskBit.SATURATED  # a core, and the charge that bled up its column
    mask[60:250, 300] = MaskBit.SATURATED
    whitened[10, 10] = 9_000.0  # a cosmic ray
    stars = bright_stars(whitened, mask)
    np.testing.assert_allclose(stars[np.argsort(stars[:, 0])], [[202.0, 102.0, 2.8], [300.0, 49.5, 2.5]], atol=1.0)
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
