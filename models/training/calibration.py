"""From a network's logit to a probability that means what it says, at a stated density of streaks.

The proposals of new exposures of simulated skies are merged as in a frame and held against the truth; a logistic curve
is fitted to which of them are true (Platt 1999). The density of true streaks in that sample is kept with the curve, so
that a survey that expects fewer can be served without training: the odds shift by the ratio of the densities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special

from detector.examine import propose
from detector.merging import merge
from detector.tiling import Tiling, pad
from models.evaluate.matching import NEITHER, TRUE, match_frame
from models.training.scenes import draw_exposure, whitened_exposure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from detector.examine import StreakNetwork
    from models.simulate.sky import Scene

# The unit of the density: a Euclid VIS frame.
FRAME_PIXELS = 4132 * 4096
# Fainter ones are not expected to be found: they count neither in the density nor as false.
LEAST_SNR = 5.0


@dataclass(frozen=True)
class Calibration:
    """P(true) = sigmoid(slope * logit + intercept) where ``density`` true streaks are in a frame of 17 Mpx."""

    slope: float
    intercept: float
    density: float
    proposals: int
    error: float  # expected calibration error on the sample itself


def judged(
    network: StreakNetwork, scenes: Iterable[Scene], seed: int
) -> Iterator[tuple[NDArray[np.float64], int, int]]:
    """For one new exposure of each scene: ``[n, 2]`` logit and 1 or 0 for true or false, its pixels, its streaks."""
    tiling = Tiling(network.window, network.step)
    for number, scene in enumerate(scenes):
        rng = np.random.default_rng([seed, number])
        electrons, trails = draw_exposure(rng, scene, 1)
        shape = (electrons.shape[0], electrons.shape[1])
        whitened = whitened_exposure(electrons, 0.97 * scene.conditions.defects.full_well_e)
        merged = merge(
            propose(pad(whitened, tiling), shape, network, scene.kernel.fwhm_px), fwhm_px=scene.kernel.fwhm_px
        )
        counts = (trails[:, 5] >= LEAST_SNR) & (trails[:, 6] > 0.5)
        truth = trails[:, :4].reshape(-1, 2, 2)
        verdict = match_frame(truth, counts, merged.ends.reshape(-1, 2, 2), merged.logit).verdict
        settled = verdict != NEITHER
        yield np.stack([merged.logit[settled], verdict[settled] == TRUE], axis=1), electrons.size, int(counts.sum())


def calibrate(network: StreakNetwork, scenes: Iterable[Scene], seed: int) -> Calibration:
    """Fit the curve to one new exposure of each scene."""
    tables, pixels, streaks = zip(*judged(network, scenes, seed), strict=True)
    table = np.concatenate(tables)
    logit, true = table[:, 0], table[:, 1] > 0.5

    def cost(parameters: NDArray[np.float64]) -> float:
        value = parameters[0] * logit + parameters[1]
        return float(np.logaddexp(0.0, np.where(true, -value, value)).sum())

    slope, intercept = optimize.minimize(cost, np.array([1.0, 0.0]), method="Nelder-Mead").x
    claimed = special.expit(slope * logit + intercept)
    bins = np.minimum((claimed * 10).astype(int), 9)
    error = sum(abs(claimed[bins == k].sum() - true[bins == k].sum()) for k in range(10)) / len(true)
    density = sum(streaks) * FRAME_PIXELS / sum(pixels)
    if not (math.isfinite(slope) and slope > 0):
        raise ValueError(f"the network's logits do not tell true from false (slope {slope:.3g}): train it longer")
    return Calibration(float(slope), float(intercept), density, len(true), float(error))
