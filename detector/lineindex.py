"""Which of many lines lie near a line, and which belong to it: the geometry under merging.

Lines are entered into square bins all along, so that a line is compared with its neighbours and not with all. Long
lines are in many bins: what is looked up comes once all the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Lines are looked up in square bins of this side, which they are entered into all along.
BIN_PX = 32
# How far a middle may lie off a line that it belongs to, in pixels of its scale: the network's error near the limit.
ACROSS_PX = 3.5
# Off a line's end its direction is uncertain: per pixel beyond it. A satellite's trail is curved: per pixel of length.
ACROSS_BEYOND = 0.05
ACROSS_CURVED = 0.004
# Pieces of one line may leave this much between them, in pixels of their scale ...
TOUCHING_PX = 4.0
# ... or this share of the shorter one, if it is long, where a bright star or dead columns may have torn it.
TORN = 0.5
TORN_FROM_PX = 60.0
# Shorter than this a streak has no direction that could be compared.
DIRECTED_PX = 8.0
MAX_ANGLE_RAD = math.radians(25.0)


@njit(cache=True)
def belongs(
    line: NDArray[np.float64],
    other: NDArray[np.float64],
    across: float,
    touching: float,
    torn: float,
) -> bool:
    """Whether two segments lie on one line and touch: the longer is the line, the shorter is measured against it.

    Between them may lie ``touching`` px, or the share ``torn`` of what the shorter one has above ``TORN_FROM_PX``.
    """
    a = line
    b = other
    if math.hypot(a[2] - a[0], a[3] - a[1]) < math.hypot(b[2] - b[0], b[3] - b[1]):
        a, b = b, a
    la = math.hypot(a[2] - a[0], a[3] - a[1])
    lb = math.hypot(b[2] - b[0], b[3] - b[1])
    mx, my = 0.5 * (b[0] + b[2]), 0.5 * (b[1] + b[3])
    if la < DIRECTED_PX:
        return math.hypot(mx - 0.5 * (a[0] + a[2]), my - 0.5 * (a[1] + a[3])) <= across + 0.25 * (la + lb)
    ux, uy = (a[2] - a[0]) / la, (a[3] - a[1]) / la
    middle = (mx - a[0]) * ux + (my - a[1]) * uy
    beyond = max(-middle, middle - la, 0.0)
    if beyond > 0.5 * lb + max(touching, torn * (lb - TORN_FROM_PX)):
        return False
    if abs((my - a[1]) * ux - (mx - a[0]) * uy) > across + ACROSS_BEYOND * beyond + ACROSS_CURVED * la:
        return False
    if lb < DIRECTED_PX:
        return True
    turn = abs((b[2] - b[0]) * uy - (b[3] - b[1]) * ux) / lb
    return turn <= math.sin(MAX_ANGLE_RAD) and turn * lb <= 2.0 * (across + ACROSS_CURVED * la) + 0.1 * min(lb, 100.0)


@njit(cache=True)
def enter(ends: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], tuple[int, ...]]:
    """Bins that each line crosses: a linked list of entries (``head``, ``following``, ``row``) and the grid's place.

    The grid is left, top, columns, rows, in bins.
    """
    n = len(ends)
    steps = np.empty(n, np.int64)
    left = int(math.floor(min(ends[:, 0].min(), ends[:, 2].min()) / BIN_PX))
    top = int(math.floor(min(ends[:, 1].min(), ends[:, 3].min()) / BIN_PX))
    columns = int(math.floor(max(ends[:, 0].max(), ends[:, 2].max()) / BIN_PX)) - left + 1
    rows = int(math.floor(max(ends[:, 1].max(), ends[:, 3].max()) / BIN_PX)) - top + 1
    for i in range(n):
        steps[i] = int(math.hypot(ends[i, 2] - ends[i, 0], ends[i, 3] - ends[i, 1]) / BIN_PX) + 1
    total = steps.sum() + n
    head = np.full(rows * columns, -1, np.int64)
    following = np.full(total, -1, np.int64)
    row = np.empty(total, np.int64)
    entry = 0
    for i in range(n):
        for k in range(steps[i] + 1):
            share = k / steps[i]
            x = int(math.floor((ends[i, 0] + share * (ends[i, 2] - ends[i, 0])) / BIN_PX)) - left
            y = int(math.floor((ends[i, 1] + share * (ends[i, 3] - ends[i, 1])) / BIN_PX)) - top
            b = y * columns + x
            row[entry] = i
            following[entry] = head[b]
            head[b] = entry
            entry += 1
    return head, following, row, (left, top, columns, rows)


@njit(cache=True)
def near(
    line: NDArray[np.float64],
    pad: float,
    bins: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], tuple[int, ...]],
    taken: NDArray[np.int64],
    found: NDArray[np.int64],
    seen: NDArray[np.int64],
    visit: int,
) -> int:
    """Rows not yet ``taken`` whose line comes within a bin of ``line`` made longer by ``pad`` px, sorted: how many.

    They go into ``found``; ``seen`` remembers the number of this ``visit``, so that each is given once.
    """
    head, following, row, (left, top, columns, rows) = bins
    length = math.hypot(line[2] - line[0], line[3] - line[1])
    ux, uy = (1.0, 0.0) if length < 1e-9 else ((line[2] - line[0]) / length, (line[3] - line[1]) / length)
    count = 0
    steps = int((length + 2.0 * pad) / BIN_PX) + 1
    for k in range(steps + 1):
        t = -pad + (length + 2.0 * pad) * k / steps
        x = int(math.floor((line[0] + t * ux) / BIN_PX)) - left
        y = int(math.floor((line[1] + t * uy) / BIN_PX)) - top
        for by in range(max(y - 1, 0), min(y + 1, rows - 1) + 1):
            for bx in range(max(x - 1, 0), min(x + 1, columns - 1) + 1):
                entry = head[by * columns + bx]
                while entry >= 0:
                    i = row[entry]
                    if taken[i] < 0 and seen[i] != visit:
                        seen[i] = visit
                        found[count] = i
                        count += 1
                    entry = following[entry]
    found[:count] = np.sort(found[:count])
    return count
