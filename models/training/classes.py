"""How the networks of lenses and mergers and the discriminator learn from a bank of stamps, and how they are judged.

Every step sees as many of one class as of the other, turned and mirrored anew each time, with a little noise more now
and then, so that a fainter copy of the same galaxy is learned from too. What is validated on are stamps of another
seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from models.networks.discriminator import WINDOW_PX, at_centre

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from models.training.stampbank import Stamps

BATCH = 64
# In this share of the batches noise is added, of at most so many sigmas; the stamps are then in the new sigma.
NOISIER = 0.4
MOST_NOISE = 0.9
VALIDATION_BATCH = 256
# The information content is learned as this logarithm: a hundredth of an arc counts as much as a tenth of it.
LEAST_IC = 1e-3


@dataclass(frozen=True, eq=False)
class StampBatch:
    """Tensors of a batch: pixels ``[n, h, w]``, target ``[n]`` (a class, or a number)."""

    pixels: Tensor
    target: Tensor

    def to(self, device: torch.device) -> StampBatch:
        """The same batch on ``device``."""
        return StampBatch(self.pixels.to(device), self.target.to(device))


def class_batches(stamps: Stamps, seed: int, *, window: int = 64) -> Iterator[StampBatch]:
    """Endless batches with equal numbers of all labels that ``stamps`` hold; cropped to ``window`` where it is less."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(stamps.label == label) for label in np.unique(stamps.label)]
    order = [np.zeros(0, np.intp)] * len(groups)
    while True:
        rows = []
        for number, group in enumerate(groups):
            wanted = BATCH // len(groups)
            while len(order[number]) < wanted:
                order[number] = np.concatenate([order[number], rng.permutation(group)])
            rows.append(order[number][:wanted])
            order[number] = order[number][wanted:]
        drawn = np.concatenate(rows)
        pixels = varied(stamps.pixels[drawn].astype(np.float32), rng, window)
        yield StampBatch(torch.from_numpy(pixels), torch.from_numpy(stamps.label[drawn].astype(np.int64)))


def number_batches(stamps: Stamps, seed: int) -> Iterator[StampBatch]:
    """Endless batches of lenses with the logarithm of their information content."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(np.isfinite(stamps.ic))
    while True:
        drawn = rng.choice(rows, BATCH)
        pixels = varied(stamps.pixels[drawn].astype(np.float32), rng, 64)
        yield StampBatch(torch.from_numpy(pixels), torch.from_numpy(log_ic(stamps.ic[drawn])))


def log_ic(ic: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the regression networks learn in place of the information content."""
    return np.log10(np.maximum(ic, LEAST_IC)).astype(np.float32)


def varied(pixels: NDArray[np.float32], rng: np.random.Generator, window: int) -> NDArray[np.float32]:
    """The same stamps ``[n, h, w]`` otherwise seen: turned, mirrored, cropped at random to ``window``, noisier."""
    turned = np.rot90(pixels, int(rng.integers(4)), (1, 2))
    if rng.uniform() < 0.5:
        turned = turned[:, :, ::-1]
    spare = pixels.shape[1] - window
    top, left = rng.integers(0, spare + 1, 2)
    cropped = np.ascontiguousarray(turned[:, top : top + window, left : left + window])
    if rng.uniform() < NOISIER:
        sigma = np.float32(rng.uniform(0.0, MOST_NOISE))
        cropped += sigma * rng.standard_normal(cropped.shape, np.float32)
        cropped /= np.sqrt(np.float32(1.0) + sigma**2)
    return cropped


def binary_loss(network: nn.Module, batch: StampBatch) -> Tensor:
    """Binary cross-entropy of one network ``[n]``, or the mean of all members' ``[n, members]``."""
    logit = network(batch.pixels)
    truth = (batch.target > 0).float()
    truth = truth if logit.dim() == 1 else truth[:, None].expand_as(logit)
    return functional.binary_cross_entropy_with_logits(logit, truth)


def number_loss(network: nn.Module, batch: StampBatch) -> Tensor:
    """Smooth L1 of the numbers that the members ``[n, members]`` give."""
    given = network(batch.pixels)
    return functional.smooth_l1_loss(given, batch.target[:, None].expand_as(given), beta=0.2)


def map_loss(network: nn.Module, batch: StampBatch) -> Tensor:
    """Cross-entropy of the one window that a crop of the discriminator's size holds."""
    return functional.cross_entropy(at_centre(network(batch.pixels)), batch.target)


@dataclass(frozen=True, eq=False)
class BinaryValidation:
    """The loss and, of ``stamps``, the accuracy and the share of true ones above one false in a hundred."""

    stamps: Stamps

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        """The figures; ``loss`` is that of the mean of the members' probabilities."""
        logit = mean_logit(all_outputs(network, self.stamps.pixels))
        true = self.stamps.label > 0
        loss = float(np.logaddexp(0.0, np.where(true, -logit, logit)).mean())
        return {
            "loss": loss,
            "accuracy": float(((logit > 0) == true).mean()),
            "tpr_1e-2": share_above(logit, true, 0.01),
        }


@dataclass(frozen=True, eq=False)
class NumberValidation:
    """The error of the logarithm of the information content, and its correlation with the truth."""

    stamps: Stamps

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        """The figures of the members' mean."""
        rows = np.flatnonzero(np.isfinite(self.stamps.ic))
        given = all_outputs(network, self.stamps.pixels[rows]).mean(axis=1)
        truth = log_ic(self.stamps.ic[rows])
        return {
            "loss": float(np.abs(given - truth).mean()),
            "correlation": float(np.corrcoef(given, truth)[0, 1]),
        }


@dataclass(frozen=True, eq=False)
class MapValidation:
    """The loss, and the share of each class that is taken for what it is."""

    stamps: Stamps

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        """The figures."""
        margin = (self.stamps.pixels.shape[1] - WINDOW_PX) // 2
        crops = self.stamps.pixels[:, margin : margin + WINDOW_PX, margin : margin + WINDOW_PX]
        logits = all_outputs(network, crops)[:, :, 0, 0]
        truth = self.stamps.label.astype(np.intp)
        log_total = np.logaddexp.reduce(logits, axis=1)
        loss = float((log_total - logits[np.arange(len(truth)), truth]).mean())
        named = logits.argmax(axis=1)
        right = {f"right_{k}": float((named[truth == k] == k).mean()) for k in np.unique(truth)}
        return {"loss": loss, **right}


def all_outputs(network: nn.Module, pixels: NDArray[np.float16]) -> NDArray[np.float64]:
    """What a network says of stamps ``[n, h, w]``, a part at a time."""
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for first in range(0, len(pixels), VALIDATION_BATCH):
            part = torch.from_numpy(np.ascontiguousarray(pixels[first : first + VALIDATION_BATCH], np.float32))
            parts.append(network(part.to(device)).cpu().numpy())
    network.train(was_training)
    return np.concatenate(parts).astype(np.float64)


def mean_logit(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logit ``[n]`` of the mean of the probabilities of members ``[n, members]``; of one network its own."""
    if outputs.ndim == 1:
        return outputs
    probability = np.clip((1.0 / (1.0 + np.exp(-outputs))).mean(axis=1), 1e-12, 1.0 - 1e-12)
    return np.log(probability / (1.0 - probability))


def share_above(score: NDArray[np.float64], true: NDArray[np.bool_], rate: float) -> float:
    """The share of true ones that score above all but ``rate`` of the false ones."""
    false = np.sort(score[~true])[::-1]
    cut = false[min(int(rate * len(false)), len(false) - 1)]
    return float((score[true] > cut).mean())
