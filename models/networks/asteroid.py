"""AsteroidNet: six convolutions, a dense layer and one sigmoid unit that judge the cut-out of one candidate.

The asteroid network of "Object classification with Convolutional Neural Networks: from KiDS to Euclid" (Verdoes Kleijn
et al.) as a second stage: streak, or cosmic ray, spike, wing, edge-on galaxy, column, ghost. It sees what the trail fit
makes of the candidate (``detector.cutouts``), and its dense layer reads the fit's numbers (``detector.evidence``) too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.cutouts import CHANNELS, SIDE
from detector.evidence import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNELS_OF_CONVOLUTIONS = (24, 32, 48, 48, 64, 64)
HALVED_AT = (1, 3, 5)
# Of the dense layer's units in training: some ten thousand true streaks are few.
DROPPED = 0.3


class AsteroidNet(nn.Module):
    """Stamps and evidence in, the logit that each is a streak out.

    2 x 2 pixels are folded into channels at the entry; it owns the mean and the scatter of the evidence it was trained
    on.
    """

    mean: Tensor
    scatter: Tensor

    def __init__(self, channels: Sequence[int] = CHANNELS_OF_CONVOLUTIONS, hidden: int = 96) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(NAMES)))
        self.register_buffer("scatter", torch.ones(len(NAMES)))
        before = (4 * len(CHANNELS), *channels[:-1])
        layers: list[nn.Module] = []
        for k, (inside, outside) in enumerate(zip(before, channels, strict=True)):
            layers += [
                nn.Conv2d(inside, outside, 3, stride=2 if k in HALVED_AT else 1, padding=1),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        side = SIDE // 2 ** (1 + len(HALVED_AT))
        self.dense = nn.Linear(channels[-1] * side**2 + len(NAMES), hidden)
        self.dropout = nn.Dropout(DROPPED)
        self.decision = nn.Linear(hidden, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, stamps: Tensor, evidence: Tensor) -> Tensor:
        """Give logits ``[n]`` of ``stamps`` ``[n, 6, 48, 48]`` and ``evidence`` ``[n, len(NAMES)]``."""
        folded = functional.pixel_unshuffle(stamps, 2).contiguous(memory_format=torch.channels_last)  # n 24 24 24
        seen = self.convolutions(folded)  # n c 3 3
        scaled = ((evidence - self.mean) / self.scatter).clamp(-6.0, 6.0)  # n k
        joined = torch.cat([seen.flatten(1), scaled.to(seen.dtype)], dim=1)
        logit: Tensor = self.decision(self.dropout(functional.silu(self.dense(joined))))[:, 0]  # n
        return logit.float()
