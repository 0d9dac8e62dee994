"""The manifest of a replay: what was sent, in the topic ``frames.sent``, written together with the frames themselves.

A replay has a name, its *run*. Each frame message and the entry that says so are one Kafka transaction; so after any
end, ``kill -9`` too, the topic tells exactly what was sent, and the same run goes on there. The topic is compacted: an
entry is kept for good, until ``Run.forget`` takes it out.

How it fails at night: two replays of one run at one time: the broker fences the first, which says so. With
``delivery = at-least-once`` (for brokers without transactions) frame and entry are two messages one after the other: a
kill in between sends that one frame again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from detector.frame import FrameLabel
from stream.broker import LAST_WORD_S, BrokerError
from stream.logreader import LogReader
from stream.messages import Output
from stream.producer import (
    check_size,
    open_transactional_producer,
    producer_options,
    publish,
    transaction_patience_s,
    within,
)
from stream.topics import create_log_of_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream.settings import Settings

SENT = "frames.sent"
FORGOTTEN_TOGETHER = 1000


@dataclass(frozen=True)
class SentFrame:
    """One frame message: the ``file`` (absolute path) it came from, its HDU where not the whole file went, its frames.

    ``partition`` and ``offset`` say where it lies; -1 before it does.
    """

    file: str
    extension: int | None
    size_bytes: int
    sha256: str
    frames: tuple[FrameLabel, ...]
    partition: int = -1
    offset: int = -1


class SentFrames:
    """What a run has sent, asked by file, by content and by identity; on disk, in a file that goes with the process."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect("", isolation_level=None)
        self.connection.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE sent (file TEXT, extension INTEGER, size INTEGER, sha256 TEXT, frames TEXT, part INTEGER, "
            "place INTEGER, PRIMARY KEY (file, extension)) WITHOUT ROWID;"
            "CREATE INDEX contents ON sent (sha256); CREATE INDEX places ON sent (part, place);"
            "CREATE TABLE identities (identity TEXT PRIMARY KEY, file TEXT) WITHOUT ROWID;"
        )

    def __len__(self) -> int:
        """Count the messages."""
        return int(self.connection.execute("SELECT COUNT(*) FROM sent").fetchone()[0])

    def __iter__(self) -> Iterator[SentFrame]:
        """Give them, by partition and offset."""
        for file, extension, size, sha256, frames, part, place in self.connection.execute(
            "SELECT * FROM sent ORDER BY part, place"
        ):
            yield SentFrame(file, None if extension < 0 else extension, size, sha256, _labels(frames), part, place)

    def add(self, frame: SentFrame) -> None:
        """Take one in."""
        extension = -1 if frame.extension is None else frame.extension
        told = json.dumps([asdict(label) for label in frame.frames])
        row = (frame.file, extension, frame.size_bytes, frame.sha256, told, frame.partition, frame.offset)
        self.connection.execute("INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self.connection.executemany(
            "INSERT OR IGNORE INTO identities VALUES (?, ?)",
            [(label.identity, frame.file) for label in frame.frames if label.identity is not None],
        )

    def remove(self, file: str, extension: int | None) -> None:
        """Take one out: an entry that was forgotten."""
        key = (file, -1 if extension is None else extension)
        self.connection.execute("DELETE FROM sent WHERE file = ? AND extension = ?", key)
        self.connection.execute("DELETE FROM identities WHERE file = ?", key[:1])

    def has(self, file: str, extension: int | None) -> bool:
        """Say whether this very message was sent: a whole file (None), or one HDU of it."""
        key = (file, -1 if extension is None else extension)
        found = self.connection.execute("SELECT 1 FROM sent WHERE file = ? AND extension = ?", key)
        return found.fetchone() is not None

    def same_content(self, sha256: str) -> str | None:
        """Give the file whose bytes these are, if it was sent."""
        row = self.connection.execute("SELECT file FROM sent WHERE sha256 = ? LIMIT 1", (sha256,)).fetchone()
        return row and str(row[0])

    def same_frame(self, frame: FrameLabel) -> str | None:
        """Give the file that this frame was sent from, if it was."""
        row = self.connection.execute("SELECT file FROM identities WHERE identity = ?", (frame.identity,)).fetchone()
        return row and str(row[0])

    def count_from(self, partition: int, offset: int) -> int:
        """Count those that lie in a partition at this offset or behind it."""
        found = self.connection.execute("SELECT COUNT(*) FROM sent WHERE part = ? AND place >= ?", (partition, offset))
        return int(found.fetchone()[0])


class Run:
    """A replay's name, what it has sent, and its way into ``frames``.

    The transactional id is that of the run: whoever comes later ends what an earlier one left open.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.transactional = settings.delivery == "exactly-once"
        create_log_of_keys(settings, SENT)
        self.producer = (
            open_transactional_producer(settings, f"{settings.topic_prefix}{SENT}-{name}")
            if self.transactional
            else KafkaProducer(**producer_options(settings))
        )
        # After the line above no earlier replay of this run can add to it.
        self.sent = sent_before(settings, name)

    def check(self, size_bytes: int, what: str) -> None:
        """Raise ``MessageTooLargeError`` for a frame over the limit, before it is read."""
        check_size(size_bytes, what, self.settings)

    def send(self, frame: Output, entry: SentFrame) -> None:
        """Return when the frame is in its topic and its entry in the manifest: both, or none."""
        with self._transaction():
            ((partition, offset),) = publish(self.producer, [frame], self.settings)
            entry = replace(entry, partition=partition, offset=offset)
            publish(self.producer, [Output(SENT, _key(self.name, entry), _value(entry))], self.settings)
        self.sent.add(entry)

    def forget(self) -> None:
        """Take all entries of the run out of the manifest: its frames will be sent again."""
        entries = iter(self.sent)
        while some := list(itertools.islice(entries, FORGOTTEN_TOGETHER)):
            with self._transaction():
                publish(self.producer, [Output(SENT, _key(self.name, one), None) for one in some], self.settings)
        self.sent = SentFrames()

    def close(self) -> None:
        """Close the producer; no transaction is open between two frames."""
        self.producer.close(timeout=5)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if not self.transactional:
            yield
            return
        self.producer.begin_transaction()
        try:
            yield
            within(transaction_patience_s(self.settings), self.producer.commit_transaction)
        except (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError) as error:
            raise BrokerError(f"another replay of the run {self.name!r} was started, and goes on with it") from error
        except (kafka_errors.KafkaError, BrokerError):
            with contextlib.suppress(kafka_errors.KafkaError):
                within(LAST_WORD_S, self.producer.abort_transaction)
            raise


def sent_before(settings: Settings, run: str) -> SentFrames:
    """Give what the manifest says that a run has sent."""
    sent = SentFrames()
    with contextlib.closing(LogReader(settings, SENT)) as log:
        for message in log:
            whose, file, extension = json.loads(message.key or b"[null, null, null]")
            if whose != run:
                continue
            if message.value:
                sent.add(_entry(file, extension, json.loads(message.value)))
            else:
                sent.remove(file, extension)
    return sent


def _key(run: str, entry: SentFrame) -> bytes:
    return json.dumps([run, entry.file, entry.extension]).encode()


def _value(entry: SentFrame) -> bytes:
    told = {
        "bytes": entry.size_bytes,
        "sha256": entry.sha256,
        "partition": entry.partition,
        "offset": entry.offset,
        "frames": [asdict(label) for label in entry.frames],
    }
    return json.dumps(told, sort_keys=True).encode()


def _entry(file: str, extension: int | None, told: dict[str, Any]) -> SentFrame:
    where = int(told["partition"]), int(told["offset"])
    return SentFrame(file, extension, int(told["bytes"]), told["sha256"], _labels(told["frames"]), *where)


def _labels(told: str | Sequence[dict[str, Any]]) -> tuple[FrameLabel, ...]:
    rows = json.loads(told) if isinstance(told, str) else told
    return tuple(FrameLabel(**{**row, "shape": tuple(row["shape"])}) for row in rows)
