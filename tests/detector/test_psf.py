"""The frame's own stars give its PSF, whatever else is in the frame."""

import numpy as np
import pytest
from scipy import ndimage

from detector import stars as module
from detector.psf import Psf
from detector.psfmeasurement import measure_psf
from detector.sky import measure_sky


def gaussian(r2, fwhm):
    sigma = fwhm / 2.3548
    return np.exp(-0.5 * r2 / sigma**2) / (2 * np.pi * sigma**2)


def moffat(r2, fwhm, beta=3.0):
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    return (beta - 1) / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -beta


def add(image, x, y, flux, profile, reach=24):
    """A source whose effective profile (the pixel included) is ``profile`` of the squared distance."""
    col, row = int(round(x)), int(round(y))
    at = np.s_[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1]
    yy, xx = np.mgrid[at]
    yy, xx = yy[: image[at].shape[0], : image[at].shape[1]], xx[: image[at].shape[0], : image[at].shape[1]]
    image[at] += flux * profile((xx - x) ** 2 + (yy - y) ** 2)


def field(profile, *, seed=1, side=640, stars=40, galaxies=0, rays=0, sky_e=100.0, brightest=5.0):
    rng = np.random.default_rng(seed)
    image = np.full((side, side), sky_e)
    for _ in range(stars):
        add(image, *rng.uniform(0, side, 2), 10 ** rng.uniform(3.5, brightest), profile)
    for _ in range(galaxies):
        size = rng.uniform(1.6, 4.0)
        add(image, *rng.uniform(0, side, 2), 10 ** rng.uniform(3.0, 5.0), lambda r2, s=size: gaussian(r2, s * 2.3548))
    image = (rng.poisson(image) + rng.normal(0.0, 4.4, image.shape)).astype(np.float32)
    for _ in range(rays):
        x, y, angle = *rng.uniform(20, side - 20, 2), rng.uniform(0, 2 * np.pi)
        along = np.arange(0, rng.exponential(14.0) + 0.1, 0.5)
        at = np.rint(y + along * np.sin(angle)).astype(int), np.rint(x + along * np.cos(angle)).astype(int)
        inside = (at[0] >= 0) & (at[0] < side) & (at[1] >= 0) & (at[1] < side)
        image[at[0][inside], at[1][inside]] += rng.exponential(800.0)
    return image, np.zeros(image.shape, np.uint8)


def measured(image, mask, fallback_fwhm_px=9.9):
    return measure_psf(image, mask, measure_sky(image, mask), fallback_fwhm_px=fallback_fwhm_px)


def height(psf, r):
    return float(np.sum(psf.weights / (2 * np.pi * psf.sigmas**2) * np.exp(-0.5 * (r / psf.sigmas) ** 2)))


@pytest.mark.parametrize("fwhm", [1.6, 2.2, 3.5, 5.0])
@pytest.mark.parametrize("shape", [gaussian, moffat])
def test_the_width_of_stars_is_found_to_five_per_cent(fwhm, shape):
    psf = measured(*field(lambda r2: shape(r2, fwhm)))
    assert psf.n_stars >= 8
    assert psf.fwhm_px == pytest.approx(fwhm, rel=0.05)
    assert psf.weights.sum() == pytest.approx(1.0)
    assert height(psf, psf.fwhm_px / 2) == pytest.approx(height(psf, 0.0) / 2, rel=0.08)


def test_the_wings_of_a_moffat_are_in_the_sum():
    psf = measured(*field(lambda r2: moffat(r2, 3.0), stars=80))
    for r in (0.0, 1.0, 2.0, 4.0, 6.0):
        assert height(psf, r) == pytest.approx(moffat(r**2, 3.0), rel=0.25, abs=2e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stars_are_told_from_ten_thousand_cosmic_rays_and_from_galaxies(seed):
    # 10,000 tracks and 30 galaxies a square arcminute over a Euclid CCD, on a fortieth of it.
    psf = measured(*field(lambda r2: moffat(r2, 1.6), seed=seed, stars=25, galaxies=40, rays=250))
    assert psf.n_stars >= 8
    assert psf.fwhm_px == pytest.approx(1.6, rel=0.08)


@pytest.mark.parametrize("kind", ["empty", "rays", "galaxies", "small"])
def test_a_frame_without_stars_falls_back_to_the_profile(kind):
    fields = {
        "empty": {"stars": 0},
        "rays": {"stars": 0, "rays": 400},
        "galaxies": {"stars": 0, "galaxies": 6},
        "small": {"stars": 2, "side": 100},
    }
    psf = measured(*field(lambda r2: gaussian(r2, 2.0), **fields[kind]), fallback_fwhm_px=3.3)
    assert psf.n_stars == 0
    assert psf.fwhm_px == 3.3


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (27, 300)])
def test_a_frame_smaller_than_a_stamp_falls_back(shape):
    assert measured(np.zeros(shape, np.float32), np.zeros(shape, np.uint8)).n_stars == 0


def test_masked_stars_do_not_count():
    image, mask = field(lambda r2: gaussian(r2, 2.5), stars=60)
    everywhere = image > 400.0
    mask[ndimage.binary_dilation(everywhere, iterations=2)] = 2
    assert measured(image, mask).n_stars == 0


def test_a_gaussian_is_one_of_that_width():
    psf = Psf.gaussian(2.0)
    assert psf.fwhm_px == 2.0
    assert height(psf, 1.0) == pytest.approx(height(psf, 0.0) / 2)


def test_peaks_are_those_of_a_maximum_filter():
    image, mask = field(lambda r2: gaussian(r2, 2.5), side=256, stars=25, brightest=4.5)
    sky = measure_sky(image, mask)
    peaks = {tuple(peak) for peak in module.star_candidates(image, mask, sky)}
    level, noise = np.median(sky.background), np.median(sky.noise)
    highest = (image == ndimage.maximum_filter(image, 3)) & (image > level + 1.1 * module.PEAK_SIGMA * noise)
    inner = np.zeros_like(highest)
    edge = module.REACH_PX + 1
    inner[edge:-edge, edge:-edge] = highest[edge:-edge, edge:-edge]
    expected = {(int(y), int(x)) for y, x in np.argwhere(inner)}
    assert expected
    # All of them but what is too sharp, which a well sampled star is not unless noise made the peak.
    assert len(expected & peaks) >= 0.9 * len(expected)
    assert all(image[y, x] == image[y - 1 : y + 2, x - 1 : x + 2].max() for y, x in peaks)
