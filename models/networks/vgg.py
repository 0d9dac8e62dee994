"""VGG19 with a new head, for transfer learning: the convolutions as they are commonly handed around, by their names.

Simonyan & Zisserman (2015), used for mergers by Wang, Pearson & Rodriguez-Gomez (2020). The sixteen convolutions lie at
``features.N.weight`` and ``features.N.bias``, N being their place among convolutions, ReLUs and pools: the layout in
which torchvision stores ImageNet weights. Nobody's weights are shipped; a file of the user's is read without executing
anything in it (safetensors, or a ``.pth`` of plain tensors).
"""

from __future__ import annotations

from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.networks.stretch import stretched
from models.weights import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Convolutions of each of the five blocks, each followed by a pool.
BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
HIDDEN = 128


class Vgg19(nn.Module):
    """Stamps in units of the sky's sigma in, the logit that each is a merger out.

    The three stretches take the place of red, green and blue. ``narrow`` divides all channels: for tests.
    """

    def __init__(self, narrow: int = 1) -> None:
        super().__init__()
        self.narrow = narrow
        layers: list[nn.Module] = []
        self.last_of_block: list[int] = []
        inside = 3
        for block in BLOCKS:
            for width in block:
                layers += [nn.Conv2d(inside, width // narrow, 3, padding=1), nn.ReLU(inplace=True)]
                inside = width // narrow
            layers.append(nn.MaxPool2d(2))
            self.last_of_block.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(2 * inside, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, 1))
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, stamps: Tensor) -> Tensor:
        """Give ``[n]`` of ``stamps`` ``[n, 64, 64]``."""
        seen = self.features(stretched(stamps).contiguous(memory_format=torch.channels_last))  # n c 2 2
        pooled = torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)
        logit: Tensor = self.head(pooled)[:, 0]
        return logit.float()

    def freeze(self, blocks: int) -> None:
        """Let the first ``blocks`` blocks of convolutions learn no more."""
        end = self.last_of_block[blocks - 1] if blocks else 0
        for layer in list(self.features)[:end]:
            layer.requires_grad_(requires_grad=False)

    def take(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """Take the convolutions from ``tensors``; other entries (the ImageNet classifier) are left alone.

        Errors: ``BadWeights`` where a convolution is absent or of another shape, which ``path`` names.
        """
        own = self.features.state_dict()
        for name, tensor in own.items():
            given = tensors.get(f"features.{name}")
            if given is None or given.shape != tensor.shape:
                found = "is absent" if given is None else f"has the shape {tuple(given.shape)}"
                raise BadWeights(
                    f"{path}: features.{name} {found}, {tuple(tensor.shape)} is needed: give VGG19's weights without "
                    "batch normalisation, in torchvision's layout"
                )
        self.features.load_state_dict({name: tensors[f"features.{name}"].float() for name in own})


def read_vgg(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint: ``.safetensors``, or ``.pth`` / ``.pt`` of plain tensors.

    Errors: ``BadWeights`` for a file that is neither, or that wants to execute something.
    """
    if not path.is_file():
        raise BadWeights(f"no file at {path}: give VGG19's weights as .safetensors or .pth")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise BadWeights(f"{path} is no checkpoint of plain tensors: {error}") from None
    except UnpicklingError as error:
        raise BadWeights(f"{path} holds more than plain tensors, and is not read: {error}") from None
    if not isinstance(state, dict):
        raise BadWeights(f"{path} holds no table of tensors")
    return state
