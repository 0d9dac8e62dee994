"""Saturated pixels, where their charge spilled, and the level at which they saturate where no header says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from detector.goodpixels import extremes, typical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.goodpixels import Mask

PLATEAU_PIXELS = 5  # exactly equal maxima that make a saturation level
PLATEAU_SIGMA = 30.0
BLEED_RUN_PX = 8  # saturated runs of this length bleed
BLEED_REACH_PX = 64
GROWTH_PX = 2  # around saturated pixels: the charge that spilled


def saturated_pixels(pixels: NDArray[np.float32], mask: Mask, saturation_e: float | None) -> NDArray[np.bool_]:
    """Saturated pixels, what bled from them along columns and rows, and ``GROWTH_PX`` around."""
    grown = np.zeros(pixels.shape, np.bool_)
    level = _saturation_level(pixels, mask, saturation_e)
    if level is None:
        return grown
    saturated = pixels >= level
    _, scatter = typical(pixels, mask)
    rows, columns = np.nonzero(saturated)
    _spill(pixels, saturated, rows, columns, 5.0 * scatter, grown)
    _spill(pixels.T, saturated.T, columns, rows, 5.0 * scatter, grown.T)
    return grown


def _saturation_level(pixels: NDArray[np.float32], mask: Mask, saturation_e: float | None) -> float | None:
    """The header's level, or the frame's own where many pixels share the highest value; None where neither is seen."""
    median, scatter = typical(pixels, mask)
    _, highest = extremes(pixels, mask)
    levels = []
    if highest > median + PLATEAU_SIGMA * scatter > median and (pixels == highest).sum() >= PLATEAU_PIXELS:
        levels.append(float(highest))
    # A header that calls a twentieth of the frame saturated speaks of other units.
    if saturation_e is not None and highest >= saturation_e and (pixels >= saturation_e).mean() < 0.05:
        levels.append(saturation_e)
    return min(levels, default=None)


@njit(cache=True)
def _spill(pixels, saturated, rows, columns, excess, grown):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mark each saturated pixel and its surroundings in ``grown``, and what bled from long vertical runs.

    A run is lengthened as long as its column stands out of the columns three pixels to each side.
    """
    height, width = pixels.shape
    for k in range(rows.size):
        y, x = rows[k], columns[k]
        for i in range(max(y - GROWTH_PX, 0), min(y + GROWTH_PX + 1, height)):
            for j in range(max(x - GROWTH_PX, 0), min(x + GROWTH_PX + 1, width)):
                grown[i, j] = True
        for direction in (-1, 1):
            row = y + direction
            if row < 0 or row >= height or saturated[row, x] or x < 3 or x >= width - 3:
                continue
            run = 1
            while run < BLEED_RUN_PX and 0 <= y - direction * run < height and saturated[y - direction * run, x]:
                run += 1
            if run < BLEED_RUN_PX:
                continue
            for _ in range(BLEED_REACH_PX):
                if row < 0 or row >= height:
                    break
                if not pixels[row, x] - max(pixels[row, x - 3], pixels[row, x + 3]) > excess:
                    break
                grown[row, x - 1 : x + 2] = True
                row += direction
