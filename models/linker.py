"""The score of tracks: boosted trees and a calibration for two, three, and more sightings, from one file of arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from detector.motion import FEATURES
from models.boosted import trees_of
from models.weights import BadWeights, Weights, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from detector.trees import Trees

# Two, three, four and more sightings; and those that moved by less than this: calibrated and accepted apart.
CLASSES = ("2", "3", "4", "2-slow", "3-slow", "4-slow")
SLOW_PX = 8.0


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
        kind = classes_of(table)
        logit = np.array(self.slopes)[kind] * self.trees(table) + np.array(self.intercepts)[kind]
        probability: NDArray[np.float64] = expit(logit)
        return probability

    def accepts(self, table: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which sets are tracks: those at or above the threshold of their class."""
        return np.asarray(score >= np.array(self.thresholds)[classes_of(table)], np.bool_)

    def accepting(self, threshold: float) -> Linker:
        """The same score with one threshold for all tracks."""
        return replace(self, thresholds=(threshold,) * len(CLASSES))


def classes_of(table: NDArray[np.float64]) -> NDArray[np.int64]:
    """The class of each set of sightings, an index into ``CLASSES``, by its features."""
    sightings = np.clip(table[:, FEATURES.index("sightings")].astype(np.int64), 2, 4)
    slow = table[:, FEATURES.index("log_shift_px")] < np.log(SLOW_PX)
    return sightings - 2 + 3 * slow


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
    trees = trees_of(weights, name)
    calibration = [facts["calibration"][kind] for kind in CLASSES]
    return Linker(
        trees,
        tuple(float(one["slope"]) for one in calibration),
        tuple(float(one["intercept"]) for one in calibration),
        tuple(float(one["threshold"]) for one in calibration),
        facts,
        weights.sha256,
    )
