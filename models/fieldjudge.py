"""The judge of candidates whose field has other exposures: boosted trees and a logistic curve, from one file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from detector.fieldevidence import NAMES
from models.boosted import trees_of
from models.weights import BadWeights, Weights, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from detector.trees import Trees


@dataclass(frozen=True, eq=False)
class FieldJudge:
    """A ``detector.streaknetwork.FieldJudge``: P(true) = sigmoid(slope * trees + intercept) at ``density`` a frame.

    ``network`` is the SHA-256 of the streak network whose candidates it learned from: it knows no other's logits.
    """

    trees: Trees
    slope: float
    intercept: float
    density: float
    network: str
    facts: Mapping[str, Any]
    sha256: str = ""

    def __call__(self, evidence: NDArray[np.float64], expected_per_frame: float) -> NDArray[np.float64]:
        """The probability of each candidate ``[n, len(NAMES)]`` where so many streaks are expected in a frame."""
        shift = math.log(expected_per_frame / self.density)
        return np.asarray(expit(self.slope * self.trees(evidence) + self.intercept + shift))


def load_fieldjudge(name_or_path: str = "fieldjudge") -> FieldJudge:
    """The shipped judge (hash verified), or one of a user's own. Errors: ``BadWeights``."""
    return judge_of(load(name_or_path), name_or_path)


def judge_of(weights: Weights, name: str) -> FieldJudge:
    """A judge from a file's arrays. Errors: ``BadWeights`` for another network's, or other evidence."""
    facts = weights.facts
    if facts.get("network") != "fieldjudge":
        raise BadWeights(f"{name}: weights of {facts.get('network')!r}, not of the judge of fields")
    if tuple(facts["evidence"]) != NAMES:
        raise BadWeights(f"{name}: made for other evidence than this version computes; train it again")
    curve = facts["calibration"]
    return FieldJudge(
        trees_of(weights, name),
        float(curve["slope"]),
        float(curve["intercept"]),
        float(curve["density"]),
        str(facts["streaknet"]),
        facts,
        weights.sha256,
    )
