"""The stars of a frame that can say what its PSF is: bright, alone, not saturated, and of the size that stars share.

Galaxies are wider and of all sizes, cosmic rays narrower; stars crowd at one size, and that crowd is looked for. A
frame without such a crowd has no stars here, and its PSF comes from the survey's profile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sky import Sky

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


def star_candidates(pixels: NDArray[np.float32], mask: NDArray[np.uint8], sky: Sky) -> NDArray[np.int64]:
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


def moments_of(
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


def chosen_stars(moments: NDArray[np.float64]) -> NDArray[np.float64]:
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
