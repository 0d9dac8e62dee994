"""Lines of the detector: what runs along the pixels to the border is doubted, the rest is left alone."""

import numpy as np

from detector.gridlines import LEAST_ODDS, along_the_grid, grid_doubted

LINES = np.array(
    [
        [47.0, -3.0, 47.4, 101.0],  # a column, out of the frame at both ends
        [2.0, 300.0, 99.0, 300.9],  # a row, to one border
        [47.0, -3.0, 52.0, 101.0],  # three degrees off
        [47.0, 10.0, 47.1, 22.0],  # short
        [np.nan] * 4,
    ]
)


def test_only_a_long_line_along_the_pixels_that_reaches_the_border_is_the_detectors() -> None:
    everywhere = np.ones(len(LINES), np.bool_)
    np.testing.assert_array_equal(along_the_grid(LINES, everywhere), [True, True, False, False, False])
    assert not along_the_grid(LINES, ~everywhere).any()


def test_the_longer_an_aligned_line_the_less_of_its_odds_is_left() -> None:
    lines = np.array([[50.0, 0.0, 50.0, length] for length in (40.0, 100.0, 1_000.0, 1e6)])
    score = np.full(4, 0.9)
    doubted = grid_doubted(score, np.ones(4, np.bool_), lines)
    odds = doubted / (1.0 - doubted) / 9.0
    np.testing.assert_allclose(odds[:2], [0.0048, 0.0019], rtol=0.03)
    assert (np.diff(odds) < 0).all()
    np.testing.assert_allclose(odds[3], LEAST_ODDS, rtol=1e-6)
    np.testing.assert_array_equal(grid_doubted(score, np.zeros(4, np.bool_), lines), score)
