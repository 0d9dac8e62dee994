"""One streak seen by many windows becomes one row; pieces of a long one are joined.

The geometric rule: beginning with the best proposal, whatever lies on its line and touches it belongs to it, and what
sticks out makes it longer, so that a trail which crosses the frame grows window by window and its line corrects itself
on the way. What a better streak has taken is not offered again. The rule fails where two streaks of one direction lie
end to end: they come as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Candidates are looked up in square bins of this side; it must not be smaller than half a window at scale 1.
BIN_PX = 64
# How far an end may lie off a line that it belongs to: the network's own error is 2 px at its scale near the limit.
ACROSS_PX = 2.5
# A member that sticks out makes the streak longer only if it is about as certain as the best one (in logits).
EXTENSION_LOGITS = 3.0
# A piece shorter than this was seen whole by its window of 96 px (times the scale): nothing makes it longer.
WHOLE_PX = 70.0
# Shorter than this a streak has no direction that could be compared.
DIRECTED_PX = 8.0
MAX_ANGLE_RAD = math.radians(25.0)


@dataclass(frozen=True, eq=False)
class Proposals:
    """What the network said, one row a window above the floor.

    ``ends`` ``[n, 4]`` x0, y0, x1, y1 in frame pixels; ``logit`` ``[n]``; ``scale`` ``[n]`` the binning (1, 2, 4)
    of the frame it was seen in; ``members`` ``[n]`` how many windows made it (1 before merging).
    """

    ends: NDArray[np.float64]
    logit: NDArray[np.float64]
    scale: NDArray[np.float64]
    members: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.logit)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Proposals:
        """The same table with these rows only."""
        return Proposals(self.ends[rows], self.logit[rows], self.scale[rows], self.members[rows])


def concatenated(tables: list[Proposals]) -> Proposals:
    """Several tables as one."""
    return Proposals(
        np.concatenate([table.ends for table in tables]),
        np.concatenate([table.logit for table in tables]),
        np.concatenate([table.scale for table in tables]),
        np.concatenate([table.members for table in tables]),
    )


def merge(proposals: Proposals, *, fwhm_px: float = 2.0) -> Proposals:
    """Give one row a streak, best first: ends from the windows that saw them, the logit of the best window."""
    if len(proposals) == 0:
        return proposals
    order = np.argsort(-proposals.logit, kind="stable")
    sorted_proposals = proposals.take(order)
    cluster, ends = grow(sorted_proposals.ends, sorted_proposals.logit, sorted_proposals.scale, 0.5 * fwhm_px)
    first = np.unique(cluster, return_index=True)[1]
    members = np.bincount(cluster)
    return Proposals(ends, sorted_proposals.logit[first], sorted_proposals.scale[first], members)


def first_rows(ends: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.intp]:
    """The best row of each streak where fits of two proposals have come to lie on one: rows ``[n]`` of ``ends``."""
    if len(score) == 0:
        return np.zeros(0, np.intp)
    order = np.argsort(-score, kind="stable")
    cluster, _ = grow(ends[order], score[order], np.full(len(score), 0.5), 0.0)
    return np.asarray(order[np.unique(cluster, return_index=True)[1]])


@njit(cache=True)
def belongs(
    line: NDArray[np.float64],
    ends: NDArray[np.float64],
    across: float,
    gap: float,
) -> bool:
    """Whether two segments lie on one line and touch: the longer is the line, the shorter is measured against it."""
    a = line
    b = ends
    if math.hypot(a[2] - a[0], a[3] - a[1]) < math.hypot(b[2] - b[0], b[3] - b[1]):
        a, b = b, a
    la = math.hypot(a[2] - a[0], a[3] - a[1])
    lb = math.hypot(b[2] - b[0], b[3] - b[1])
    mx, my = 0.5 * (b[0] + b[2]), 0.5 * (b[1] + b[3])
    if la < DIRECTED_PX:
        return math.hypot(mx - 0.5 * (a[0] + a[2]), my - 0.5 * (a[1] + a[3])) <= across + 0.5 * (la + lb) * 0.5
    ux, uy = (a[2] - a[0]) / la, (a[3] - a[1]) / la
    t0 = (b[0] - a[0]) * ux + (b[1] - a[1]) * uy
    t1 = (b[2] - a[0]) * ux + (b[3] - a[1]) * uy
    if max(t0, t1) < -gap or min(t0, t1) > la + gap:
        return False
    if abs((my - a[1]) * ux - (mx - a[0]) * uy) > across:
        return False
    if lb < DIRECTED_PX:
        return True
    turn = abs((b[2] - b[0]) * uy - (b[3] - b[1]) * ux) / lb
    return turn <= math.sin(MAX_ANGLE_RAD) and turn * lb <= 2.0 * across + 0.1 * lb


@njit(cache=True)
def stretch(
    line: NDArray[np.float64],
    far: NDArray[np.float64],
    sums: NDArray[np.float64],
    ends: NDArray[np.float64],
    least: float,
) -> None:
    """Let a member pull at ``line``: its direction is that of all members' ends, it reaches to the farthest of them.

    ``far`` holds the two farthest ends so far, ``sums`` the number, the sums and the products of all; what sticks out
    by less than ``least`` does not make the line longer.
    """
    for k in range(2):
        x, y = ends[2 * k], ends[2 * k + 1]
        sums[0] += 1.0
        sums[1] += x
        sums[2] += y
        sums[3] += x * x
        sums[4] += x * y
        sums[5] += y * y
    cx, cy = sums[1] / sums[0], sums[2] / sums[0]
    sxx, sxy, syy = sums[3] / sums[0] - cx * cx, sums[4] / sums[0] - cx * cy, sums[5] / sums[0] - cy * cy
    angle = 0.5 * math.atan2(2.0 * sxy, sxx - syy)
    ux, uy = math.cos(angle), math.sin(angle)
    if (far[2] - far[0]) * ux + (far[3] - far[1]) * uy < 0.0:
        ux, uy = -ux, -uy
    low = (far[0] - cx) * ux + (far[1] - cy) * uy
    high = (far[2] - cx) * ux + (far[3] - cy) * uy
    for k in range(2):
        t = (ends[2 * k] - cx) * ux + (ends[2 * k + 1] - cy) * uy
        if t < low - least:
            low = t
            far[0], far[1] = ends[2 * k], ends[2 * k + 1]
        elif t > high + least:
            high = t
            far[2], far[3] = ends[2 * k], ends[2 * k + 1]
    line[0], line[1] = cx + low * ux, cy + low * uy
    line[2], line[3] = cx + high * ux, cy + high * uy


@njit(cache=True)
def grow(
    ends: NDArray[np.float64],
    logit: NDArray[np.float64],
    scale: NDArray[np.float64],
    extra: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cluster number of each row (rows sorted by logit, best first) and the ends of each cluster."""
    n = len(logit)
    middle = np.empty((n, 2), np.int64)
    for i in range(n):
        middle[i, 0] = int(math.floor(0.5 * (ends[i, 0] + ends[i, 2]) / BIN_PX))
        middle[i, 1] = int(math.floor(0.5 * (ends[i, 1] + ends[i, 3]) / BIN_PX))
    left, top = middle[:, 0].min(), middle[:, 1].min()
    columns = middle[:, 0].max() - left + 1
    rows = middle[:, 1].max() - top + 1
    # Rows of the table by bin: a linked list each.
    head = np.full(rows * columns, -1, np.int64)
    following = np.full(n, -1, np.int64)
    for i in range(n - 1, -1, -1):
        b = (middle[i, 1] - top) * columns + middle[i, 0] - left
        following[i] = head[b]
        head[b] = i
    cluster = np.full(n, -1, np.int64)
    lines = np.empty((n, 4))
    queue = np.empty(n, np.int64)
    count = 0
    for seed in range(n):
        if cluster[seed] >= 0:
            continue
        line = lines[count]
        clipped = math.hypot(ends[seed, 2] - ends[seed, 0], ends[seed, 3] - ends[seed, 1]) > WHOLE_PX * scale[seed]
        line[:] = ends[seed]
        far = ends[seed].copy()
        sums = np.zeros(6)
        stretch(line, far, sums, ends[seed], 0.0)
        cluster[seed] = count
        queue[0] = seed
        begin, end = 0, 1
        while begin < end:
            member = queue[begin]
            begin += 1
            reach = int(math.ceil(0.75 * scale[member])) + (1 if scale[member] < 2 else 0)
            for by in range(max(middle[member, 1] - reach, top), min(middle[member, 1] + reach, top + rows - 1) + 1):
                for bx in range(
                    max(middle[member, 0] - reach, left), min(middle[member, 0] + reach, left + columns - 1) + 1
                ):
                    i = head[(by - top) * columns + bx - left]
                    while i >= 0:
                        if cluster[i] < 0:
                            s = max(scale[i], scale[seed])
                            across = ACROSS_PX * s + extra
                            if belongs(line, ends[i], across, 4.0 * s):
                                cluster[i] = count
                                if clipped and logit[i] > logit[seed] - EXTENSION_LOGITS:
                                    stretch(line, far, sums, ends[i], 2.0 * s)
                                    queue[end] = i
                                    end += 1
                        i = following[i]
        count += 1
    return cluster, lines[:count].copy()
