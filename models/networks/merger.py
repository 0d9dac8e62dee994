"""The merger network: plain convolutions on a stamp of 12.8 arcsec, one sigmoid unit.

The custom network that was made for HSC on the way to Euclid (Wang, Pearson & Rodriguez-Gomez 2020 and their
successors) has a few wide convolutions, then dense layers; here the first of them reads folded pixels, and the dense
layer reads the whole last map, for where a tail is with respect to its galaxy tells a merger.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.networks.stretch import STRETCHES, folded

CHANNELS = (24, 32, 48, 64, 64)
STRIDES = (2, 1, 2, 1, 2)
HIDDEN = 64
FOLD = 2
LAST_SIDE = 4
DROPPED = 0.3


class MergerNet(nn.Module):
    """Stamps in units of the sky's sigma in, the logit that each is a merger out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = STRETCHES * FOLD**2
        for outside, stride in zip(CHANNELS, STRIDES, strict=True):
            layers += [
                nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(inplace=True),
            ]
            inside = outside
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inside * LAST_SIDE**2, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPPED),
            nn.Linear(HIDDEN, 1),
        )

    def forward(self, stamps: Tensor) -> Tensor:
        """Give ``[n]`` of ``stamps`` ``[n, 64, 64]``."""
        logit: Tensor = self.head(self.features(folded(stamps)))[:, 0]
        return logit.float()
