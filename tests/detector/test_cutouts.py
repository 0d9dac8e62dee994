"""Cut-outs: they show the trail straightened, at the binning where it fits, and never reach outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.cutouts import CHANNELS, FILLED, SIDE, bins, cut_out, shown
from detector.psf import Psf

PSF = Psf.gaussian(2.4)
MIDDLE = (SIDE - 1) / 2
PIXELS, RESIDUAL, TRAIL, MASKED, SURROUNDINGS, SHARP = range(len(CHANNELS))


def trail(shape: tuple[int, int], ends: list[float], flux: float) -> np.ndarray:
    """A line of ``flux`` through the PSF, summed from many points."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    out = np.zeros(shape)
    sigma = PSF.sigmas[0]
    steps = np.linspace(0.0, 1.0, 400)
    for px, py in zip(ends[0] + steps * (ends[2] - ends[0]), ends[1] + steps * (ends[3] - ends[1]), strict=True):
        out += np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / sigma**2) / (2 * np.pi * sigma**2)
    return (out * flux / len(steps)).astype(np.float32)


@pytest.mark.parametrize("ends", [[40.2, 60.7, 60.0, 70.0], [130.0, 150.0, 250.0, 210.0], [200.0, 300.0, 205.0, 60.0]])
def test_a_trail_lies_along_the_rows_and_little_is_left_without_the_fitted_one(ends: list[float]) -> None:
    flux = 4000.0
    frame = shown(trail((360, 380), ends, flux), PSF)
    pixels, residual, fitted, masked, _, _ = np.sinh(cut_out(frame, np.array([ends]), np.array([flux]), PSF)[0])
    length = float(np.hypot(ends[2] - ends[0], ends[3] - ends[1]))
    across, along = bins(np.array([length]), PSF.fwhm_px)
    assert pixels.max() > 15.0
    assert np.abs(residual).max() < 0.12 * pixels.max()
    # The mean of a bin times the root of its area: back to the trail's own electrons.
    np.testing.assert_allclose(pixels.sum() * np.sqrt(across * along[0]), flux, rtol=0.03)
    np.testing.assert_allclose(fitted.sum(), pixels.sum(), rtol=0.03)
    rows = pixels.sum(axis=1)
    np.testing.assert_allclose((rows * np.arange(SIDE)).sum() / rows.sum(), MIDDLE, atol=0.1)
    lit = np.flatnonzero(pixels.sum(axis=0) > 0.5 * pixels.sum(axis=0).max())
    np.testing.assert_allclose((lit[-1] - lit[0] + 1) * along[0], length, atol=2.0 * along[0] + 1.0)
    assert not masked[:, 3:-3].any()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 6000.0), st.floats(0.5, 12.0))
def test_a_line_with_its_psf_fits_into_its_stamp_whatever_its_length(length: float, fwhm_px: float) -> None:
    across, along = bins(np.array([length]), fwhm_px)
    assert across >= 1.0
    assert along[0] >= across
    assert length <= FILLED * SIDE * along[0]
    assert length + 4.0 * fwhm_px <= SIDE * along[0] + 1e-9


def test_noise_stays_near_one_sigma_at_every_length() -> None:
    rng = np.random.default_rng(5)
    frame = shown(rng.normal(size=(700, 700)).astype(np.float32), PSF)
    for length in (4.0, 30.0, 90.0, 300.0):
        ends = np.array([[350.0 - length / 2, 350.0, 350.0 + length / 2, 352.0]])
        pixels = np.sinh(cut_out(frame, ends, np.zeros(1), PSF)[0, PIXELS])
        assert 0.6 < pixels.std() < 1.15


def test_what_is_masked_or_outside_is_said_to_be() -> None:
    whitened = np.zeros((100, 120), np.float32)
    whitened[50:, :] = np.nan
    stamps = cut_out(shown(whitened, PSF), np.array([[2.0, 48.0, 8.0, 48.0]]), np.array([10.0]), PSF)
    masked = stamps[0, MASKED]
    assert masked[: SIDE // 2, SIDE // 2 :].sum() == 0
    assert (masked[SIDE // 2 + 3 :] == 1.0).all()
    assert (masked[:, : SIDE // 2 - 6] == 1.0).all()
    assert np.isfinite(stamps).all()


def test_a_cosmic_ray_is_shown_as_sharp_and_a_star_is_not() -> None:
    frame = trail((120, 120), [80.0, 60.0, 80.01, 60.0], 2000.0)
    frame[60, 30:40] += 60.0
    ray, star = np.array([30.0, 60.0, 39.0, 60.0]), np.array([79.0, 60.0, 81.0, 60.0])
    stamps = cut_out(shown(frame, PSF), np.stack([ray, star]), np.array([500.0, 2000.0]), PSF)
    assert stamps[0, SHARP].max() >= 0.5  # a bin across is 1.2 px
    assert stamps[1, SHARP, 20:28, 20:28].max() == 0.0


def test_the_surroundings_reach_four_times_as_far() -> None:
    frame = trail((400, 400), [270.0, 200.0, 270.01, 200.0], 5000.0)
    stamps = cut_out(shown(frame, PSF), np.array([[195.0, 200.0, 205.0, 200.0]]), np.array([5.0]), PSF)
    assert stamps[0, PIXELS].max() < 0.1
    row, column = np.unravel_index(stamps[0, SURROUNDINGS].argmax(), (SIDE, SIDE))
    across, along = bins(np.array([10.0]), PSF.fwhm_px)
    assert abs(row - MIDDLE) <= 1.5
    assert abs((column - MIDDLE) * 4.0 * along[0] - 70.0) <= 6.0 * across


@pytest.mark.parametrize("shape", [(3, 5), (60, 2000)])
def test_small_frames_and_lines_longer_than_any_frame(shape: tuple[int, int]) -> None:
    frame = shown(np.ones(shape, np.float32), PSF)
    stamps = cut_out(frame, np.array([[-5000.0, 1.0, 9000.0, 1.0], [1.0, 1.0, 1.0, 1.0]]), np.array([5.0, 1e30]), PSF)
    assert stamps.shape[0] == 2
    assert np.isfinite(stamps.astype(np.float16)).all()
