"""Stamps around fitted candidates: what the verification network looks at.

A candidate is shown straightened: its line lies along the stamp's rows, whatever its direction, so that a network has
to learn one picture of a streak and not one for each angle. Across the line a bin is half a PSF width, so that a camera
with wide stars and one with narrow ones look alike; along it a bin is long enough for the line to fill two thirds of
the stamp. So nothing of the PSF's shape is lost, however long the line: a satellite's trail across the frame is as thin
in its stamp as an asteroid's of 5 px.

Beside the pixels come the trail that was fitted, what is left without it, the mask, what is sharper than the PSF
(cosmic rays), and the surroundings four times as coarse: a star whose spike or wing it may be. All is in units of the
sky's sigma of a bin. Near the border what lies outside is masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.sharpness import sharp_pixels
from detector.whitening import binned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.psf import Psf

SIDE = 48
CHANNELS = ("pixels", "residual", "trail", "masked", "surroundings", "sharp")
# The part of a stamp's length that a line fills at most, and what is added to its length, in bins across.
FILLED = 2.0 / 3.0
ADDED_BINS = 8.0
# A bin across, in widths (FWHM) of the PSF; never less than a pixel.
ACROSS_FWHM = 0.5
# The surroundings are so often binned by two, and so many times as large as the stamp.
COARSER = 2
COARSE = 1 << COARSER
# A bin of which less is there is masked.
LEAST_COVERED = 0.3
# Interpolation between pixels blurs by this variance, px^2: that of a triangle one pixel to each side.
INTERPOLATION_PX2 = 1.0 / 6.0
# Kept finite, and small enough for half precision: 16 is asinh of 4 million sigma.
LARGEST_ASINH = 16.0
# No line of a frame is longer than its diagonal; what a fit made longer shows its middle.
LONGEST_BIN_PX = 512.0


@dataclass(frozen=True, eq=False)
class Shown:
    """A whitened frame ``[h, w]``, NaN where masked, where it is ``sharp`` ``[h, w]``, and binned four-fold."""

    pixels: NDArray[np.float32]
    sharp: NDArray[np.bool_]
    coarse: NDArray[np.float32]


def shown(whitened: NDArray[np.float32], psf: Psf) -> Shown:
    """All of a frame that stamps are cut from, once for all of them."""
    pixels = np.ascontiguousarray(whitened)
    coarse = pixels
    for _ in range(COARSER):
        coarse = binned(coarse)
    return Shown(pixels, sharp_pixels(pixels, psf), coarse)


def bins(length_px: NDArray[np.float64], fwhm_px: float) -> tuple[float, NDArray[np.float64]]:
    """The pixels of a bin across, and along for lines of each length."""
    across = max(1.0, ACROSS_FWHM * fwhm_px)
    along = (length_px / FILLED + ADDED_BINS * across) / SIDE
    return across, np.clip(along, across, LONGEST_BIN_PX)


def cut_out(
    frame: Shown,
    ends: NDArray[np.float64],
    flux: NDArray[np.float64],
    psf: Psf,
) -> NDArray[np.float32]:
    """Give the stamps ``[n, 6, 48, 48]`` of trails: the channels of ``CHANNELS``; columns run along the line.

    ``ends`` ``[n, 4]`` x0, y0, x1, y1 in frame pixels; ``flux`` ``[n]`` in units of the sky's sigma. Pixels, residual,
    trail and surroundings are asinh of sigmas, 0 where masked.
    """
    out = np.zeros((len(ends), len(CHANNELS), SIDE, SIDE), np.float32)
    # What could not be fitted shows its pixels as they are.
    flux = np.nan_to_num(flux, nan=0.0, posinf=0.0, neginf=0.0)
    across, along = bins(np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]), psf.fwhm_px)
    _cut(frame.pixels, frame.sharp, frame.coarse, ends, flux, across, along, psf.sigmas, psf.weights, out)
    return out


@njit(cache=True)
def _squashed(value: float) -> float:
    return min(max(math.asinh(value), -LARGEST_ASINH), LARGEST_ASINH)


@njit(cache=True)
def _samples(width: float) -> int:
    """How many points of a bin are looked at: no pixel may fall between them."""
    return max(1, int(math.ceil(width - 1e-6)))


@njit(cache=True)
def _bin_mean(
    frame: NDArray[np.float32],
    x: float,
    y: float,
    ux: float,
    uy: float,
    along: float,
    across: float,
) -> tuple[float, float]:
    """The mean of a bin about (x, y), interpolated between pixels, and how much of it is there."""
    height, width = frame.shape
    n_along, n_across = _samples(along), _samples(across)
    total, weight = 0.0, 0.0
    for a in range(n_along):
        s = ((a + 0.5) / n_along - 0.5) * along
        for b in range(n_across):
            t = ((b + 0.5) / n_across - 0.5) * across
            px, py = x + s * ux - t * uy, y + s * uy + t * ux
            if px <= -1.0 or py <= -1.0 or px >= width or py >= height:
                continue
            j, i = int(math.floor(px)), int(math.floor(py))
            fx, fy = px - j, py - i
            for di in range(2):
                for dj in range(2):
                    ii, jj = i + di, j + dj
                    if ii < 0 or jj < 0 or ii >= height or jj >= width:
                        continue
                    value = frame[ii, jj]
                    if value == value:  # noqa: PLR0124 - not NaN
                        w = (fy if di else 1.0 - fy) * (fx if dj else 1.0 - fx)
                        total += w * value
                        weight += w
    # Weights add up to one but for rounding.
    covered = min(weight / (n_along * n_across) + 1e-9, 1.0)
    return (total / weight if weight > 0.0 else 0.0), covered


@njit(cache=True)
def _sharp_share(
    sharp: NDArray[np.bool_],
    x: float,
    y: float,
    ux: float,
    uy: float,
    along: float,
    across: float,
) -> float:
    """The share of the nearest pixels of a bin that is sharper than the PSF."""
    height, width = sharp.shape
    n_along, n_across = _samples(along), _samples(across)
    hits = 0
    for a in range(n_along):
        s = ((a + 0.5) / n_along - 0.5) * along
        for b in range(n_across):
            t = ((b + 0.5) / n_across - 0.5) * across
            j, i = int(math.floor(x + s * ux - t * uy + 0.5)), int(math.floor(y + s * uy + t * ux + 0.5))
            if 0 <= i < height and 0 <= j < width and sharp[i, j]:
                hits += 1
    return hits / (n_along * n_across)


@njit(cache=True)
def _profiles(
    length: float,
    along: float,
    across: float,
    sigma: float,
    lengthwise: NDArray[np.float64],
    crosswise: NDArray[np.float64],
) -> None:
    """The mean value of a line of unit flux, blurred by one Gaussian, in each bin: along times across."""
    middle = 0.5 * (SIDE - 1)
    s = math.sqrt(sigma**2 + INTERPOLATION_PX2)
    n_along, n_across = _samples(along), _samples(across)
    root2 = math.sqrt(2.0) * s
    for k in range(SIDE):
        total = 0.0
        for a in range(n_along):
            p = (k - middle) * along + ((a + 0.5) / n_along - 0.5) * along
            if length > 0.2:
                total += 0.5 * (math.erf((p + 0.5 * length) / root2) - math.erf((p - 0.5 * length) / root2)) / length
            else:
                total += math.exp(-0.5 * (p / s) ** 2) / (math.sqrt(2.0 * math.pi) * s)
        lengthwise[k] = total / n_along
        total = 0.0
        for b in range(n_across):
            q = (k - middle) * across + ((b + 0.5) / n_across - 0.5) * across
            total += math.exp(-0.5 * (q / s) ** 2) / (math.sqrt(2.0 * math.pi) * s)
        crosswise[k] = total / n_across


@njit(cache=True, parallel=True)
def _cut(
    pixels: NDArray[np.float32],
    sharp: NDArray[np.bool_],
    coarse: NDArray[np.float32],
    ends: NDArray[np.float64],
    flux: NDArray[np.float64],
    across: float,
    along_of: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    middle = 0.5 * (SIDE - 1)
    for n in prange(len(ends)):
        mx, my = 0.5 * (ends[n, 0] + ends[n, 2]), 0.5 * (ends[n, 1] + ends[n, 3])
        dx, dy = ends[n, 2] - ends[n, 0], ends[n, 3] - ends[n, 1]
        length = math.sqrt(dx * dx + dy * dy)
        ux, uy = 1.0, 0.0
        if length > 1e-6:
            ux, uy = dx / length, dy / length
        along = along_of[n]
        # Means of bins times this have the noise of one pixel, nearly.
        unit = math.sqrt(along * across)
        lengthwise, crosswise = np.zeros(SIDE), np.zeros(SIDE)
        model = np.zeros((SIDE, SIDE))
        for k in range(len(sigmas)):
            _profiles(length, along, across, sigmas[k], lengthwise, crosswise)
            for i in range(SIDE):
                for j in range(SIDE):
                    model[i, j] += weights[k] * crosswise[i] * lengthwise[j]
        for i in range(SIDE):
            t = (i - middle) * across
            for j in range(SIDE):
                s = (j - middle) * along
                x, y = mx + s * ux - t * uy, my + s * uy + t * ux
                value, covered = _bin_mean(pixels, x, y, ux, uy, along, across)
                out[n, 3, i, j] = 1.0 - covered
                if covered >= LEAST_COVERED:
                    trail = flux[n] * unit * model[i, j]
                    out[n, 0, i, j] = _squashed(unit * value)
                    out[n, 1, i, j] = _squashed(unit * value - trail)
                    out[n, 2, i, j] = _squashed(trail)
                    out[n, 5, i, j] = _sharp_share(sharp, x, y, ux, uy, along, across)
                x, y = mx + COARSE * (s * ux - t * uy), my + COARSE * (s * uy + t * ux)
                x, y = (x - 0.5 * (COARSE - 1.0)) / COARSE, (y - 0.5 * (COARSE - 1.0)) / COARSE
                value, covered = _bin_mean(coarse, x, y, ux, uy, along, across)
                if covered >= LEAST_COVERED:
                    out[n, 4, i, j] = _squashed(unit * value)
