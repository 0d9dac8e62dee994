"""The verifier: from the evidence on a fitted candidate to the logit that it is a streak."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.evidence import NAMES


class Verifier(nn.Module):
    """Two hidden layers over ``detector.evidence``; it owns the mean and the scatter of what it was trained on."""

    mean: Tensor
    scatter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(NAMES)))
        self.register_buffer("scatter", torch.ones(len(NAMES)))
        self.layers = nn.Sequential(
            nn.Linear(len(NAMES), 48),
            nn.SiLU(),
            nn.Linear(48, 24),
            nn.SiLU(),
            nn.Linear(24, 1),
        )

    def forward(self, evidence: Tensor) -> Tensor:
        """Give logits ``[n]`` of evidence ``[n, len(NAMES)]``."""
        scaled = ((evidence - self.mean) / self.scatter).clamp(-6.0, 6.0)  # n k
        logit: Tensor = self.layers(scaled)[:, 0]  # n
        return logit
