"""Sums along short lines in every direction, length and place: the oriented bank of the matched filter.

A line of 2h rows is two lines of h rows, so that sums of one length are made from those of the next shorter one (the
approximate discrete Radon transform: Brady 1998, SIAM J. Comput. 27, 107; Nir et al. 2018, AJ 156, 229), and those of
3/2 h from the two before. Lines nearer to the rows than to the columns are found in the transposed tile. Where a line
is long, its middle is tried only every eighth to quarter of its length along itself: nothing is lost between. The cost
is fixed by the number of pixels; what grows at night is only the list, and that is capped a tile.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHORTEST_ROWS = 4  # of the first sums; shorter ones are points to a PSF of two pixels
DOUBLINGS = 4  # 4, 8, ... 64 rows, and 6, 12, ... 96
KINDS = 2 * (DOUBLINGS + 1)
TILE_PX = 512
REACH_PX = 52  # half of the longest line, and of the steps between middles
# Two parts that make a line are even: each counts for at most this much of what the other has for its length, and so
# many sigma of its noise more. A star on a line then adds little to it, at whatever length.
BRIGHTER, SPARE_SIGMA = 2.0, 2.5
SMALLEST_SHARE = 0.15  # of the sum that each part has
MOST_PER_TILE = 6_000
# Columns of the table of maxima.
FIELDS = 5  # snr, x, y, dx, dy: the middle, and half of the line


def rows_of(kind: int) -> int:
    """Rows of the lines of a kind: 4, 6, 8, 12 ... 64, 96."""
    rows = SHORTEST_ROWS << (kind // 2)
    return rows + rows // 2 * (kind % 2)


def step_of(kind: int) -> int:
    """Rows from one middle to the next that is tried."""
    return max(1, (SHORTEST_ROWS << (kind // 2)) // 4)


@njit(cache=True)
def _first_sums(tile: NDArray[np.float32], slope: int, out: NDArray[np.float32]) -> None:
    """Lines of ``SHORTEST_ROWS`` rows that move ``slope`` columns in as many rows; outside the tile is nothing."""
    height, width = tile.shape
    out[:] = np.float32(0.0)
    for y in range(height - SHORTEST_ROWS + 1):
        for j in range(SHORTEST_ROWS):
            shift = int(math.floor(slope * j / SHORTEST_ROWS + 0.5))
            row, target = tile[y + j], out[y]
            for x in range(max(0, -shift), min(width, width - shift)):
                target[x] += row[x + shift]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "nnan"})
def _joined(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    shift: int,
    norm: np.float32,
    limits: tuple[np.float32, np.float32, np.float32, np.float32],
    middle: int,
    code: np.int32,
    sums: NDArray[np.float32],
    best: NDArray[np.float32],
    which: NDArray[np.int32],
    keep: bool,
) -> None:
    """One row: ``first[x] + second[x + shift]``; where it is the best and even, noted at its middle ``x + middle``.

    ``limits``: by how much the first may exceed so many times the second, and the second the first.
    """
    width = len(first)
    spare_a, ratio_a, spare_b, ratio_b = limits
    zero, share = np.float32(0.0), np.float32(SMALLEST_SHARE)
    low = max(0, -shift, -middle)
    high = min(width, width - shift, width - middle)
    a, b = first[low:high], second[low + shift : high + shift]
    n = high - low
    if keep:
        out = sums[low:high]
        for i in range(n):
            out[i] = min(a[i], spare_a + ratio_a * max(b[i], zero)) + min(b[i], spare_b + ratio_b * max(a[i], zero))
    peak, code_at = best[low + middle : high + middle], which[low + middle : high + middle]
    for i in range(n):
        one = min(a[i], spare_a + ratio_a * max(b[i], zero))
        other = min(b[i], spare_b + ratio_b * max(a[i], zero))
        total = one + other
        snr = total * norm
        better = (snr > peak[i]) & (one > share * total) & (other > share * total)
        peak[i] = snr if better else peak[i]
        code_at[i] = code if better else code_at[i]


@njit(cache=True)
def _first_rows(height: int) -> NDArray[np.int64]:
    """Where in the table of best lines of a tile the rows of each kind begin; at last their number."""
    base = np.zeros(KINDS + 1, np.int64)
    for kind in range(KINDS):
        base[kind + 1] = base[kind] + height // max(1, (SHORTEST_ROWS << (kind // 2)) // 4) + 1
    return base


@njit(cache=True)
def _bank(
    tile: NDArray[np.float32],
    norms: NDArray[np.float32],
    best: NDArray[np.float32],
    which: NDArray[np.int32],
) -> None:
    """Best line [row, column of its middle] of every kind and how many columns it moves in the rows of its slope.

    The rows of a kind lie below those of the one before, every ``step_of(kind)``-th of the tile (``_first_rows``).
    ``norms`` ``[kind, slope + rows]`` makes a sum an SNR. Depth first over the slopes: the sums of one slope stay in
    the cache while all longer lines are made from them.
    """
    height, width = tile.shape
    best[:] = np.float32(0.0)
    which[:] = 0
    # sums[d] holds the lines of SHORTEST_ROWS << d rows of the slope that is being looked at, every step-th row.
    base = _first_rows(height)
    sums = [
        np.zeros((height // max(1, (SHORTEST_ROWS << d) // 4) + 1, width), np.float32) for d in range(DOUBLINGS + 1)
    ]
    slopes = np.zeros(DOUBLINGS + 1, np.int64)
    for first_slope in range(-SHORTEST_ROWS, SHORTEST_ROWS + 1):
        _first_sums(tile, first_slope, sums[0])
        slopes[0] = first_slope
        # Leaves of the tree of slopes below this one; at each, the levels that have changed are made anew.
        for leaf in range(1 << DOUBLINGS):
            for d in range(DOUBLINGS + 1):
                if d > 0 and leaf % (1 << (DOUBLINGS - d)) != 0:
                    continue
                rows = SHORTEST_ROWS << d
                step = max(1, rows // 4)
                if d > 0:
                    slopes[d] = 2 * slopes[d - 1] + (leaf >> (DOUBLINGS - d)) % 2
                    if slopes[d] > rows:
                        break
                    half = rows // 2
                    half_step = max(1, half // 4)
                    shift = slopes[d] - slopes[d - 1]
                    kind = 2 * d
                    norm = norms[kind, slopes[d] + rows]
                    spare = np.float32(SPARE_SIGMA) / norms[kind - 2, slopes[d - 1] + half]
                    limits = (spare, np.float32(BRIGHTER), spare, np.float32(BRIGHTER))
                    middle = int(math.floor(0.5 * slopes[d] * (rows - 1) / rows + 0.5))
                    for i in range((height - rows) // step + 1):
                        y = i * step
                        at = (y + half) // step
                        _joined(
                            sums[d - 1][y // half_step], sums[d - 1][(y + half) // half_step], shift, norm,
                            limits, middle, slopes[d], sums[d][i], best[base[kind] + at], which[base[kind] + at],
                            True,
                        )  # fmt: skip
                elif leaf == 0:
                    norm = norms[0, slopes[0] + rows]
                    middle = int(math.floor(0.5 * slopes[0] * (rows - 1) / rows + 0.5))
                    even = (np.float32(0.0), np.float32(1.0), np.float32(0.0), np.float32(1.0))
                    zero = np.zeros(0, np.float32)
                    for y in range(height - rows + 1):
                        _joined(
                            sums[0][y], sums[0][y], 0, np.float32(0.5) * norm, even, middle, slopes[0], zero,
                            best[base[0] + y + rows // 2], which[base[0] + y + rows // 2], False,
                        )  # fmt: skip
                else:
                    continue
                # Half as long again: the next shorter lines of the slope above, or of this one where there is none.
                kind = 2 * d + 1
                more = rows // 2
                norm = norms[kind, slopes[d] + rows]
                spare = np.float32(SPARE_SIGMA) / norms[kind - 1, slopes[d] + rows]
                limits = (
                    spare, np.float32(2.0 * BRIGHTER), np.float32(0.7) * spare, np.float32(0.5 * BRIGHTER),
                )  # fmt: skip
                middle = int(math.floor(0.5 * slopes[d] * (rows + more - 1) / rows + 0.5))
                for i in range((height - rows - more) // step + 1):
                    y = i * step
                    at = (y + (rows + more) // 2) // step
                    if d > 0:
                        half_step = max(1, more // 4)
                        _joined(
                            sums[d][i], sums[d - 1][(y + rows) // half_step], slopes[d], norm,
                            limits, middle, slopes[d], sums[d][i], best[base[kind] + at], which[base[kind] + at],
                            False,
                        )  # fmt: skip
                    else:
                        # Six rows: four and four that overlap by two weigh the middle twice; a third of two rows.
                        _joined(
                            sums[0][i], _two_rows(tile, y + rows, slopes[0]), slopes[0], norm,
                            limits, middle, slopes[0], sums[0][i], best[base[kind] + at], which[base[kind] + at],
                            False,
                        )  # fmt: skip


@njit(cache=True)
def _two_rows(tile: NDArray[np.float32], y: int, slope: int) -> NDArray[np.float32]:
    """The sum of two rows of a line of ``slope`` columns in ``SHORTEST_ROWS`` rows."""
    width = tile.shape[1]
    shift = int(math.floor(slope / SHORTEST_ROWS + 0.5))
    out = tile[y].copy()
    for x in range(max(0, -shift), min(width, width - shift)):
        out[x] += tile[y + 1, x + shift]
    return out


@njit(cache=True)
def _maxima(
    best: NDArray[np.float32],
    which: NDArray[np.int32],
    size: tuple[int, int],
    lowest: NDArray[np.float32],
    corner: tuple[int, int],
    transposed: bool,
    table: NDArray[np.float32],
    count: int,
) -> int:
    """Add the local maxima of one tile to ``table`` and give their number; -1 when it is full."""
    base = _first_rows(size[0] + 2 * REACH_PX)
    for kind in range(KINDS):
        rows = SHORTEST_ROWS << (kind // 2)
        step = max(1, rows // 4)
        length = rows + rows // 2 * (kind % 2)
        # The middle of an even number of rows lies before the row that is noted.
        for at in range(REACH_PX // step, (REACH_PX + size[0] - 1) // step + 1):
            y = at * step
            if y < REACH_PX or y >= REACH_PX + size[0]:
                continue
            for x in range(REACH_PX, REACH_PX + size[1]):
                value = best[base[kind] + at, x]
                if value < lowest[kind]:
                    continue
                highest = True
                for i in range(max(at - 1, 0), min(at + 2, base[kind + 1] - base[kind])):
                    for j in range(x - 2, x + 3):
                        other = best[base[kind] + i, j]
                        if other > value or (other == value and (i < at or (i == at and j < x))):
                            highest = False
                if not highest:
                    continue
                if count == len(table):
                    return -1
                dx = 0.5 * which[base[kind] + at, x] * length / rows
                px, py, dy = x - REACH_PX + corner[1], y - 0.5 - REACH_PX + corner[0], 0.5 * length
                table[count, 0] = value
                table[count, 1 if not transposed else 2] = px
                table[count, 2 if not transposed else 1] = py
                table[count, 3 if not transposed else 4] = dx
                table[count, 4 if not transposed else 3] = dy
                count += 1
    return count


@njit(cache=True, parallel=True)
def _search(
    smooth: NDArray[np.float32],
    norms: NDArray[np.float32],
    lowest: NDArray[np.float32],
    table: NDArray[np.float32],
    counts: NDArray[np.int64],
) -> None:
    """Local maxima of every tile: ``table`` ``[tile, MOST_PER_TILE, FIELDS]``, ``counts`` ``[tile]``."""
    height, width = smooth.shape
    across = (width + TILE_PX - 1) // TILE_PX
    for n in prange(len(counts)):
        top, left = n // across * TILE_PX, n % across * TILE_PX
        tall, wide = min(TILE_PX, height - top), min(TILE_PX, width - left)
        tile = np.zeros((tall + 2 * REACH_PX, wide + 2 * REACH_PX), np.float32)
        y0, y1 = max(0, top - REACH_PX), min(height, top + tall + REACH_PX)
        x0, x1 = max(0, left - REACH_PX), min(width, left + wide + REACH_PX)
        for y in range(y0, y1):
            for x in range(x0, x1):
                tile[y - top + REACH_PX, x - left + REACH_PX] = smooth[y, x]
        level = lowest.copy()
        upright_best = np.empty((_first_rows(tile.shape[0])[KINDS], tile.shape[1]), np.float32)
        upright_which = np.empty(upright_best.shape, np.int32)
        _bank(tile, norms, upright_best, upright_which)
        lying_best = np.empty((_first_rows(tile.shape[1])[KINDS], tile.shape[0]), np.float32)
        lying_which = np.empty(lying_best.shape, np.int32)
        _bank(np.ascontiguousarray(tile.T), norms, lying_best, lying_which)
        while True:
            count = _maxima(upright_best, upright_which, (tall, wide), level, (top, left), False, table[n], 0)
            if count >= 0:
                count = _maxima(lying_best, lying_which, (wide, tall), level, (left, top), True, table[n], count)
            if count >= 0:
                break
            level *= np.float32(1.15)  # a field so full that only the better ones have room
        counts[n] = count


def line_maxima(smooth: NDArray[np.float32], norms: NDArray[np.float32], lowest_snr: float) -> NDArray[np.float64]:
    """Local maxima ``[n, 5]`` of the SNR of lines: SNR, x, y of the middle, dx, dy of half the line, px.

    ``smooth`` ``[h, w]`` is the frame filtered with its PSF, 0 where masked; ``norms`` ``[KINDS, 2 * 64 + 1]`` the
    factors by which a sum along rows becomes an SNR, by kind and by slope (``line_norms``).
    """
    height, width = smooth.shape
    tiles = -(-height // TILE_PX) * -(-width // TILE_PX)
    table = np.empty((tiles, MOST_PER_TILE, FIELDS), np.float32)
    counts = np.zeros(tiles, np.int64)
    _search(smooth, norms, np.full(KINDS, lowest_snr, np.float32), table, counts)
    return np.concatenate([table[n, : counts[n]] for n in range(tiles)]).astype(np.float64)
