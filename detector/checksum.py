"""CHECKSUM and DATASUM of an HDU: whether its bytes are still those that were written.

Source: FITS standard 4.0, section 4.4.2.7 and appendix J: the sum of all 32-bit words of an HDU, with carries brought
round, is all ones where the header says CHECKSUM; DATASUM is the same sum over the data alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from detector.frame import BadFrame

if TYPE_CHECKING:
    from detector.fitsheader import Cards, Outline, Source

_ONES = 0xFFFFFFFF
_PIECE = 1 << 20  # bytes; the words of a piece cannot overflow 64 bits, and it stays in the cache


def ones_complement_sum(data: bytes | memoryview, start: int = 0) -> int:
    """The sum of the 32-bit big-endian words, carries brought round; ``data`` is filled with zeros to whole words."""
    total = start
    view = memoryview(data)
    for first in range(0, len(view), _PIECE):
        piece = view[first : first + _PIECE]
        if len(piece) % 4:
            piece = memoryview(bytes(piece) + b"\0" * (-len(piece) % 4))
        total += int(np.frombuffer(piece, ">u4").sum(dtype=np.uint64))
    while total > _ONES:
        total = (total & _ONES) + (total >> 32)
    return total


def borrowed(cards: Cards) -> bool:
    """Whether a compressed image carries the sums of the image it once was, under both names: then they say nothing.

    Some compressors copy them so (seen in DECam files); a true pair differs, since the bytes do.
    """
    pairs = (("DATASUM", "ZDATASUM"), ("CHECKSUM", "ZHECKSUM"))
    return any(name in cards and old in cards and cards[name].value == cards[old].value for name, old in pairs)


def check(outline: Outline, source: Source, data: bytes | memoryview) -> None:
    """Nothing, or ``BadFrame`` (``checksum``) where the header's sums do not fit. ``data`` is without fill.

    The fill is zeros for images and tables alike, so it does not count.
    """
    cards = outline.cards
    stated = str(cards["DATASUM"].value).strip() if "DATASUM" in cards else ""
    has_sum = "CHECKSUM" in cards and bool(str(cards["CHECKSUM"].value or "").strip("0 "))
    if not stated.isascii() or not stated.isdigit():
        stated = ""
    if (not stated and not has_sum) or borrowed(cards):
        return
    found = ones_complement_sum(data)
    if stated and int(stated) % (1 << 32) not in {found, 0 if found == _ONES else found}:
        raise BadFrame("checksum", f"DATASUM is {stated} and the data add up to {found}: the pixels were damaged")
    if has_sum:
        total = ones_complement_sum(source.read(outline.start, outline.data_start), found)
        if total not in {0, _ONES}:
            raise BadFrame("checksum", "CHECKSUM does not fit: the header or the pixels were changed after writing")
