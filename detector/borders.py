"""Where a frame was not lit: overscan along its sides, corners behind the vignette of the optics."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from detector.frame import MaskBit
from detector.goodpixels import nanmedian

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.goodpixels import Mask

BORDER_FRACTION = 0.08  # overscan takes no more of a side than this, or than 64 px
BORDER_PX = 64
SMALLEST_PX = 32  # a smaller frame has no borders to speak of
OVERSCAN_PX = 4  # an overscan at least twice as wide tells the level without light
BORDER_SIGMA = 3.0  # noise of the lit side by which an overscan is darker, within three pixels
LIT_FRACTION = 0.5  # less light than this part of the typical: unlit corner
Pixel = TypeVar("Pixel", bound=np.generic)


def borders(pixels: NDArray[np.float32], mask: Mask) -> NDArray[np.bool_]:
    """Overscan-like strips along the four sides and, where those tell the level without light, unlit corners."""
    border = np.zeros(pixels.shape, np.bool_)
    if min(pixels.shape) < SMALLEST_PX:
        return border
    dark: list[NDArray[np.float32]] = []
    for side in range(4):
        along, marked = _from_side(pixels, side), _from_side(border, side)
        width = _overscan_px(*_profile(along, _from_side(mask, side)))
        if width:
            marked[:, :width] = True
        if width >= 2 * OVERSCAN_PX:  # less may be a few dead lines, which tell no level
            dark.append(along[:, : width - OVERSCAN_PX])
    if dark:
        level = min(float(np.nanmedian(strip)) for strip in dark)
        border |= unlit(pixels, level)
    return border


def _from_side(array: NDArray[Pixel], side: int) -> NDArray[Pixel]:
    """View of ``array`` in which ``side`` (0 left, 1 right, 2 first row, 3 last row) is the left one."""
    turned = array if side < 2 else array.T
    return turned[:, ::-1] if side % 2 else turned


def _profile(pixels: NDArray[np.float32], mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and pixel noise of each of the first columns, from the middle four fifths of the rows."""
    height, width = pixels.shape
    most = min(width // 4, max(BORDER_PX, int(BORDER_FRACTION * width))) + 8
    rows = np.s_[height // 10 : height - height // 10 : max(1, height // 500)]
    columns = np.where(mask[rows, :most] & np.uint8(MaskBit.BAD), np.nan, pixels[rows, :most])
    below = pixels[height // 10 + 1 : height - height // 10 + 1 : max(1, height // 500), :most]
    noise = 1.4826 * nanmedian(np.abs(columns - below[: columns.shape[0]])) / np.sqrt(2.0)
    return nanmedian(columns), noise


def _overscan_px(level: NDArray[np.float64], noise: NDArray[np.float64]) -> int:
    """Columns from the border on that see no light: all darker than what comes next, by an abrupt step."""
    width = 0
    inside_level = nanmedian(sliding_window_view(level, 4).T)
    inside_noise = nanmedian(sliding_window_view(noise, 4).T)
    brightest = np.fmax.accumulate(level)
    outside_noise = np.cumsum(np.nan_to_num(noise)) / np.arange(1, noise.size + 1)
    for c in range(1, level.size - 6):
        inside, sigma = inside_level[c + 1], inside_noise[c + 1]
        outside = max(1, c - 1)  # one column may be in between
        step = level[c + 1] - level[max(0, c - 2)]
        abrupt = step > 2.0 * (level[c + 4] - level[c + 1])
        quieter = outside_noise[outside - 1] < 0.9 * sigma
        darker = brightest[outside - 1] < inside - BORDER_SIGMA * sigma
        if darker and abrupt and step > (BORDER_SIGMA if quieter else 10.0) * sigma:
            width = c + 1
    return width


def unlit(pixels: NDArray[np.float32], dark_level: float) -> NDArray[np.bool_]:
    """Blocks of 16 px, joined to the border, that see less than ``LIT_FRACTION`` of the typical light."""
    size = 16
    height, width = pixels.shape
    rows, cols = height // size, width // size
    unlit = np.zeros(pixels.shape, np.bool_)
    if rows < 4 or cols < 4:
        return unlit
    blocks = pixels[: rows * size, : cols * size].reshape(rows, size, cols, size)
    levels = np.nanmedian(np.nan_to_num(blocks, nan=dark_level), axis=(1, 3))
    typical = float(np.median(levels))
    dim = levels - dark_level < LIT_FRACTION * (typical - dark_level)
    labels, _ = ndimage.label(np.pad(dim, 1, constant_values=True))
    joined = (labels == labels[0, 0])[1:-1, 1:-1]
    # Blocks that the division leaves over go with the last ones.
    row = np.minimum(np.arange(height) // size, rows - 1)
    col = np.minimum(np.arange(width) // size, cols - 1)
    return joined[np.ix_(row, col)]
