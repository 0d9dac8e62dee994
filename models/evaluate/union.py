"""Several detectors as one: their detections by rank, each place once.

Scores of two detectors have no common scale, but the k-th best of one costs about what the k-th best of the other does:
a union that takes from each its best in turn is what somebody gets who looks at both lists. What both found at one
place is one detection, of the better rank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.evaluate.matching import accepted_pairs, ends_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.evaluate.sample import Sample


def union(samples: Sequence[Sample]) -> Sample:
    """The detections of several samples of the same truths as one; ``score`` is 1 / rank in the table it came from."""
    tables = [_ranked(sample.detections) for sample in samples]
    kept = tables[0]
    for table in tables[1:]:
        kept = _joined(kept, table)
    return replace(samples[0], detections=kept, left_out=0)


def _ranked(detections: NDArray[np.void]) -> NDArray[np.void]:
    order = np.argsort(-detections["score"], kind="stable")
    ranked = detections[order]
    ranked["score"] = 1.0 / np.arange(1, len(ranked) + 1)
    return ranked


def _joined(first: NDArray[np.void], second: NDArray[np.void]) -> NDArray[np.void]:
    """Both tables without those that the better-ranked one at the same place makes needless."""
    needless_first, needless_second = np.zeros(len(first), np.bool_), np.zeros(len(second), np.bool_)
    for frame in np.intersect1d(first["frame"], second["frame"]):
        rows, others = np.flatnonzero(first["frame"] == frame), np.flatnonzero(second["frame"] == frame)
        pairs = accepted_pairs(ends_of(first[rows]), ends_of(second[others]))
        rows, others = rows[pairs[:, 0]], others[pairs[:, 1]]
        first_better = first["score"][rows] >= second["score"][others]
        needless_second[others[first_better]] = True
        needless_first[rows[~first_better]] = True
    return np.concatenate([first[~needless_first], second[~needless_second]])
