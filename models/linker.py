"""The score of tracks: boosted trees and a calibration for two, three, and more sightings, from one file of arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from detector.motion import FEATURES
from detector.trees import Trees
from models.weights import BadWeights, Weights, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# Two, three, four and more sightings: calibrated and accepted apart.
CLASSES = (2, 3, 4)
ARRAYS = ("roots", "feature", "threshold", "left", "right", "value")


@dataclass(frozen=True, eq=False)
class Linker:
    """A ``detector.linking.Scorer``.

    ``slopes``, ``intercepts`` and ``thresholds`` are of the ``CLASSES``; ``facts`` is what the file tells of itself.
    """

    trees: Trees
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    thresholds: tuple[float, ...]
    facts: Mapping[str, Any]
    sha256: str = ""

    def __call__(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability that each set of sightings ``[n, len(FEATURES)]`` is one object."""
        kind = np.clip(table[:, 0].astype(np.int64), CLASSES[0], CLASSES[-1]) - CLASSES[0]
        logit = np.array(self.slopes)[kind] * self.trees(table) + np.array(self.intercepts)[kind]
        probability: NDArray[np.float64] = expit(logit)
        return probability

    def threshold(self, sightings: int) -> float:
        """The lowest probability at which a track of so many sightings is accepted."""
        return self.thresholds[min(max(sightings, CLASSES[0]), CLASSES[-1]) - CLASSES[0]]

    def accepting(self, threshold: float) -> Linker:
        """The same score with one threshold for all tracks."""
        return replace(self, thresholds=(threshold,) * len(CLASSES))


def load_linker(name_or_path: str = "linker") -> Linker:
    """The shipped score (hash verified), or one of a user's own. Errors: ``BadWeights``."""
    return from_weights(load(name_or_path), name_or_path)


def from_weights(weights: Weights, name: str) -> Linker:
    """A linker from a file's arrays. Errors: ``BadWeights`` for another network's, or other features."""
    facts = weights.facts
    if facts.get("network") != "linker":
        raise BadWeights(f"{name}: weights of {facts.get('network')!r}, not of the score of tracks")
    if tuple(facts["features"]) != FEATURES:
        raise BadWeights(f"{name}: made for other features than this version computes; train it again")
    try:
        trees = Trees(**{array: weights.tensors[array].numpy() for array in ARRAYS})
    except (KeyError, ValueError) as error:
        raise BadWeights(f"{name}: {error}") from error
    calibration = [facts["calibration"][str(kind)] for kind in CLASSES]
    return Linker(
        trees,
        tuple(float(one["slope"]) for one in calibration),
        tuple(float(one["intercept"]) for one in calibration),
        tuple(float(one["threshold"]) for one in calibration),
        facts,
        weights.sha256,
    )
