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
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from detector.lineindex import ACROSS_PX, TORN, TOUCHING_PX, belongs, enter, near
from detector.proposals import Proposals
from detector.snippets import see_pieces, snippets, take_members

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.snippets import Joiner

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
