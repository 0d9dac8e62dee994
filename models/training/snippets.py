"""How the merger of snippets is trained, and on what it is judged: long streaks as the shipped network proposes them.

New exposures of simulated skies, with many streaks of 30-450 px among short ones, go through the chain of
``detector.examine`` up to the proposals, which are kept in the run's folder. A snippet is of the trail on which its
middle lies and along which it points; each snippet of a trail is to find the others of the same, each other one none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.progress import track
from torch.nn import functional

from detector.proposals import Proposals
from detector.proposing import propose
from detector.psfmeasurement import measure_psf
from detector.sky import measure_sky
from detector.snippets import FEATURES, snippets
from detector.whitening import whiten
from models.networks.snippets import SnippetNet
from models.simulate.asteroids import add_trails
from models.simulate.defects import expose
from models.training.fit import fit
from models.training.scenes import exposure_mask, shortest_px, trail_power

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from detector.snippets import Snippets
    from detector.streaknetwork import StreakNetwork
    from models.predictor import StreakPredictor
    from models.simulate.sky import Scene
    from models.training.fit import Outcome, Run
    from models.training.scenes import Bank

# Streaks per 1e6 pixels: as many as lie in each other's way only now and then.
LONG_PER_MPX = 25.0
SHORT_PER_MPX = 15.0
CROSSING_PER_MPX = 0.3
LONG_PX = (30.0, 450.0)
FAINTEST_SNR, BRIGHTEST_SNR = 5.0, 120.0
# A snippet is of a trail within this much across, pixels of its scale, and this angle (sine).
OF_TRAIL_PX, OF_TRAIL_SINE = 4.0, 0.35
# Snippets on no trail that are learned from, for each one on a trail.
FALSE_PER_TRUE = 1.0
BATCH = 512


@dataclass(frozen=True, eq=False)
class Proposed:
    """What the network proposed in one exposure of ``shape``, and its trails ``[n, 7]`` as ``long_trails`` has them."""

    proposals: Proposals
    fwhm_px: float
    shape: tuple[int, int]
    trails: NDArray[np.float64]


def long_trails(rng: np.random.Generator, scene: Scene) -> NDArray[np.float64]:
    """Trails ``[n, 7]``: x0, y0, x1, y1 (px), flux (e-), matched-filter SNR, and 1 where it counts as a streak."""
    height, width = scene.electrons.shape
    megapixels = height * width / 1e6
    shortest = shortest_px(scene.kernel.fwhm_px, 1)
    counts = rng.poisson([LONG_PER_MPX * megapixels, SHORT_PER_MPX * megapixels, CROSSING_PER_MPX * megapixels])
    lengths = np.concatenate(
        [
            np.exp(rng.uniform(math.log(LONG_PX[0]), math.log(LONG_PX[1]), counts[0])),
            np.exp(rng.uniform(math.log(shortest), math.log(LONG_PX[0]), counts[1])),
            rng.uniform(1.0, 2.0, counts[2]) * math.hypot(height, width),
        ]
    )
    snr = np.exp(rng.uniform(math.log(FAINTEST_SNR), math.log(BRIGHTEST_SNR), len(lengths)))
    # What a window sees of a trail that crosses the frame is as bright as a streak of 200 px.
    snr[counts[0] + counts[1] :] *= math.sqrt(max(height, width) / 200.0)
    angles = rng.uniform(0.0, math.pi, len(lengths))
    x, y = rng.uniform(-0.5, width - 0.5, len(lengths)), rng.uniform(-0.5, height - 0.5, len(lengths))
    dx, dy = 0.5 * lengths * np.cos(angles), 0.5 * lengths * np.sin(angles)
    flux = snr * scene.conditions.noise_e / np.sqrt(trail_power(lengths, scene.kernel))
    return np.stack([x - dx, y - dy, x + dx, y + dy, flux, snr, np.ones(len(lengths))], axis=1)


def proposed(network: StreakNetwork, scene: Scene, rng: np.random.Generator) -> Proposed:
    """A new exposure of ``scene`` with long streaks, and what the network proposes in it."""
    trails = long_trails(rng, scene)
    electrons = scene.electrons.copy()
    add_trails(electrons, np.ascontiguousarray(trails[:, :5]), scene.kernel)
    electrons = expose(electrons, scene.conditions, int(rng.integers(2**31)))
    mask = exposure_mask(electrons, scene.conditions.saturation_e)
    sky = measure_sky(electrons, mask)
    psf = measure_psf(electrons, mask, sky, fallback_fwhm_px=scene.kernel.fwhm_px)
    padded = whiten(electrons, mask, sky, window=network.window, step=network.step)
    shape = (electrons.shape[0], electrons.shape[1])
    return Proposed(propose(padded, shape, network, psf.fwhm_px), psf.fwhm_px, shape, trails)


def keep_proposed(network: StreakNetwork, bank: Bank, number: int, folder: Path) -> Proposed:
    """The ``proposed`` of an exposure of a bank's scene ``number``: from the folder, or made and kept there."""
    path = folder / f"proposed-{bank.seed}-{number:05d}.npz"
    if not path.exists():
        made = proposed(network, bank.scene(number), np.random.default_rng([bank.seed, 77, number]))
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        rows = made.proposals
        np.savez(
            partial,
            ends=rows.ends,
            logit=rows.logit,
            scale=rows.scale,
            fwhm=made.fwhm_px,
            shape=made.shape,
            trails=made.trails,
        )
        partial.replace(path)
    with np.load(path) as kept:
        ones = np.ones(len(kept["logit"]), np.int64)
        rows = Proposals(kept["ends"], kept["logit"], kept["scale"], ones)
        height, width = kept["shape"].tolist()
        return Proposed(rows, float(kept["fwhm"]), (height, width), kept["trails"])


def trail_of(table: Snippets, trails: NDArray[np.float64]) -> NDArray[np.int64]:
    """The trail ``[n]`` that each snippet is a piece of, -1 for none; of several the one nearest across."""
    middle = 0.5 * (table.lines[:, :2] + table.lines[:, 2:])
    along = table.lines[:, 2:] - table.lines[:, :2]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    nearest = np.full(len(middle), np.inf)
    owner = np.full(len(middle), -1, np.int64)
    for number, trail in enumerate(trails):
        span = trail[2:4] - trail[:2]
        whole = max(float(np.hypot(*span)), 1e-9)
        unit = span / whole
        offset = middle - trail[:2]
        across = np.abs(offset[:, 1] * unit[0] - offset[:, 0] * unit[1]) / table.scale
        place = offset @ unit
        sine = np.abs(along[:, 1] * unit[0] - along[:, 0] * unit[1]) / length
        on = (across < OF_TRAIL_PX) & (place > -OF_TRAIL_PX * table.scale) & (place < whole + OF_TRAIL_PX * table.scale)
        on &= (sine < OF_TRAIL_SINE) & (across < nearest)
        nearest[on], owner[on] = across[on], number
    return owner


@dataclass(frozen=True, eq=False)
class Lines:
    """Seeds with their neighbours: ``features`` ``[n, k, f]``, which are ``present`` and which ``same`` ``[n, k]``."""

    features: Tensor
    present: Tensor
    same: Tensor

    def to(self, device: torch.device) -> Lines:
        """The same on a device."""
        return Lines(self.features.to(device), self.present.to(device), self.same.to(device))


def lines_of(samples: Sequence[Proposed], rng: np.random.Generator) -> Lines:
    """What the merger learns from: every snippet on a trail and as many that are on none."""
    features, present, same = [], [], []
    for sample in samples:
        windows = sample.proposals.take(np.argsort(-sample.proposals.logit, kind="stable"))
        table, _ = snippets(windows, fwhm_px=sample.fwhm_px)
        owner = trail_of(table, sample.trails)
        true, false = np.flatnonzero(owner >= 0), np.flatnonzero(owner < 0)
        chosen = np.concatenate([true, rng.permutation(false)[: int(FALSE_PER_TRUE * len(true))]])
        neighbours = table.neighbours[chosen]
        there = neighbours >= 0
        features.append(table.features[chosen])
        present.append(there)
        same.append(there & (owner[chosen, None] >= 0) & (owner[neighbours] == owner[chosen, None]))
    return Lines(
        torch.from_numpy(np.concatenate(features)),
        torch.from_numpy(np.concatenate(present)),
        torch.from_numpy(np.concatenate(same)),
    )


def lines_batches(lines: Lines, seed: int) -> Iterator[Lines]:
    """Random parts of the lines, for ever; mirrored at their seed's line at random."""
    generator = torch.Generator().manual_seed(seed)
    across = [FEATURES.index("across"), FEATURES.index("turn")]
    while True:
        rows = torch.randint(len(lines.features), (BATCH,), generator=generator)
        features = lines.features[rows].clone()
        features[:, :, across] *= torch.where(torch.rand(BATCH, generator=generator) < 0.5, -1.0, 1.0)[:, None, None]
        yield Lines(features, lines.present[rows], lines.same[rows])


def lines_loss(network: nn.Module, lines: Lines) -> Tensor:
    """Cross-entropy of the neighbours that are not the seed itself."""
    judged = lines.present & (lines.features[..., FEATURES.index("self")] < 0.5)
    logit: Tensor = network(lines.features, lines.present)
    return functional.binary_cross_entropy_with_logits(logit[judged], lines.same[judged].float())


@dataclass(frozen=True, eq=False)
class LinesValidation:
    """The loss, and how many of the right neighbours are taken and how many of the taken are right."""

    lines: Lines

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """The figures of a network."""
        network.eval()
        judged = self.lines.present & (self.lines.features[..., FEATURES.index("self")] < 0.5)
        with torch.inference_mode():
            loss = float(lines_loss(network, self.lines))
            taken = network(self.lines.features, self.lines.present) > 0.0
        network.train()
        right = float((taken & self.lines.same & judged).sum())
        return {
            "loss": loss,
            "taken": right / max(float((self.lines.same & judged).sum()), 1.0),
            "right": right / max(float((taken & judged).sum()), 1.0),
        }


def fit_snippets(bank: Bank, network: StreakPredictor, run: Run, facts: Mapping[str, Any]) -> Outcome:
    """Train the merger on what ``network`` proposes in an exposure of each sky of a bank, an eighth held out.

    What came of it is ``best.safetensors`` in the run's folder.
    """
    watched = track(range(bank.count), "proposing")
    samples = [keep_proposed(network, bank, number, run.folder) for number in watched]
    rng = np.random.default_rng(bank.seed)
    held_out = max(len(samples) // 8, 1)
    validation, lines = lines_of(samples[:held_out], rng), lines_of(samples[held_out:], rng)
    torch.manual_seed(bank.seed)
    facts = {"network": "snippets", **facts, "proposals_of": network.weights.sha256}
    return fit(SnippetNet(), lines_batches(lines, bank.seed), lines_loss, LinesValidation(validation), run, facts)
