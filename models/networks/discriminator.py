"""The discriminator: one pass over the frame that says asteroid, lens, merger or nothing, everywhere.

It stands in front of the networks of the single classes, so that no catalogue of sources is needed (Verdoes Kleijn et
al.). It looks at the frame at about 0.2 arcsec a pixel. No convolution is padded and the strides multiply to the step,
as in StreakNet: sliding it over a frame computes nothing twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.stretch import folded_densely

# What the maps are, in their order: a label of the simulation is its index. Zero is "nothing".
CLASSES = ("none", "lens", "merger", "asteroid")
WINDOW_PX = 58
STEP_PX = 8
CHANNELS = (24, 32, 48, 48, 64, 64)
STRIDES = (1, 2, 1, 2, 1, 1)
FOLD = 2


class Discriminator(nn.Module):
    """Sky-sigma pixels in, four logits of each window out; the window is 58 px, the step 8 px.

    About 1.2 kFLOP a native pixel of Euclid, whose frames are binned 2 x 2 first.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = 2 * FOLD**2
        for outside, stride in zip(CHANNELS, STRIDES, strict=True):
            layers += [
                nn.Conv2d(inside, outside, 3, stride=stride, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(inplace=True),
            ]
            inside = outside
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(inside, len(CLASSES), 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Give logits ``[n, 4, rows, cols]`` of ``pixels`` ``[n, h, w]``, NaN where masked."""
        logits: Tensor = self.head(self.features(folded_densely(pixels)))
        return logits.float()


def at_centre(logits: Tensor) -> Tensor:
    """The logits ``[n, 4]`` of the window nearest to the middle of each map ``[n, 4, r, c]``."""
    return logits[:, :, logits.shape[2] // 2, logits.shape[3] // 2]


def probabilities(logits: Tensor, weights: Tensor) -> Tensor:
    """Give ``[n, 4, r, c]``: how likely each class is where class k is ``weights[k]`` times as frequent as trained."""
    return torch.softmax(logits + torch.log(weights)[None, :, None, None], dim=1)
