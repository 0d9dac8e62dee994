"""Fitted rows that are one streak: the best stays, its pieces and what lies in its wings go.

Two proposals of one streak are told only once they are fitted to the same line. What fails here shows as two alerts of
one streak, or as a faint one that is lost beside a bright one of its direction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from detector.lineindex import ACROSS_CURVED, DIRECTED_PX, TORN, TORN_FROM_PX, enter, near

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Fitted ends are good to a pixel or two; a bright trail's wings are proposed again within so many widths of the PSF.
FITTED_PX = 2.0
WINGS_FWHM = 2.5
# A piece of a fitted row may be turned by as much (tangent): what the network sees of a bright trail's wing is.
PIECE_TURN = 0.2
# A row this much longer takes the pieces on its line even if its score is lower, down to this share of theirs.
LONGER, LONGER_SHARE = 1.5, 0.5


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
