"""The line's model against numerical integration, its derivatives against differences, for PSFs of any shape."""

import numpy as np
import pytest

from detector.lineprofile import line_frame, line_profile, line_tables
from detector.psf import Psf

ROUND = Psf(sigmas=np.array([0.8, 1.8]), weights=np.array([0.8, 0.2]), fwhm_px=1.95, n_stars=50)
# Out of round and lopsided: two Gaussians beside each other, sampled every 0.2 px.
PARTS = ((0.7, 0.3, -0.2, 0.9), (0.3, -0.7, 0.46, 1.3))  # weight, x, y, sigma


def lopsided(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return sum(
        weight * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 2 / sigma**2) / (2 * np.pi * sigma**2)
        for weight, px, py, sigma in PARTS
    )


def measured() -> Psf:
    x, y = np.meshgrid(np.arange(-50, 51) * 0.2, np.arange(-50, 51) * 0.2)
    return Psf(np.ones(1), np.ones(1), 2.4, 50, lopsided(x, y), 0.2)


def drawn(psf: Psf, ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Value and derivatives [h, w, 6] of a line of unit flux."""
    tables = line_tables(psf).arrays
    ux, uy, length, direction = line_frame(ends)
    return np.array(
        [
            [line_profile(x - ends[0], y - ends[1], ux, uy, length, direction, tables) for x in range(shape[1])]
            for y in range(shape[0])
        ]
    )


def brute_force(ends: np.ndarray, shape: tuple[int, int], profile) -> np.ndarray:
    """The same line as a sum of 2,000 points."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    steps = (np.arange(2000) + 0.5) / 2000
    return sum(
        profile(x - ends[0] - t * (ends[2] - ends[0]), y - ends[1] - t * (ends[3] - ends[1])) / 2000 for t in steps
    )


def circular(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    heights = ROUND.weights / (2 * np.pi * ROUND.sigmas**2)
    return sum(h * np.exp(-(x**2 + y**2) / 2 / s**2) for h, s in zip(heights, ROUND.sigmas, strict=True))


@pytest.mark.parametrize("ends", [[10.2, 8.7, 31.4, 22.1], [20.0, 25.0, 20.3, 11.0], [15.1, 16.2, 16.9, 16.4]])
@pytest.mark.parametrize(("psf", "profile"), [(ROUND, circular), (measured(), lopsided)], ids=["round", "lopsided"])
def test_the_table_is_the_integral_over_the_line(ends: list[float], psf: Psf, profile) -> None:
    line = np.array(ends)
    exact = brute_force(line, (34, 44), profile)
    # The PSF turns in steps: a lopsided one is up to 1.5 degrees off.
    tolerance = (2e-4 if psf is ROUND else 8e-3) * exact.max()
    seen = drawn(psf, line, (34, 44))[..., 0]
    near = seen != 0.0
    assert near.sum() > 100
    np.testing.assert_allclose(seen[near], exact[near], atol=tolerance)
    assert seen.sum() == pytest.approx(1.0, abs=0.005)


def test_the_derivatives_are_those_of_the_value() -> None:
    ends = np.array([10.2, 8.7, 31.4, 22.1])
    tables = line_tables(measured()).arrays
    direction = line_frame(ends)[3]

    def value(line: np.ndarray, x: float, y: float) -> np.ndarray:
        ux, uy, length, _ = line_frame(line)
        return np.array(line_profile(x - line[0], y - line[1], ux, uy, length, direction, tables))

    for x, y in [(11.0, 9.0), (20.0, 15.0), (31.0, 23.0), (9.0, 8.0), (25.0, 17.0)]:
        expected = value(ends, x, y)
        for k in range(4):
            step = np.zeros(4)
            step[k] = 1e-4
            slope = (value(ends + step, x, y)[0] - value(ends - step, x, y)[0]) / 2e-4
            assert slope == pytest.approx(expected[1 + k], rel=1e-3, abs=1e-7)


def test_the_derivative_by_the_width_is_that_of_a_wider_psf() -> None:
    ends = np.array([10.2, 8.7, 31.4, 22.1])
    wider, narrower = (Psf(ROUND.sigmas * f, ROUND.weights, ROUND.fwhm_px * f, 50) for f in (1.01, 1 / 1.01))
    slope = (drawn(wider, ends, (30, 40)) - drawn(narrower, ends, (30, 40)))[..., 0] / (2 * np.log(1.01))
    expected = drawn(ROUND, ends, (30, 40))
    near = expected[..., 0] > 1e-4
    np.testing.assert_allclose(expected[near][:, 5], slope[near], atol=1e-4)


def test_a_point_has_a_direction() -> None:
    seen = drawn(ROUND, np.array([15.0, 15.0, 15.0, 15.0]), (30, 30))
    assert np.isfinite(seen).all()
    assert seen[..., 0].sum() == pytest.approx(1.0, abs=0.01)
