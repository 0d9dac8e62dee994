"""Level and sigma of the sky in a heap of pixels, most of which may belong to some source.

The histogram's core, from 2.5 sigma below to 1 sigma above its peak, is fitted by a Gaussian (Poisson likelihood).
Sources only add light, so what they spoil is the side that the fit does not see; the usual clipped mean is biased by
them. The comb of integer data is blurred by a dither of one step first. Constant pixels, or a comb of two or three
teeth, have no core to fit: they give the noise of rounding, or a clipped mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.float32] | NDArray[np.uint16]

# The part of the histogram that is fitted, in sigma about its peak. Below -2.5 there is little left to win and bad
# pixels begin; above +1 lie the wings of faint sources.
CORE_LOW, CORE_HIGH = -2.5, 1.0
BIN = 0.25  # width of a bin in sigma: its own variance (1/12 of its square) is taken off afterwards
MIN_PIXELS = 64  # fewer good pixels in a box say nothing
MIN_BOX_PX = 32  # smaller boxes would take the wings of a star for sky
SAMPLE = 1 << 17  # pixels that are enough for figures of the whole frame


@njit(cache=True)
def _histogram(values, level, sigma, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Count ``values`` in bins of ``BIN`` sigma that begin at ``CORE_LOW`` about ``level``."""
    counts[:] = 0.0
    low = np.float32(level + CORE_LOW * sigma)
    scale = np.float32(1.0 / (BIN * sigma))
    n_bins = np.float32(counts.size)
    for k in range(values.size):
        position = (values[k] - low) * scale
        if position >= np.float32(0.0) and position < n_bins:
            counts[int(position)] += 1.0


@njit(cache=True)
def _fit_counts(counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Peak and width (sigma units of the histogram) of a Gaussian through ``counts``; width 0 where there is none.

    Poisson regression of a parabola in the logarithm, by Newton steps.
    """
    n = counts.size
    x = np.empty(n)
    a = np.zeros(3)
    normal = np.zeros((3, 3))
    right = np.zeros(3)
    for k in range(n):
        x[k] = CORE_LOW + (k + 0.5) * BIN
    for step in range(8):
        normal[:] = 0.0
        right[:] = 0.0
        for k in range(n):
            if step == 0:
                weight = counts[k] + 0.5
                target = np.log(weight)
            else:
                eta = a[0] + x[k] * (a[1] + x[k] * a[2])
                weight = np.exp(min(eta, 30.0))
                target = eta + (counts[k] - weight) / max(weight, 1e-9)
            power = weight
            for p in range(5):
                for i in range(max(0, p - 2), min(3, p + 1)):
                    normal[i, p - i] += power
                if p < 3:
                    right[p] += power * target
                power *= x[k]
        if abs(np.linalg.det(normal)) < 1e-30:
            return 0.0, 0.0
        new = np.linalg.solve(normal, right)
        change = np.abs(new - a).max()
        a[:] = new
        if step > 0 and change < 1e-4:
            break
    if not a[2] < -0.02:  # hardly bent: wider than five sigma of what was supposed
        return 0.0, 0.0
    variance = -0.5 / a[2]
    return a[1] * variance, np.sqrt(max(variance - BIN * BIN / 12.0, 0.0))


@njit(cache=True)
def _first_guess(values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Peak and sigma from the shortest interval that holds a quarter of a sample: rough, but sources do not move it."""
    stride = max(1, values.size // 1024)
    sample = np.sort(values[::stride])
    quarter = max(2, sample.size // 4)
    best = 0
    for k in range(sample.size - quarter):
        if sample[k + quarter] - sample[k] < sample[best + quarter] - sample[best]:
            best = k
    # A quarter of a Gaussian lies within 0.3186 sigma of its peak.
    width = max(sample[best + quarter] - sample[best], np.float32(0.0))
    return 0.5 * (sample[best] + sample[best + quarter]), width / 0.6373


@njit(cache=True)
def clipped(values, level, sigma):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Mean and scatter of the values within three sigma, three times over."""
    for _ in range(3):
        count, total, squares = 0, 0.0, 0.0
        for k in range(values.size):
            value = float(values[k]) - level
            if abs(value) <= 3.0 * sigma:
                count += 1
                total += value
                squares += value * value
        if count == 0:
            break
        mean = total / count
        sigma = np.sqrt(max(squares / count - mean * mean, 1e-12 * sigma * sigma)) / 0.9866  # what clipping took
        level += mean
    return level, sigma


@njit(cache=True)
def core(values, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Level and sigma of the core of ``values`` (finite, dithered by ``step``), which are overwritten by nobody."""
    level, sigma = _first_guess(values)
    floor = max(step * 0.28867513, abs(level) * 1e-6)  # noise of rounding: a step over the root of 12
    if sigma <= floor * 0.01:
        return float(level), floor
    counts = np.zeros(round((CORE_HIGH - CORE_LOW) / BIN))
    for _ in range(6):
        _histogram(values, level, sigma, counts)
        shift, width = _fit_counts(counts)
        if width <= 0.0:  # no peak in sight: look wider
            sigma *= 1.5
            continue
        shift = min(max(shift, -2.0), 2.0)
        width = min(max(width, 0.4), 2.5)
        level += shift * sigma
        sigma *= width
        if abs(shift) < 0.02 and abs(width - 1.0) < 0.02:
            break
    if sigma < 1.5 * step:  # two or three counts hold everything: the comb has no shape to fit
        level, sigma = clipped(values, level, max(sigma, step))
    # The dither added the variance of a triangle two steps wide.
    return float(level), max(np.sqrt(max(sigma * sigma - step * step / 6.0, 0.0)), floor)


@njit(cache=True)
def dither(y, x, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A number in (-step, step), triangular about 0, that is the same whenever the pixel is asked for.

    A triangle joins the teeth of the comb by straight lines; a box would leave stairs that bend the fit.
    """
    hashed = (y * 73856093 ^ x * 19349663) & 0xFFFFFFFF
    hashed = ((hashed ^ (hashed >> 15)) * 0x85EBCA6B) & 0xFFFFFFFF
    hashed ^= hashed >> 13
    return np.float32(step * ((hashed & 0xFFFF) + (hashed >> 16) - 65535.0) / 65536.0)
