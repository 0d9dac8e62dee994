"""A recurrent network that reads the snippets along a line and says which of them belong to one streak.

The merger of snippets of Pontinen et al. (2023, A&A 679, A135), here as a gated recurrent network that reads the line
in both directions: a piece is told from what comes before and after it. It judges the neighbours of one snippet, the
seed, relative to the seed: the answer is the same wherever in the frame and however turned the line is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.snippets import FEATURES

HIDDEN = 24
# Ends far out, logits far apart: beyond this a feature says no more.
LARGEST = 6.0


class SnippetNet(nn.Module):
    """The features of the snippets along a line in, the logit that each belongs to the seed's streak out."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Linear(len(FEATURES), HIDDEN)
        self.along = nn.GRU(HIDDEN, HIDDEN, batch_first=True, bidirectional=True)
        self.verdict = nn.Sequential(nn.Linear(3 * HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Give logits ``[n, k]``; ``features`` ``[n, k, f]`` are in order, those ``present`` ``[n, k]`` first."""
        entered = torch.relu(self.entry(features.clamp(-LARGEST, LARGEST)))  # n k h
        lengths = present.sum(dim=1).cpu()  # n
        packed = nn.utils.rnn.pack_padded_sequence(entered, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.along(packed)
        read, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=features.shape[1])  # n k 2h
        verdict: Tensor = self.verdict(torch.cat([entered, read], dim=2))[..., 0]  # n k
        return verdict
