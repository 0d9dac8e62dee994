"""What a stranger's batch of records holds, whatever it holds: the reader that the Kafka client uses here.

The client's own reader unpacks a compressed batch whole, without a limit (200 kB may hold a gigabyte), keeps every one
of a hundred million headers, and raises on a header's name that is not UTF-8: each of them would stop every worker that
comes to such a message, for good. Here a batch is unpacked piece by piece, one record at a time; a record with a field
that is too large, or one that cannot be unpacked, comes out as ``Unread`` with the reason, and the next one follows.

How it fails at night: it does not. What the broker's disk has damaged is found by the client, by the checksum of the
batch, before anything is read here.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from itertools import count
from typing import TYPE_CHECKING, Any

import cramjam
import lz4.frame
import zstandard
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch

from detector.frame import BadFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PIECE_BYTES = 1 << 16
MAX_HEADERS = 1_000
MAX_HEADERS_BYTES = 1 << 20  # names and values together; a dead letter has to hold them besides its own
# What the libraries raise for bytes that are not theirs.
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    IndexError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    zstandard.ZstdError,
    cramjam.DecompressionError,
)
_limit_bytes = 2**31 - 1


class Unread(bytes):
    """A value that is not, or not all of, what was sent; ``why`` says it."""

    why: BadFrame

    @classmethod
    def because(cls, why: BadFrame, kept: bytes | None = None) -> Unread:
        """Give what was kept of a value, with the reason."""
        value = cls(kept or b"")
        value.why = why
        return value


class HeaderName(str):
    """A name that is not UTF-8: its bytes come out again as they came, also where the client encodes it."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", _: str = "strict") -> bytes:
        """Give the bytes."""
        return super().encode(encoding, "surrogateescape")


class Batch(DefaultRecordBatch):
    """A batch whose records are read with limits."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        """Give the records; those of the broker itself are left to the client."""
        return super().__iter__() if self.is_control_batch else _records(self)


def read_with_limit(max_bytes: int) -> None:
    """Let every consumer of this process read records with limits: no key or value that is unpacked is larger."""
    global _limit_bytes  # noqa: PLW0603 - the client makes the batches, and hands nothing through
    _limit_bytes = max_bytes
    memory_records.DefaultRecordBatch = Batch


def _records(batch: Batch) -> Iterator[DefaultRecord]:
    """Give each record of a batch; once the bytes make no sense, the others as ``Unread``."""
    data = memoryview(batch._buffer)[batch._pos :]  # noqa: SLF001 - the client gives no other way to it
    # What is not packed is here already.
    limit_bytes = _limit_bytes if batch.compression_type else len(data)
    pieces = _Pieces(_unpacked(batch.compression_type, data))
    broken: Exception | None = None
    for number in range(batch.records_count):
        if broken is None:
            try:
                yield _record(batch, pieces, limit_bytes)
                continue
            except _BROKEN as error:
                broken = error
        why = BadFrame("damaged", f"the batch of records cannot be unpacked ({broken}); look at its sender")
        yield _made(batch, 0, 0, number, None, Unread.because(why), [])


def _record(batch: Batch, pieces: _Pieces, limit_bytes: int) -> DefaultRecord:
    """Read one record: length, attributes, time, offset, key, value, headers (Kafka's message format 2)."""
    length = pieces.number()
    end = pieces.taken + length
    pieces.skip(1)
    delay_ms, number = pieces.number(), pieces.number()
    key, key_bytes = pieces.field(limit_bytes)
    value, value_bytes = pieces.field(limit_bytes)
    headers, headers_told = _headers(pieces)
    pieces.skip(end - pieces.taken)
    told = headers_told
    for name, size in (("key", key_bytes), ("value", value_bytes)):
        if size > limit_bytes:
            told = f"the {name} of the message has {size} bytes, packed; the limit is {limit_bytes} (max_message_bytes)"
    if told is not None:
        value = Unread.because(BadFrame("too-large", told), value)
    return _made(batch, length, delay_ms, number, key, value, headers)


def _headers(pieces: _Pieces) -> tuple[list[tuple[str, bytes | None]], str | None]:
    """Give the headers, or none of them and what is wrong when they are too many or too large."""
    number = pieces.number()
    told = f"the message has {number} headers; the limit is {MAX_HEADERS}"
    headers: list[tuple[str, bytes | None]] = []
    if number > MAX_HEADERS:
        return headers, told
    room = MAX_HEADERS_BYTES
    for _ in range(number):
        name, name_bytes = pieces.field(room)
        value, value_bytes = pieces.field(room)
        room -= max(0, name_bytes) + max(0, value_bytes)
        if room < 0:
            return [], f"the headers of the message have more than {MAX_HEADERS_BYTES} bytes"
        headers.append((_name(name or b""), value))
    return headers, None


def _name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return HeaderName(name.decode("utf-8", "surrogateescape"))


def _made(
    batch: Batch,
    length: int,
    delay_ms: int,
    number: int,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
) -> DefaultRecord:
    by_broker = batch.timestamp_type == batch.LOG_APPEND_TIME
    time_ms = batch.max_timestamp if by_broker else batch.first_timestamp + delay_ms
    return DefaultRecord(length, batch.base_offset + number, time_ms, batch.timestamp_type, key, value, headers)


class _Pieces:
    """Bytes that come in pieces, read as Kafka writes them; ``taken`` counts them."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self.pieces = iter(pieces)
        self.piece = memoryview(b"")
        self.taken = 0

    def number(self) -> int:
        """Read a number in zigzag code, seven bits a byte."""
        coded = 0
        for shift in range(0, 70, 7):
            byte = self._some(1)[0]
            coded |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (coded >> 1) ^ -(coded & 1)
        raise ValueError("a number without an end")

    def field(self, max_bytes: int) -> tuple[bytes | None, int]:
        """Read bytes with their length before them; gives None and the length for more than ``max_bytes``.

        The length of a field that is null is -1.
        """
        size = self.number()
        if 0 <= size <= max_bytes:
            return self._read(size), size
        self.skip(max(0, size))
        return None, size

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        if size < 0:
            raise ValueError("a record longer than it says")
        while size > 0:
            size -= len(self._some(size))

    def _read(self, size: int) -> bytes:
        piece = self._some(size) if size else memoryview(b"")
        if len(piece) == size:
            return bytes(piece)
        whole = bytearray(piece)
        while len(whole) < size:
            whole += self._some(size - len(whole))
        return bytes(whole)

    def _some(self, size: int) -> memoryview:
        """Give at least one byte and at most so many."""
        while not self.piece:
            self.piece = memoryview(next(self.pieces, b""))
            if not self.piece:
                raise EOFError("it ends too early")
        some, self.piece = self.piece[:size], self.piece[size:]
        self.taken += len(some)
        return some


def _unpacked(codec: int, data: memoryview) -> Iterator[bytes | memoryview]:
    """Give the bytes of a batch in pieces; what is packed is unpacked no further than it is read."""
    if codec == Batch.CODEC_NONE:
        yield data
    elif codec == Batch.CODEC_SNAPPY:
        yield from _snappy_blocks(data)
    else:
        opened: dict[int, Callable[[], Any]] = {
            Batch.CODEC_GZIP: lambda: gzip.GzipFile(fileobj=io.BytesIO(data)),
            Batch.CODEC_LZ4: lambda: lz4.frame.LZ4FrameFile(io.BytesIO(data)),
            Batch.CODEC_ZSTD: lambda: zstandard.ZstdDecompressor().stream_reader(
                io.BytesIO(data), read_across_frames=True
            ),
        }
        if codec not in opened:
            raise ValueError(f"compression {codec} is not known")
        file = opened[codec]()
        while piece := file.read(PIECE_BYTES):
            yield piece


# How the xerial library, which Java has, begins: its name, two versions; then blocks, each with its length before it.
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_BYTES = 16


def _snappy_blocks(data: memoryview) -> Iterator[bytes]:
    """Give each block, or the only one; librdkafka writes one without xerial's frame around it."""
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        yield _snappy_block(data)
        return
    place = _XERIAL_BYTES
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        yield _snappy_block(data[place + 4 : place + 4 + size])
        place += 4 + size


def _snappy_block(block: memoryview) -> bytes:
    """Give one block; its length unpacked stands in front, as a number of seven bits a byte."""
    size = 0
    for place in count():
        size |= (block[place] & 0x7F) << (7 * place)
        if block[place] < 0x80:
            break
    if size > _limit_bytes + MAX_HEADERS_BYTES:
        raise ValueError(f"a block of {size} bytes is more than a message may have (max_message_bytes)")
    return bytes(cramjam.snappy.decompress_raw(block))
