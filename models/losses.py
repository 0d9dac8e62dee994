"""The loss made for StreakNet: is there a streak, and where are its ends, whichever is named first.

Sources: cross-entropy on the probability and coordinates only where there is an object, as in YOLO-style losses (Redmon
et al. 2016) and as the paper describes its tailor-made loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# One sigma of the ends that smooth L1 takes as "small": pixels.
ENDS_BETA_PX = 2.0
# The share of windows that hold a streak in training: it sets the scale of both parts of the loss.
EXPECTED_POSITIVES = 0.01


@dataclass(frozen=True)
class StreakLoss:
    """The two parts of the loss, each a scalar tensor; ``total`` is what is minimised."""

    probability: Tensor
    ends: Tensor

    @property
    def total(self) -> Tensor:
        """The ends weigh less: an unfound streak is worse than a displaced one, which the fit repairs."""
        return self.probability + 0.25 * self.ends


def streak_loss(output: Tensor, target: Tensor, weight: Tensor) -> StreakLoss:
    """Give the loss of a batch of cells.

    ``output`` ``[n, 5, r, c]`` as StreakNet gives it; ``target`` ``[n, 5, r, c]``: 1 or 0, then the ends in pixels from
    the window's first pixel; ``weight`` ``[n, r, c]``: 0 where a cell is left out. Exchanging the ends changes nothing.
    """
    positive = target[:, 0] > 0.5  # n r c
    # Not the positives that this batch happens to hold: an empty sky would weigh thousands of times too much.
    count = EXPECTED_POSITIVES * positive.numel()
    entropy = functional.binary_cross_entropy_with_logits(output[:, 0], target[:, 0], reduction="none")  # n r c
    probability = (entropy * weight).sum() / count
    direct = end_distance(output[:, 1:], target[:, 1:])  # n r c
    exchanged = end_distance(output[:, 1:], target[:, [3, 4, 1, 2]])  # n r c
    ends = (torch.where(positive, torch.minimum(direct, exchanged), 0.0) * weight).sum() / count
    return StreakLoss(probability, ends)


def end_distance(output: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 of two pairs of ends ``[n, 4, r, c]`` in ``ENDS_BETA_PX``, averaged over the four: ``[n, r, c]``."""
    return functional.smooth_l1_loss(output / ENDS_BETA_PX, target / ENDS_BETA_PX, reduction="none").mean(dim=1)
