"""Which pixels of a frame are the detector's own doing: bad columns, saturation and its bleeding, unlit borders.

A bad column is a perfect streak to anyone who does not know the detector, and most frames come without a mask. What is
found here becomes mask; what is masked can never be found, so each finder errs on the side of leaving a pixel alone:
a column is bad only where it is sharper than any image of the sky can be, and exactly aligned over a long run; a finder
that would take more than a quarter of the frame is taken for mistaken and ignored. At night the worst that happens is a
defect that is left in, for the networks to judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.badlines import bad_lines
from detector.borders import borders
from detector.frame import MaskBit
from detector.goodpixels import extremes, typical
from detector.saturation import saturated_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.goodpixels import Mask

MOST_OF_FRAME = 0.25  # a finder that masks more than this is mistaken


def find_defects(pixels: NDArray[np.float32], mask: Mask, *, saturation_e: float | None) -> Mask:
    """``mask`` [h, w] with the bits BAD, SATURATED and BORDER of what the ``pixels`` [h, w] themselves show.

    ``saturation_e`` is the level of the header, electrons; without one, or with one that is out of the frame's reach,
    a plateau of equal maxima is the sign. Nothing is changed in place.
    """
    found = mask.copy()
    found[~np.isfinite(pixels)] |= np.uint8(MaskBit.BAD)
    _add(found, _filling(pixels, found), MaskBit.BAD)
    _add(found, saturated_pixels(pixels, found, saturation_e), MaskBit.SATURATED)
    _add(found, borders(pixels, found), MaskBit.BORDER)
    _add(found, bad_lines(pixels, found), MaskBit.BAD)
    return found


def _add(found: Mask, pixels: NDArray[np.bool_], bit: MaskBit) -> None:
    """Set ``bit`` in our own copy of the mask, unless the finder is mistaken."""
    if pixels.mean() <= MOST_OF_FRAME:
        found[pixels] |= np.uint8(bit)


def _filling(pixels: NDArray[np.float32], mask: Mask) -> NDArray[np.bool_]:
    """Pixels without data that were filled with one exact value (the minimum, or 0).

    Such a value is far more frequent than its neighbours on the scale of values, which measured ones never are.
    """
    filled = np.zeros(pixels.shape, np.bool_)
    median, scatter = typical(pixels, mask)
    if scatter == 0.0:
        return filled
    lowest, _ = extremes(pixels, mask)
    for value in {lowest, 0.0}:
        exact, near = _frequency(pixels, mask, np.float32(value), np.float32(scatter))
        far = value < median - 8.0 * scatter
        if exact >= 50 and exact > (0.2 if far else 20.0) * near:
            filled |= pixels == value
    return filled


@njit(cache=True, parallel=True)
def _frequency(pixels, mask, value, reach):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """How many good pixels are exactly ``value``, and how many others lie within ``reach`` of it."""
    height, width = pixels.shape
    exact, near = 0, 0
    for y in prange(height):
        equal, close = 0, 0
        for x in range(width):
            if mask[y, x] == 0:
                equal += pixels[y, x] == value
                close += abs(pixels[y, x] - value) <= reach
        exact += equal
        near += close - equal
    return exact, near
