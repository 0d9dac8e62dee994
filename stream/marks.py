"""Marks of transactions told from messages: what the broker counts as offsets, and nobody has to do.

Each transaction leaves a mark behind its messages that takes an offset. A worker commits what follows its frame, so
of a partition whose frames are all done the last mark lies ahead of the group for ever. The broker has no count without
marks; only who reads sees that there is nothing. That costs a frame where there is one, so only short gaps are looked
into, and the live page, which asks for ever, looks into each gap once, and only when it stands.

How it fails at night: it does not say more than it saw. What cannot be read in time, or lies behind a transaction that
is open, counts as waiting.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from stream.broker import FETCH_BYTES, consumer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kafka import TopicPartition

    from stream.settings import Settings

    Gap = tuple[int, int]  # the first offset that is not done, and the end of the log
    Gaps = Mapping[TopicPartition, Gap]

MOST_MARKS = 3  # offsets in a gap that is looked into: more hold messages, nearly always
PATIENCE_S = 5.0
POLL_MS = 200
STANDS_S = 30.0  # longer than a frame takes


def only_marks(settings: Settings, gaps: Gaps) -> set[TopicPartition]:
    """The partitions in whose gap there is no message. Raises Kafka's errors."""
    unsure = {part: end for part, (done, end) in gaps.items() if 0 < end - done <= MOST_MARKS}
    if not unsure:
        return set()
    empty: set[TopicPartition] = set()
    reader = consumer(
        settings,
        enable_auto_commit=False,
        isolation_level="read_committed",
        allow_auto_create_topics=False,
        fetch_max_bytes=FETCH_BYTES,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    with contextlib.closing(reader):
        reader.assign(list(unsure))
        for part in unsure:
            reader.seek(part, gaps[part][0])
        deadline = time.monotonic() + PATIENCE_S
        while unsure and time.monotonic() < deadline:
            for part in reader.poll(POLL_MS, max_records=1):
                unsure.pop(part, None)
                reader.pause(part)
            read = {part for part, end in unsure.items() if (reader.position(part) or 0) >= end}
            empty |= read
            unsure = {part: end for part, end in unsure.items() if part not in read}
    return empty


class StandingGaps:
    """Gaps as somebody sees them who looks again and again: one is looked into once, when it stands still."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._since: dict[TopicPartition, tuple[Gap, float]] = {}
        self._empty: dict[TopicPartition, bool] = {}

    def only_marks(self, gaps: Gaps, now_s: float) -> set[TopicPartition]:
        """The partitions that are known to hold nothing in their gap. Raises Kafka's errors."""
        self._since = {
            part: held if (held := self._since.get(part)) and held[0] == gap else (gap, now_s)
            for part, gap in gaps.items()
        }
        standing = {part: gap for part, (gap, since_s) in self._since.items() if now_s - since_s >= STANDS_S}
        self._empty = {part: empty for part, empty in self._empty.items() if part in standing}
        asked = {part: gap for part, gap in standing.items() if part not in self._empty}
        found = only_marks(self.settings, asked)
        self._empty |= {part: part in found for part in asked}
        return {part for part, empty in self._empty.items() if empty}
