"""How the verifier is trained, and how its answer becomes a probability at a stated density.

New exposures of simulated skies go through the very chain of ``detector.examine`` up to the fit; what it proposed is
held against the truth. Most of the false ones are therefore the network's own favourites: hard negatives. Half of the
exposures train the verifier; on the other half its logit becomes a probability by a logistic curve (Platt 1999), whose
density of true streaks is kept: the odds of a survey that expects fewer shift by the ratio (Saerens et al. 2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import optimize, special
from torch.nn import functional

from detector.evidence import evidence
from detector.examine import candidates
from detector.psf import measure_psf
from detector.sky import measure_sky, whiten
from models.evaluate.matching import NEITHER, TRUE, match_frame
from models.networks.verifier import Verifier
from models.training.scenes import draw_exposure, exposure_mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from detector.examine import StreakNetwork
    from models.simulate.sky import Scene

# The unit of the density: a Euclid VIS frame.
FRAME_PIXELS = 4132 * 4096
# Fainter ones are not expected to be found: they count neither in the density nor as false.
LEAST_SNR = 5.0
# Candidates of one exposure of 1 Mpx that are fitted: 17,000 a frame, far below any threshold.
CANDIDATES = 1_000
TRAINING_STEPS = 1_500


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates of some exposures: ``evidence`` ``[n, k]``, ``true`` ``[n]``, and their pixels and streaks."""

    evidence: NDArray[np.float64]
    true: NDArray[np.bool_]
    pixels: int
    streaks: int


@dataclass(frozen=True)
class Calibration:
    """P(true) = sigmoid(slope * logit + intercept) where ``density`` true streaks are in a frame of 17 Mpx.

    ``error`` is the expected calibration error, ``false_at_half`` the false ones above a probability of one half per
    frame of 17 Mpx at that density, ``found_at_half`` the share of the sample's true candidates above it.
    """

    slope: float
    intercept: float
    density: float
    candidates: int
    error: float
    false_at_half: float
    found_at_half: float


def judged(network: StreakNetwork, scenes: Iterable[Scene], seed: int) -> Iterator[Judged]:
    """The candidates of one new exposure of each scene."""
    for number, scene in enumerate(scenes):
        rng = np.random.default_rng([seed, number])
        electrons, trails = draw_exposure(rng, scene, 1)
        mask = exposure_mask(electrons, 0.97 * scene.conditions.defects.full_well_e)
        sky = measure_sky(electrons, mask)
        psf = measure_psf(electrons, mask, sky, fallback_fwhm_px=scene.kernel.fwhm_px)
        padded = whiten(electrons, mask, sky, window=network.window, step=network.step)
        shape = (electrons.shape[0], electrons.shape[1])
        found = candidates(padded, shape, network, sky, psf, CANDIDATES)
        counts = (trails[:, 5] >= LEAST_SNR) & (trails[:, 6] > 0.5)
        ends = found.fits.ends.reshape(-1, 2, 2)
        verdict = match_frame(trails[:, :4].reshape(-1, 2, 2), counts, ends, found.proposals.logit).verdict
        settled = verdict != NEITHER
        table = evidence(found.proposals, found.fits, found.psf)[settled]
        yield Judged(table, verdict[settled] == TRUE, electrons.size, int(counts.sum()))


def together(parts: list[Judged]) -> Judged:
    """Several exposures as one sample."""
    return Judged(
        np.concatenate([part.evidence for part in parts]),
        np.concatenate([part.true for part in parts]),
        sum(part.pixels for part in parts),
        sum(part.streaks for part in parts),
    )


def train_verifier(sample: Judged, seed: int) -> Verifier:
    """A verifier trained on half of a sample, with Adam on random parts of it."""
    torch.manual_seed(seed)
    verifier = Verifier()
    table = torch.from_numpy(sample.evidence.astype(np.float32))
    true = torch.from_numpy(sample.true.astype(np.float32))
    verifier.mean.copy_(table.mean(dim=0))
    verifier.scatter.copy_(table.std(dim=0).clamp(min=1e-3))
    optimizer = torch.optim.AdamW(verifier.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TRAINING_STEPS)
    for _ in range(TRAINING_STEPS):
        rows = torch.randint(len(table), (4096,))
        loss = functional.binary_cross_entropy_with_logits(verifier(table[rows]), true[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return verifier.eval()


def calibrate(verifier: Verifier, sample: Judged) -> Calibration:
    """Fit the curve to a sample that the verifier was not trained on.

    Errors: ``ValueError`` where the logits do not tell true from false.
    """
    with torch.inference_mode():
        logit = verifier(torch.from_numpy(sample.evidence.astype(np.float32))).numpy().astype(np.float64)

    def cost(parameters: NDArray[np.float64]) -> float:
        value = parameters[0] * logit + parameters[1]
        return float(np.logaddexp(0.0, np.where(sample.true, -value, value)).sum())

    slope, intercept = optimize.minimize(cost, np.array([1.0, 0.0]), method="Nelder-Mead").x
    if not (math.isfinite(slope) and slope > 0):
        raise ValueError(f"the logits do not tell true from false (slope {slope:.3g}): train the network longer")
    claimed = special.expit(slope * logit + intercept)
    bins = np.minimum((claimed * 10).astype(int), 9)
    error = sum(abs(claimed[bins == k].sum() - sample.true[bins == k].sum()) for k in range(10)) / len(logit)
    frames = sample.pixels / FRAME_PIXELS
    return Calibration(
        float(slope),
        float(intercept),
        sample.streaks / frames,
        len(logit),
        float(error),
        float((~sample.true & (claimed > 0.5)).sum() / frames),
        float((claimed[sample.true] > 0.5).mean()),
    )


def train_and_calibrate(network: StreakNetwork, scenes: Iterable[Scene], seed: int) -> tuple[Verifier, Calibration]:
    """Train on every second exposure, calibrate on the others."""
    parts = list(judged(network, scenes, seed))
    verifier = train_verifier(together(parts[::2]), seed)
    return verifier, calibrate(verifier, together(parts[1::2]))
