"""How a record becomes the bytes of a message, and comes back: an Avro container, or Confluent framing.

A container has its schema inside. Confluent framing is a zero byte, the schema's number in a registry (four bytes, big
end first) and the bare record; whoever reads has to ask that registry (``stream.schemaregistry``).

Records are written by the newest schema under ``schema/MAJOR/MINOR`` and read into it: what an older program wrote
comes with the defaults of the fields that it did not know, what a newer one wrote without the fields that are not known
here. So a linker and a worker of two versions understand each other, whichever is older.

How it fails at night: bytes that are neither, or whose schema is of another major version, raise one of ``UNREADABLE``.
Equal records give equal bytes: sync markers are derived from the schema, not drawn.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

import fastavro

from stream.messages import CANDIDATES, EXAMINED, LENSES, MERGERS, STREAKS, TRACKS, Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Headers = tuple[tuple[str, bytes], ...]
    Record = Mapping[str, Any]

SCHEMA_VERSION = "1/1"
# Topic (without prefix) -> the schema of its records.
SCHEMAS = {
    STREAKS: "streak",
    CANDIDATES: "streak",
    LENSES: "lens",
    MERGERS: "merger",
    TRACKS: "track",
    EXAMINED: "examined",
}

# Header by which the alert brokers' client (hop-client) knows that a value is an Avro container.
FORMAT_HEADER = ("_format", b"avro")
# How a framed record begins; a container begins with "Obj".
MAGIC = b"\x00"
FRAME_BYTES = 5

# What fastavro, and the functions here, raise against bytes that are no records, or hold something else.
UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, ArithmeticError, RuntimeError),
    *(struct.error, zlib.error, fastavro.schema.SchemaParseException, fastavro.schema.UnknownType),
)


class Framing(Protocol):
    """Makes messages of records."""

    def output(
        self, topic: str, key: bytes, record: Record, headers: Headers = (), partition: int | None = None
    ) -> Output:
        """Give the message with one record for a topic, named without prefix."""


class SchemaOf(Protocol):
    """Gives the parsed schema with a number in a registry."""

    def __call__(self, number: int) -> Any:
        """Raises ``LookupError`` for a number that nobody knows."""


@dataclass(frozen=True)
class Containers:
    """One container a message: ``fastavro.reader`` alone reads it."""

    def output(
        self, topic: str, key: bytes, record: Record, headers: Headers = (), partition: int | None = None
    ) -> Output:
        """Give the message with one record."""
        return Output(topic, key, encode(SCHEMAS[topic], record), (FORMAT_HEADER, *headers), partition)

    def output_list(self, topic: str, key: bytes, records: Sequence[Record], headers: Headers = ()) -> Output:
        """Give one message with several records."""
        return Output(topic, key, encode(SCHEMAS[topic], *records), (FORMAT_HEADER, *headers))


CONTAINERS = Containers()


@dataclass(frozen=True)
class Confluent:
    """Confluent framing; ``numbers`` are those of the topics' schemas in the registry, by topic without prefix."""

    numbers: Mapping[str, int]

    def output(
        self, topic: str, key: bytes, record: Record, headers: Headers = (), partition: int | None = None
    ) -> Output:
        """Give the message with one record; without the header that says container."""
        buffer = io.BytesIO()
        buffer.write(MAGIC + struct.pack(">I", self.numbers[topic]))
        fastavro.schemaless_writer(buffer, _schema(SCHEMAS[topic])[0], record)
        return Output(topic, key, buffer.getvalue(), headers, partition)


def encode(schema_name: str, *records: Record) -> bytes:
    """Give one Avro container with the records and their schema inside."""
    schema, marker = _schema(schema_name)
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, records, sync_marker=marker)
    return buffer.getvalue()


def no_registry(number: int) -> Any:
    """Stand in for a registry where none is set: there is no schema of that number."""
    raise LookupError(f"the message names schema {number} of a schema registry: set schema_registry_url to read it")


def decode(value: bytes, schema_of: SchemaOf = no_registry) -> list[dict[str, Any]]:
    """Give the records of a message in either framing, in the fields of the newest schema of their name."""
    return list(records(value, schema_of))


def records(value: bytes, schema_of: SchemaOf = no_registry) -> Iterator[dict[str, Any]]:
    """Give the records one by one, as ``decode`` does."""
    if value[:1] == MAGIC:
        if len(value) < FRAME_BYTES:
            raise EOFError("the message ends within the number of its schema")
        written = schema_of(int.from_bytes(value[1:FRAME_BYTES], "big"))
        yield fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), written, _reading(written))
        return
    reader = fastavro.reader(io.BytesIO(value))
    reading = _reading(reader.writer_schema)
    yield from reader if reading is None else fastavro.reader(io.BytesIO(value), reader_schema=reading)


def _reading(written: Any) -> Any | None:
    """Give the schema that a record is read into; None where it is as it was written."""
    ours = newest(written)
    return None if ours is None or ours["name"] == written["name"] else ours


def newest(writer_schema: Any) -> Any | None:
    """Give the newest schema of the same name that this program knows; None where the record is none of ours.

    Raises ``ValueError`` for ours of another major version: its fields may have the same names and mean other things.
    """
    space, _, name = str(writer_schema["name"] if isinstance(writer_schema, dict) else writer_schema).rpartition(".")
    major = SCHEMA_VERSION.partition("/")[0]
    if space.startswith("needlestream.v") and not space.startswith(f"needlestream.v{major}_"):
        raise ValueError(f"schema {space}.{name} is of another major version than {major}: read it by its own program")
    return _schema(name)[0] if space.startswith("needlestream.") and name in SCHEMAS.values() else None


def schema_text(name: str) -> str:
    """Give the newest schema of a name as it is published."""
    return resources.files("stream.schema").joinpath(f"{SCHEMA_VERSION}/{name}.avsc").read_text(encoding="utf-8")


@cache
def _schema(name: str) -> tuple[Any, bytes]:
    """Give the parsed schema and the sync marker of its containers: derived, so that equal input gives equal bytes."""
    text = schema_text(name)
    return fastavro.parse_schema(json.loads(text)), hashlib.sha256(text.encode()).digest()[:16]
