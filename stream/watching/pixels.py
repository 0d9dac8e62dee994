"""The frames behind the alerts: fetched by partition and offset from the topic ``frames``, one at a time.

One frame is held, so that its picture and the cut-outs of its alerts cost one reading. How it fails at night: a frame
that retention has taken, or a claim that this machine may not follow, is a ``NoPixelsError`` with the sentence that the
page shows in the picture's place.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, TopicPartition

from detector.frame import BadFrame
from stream.broker import FETCH_BYTES, BrokerError, client_options, explained, received
from stream.claims import Claims, RootError
from stream.messages import FRAMES, frame_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from detector.frame import Frame
    from stream.messages import Message
    from stream.settings import Settings
    from stream.watching.records import Key

    Read = Callable[..., Any]  # bytes or a file, name, survey, extension -> frames and BadFrames

PATIENCE_S = 20.0


class NoPixelsError(Exception):
    """The pixels of a frame are not to be had; the text says why."""


class FrameShelf:
    """Gives frames by partition, offset and HDU. One thread at a time reads; the others wait."""

    def __init__(self, settings: Settings, read: Read) -> None:
        self.settings = settings
        self._read = read
        self._claims = Claims(settings.claim_roots, settings.max_claim_bytes)
        self._lock = threading.Lock()
        self._consumer: KafkaConsumer | None = None
        self._held: tuple[tuple[Key, int], Frame] | None = None

    def frame(self, key: Key, epoch: int) -> Frame:
        """Give the frame; in another epoch the topic may hold another one there. Raises ``NoPixelsError``."""
        with self._lock:
            if self._held is None or self._held[0] != (key, epoch):
                self._held = None  # no memory for two
                self._held = (key, epoch), self._fetched(key)
            return self._held[1]

    def _fetched(self, key: Key) -> Frame:
        partition, offset, extension = key
        try:
            message = self._message(TopicPartition(self.settings.topic(FRAMES), partition), offset)
            source = frame_source(message, self._claims, max_message_bytes=self.settings.max_message_bytes)
            with contextlib.ExitStack() as cleanup:
                if not isinstance(source, bytes):
                    cleanup.callback(source.close)
                survey = message.header("survey")
                for frame in self._read(source, name=message.name, survey=survey, extension=extension):
                    if isinstance(frame, BadFrame):
                        raise frame
                    return frame
        except BadFrame as bad:
            raise NoPixelsError(f"{bad.reason}: {bad.detail}") from None
        except (BrokerError, RootError, OSError) as error:
            raise NoPixelsError(str(error)) from None
        raise NoPixelsError(f"the message has no image in HDU {extension}")

    def _message(self, where: TopicPartition, offset: int) -> Message:
        try:
            with explained(self.settings):
                return self._polled(where, offset)
        except BrokerError:
            if self._consumer is not None:
                self._consumer.close()
            self._consumer = None
            raise

    def _polled(self, where: TopicPartition, offset: int) -> Message:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                **client_options(self.settings) | {"request_timeout_ms": int(PATIENCE_S * 1000)},
                enable_auto_commit=False,
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=FETCH_BYTES,
            )
        consumer = self._consumer
        if where.partition not in (consumer.partitions_for_topic(where.topic) or ()):
            raise NoPixelsError(f"{where.topic} has no partition {where.partition}")
        start, end = consumer.beginning_offsets([where])[where], consumer.end_offsets([where])[where]
        if not start <= offset < end:
            raise NoPixelsError(f"the frame is no longer in {where.topic} (retention), or not yet")
        consumer.assign([where])
        consumer.seek(where, offset)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for records in consumer.poll(500, max_records=1).values():
                if records[0].offset != offset:
                    raise NoPixelsError(f"the frame is no longer in {where.topic} (retention)")
                return received(records[0])
        raise BrokerError(f"{where.topic} did not give the frame in {PATIENCE_S:g} s")
