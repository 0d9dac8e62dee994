"""Stamps around fitted candidates: what the verification network looks at.

A candidate is cut out at the binning at which it fills at most three quarters of the stamp, so that a satellite and an
asteroid of 5 px look alike; beside the pixels come the trail that was fitted, what is left without it, the mask, and
the surroundings four times as coarse: a star whose spike or wing it may be. All is in units of the sky's sigma at that
binning. Near the border what lies outside is masked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.sky import binned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.psf import Psf

SIDE = 48
CHANNELS = ("pixels", "residual", "trail", "masked", "surroundings")
# The part of a stamp's side that a trail with its wings may fill.
FILLED = 0.75
WINGS_FWHM = 3.0
# The surroundings are this many binnings by two coarser.
COARSER = 2
DEEPEST = 8
FAR_SIGMA = 4.0
# Kept finite, and small enough for half precision: 16 is asinh of 4 million sigma.
LARGEST_ASINH = 16.0


@dataclass(frozen=True, eq=False)
class Pyramid:
    """A whitened frame binned 1, 2, 4 ... times, NaN where masked: ``levels[k]`` is ``[h >> k, w >> k]``."""

    levels: tuple[NDArray[np.float32], ...]


def pyramid(whitened: NDArray[np.float32]) -> Pyramid:
    """Bin a whitened frame ``[h, w]`` until it is smaller than a stamp."""
    levels = [np.ascontiguousarray(whitened)]
    while len(levels) < DEEPEST + COARSER and min(levels[-1].shape) >= SIDE:
        levels.append(binned(levels[-1]))
    return Pyramid(tuple(levels))


def depth(length_px: NDArray[np.float64], fwhm_px: float) -> NDArray[np.int64]:
    """How often a frame is binned by two for the stamp of a trail of each length."""
    room = FILLED * SIDE
    needed = np.log2(np.maximum((length_px + WINGS_FWHM * fwhm_px) / room, 1.0))
    return np.clip(np.ceil(needed - 1e-9), 0, DEEPEST).astype(np.int64)


def cut_out(
    frame: Pyramid,
    ends: NDArray[np.float64],
    flux: NDArray[np.float64],
    psf: Psf,
) -> NDArray[np.float32]:
    """Give the stamps ``[n, 5, 48, 48]`` of trails: the channels of ``CHANNELS``.

    ``ends`` ``[n, 4]`` x0, y0, x1, y1 in frame pixels; ``flux`` ``[n]`` in units of the sky's sigma. Pixels, residual,
    trail and surroundings are asinh of sigmas, 0 where masked.
    """
    out = np.zeros((len(ends), len(CHANNELS), SIDE, SIDE), np.float32)
    # What could not be fitted shows its pixels as they are.
    flux = np.nan_to_num(flux, nan=0.0, posinf=0.0, neginf=0.0)
    length = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
    deep = np.minimum(depth(length, psf.fwhm_px), len(frame.levels) - 1)
    for level in np.unique(deep):
        rows = np.flatnonzero(deep == level)
        near, coarse = frame.levels[level], frame.levels[min(level + COARSER, len(frame.levels) - 1)]
        coarser = min(level + COARSER, len(frame.levels) - 1)
        stamps = np.zeros((len(rows), len(CHANNELS), SIDE, SIDE), np.float32)
        _cut(
            near,
            coarse,
            float(1 << level),
            float(1 << coarser),
            ends[rows],
            flux[rows],
            psf.sigmas,
            psf.weights,
            stamps,
        )
        out[rows] = stamps
    return out


@njit(cache=True)
def _squashed(value: float) -> float:
    return min(max(math.asinh(value), -LARGEST_ASINH), LARGEST_ASINH)


@njit(cache=True, parallel=True)
def _cut(
    near: NDArray[np.float32],
    coarse: NDArray[np.float32],
    scale: float,
    coarse_scale: float,
    ends: NDArray[np.float64],
    flux: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    for n in prange(len(ends)):
        x0, y0 = (ends[n, 0] - 0.5 * (scale - 1.0)) / scale, (ends[n, 1] - 0.5 * (scale - 1.0)) / scale
        x1, y1 = (ends[n, 2] - 0.5 * (scale - 1.0)) / scale, (ends[n, 3] - 0.5 * (scale - 1.0)) / scale
        left = int(round(0.5 * (x0 + x1))) - SIDE // 2
        top = int(round(0.5 * (y0 + y1))) - SIDE // 2
        # The sum of scale^2 pixels over the scale, of a line of unit flux: the noise stays 1.
        amplitude = flux[n] / scale
        for i in range(SIDE):
            for j in range(SIDE):
                y, x = top + i, left + j
                if y < 0 or x < 0 or y >= near.shape[0] or x >= near.shape[1] or not math.isfinite(near[y, x]):
                    out[n, 3, i, j] = 1.0
                    continue
                trail = amplitude * _line(float(x), float(y), x0, y0, x1, y1, scale, sigmas, weights)
                out[n, 0, i, j] = _squashed(near[y, x])
                out[n, 1, i, j] = _squashed(near[y, x] - trail)
                out[n, 2, i, j] = _squashed(trail)
        mx, my = 0.5 * (ends[n, 0] + ends[n, 2]), 0.5 * (ends[n, 1] + ends[n, 3])
        left = int(round((mx - 0.5 * (coarse_scale - 1.0)) / coarse_scale)) - SIDE // 2
        top = int(round((my - 0.5 * (coarse_scale - 1.0)) / coarse_scale)) - SIDE // 2
        for i in range(SIDE):
            for j in range(SIDE):
                y, x = top + i, left + j
                if 0 <= y < coarse.shape[0] and 0 <= x < coarse.shape[1] and math.isfinite(coarse[y, x]):
                    out[n, 4, i, j] = _squashed(coarse[y, x])


@njit(cache=True)
def _line(
    x: float,
    y: float,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    scale: float,
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> float:
    """Value at a binned pixel of a line of unit flux: all in binned pixels, their own width included."""
    dx, dy = x1 - x0, y1 - y0
    length = math.sqrt(dx * dx + dy * dy)
    if length < 0.2:
        dx, dy, length = 0.2, 0.0, 0.2
    ux, uy = dx / length, dy / length
    along, across = (x - x0) * ux + (y - y0) * uy, (y - y0) * ux - (x - x0) * uy
    value = 0.0
    for k in range(len(sigmas)):
        s = math.sqrt((sigmas[k] / scale) ** 2 + (1.0 / 12.0 if scale > 1.0 else 0.0))
        if abs(across) > FAR_SIGMA * s or along < -FAR_SIGMA * s or along > length + FAR_SIGMA * s:
            continue
        share = 0.5 * (
            math.erf(along / (1.4142135623730951 * s)) - math.erf((along - length) / (1.4142135623730951 * s))
        )
        value += weights[k] * math.exp(-0.5 * (across / s) ** 2) / (2.5066282746310002 * s) * share / length
    return value
