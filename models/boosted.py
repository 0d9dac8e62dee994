"""Boosted trees in a file of weights: six arrays, nothing that is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from detector.trees import Trees
from models.weights import BadWeights

if TYPE_CHECKING:
    from torch import Tensor

    from models.weights import Weights

ARRAYS = ("roots", "feature", "threshold", "left", "right", "value")


def tensors_of(trees: Trees) -> dict[str, Tensor]:
    """The trees as ``models.weights.save`` takes them."""
    return {name: torch.from_numpy(np.ascontiguousarray(getattr(trees, name))) for name in ARRAYS}


def trees_of(weights: Weights, name: str) -> Trees:
    """The trees in the file ``name``. Errors: ``BadWeights``."""
    try:
        return Trees(**{array: weights.tensors[array].numpy() for array in ARRAYS})
    except (KeyError, ValueError) as error:
        raise BadWeights(f"{name}: {error}") from error
