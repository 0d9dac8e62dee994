"""What each window of a simulated scene should have answered.

The definition of ``detector.tiling``: a window answers for the piece of a streak inside it whose mid-point lies in the
window's central cell; its ends are those of that piece. Of two pieces in one cell the one with more signal counts. The
eight neighbours of a positive cell and pieces too faint to be seen are left out of the loss: there no answer is wrong.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pieces with less signal-to-noise inside the window are neither positive nor negative.
LEAST_SNR = 3.5


def label_cells(
    trails: NDArray[np.float64],
    grid: tuple[int, int],
    window: int,
    step: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give targets ``[5, rows, cols]`` (1 or 0, then the ends in window pixels) and weights ``[rows, cols]`` (0 to 1).

    ``trails`` ``[n, 6]``: x0, y0, x1, y1 in pixels of the image, the matched-filter SNR of the whole trail, and 1 where
    the trail counts as a streak (0: too short to have a direction, left out).
    """
    target = np.zeros((5, *grid), np.float32)
    weight = np.ones(grid, np.float32)
    _label(np.ascontiguousarray(trails, np.float64), target, weight, window, step)
    return target, weight


@njit(cache=True)
def clip(
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    left: float,
    top: float,
    side: float,
    out: NDArray[np.float64],
) -> bool:
    """The piece of a segment inside a square (Liang and Barsky 1984), into ``out``; False when none is."""
    low, high = 0.0, 1.0
    for axis in range(2):
        begin = x0 if axis == 0 else y0
        delta = (x1 - x0) if axis == 0 else (y1 - y0)
        least = left if axis == 0 else top
        most = least + side
        if abs(delta) < 1e-12:
            if begin < least or begin > most:
                return False
            continue
        a, b = (least - begin) / delta, (most - begin) / delta
        if a > b:
            a, b = b, a
        low, high = max(low, a), min(high, b)
    if low > high:
        return False
    out[0], out[1] = x0 + low * (x1 - x0), y0 + low * (y1 - y0)
    out[2], out[3] = x0 + high * (x1 - x0), y0 + high * (y1 - y0)
    return True


@njit(cache=True)
def _label(
    trails: NDArray[np.float64],
    target: NDArray[np.float32],
    weight: NDArray[np.float32],
    window: int,
    step: int,
) -> None:
    rows, cols = weight.shape
    margin = (window - step) // 2
    signal = np.zeros((rows, cols))
    left_out = np.zeros((rows, cols), np.uint8)
    owner = np.full((rows, cols), -1, np.int64)
    answers = np.zeros(len(trails))
    piece = np.zeros(4)
    for n in range(len(trails)):
        x0, y0, x1, y1, snr, counts = trails[n]
        length = math.hypot(x1 - x0, y1 - y0)
        # Every window that the trail could enter with its middle in the cell: cells within one cell of the trail.
        row_low = max(int(math.floor((min(y0, y1) + 0.5) / step)) - 1, 0)
        row_high = min(int(math.floor((max(y0, y1) + 0.5) / step)) + 1, rows - 1)
        col_low = max(int(math.floor((min(x0, x1) + 0.5) / step)) - 1, 0)
        col_high = min(int(math.floor((max(x0, x1) + 0.5) / step)) + 1, cols - 1)
        for r in range(row_low, row_high + 1):
            for c in range(col_low, col_high + 1):
                # A window reaches half a pixel beyond the centres of its first and last pixels.
                left, top = step * c - margin - 0.5, step * r - margin - 0.5
                if not clip(x0, y0, x1, y1, left, top, float(window), piece):
                    continue
                mx, my = 0.5 * (piece[0] + piece[2]), 0.5 * (piece[1] + piece[3])
                if int(math.floor((mx + 0.5) / step)) != c or int(math.floor((my + 0.5) / step)) != r:
                    continue
                part = math.hypot(piece[2] - piece[0], piece[3] - piece[1])
                # Signal adds along the line, noise in quadrature: SNR goes with the root of the length.
                seen = snr * math.sqrt(part / length) if length > 1e-9 else snr
                for rr in range(max(r - 1, 0), min(r + 2, rows)):
                    for cc in range(max(c - 1, 0), min(c + 2, cols)):
                        if rr != r or cc != c:
                            left_out[rr, cc] = 1
                if seen < LEAST_SNR or counts < 0.5:
                    left_out[r, c] = 1
                    continue
                if seen > signal[r, c]:
                    signal[r, c] = seen
                    owner[r, c] = n
                    target[0, r, c] = 1.0
                    target[1, r, c] = piece[0] - (left + 0.5)
                    target[2, r, c] = piece[1] - (top + 0.5)
                    target[3, r, c] = piece[2] - (left + 0.5)
                    target[4, r, c] = piece[3] - (top + 0.5)
    for r in range(rows):
        for c in range(cols):
            if owner[r, c] >= 0:
                answers[owner[r, c]] += 1.0
    for r in range(rows):
        for c in range(cols):
            if owner[r, c] >= 0:
                # A trail that a hundred windows see is one object: it must not outweigh a hundred asteroids.
                weight[r, c] = 1.0 / math.sqrt(answers[owner[r, c]])
            if left_out[r, c] and target[0, r, c] < 0.5:
                weight[r, c] = 0.0
