"""DenseLens: densely connected networks that tell strong lenses, and how much a lens has to show.

After Nagam et al. (2023, MNRAS 523, 4188): an ensemble of classification networks gives a mean probability and its
spread, an ensemble of regression networks the information content of the lensed features, by which candidates are
ranked. A densely connected block (Huang et al. 2017) hands every layer what all layers before it made. Members differ
by their first weights and by the order of what they saw.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.stretch import STRETCHES, folded

# Of the entry: 2 x 2 pixels are folded.
FOLD = 2


@dataclass(frozen=True)
class DenseShape:
    """What one member is made of: it travels with the weights.

    ``entry`` channels after the first convolution; ``growth`` channels that each layer adds; ``blocks`` layers of each
    block, between which the image is halved.
    """

    entry: int = 32
    growth: int = 12
    blocks: tuple[int, ...] = (4, 5, 5)


class DenseLayer(nn.Module):
    """Its input with ``growth`` channels more: 1 x 1 to narrow, then 3 x 3."""

    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        self.seen = nn.Sequential(
            nn.BatchNorm2d(inside),
            nn.ReLU(inplace=True),
            nn.Conv2d(inside, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, known: Tensor) -> Tensor:
        """Give ``[n, inside + growth, h, w]``."""
        return torch.cat([known, self.seen(known)], dim=1)


class DenseNet(nn.Module):
    """One member: stamps in units of the sky's sigma in, one number each out."""

    def __init__(self, shape: DenseShape | None = None) -> None:
        super().__init__()
        self.shape = shape or DenseShape()
        channels = self.shape.entry
        layers: list[nn.Module] = [
            nn.Conv2d(STRETCHES * FOLD**2, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        for number, depth in enumerate(self.shape.blocks):
            if number:
                narrowed = channels // 2
                layers += [
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(channels, narrowed, 1, bias=False),
                    nn.AvgPool2d(2),
                ]
                channels = narrowed
            for _ in range(depth):
                layers.append(DenseLayer(channels, self.shape.growth))
                channels += self.shape.growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * channels, 1)

    def forward(self, stamps: Tensor) -> Tensor:
        """Give ``[n]`` of ``stamps`` ``[n, 64, 64]``: a logit, or the regressed number."""
        seen = self.features(folded(stamps))  # n c 4 4
        pooled = torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)  # n 2c
        number: Tensor = self.head(pooled)[:, 0]
        return number.float()


class Ensemble(nn.Module):
    """Members of one kind, side by side: all see the same stamps."""

    def __init__(self, members: int, shape: DenseShape | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList([DenseNet(shape) for _ in range(members)])

    def forward(self, stamps: Tensor) -> Tensor:
        """Give ``[n, members]``."""
        return torch.stack([member(stamps) for member in self.members], dim=1)
