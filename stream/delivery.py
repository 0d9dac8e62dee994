"""How answers and the offset of the message that they answer become durable.

A worker takes one message, examines it, publishes everything that it says about it and commits its offset last.
``ExactlyOnce`` puts the outputs and the offset into one transaction that carries the group's metadata, so that
the broker refuses a worker that was thought dead; downstream reads ``read_committed``. ``AtLeastOnce`` is for brokers
without transactions: outputs first, each acknowledged by all replicas, then the offset; a crash in between repeats
the message, with the same alert ids.

How it fails at night. A worker that dies in the middle of a transaction leaves it open: who takes over its partitions
cannot be told their offsets until the broker aborts it (``transaction_timeout_s`` and up to ten seconds), and waits
that long. A broker that goes away is waited for until the client's delivery time-out (two minutes) is over; then the
worker leaves, with nothing acknowledged.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Protocol

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from stream.broker import LAST_WORD_S, THOUGHT_DEAD, BrokerError, MessageTooLargeError
from stream.producer import (
    open_transactional_producer,
    producer_options,
    publish,
    transaction_patience_s,
    within,
)
from stream.refusals import cause_of
from stream.source import next_offset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream.messages import Message, Output
    from stream.settings import Settings
    from stream.source import Source


class Delivery(Protocol):
    """How outputs and the offset of the message that they answer become durable."""

    def deliver(self, outputs: Sequence[Output], message: Message) -> None:
        """Return when all outputs are acknowledged and the message's offset is committed."""

    def close(self) -> None:
        """Let go of the broker."""


class AtLeastOnce:
    """Outputs first, acknowledged by all replicas; then the offset. A crash in between repeats the message."""

    def __init__(self, settings: Settings, source: Source) -> None:
        self.settings = settings
        self.source = source
        self.producer = KafkaProducer(**producer_options(settings))

    def deliver(self, outputs: Sequence[Output], message: Message) -> None:
        """Publish, wait, commit."""
        try:
            publish(self.producer, outputs, self.settings)
        except MessageTooLargeError:
            # After a refusal the client's producer has lost count of what it sent; a new one begins anew.
            self.producer.close(timeout=5)
            self.producer = KafkaProducer(**producer_options(self.settings))
            raise
        except (kafka_errors.KafkaError, BrokerError) as error:
            _put_back(self.source, message, error)
            raise
        self.source.consumer.commit(next_offset(message), timeout_ms=60_000)

    def close(self) -> None:
        """Close the producer; nothing is in flight between two messages."""
        self.producer.close(timeout=5)


class ExactlyOnce:
    """Outputs and offset in one transaction, with the group's metadata: all of it is seen downstream, or nothing."""

    def __init__(self, settings: Settings, source: Source) -> None:
        self.settings = settings
        self.source = source
        self.patience_s = transaction_patience_s(settings)
        self.producer = self._producer()

    def deliver(self, outputs: Sequence[Output], message: Message) -> None:
        """Publish and commit in one; on any error of Kafka's abort, so that nothing is left open."""
        self.producer.begin_transaction()
        try:
            publish(self.producer, outputs, self.settings)
        except (kafka_errors.KafkaError, BrokerError) as error:
            self._abort()
            if isinstance(error, MessageTooLargeError):
                # After a refusal the client's producer has lost count of what it sent; a new one begins anew.
                self.producer.close(timeout=5)
                self.producer = self._producer()
            else:
                _put_back(self.source, message, error)
            raise
        try:
            offsets = next_offset(message)
            within(self.patience_s, lambda: self.producer.send_offsets_to_transaction(offsets, self.source.group))
            within(self.patience_s, self.producer.commit_transaction)
        except kafka_errors.KafkaError:
            self._abort()
            raise

    def close(self) -> None:
        """Close the producer; no transaction is open between two messages."""
        self.producer.close(timeout=5)

    def _abort(self) -> None:
        """Abort; fenced or cut off that fails as well, and the coordinator then aborts by its time-out."""
        with contextlib.suppress(kafka_errors.KafkaError):
            within(LAST_WORD_S, self.producer.abort_transaction)

    def _producer(self) -> KafkaProducer:
        """Give a producer whose transactions can begin."""
        # The group's generation fences (KIP-447), so the id only has to be nobody else's.
        transactional_id = f"{self.settings.topic_prefix}{self.settings.group_id}-{uuid.uuid4()}"
        # What is older is aborted by the broker anyway. Two minutes, as by default, are also what the client spends
        # when it sometimes does not find its way back to a broker that was away; a new worker finds it at once.
        delivery_ms = int(self.patience_s * 1000)
        return open_transactional_producer(self.settings, transactional_id, delivery_timeout_ms=delivery_ms)


def _put_back(source: Source, message: Message, error: Exception) -> None:
    """Do not lay it to the message that its answers could not be published; not while a commit may be under way."""
    if not isinstance(cause_of(error), THOUGHT_DEAD):
        source.put_back(message)


DELIVERIES: dict[str, Callable[[Settings, Source], Delivery]] = {
    "exactly-once": ExactlyOnce,
    "at-least-once": AtLeastOnce,
}
