"""From a network's logit to a probability that means what it says, for a stated share of true ones.

A logistic curve (Platt 1999) is fitted to a labelled sample that the network did not learn from; where the share of
true ones differs, the odds go with it (Saerens et al. 2002). How far off it is, is the expected calibration error.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize, special

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

BINS = 10
# The rate of false ones at the default threshold.
FALSE_RATE = 1e-3
# Fitted to fewer than so many of either kind, a curve is more noise than measurement.
FEWEST = 10


@dataclass(frozen=True)
class Curve:
    """P(true) = sigmoid(slope * logit + intercept) where the share ``rate`` of all is true."""

    slope: float
    intercept: float
    rate: float

    def probability(self, logit: NDArray[np.float64], rate: float | None = None) -> NDArray[np.float64]:
        """Give the probabilities ``[n]``; ``rate`` is another share of true ones, None the curve's own."""
        shift = 0.0 if rate is None else log_odds(rate) - log_odds(self.rate)
        return np.asarray(special.expit(self.slope * logit + self.intercept + shift))

    def facts(self) -> dict[str, float]:
        """The curve as it is told in weights."""
        return asdict(self)


def curve_of(facts: Mapping[str, Any]) -> Curve:
    """The curve that weights tell of; the logit itself where they tell of none."""
    told = facts.get("calibration")
    if told is None:
        return Curve(1.0, 0.0, 0.5)
    return Curve(float(told["slope"]), float(told["intercept"]), float(told["rate"]))


def fit_curve(logit: NDArray[np.float64], true: NDArray[np.bool_]) -> Curve:
    """Give the curve of a sample, for the share of true ones in it.

    Errors: ``ValueError`` where there are too few of either kind, or the logits do not tell one from the other.
    """
    if min(int(true.sum()), int((~true).sum())) < FEWEST:
        raise ValueError(f"{int(true.sum())} true and {int((~true).sum())} false ones: at least {FEWEST} of each")

    # Platt's targets: a sample that is told apart without a fault does not make probabilities of 0 and 1.
    n_true, n_false = int(true.sum()), int((~true).sum())
    target = np.where(true, (n_true + 1.0) / (n_true + 2.0), 1.0 / (n_false + 2.0))

    def cost(parameters: NDArray[np.float64]) -> float:
        value = parameters[0] * logit + parameters[1]
        return float((np.logaddexp(0.0, value) - target * value).mean())

    slope, intercept = optimize.minimize(cost, np.array([1.0, 0.0]), method="Nelder-Mead").x
    if not (math.isfinite(slope) and slope > 0):
        raise ValueError(f"the logits do not tell true from false (slope {slope:.3g})")
    return Curve(float(slope), float(intercept), float(true.mean()))


def recalibrated(
    facts: Mapping[str, Any], curve: Curve, rate: float | None, false_logit: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """What weights tell of themselves with a new curve, for a share ``rate`` of true ones (None: the curve's own).

    The threshold is where one of a thousand ``false_logit`` lies above; without them it is the same logit as before.

    Errors: ``ValueError`` for a rate that is no share.
    """
    shift = 0.0 if rate is None else log_odds(rate) - log_odds(curve.rate)
    new = Curve(curve.slope, curve.intercept + shift, curve.rate if rate is None else rate)
    if false_logit is None:
        old, before = curve_of(facts), float(facts.get("threshold", 0.5))
        cut = (log_odds(before) - old.intercept) / old.slope
    else:
        cut = float(np.quantile(false_logit, 1.0 - FALSE_RATE))
    threshold = float(new.probability(np.array([cut]))[0])
    # The error that was measured is that of the old curve.
    kept = {name: value for name, value in facts.items() if name != "calibration_error"}
    return {**kept, "calibration": new.facts(), "threshold": threshold}


def log_odds(rate: float) -> float:
    """The logarithm of the odds of a share, which must lie between 0 and 1."""
    if not 0.0 < rate < 1.0:
        raise ValueError(f"a share of {rate:g}: it must lie between 0 and 1")
    return math.log(rate / (1.0 - rate))


def reliability(probability: NDArray[np.float64], true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give ``[BINS, 3]``: what was claimed on average, what was true, and how many, of each tenth of probability."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = [
        (probability[bins == k].mean(), true[bins == k].mean(), (bins == k).sum())
        if (bins == k).any()
        else (np.nan,) * 2 + (0,)
        for k in range(BINS)
    ]
    return np.array(rows, np.float64)


def calibration_error(probability: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    """The expected calibration error: the distance of claimed from true, averaged over all rows."""
    table = reliability(probability, true)
    seen = table[:, 2] > 0
    return float((np.abs(table[seen, 0] - table[seen, 1]) * table[seen, 2]).sum() / table[:, 2].sum())
