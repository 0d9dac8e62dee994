"""Tile-compressed images (.fz), looked through before a decoder sees them.

The decoders are C and trust what they are given: a descriptor that points outside the heap, an H-compress stream that
announces a larger tile than the header, a gzip tile that unfolds to gigabytes. So the table is read here first; what
does not fit is a ``BadFrame``. What passes is written again as the smallest file that holds it, with none of the
header's other keywords, and that is all that astropy gets to see.

Source: FITS standard 4.0, section 10.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from detector.fitsheader import BLOCK, CARD, text, whole
from detector.frame import BadFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.fitsheader import Cards, Outline

METHODS = {"RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS"}
_GZIPPED = {"GZIP_1", "GZIP_2"}
_GZIP_WINDOW = 31
_PIECE = 1 << 20
_HCOMPRESS_MAGIC = b"\xdd\x99"
_MAX_BIT_PLANES = 62
_TFORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])([LXBIJKAEDCM]?).*")
_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_NUMBERS = re.compile(r"PCOUNT|THEAP|ZBITPIX|ZNAXIS\d?|ZVAL\d|ZDITHER0|ZBLANK|ZSCALE|ZZERO")
_WORDS = re.compile(r"TFORM\d+|ZCMPTYPE|ZNAME\d|ZQUANTIZ")
_NAMES = (
    "COMPRESSED_DATA",
    "GZIP_COMPRESSED_DATA",
    "UNCOMPRESSED_DATA",
    "ZSCALE",
    "ZZERO",
    "ZBLANK",
    "NULL_PIXEL_MASK",
)
_SETTINGS = {"BLOCKSIZE": (16, 32, 64, 128), "BYTEPIX": (1, 2, 4, 8)}
_MAX_COLUMNS = 64


class Column(NamedTuple):
    """One column of the table of tiles: where it lies in a row, and the width of an element in the heap."""

    name: str
    offset: int
    letter: str  # of TFORM
    element_bytes: int


def _columns(cards: Cards) -> list[Column]:
    """The columns of the table; raises ``BadFrame`` where they do not add up to NAXIS1."""
    columns, offset = [], 0
    count = whole(cards, "TFIELDS")
    if not 1 <= count <= _MAX_COLUMNS:
        raise BadFrame("bad-header", f"TFIELDS = {count} in a compressed image")
    for index in range(1, count + 1):
        form = _TFORM.fullmatch((text(cards, f"TFORM{index}") or "").upper())
        if form is None:
            raise BadFrame("bad-header", f"TFORM{index} is missing or odd")
        repeat = min(int(form[1] or 1), 1 << 20)
        width = -(-repeat // 8) if form[2] == "X" else repeat * _WIDTHS[form[2]]
        name = (text(cards, f"TTYPE{index}") or "").upper()
        if name not in _NAMES:
            raise BadFrame("unsupported", f"a compressed image with a column {name!r}; known are {', '.join(_NAMES)}")
        columns.append(Column(name, offset, form[2], _WIDTHS.get(form[3], 1)))
        offset += width
    if offset != whole(cards, "NAXIS1"):
        raise BadFrame("bad-header", f"the columns fill {offset} bytes and NAXIS1 = {whole(cards, 'NAXIS1')}")
    return columns


def tile_shape(cards: Cards, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The tile, slowest axis first and never larger than the image; whole rows where the header is silent."""
    count = len(shape)
    tile = tuple(whole(cards, f"ZTILE{axis}", shape[-1] if axis == 1 else 1) for axis in range(count, 0, -1))
    if min(tile) < 1:
        raise BadFrame("bad-header", f"a tile of {' x '.join(map(str, tile))} pixels")
    return tuple(min(side, length) for side, length in zip(tile, shape, strict=True))


def checked_file(outline: Outline, data: bytes | memoryview) -> bytes:
    """The smallest FITS file that holds this compressed image, after everything in it has been looked at.

    Raises ``BadFrame``: ``unsupported``, ``bad-header``, ``damaged``.
    """
    cards = outline.cards
    method = text(cards, "ZCMPTYPE") or "(missing)"
    if method not in METHODS:
        raise BadFrame("unsupported", f"ZCMPTYPE = {method}; readable are {', '.join(sorted(METHODS))}")
    tile = tile_shape(cards, outline.shape)
    tiles = math.prod(-(-length // side) for length, side in zip(outline.shape, tile, strict=True))
    width, rows = whole(cards, "NAXIS1"), whole(cards, "NAXIS2")
    columns = _columns(cards)
    if whole(cards, "NAXIS") != 2 or whole(cards, "BITPIX") != 8 or rows != tiles:
        raise BadFrame("bad-header", f"the table has {rows} rows of {width} bytes; the image has {tiles} tiles")
    heap_start = whole(cards, "THEAP", width * rows)
    if not width * rows <= heap_start <= outline.data_bytes:
        raise BadFrame("bad-header", f"THEAP = {heap_start} lies outside the data")
    _check_settings(cards)
    _check_streams(columns, data, method, math.prod(tile), tile, (rows, width, heap_start))
    return _write(cards, columns, tile, data)


def _check_settings(cards: Cards) -> None:
    """The numbers that steer the Rice decoder: with a block of no pixels it would not end."""
    for index in range(1, 10):
        setting = (text(cards, f"ZNAME{index}") or "").upper()
        if setting in _SETTINGS and whole(cards, f"ZVAL{index}") not in _SETTINGS[setting]:
            raise BadFrame("bad-header", f"{setting} = {whole(cards, f'ZVAL{index}')} in a compressed image")


def _check_streams(  # the table's geometry comes as (rows, width, start of the heap)
    columns: list[Column],
    data: bytes | memoryview,
    method: str,
    tile_pixels: int,
    tile: tuple[int, ...],
    table: tuple[int, int, int],
) -> None:
    """Look at where every stream lies and at how it begins."""
    rows, width, heap_start = table
    heap = memoryview(data)[heap_start:]
    names = [column.name for column in columns]
    if "COMPRESSED_DATA" not in names:
        raise BadFrame("bad-header", "a compressed image without the column COMPRESSED_DATA")
    cells = np.frombuffer(data, np.uint8, rows * width).reshape(rows, width)
    for column in columns:
        if column.letter not in "PQ":
            continue
        kind = ">i4" if column.letter == "P" else ">i8"
        size = 4 if column.letter == "P" else 8
        pairs = np.ascontiguousarray(cells[:, column.offset : column.offset + 2 * size]).view(kind)
        spans = _spans(pairs.astype(np.int64), column, len(heap))
        gzipped = column.name == "GZIP_COMPRESSED_DATA" or (column.name == "COMPRESSED_DATA" and method in _GZIPPED)
        for start, stop in spans:
            stream = heap[start:stop]
            if gzipped:
                _check_gzip(stream, tile_pixels * 8)
            elif column.name == "COMPRESSED_DATA" and method == "HCOMPRESS_1":
                _check_hcompress(stream, tile)
            elif column.name == "COMPRESSED_DATA" and method == "PLIO_1":
                _check_plio(stream)


def _spans(pairs: NDArray[np.int64], column: Column, heap_bytes: int) -> list[tuple[int, int]]:
    """Where the streams of a column lie in the heap; raises where one does not lie in it."""
    counts, offsets = pairs[:, 0], pairs[:, 1]
    # Compared by division: a product of two 64-bit numbers of a stranger may overflow.
    room = (heap_bytes - offsets) // column.element_bytes
    if (counts < 0).any() or (offsets < 0).any() or (offsets > heap_bytes).any() or (counts > room).any():
        row = int(np.argmax((counts < 0) | (offsets < 0) | (offsets > heap_bytes) | (counts > room)))
        raise BadFrame(
            "damaged", f"the stream of tile {row} ({column.name}) lies outside the heap of {heap_bytes} bytes"
        )
    stops = offsets + counts * column.element_bytes
    return [(int(a), int(b)) for a, b in zip(offsets, stops, strict=True) if b > a]


def _check_gzip(stream: memoryview, limit: int) -> None:
    """Inflate a tile without keeping it, no further than the limit."""
    inflate = zlib.decompressobj(_GZIP_WINDOW)
    plain = 0
    try:
        for start in range(0, len(stream), _PIECE):
            rest: bytes | memoryview = stream[start : start + _PIECE]
            while rest and plain <= limit and not inflate.eof:
                plain += len(inflate.decompress(rest, _PIECE))
                rest = inflate.unconsumed_tail
    except zlib.error as error:
        raise BadFrame("damaged", f"a gzip tile breaks: {error}") from error
    if plain > limit or not inflate.eof:
        raise BadFrame("damaged", f"a gzip tile holds {plain} bytes or more, or breaks off; {limit} fit a tile")


def _check_hcompress(stream: memoryview, tile: tuple[int, ...]) -> None:
    """Magic, size and bit planes of an H-compress stream: the decoder writes as many pixels as the stream says."""
    head = bytes(stream[:25])
    sides = [int.from_bytes(head[start : start + 4], "big", signed=True) for start in (2, 6)]
    largest = sorted((side for side in tile if side != 1), reverse=True)[:2]
    fits = all(side >= 1 for side in sides) and math.prod(sides) <= math.prod(largest or [1])
    if len(head) < 25 or head[:2] != _HCOMPRESS_MAGIC or not fits or max(head[22:25]) > _MAX_BIT_PLANES:
        raise BadFrame("damaged", f"an H-compress tile announces {sides} pixels in a tile of {tile}")


def _check_plio(stream: memoryview) -> None:
    """The length that a PLIO line list announces: the decoder reads as many words as it says."""
    words = np.frombuffer(stream[: len(stream) // 2 * 2], ">i2").astype(np.int64)
    head = words[:7].tolist()
    length = -1 if len(head) < 7 else (head[2] if head[2] > 0 else (head[4] << 15) + head[3])
    first = 4 if len(head) < 7 or head[2] > 0 else head[1] + 1
    if not 0 <= length <= len(words) or first < 1:
        raise BadFrame("damaged", f"a PLIO line list announces {length} words and has {len(words)}")


def _card(name: str, value: object) -> bytes:
    """One card of a header."""
    if isinstance(value, str):
        words = f"'{value.replace(chr(39), ''):<8.60}'"
    elif isinstance(value, bool):
        words = f"{'FT'[value]:>20}"
    else:
        words = f"{value!r:>20}"
    return f"{name:<8}= {words}".encode("ascii", "replace").ljust(CARD)[:CARD]


def _header(cards: list[bytes]) -> bytes:
    """Cards and END, filled up to a block."""
    whole_header = b"".join([*cards, b"END".ljust(CARD)])
    return whole_header.ljust(-(-len(whole_header) // BLOCK) * BLOCK)


def _write(cards: Cards, columns: list[Column], tile: tuple[int, ...], data: bytes | memoryview) -> bytes:
    """A file of an empty primary and this table, of nothing but the keywords that were looked at."""
    primary = [_card("SIMPLE", True), _card("BITPIX", 8), _card("NAXIS", 0), _card("EXTEND", True)]
    kept: dict[str, object] = {"BITPIX": 8, "NAXIS": 2}
    kept |= {name: whole(cards, name) for name in ("NAXIS1", "NAXIS2")}
    kept |= {"PCOUNT": whole(cards, "PCOUNT", 0), "GCOUNT": 1, "TFIELDS": len(columns), "ZIMAGE": True}
    kept |= {f"TTYPE{index}": column.name for index, column in enumerate(columns, 1)}
    kept |= {name: card.value for name, card in cards.items() if _NUMBERS.fullmatch(name) and _is_number(card.value)}
    kept |= {name: words for name in cards if _WORDS.fullmatch(name) and (words := text(cards, name))}
    kept |= {f"ZTILE{axis}": side for axis, side in zip(range(len(tile), 0, -1), tile, strict=True)}
    table = [_card("XTENSION", "BINTABLE"), *(_card(name, value) for name, value in kept.items())]
    fill = b"\0" * (-len(data) % BLOCK)
    return b"".join([_header(primary), _header(table), data, fill])


def _is_number(value: object) -> bool:
    """Whether a card holds a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
