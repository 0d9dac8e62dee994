"""A subscriber: reads topics from their beginnings, in no group, so that it takes nothing away from anybody.

At night it sees what every other subscriber sees: committed records alone where the broker knows transactions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kafka import TopicPartition

from stream.broker import consumer, received

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream.messages import Message
    from stream.settings import Settings


class Subscriber:
    """Reads topics, named without prefix, which must exist; ``Message.topic`` comes without prefix too."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self.settings = settings
        self.consumer = consumer(
            settings,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
        )
        self.consumer.assign([partition for topic in topics for partition in self._partitions(topic)])

    def take(self, timeout_s: float) -> list[Message]:
        """Give what has come; at the latest after this time, then maybe nothing."""
        records = self.consumer.poll(timeout_ms=int(timeout_s * 1000))
        return [
            replace(received(record), topic=record.topic.removeprefix(self.settings.topic_prefix))
            for batch in records.values()
            for record in batch
        ]

    def behind(self) -> bool:
        """Say whether the topics hold more than was taken."""
        ends = self.consumer.end_offsets(list(self.consumer.assignment()))
        return any(self.consumer.position(partition) < end for partition, end in ends.items())

    def count(self, topic: str) -> int:
        """Give the number of messages that a topic ever got, also of one that is not read."""
        return sum(self.consumer.end_offsets(self._partitions(topic)).values())

    def close(self) -> None:
        """Let go of the broker."""
        self.consumer.close()

    def _partitions(self, topic: str) -> list[TopicPartition]:
        name = self.settings.topic(topic)
        return [TopicPartition(name, number) for number in sorted(self.consumer.partitions_for_topic(name) or ())]
