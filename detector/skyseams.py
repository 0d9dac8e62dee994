"""Where the level of the sky jumps between two boxes of its mesh: amplifiers end there.

Interpolated across such an edge the sky would be wrong on both sides of it, by half the jump, for a whole box: a row of
false sources along every amplifier. A source on an edge is no jump: it takes most boxes of a row, beyond their scatter,
and of one sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.skylevel import MIN_BOX_PX, MIN_PIXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.skylevel import Pixels

STRIP_PX = 8  # on each side of an edge between boxes, where a step is looked for
SMALL_STEP = 0.1  # sigma: a smaller step of an amplifier does no harm


@njit(cache=True, parallel=True)
def _measure_steps(pixels, mask, background, noise, pattern, steps):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Jump of the level across each edge between vertically neighbouring boxes, in sigma; NaN where too few are good.

    ``steps`` [my - 1, mx]. Means of the ``STRIP_PX`` rows on each side, of pixels within 2.5 sigma of the two boxes'
    mean level and its half difference; the box's own gradient is taken off by the caller.
    """
    height, width = pixels.shape
    rows, cols = background.shape
    for cell in prange((rows - 1) * cols):
        i, j = cell // cols, cell % cols
        edge = (i + 1) * height // rows
        left, right = j * width // cols, (j + 1) * width // cols
        sigma = 0.5 * (noise[i, j] + noise[i + 1, j])
        middle = 0.5 * (background[i, j] + background[i + 1, j])
        reach = 2.5 * sigma + 0.5 * abs(background[i, j] - background[i + 1, j])
        total = np.zeros(2)
        count = np.zeros(2)
        for y in range(max(edge - STRIP_PX, 0), min(edge + STRIP_PX, height)):
            side = 0 if y < edge else 1
            for x in range(left, right):
                value = np.float32(pixels[y, x]) - pattern[y & 1, x & 1]
                if mask[y, x] == 0 and abs(value - middle) <= reach:
                    total[side] += value - middle
                    count[side] += 1.0
        steps[i, j] = np.nan
        if min(count[0], count[1]) >= MIN_PIXELS:
            steps[i, j] = (total[1] / count[1] - total[0] / count[0]) / sigma


def edge_steps(
    pixels: Pixels,
    mask: NDArray[np.uint8],
    background: NDArray[np.float64],
    noise: NDArray[np.float64],
    rises: NDArray[np.float64],
    pattern: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Jumps [my - 1, mx] of the level between rows of boxes, in sigma: what goes beyond twice the slopes.

    At a vignetted border the slope itself changes within a box; a jump has none to speak of beside it.
    """
    steps = np.empty((background.shape[0] - 1, background.shape[1]))
    _measure_steps(pixels, mask, background, noise, pattern, steps)
    smooth = 0.5 * (rises[1:] + rises[:-1]) * STRIP_PX / (0.5 * (noise[1:] + noise[:-1]))
    beyond = np.sign(steps - smooth) * np.maximum(np.abs(steps - smooth) - np.abs(smooth), 0.0)
    return np.where(np.isfinite(steps), beyond, np.nan)


def seams(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which edges [n] between rows of boxes the level jumps at, in one half of the columns at least."""
    cols = steps.shape[1]
    return _jumps(steps[:, : (cols + 1) // 2]) | _jumps(steps[:, cols // 2 :])


def _jumps(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Lines of ``steps`` [n, boxes], in sigma, whose median is large, beyond its error, and of one sign."""
    formal = 1.0 / np.sqrt(STRIP_PX * MIN_BOX_PX)
    jumps = np.zeros(steps.shape[0], np.bool_)
    for line, values in enumerate(steps):
        valid = values[np.isfinite(values)]
        if valid.size < max(1, steps.shape[1] // 2):
            continue
        median = np.median(valid)
        error = 1.2533 * max(1.4826 * np.median(np.abs(valid - median)), formal) / np.sqrt(valid.size)
        same_sign = np.mean(np.sign(valid) == np.sign(median))
        jumps[line] = abs(median) > max(SMALL_STEP, 5.0 * error) and same_sign >= 0.8
    return jumps
