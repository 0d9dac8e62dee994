"""Stored numbers -> float32 electrons and mask, in one pass over memory.

The stored array is read a few rows at a time: the piece is brought into the machine's byte order while it lies in the
cache, and one kernel scales it, marks what is not finite, blank or saturated, and counts. So a frame costs one read and
one write, and no second copy of it ever exists. The kernels run on one thread and give up Python's lock: the next
frame may be read while this one is searched.

Nothing fails here: what is no number is masked and set to 0, and the counts tell the caller whether anything is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from detector.frame import MaskBit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS_BYTES = 1 << 18  # a piece that stays in the second-level cache
# Squares of pixels have to stay finite in float32, whose end is 3.4e38.
_LARGEST = 1e18
_BAD, _SATURATED, _COSMIC_RAY = int(MaskBit.BAD), int(MaskBit.SATURATED), int(MaskBit.COSMIC_RAY)


class Scaling(NamedTuple):
    """How stored numbers become electrons: ``stored * factor + offset``; ``blank`` is the stored number of no value.

    Pixels of ``saturation_e`` and more are saturated (infinity: never).
    """

    factor: float
    offset: float
    blank: int | None
    saturation_e: float


class Counts(NamedTuple):
    """What the pass saw: pixels with a value, the lowest and highest of them (electrons), and saturated ones."""

    good: int
    lowest: float
    highest: float
    saturated: int


class Bits(NamedTuple):
    """Which bits of an instrument's flags mean what; none at all: any value but 0 is bad."""

    bad: int = 0
    saturated: int = 0
    cosmic_ray: int = 0


@njit(cache=True, nogil=True)
def _convert(stored, factor, offset, blank, saturation, pixels, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Rows of ``stored`` -> ``pixels``, ``mask``; gives good pixels, lowest, highest, saturated."""
    good, saturated = 0, 0
    lowest, highest = np.inf, -np.inf
    for row in range(stored.shape[0]):
        for column in range(stored.shape[1]):
            raw = stored[row, column]
            value = raw * factor + offset
            if not abs(value) <= _LARGEST or raw == blank:
                pixels[row, column] = 0.0
                mask[row, column] = _BAD
                continue
            pixels[row, column] = value
            good += 1
            lowest, highest = min(lowest, value), max(highest, value)
            if value >= saturation:
                mask[row, column] = _SATURATED
                saturated += 1
            else:
                mask[row, column] = 0
    return good, lowest, highest, saturated


def to_electrons(
    stored: NDArray[np.generic], scaling: Scaling
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Counts]:
    """Pixels in electrons, their mask, and what was seen. ``stored`` is [h, w] of any number type and byte order."""
    height, width = stored.shape
    pixels = np.empty((height, width), np.float32)
    mask = np.empty((height, width), np.uint8)
    native = stored.dtype.newbyteorder("=")
    # NaN equals nothing: no pixel of a frame without BLANK is blank. Integers are compared as the doubles that hold
    # them: BLANK in 64 bits beyond 2^53 would be blurred, and no camera has such pixels.
    blank = float("nan") if scaling.blank is None or native.kind == "f" else float(scaling.blank)
    rows = max(1, _ROWS_BYTES // (width * native.itemsize))
    parts = []
    for first in range(0, height, rows):
        part = slice(first, first + rows)
        piece = stored[part].astype(native, copy=False)
        out = pixels[part], mask[part]
        parts.append(_convert(piece, scaling.factor, scaling.offset, blank, scaling.saturation_e, *out))
    good, lowest, highest, saturated = zip(*parts, strict=True)
    return pixels, mask, Counts(sum(good), min(lowest), max(highest), sum(saturated))


@njit(cache=True, nogil=True)
def _mark(flags, offset, any_is_bad, bad, saturated, cosmic_ray, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add to ``mask`` what the instrument's ``flags`` say."""
    for row in range(flags.shape[0]):
        for column in range(flags.shape[1]):
            value = np.int64(flags[row, column]) + offset
            if value == 0:
                continue
            marks = _BAD if any_is_bad or value & bad else 0
            if not any_is_bad and value & saturated:
                marks |= _SATURATED
            if not any_is_bad and value & cosmic_ray:
                marks |= _COSMIC_RAY
            mask[row, column] |= marks


def flagged(mask: NDArray[np.uint8], flags: NDArray[np.generic], offset: int, bits: Bits) -> NDArray[np.uint8]:
    """The mask with what an instrument's own flags [h, w] say (BZERO not yet added: it is ``offset``)."""
    result = mask.copy()
    native = flags.dtype.newbyteorder("=")
    any_is_bad = not any(bits) or native.kind == "f"
    rows = max(1, _ROWS_BYTES // (flags.shape[1] * native.itemsize))
    for first in range(0, flags.shape[0], rows):
        part = slice(first, first + rows)
        piece = flags[part].astype(native, copy=False)
        piece = (piece != 0).astype(np.uint8) if native.kind == "f" else piece
        _mark(piece, offset, any_is_bad, bits.bad, bits.saturated, bits.cosmic_ray, result[part])
    return result
