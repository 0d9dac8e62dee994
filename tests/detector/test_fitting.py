"""The fit: its model against numerical integration, its errors against what it claims."""

import numpy as np
import pytest

from detector.fitting import fit_lines
from detector.forcing import forced_flux
from detector.psf import Psf
from tests.detector.test_lineprofile import drawn

PSF = Psf(sigmas=np.array([0.8, 1.8]), weights=np.array([0.8, 0.2]), fwhm_px=1.95, n_stars=50)


def model(ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return drawn(PSF, ends, shape)[..., 0]


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


def star_at(x: float, y: float, flux: float, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    heights = flux * PSF.weights / (2 * np.pi * PSF.sigmas**2)
    square = (columns - x) ** 2 + (rows - y) ** 2
    return sum(h * np.exp(-square / 2 / s**2) for h, s in zip(heights, PSF.sigmas, strict=True))


@pytest.mark.parametrize("where", ["beyond-an-end", "beside-the-middle", "cosmic-ray"])
def test_what_touches_a_streak_does_not_drag_it(where: str) -> None:
    count, rng, snr, noise_e = 24, np.random.default_rng(21), 50.0, 15.0
    frame, lines = np.zeros((64, 64 * count), np.float32), []
    for k in range(count):
        angle = 2 * np.pi * k / count
        unit = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-unit[1], unit[0]])
        middle = np.array([31.5, 31.5]) + rng.uniform(-0.5, 0.5, 2)
        line = np.concatenate([middle - 10 * unit, middle + 10 * unit])
        profile = model(line, (64, 64))
        flux = snr / np.sqrt((profile**2).sum())
        image = flux * profile
        if where == "beyond-an-end":
            image += star_at(*(middle + 13.5 * unit + 2 * across), 2 * flux, (64, 64))
        elif where == "beside-the-middle":
            image += star_at(*(middle + 3 * unit + 5 * across), 2 * flux, (64, 64))
        else:
            steps = np.rint(middle + 4 * unit + np.arange(-9, 10)[:, None] * (across + 0.3 * unit)).astype(int)
            image[steps[:, 1], steps[:, 0]] += 30.0
        image += rng.normal(size=image.shape) * np.sqrt(1.0 + image / noise_e)
        frame[:, 64 * k : 64 * (k + 1)] = image
        lines.append(line + np.array([64 * k, 0, 64 * k, 0]))
    truth = np.array(lines)
    start = truth + rng.uniform(-1.5, 1.5, truth.shape)
    fits = fit_lines(frame, 0, start, np.full(count, 1.5), np.full(count, noise_e), PSF)
    turned = np.arctan2(*(fits.ends[:, 2:] - fits.ends[:, :2]).T) - np.arctan2(*(truth[:, 2:] - truth[:, :2]).T)
    turned = np.degrees(np.abs((turned + np.pi / 2) % np.pi - np.pi / 2))
    assert (turned < 3.0).mean() >= 0.85
    assert np.median(np.hypot(*(fits.ends - truth)[:, :2].T)) < 0.3
