"""The middle of what a stamp shows: where a candidate's light has its peak, found in one way for everything.

Networks judge stamps, and training stamps must be centred exactly as those of the stream are: else where an object lies
in its stamp says what it is, and the figures of a test mean nothing. Cosmic rays are brighter than galaxies; therefore
the light is squashed and smoothed first. Where everything near is masked, the place stays as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The smoothing, in pixels of a stamp, and how far from the place asked for the peak may be.
SMOOTHING_PX = 1.5
REACH_PX = 6
# Beyond this the smoothing kernel is nothing.
_RIM_PX = 5


def centred(whitened: NDArray[np.float32], x: float, y: float) -> tuple[int, int]:
    """The pixel (x, y) of ``whitened`` ``[h, w]`` at which its smoothed light peaks, within ``REACH_PX`` of (x, y)."""
    height, width = whitened.shape
    cx, cy = int(np.clip(round(x), 0, width - 1)), int(np.clip(round(y), 0, height - 1))
    out = REACH_PX + _RIM_PX
    left, top = max(0, cx - out), max(0, cy - out)
    part = np.arcsinh(np.nan_to_num(whitened[top : cy + out + 1, left : cx + out + 1]))
    smooth = ndimage.gaussian_filter(part, SMOOTHING_PX, mode="nearest")
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    away = np.hypot(rows + top - cy, columns + left - cx)
    # Of equal values the nearest counts: an empty place is its own middle.
    ranked = np.where(away <= REACH_PX, smooth - 1e-6 * away, -np.inf)
    row, column = np.unravel_index(int(ranked.argmax()), part.shape)
    return int(column) + left, int(row) + top
