"""One streak seen by many windows becomes one row; pieces of a long one are joined, and their evidence is added.

Windows that see the same piece make a snippet; snippets on one line that touch make a streak; streaks on one line, with
a gap that a star or a dead column may have torn, make one again. All of it goes best first, far below any threshold:
what lies on the line of a better streak belongs to it, what is about as certain makes it longer, and the line corrects
itself on the way. A window sees at most its own length of a streak, and does not know exactly where its middle is: the
odds of all windows of a streak are therefore summed before anything is cut. The rule fails where two streaks of one
direction lie end to end: they come as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

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
# A piece makes a streak longer only if it is about as certain as the best one (in logits); and, where the best window
# of 96 px saw a streak shorter than this, which it then saw whole, nearly so.
EXTENSION_LOGITS = 4.0
WHOLE_PX = 70.0
WHOLE_EXTENSION_LOGITS = 2.0
# A thousand doubtful windows along the border of an unlit corner are no streak: they are not independent.
MOST_ADDED_LOGITS = 3.5
# Windows this much less certain than a streak's best one say nothing of where it ends, those less so by more than this
# count less; and it ends where windows of this weight together have reached. One that is sure is enough.
TELLING_LOGITS = 3.0
EQUAL_LOGITS = 1.0
REACHED = 2.0
SURE_LOGIT = 2.0
# Shorter than this a streak has no direction that could be compared.
DIRECTED_PX = 8.0
MAX_ANGLE_RAD = math.radians(25.0)
# A joiner is shown so many pieces around each, within so many units along its line, a unit being half a window.
NEIGHBOURS = 24
UNIT_PX = 48.0
LOOK_UNITS = 3.0
FEATURES = (
    "self",
    "begin",
    "end",
    "across",
    "turn",
    "gap",
    "logit",
    "summed",
    "relative",
    "scale",
    "seed_length",
    "seed_scale",
)
# Fitted ends are good to a pixel or two; a bright trail's wings are proposed again within so many widths of the PSF.
FITTED_PX = 2.0
WINGS_FWHM = 2.5
# A piece of a fitted row may be turned by as much (tangent): what the network sees of a bright trail's wing is.
PIECE_TURN = 0.2
# A row this much longer takes the pieces on its line even if its score is lower, down to this share of theirs.
LONGER, LONGER_SHARE = 1.5, 0.5


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


@dataclass(frozen=True, eq=False)
class Snippets:
    """The pieces of which streaks are made, best first, and for each what lies on its line, in order along it.

    ``lines`` ``[n, 4]`` px, ``logit`` and ``scale`` ``[n]`` of each one's best window; ``neighbours``
    ``[n, NEIGHBOURS]`` rows of this table (the piece itself among them), -1 where there are fewer; ``features``
    ``[n, NEIGHBOURS, len(FEATURES)]`` of each neighbour as the piece sees it.
    """

    lines: NDArray[np.float64]
    logit: NDArray[np.float64]
    scale: NDArray[np.float64]
    neighbours: NDArray[np.int64]
    features: NDArray[np.float32]


Joiner: TypeAlias = Callable[[Snippets], "NDArray[np.float64]"]
"""What says how surely each neighbour belongs to the streak of the piece: probabilities ``[n, NEIGHBOURS]``."""


def snippets(proposals: Proposals, *, fwhm_px: float = 2.0) -> tuple[Snippets, NDArray[np.int64]]:
    """Give the snippets, best first, and the snippet of each proposal; proposals are sorted, best first."""
    owner, seeds = see_pieces(proposals.ends, proposals.logit, proposals.scale, 0.5 * fwhm_px)
    summed = np.log(np.bincount(owner, np.exp(np.minimum(proposals.logit, 30.0))))
    lines, logit, scale = proposals.ends[seeds], proposals.logit[seeds], proposals.scale[seeds]
    neighbours, features = look_along(lines, logit, summed, scale, 0.5 * fwhm_px)
    return Snippets(lines, logit, scale, neighbours, features), owner


def merge(proposals: Proposals, *, fwhm_px: float = 2.0, joiner: Joiner | None = None) -> Proposals:
    """Give one row a streak, best first: ends from all windows that saw it, the logarithm of the sum of their odds.

    Which snippets make a streak says the geometric rule, or a ``joiner``.
    """
    if len(proposals) == 0:
        return proposals
    windows = proposals.take(np.argsort(-proposals.logit, kind="stable"))
    extra = 0.5 * fwhm_px
    if joiner is None:
        cluster, seeds = see_pieces(windows.ends, windows.logit, windows.scale, extra)
        lines, logit, scale = windows.ends[seeds], windows.logit[seeds], windows.scale[seeds]
        first = join(lines, logit, scale, extra, 0.0)
    else:
        table, cluster = snippets(windows, fwhm_px=fwhm_px)
        lines, logit, scale = table.lines, table.logit, table.scale
        first = take_members(table.neighbours, joiner(table))
    gives = np.ones(len(windows), np.bool_)
    joined, extends = first
    while True:
        gives &= extends[cluster]
        cluster = joined[cluster]
        lines, logit, scale = settle(windows.ends, windows.logit, windows.scale, cluster, gives)
        best = np.argsort(-logit, kind="stable")
        lines, logit, scale = lines[best], logit[best], scale[best]
        cluster = np.argsort(best)[cluster]
        # What has become longer may reach over a gap that its pieces could not.
        joined, extends = join(lines, logit, scale, extra, TORN)
        if len(np.unique(joined)) == len(lines):
            break
    return Proposals(lines, logit, scale, np.bincount(cluster))


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


@njit(cache=True)
def see_pieces(
    ends: NDArray[np.float64],
    logit: NDArray[np.float64],
    scale: NDArray[np.float64],
    extra: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which windows (best first) see the same piece: the snippet of each, and the best window of each snippet.

    A window belongs to a snippet when its middle lies on the piece that the snippet's best window saw.
    """
    n = len(logit)
    middles = np.empty((n, 4))
    for i in range(n):
        middles[i, 0] = middles[i, 2] = 0.5 * (ends[i, 0] + ends[i, 2])
        middles[i, 1] = middles[i, 3] = 0.5 * (ends[i, 1] + ends[i, 3])
    bins = enter(middles)
    snippet = np.full(n, -1, np.int64)
    seeds = np.empty(n, np.int64)
    found = np.empty(n, np.int64)
    seen = np.full(n, -1, np.int64)
    count = 0
    for seed in range(n):
        if snippet[seed] >= 0:
            continue
        snippet[seed] = count
        seeds[count] = seed
        line = ends[seed]
        length = max(math.hypot(line[2] - line[0], line[3] - line[1]), 1e-9)
        ux, uy = (line[2] - line[0]) / length, (line[3] - line[1]) / length
        for k in range(near(line, TOUCHING_PX * scale[seed], bins, snippet, found, seen, seed)):
            i = found[k]
            s = max(scale[i], scale[seed])
            t = (middles[i, 0] - line[0]) * ux + (middles[i, 1] - line[1]) * uy
            if -TOUCHING_PX * s < t < length + TOUCHING_PX * s and belongs(
                line, ends[i], ACROSS_PX * s + extra, TOUCHING_PX * s, 0.0
            ):
                snippet[i] = count
        count += 1
    return snippet, seeds[:count].copy()


@njit(cache=True)
def look_along(
    ends: NDArray[np.float64],
    logit: NDArray[np.float64],
    summed: NDArray[np.float64],
    scale: NDArray[np.float64],
    extra: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The surest ``NEIGHBOURS`` pieces near the line of each piece, itself among them, in order along it."""
    n = len(logit)
    bins = enter(ends)
    neighbours = np.full((n, NEIGHBOURS), -1, np.int64)
    features = np.zeros((n, NEIGHBOURS, len(FEATURES)), np.float32)
    free = np.full(n, -1, np.int64)
    found = np.empty(n, np.int64)
    seen = np.full(n, -1, np.int64)
    rows = np.empty(NEIGHBOURS, np.int64)
    place = np.empty(NEIGHBOURS)
    for seed in range(n):
        line = ends[seed]
        length = math.hypot(line[2] - line[0], line[3] - line[1])
        ux, uy = (1.0, 0.0) if length < 1e-9 else ((line[2] - line[0]) / length, (line[3] - line[1]) / length)
        unit = UNIT_PX * scale[seed]
        count = 1
        rows[0], place[0] = seed, 0.5 * length
        # What was found comes best first: the first so many are the surest.
        for k in range(near(line, LOOK_UNITS * unit, bins, free, found, seen, seed)):
            i = found[k]
            if i == seed or count == NEIGHBOURS:
                continue
            mx, my = 0.5 * (ends[i, 0] + ends[i, 2]) - line[0], 0.5 * (ends[i, 1] + ends[i, 3]) - line[1]
            along = mx * ux + my * uy
            beyond = max(-along, along - length, 0.0)
            s = max(scale[i], scale[seed])
            if abs(my * ux - mx * uy) > 2.0 * (ACROSS_PX * s + extra) + 2.0 * ACROSS_BEYOND * beyond:
                continue
            rows[count], place[count] = i, along
            count += 1
        order = np.argsort(place[:count])
        reach = place[order[0]]
        for k in range(count):
            i = rows[order[k]]
            dx, dy = ends[i, 2] - ends[i, 0], ends[i, 3] - ends[i, 1]
            half = 0.5 * abs(dx * ux + dy * uy)
            mx, my = 0.5 * (ends[i, 0] + ends[i, 2]) - line[0], 0.5 * (ends[i, 1] + ends[i, 3]) - line[1]
            along = place[order[k]]
            turn = math.atan2(dy * ux - dx * uy, dx * ux + dy * uy)
            turn -= math.pi * math.floor(turn / math.pi + 0.5)
            neighbours[seed, k] = i
            features[seed, k, 0] = 1.0 if i == seed else 0.0
            features[seed, k, 1] = (along - half) / unit
            features[seed, k, 2] = (along + half) / unit
            features[seed, k, 3] = (my * ux - mx * uy) / (ACROSS_PX * scale[seed] + extra)
            features[seed, k, 4] = turn / MAX_ANGLE_RAD
            features[seed, k, 5] = (along - half - reach) / unit
            features[seed, k, 6] = 0.25 * logit[i]
            features[seed, k, 7] = 0.25 * summed[i]
            features[seed, k, 8] = 0.25 * (logit[i] - logit[seed])
            features[seed, k, 9] = math.log2(scale[i] / scale[seed])
            features[seed, k, 10] = length / unit
            features[seed, k, 11] = math.log2(scale[seed])
            reach = max(reach, along + half)
    return neighbours, features


@njit(cache=True)
def take_members(
    neighbours: NDArray[np.int64],
    probability: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The streak of each piece (best first) where each takes, of what is still free, the neighbours that are its own.

    All of them say how far the streak reaches.
    """
    n = len(neighbours)
    cluster = np.full(n, -1, np.int64)
    count = 0
    for seed in range(n):
        if cluster[seed] >= 0:
            continue
        cluster[seed] = count
        for k in range(neighbours.shape[1]):
            i = neighbours[seed, k]
            if i >= 0 and cluster[i] < 0 and probability[seed, k] > 0.5:
                cluster[i] = count
        count += 1
    return cluster, np.ones(n, np.bool_)


@njit(cache=True)
def gather(sums: NDArray[np.float64], ends: NDArray[np.float64], weight: float) -> None:
    """Add a line's two ends to the sums from which ``principal`` has the axis: weights, sums and products."""
    for k in range(2):
        x, y = ends[2 * k], ends[2 * k + 1]
        sums[0] += weight
        sums[1] += weight * x
        sums[2] += weight * y
        sums[3] += weight * x * x
        sums[4] += weight * x * y
        sums[5] += weight * y * y


@njit(cache=True)
def principal(sums: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The principal axis of gathered points: a point on it and its direction."""
    cx, cy = sums[1] / sums[0], sums[2] / sums[0]
    sxx, sxy, syy = sums[3] / sums[0] - cx * cx, sums[4] / sums[0] - cx * cy, sums[5] / sums[0] - cy * cy
    angle = 0.5 * math.atan2(2.0 * sxy, sxx - syy)
    return cx, cy, math.cos(angle), math.sin(angle)


@njit(cache=True)
def join(
    ends: NDArray[np.float64],
    logit: NDArray[np.float64],
    scale: NDArray[np.float64],
    extra: float,
    torn: float,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which pieces (best first) make one streak: the streak of each, and whether it says how far the streak reaches."""
    n = len(logit)
    bins = enter(ends)
    cluster = np.full(n, -1, np.int64)
    extends = np.zeros(n, np.bool_)
    found = np.empty(n, np.int64)
    seen = np.full(n, -1, np.int64)
    line = np.empty(4)
    count, visit = 0, 0
    for seed in range(n):
        if cluster[seed] >= 0:
            continue
        cluster[seed] = count
        extends[seed] = True
        line[:] = ends[seed]
        length = math.hypot(line[2] - line[0], line[3] - line[1])
        clipped = length > WHOLE_PX * scale[seed]
        least = logit[seed] - (EXTENSION_LOGITS if clipped else WHOLE_EXTENSION_LOGITS)
        sums = np.zeros(6)
        gather(sums, line, 1.0 / scale[seed] ** 2)
        longer = True
        while longer:
            longer = False
            length = math.hypot(line[2] - line[0], line[3] - line[1])
            visit += 1
            for k in range(near(line, max(TOUCHING_PX * 4.0, torn * length), bins, cluster, found, seen, visit)):
                i = found[k]
                s = max(scale[i], scale[seed])
                if not belongs(line, ends[i], ACROSS_PX * s + extra, TOUCHING_PX * s, torn):
                    continue
                cluster[i] = count
                if logit[i] < least:
                    continue
                extends[i] = longer = True
                gather(sums, ends[i], 1.0 / scale[i] ** 2)
                cx, cy, ux, uy = principal(sums)
                low, high = math.inf, -math.inf
                for segment in (line, ends[i]):
                    for end in range(2):
                        t = (segment[2 * end] - cx) * ux + (segment[2 * end + 1] - cy) * uy
                        low, high = min(low, t), max(high, t)
                line[0], line[1] = cx + low * ux, cy + low * uy
                line[2], line[3] = cx + high * ux, cy + high * uy
        count += 1
    return cluster, extends


@njit(cache=True)
def reached(t: NDArray[np.float64], weight: NDArray[np.float64], least: float) -> float:
    """The largest ``t`` that rows of a total weight ``least`` have reached."""
    total = 0.0
    order = np.argsort(-t)
    for k in order:
        total += weight[k]
        if total >= least:
            return float(t[k])
    return float(t[order[-1]])


@njit(cache=True)
def span(
    ends: NDArray[np.float64],
    logit: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The line ``[4]`` of a streak's windows, best first."""
    rows = np.flatnonzero(logit > logit[0] - TELLING_LOGITS)
    n = len(rows)
    if n == 1:
        return ends[0].copy()
    weight = np.where(logit[rows] > SURE_LOGIT, REACHED, np.minimum(1.0, np.exp(logit[rows] - logit[0] + EQUAL_LOGITS)))
    sums = np.zeros(6)
    for k in range(n):
        gather(sums, ends[rows[k]], weight[k] / scale[rows[k]] ** 2)
    cx, cy, ux, uy = principal(sums)
    low, high = np.empty(n), np.empty(n)
    for k in range(n):
        e = ends[rows[k]]
        t0, t1 = (e[0] - cx) * ux + (e[1] - cy) * uy, (e[2] - cx) * ux + (e[3] - cy) * uy
        low[k], high[k] = min(t0, t1), max(t0, t1)
    least = min(REACHED, 0.5 * weight.sum())
    a, b = -reached(-low, weight, least), reached(high, weight, least)
    return np.array([cx + a * ux, cy + a * uy, cx + b * ux, cy + b * uy])


@njit(cache=True)
def settle(
    ends: NDArray[np.float64],
    logit: NDArray[np.float64],
    scale: NDArray[np.float64],
    cluster: NDArray[np.int64],
    gives: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The line of each streak from its windows (best first) that ``give``; its summed odds, its best window's scale."""
    count = cluster.max() + 1
    lines = np.empty((count, 4))
    odds = np.empty(count)
    scales = np.empty(count)
    order = np.argsort(cluster, kind="mergesort")
    begin = 0
    while begin < len(order):
        c = cluster[order[begin]]
        end = begin
        while end < len(order) and cluster[order[end]] == c:
            end += 1
        rows = order[begin:end][gives[order[begin:end]]]
        best = rows[0]
        odds[c] = logit[best] + min(math.log(np.exp(logit[rows] - logit[best]).sum()), MOST_ADDED_LOGITS)
        scales[c] = scale[best]
        lines[c] = span(ends[rows], logit[rows], scale[rows])
        begin = end
    return lines, odds, scales


def first_rows(
    ends: NDArray[np.float64],
    score: NDArray[np.float64],
    width_px: NDArray[np.float64] | float = 2.0,
) -> NDArray[np.intp]:
    """Give the rows of fitted ``ends`` ``[n, 4]`` that are one a streak: what lies on another, or in its wings, goes.

    ``width_px`` is how wide each row is (FWHM). Of two rows on one line the better-scored stays, unless it is but a
    piece of one about as good.
    """
    if len(score) == 0:
        return np.zeros(0, np.intp)
    order = np.argsort(-score, kind="stable")
    width = np.broadcast_to(np.asarray(width_px, np.float64), len(score))[order]
    return np.asarray(order[first_of_each(ends[order], score[order], width)])


@njit(cache=True)
def is_piece(line: NDArray[np.float64], other: NDArray[np.float64], across: float) -> bool:
    """Whether the shorter segment ``other`` lies within ``across`` px of ``line``, or on its line behind a gap."""
    length = math.hypot(line[2] - line[0], line[3] - line[1])
    ox, oy = other[2] - other[0], other[3] - other[1]
    other_length = math.hypot(ox, oy)
    mx, my = 0.5 * (other[0] + other[2]), 0.5 * (other[1] + other[3])
    if length < DIRECTED_PX:
        return math.hypot(mx - 0.5 * (line[0] + line[2]), my - 0.5 * (line[1] + line[3])) <= across + 0.25 * length
    ux, uy = (line[2] - line[0]) / length, (line[3] - line[1]) / length
    off = abs((my - line[1]) * ux - (mx - line[0]) * uy)
    if off > across + 0.5 * ACROSS_CURVED * length:
        return False
    turn = abs(oy * ux - ox * uy)
    middle = (mx - line[0]) * ux + (my - line[1]) * uy
    beyond = max(-middle, middle - length)
    if beyond <= across:
        return other_length < DIRECTED_PX or turn <= max(2.0 * across, PIECE_TURN * other_length)
    return beyond <= (0.5 + TORN) * other_length and other_length > TORN_FROM_PX and turn <= 2.0 * across


@njit(cache=True)
def first_of_each(
    ends: NDArray[np.float64],
    score: NDArray[np.float64],
    width: NDArray[np.float64],
) -> NDArray[np.int64]:
    """The rows that stay, of rows sorted best first."""
    n = len(score)
    bins = enter(ends)
    length = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
    gone = np.full(n, -1, np.int64)
    found = np.empty(n, np.int64)
    seen = np.full(n, -1, np.int64)
    for i in range(n):
        if gone[i] >= 0:
            continue
        # Rows before this one have had their say; rows that it takes go only once it is known to stay.
        pieces = 0
        for k in range(near(ends[i], max(FITTED_PX, TORN * length[i]), bins, gone, found, seen, i)):
            j = found[k]
            if j <= i:
                continue
            across = max(FITTED_PX, WINGS_FWHM * max(width[i], width[j]))
            if length[j] <= length[i]:
                same = is_piece(ends[i], ends[j], across)
            else:
                same = is_piece(ends[j], ends[i], across)
                if same and length[j] > LONGER * length[i] and score[j] >= LONGER_SHARE * score[i]:
                    gone[i] = j
                    break
            if same:
                found[pieces] = j
                pieces += 1
        if gone[i] < 0:
            for k in range(pieces):
                gone[found[k]] = i
    return np.flatnonzero(gone < 0)
