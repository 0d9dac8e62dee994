"""What sends: producers that neither lose nor repeat, their transactions, and the feed of frames."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from stream.broker import UNLIMITED_BYTES, BrokerError, MessageTooLargeError, client_options
from stream.refusals import cause_of, missing_right

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream.messages import Output
    from stream.settings import Settings


def producer_options(settings: Settings) -> dict[str, Any]:
    """Give the options of a producer that neither loses nor repeats what one session sends."""
    return client_options(settings) | {
        "acks": "all",
        "enable_idempotence": True,
        "max_request_size": UNLIMITED_BYTES,
        "allow_auto_create_topics": False,
    }


def open_transactional_producer(settings: Settings, transactional_id: str, **options: Any) -> KafkaProducer:
    """Give a producer whose transactions can begin; where they cannot it is closed, threads and connections with it.

    What an earlier one of the same id left open is ended, and that one is fenced.
    """
    producer = KafkaProducer(
        **producer_options(settings),
        transactional_id=transactional_id,
        transaction_timeout_ms=int(settings.transaction_timeout_s * 1000),
        **options,
    )
    with contextlib.ExitStack() as undone:
        undone.callback(producer.close, timeout=0)
        producer.init_transactions()
        undone.pop_all()
    return producer


def transaction_patience_s(settings: Settings) -> float:
    """Give how long a step of a transaction may take; later the broker has aborted it anyway."""
    return max(settings.transaction_timeout_s, settings.request_timeout_s) + 1


def within(patience_s: float, step: Callable[[], object]) -> None:
    """Do a step that the client itself might wait for without an end; ``KafkaTimeoutError`` when it takes longer.

    It then goes on in its own thread, which ends with the process: whoever gets this error has to leave.
    """
    failures: list[Exception] = []
    ended = threading.Event()

    def work() -> None:
        try:
            step()
            ended.set()
        except kafka_errors.KafkaError as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(patience_s)
    if failures:
        raise failures[0]
    if not ended.is_set():
        raise kafka_errors.KafkaTimeoutError(f"no end to a step of a transaction in {patience_s:g} s")


class Feed:
    """Sends frame messages and waits for each to be acknowledged by all replicas: what replay writes to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.producer = KafkaProducer(**producer_options(settings))

    def check(self, size_bytes: int, what: str) -> None:
        """Raise ``MessageTooLargeError`` for a frame over the limit."""
        check_size(size_bytes, what, self.settings)

    def send(self, frame: Output) -> None:
        """Return when the frame is in its topic. Raises ``MessageTooLargeError``."""
        self.check(len(frame.value or b""), dict(frame.headers).get("name", b"the frame").decode())
        publish(self.producer, [frame], self.settings)

    def close(self) -> None:
        """Close the producer; nothing is in flight between two frames."""
        self.producer.close(timeout=5)


def check_size(size_bytes: int, what: str, settings: Settings) -> None:
    """Raise ``MessageTooLargeError`` for a frame over the limit."""
    if size_bytes > settings.max_message_bytes:
        raise MessageTooLargeError(
            f"{what} has {size_bytes:,} bytes, the limit is max_message_bytes = {settings.max_message_bytes:,}: raise "
            "it here and on the topic (max.message.bytes), or send a claim check (header 'uri')"
        )


def publish(producer: KafkaProducer, outputs: Sequence[Output], settings: Settings) -> list[tuple[int, int]]:
    """Send all, then wait for every acknowledgement; gives the partition and offset of each.

    Raises ``MessageTooLargeError`` with the size that was refused.
    """
    try:
        return _places(_sent(producer, outputs, settings), settings)
    except kafka_errors.KafkaError as error:
        refused = cause_of(error)
        if not isinstance(refused, kafka_errors.TopicAuthorizationFailedError):
            raise
        raise BrokerError(f"{settings.bootstrap_servers}: {missing_right(refused, settings, 'Write')}") from error


def _sent(producer: KafkaProducer, outputs: Sequence[Output], settings: Settings) -> list[tuple[Output, Any]]:
    """Give each message with the future of its place."""
    sent = []
    for output in outputs:
        # The client refuses a message with neither key nor value; with an empty key a tombstone stays a tombstone.
        key = b"" if output.key is None and output.value is None else output.key
        future = producer.send(
            settings.topic(output.topic),
            output.value,
            key=key,
            headers=list(output.headers),
            partition=output.partition,
        )
        sent.append((output, future))
    return sent


def _places(sent: Sequence[tuple[Output, Any]], settings: Settings) -> list[tuple[int, int]]:
    """Give the partition and offset of each message, when all are acknowledged."""
    places: list[tuple[int, int]] = []
    for output, future in sent:
        try:
            place = future.get(timeout=150)  # longer than the client's own delivery time-out, which tells more
        except (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError):
            raise MessageTooLargeError(
                f"{settings.bootstrap_servers} refused a message of {len(output.value or b''):,} bytes for "
                f"{settings.topic(output.topic)}: raise that topic's max.message.bytes (`needlestream topics` shows it)"
            ) from None
        places.append((int(place.partition), int(place.offset)))
    return places
