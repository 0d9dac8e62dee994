"""How AsteroidNet is trained on the impostors that really come, and how its answer becomes a probability.

New exposures of skies that no network has seen go through the very chain of ``detector.examine`` up to the fit; what
StreakNet and the matched filter proposed there is held against the truth. In several rounds the network of the round
before picks the false ones that deceive it most: hard negatives; of the others a sample stays, with more weight. Then,
on exposures of their own, its logit becomes a probability by a logistic curve (Platt 1999), whose density of true
streaks is kept: the odds of a survey that expects fewer shift by the ratio (Saerens et al. 2002).
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from rich.progress import track
from scipy import optimize, special
from torch.nn import functional

from detector.cutouts import cut_out, shown
from detector.psfmeasurement import measure_psf
from detector.sky import measure_sky
from detector.streakcandidates import candidates
from detector.tiling import Tiling, unpadded
from detector.whitening import whiten
from models.evaluate.matching import NEITHER, TRUE, match_frame
from models.networks.asteroid import AsteroidNet
from models.predictor import bare_predictor, judge_mirrored
from models.simulate.sky import draw_scene
from models.training.fit import half_precision
from models.training.scenes import draw_exposure, exposure_mask
from models.weights import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.streakcandidates import Method
    from detector.streaknetwork import StreakNetwork
    from models.simulate.sky import Scene
    from models.training.scenes import Bank

# The unit of the density: a Euclid VIS frame.
FRAME_PIXELS = 4132 * 4096
# Fainter ones are not expected to be found: they count neither in the density nor as false.
LEAST_SNR = 5.0
# Streaks per Mpx in the exposures (17 times as many in a frame): enough to learn from, few enough to lie apart.
DENSITY = (15.0, 120.0)
# The share of them that cross the frame: satellites.
CROSSING = 0.015
# Candidates of one exposure of 1 Mpx that are fitted: 6,800 a frame, far below any threshold.
CANDIDATES = 500
# False ones of one exposure that are kept: the most deceptive, and a sample of all the others.
HARDEST = 80
SAMPLED = 40
# The second stage has to know the impostors of the matched filter too: in this share of the exposures.
BOTH = 0.8
BATCH = 256
LEARNING_RATE = 2e-3
# Of the learning rate, from one round to the next.
LATER_ROUNDS = 0.6


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates: ``stamps`` f2 ``[n, 6, 48, 48]``, ``evidence`` ``[n, k]``, ``true`` ``[n]``, ``weight`` ``[n]``.

    ``pixels`` and ``streaks`` are those of the exposures that they came from.
    """

    stamps: NDArray[np.float16]
    evidence: NDArray[np.float32]
    true: NDArray[np.bool_]
    weight: NDArray[np.float32]
    pixels: int
    streaks: int

    def take(self, rows: NDArray[np.intp], weight: NDArray[np.float32]) -> Judged:
        """The same exposures with these rows only."""
        return Judged(
            self.stamps[rows], self.evidence[rows], self.true[rows], weight, pixels=self.pixels, streaks=self.streaks
        )


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


@dataclass(frozen=True)
class Verifying:
    """How much: ``rounds`` of ``steps`` over so many ``exposures``, then ``calibrating`` others to calibrate."""

    exposures: int = 384
    calibrating: int = 64
    rounds: int = 3
    steps: int = 3_500
    processes: int = 2

    @property
    def drawn(self) -> int:
        """All exposures."""
        return self.exposures + self.calibrating


def judge_exposure(network: StreakNetwork, scene: Scene, rng: np.random.Generator) -> Judged:
    """All candidates of one new exposure of ``scene`` on which the truth has a verdict."""
    electrons, trails = draw_exposure(rng, scene, 1, density=DENSITY, crossing=CROSSING)
    mask = exposure_mask(electrons, 0.97 * scene.conditions.defects.full_well_e)
    sky = measure_sky(electrons, mask)
    psf = measure_psf(electrons, mask, sky, fallback_fwhm_px=scene.kernel.fwhm_px)
    tiling = Tiling(network.window, network.step)
    padded = whiten(electrons, mask, sky, window=tiling.window, step=tiling.step)
    shape = (electrons.shape[0], electrons.shape[1])
    method: Method = "both" if rng.uniform() < BOTH else "network"
    found = candidates(padded, shape, network, sky, psf, CANDIDATES, mask=mask, method=method)
    counts = (trails[:, 5] >= LEAST_SNR) & (trails[:, 6] > 0.5)
    ends = found.fits.ends.reshape(-1, 2, 2)
    verdict = match_frame(trails[:, :4].reshape(-1, 2, 2), counts, ends, found.proposals.logit).verdict
    settled = np.flatnonzero(verdict != NEITHER)
    found = found.take(settled)
    frame = shown(unpadded(padded, shape, tiling), found.psf)
    stamps = cut_out(frame, found.fits.ends, found.fits.flux, found.psf)
    return Judged(
        stamps.astype(np.float16),
        found.evidence().astype(np.float32),
        verdict[settled] == TRUE,
        np.ones(len(settled), np.float32),
        pixels=electrons.size,
        streaks=int(counts.sum()),
    )


def hardest(sample: Judged, logit: NDArray[np.float64], rng: np.random.Generator) -> Judged:
    """All true ones, the ``HARDEST`` false ones by ``logit``, and ``SAMPLED`` of the others for all of them."""
    false = np.flatnonzero(~sample.true)
    ranked = false[np.argsort(-logit[false], kind="stable")]
    others = ranked[HARDEST:]
    drawn = rng.choice(others, min(SAMPLED, len(others)), replace=False)
    rows = np.concatenate([np.flatnonzero(sample.true), ranked[:HARDEST], drawn])
    weight = np.ones(len(rows), np.float32)
    weight[len(rows) - len(drawn) :] = len(others) / max(len(drawn), 1)
    return sample.take(rows, weight)


def together(parts: list[Judged]) -> Judged:
    """Several exposures as one sample."""
    return Judged(
        np.concatenate([part.stamps for part in parts]),
        np.concatenate([part.evidence for part in parts]),
        np.concatenate([part.true for part in parts]),
        np.concatenate([part.weight for part in parts]),
        pixels=sum(part.pixels for part in parts),
        streaks=sum(part.streaks for part in parts),
    )


def answers(network: AsteroidNet, sample: Judged) -> NDArray[np.float64]:
    """The logits ``[n]`` of a sample, as they are when frames are searched."""
    parts = [np.zeros(0, np.float32)]
    with torch.inference_mode():
        for first in range(0, len(sample.true), 1024):
            rows = slice(first, first + 1024)
            stamps = torch.from_numpy(sample.stamps[rows].astype(np.float32))
            parts.append(judge_mirrored(network, stamps, torch.from_numpy(sample.evidence[rows])).numpy())
    return np.concatenate(parts).astype(np.float64)


@dataclass(frozen=True)
class Mine:
    """A folder of judged exposures of ``bank``'s kinds of skies, by the StreakNet in the file ``weights``.

    Each is a file that may be deleted at any time: it is made again from its number. ``version`` tells the candidates
    of one StreakNet from another's.
    """

    folder: Path
    weights: str
    version: str
    device: str
    bank: Bank
    seed: int

    def path(self, number: int) -> Path:
        """Where exposure ``number`` lies."""
        return self.folder / f"judged-{self.version[:12]}-{self.seed}-{number:05d}.npz"

    def make(self, number: int) -> None:
        """Draw and judge exposure ``number`` unless it is there; in a process of its own."""
        path = self.path(number)
        if path.exists():
            return
        numba.set_num_threads(1)
        torch.set_num_threads(1)
        rng = np.random.default_rng([self.seed, number])
        scene = draw_scene(self.bank.conditions(number), self.bank.shape, int(rng.integers(1 << 40)))
        sample = judge_exposure(bare_predictor(load(self.weights), self.device), scene, rng)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial,
            stamps=sample.stamps,
            evidence=sample.evidence,
            true=sample.true,
            counts=np.array([sample.pixels, sample.streaks]),
        )
        partial.replace(path)

    def sample(self, number: int) -> Judged:
        """Exposure ``number``, from the folder: all its candidates."""
        with np.load(self.path(number)) as stored:
            true = stored["true"]
            pixels, streaks = stored["counts"].tolist()
            weight = np.ones(len(true), np.float32)
            return Judged(stored["stamps"], stored["evidence"], true, weight, pixels=pixels, streaks=streaks)


def make_judged(mine: Mine, count: int, processes: int) -> Iterator[int]:
    """Make every exposure below ``count`` that is not there yet; gives the number of each as it is done."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for number, _ in enumerate(pool.map(mine.make, range(count))):
            yield number


def varied(stamps: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The same candidates otherwise seen: a line's two ends and two sides are alike, and no fit is better than a bin.

    ``stamps`` ``[n, c, h, w]`` are mirrored, and moved by at most one bin; what is moved out comes in opposite.
    """
    mirrored = [axis for axis in (2, 3) if rng.uniform() < 0.5]
    moved = (int(rng.integers(-1, 2)), int(rng.integers(-1, 2)))
    return torch.roll(stamps.flip(mirrored) if mirrored else stamps, moved, (2, 3))


def learn(
    network: AsteroidNet,
    sample: Judged,
    steps: int,
    rng: np.random.Generator,
    learning_rate: float = LEARNING_RATE,
) -> float:
    """Train in place with AdamW on random parts of a sample; gives the mean loss of the last tenth."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    true, false = np.flatnonzero(sample.true), np.flatnonzero(~sample.true)
    # Half of a batch is true; the weights give the sample its own proportions back.
    share = len(true) / max(float(sample.weight.sum()), 1.0)
    losses = []
    network.train()
    for _ in range(steps):
        rows = np.concatenate([rng.choice(true, BATCH // 2), rng.choice(false, BATCH - BATCH // 2)])
        weight = sample.weight[rows].astype(np.float64)
        weight[: BATCH // 2] *= share / 0.5
        weight[BATCH // 2 :] *= (1.0 - share) / 0.5 / (sample.weight[false].mean())
        stamps = varied(torch.from_numpy(sample.stamps[rows].astype(np.float32)), rng)
        with half_precision(torch.device("cpu")):
            logit = network(stamps, torch.from_numpy(sample.evidence[rows]))
        truth = torch.from_numpy(sample.true[rows].astype(np.float32))
        entropy = functional.binary_cross_entropy_with_logits(logit.float(), truth, reduction="none")
        loss = (entropy * torch.from_numpy(weight.astype(np.float32))).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    network.eval()
    return float(np.mean(losses[-max(steps // 10, 1) :]))


def calibrate(network: AsteroidNet, sample: Judged) -> Calibration:
    """Fit the curve to a sample that the network was not trained on, all candidates of its exposures.

    Errors: ``ValueError`` where the logits do not tell true from false.
    """
    return fitted_curve(answers(network, sample), sample.true, sample.pixels, sample.streaks)


def fitted_curve(logit: NDArray[np.float64], true: NDArray[np.bool_], pixels: int, streaks: int) -> Calibration:
    """The curve of all candidates ``[n]`` of exposures of so many ``pixels``, with so many ``streaks`` in them.

    Errors: ``ValueError`` where the logits do not tell true from false.
    """

    def cost(parameters: NDArray[np.float64]) -> float:
        value = parameters[0] * logit + parameters[1]
        return float(np.logaddexp(0.0, np.where(true, -value, value)).sum())

    slope, intercept = optimize.minimize(cost, np.array([1.0, 0.0]), method="Nelder-Mead").x
    if not (math.isfinite(slope) and slope > 0):
        raise ValueError(f"the logits do not tell true from false (slope {slope:.3g}): train the network longer")
    claimed = special.expit(slope * logit + intercept)
    bins = np.minimum((claimed * 10).astype(int), 9)
    error = sum(abs(claimed[bins == k].sum() - true[bins == k].sum()) for k in range(10)) / len(logit)
    frames = pixels / FRAME_PIXELS
    return Calibration(
        float(slope),
        float(intercept),
        streaks / frames,
        len(logit),
        float(error),
        float((~true & (claimed > 0.5)).sum() / frames),
        float((claimed[true] > 0.5).mean()),
    )


def train_and_calibrate(
    mine: Mine,
    plan: Verifying,
    begin: AsteroidNet | None = None,
    tell: Callable[[str], None] = print,
) -> tuple[AsteroidNet, Calibration]:
    """Train the second stage on the exposures of ``mine``, and calibrate it on others, whose every candidate counts.

    Where one is given to ``begin`` with, it picks the first round's false ones too, and learns as a later round does.
    """
    for _ in track(make_judged(mine, plan.drawn, plan.processes), "judging exposures", total=plan.drawn):
        pass
    torch.manual_seed(mine.seed)
    rng = np.random.default_rng([mine.seed, 1])
    network = AsteroidNet() if begin is None else begin.eval()
    for number in range(0 if begin is None else 1, plan.rounds + (begin is not None)):
        sample = together([_deceptive(mine.sample(k), network if number else None, rng) for k in range(plan.exposures)])
        if number == 0:
            table = torch.from_numpy(sample.evidence)
            network.mean.copy_(table.mean(dim=0))
            network.scatter.copy_(table.std(dim=0).clamp(min=1e-3))
        loss = learn(network, sample, plan.steps, rng, LEARNING_RATE * LATER_ROUNDS**number)
        which = f"round {number + (begin is None)}"
        tell(f"{which}: {len(sample.true)} candidates, {int(sample.true.sum())} true, loss {loss:.4f}")
    return network, calibrate(network, together([mine.sample(k) for k in range(plan.exposures, plan.drawn)]))


def _deceptive(sample: Judged, network: AsteroidNet | None, rng: np.random.Generator) -> Judged:
    """The true ones and the false ones that deceive ``network`` most; StreakNet, where there is none yet."""
    logit = sample.evidence[:, 0].astype(np.float64) if network is None else answers(network, sample)
    return hardest(sample, logit, rng)
