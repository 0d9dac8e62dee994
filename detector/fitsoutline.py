"""The outline of a FITS file: which HDUs it has, how large they are and where they begin.

Only headers are read. One sick HDU does not hide its neighbours: as long as its size is known the walk goes on, and the
outline carries the ``trouble``; where the size is unknown, or the bytes are not there, the walk ends with it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from detector.fitsheader import CARD, Cards, Kind, Limits, Outline, Source, axes, bits, parse_cards, read_header, whole
from detector.frame import BadFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLES = {"TABLE", "BINTABLE", "A3DTABLE"}
# The first bytes of what people send instead of FITS, so that the refusal can say what it is.
_OTHERS = {
    b"BZh": "a bzip2 archive",
    b"PK": "a zip archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "zstandard-compressed",
    b"\x1f\x9d": "compressed by Unix compress",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8": "a JPEG picture",
    b"II*\x00": "a TIFF or camera raw picture",
    b"MM\x00*": "a TIFF picture",
    b"{": "JSON",
    b"<": "XML or HTML",
}


def walk(source: Source, limits: Limits) -> list[Outline]:
    """The HDUs of a file, in order; the last one carries the trouble that ended the walk, if there was any.

    Raises ``BadFrame`` where not even the first header can be read (``not-fits``, ``truncated``, ``too-large``,
    ``bad-header``).
    """
    first = bytes(source.read(0, CARD))
    if not first.startswith(b"SIMPLE  ="):
        raise BadFrame("not-fits", f"the file begins with {first[:16]!r}, not with 'SIMPLE  ='{_guess(first)}")
    return list(_walk(source, limits))


def _guess(first: bytes) -> str:
    """What the file may be instead."""
    if not first:
        return ": it is empty"
    return next((f": it looks like {what}" for magic, what in _OTHERS.items() if first.startswith(magic)), "")


def _walk(source: Source, limits: Limits) -> Iterator[Outline]:
    """The outlines, one after the other."""
    start, headers_bytes = 0, 0
    for index in range(limits.max_hdus + 1):
        begin = bytes(source.read(start, start + 8))
        # Whatever follows the last HDU and is not an extension (fill, special records) is not ours to read.
        if index and begin != b"XTENSION":
            return
        if index == limits.max_hdus:
            trouble = BadFrame(
                "too-large", f"the file has more than {limits.max_hdus} HDUs (max_hdus)", extension=index
            )
            yield Outline(index, "other", {}, start, start, 0, 8, (), trouble)
            return
        outline, sized = _outline(source, limits, index, start, limits.max_header_bytes - headers_bytes)
        headers_bytes += outline.data_start - start
        if outline.trouble is not None and index == 0 and not sized:
            raise outline.trouble
        yield outline
        if not sized:
            return
        start = outline.end


def _outline(source: Source, limits: Limits, index: int, start: int, most_bytes: int) -> tuple[Outline, bool]:
    """One HDU, and whether its size is known and its bytes are there."""
    cards: Cards = {}
    data_start = start
    try:
        header, data_start = read_header(source, start, most_bytes, limits)
        cards = parse_cards(header)
        bitpix, lengths = bits(cards, "BITPIX"), axes(cards)
        size = _data_bytes(cards, bitpix, lengths)
    except BadFrame as bad:
        return Outline(index, "other", cards, start, data_start, 0, 8, (), _at(bad, index)), False
    kind = _kind(cards, index, lengths)
    trouble: BadFrame | None = None
    try:
        if kind == "compressed":
            bitpix, lengths = bits(cards, "ZBITPIX"), axes(cards, "Z")
        if kind in {"image", "compressed"}:
            check_pixels(lengths, limits)
    except BadFrame as bad:
        trouble = _at(bad, index)
    try:
        sized = source.reaches(data_start + size)
    except BadFrame as bad:
        trouble, sized = trouble or _at(bad, index), False
    if not sized and trouble is None:
        want = f"HDU {index} needs {size} bytes of data from byte {data_start} on, and the file ends before"
        trouble = BadFrame("truncated", want, extension=index)
    return Outline(index, kind, cards, start, data_start, size, bitpix, lengths, trouble), sized


def _at(bad: BadFrame, index: int) -> BadFrame:
    """The same refusal, saying which HDU."""
    return BadFrame(bad.reason, f"HDU {index}: {bad.detail}", extension=index)


def check_pixels(lengths: tuple[int, ...], limits: Limits) -> None:
    """Nothing, or ``BadFrame`` (``too-large``) where the axes ask for more pixels than the limit."""
    pixels = math.prod(lengths)
    if lengths and pixels > limits.max_pixels:
        size = " x ".join(str(length) for length in reversed(lengths[-4:]))
        raise BadFrame("too-large", f"{size} pixels are more than the limit of {limits.max_pixels} (max_pixels)")


def _data_bytes(cards: Cards, bitpix: int, lengths: tuple[int, ...]) -> int:
    """The size of the data, without fill (FITS standard, equations 1, 2 and 4)."""
    if not lengths:
        return 0
    # Random groups: NAXIS1 = 0 and the rest counts.
    grouped = lengths[-1] == 0 and "GROUPS" in cards and cards["GROUPS"].value is True
    elements = math.prod(lengths[:-1] if grouped else lengths)
    heap, groups = whole(cards, "PCOUNT", 0), whole(cards, "GCOUNT", 1)
    if heap < 0 or groups < 1:
        raise BadFrame("bad-header", f"PCOUNT = {heap}, GCOUNT = {groups}: no sizes of anything")
    return abs(bitpix) // 8 * groups * (heap + elements)


def _kind(cards: Cards, index: int, lengths: tuple[int, ...]) -> Kind:
    """What an HDU is by its header."""
    name = str(cards["XTENSION"].value).strip().upper() if index and "XTENSION" in cards else "IMAGE"
    if name == "BINTABLE" and "ZIMAGE" in cards and cards["ZIMAGE"].value is True:
        return "compressed"
    if name in _TABLES:
        return "table"
    if name not in {"IMAGE", "IUEIMAGE"} or ("GROUPS" in cards and cards["GROUPS"].value is True):
        return "other"
    return "image" if lengths else "empty"
