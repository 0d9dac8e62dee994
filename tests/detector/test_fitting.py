"""The fit: its model against numerical integration, its errors against what it claims."""

import numpy as np
import pytest

from detector.fitting import fit_lines, forced_flux, line_profile
from detector.psf import Psf

PSF = Psf(sigmas=np.array([0.8, 1.8]), weights=np.array([0.8, 0.2]), fwhm_px=1.95, n_stars=50)


def model(ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    out, image = np.zeros(6), np.zeros(shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            line_profile(float(x), float(y), *ends, PSF.sigmas, PSF.weights, out)
            image[y, x] = out[0]
    return image


def brute_force(ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The same line as a sum of 4,000 points."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    image = np.zeros(shape)
    for t in (np.arange(4000) + 0.5) / 4000:
        px, py = ends[0] + t * (ends[2] - ends[0]), ends[1] + t * (ends[3] - ends[1])
        for sigma, weight in zip(PSF.sigmas, PSF.weights, strict=True):
            image += weight * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 2 / sigma**2) / (2 * np.pi * sigma**2) / 4000
    return image


@pytest.mark.parametrize("ends", [[10.2, 8.7, 31.4, 22.1], [20.0, 25.0, 20.3, 11.0], [15.1, 16.2, 16.9, 16.4]])
def test_the_closed_form_is_the_integral_over_the_line(ends: list[float]) -> None:
    line = np.array(ends)
    np.testing.assert_allclose(model(line, (34, 44)), brute_force(line, (34, 44)), atol=2e-6)


def test_the_derivatives_are_those_of_the_value() -> None:
    ends, out, shifted = np.array([10.2, 8.7, 31.4, 22.1]), np.zeros(6), np.zeros(6)
    for x, y in [(11.0, 9.0), (20.0, 15.0), (31.0, 23.0), (9.0, 8.0), (25.0, 17.0)]:
        line_profile(x, y, *ends, PSF.sigmas, PSF.weights, out)
        for k in range(4):
            step = np.zeros(4)
            step[k] = 1e-5
            line_profile(x, y, *(ends + step), PSF.sigmas, PSF.weights, shifted)
            assert (shifted[0] - out[0]) / 1e-5 == pytest.approx(out[1 + k], rel=1e-3, abs=1e-7)
        line_profile(x, y, *ends, PSF.sigmas * (1 + 1e-5), PSF.weights, shifted)
        assert (shifted[0] - out[0]) / 1e-5 == pytest.approx(out[5], rel=1e-3, abs=1e-7)


def sky_with_lines(snr: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """``count`` stamps of 48 px side by side in a frame of unit noise: frame, ends, the sky's sigma in electrons."""
    rng = np.random.default_rng(seed)
    noise_e = 15.0
    frame, lines = np.zeros((48, 48 * count), np.float32), []
    for k in range(count):
        length, angle = rng.uniform(8, 24), rng.uniform(0, np.pi)
        half = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
        middle = np.array([24.0, 24.0]) + rng.uniform(-1, 1, 2)
        line = np.concatenate([middle - half, middle + half])
        profile = model(line, (48, 48))
        flux = snr / np.sqrt((profile**2).sum())
        variance = 1.0 + flux * profile / noise_e
        frame[:, 48 * k : 48 * (k + 1)] = flux * profile + rng.normal(size=(48, 48)) * np.sqrt(variance)
        lines.append(line + np.array([48 * k, 0, 48 * k, 0]))
    return frame, np.array(lines), noise_e


def test_ends_are_found_from_two_pixels_off_and_the_claimed_errors_are_true() -> None:
    frame, truth, noise_e = sky_with_lines(40.0, 60, 5)
    start = truth + np.random.default_rng(6).normal(size=truth.shape) * 1.5
    fits = fit_lines(frame, 0, start, np.full(60, 1.5), np.full(60, noise_e), PSF)
    assert fits.good.all()
    off = fits.ends - truth
    assert np.median(np.abs(off)) < 0.25
    pulls = off / np.sqrt(np.einsum("nii->ni", fits.covariance)[:, :4])
    assert 0.8 < pulls.std() < 1.25
    assert np.median(fits.snr) == pytest.approx(40.0, rel=0.1)
    assert np.median(fits.chi2) == pytest.approx(1.0, abs=0.1)


def test_a_cosmic_ray_is_narrower_than_the_psf_and_a_streak_is_not() -> None:
    frame, truth, noise_e = sky_with_lines(60.0, 2, 7)
    for x in range(10, 26):
        frame[30, 48 + x] = 40.0
    frame[:, 48:][:29] = np.random.default_rng(8).normal(size=(29, 48))
    start = np.array([truth[0], [58.0, 30.0, 73.0, 30.0]])
    fits = fit_lines(frame, 0, start, np.full(2, 1.0), np.full(2, noise_e), PSF)
    width = fits.width[:, 0] / fits.width[:, 1]
    assert abs(width[0]) < 4.0
    assert width[1] < -10.0


def test_a_proposal_on_masked_pixels_keeps_its_ends_and_is_not_good() -> None:
    frame = np.full((40, 40), np.nan, np.float32)
    ends = np.array([[10.0, 10.0, 20.0, 20.0]])
    fits = fit_lines(frame, 0, ends, np.ones(1), np.ones(1), PSF)
    assert not fits.good[0]
    np.testing.assert_array_equal(fits.ends, ends)
    assert np.isnan(fits.flux[0])
    assert np.isnan(fits.covariance[0]).all()


def test_no_proposals_give_no_fits() -> None:
    fits = fit_lines(np.zeros((40, 40), np.float32), 0, np.zeros((0, 4)), np.zeros(0), np.zeros(0), PSF)
    assert fits.ends.shape == (0, 4)


def test_forced_fluxes_are_unbiased_and_scatter_as_they_claim() -> None:
    rng = np.random.default_rng(11)
    count, noise_e = 200, 15.0
    truth = np.array([[40.0 * k + 12.3, 11.7, 40.0 * k + 26.4, 19.8] for k in range(count)])
    profile = model(truth[0], (32, 40))
    frame = np.tile(100.0 * profile, (1, count))
    frame = (frame + 0.3 + rng.normal(size=frame.shape) * np.sqrt(1.0 + frame / noise_e)).astype(np.float32)
    flux, sigma = forced_flux(frame, 0, truth, PSF, noise_e=np.full(count, noise_e))
    pulls = (flux - 100.0) / sigma
    assert abs(pulls.mean()) < 3.0 / np.sqrt(count)
    assert pulls.std() == pytest.approx(1.0, abs=0.15)
    # Where there is nothing, there is nothing.
    flux, sigma = forced_flux(rng.normal(size=(32, 8000)).astype(np.float32), 0, truth, PSF)
    assert (flux / sigma).std() == pytest.approx(1.0, abs=0.15)
    assert abs((flux / sigma).mean()) < 3.0 / np.sqrt(count)


def test_a_forced_flux_is_not_that_of_a_cosmic_ray_across_the_line() -> None:
    frame = np.random.default_rng(12).normal(size=(40, 60)).astype(np.float32)
    frame[8:32, 30] += 80.0
    flux, sigma = forced_flux(frame, 0, np.array([[18.0, 20.0, 42.0, 20.0]]), PSF)
    assert abs(flux[0]) < 4.0 * sigma[0]


def test_a_forced_flux_on_masked_pixels_or_outside_is_unknown() -> None:
    frame = np.random.default_rng(13).normal(size=(60, 80)).astype(np.float32)
    frame[20:40] = np.nan
    lines = np.array(
        [
            [10.0, 30.0, 30.0, 30.0],
            [-30.0, 5.0, -12.0, 5.0],
            [500.0, 5.0, 520.0, 5.0],
            [70.0, -900.0, 70.0, -880.0],
            [np.nan, 5.0, 30.0, 5.0],
            [10.0, 10.0, 30.0, 10.0],
            [5.0, 10.0, 5.0, 10.0],
        ]
    )
    flux, sigma = forced_flux(frame, 4, lines, PSF)
    assert np.isnan(flux[:5]).all()
    assert np.isinf(sigma[:5]).all()
    assert np.isfinite(flux[5:]).all()
    assert (sigma[5:] > 0).all()
    assert (sigma[5:] < 20).all()
    assert forced_flux(frame, 4, np.zeros((0, 4)), PSF)[0].shape == (0,)
