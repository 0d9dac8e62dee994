"""Plain figures of the pixels that are not masked: level, scatter, least and greatest, medians."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Mask = NDArray[np.uint8]


def typical(pixels: NDArray[np.float32], mask: Mask) -> tuple[float, float]:
    """Median and scatter of a sample of the good pixels; 0 and 0 when there are none."""
    every = max(1, pixels.size // (1 << 16))
    # A prime number of columns apart, so that no column is preferred.
    sample = pixels.reshape(-1)[:: every | 1][mask.reshape(-1)[:: every | 1] == 0]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 0.0
    median = float(np.median(sample))
    return median, 1.4826 * float(np.median(np.abs(sample - median)))


@njit(cache=True, parallel=True)
def extremes(pixels, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Lowest and highest good pixel; +inf and -inf where there is none."""
    height, width = pixels.shape
    low = np.full(height, np.inf, np.float32)
    high = np.full(height, -np.inf, np.float32)
    for y in prange(height):
        least, most = np.float32(np.inf), np.float32(-np.inf)
        for x in range(width):
            if mask[y, x] == 0:
                least = min(least, pixels[y, x])
                most = max(most, pixels[y, x])
        low[y], high[y] = least, most
    return low.min(), high.max()


def nanmedian(columns: NDArray[np.floating]) -> NDArray[np.float64]:
    """Median of each column without its NaN, NaN where there is nothing else (and much faster than numpy's)."""
    ordered = np.sort(columns, axis=0)  # NaN last
    count = np.isfinite(ordered).sum(axis=0)
    middle = [np.take_along_axis(ordered, np.maximum(count - d, 0)[None] // 2, axis=0)[0] for d in (0, 1)]
    return np.where(count > 0, 0.5 * (middle[0] + middle[1]), np.nan).astype(np.float64)
