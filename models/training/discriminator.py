"""How the discriminator learns: from stamps, as many of each class, and from whole frames, which are mostly nothing.

Stamps teach what a class looks like, frames what must be kept away from it. How much a wrong word about each class
costs in a frame is its weight. A run that has no frames learns from stamps alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from models.networks.discriminator import STEP_PX, WINDOW_PX, at_centre
from models.training.classes import MOST_NOISE, NOISIER, MapValidation, StampBatch, class_batches
from models.training.skyframes import TILING, UNKNOWN, cell_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from models.training.skyframes import SkyFrame
    from models.training.stampbank import Stamps

# Cells along a side of a crop, and crops in a step.
CELLS, CROPS = 24, 3
# What one cell that holds an object counts for in cells that hold none.
OBJECT_WEIGHT = 3.0
# The share of a crop's cells that its loss is divided by: most say nothing and cost nothing soon.
TELLING = 0.05


@dataclass(frozen=True, eq=False)
class SkyBatch:
    """Stamps with one label each, and crops ``[n, h, w]`` with one a cell ``[n, rows, cols]``, -1: not asked."""

    stamps: StampBatch
    crops: Tensor
    cells: Tensor

    def to(self, device: torch.device) -> SkyBatch:
        """The same batch on ``device``."""
        return SkyBatch(self.stamps.to(device), self.crops.to(device), self.cells.to(device))


@dataclass(frozen=True, eq=False)
class Padded:
    """A frame with masked pixels all round ``[h, w]``, and the labels of its cells ``[rows, cols]``."""

    pixels: NDArray[np.float16]
    labels: NDArray[np.int64]


def padded(frame: SkyFrame) -> Padded:
    """A frame so that each cell's window lies in it, and all crops of ``CELLS``."""
    shape = (frame.pixels.shape[0], frame.pixels.shape[1])
    labels = cell_labels(frame.objects, shape)
    whole = np.full([max(side, WINDOW_PX + STEP_PX * (CELLS - 1)) for side in TILING.padded_shape(shape)], np.nan)
    margin = TILING.margin
    whole[margin : margin + shape[0], margin : margin + shape[1]] = frame.pixels
    cells = np.full([(side - WINDOW_PX) // STEP_PX + 1 for side in whole.shape], UNKNOWN, np.int64)
    cells[: labels.shape[0], : labels.shape[1]] = labels
    return Padded(whole.astype(np.float16), cells)


def sky_batches(stamps: Stamps, frames: Sequence[SkyFrame], seed: int) -> Iterator[SkyBatch]:
    """Endless batches of stamps and of crops of frames, turned, mirrored and made noisier anew each time."""
    rng = np.random.default_rng([seed, 1])
    skies = [padded(frame) for frame in frames]
    area = np.array([sky.labels.size for sky in skies], np.float64)
    side = WINDOW_PX + STEP_PX * (CELLS - 1)
    for stamp in class_batches(stamps, seed, window=WINDOW_PX):
        crops, cells = np.empty((CROPS, side, side), np.float32), np.empty((CROPS, CELLS, CELLS), np.int64)
        for k, which in enumerate(rng.choice(len(skies), CROPS, p=area / area.sum())):
            sky = skies[which]
            row, col = (int(rng.integers(0, sky.labels.shape[axis] - CELLS + 1)) for axis in (0, 1))
            top, left = STEP_PX * row, STEP_PX * col
            crop = sky.pixels[top : top + side, left : left + side].astype(np.float32)
            crops[k], cells[k] = turned(rng, crop, sky.labels[row : row + CELLS, col : col + CELLS])
        yield SkyBatch(stamp, torch.from_numpy(crops), torch.from_numpy(cells))


def turned(
    rng: np.random.Generator, crop: NDArray[np.float32], cells: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A crop and its cells' labels otherwise seen, together; now and then with more noise."""
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    crop, cells = np.rot90(crop, turns), np.rot90(cells, turns)
    if mirrored:
        crop, cells = crop[:, ::-1], cells[:, ::-1]
    if rng.random() < NOISIER:
        sigma = np.float32(rng.uniform(0.0, MOST_NOISE))
        crop = (crop + sigma * rng.standard_normal(crop.shape, np.float32)) / np.sqrt(np.float32(1.0) + sigma**2)
    return crop, cells


def sky_loss(network: nn.Module, batch: SkyBatch) -> Tensor:
    """Cross-entropy of the stamps, and of the frames' cells."""
    stamps = functional.cross_entropy(at_centre(network(batch.stamps.pixels)), batch.stamps.target)
    return stamps + cells_loss(network(batch.crops), batch.cells)


def cells_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Cross-entropy of maps ``[n, 4, rows, cols]``; cells that hold an object count ``OBJECT_WEIGHT`` times."""
    weight = logits.new_full((logits.shape[1],), OBJECT_WEIGHT)
    weight[0] = 1.0
    total = functional.cross_entropy(logits, cells, weight, ignore_index=UNKNOWN, reduction="sum")
    return total / (TELLING * cells.numel())


@dataclass(frozen=True, eq=False)
class SkyValidation:
    """The loss of stamps and frames that nothing was learned from, and the share of stamps taken for what they are."""

    stamps: Stamps
    frames: Sequence[SkyFrame]

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        """The figures."""
        figures = dict(MapValidation(self.stamps)(network))
        losses = [self._loss(network, padded(frame)) for frame in self.frames]
        figures["loss_frames"] = float(np.mean(losses))
        return {**figures, "loss": figures["loss"] + figures["loss_frames"]}

    @staticmethod
    def _loss(network: nn.Module, sky: Padded) -> float:
        was_training = network.training
        network.eval()
        device = next(network.parameters()).device
        with torch.inference_mode():
            logits = network(torch.from_numpy(sky.pixels.astype(np.float32))[None].to(device))
            value = float(cells_loss(logits, torch.from_numpy(sky.labels)[None].to(device)))
        network.train(was_training)
        return value
