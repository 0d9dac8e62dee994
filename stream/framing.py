"""How a record becomes the bytes of a message, and comes back: one Avro container a message, its schema inside.

Records are written by the newest schema under ``schema/MAJOR/MINOR`` and read into it: what an older program wrote
comes with the defaults of the fields that it did not know, what a newer one wrote without the fields that are not known
here. So a linker and a worker of two versions understand each other, whichever is older.

How it fails at night: bytes that are no container, or whose schema is of another major version, raise what fastavro
raises. Equal records give equal bytes: sync markers are derived from the schema, not drawn.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

import fastavro

from stream.messages import CANDIDATES, EXAMINED, STREAKS, TRACKS, Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Headers = tuple[tuple[str, bytes], ...]
    Record = Mapping[str, Any]

SCHEMA_VERSION = "1/1"
# Topic (without prefix) -> the schema of its records.
SCHEMAS = {STREAKS: "streak", CANDIDATES: "streak", TRACKS: "track", EXAMINED: "examined"}

# Header by which the alert brokers' client (hop-client) knows that a value is an Avro container.
FORMAT_HEADER = ("_format", b"avro")


class Framing(Protocol):
    """Makes messages of records."""

    def output(
        self, topic: str, key: bytes, record: Record, headers: Headers = (), partition: int | None = None
    ) -> Output:
        """Give the message with one record for a topic, named without prefix."""


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


def encode(schema_name: str, *records: Record) -> bytes:
    """Give one Avro container with the records and their schema inside."""
    schema, marker = _schema(schema_name)
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, records, sync_marker=marker)
    return buffer.getvalue()


def decode(container: bytes) -> list[dict[str, Any]]:
    """Give the records of an Avro container, in the fields of the newest schema of their name."""
    reader = fastavro.reader(io.BytesIO(container))
    ours = newest(reader.writer_schema)
    if ours is None or ours["name"] == reader.writer_schema["name"]:
        return _records(reader)
    return _records(fastavro.reader(io.BytesIO(container), reader_schema=ours))


def newest(writer_schema: Any) -> Any | None:
    """Give the newest schema of the same name that this program knows; None where the record is none of ours.

    Raises ``ValueError`` for ours of another major version: its fields may have the same names and mean other things.
    """
    space, _, name = str(writer_schema["name"] if isinstance(writer_schema, dict) else writer_schema).rpartition(".")
    major = SCHEMA_VERSION.partition("/")[0]
    if space.startswith("needlestream.v") and not space.startswith(f"needlestream.v{major}_"):
        raise ValueError(f"schema {space}.{name} is of another major version than {major}: read it by its own program")
    return _schema(name)[0] if space.startswith("needlestream.") and name in SCHEMAS.values() else None


def _records(reader: Iterable[Any]) -> list[dict[str, Any]]:
    return list(reader)


@cache
def _schema(name: str) -> tuple[Any, bytes]:
    """Give the parsed schema and the sync marker of its containers: derived, so that equal input gives equal bytes."""
    text = resources.files("stream.schema").joinpath(f"{SCHEMA_VERSION}/{name}.avsc").read_text(encoding="utf-8")
    marker = hashlib.sha256(text.encode()).digest()[:16]
    return fastavro.parse_schema(json.loads(text)), marker
