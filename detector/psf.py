"""The point spread function of a frame, from its own stars.

The fit of a streak needs the width of the line, and a profile's seeing is a guess. Stars have to be told from what
looks like them: an undersampled frame holds ten thousand cosmic rays, sharper than any star, and galaxies wider than
all. Stars are what has one size at every brightness. At night a frame may show too few (a dark cloud, a small cut-out,
stars trailed by the telescope itself): then ``n_stars`` is 0 and the profile's width stands, and the rows of the frame
are flagged so.

Method: adaptive Gaussian-weighted second moments (Bernstein & Jarvis 2002, AJ 123, 583, section 3) of each isolated
maximum; the densest place of the distribution of sizes; the chosen stars' pixels stacked in radius about sub-pixel
centres; circular Gaussians through the stack by non-negative least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange
from scipy.optimize import nnls

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sky import Sky

GAUSSIAN_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # of one sigma

PEAK_SIGMA = 15.0  # of the highest pixel: the moments are then good to a few per cent
REACH_PX = 13  # half the side of the stamp in which moments are taken; its rim is the local sky
SIGMA_RANGE_PX = (0.45, 5.0)  # FWHM of 1.1 to 12 px
# Mean of two opposite neighbours over the peak, sky taken off, along the narrower axis: 0.34 in Euclid frames
# (FWHM 1.6 px), near 0 across a cosmic ray.
NEIGHBOUR_RATIO = 0.15
AXIS_RATIO = 0.35  # of those means along two axes at right angles: a star between two pixels has 0.6
ROUND = 0.12  # largest ellipticity of the weighted moments
CANDIDATES = 4000
PEAKS_PER_ROW = 64
SIZE_WIDTH = 0.05  # natural logarithm of the size: half the width of the window that looks for the stars
MIN_STARS = 8
MOST_STARS = 300
STACK_FWHM = 4.0  # radius of the stack
RECENTRINGS = 2  # of the stars on the profile itself: moments miss the centre of an undersampled star


@dataclass(frozen=True, eq=False)
class Psf:
    """The effective PSF, the pixel included, as a sum of circular Gaussians.

    ``sigmas`` [k] in pixels and ``weights`` [k], which add up to 1: a star of flux 1 has
    ``sum(weights / (2 pi sigmas**2) * exp(-r**2 / (2 sigmas**2)))`` in the pixel at distance ``r``. ``fwhm_px`` is that
    profile's; ``n_stars`` the number of stars measured, 0 when the width is somebody's guess.
    """

    sigmas: NDArray[np.float64]
    weights: NDArray[np.float64]
    fwhm_px: float
    n_stars: int

    @classmethod
    def gaussian(cls, fwhm_px: float) -> Psf:
        """A single Gaussian of that width, measured on no star."""
        return cls(np.array([fwhm_px / GAUSSIAN_FWHM]), np.ones(1), fwhm_px, 0)


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
    stars = _chosen(_moments_of(pixels, mask, _candidates(pixels, mask, sky)))
    if len(stars) < MIN_STARS:
        return fallback
    sigmas, weights = _gaussians(*_stack(pixels, mask, stars))
    for _ in range(RECENTRINGS):
        stars = _recentred(pixels, mask, stars, sigmas, weights)
        sigmas, weights = _gaussians(*_stack(pixels, mask, stars))
    return Psf(sigmas, weights, _fwhm(sigmas, weights), len(stars))


def _candidates(pixels: NDArray[np.float32], mask: NDArray[np.uint8], sky: Sky) -> NDArray[np.int64]:
    """Maxima [n, 2] (y, x) that are neither cut by the border nor by the mask, nor as sharp as a cosmic ray."""
    columns = np.empty((pixels.shape[0], PEAKS_PER_ROW), np.int32)
    counts = np.zeros(pixels.shape[0], np.int32)
    _find_peaks(pixels, mask, sky.background, sky.noise, sky.pattern, columns, counts)
    rows = np.repeat(np.arange(pixels.shape[0]), counts)
    found = np.stack([rows, columns[np.arange(PEAKS_PER_ROW) < counts[:, None]]], axis=1)
    return found[:: max(1, -(-len(found) // CANDIDATES))]


@njit(cache=True, parallel=True)
def _find_peaks(pixels, mask, background, noise, pattern, columns, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    height, width = pixels.shape
    rows, cols = background.shape
    for y in prange(REACH_PX + 1, height - REACH_PX - 1):
        i = min((2 * y + 1) * rows // (2 * height), rows - 1)
        n = 0
        for x in range(REACH_PX + 1, width - REACH_PX - 1):
            j = min((2 * x + 1) * cols // (2 * width), cols - 1)
            level = background[i, j] + pattern[y & 1, x & 1]
            peak = pixels[y, x] - level
            if peak < PEAK_SIGMA * noise[i, j] or n == PEAKS_PER_ROW:
                continue
            highest = True
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    value = pixels[y + dy, x + dx]
                    before = dy < 0 or (dy == 0 and dx < 0)  # of equal pixels the first counts
                    if mask[y + dy, x + dx] != 0 or value > pixels[y, x] or (before and value == pixels[y, x]):
                        highest = False
            if not highest:
                continue
            across = 0.5 * (pixels[y, x - 1] + pixels[y, x + 1]) - level
            along = 0.5 * (pixels[y - 1, x] + pixels[y + 1, x]) - level
            rising = 0.5 * (pixels[y - 1, x - 1] + pixels[y + 1, x + 1]) - level
            falling = 0.5 * (pixels[y - 1, x + 1] + pixels[y + 1, x - 1]) - level
            if min(across, along) < max(NEIGHBOUR_RATIO * peak, AXIS_RATIO * max(across, along)):
                continue
            if min(rising, falling) < 0.5 * AXIS_RATIO * max(rising, falling):
                continue
            columns[y, n] = x
            n += 1
        counts[y] = n


def _moments_of(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    candidates: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Rows ``x, y, sigma, ellipticity, amplitude, sky, misfit`` [n, 7] of the candidates whose moments converged."""
    moments = np.empty((len(candidates), 7))
    _adapt(pixels, mask, candidates, moments)
    return moments[np.isfinite(moments).all(axis=1)]


@njit(cache=True, parallel=True)
def _adapt(pixels, mask, candidates, moments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for n in prange(candidates.shape[0]):
        y0, x0 = candidates[n, 0], candidates[n, 1]
        moments[n, :] = np.nan
        rim = np.empty(16 * REACH_PX)
        count = 0
        clean = True
        for y in range(y0 - REACH_PX, y0 + REACH_PX + 1):
            for x in range(x0 - REACH_PX, x0 + REACH_PX + 1):
                distance = max(abs(y - y0), abs(x - x0))
                if mask[y, x] != 0:
                    clean = clean and distance > 4
                elif distance >= REACH_PX - 1:
                    rim[count] = pixels[y, x]
                    count += 1
        if not clean or count < 4 * REACH_PX:
            continue
        level = np.median(rim[:count])
        xc, yc, sigma = float(x0), float(y0), 1.2
        done = False
        for _ in range(40):
            reach = int(np.ceil(3.0 * sigma))
            reach = min(max(reach, 3), REACH_PX)
            flux = sx = sy = sxx = syy = sxy = squares = 0.0
            for y in range(y0 - reach, y0 + reach + 1):
                for x in range(x0 - reach, x0 + reach + 1):
                    if mask[y, x] != 0:
                        continue
                    dx, dy = x - xc, y - yc
                    weight = np.exp(-0.5 * (dx * dx + dy * dy) / (sigma * sigma))
                    value = weight * (pixels[y, x] - level)
                    flux += value
                    squares += weight * weight
                    sx += value * dx
                    sy += value * dy
                    sxx += value * dx * dx
                    syy += value * dy * dy
                    sxy += value * dx * dy
            if flux <= 0.0:
                break
            mx, my = sx / flux, sy / flux
            xx, yy, xy = sxx / flux - mx * mx, syy / flux - my * my, sxy / flux - mx * my
            if not xx + yy > 0.0:
                break
            # The weight halves both the offset and the second moment of a Gaussian as wide as itself.
            new = np.sqrt(xx + yy)
            change = abs(new - sigma) / sigma + abs(mx) + abs(my)
            sigma, xc, yc = new, xc + 2.0 * mx, yc + 2.0 * my
            if not SIGMA_RANGE_PX[0] < sigma < SIGMA_RANGE_PX[1] or max(abs(xc - x0), abs(yc - y0)) > 1.5:
                break
            if change < 2e-3:
                done = True
                break
        if not done:
            continue
        amplitude = flux / squares
        misfit = 0.0
        near = 0
        for y in range(y0 - reach, y0 + reach + 1):
            for x in range(x0 - reach, x0 + reach + 1):
                square = ((x - xc) ** 2 + (y - yc) ** 2) / (sigma * sigma)
                if mask[y, x] == 0 and square < 9.0:
                    misfit += ((pixels[y, x] - level) / amplitude - np.exp(-0.5 * square)) ** 2
                    near += 1
        moments[n, 0], moments[n, 1], moments[n, 2] = xc, yc, sigma
        moments[n, 3] = np.hypot(xx - yy, 2.0 * xy) / (xx + yy)
        moments[n, 4], moments[n, 5] = amplitude, level
        moments[n, 6] = np.sqrt(misfit / near)


def _chosen(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of the rows [n, 7] that are stars: round, of the size that is most common for its surroundings, alone.

    Sizes are counted in a sliding window of the logarithm; what both sides hold (galaxies, blends, cosmic rays, which
    have every size) is taken off. The brightest ``MOST_STARS`` are kept.
    """
    rows = moments[moments[:, 3] < ROUND]
    if len(rows) < MIN_STARS:
        return rows[:0]
    size = np.log(rows[:, 2])
    distance = np.abs(size[:, None] - size[None, :])
    inside = (distance < SIZE_WIDTH).sum(axis=1)
    beside = ((distance >= SIZE_WIDTH) & (distance < 4.0 * SIZE_WIDTH)).sum(axis=1) / 3.0
    best = int(np.argmax((inside - beside) / np.sqrt(inside)))
    centre = np.median(size[distance[best] < SIZE_WIDTH])
    stars = rows[np.abs(size - centre) < SIZE_WIDTH]
    stars = stars[stars[:, 6] <= 2.0 * np.median(stars[:, 6])]
    return stars[np.argsort(-stars[:, 4])][:MOST_STARS]


def _stack(
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


def _recentred(
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


def _gaussians(
    radius: NDArray[np.float64],
    value: NDArray[np.float64],
    error: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sigmas [k] and weights [k] of the circular Gaussians whose sum fits the profile."""
    sigmas = np.geomspace(SIGMA_RANGE_PX[0], max(radius.max() / 2.0, 1.0), 16)
    model = np.exp(-0.5 * (radius[:, None] / sigmas) ** 2)
    heights, _ = nnls(model / error[:, None], value / error)
    weights = heights * 2.0 * np.pi * sigmas**2
    used = weights > 1e-4 * weights.max()  # the profile is 1 in the middle: some Gaussian always fits
    return sigmas[used], weights[used] / weights[used].sum()


def _fwhm(sigmas: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Full width in pixels at half the maximum of the sum of Gaussians, by bisection."""
    heights = weights / sigmas**2
    low, high = 0.0, 3.0 * float(sigmas.max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = float(np.sum(heights * np.exp(-0.5 * (middle / sigmas) ** 2))) > 0.5 * float(heights.sum())
        low, high = (middle, high) if above else (low, middle)
    return 2.0 * low
