"""Follows the output topics into the night's memory, in no group, so that it takes nothing away from anybody.

It starts from a bounded past: so many seconds, and of each topic so many messages at most. A broker that goes away is
asked for until it is back, and reading goes on where it was; a topic that ends before that place is another one (the
broker was set up anew), and the night is begun anew. Topics that come later are taken in when they come.

How it fails at night: it does not end. What it cannot do, it says in ``link``, which the page shows.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from stream.broker import FETCH_BYTES, BrokerError, check_reachable, client_options, explained, received
from stream.marks import StandingGaps
from stream.messages import CANDIDATES, EXAMINED, FRAMES, LENSES, MERGERS, REJECTED, STREAKS, TRACKS
from stream.topics import committed_offsets

if TYPE_CHECKING:
    from stream.settings import Settings
    from stream.watching.night import Night

log = structlog.get_logger()

# How many of the last messages of a topic are read at the start. Dead letters carry whole frames, hence few.
MOST = {
    EXAMINED: 20_000,
    STREAKS: 4_000,
    CANDIDATES: 400,
    LENSES: 2_000,
    MERGERS: 2_000,
    TRACKS: 4_000,
    REJECTED: 50,
}
POLL_S = 0.5
LOOK_S = 2.0  # between two looks at the broker and the lag
NEW_TOPICS_S = 5.0


@dataclass(frozen=True)
class Link:
    """How the page stands with the broker; ``since_s`` Unix time of the last change."""

    up: bool
    since_s: float
    why: str = "not asked yet"
    reading: bool = True  # the past is being read
    missing: tuple[str, ...] = ()  # topics that are not there
    capped: tuple[str, ...] = ()  # topics of which older messages of the time asked for were not read


class Follower:
    """Two threads: one reads the topics, one looks after the broker and the lag. ``link`` says how it goes."""

    def __init__(self, settings: Settings, night: Night) -> None:
        self.settings = settings
        self.night = night
        self.link = Link(up=False, since_s=time.time())
        self._positions: dict[TopicPartition, int] = {}
        self._stopping = threading.Event()
        self._back = threading.Event()  # the broker was away: connect anew
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._follow, self._look)]

    def start(self) -> None:
        """Begin to follow."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads, as far as they are not held by a broker that does not answer."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self._back.clear()
            try:
                with explained(self.settings):
                    check_reachable(self.settings)
                    self._read()
            except (BrokerError, OSError) as error:
                self._say(up=False, why=str(error))
            self._stopping.wait(1.0)

    def _read(self) -> None:
        """Read until told to stop, or to connect anew."""
        reader = _Reader(self.settings, self._positions)
        try:
            if reader.begun_anew:
                log.warning("topics begin anew: what was remembered is forgotten")
                self.night.forget()
                self._positions = {}
            looked = time.monotonic()
            self._say(up=True, why="", reading=True, missing=reader.missing, capped=reader.capped)
            while not self._stopping.is_set() and not self._back.is_set():
                self._take(reader)
                if time.monotonic() - looked > NEW_TOPICS_S:
                    if reader.has_new_topics():
                        return  # and connect anew: from where each was read to
                    looked = time.monotonic()
                self._say(up=self.link.up, reading=reader.behind(), missing=reader.missing, capped=reader.capped)
        finally:
            reader.consumer.close()

    def _take(self, reader: _Reader) -> None:
        for batch in reader.consumer.poll(timeout_ms=int(POLL_S * 1000)).values():
            for record in batch:
                message = replace(received(record), topic=record.topic.removeprefix(self.settings.topic_prefix))
                try:
                    self.night.take(message)
                except (ValueError, KeyError, TypeError) as error:
                    log.warning("message passed over", name=message.name, why=str(error))
                self._positions[TopicPartition(record.topic, record.partition)] = record.offset + 1

    # --- looking ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        watcher: KafkaConsumer | None = None
        away = False
        standing = StandingGaps(self.settings)
        while not self._stopping.wait(LOOK_S):
            try:
                with explained(self.settings):
                    check_reachable(self.settings)
                    if away:
                        away = False
                        self._back.set()
                    watcher = watcher or KafkaConsumer(**client_options(self.settings), enable_auto_commit=False)
                    self.night.waiting(time.time(), lag(self.settings, watcher, standing))
            except (BrokerError, OSError) as error:
                away = True
                self._say(up=False, why=str(error))
                self.night.waiting(time.time(), None)
                if watcher is not None:
                    watcher.close()
                watcher = None

    def _say(self, **changes: object) -> None:
        changed = replace(self.link, **changes)  # type: ignore[arg-type]
        if changed == self.link:
            return
        if changed.up != self.link.up:
            changed = replace(changed, since_s=time.time())
            log.info("broker answers" if changed.up else "broker is away", why=changed.why)
        self.link = changed
        self.night.touch()


class _Reader:
    """A consumer of the output topics, each partition where it is to begin."""

    def __init__(self, settings: Settings, positions: dict[TopicPartition, int]) -> None:
        self.settings = settings
        self.consumer = KafkaConsumer(
            **client_options(settings),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        self.ends: dict[TopicPartition, int] = {}
        self.begun_anew = False
        self.missing: tuple[str, ...] = ()
        self.capped: tuple[str, ...] = ()
        self._assign(positions)

    def has_new_topics(self) -> bool:
        """Say whether there are topics or partitions that are not read, or are no more."""
        return {part for parts in self._partitions().values() for part in parts} != set(self.ends)

    def behind(self) -> bool:
        """Say whether what was there at the start is not read yet."""
        return any((self.consumer.position(part, timeout_ms=1000) or 0) < end for part, end in self.ends.items())

    def _partitions(self) -> dict[str, list[TopicPartition]]:
        found: dict[str, list[TopicPartition]] = {}
        for topic in MOST:
            name = self.settings.topic(topic)
            numbers = sorted(self.consumer.partitions_for_topic(name) or ())
            found[topic] = [TopicPartition(name, number) for number in numbers]
        return found

    def _assign(self, positions: dict[TopicPartition, int]) -> None:
        found = self._partitions()
        self.missing = tuple(self.settings.topic(topic) for topic, partitions in found.items() if not partitions)
        every = [partition for partitions in found.values() for partition in partitions]
        starts, ends = self.consumer.beginning_offsets(every), self.consumer.end_offsets(every)
        # A topic that is gone ends at 0.
        self.begun_anew = any(position > ends.get(partition, 0) for partition, position in positions.items())
        if not every:
            return
        if self.begun_anew:
            positions = {}
        self.consumer.assign(every)
        since = self._offsets_since(every, ends)
        for topic, partitions in found.items():
            for partition in partitions:
                most = max(1, MOST[topic] // len(partitions))
                begin = max(starts[partition], since[partition], ends[partition] - most)
                if begin > max(starts[partition], since[partition]):
                    self.capped = tuple(sorted({*self.capped, self.settings.topic(topic)}))
                self.consumer.seek(partition, max(starts[partition], positions.get(partition, begin)))
        self.ends = ends

    def _offsets_since(self, every: list[TopicPartition], ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The first offset of each partition that is not older than the past that is asked for."""
        unix_ms = int((time.time() - self.settings.watch_past_s) * 1000)
        try:
            found = self.consumer.offsets_for_times(dict.fromkeys(every, unix_ms))
        except kafka_errors.UnsupportedVersionError:
            return dict.fromkeys(every, 0)
        return {part: ends[part] if found.get(part) is None else found[part].offset for part in every}


def lag(settings: Settings, watcher: KafkaConsumer, standing: StandingGaps) -> int | None:
    """Give how many frame messages wait for the group; None where there is no topic of frames.

    ``watcher`` is any consumer of no group, ``standing`` knows where there are only the marks of transactions.
    """
    name = settings.topic(FRAMES)
    partitions = [TopicPartition(name, number) for number in sorted(watcher.partitions_for_topic(name) or ())]
    if not partitions:
        return None
    starts, ends = watcher.beginning_offsets(partitions), watcher.end_offsets(partitions)
    done = committed_offsets(settings)
    gaps = {part: (max(starts[part], done.get(part.partition, 0)), ends[part]) for part in partitions}
    marks = standing.only_marks(gaps, time.monotonic())
    return sum(max(0, end - begin) for part, (begin, end) in gaps.items() if part not in marks)
