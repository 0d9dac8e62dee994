"""The residual network that lens searches in KiDS have used: the baseline that DenseLens is measured against.

After Petrillo et al. (2017, 2019) and Li et al. (2020, 2021): a residual network on single-band stamps with one sigmoid
unit. Narrower than theirs, and as large as one member of DenseLens times the number of members, so that what is
compared is the kind of network and not its size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.stretch import STRETCHES, folded

CHANNELS = (24, 40, 64)
BLOCKS = 2
FOLD = 2


class Residual(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
        )
        same = inside == outside and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride=stride, bias=False)

    def forward(self, known: Tensor) -> Tensor:
        """Give ``[n, outside, h / stride, w / stride]``."""
        return functional.relu(self.body(known) + self.shortcut(known))


class ResNet(nn.Module):
    """Stamps in units of the sky's sigma in, the logit that each is a lens out."""

    def __init__(self) -> None:
        super().__init__()
        first = CHANNELS[0]
        layers: list[nn.Module] = [
            nn.Conv2d(STRETCHES * FOLD**2, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        ]
        inside = first
        for number, outside in enumerate(CHANNELS):
            for block in range(BLOCKS):
                layers.append(Residual(inside, outside, 2 if number and block == 0 else 1))
                inside = outside
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * inside, 1)

    def forward(self, stamps: Tensor) -> Tensor:
        """Give ``[n]`` of ``stamps`` ``[n, 64, 64]``."""
        seen = self.features(folded(stamps))  # n c 4 4
        pooled = torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)
        logit: Tensor = self.head(pooled)[:, 0]
        return logit.float()
