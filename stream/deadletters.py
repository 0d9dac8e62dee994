"""Dead letters: what ``frames.rejected`` holds, read back, and sent again after a fix.

A dead letter is the frame message as it came, and behind its own headers those that say why (``messages.dead_letter``).
Sent again, it is the message as it came, with a header that names the dead letter, and the HDU that was meant. What was
sent again is noted in a topic of its own, in the same transaction as the frame; a second run finds it there and leaves
it. Two runs at one time: the broker fences the first, which says so, and nothing of the message in its hand is seen.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from stream.broker import LAST_WORD_S, BrokerError
from stream.logreader import LogReader
from stream.messages import ANSWERS, FRAMES, LEFT_OUT, REJECTED, REPLAY_OF, Output
from stream.producer import open_transactional_producer, producer_options, publish, transaction_patience_s, within
from stream.topics import create_log_of_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream.messages import Message
    from stream.settings import Settings

# What was sent again: key = partition/offset of the dead letter, value = where its frame message lies now.
REPLAYED = "frames.replayed"
BLOCK = ("reason", "detail", "input-topic", "input-partition", "input-offset", "extension", LEFT_OUT, ANSWERS)


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter; what it does not say is empty or None. ``message`` is as it lies in its topic."""

    message: Message
    headers: tuple[tuple[str, bytes], ...]
    reason: str
    detail: str
    topic: str
    partition: int | None
    offset: int | None
    extension: int | None
    answers: int | None
    left_out: str

    @property
    def name(self) -> str:
        """``partition/offset`` in the topic of the dead letters."""
        return f"{self.message.partition}/{self.message.offset}"

    @property
    def origin(self) -> str:
        """The frame message that it was, and the HDU when one of several is meant: ``frames/3/17[2]``."""
        hdu = "" if self.extension is None else f"[{self.extension}]"
        return f"{self.topic}/{self.partition}/{self.offset}{hdu}"

    def frame(self) -> Output:
        """Give the frame message to be sent again: key, value and headers as they came, and where it comes from."""
        headers = [pair for pair in self.headers if pair[0] != REPLAY_OF]
        if self.extension is not None and ("extension", str(self.extension).encode()) not in headers:
            headers.append(("extension", str(self.extension).encode()))
        headers.append((REPLAY_OF, self.message.name.encode()))
        return Output(FRAMES, self.message.key, self.message.value, tuple(headers))


def dead_letter_of(message: Message) -> DeadLetter:
    """Give what a message of ``frames.rejected`` says; the last ``reason`` begins the headers that are ours."""
    begin = max((place for place, (name, _) in enumerate(message.headers) if name == "reason"), default=None)
    own = len(message.headers) if begin is None else begin
    said = {name: value.decode("utf-8", "replace") for name, value in message.headers[own:] if name in BLOCK}
    return DeadLetter(
        message,
        message.headers[:own],
        reason=said.get("reason", ""),
        detail=said.get("detail", ""),
        topic=said.get("input-topic", ""),
        partition=_number(said.get("input-partition")),
        offset=_number(said.get("input-offset")),
        extension=_number(said.get("extension")),
        answers=_number(said.get(ANSWERS)),
        left_out=said.get(LEFT_OUT, "" if message.unread is None else "value"),
    )


def dead_letters(settings: Settings, *, reason: str | None) -> Iterator[DeadLetter]:
    """Give the dead letters that the topic holds now, one in memory at a time; with a ``reason`` only those."""
    with contextlib.closing(LogReader(settings, REJECTED)) as log:
        for message in log:
            letter = dead_letter_of(message)
            if reason is None or letter.reason == reason:
                yield letter


class Replayer:
    """Sends dead letters again, each once, however often it is asked.

    The transactional id is the same for all runs of a prefix: whoever comes later ends what an earlier one left open.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.transactional = settings.delivery == "exactly-once"
        create_log_of_keys(settings, REPLAYED)
        self.producer = (
            open_transactional_producer(settings, f"{settings.topic_prefix}{REPLAYED}")
            if self.transactional
            else KafkaProducer(**producer_options(settings))
        )
        # After the line above no earlier run can add to it.
        with contextlib.closing(LogReader(settings, REPLAYED)) as log:
            self.sent = {message.key for message in log}

    def send(self, letter: DeadLetter) -> bool:
        """Send it again, unless that was done before; says whether it was sent now."""
        key = letter.name.encode()
        if key in self.sent:
            return False
        outputs = [letter.frame(), Output(REPLAYED, key, letter.origin.encode())]
        if self.transactional:
            self._send_together(outputs)
        else:
            publish(self.producer, outputs, self.settings)
        self.sent.add(key)
        return True

    def close(self) -> None:
        """Close the producer; no transaction is open between two letters."""
        self.producer.close(timeout=5)

    def _send_together(self, outputs: list[Output]) -> None:
        self.producer.begin_transaction()
        try:
            publish(self.producer, outputs, self.settings)
            within(transaction_patience_s(self.settings), self.producer.commit_transaction)
        except (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError) as error:
            raise BrokerError("another `rejected --replay` was started after this one, and goes on with it") from error
        except (kafka_errors.KafkaError, BrokerError):
            with contextlib.suppress(kafka_errors.KafkaError):
                within(LAST_WORD_S, self.producer.abort_transaction)
            raise


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
