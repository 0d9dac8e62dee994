"""FITS headers as plain values, and the outline of a file, read by ourselves before any library sees the data.

It exists because a header is an order to allocate memory: astropy 8.0.2 obeys a negative NAXISn or NAXIS =
2147483647 for ever, and a message from a stream is not to be trusted with that. Here every header block is looked at,
every size is checked against the limits and against the bytes that are really there, and nothing is allocated but the
headers themselves. What fails at night fails as a ``BadFrame`` that names the HDU and the keyword.

Source of the rules: FITS standard 4.0, sections 3, 4.1-4.4 and 10.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from detector.frame import BadFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 2880
CARD = 80
MAX_AXES = 999  # of the standard

Kind = Literal["image", "compressed", "empty", "table", "other"]


class Card(NamedTuple):
    """The value and the comment of one keyword."""

    value: bool | float | str | None  # an int is a float to the type checker
    comment: str


Cards = Mapping[str, Card]


class Source(Protocol):
    """The bytes of a file, wherever they lie."""

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """Bytes ``start`` to ``stop``; fewer where the file ends."""

    def reaches(self, stop: int) -> bool:
        """Whether the file has at least ``stop`` bytes."""


@dataclass(frozen=True)
class Limits:
    """How much of a file is believed, checked before anything is allocated.

    ``max_pixels`` of one HDU; ``max_decompressed_bytes`` of a file after gunzip; ``max_hdus`` of a file;
    ``max_header_bytes`` of all its headers together (32 MB are 400,000 cards, and ten times as much memory).
    """

    max_pixels: int = 400_000_000
    max_decompressed_bytes: int = 2**31
    max_hdus: int = 1000
    max_header_bytes: int = 32_000_000


@dataclass(frozen=True)
class Outline:
    """One HDU, of which only the header has been read.

    ``shape`` is that of the image, slowest axis first, also where the image is compressed; ``data_bytes`` is without
    the fill of the last block. ``trouble`` says why the HDU cannot be used, its neighbours being sound.
    """

    number: int
    kind: Kind
    cards: Cards
    start: int
    data_start: int
    data_bytes: int
    bitpix: int
    shape: tuple[int, ...]
    trouble: BadFrame | None = None

    @property
    def end(self) -> int:
        """Where the next HDU begins."""
        return self.data_start + -(-self.data_bytes // BLOCK) * BLOCK


_TEXT = re.compile(r"'((?:[^']|'')*)'")
_WHOLE = re.compile(r"[+-]?\d{1,40}")
_REAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d{1,4})?")


def parse_value(text: str) -> Card:
    """The value and comment that stand behind a keyword; None where there is no value or it cannot be read."""
    text = text.strip()
    quoted = _TEXT.match(text)
    if quoted:
        return Card(quoted.group(1).replace("''", "'").rstrip(), text[quoted.end() :].partition("/")[2].strip())
    word, _, comment = (part.strip() for part in text.partition("/"))
    if word in {"T", "F"}:
        return Card(word == "T", comment)
    if _WHOLE.fullmatch(word):
        return Card(int(word), comment)
    if _REAL.fullmatch(word):
        return Card(float(word.upper().replace("D", "E")), comment)
    return Card(None, comment)


def parse_cards(header: bytes) -> dict[str, Card]:
    """The keywords of a header, each with its first value; HIERARCH names without that word.

    Never raises: what is not a card is not a keyword.
    """
    cards: dict[str, Card] = {}
    last = ""
    for text in _texts(header):
        keyword, indicator = text[:8].rstrip().upper(), text[8:10]
        if keyword == "CONTINUE" and last:
            cards[last] = _continued(cards[last], text[8:])
            continue
        value = text[10:]
        if keyword == "HIERARCH":
            name, equals, value = text[8:].partition("=")
            keyword, indicator = " ".join(name.upper().split()), "= " if equals else ""
        if indicator[:1] != "=" or not keyword:
            continue
        last = "" if keyword in cards else keyword
        cards.setdefault(keyword, parse_value(value))
    return cards


def _texts(header: bytes) -> Iterator[str]:
    """The cards of a header as text."""
    text = header.decode("latin-1")
    return (text[start : start + CARD] for start in range(0, len(text), CARD))


def _continued(card: Card, text: str) -> Card:
    """A long string with its next piece; unchanged where there is nothing to go on with."""
    more = parse_value(text)
    if isinstance(card.value, str) and card.value.endswith("&") and isinstance(more.value, str):
        return Card(card.value[:-1] + more.value, card.comment or more.comment)
    return card


def number(cards: Cards, *names: str) -> float | None:
    """The first finite number among these keywords; a string that holds a number counts as one."""
    for name in names:
        value = cards[name].value if name in cards else None
        if isinstance(value, str):
            value = parse_value(value.strip()).value if not value.lstrip().startswith("'") else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        try:
            real = float(value)
        except OverflowError:
            continue
        if math.isfinite(real):
            return real
    return None


# What cameras write where they know nothing.
_SAYS_NOTHING = {"", "UNKNOWN", "UNSPECIFIED", "N/A", "NA", "NONE", "NULL", "NOT SET", "-999", "INDEF", "NAN", "XXXXXX"}


def text(cards: Cards, *names: str) -> str | None:
    """The first of these keywords that says something, as text."""
    for name in names:
        value = cards[name].value if name in cards else None
        if value is None or isinstance(value, bool):
            continue
        words = str(value).strip()
        if words.upper() not in _SAYS_NOTHING:
            return words
    return None


def whole(cards: Cards, name: str, default: int | None = None) -> int:
    """A whole number that the structure of the file rests on.

    Raises ``BadFrame`` (``bad-header``) where it is missing or is something else.
    """
    value = cards[name].value if name in cards else default
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadFrame("bad-header", f"{name} is {value!r}, not a whole number: the size of the data is unknown")
    return value


def read_header(source: Source, start: int, most_bytes: int, limits: Limits) -> tuple[bytes, int]:
    """The header that begins at ``start``, up to its END, and where its data begin.

    ``most_bytes`` is what its forerunners have left of the limit. Raises ``BadFrame`` (``truncated``, ``too-large``).
    """
    pieces: list[bytes] = []
    for count in range(most_bytes // BLOCK):
        begin = start + count * BLOCK
        block = bytes(source.read(begin, begin + BLOCK))
        for card in range(0, len(block), CARD):
            if block[card : card + 8].rstrip() == b"END":
                pieces.append(block[:card])
                return b"".join(pieces), begin + BLOCK
        if len(block) < BLOCK:
            raise BadFrame("truncated", f"the file ends at byte {begin + len(block)} inside a header without END")
        pieces.append(block)
    limit = f"the limit of {limits.max_header_bytes} bytes for all of a file (max_header_bytes)"
    raise BadFrame("too-large", f"the headers are larger than {limit}: is an END missing?")


def axes(cards: Cards, prefix: str = "") -> tuple[int, ...]:
    """The lengths of the axes, slowest first; ``prefix`` is Z for those of a compressed image.

    Raises ``BadFrame`` (``bad-header``) for a negative, missing or odd one.
    """
    count = whole(cards, f"{prefix}NAXIS")
    if not 0 <= count <= MAX_AXES:
        raise BadFrame("bad-header", f"{prefix}NAXIS = {count} is not within 0 and {MAX_AXES}")
    lengths = tuple(whole(cards, f"{prefix}NAXIS{axis}") for axis in range(count, 0, -1))
    for axis, length in zip(range(count, 0, -1), lengths, strict=True):
        if length < 0:
            raise BadFrame("bad-header", f"{prefix}NAXIS{axis} = {length} is negative")
    return lengths


def bits(cards: Cards, name: str) -> int:
    """BITPIX or ZBITPIX.

    Raises ``BadFrame`` (``bad-header``) where it is none of the six that exist.
    """
    value = whole(cards, name)
    if value not in {8, 16, 32, 64, -32, -64}:
        raise BadFrame("bad-header", f"{name} = {value} is none of 8, 16, 32, 64, -32, -64")
    return value
