"""A topic read from its first message to what is its last one now, each committed message once.

The end is that of the log itself, not of what is committed so far: a message behind another worker's open transaction
is waited for until that one is over. At night a transaction that nobody ends (the broker does, after its time-out) is
an error that names the topic, after as long as the settings allow.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kafka import TopicPartition

from stream.broker import ABORT_S, FETCH_BYTES, BrokerError, consumer, received

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream.messages import Message
    from stream.settings import Settings

TOGETHER = 500  # small messages taken from the client at once
POLL_MS = 500
NEVER_MS = 2**63 - 1


class LogReader:
    """Reads one topic, named without prefix; one that does not exist is empty. Large messages come one by one.

    ``starts`` and ``ends`` are the log's own offsets by partition, as they were at the beginning.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = settings.topic(topic)
        self.consumer = consumer(
            settings,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        numbers = sorted(self.consumer.partitions_for_topic(self.topic) or ())
        self.exists = bool(numbers)
        self.partitions = [TopicPartition(self.topic, number) for number in numbers]
        self.consumer.assign(self.partitions)
        self.starts = self.consumer.beginning_offsets(self.partitions) if numbers else {}
        self.ends = _log_ends(settings, self.partitions) if numbers else {}
        self.patience_s = settings.transaction_timeout_s + 2 * ABORT_S + settings.request_timeout_s
        # Time stamps of the first messages of partitions that retention has cut.
        self.first_ms: dict[int, int] = {}

    @property
    def horizon_ms(self) -> int:
        """After reading: nothing older than this is sure to be there still (0: retention has taken nothing away)."""
        cut = [partition.partition for partition, start in self.starts.items() if start > 0]
        return max((self.first_ms.get(partition, NEVER_MS) for partition in cut), default=0)

    def __iter__(self) -> Iterator[Message]:
        """Give every committed message that the topic held when it was opened, partitions interleaved."""
        before: list[int] = []
        moved = time.monotonic()
        while self._behind():
            at = [self._position(partition) for partition in self.partitions]
            if at != before:
                before, moved = at, time.monotonic()
            elif time.monotonic() - moved > self.patience_s:
                raise BrokerError(
                    f"{self.topic} could not be read to its end in {self.patience_s:g} s: the broker is away, or a "
                    "transaction is open for longer than transaction_timeout_s"
                )
            yield from self._taken()

    def message_at(self, partition: int, offset: int) -> Message | None:
        """Give the first committed message at this offset or behind it; None when there is none."""
        where = TopicPartition(self.topic, partition)
        if self._position(where) != offset:
            self.consumer.seek(where, offset)
        others = [other for other in self.partitions if other != where]
        self.consumer.pause(*others)
        try:
            deadline = time.monotonic() + self.patience_s
            while self._position(where) < self._end(where):
                for records in self.consumer.poll(POLL_MS, max_records=1).values():
                    return received(records[0])
                if time.monotonic() > deadline:
                    raise BrokerError(f"{self.topic}/{partition}/{offset} could not be read in {self.patience_s:g} s")
            return None
        finally:
            self.consumer.resume(*others)

    def first_offsets_since(self, unix_ms: int) -> dict[int, int]:
        """Give for each partition the first offset whose message is not older; the end where there is none."""
        found = self.consumer.offsets_for_times(dict.fromkeys(self.partitions, unix_ms))
        return {
            partition.partition: self.ends[partition] if at is None else at.offset for partition, at in found.items()
        }

    def close(self) -> None:
        """Let go of the broker."""
        self.consumer.close()

    def _taken(self) -> Iterator[Message]:
        for partition, records in self.consumer.poll(POLL_MS, max_records=TOGETHER).items():
            for record in records:
                if self.starts[partition] > 0:
                    self.first_ms.setdefault(partition.partition, record.timestamp)
                if record.offset < self.ends[partition]:
                    yield received(record)

    def _behind(self) -> bool:
        return any(self._position(partition) < self._end(partition) for partition in self.partitions)

    def _position(self, partition: TopicPartition) -> int:
        return int(self.consumer.position(partition))

    def _end(self, partition: TopicPartition) -> int:
        return int(self.ends[partition])


def _log_ends(settings: Settings, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Give the ends of the logs, open transactions included."""
    everything = consumer(settings, isolation_level="read_uncommitted", enable_auto_commit=False)
    try:
        return dict(everything.end_offsets(partitions))
    finally:
        everything.close()
