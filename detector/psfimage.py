"""The image of the PSF, wings and spikes and all, from the pixels of the frame's stars.

A sum of Gaussians of several sizes and of angular orders, linear in its coefficients and held down where the stars say
nothing. An undersampled star misleads its centroid: shape and centres are found in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from detector.psf import GAUSSIAN_FWHM, SAMPLES_PER_FWHM, Psf
from detector.stars import MIN_STARS, SIGMA_RANGE_PX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sky import Sky

IMAGE_FWHM = 12.0  # radius out to which the stars' pixels are fitted: three per cent of the light lie beyond five FWHM
IMAGE_RADII_PX = (12, 30)  # and its limits
IMAGE_PIXELS = 40_000  # of all stars together: more teach nothing
IMAGE_ROUNDS = 3  # of shape, centres and weights
# Sizes of the Gaussians of each angular order, in units of the core's sigma: coma, ellipticity, three spikes, pixel.
ORDER_SIZES = {1: (0.7, 1.1, 1.7, 2.6), 2: (0.7, 1.1, 1.7, 2.6), 3: (0.9, 1.5, 2.5), 4: (0.9, 1.5, 2.5)}
ROUND_SIZES = 13  # Gaussians of order 0, from half the core's sigma to half the radius
# How large coefficients may be, in units of the peak: a prior that gives way to a few good stars.
ROUND_PRIOR, ORDER_PRIOR = 3.0, 0.05
CENTROID_FWHM = 2.5  # centroids are taken within this many FWHM of the source, as those of faint stars are
STAR_ERROR = 0.02  # of a star's pixel beyond its noise, while its PSF is being measured
OUTLIER_SIGMA = 4.0
MODEL_ERRORS = (0.002, 0.1)  # what a PSF of many good stars is still wrong by, and the most that is believed


def gaussians(
    radius: NDArray[np.float64],
    value: NDArray[np.float64],
    error: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sigmas [k] and weights [k] of the circular Gaussians whose sum fits the profile."""
    sigmas = np.geomspace(SIGMA_RANGE_PX[0], max(radius.max() / 2.0, 1.0), 16)
    model = np.exp(-0.5 * (radius[:, None] / sigmas) ** 2)
    # Neighbouring Gaussians are nearly alike: a small ridge keeps the search from going in circles.
    system = np.concatenate([model / error[:, None], np.eye(len(sigmas))])
    heights, _ = nnls(system, np.concatenate([value / error, np.zeros(len(sigmas))]), maxiter=100 * len(sigmas))
    weights = heights * 2.0 * np.pi * sigmas**2
    used = weights > 1e-4 * weights.max()  # the profile is 1 in the middle: some Gaussian always fits
    return sigmas[used], weights[used] / weights[used].sum()


def as_it_is(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    stars: NDArray[np.float64],
    guess: Psf,
    sky: Sky,
) -> Psf:
    """The round ``guess`` with the image of the stars ``[n, 7]``, out of round as they are, and its error."""
    core = guess.fwhm_px / GAUSSIAN_FWHM
    radius = int(np.clip(np.ceil(IMAGE_FWHM * guess.fwhm_px), *IMAGE_RADII_PX))
    grid = np.arange(-radius, radius + 1)
    dx, dy = (a.ravel() for a in np.meshgrid(grid, grid))
    disc = np.hypot(dx, dy) <= radius
    dx, dy = dx[disc], dy[disc]
    stars = stars[: max(MIN_STARS, IMAGE_PIXELS // dx.size)]
    x = np.rint(stars[:, :1]).astype(np.int64) + dx
    y = np.rint(stars[:, 1:2]).astype(np.int64) + dy
    inside = (x >= 0) & (y >= 0) & (x < pixels.shape[1]) & (y < pixels.shape[0])
    x, y = np.clip(x, 0, pixels.shape[1] - 1), np.clip(y, 0, pixels.shape[0] - 1)
    good = inside & (mask[y, x] == 0)
    noise = float(np.median(sky.noise))
    rows, columns = sky.background.shape
    level = sky.background[
        (stars[:, 1] * rows / pixels.shape[0]).astype(np.int64).clip(0, rows - 1),
        (stars[:, 0] * columns / pixels.shape[1]).astype(np.int64).clip(0, columns - 1),
    ]
    values = pixels[y, x].astype(np.float64) - sky.pattern[y & 1, x & 1] - level[:, None]
    centres = stars[:, :2].copy()
    heights = guess.weights / (2.0 * np.pi * guess.sigmas**2)
    square = ((x - centres[:, :1]) ** 2 + (y - centres[:, 1:]) ** 2)[..., None]
    model = np.exp(-0.5 * square / guess.sigmas**2) @ heights
    peak = float(heights.sum())
    flux = stars[:, 4] / peak
    prior = _prior(peak)
    near = np.hypot(dx, dy) < 2.0 * guess.fwhm_px
    for turn in range(IMAGE_ROUNDS):
        shape = values / flux[:, None]
        light = np.maximum(model, 0.0)
        variance = (noise**2 + flux[:, None] * light) / flux[:, None] ** 2 + (STAR_ERROR * light) ** 2
        square = (shape - model) ** 2 / variance
        inverse = np.where(good, np.maximum(1.0 - square / OUTLIER_SIGMA**2, 0.0) ** 2, 0.0) / variance
        if turn == 0:
            inverse = np.where(good, 1.0 / (1.0 + square / OUTLIER_SIGMA**2), 0.0) / variance
        terms = _terms(x - centres[:, :1], y - centres[:, 1:], core, radius)
        flat, weight = terms.reshape(-1, terms.shape[-1]), inverse.ravel()
        normal = flat.T @ (flat * weight[:, None]) + np.diag(1.0 / prior**2)
        coefficients = np.linalg.solve(normal, flat.T @ (weight * shape.ravel()))
        # Centres and fluxes anew, by the slopes of the new model near the middle.
        model = terms @ coefficients
        step = 0.02 * core
        east, north = (
            (
                _terms(x[:, near] + a - centres[:, :1], y[:, near] + b - centres[:, 1:], core, radius)
                - _terms(x[:, near] - a - centres[:, :1], y[:, near] - b - centres[:, 1:], core, radius)
            )
            @ coefficients
            / (2.0 * step)
            for a, b in ((step, 0.0), (0.0, step))
        )
        design = np.stack([model[:, near], -east, -north], axis=-1)
        left = (shape - model)[:, near]
        inverse = np.maximum(1.0 - left**2 / variance[:, near] / OUTLIER_SIGMA**2, 0.0) ** 2 / variance[:, near]
        inverse = np.where(good[:, near], inverse, 0.0)
        info = np.einsum("npi,np,npj->nij", design, inverse, design) + 1e-9 * np.eye(3)
        moved = np.linalg.solve(info, np.einsum("npi,np,np->ni", design, inverse, left)[..., None])[..., 0]
        centres += np.clip(moved[:, 1:], -0.3, 0.3)
        flux = flux * np.clip(1.0 + moved[:, 0], 0.7, 1.4)
    square = (shape - model) ** 2 / variance
    bright = good & (model > 0.2 * model.max()) & (square < OUTLIER_SIGMA**2)
    return _drawn(guess, coefficients, core, radius, _excess((shape - model)[bright], model[bright], variance[bright]))


def _terms(x: NDArray[np.float64], y: NDArray[np.float64], core: float, radius: int) -> NDArray[np.float64]:
    """The functions ``[..., k]`` of which the PSF is made up, at offsets from the source; each at most about 1."""
    square = x * x + y * y
    sizes = np.geomspace(0.5 * core, 0.5 * radius, ROUND_SIZES)
    terms = [np.exp(-0.5 * square / size**2) for size in sizes]
    turned = x + 1j * y
    for order, factors in ORDER_SIZES.items():
        power = turned**order
        for factor in factors:
            size = factor * core
            # Largest at r = sqrt(order) * size.
            scaled = power * np.exp(0.5 * order - 0.5 * square / size**2) / (size * np.sqrt(order)) ** order
            terms += [scaled.real, scaled.imag]
    return np.stack(terms, axis=-1)


def _prior(peak: float) -> NDArray[np.float64]:
    """How large the coefficients of ``_terms`` may be."""
    others = 2 * sum(len(factors) for factors in ORDER_SIZES.values())
    return peak * np.concatenate([np.full(ROUND_SIZES, ROUND_PRIOR), np.full(others, ORDER_PRIOR)])


def _excess(left: NDArray[np.float64], model: NDArray[np.float64], variance: NDArray[np.float64]) -> float:
    """By how much, relative, pixels scatter about the model beyond their noise; ``variance`` holds ``STAR_ERROR``."""
    if left.size < MIN_STARS:
        return STAR_ERROR
    noise = variance - (STAR_ERROR * model) ** 2
    scatter = (1.4826 * np.median(np.abs(left / model))) ** 2 - np.median(noise / model**2)
    return float(np.clip(np.sqrt(max(scatter, 0.0)), *MODEL_ERRORS))


def _drawn(guess: Psf, coefficients: NDArray[np.float64], core: float, radius: int, error: float) -> Psf:
    """The PSF with its image, moved so that its centroid is the source, as star catalogues have it."""
    step = guess.fwhm_px / SAMPLES_PER_FWHM
    half = int(np.ceil(radius / step))
    axis = step * np.arange(-half, half + 1)
    x, y = np.meshgrid(axis, axis)
    image = _terms(x, y, core, radius) @ coefficients
    near = image * (np.hypot(x, y) < CENTROID_FWHM * guess.fwhm_px)
    image = _terms(x + (near * x).sum() / near.sum(), y + (near * y).sum() / near.sum(), core, radius) @ coefficients
    sizes = np.geomspace(0.5 * core, 0.5 * radius, ROUND_SIZES)
    total = float(np.sum(coefficients[:ROUND_SIZES] * 2.0 * np.pi * sizes**2))
    inside = float(image.sum() * step**2)
    if not 0.8 * inside < total < 1.25 * inside or image[half, half] <= 0.0:
        return guess
    r = np.linspace(0.0, radius, 64 * radius + 1)
    profile = _terms(r, np.zeros_like(r), core, radius)[:, :ROUND_SIZES] @ coefficients[:ROUND_SIZES]
    if profile[0] <= 0.0:
        return guess
    shape = profile[::8] / profile[0]
    try:
        sigmas, weights = gaussians(r[::8], shape, np.hypot(0.01 * shape, 1e-4))
    except RuntimeError:  # nnls gave up: the round ones of before do
        sigmas, weights = guess.sigmas, guess.weights
    fwhm_px = 2.0 * float(r[np.argmax(profile < 0.5 * profile[0])])
    return Psf(sigmas, weights, fwhm_px, guess.n_stars, image / total, step, error)
