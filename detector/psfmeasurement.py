"""The PSF of a frame from its own stars: found, stacked, centred on their profile, drawn."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from detector.psf import GAUSSIAN_FWHM, Psf, fwhm_of
from detector.psfimage import as_it_is, gaussians
from detector.stars import MIN_STARS, REACH_PX, chosen_stars, moments_of, star_candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sky import Sky

STACK_FWHM = 4.0  # radius of the stack
RECENTRINGS = 2  # of the stars on the profile itself: moments miss the centre of an undersampled star


def measure_psf(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    sky: Sky,
    *,
    fallback_fwhm_px: float,
) -> Psf:
    """PSF of ``pixels`` [h, w] where ``mask`` [h, w] is 0; a Gaussian of ``fallback_fwhm_px`` with too few stars."""
    fallback = Psf.gaussian(fallback_fwhm_px)
    if min(pixels.shape) <= 2 * REACH_PX + 2:
        return fallback
    stars = chosen_stars(moments_of(pixels, mask, star_candidates(pixels, mask, sky)))
    if len(stars) < MIN_STARS:
        return fallback
    sigmas, weights = gaussians(*stacked(pixels, mask, stars))
    for _ in range(RECENTRINGS):
        stars = recentred(pixels, mask, stars, sigmas, weights)
        sigmas, weights = gaussians(*stacked(pixels, mask, stars))
    round_one = Psf(sigmas, weights, fwhm_of(sigmas, weights), len(stars))
    return as_it_is(pixels, mask, stars, round_one, sky)


def stacked(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    stars: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Radius [px], value and error of the stars' stacked radial profile, 1 in the middle; a row for each ring.

    Medians over the pixels of a ring: a neighbour or a cosmic ray at one star does not show.
    """
    sigma = float(np.median(stars[:, 2]))
    reach = min(int(np.ceil(STACK_FWHM * GAUSSIAN_FWHM * sigma)), REACH_PX)
    grid = np.arange(-reach, reach + 1)
    x = np.rint(stars[:, 0]).astype(np.int64)[:, None, None] + grid[None, None, :]
    y = np.rint(stars[:, 1]).astype(np.int64)[:, None, None] + grid[None, :, None]
    inside = (x >= 0) & (y >= 0) & (x < pixels.shape[1]) & (y < pixels.shape[0])
    x, y = np.clip(x, 0, pixels.shape[1] - 1), np.clip(y, 0, pixels.shape[0] - 1)
    radius = np.hypot(x - stars[:, 0, None, None], y - stars[:, 1, None, None])
    value = (pixels[y, x] - stars[:, 5, None, None]) / stars[:, 4, None, None]
    good = inside & (mask[y, x] == 0) & (radius <= reach)
    radius, value = radius[good], value[good].astype(np.float64)
    # Rings of a sixth of a sigma in the core, wider where the profile is smooth.
    edges = sigma * np.concatenate([np.arange(0.0, 2.5, 1.0 / 6.0), np.geomspace(2.5, reach / sigma + 0.1, 14)])
    rings = [np.flatnonzero((radius >= low) & (radius < high)) for low, high in pairwise(edges)]
    rings = [ring for ring in rings if ring.size >= 5]
    middles = np.array([radius[ring].mean() for ring in rings])
    medians = np.array([np.median(value[ring]) for ring in rings])
    scatter = np.array([np.median(np.abs(value[ring] - np.median(value[ring]))) for ring in rings])
    errors = 1.2533 * 1.4826 * scatter / np.sqrt([ring.size for ring in rings])
    return middles, medians, np.maximum(errors, 1e-3)


def recentred(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    stars: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The rows [n, 7] with centres and amplitudes moved to where the profile fits best (one Gauss-Newton step)."""
    reach = min(max(2, int(np.ceil(2.0 * np.median(stars[:, 2])))), REACH_PX)
    grid = np.arange(-reach, reach + 1)
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    columns = np.rint(stars[:, 0]).astype(np.int64)[:, None] + x
    rows = np.rint(stars[:, 1]).astype(np.int64)[:, None] + y
    dx, dy = columns - stars[:, :1], rows - stars[:, 1:2]
    heights = weights / sigmas**2
    terms = heights / heights.sum() * np.exp(-0.5 * ((dx**2 + dy**2)[..., None] / sigmas**2))  # n, pixels, k
    profile, fall = terms.sum(axis=-1), (terms / sigmas**2).sum(axis=-1)
    left = (pixels[rows, columns] - stars[:, 5:6]) / stars[:, 4:5] - profile
    # Bright stars are all photon noise; the faintest pixels have the sky's.
    inverse = np.where(mask[rows, columns] == 0, 1.0 / (profile + 0.05), 0.0)
    design = np.stack([profile, fall * dx, fall * dy], axis=-1)
    normal = np.einsum("npi,np,npj->nij", design, inverse, design)
    step = np.linalg.solve(normal, np.einsum("npi,np,np->ni", design, inverse, left)[..., None])[..., 0]
    moved = stars.copy()
    moved[:, 4] *= np.clip(1.0 + step[:, 0], 0.5, 2.0)
    moved[:, :2] += np.clip(step[:, 1:], -0.5, 0.5)
    return moved
