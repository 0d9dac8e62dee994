"""Pieces of streaks, as windows that see the same piece say them, and what each sees along its line.

A joiner (a network, say) tells from a piece's neighbours which belong to its streak; the geometric rule of
``detector.merging`` does without.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from detector.lineindex import ACROSS_BEYOND, ACROSS_PX, MAX_ANGLE_RAD, TOUCHING_PX, belongs, enter, near

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from detector.proposals import Proposals

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
