"""The bytes of a FITS file: from memory, from a disk, or out of a gzip that may be a bomb.

A path is read piece by piece, so that a file of 70 CCDs never lies in memory as a whole. A gzip is inflated only as far
as somebody asks, and nobody asks for more than the headers account for: a megabyte that would unfold to gigabytes of
nothing costs the first header. What fails at night: a file that shrinks under us reads as truncated; a missing one is
an ``OSError``, which is no fault of the frame.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from detector.frame import BadFrame

if TYPE_CHECKING:
    from detector.fitsheader import Limits, Source

GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20
_GZIP_WINDOW = 31  # zlib's word for "a gzip header and the largest window"


@dataclass(frozen=True)
class MemorySource:
    """Bytes that are here already."""

    data: bytes

    def read(self, start: int, stop: int) -> memoryview:
        """A view, not a copy."""
        return memoryview(self.data)[start:stop]

    def reaches(self, stop: int) -> bool:
        """Whether there are as many bytes."""
        return stop <= len(self.data)


@dataclass(frozen=True)
class FileSource:
    """A file on a disk, opened for each piece: nothing to close, nothing mapped that could vanish under us."""

    path: Path

    def read(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def reaches(self, stop: int) -> bool:
        """Whether the file is that long now."""
        return stop <= self.path.stat().st_size


@dataclass(frozen=True)
class OpenSource:
    """A file that somebody else has opened, and closes: a claim, of which nobody shall open another one instead."""

    file: BinaryIO

    def read(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``."""
        self.file.seek(start)
        return self.file.read(stop - start)

    def reaches(self, stop: int) -> bool:
        """Whether the file is that long now."""
        return stop <= self.file.seek(0, 2)


class GzipSource:
    """A gzip file (of one member or several), inflated as far as it has been asked for.

    Keeps what it has inflated, at most ``limits.max_decompressed_bytes``. Raises ``BadFrame``: ``too-large`` beyond
    that, ``damaged`` where the stream is no gzip any more, ``truncated`` where it ends too early.
    """

    def __init__(self, packed: Source, limits: Limits) -> None:
        self._packed = packed
        self._limit = limits.max_decompressed_bytes
        self._position = 0
        self._rest = b""
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        self._plain = bytearray()
        self._ended = False

    def read(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop`` of what the gzip holds."""
        self._want(stop)
        return bytes(memoryview(self._plain)[start:stop])

    def reaches(self, stop: int) -> bool:
        """Whether the gzip holds as many bytes; inflates them to know."""
        self._want(stop)
        return stop <= len(self._plain)

    def _want(self, stop: int) -> None:
        if stop > self._limit:
            limit = f"the limit is {self._limit} (max_decompressed_bytes)"
            raise BadFrame("too-large", f"gunzipped, it needs {stop} bytes; {limit}")
        while len(self._plain) < stop and not self._ended:
            self._more()

    def _more(self) -> None:
        """Inflate one more piece."""
        if not self._rest:
            self._rest = bytes(self._packed.read(self._position, self._position + _PIECE))
            self._position += len(self._rest)
            if not self._rest:
                # A gzip that stops in the middle holds no more; whether that was enough is the walker's question.
                self._ended = True
                return
        try:
            self._plain += self._inflate.decompress(self._rest, _PIECE)
        except zlib.error as error:
            raise BadFrame("damaged", f"the gzip stream breaks after {len(self._plain)} bytes: {error}") from error
        self._rest = self._inflate.unconsumed_tail
        if self._inflate.eof:
            self._next_member()

    def _next_member(self) -> None:
        """Go on with the next member, if there is one; anything else behind a gzip is padding."""
        self._rest = self._inflate.unused_data
        if not self._rest:
            self._rest = bytes(self._packed.read(self._position, self._position + _PIECE))
            self._position += len(self._rest)
        self._ended = not self._rest.startswith(GZIP_MAGIC)
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)


def open_source(source: bytes | Path | BinaryIO, limits: Limits) -> Source:
    """The bytes of a file, gunzipped where it begins like a gzip."""
    packed: Source
    if isinstance(source, bytes):
        packed = MemorySource(source)
    else:
        packed = FileSource(source) if isinstance(source, Path) else OpenSource(source)
    return GzipSource(packed, limits) if bytes(packed.read(0, 2)) == GZIP_MAGIC else packed
