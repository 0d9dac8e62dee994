"""StreakNet: six convolutions and a dense layer that give a streak's probability and its two end points.

The advanced network of "Object classification with Convolutional Neural Networks: from KiDS to Euclid" (Verdoes Kleijn
et al.), built so that sliding it over a frame costs no overlap twice: no convolution is padded, the strides multiply to
the window step, the dense layer is a convolution as large as its input, and nothing is normalised per window. The
number that a window gives is therefore the same whether it is cut out or seen in a strip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# The unit of the ends inside the network: a quarter of the window keeps targets within about +-2.
ENDS_PER_WINDOW = 4.0


@dataclass(frozen=True)
class StreakNetShape:
    """What the network is made of: it travels with the weights.

    ``window`` and ``step`` in pixels; ``channels`` of the six convolutions. The receptive field is 90 px.
    """

    window: int = 96
    step: int = 8
    channels: tuple[int, int, int, int, int, int] = (16, 32, 32, 64, 64, 96)


class StreakNet(nn.Module):
    """Pixels in units of the sky's sigma in, (logit, x0, y0, x1, y1) of each window out.

    2 x 2 pixels are folded into channels at the entry; two of the six convolutions have stride 2, which makes the step
    of 8 px; the sixth is dilated, so that the field of view is nearly the window. Beside the pixels the network is told
    where they are masked and how wide the PSF is: what is sharper than the PSF is a cosmic ray.
    """

    def __init__(self, shape: StreakNetShape | None = None) -> None:
        super().__init__()
        self.shape = shape or StreakNetShape()
        c1, c2, c3, c4, c5, c6 = self.shape.channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(6, c1, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(c1, c2, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(c2, c3, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(c5, c6, 3, dilation=2),
            nn.ReLU(inplace=True),
        )
        self.dense = nn.Conv2d(c6, 5, 3)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.dense.weight, std=0.01)
        with torch.no_grad():
            # Rare objects: begin where nearly every window says "nothing", or the first steps are spent on that alone.
            self.dense.bias.copy_(torch.tensor([-4.0, -0.3, 0.0, 0.3, 0.0]))  # type: ignore[union-attr]

    def forward(self, pixels: Tensor, fwhm_px: Tensor) -> Tensor:
        """Give ``[n, 5, rows, cols]``; ends are pixels from the window's first pixel.

        ``pixels`` ``[n, h, w]``, NaN where masked; ``fwhm_px`` ``[n]``, 0 where unknown.
        """
        masked = torch.isnan(pixels)
        value = torch.asinh(torch.where(masked, 0.0, pixels))[:, None]  # n 1 h w
        folded = functional.pixel_unshuffle(value, 2)  # n 4 h/2 w/2
        hidden = functional.avg_pool2d(masked[:, None].to(value.dtype), 2)  # n 1 h/2 w/2
        width = (fwhm_px / 4.0)[:, None, None, None].expand_as(hidden)  # n 1 h/2 w/2
        entry = torch.cat([folded, hidden, width], dim=1).contiguous(memory_format=torch.channels_last)  # n 6 h/2 w/2
        out = self.dense(self.convolutions(entry)).float()  # n 5 rows cols
        ends = self.shape.window * (0.5 + out[:, 1:] / ENDS_PER_WINDOW)
        return torch.cat([out[:, :1], ends], dim=1)
