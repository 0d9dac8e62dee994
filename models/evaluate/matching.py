"""Which detection is which truth: the matching rule that every figure of ours rests on.

A detection is on a truth when their mid-points lie within 4 px across and max(5 px, L/2) along the true line (L the
true length), and, both being longer than 8 px, their directions within 20 degrees. The best-scored detection on a truth
claims it. A further one on the same truth is a duplicate: neither true nor false. So is one on a truth that does not
count (its mid-point outside, an end within 10 px of the border, or shorter than the class asked for). What lies on no
truth at all is false. Strict: both ends within max(3 px, 0.2 L).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

ACROSS_PX = 4.0
ALONG_PX, ALONG_LENGTHS = 5.0, 0.5
ANGLE_DEG, ANGLE_FROM_PX = 20.0, 8.0
STRICT_PX, STRICT_LENGTHS = 3.0, 0.2
BORDER_PX = 10.0

# Verdicts on detections.
FALSE, NEITHER, TRUE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Matches:
    """``claimed`` i8 [truths]: the detection that found each truth, -1 for none; ``verdict`` i1 [detections]."""

    claimed: NDArray[np.int64]
    verdict: NDArray[np.int8]


def ends_of(rows: NDArray[np.void]) -> NDArray[np.float64]:
    """The ends ``[n, 2 (end), 2 (x, y)]`` of rows that have x0, y0, x1, y1."""
    flat: NDArray[np.float64] = np.stack([rows["x0"], rows["y0"], rows["x1"], rows["y1"]], axis=-1)
    return flat.reshape(len(rows), 2, 2)


def lengths(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths ``[n]`` of ends ``[n, 2, 2]``."""
    along = ends[:, 1] - ends[:, 0]
    length: NDArray[np.float64] = np.hypot(along[:, 0], along[:, 1])
    return length


def inside(ends: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether truths with ``ends`` ``[n, 2, 2]`` count in a frame of ``shape``: both ends 10 px from the border.

    Both ends inside have the mid-point inside, for a frame is convex.
    """
    height, width = shape
    highest = np.array([width - 1, height - 1]) - BORDER_PX
    within = (ends >= BORDER_PX) & (ends <= highest)
    return np.asarray(within.all(axis=(1, 2)))


def accepted_pairs(truth: NDArray[np.float64], detected: NDArray[np.float64]) -> NDArray[np.int64]:
    """All pairs ``[n, 2]`` (truth, detection) of one frame that the rule accepts; both are ends ``[n, 2, 2]``."""
    if not len(truth) or not len(detected):
        return np.empty((0, 2), np.int64)
    length = lengths(truth)
    reach = np.maximum(ALONG_PX, ALONG_LENGTHS * length)
    near = cKDTree(detected.mean(axis=1)).query_ball_point(truth.mean(axis=1), np.hypot(ACROSS_PX, reach))
    of_truth = np.repeat(np.arange(len(truth)), [len(found) for found in near])
    of_detected = np.concatenate([np.asarray(found, np.int64) for found in near])

    # A truth without a length has no line: across and along are then any two axes at right angles.
    along = np.where(length[:, None] > 0, truth[:, 1] - truth[:, 0], [1.0, 0.0])
    along /= np.hypot(along[:, 0], along[:, 1])[:, None]
    offset = detected.mean(axis=1)[of_detected] - truth.mean(axis=1)[of_truth]
    unit = along[of_truth]
    across_px = np.abs(offset[:, 0] * unit[:, 1] - offset[:, 1] * unit[:, 0])
    along_px = np.abs((offset * unit).sum(axis=1))

    direction = detected[:, 1] - detected[:, 0]
    cosine = np.abs((direction[of_detected] * unit).sum(axis=1))
    both_long = (length[of_truth] > ANGLE_FROM_PX) & (lengths(detected)[of_detected] > ANGLE_FROM_PX)
    turned = both_long & (cosine < np.cos(np.radians(ANGLE_DEG)) * lengths(detected)[of_detected])
    good = (across_px <= ACROSS_PX) & (along_px <= reach[of_truth]) & ~turned
    return np.stack([of_truth[good], of_detected[good]], axis=1)


def end_distances(truth: NDArray[np.float64], detected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances ``[n, 2]`` of the ends of pairs of streaks, ends paired in the order that brings them closer."""
    straight = np.linalg.norm(truth - detected, axis=2)
    crossed = np.linalg.norm(truth - detected[:, ::-1], axis=2)
    closer = straight.sum(axis=1) <= crossed.sum(axis=1)
    distances: NDArray[np.float64] = np.where(closer[:, None], straight, crossed)
    return distances


def strict(truth: NDArray[np.float64], detected: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether both ends of each pair agree within max(3 px, 0.2 L)."""
    allowed = np.maximum(STRICT_PX, STRICT_LENGTHS * lengths(truth))
    agree = end_distances(truth, detected) <= allowed[:, None]
    return np.asarray(agree.all(axis=1))


def match_frame(
    truth: NDArray[np.float64],
    counts: NDArray[np.bool_],
    detected: NDArray[np.float64],
    score: NDArray[np.float64],
) -> Matches:
    """Match one frame: ends ``[n, 2, 2]`` of truths and detections, whether each truth counts, each one's score.

    The best score chooses first, so cutting the list at any score gives the same matches as matching the cut list. It
    takes, of the truths on which it lies, one that counts before one that does not, and then the one whose ends are
    closest.
    """
    claimed = np.full(len(truth), -1, np.int64)
    verdict = np.full(len(detected), FALSE, np.int8)
    pairs = accepted_pairs(truth, detected)
    verdict[pairs[:, 1]] = NEITHER
    apart = end_distances(truth[pairs[:, 0]], detected[pairs[:, 1]]).sum(axis=1)
    best_first = np.lexsort([apart, ~counts[pairs[:, 0]], pairs[:, 1], -score[pairs[:, 1]]])
    placed = np.zeros(len(detected), np.bool_)
    for of_truth, of_detected in pairs[best_first].tolist():
        if placed[of_detected] or claimed[of_truth] >= 0:
            continue
        claimed[of_truth] = of_detected
        placed[of_detected] = True
        verdict[of_detected] = TRUE if counts[of_truth] else NEITHER
    return Matches(claimed, verdict)
