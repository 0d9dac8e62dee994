"""How StreakNet is trained: densely, as it runs, on endless exposures of a bank of simulated skies.

Exposures are made by worker processes while the network learns; a small buffer mixes them, so that a batch holds crops
of several skies. Crops of one batch have one scale, as their sizes differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from detector.tiling import Tiling
from models.losses import streak_loss
from models.training.fit import half_precision
from models.training.scenes import Bank, Sample, draw_samples, turned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

# A step sees about 5,000 windows: crops of 32 x 32.
CROP_CELLS = 32
WINDOWS_PER_BATCH = 5 * CROP_CELLS**2
# Crops that wait, for each scale, until enough skies are mixed.
BUFFER_BATCHES = 4
# Exposing is slower than learning: each crop is seen so often, turned another way each time.
USES = 2
# A Euclid VIS frame, the unit in which false alarms are counted.
FRAME_CELLS = 4132 * 4096 / 64


@dataclass(frozen=True, eq=False)
class StreakBatch:
    """Tensors of a batch: pixels ``[n, h, w]``, fwhm ``[n]``, target ``[n, 5, r, c]``, weight ``[n, r, c]``."""

    pixels: Tensor
    fwhm_px: Tensor
    target: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> StreakBatch:
        """The same batch on ``device``."""
        return StreakBatch(*(tensor.to(device) for tensor in (self.pixels, self.fwhm_px, self.target, self.weight)))


class StreakBatches(IterableDataset[StreakBatch]):
    """Endless batches; each worker draws its own, from the seed, its number and ``round`` (of a resumed run)."""

    def __init__(self, bank: Bank, tiling: Tiling, seed: int, round_: int) -> None:
        self.bank = bank
        self.tiling = tiling
        self.seed = seed
        self.round = round_

    def __iter__(self) -> Iterator[StreakBatch]:
        """Batches without end."""
        # The main process trains on the same cores: one thread for each worker's kernels.
        numba.set_num_threads(1)
        torch.set_num_threads(1)
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, self.round, worker.id if worker else 0])
        waiting: dict[int, list[tuple[Sample, int]]] = {}
        while True:
            scene = self.bank.scene(int(rng.integers(self.bank.count)))
            for scale, sample in draw_samples(rng, scene, self.tiling, CROP_CELLS):
                crops = waiting.setdefault(scale, [])
                crops += [(crop, USES) for crop in split(sample)]
                per_batch = max(1, WINDOWS_PER_BATCH // sample.weight[0].size)
                while len(crops) >= BUFFER_BATCHES * per_batch:
                    rng.shuffle(crops)
                    drawn, crops[:per_batch] = crops[:per_batch], []
                    crops += [(crop, uses - 1) for crop, uses in drawn if uses > 1]
                    yield stacked([turned(crop, int(rng.integers(8)), self.tiling.window) for crop, _ in drawn])


def split(sample: Sample) -> list[Sample]:
    """The crops of a sample one by one."""
    return [
        Sample(pixels, sample.fwhm_px, target, weight)
        for pixels, target, weight in zip(sample.pixels, sample.target, sample.weight, strict=True)
    ]


def stacked(samples: list[Sample]) -> StreakBatch:
    """One batch of crops of equal size."""
    return StreakBatch(
        torch.from_numpy(np.stack([sample.pixels for sample in samples])),
        torch.tensor([sample.fwhm_px for sample in samples], dtype=torch.float32),
        torch.from_numpy(np.stack([sample.target for sample in samples])),
        torch.from_numpy(np.stack([sample.weight for sample in samples])),
    )


def streak_batches(bank: Bank, seed: int, round_: int, workers: int) -> Iterator[StreakBatch]:
    """Endless batches, made by ``workers`` processes beside the training."""
    loader = DataLoader(
        StreakBatches(bank, Tiling(), seed, round_),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)


def streak_batch_loss(network: nn.Module, batch: StreakBatch) -> Tensor:
    """The loss of one batch, in bfloat16 where that is faster and exact enough for training."""
    with half_precision(batch.pixels.device):
        output = network(batch.pixels, batch.fwhm_px)
    return streak_loss(output.float(), batch.target, batch.weight).total


@dataclass(frozen=True, eq=False)
class StreakValidation:
    """Fixed exposures of a bank that training never sees; float32 as in inference."""

    bank: Bank
    seed: int

    @cached_property
    def batches(self) -> list[tuple[int, StreakBatch]]:
        """Scale and batch of each exposure; drawn once, the same in every run."""
        drawn = []
        for index in range(self.bank.count):
            rng = np.random.default_rng([self.seed, index])
            samples = draw_samples(rng, self.bank.scene(index), Tiling(), CROP_CELLS)
            drawn += [(scale, stacked(split(sample))) for scale, sample in samples]
        return drawn

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        """The figures of ``validation_figures``."""
        return validation_figures(network, self.batches)


def validation_figures(network: nn.Module, batches: Sequence[tuple[int, StreakBatch]]) -> Mapping[str, float]:
    """The loss, the share of positive windows above the 10 and 100 best false ones a frame, and the ends' error."""
    device = next(network.parameters()).device
    logits, truths, weights, errors, losses = [], [], [], [], []
    network.eval()
    with torch.inference_mode():
        for scale, host in batches:
            batch = host.to(device)
            output = network(batch.pixels, batch.fwhm_px).float()
            losses.append(float(streak_loss(output, batch.target, batch.weight).total))
            positive = batch.target[:, 0] > 0.5
            ends = output[:, 1:].movedim(1, -1)[positive]
            truth = batch.target[:, 1:].movedim(1, -1)[positive]
            swapped = truth[:, [2, 3, 0, 1]]
            errors.append(torch.minimum((ends - truth).abs().mean(1), (ends - swapped).abs().mean(1)).cpu())
            if scale == 1:
                logits.append(output[:, 0].flatten().cpu())
                truths.append(batch.target[:, 0].flatten().cpu())
                weights.append(batch.weight.flatten().cpu())
    network.train()
    logit, truth, weight = torch.cat(logits), torch.cat(truths), torch.cat(weights)
    false = torch.sort(logit[(truth < 0.5) & (weight > 0.5)], descending=True).values
    true = logit[truth > 0.5]
    frames = len(logit) / FRAME_CELLS
    recall = {
        f"recall_{n}": float((true > false[min(int(n * frames), len(false) - 1)]).float().mean())
        for n in (10, 100, 1000)
    }
    return {"loss": float(np.mean(losses)), **recall, "ends_px": float(torch.cat(errors).median())}
