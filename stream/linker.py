"""The linker: streaks and candidates of a field in, tracks out, and nothing kept that the log does not have.

It reads ``streaks`` and ``candidates``, gathers the sightings of each open field in memory, links a field when it has
rested, and publishes what is new about its tracks. Tracks and offsets are one transaction; the offsets' metadata say
from where the log has to be read again to have the open fields back, and since when their tracks are in ``tracks``.
Whenever the group's generation changes (a start, a crash, another linker) everything is forgotten and read again: first
the tracks that were published, so that none is published twice, then the streaks of the fields that were open.

How it fails at night: a message that holds no streaks is counted, logged and passed over. Everything else stops the
process with nothing acknowledged that was not published. SIGTERM ends it at once and in order: what is not linked yet
is read again by the next.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
import uuid
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import structlog
from kafka import KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import MemberState, OffsetAndMetadata

from stream.broker import ABORT_S, SETTLE_S, BrokerError, check_reachable, consumer, explained
from stream.fields import Fields, UnreadableError
from stream.framing import decode
from stream.messages import CANDIDATES, STREAKS, TRACKS, Message, Output, mjd_tai
from stream.metrics import LinkerMetrics, serve_metrics
from stream.producer import open_transactional_producer, producer_options, publish
from stream.schemaregistry import wire
from stream.signals import Departure, stop_signals
from stream.topics import create_missing_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from kafka.structs import ConsumerGroupMetadata

    from detector.linking import Scorer
    from stream.framing import SchemaOf
    from stream.known import KnownTable
    from stream.settings import Settings

log = structlog.get_logger()

POLL_S = 0.5
AT_ONCE = 500  # messages; a list of candidates may have some megabytes
FETCH_BYTES = 8 << 20
# Offsets alone (nothing to publish) are committed no more often than this.
COMMIT_S = 5.0


def linker_group(settings: Settings) -> str:
    """Give the linkers' consumer group: the workers' with a word more."""
    return f"{settings.group_id}-linker"


def run_linker(
    settings: Settings, scorer: Scorer, *, idle_timeout_s: float | None, known: KnownTable | None = None
) -> int:
    """Join the group and link until SIGTERM, SIGINT, or nothing came for so long; gives the number of tracks published.

    Raises ``BrokerError``.
    """
    metrics = LinkerMetrics()
    metrics.registry.show_build("linker", metadata.version("needlestream"), {})
    serve_metrics(metrics, settings)
    with explained(settings), contextlib.ExitStack() as cleanup:
        signals = cleanup.enter_context(stop_signals())
        departure = cleanup.enter_context(Departure(signals))
        check_reachable(settings)
        for topic in create_missing_topics(settings):
            log.info("topic created", topic=topic)
        linker = Linker(
            settings, scorer, metrics, stopping=lambda: bool(signals), working=departure.working, known=known
        )
        with contextlib.closing(linker):
            log.info("linker started", group=linker_group(settings), delivery=settings.delivery)
            linker.serve(idle_timeout_s)
    log.info("linker stopped", tracks=linker.published, signals=[signal.Signals(number).name for number in signals])
    return linker.published


@dataclass(frozen=True)
class Marks:
    """What a committed offset's metadata say: where its open fields and their tracks begin, and how late it was."""

    open_from: int
    tracks_from: int
    clock_ms: float

    def text(self) -> str:
        """Give them as the broker keeps them."""
        return json.dumps({"open": self.open_from, "tracks": self.tracks_from, "clock": self.clock_ms})

    @classmethod
    def read(cls, committed: OffsetAndMetadata) -> Marks | None:
        """Give those of a committed offset; None where there are none: some brokers do not keep them."""
        try:
            told = json.loads(committed.metadata)
            return cls(int(told["open"]), int(told["tracks"]), float(told["clock"]))
        except (ValueError, TypeError, KeyError):
            return None


# Where nothing is known, everything that the log holds may be of an open field.
NO_MARKS = Marks(0, 0, 0.0)


class Partition:
    """What a linker knows of one partition: its fields, how far its topics were read, where its tracks end."""

    def __init__(self, number: int, timeout_s: float, schema_of: SchemaOf) -> None:
        self.number = number
        self.fields = Fields(timeout_s, schema_of)
        self.read_ms: dict[str, float] = {}  # stamp of the last message of each topic
        self.behind: dict[str, int] = {}  # offset up to which a topic is read again
        self.clock_ms = 0.0  # of the commit that is read again
        self.tracks_end = 0
        self.uncommitted = False

    @property
    def rebuilt(self) -> bool:
        """Whether all is back that the last commit knew."""
        return not self.behind


class Linker:
    """A member of the linkers' group; ``stopping`` says when to end, ``clock`` gives Unix time.

    It is ``working`` while it depends on no broker.
    """

    def __init__(
        self,
        settings: Settings,
        scorer: Scorer,
        metrics: LinkerMetrics,
        *,
        stopping: Callable[[], bool],
        working: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        clock: Callable[[], float] = time.time,
        known: KnownTable | None = None,
    ) -> None:
        self.settings = settings
        self.scorer = scorer
        self.metrics = metrics
        self.stopping = stopping
        self.working = working
        self.clock = clock
        self.known = known
        self.framing, self.schema_of = wire(settings)
        self.published = 0
        self.partitions: dict[int, Partition] = {}
        self.sources: list[TopicPartition] = []
        self.committed_s = time.monotonic()
        session_ms = int(settings.session_timeout_s * 1000)
        self.consumer = consumer(
            settings,
            group_id=linker_group(settings),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            # The same partitions of both topics: by ranges, and both have the same number (``_check_topics``).
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(200, session_ms // 4),
            max_poll_interval_ms=int(settings.max_poll_interval_s * 1000),
            max_poll_records=AT_ONCE,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
            allow_auto_create_topics=False,
        )
        self.exactly_once = settings.delivery == "exactly-once"
        with contextlib.ExitStack() as undone:
            undone.callback(self.consumer.close, autocommit=False, timeout_ms=1000)
            self._check_topics()
            self.producer = (
                open_transactional_producer(settings, f"{settings.topic_prefix}{linker_group(settings)}-{uuid.uuid4()}")
                if self.exactly_once
                else KafkaProducer(**producer_options(settings))
            )
            undone.pop_all()
        self.consumer.subscribe([settings.topic(STREAKS), settings.topic(CANDIDATES)])
        self.group: ConsumerGroupMetadata = self.consumer.group_metadata()

    def serve(self, idle_timeout_s: float | None) -> None:
        """Link until told to stop, or until nothing came for so long; then what has changed is linked first."""
        quiet_since = time.monotonic()
        while not self.stopping():
            self.metrics.pulse.beat()
            if self.take():
                quiet_since = time.monotonic()
            self.work()
            rebuilt = self._settled() and all(one.rebuilt for one in self.partitions.values())
            if idle_timeout_s is not None and rebuilt and time.monotonic() - quiet_since >= idle_timeout_s:
                self.work(finish=True)
                return

    def take(self) -> bool:
        """Take in what came; says whether anything did, be it other partitions."""
        batches = self.consumer.poll(timeout_ms=int(POLL_S * 1000))
        group = self.consumer.group_metadata()
        if group.state is not MemberState.STABLE:
            return True  # the generation comes before the partitions; what was fetched is read again
        if group.generation_id != self.group.generation_id or not self._settled():
            self._rebuild(group)
            return True
        for source, batch in batches.items():
            for record in batch:
                self._add(source, record)
        for source in self.sources:
            mine = self.partitions[source.partition]
            # Where the log was cut off in between, the position is what tells that all is read.
            if mine.behind and (self.consumer.position(source) or 0) >= mine.behind.get(source.topic, 0):
                mine.behind.pop(source.topic, None)
                if mine.rebuilt:
                    self._rebuilt(mine)
        return bool(batches)

    def work(self, *, finish: bool = False) -> None:
        """Link what is due, publish and commit it, forget what is over; ``finish``: link all that has changed."""
        if not self._settled():
            return
        outputs: list[Output] = []
        clocks = self._clocks()
        changed = []
        for mine in self.partitions.values():
            now_ms = clocks[mine.number]
            if not mine.rebuilt:
                continue
            if finish or mine.fields.due(now_ms, self.settings.link_after_s):
                outputs += self._linked(mine)
                changed.append(mine)
            if mine.fields.close(now_ms):
                mine.uncommitted = True
        if changed or self._offsets_are_due():
            ready = [one for one in self.partitions.values() if one in changed or self._only_offsets(one)]
            self._deliver(outputs, ready, clocks)
        self.metrics.show(open_fields=sum(1 for mine in self.partitions.values() for _ in mine.fields))

    def close(self) -> None:
        """Leave the group and let go of the broker; no transaction is open here."""
        self.consumer.close(autocommit=False, timeout_ms=5000)
        self.producer.close(timeout=5)

    def _settled(self) -> bool:
        """Whether what is known here is of the partitions that are this linker's now; in a rebalance it is not."""
        return self.group.generation_id >= 0 and set(self.sources) == self.consumer.assignment()

    # --- in

    def _add(self, source: TopicPartition, record: Any) -> None:
        """Take one record into its field."""
        mine = self.partitions[source.partition]
        headers = tuple((name, bytes(value or b"")) for name, value in record.headers or ())
        message = Message(
            source.topic, source.partition, record.offset, record.key, record.value, headers, record.timestamp
        )
        again = record.offset < mine.behind.get(source.topic, 0)
        mine.read_ms[source.topic] = max(mine.read_ms.get(source.topic, 0.0), float(record.timestamp))
        try:
            count = mine.fields.add(message, mine.tracks_end, again=again)
        except UnreadableError as error:
            count = 0
            if not again:
                self.metrics.unreadable.inc()
                log.warning("no streaks in a message", name=message.name, detail=str(error))
        if not again:
            self.metrics.sightings.inc(count)
            mine.uncommitted = True

    def _clocks(self) -> dict[int, float]:
        """Give for each partition how late it is: now where all is read, else the stamp of what was read last."""
        ends = self.consumer.end_offsets(self.sources) if self.sources else {}
        late: dict[int, list[float]] = {number: [] for number in self.partitions}
        for source in self.sources:
            read_to = self.consumer.position(source) or 0
            stamp = self.partitions[source.partition].read_ms.get(source.topic, 0.0)
            late[source.partition].append(self.clock() * 1000.0 if read_to >= ends[source] else stamp)
            self.metrics.show_lag(source.topic, source.partition, max(0, ends[source] - read_to))
        return {number: min(stamps, default=0.0) for number, stamps in late.items()}

    # --- out

    def _linked(self, mine: Partition) -> list[Output]:
        """Link the fields of a partition that changed; gives what is to be published."""
        with self.metrics.link_seconds.time(), self.working():
            linked = mine.fields.linked(self.scorer, mjd_tai(self.clock()))
            keys, records = [key for key, _ in linked], [record for _, record in linked]
            if self.known is not None:
                records = self.known.marked(records)
        mine.uncommitted = True
        return [
            self.framing.output(TRACKS, key.encode(), record, partition=mine.number)
            for key, record in zip(keys, records, strict=True)
        ]

    def _only_offsets(self, mine: Partition) -> bool:
        """Whether a partition has something to commit and nothing that waits to be linked."""
        return mine.rebuilt and mine.uncommitted and all(one.changed_ms is None for one in mine.fields)

    def _offsets_are_due(self) -> bool:
        waits = any(self._only_offsets(one) for one in self.partitions.values())
        return waits and time.monotonic() - self.committed_s > COMMIT_S

    def _deliver(self, outputs: list[Output], ready: list[Partition], clocks: Mapping[int, float]) -> None:
        """Publish tracks and commit the offsets of the partitions that are ``ready``, in one transaction."""
        offsets = {}
        for source in self.sources:
            mine = self.partitions[source.partition]
            if mine in ready:
                position = self.consumer.position(source) or 0
                marks = self._marks(mine, source.topic, position, clocks[mine.number])
                offsets[source] = OffsetAndMetadata(position, marks.text(), -1)
        if not self.exactly_once:
            publish(self.producer, outputs, self.settings)
            self.consumer.commit(offsets, timeout_ms=60_000)
        else:
            self.producer.begin_transaction()
            try:
                publish(self.producer, outputs, self.settings)
                self.producer.send_offsets_to_transaction(offsets, self.group)
                self.producer.commit_transaction()
            except (kafka_errors.KafkaError, BrokerError):
                # Fenced or cut off, the abort fails as well: the coordinator then aborts by its time-out.
                with contextlib.suppress(kafka_errors.KafkaError):
                    self.producer.abort_transaction()
                raise
        self.committed_s = time.monotonic()
        for mine in ready:
            mine.uncommitted = False
            mine.tracks_end += sum(output.partition == mine.number for output in outputs)
        self._report(outputs)

    def _marks(self, mine: Partition, topic: str, position: int, clock_ms: float) -> Marks:
        fields = list(mine.fields)
        return Marks(
            min([position, *(one.first_offsets[topic] for one in fields if topic in one.first_offsets)]),
            min([mine.tracks_end, *(one.tracks_from for one in fields)]),
            clock_ms,
        )

    def _report(self, outputs: list[Output]) -> None:
        for output in outputs:
            (record,) = decode(output.value or b"", self.schema_of)
            kind = "withdrawn" if record["withdrawn"] else "new" if record["version"] == 1 else "again"
            self.metrics.tracks.labels(kind).inc()
            self.published += 1
            log.info(
                "track published",
                track=record["trackId"],
                version=record["version"],
                sightings=record["nSightings"],
                field=record["field"],
            )

    # --- what the log has

    def _check_topics(self) -> None:
        """Raise ``BrokerError`` where a field's streaks, candidates and tracks would lie in different partitions."""
        names = [self.settings.topic(name) for name in (STREAKS, CANDIDATES, TRACKS)]
        counts = {name: len(self.consumer.partitions_for_topic(name) or ()) for name in names}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise BrokerError(f"these topics must have the same number of partitions: {told}")

    def _rebuild(self, group: ConsumerGroupMetadata) -> None:
        """Forget everything, and set out to read the open fields of the assigned partitions again."""
        self.partitions, self.sources = {}, []
        self.metrics.forget_lag()
        marks: dict[int, list[Marks]] = {}
        sources = sorted(self.consumer.assignment())
        for source in sources:
            mine = self.partitions.setdefault(
                source.partition, Partition(source.partition, self.settings.field_timeout_s, self.schema_of)
            )
            committed = self._committed(source)
            if self.stopping():
                return
            if committed is None:
                self.consumer.seek_to_beginning(source)
                continue
            read = Marks.read(committed) or NO_MARKS
            self.consumer.seek(source, read.open_from)
            mine.behind[source.topic] = committed.offset
            marks.setdefault(source.partition, []).append(read)
        for number, several in marks.items():
            self.partitions[number].clock_ms = max(read.clock_ms for read in several)
        if any(read is NO_MARKS for several in marks.values() for read in several):
            log.warning("this broker keeps no metadata with offsets: all streaks are read again")
        self._learn_tracks(
            {number: min(read.tracks_from for read in marks.get(number, [NO_MARKS])) for number in self.partitions}
        )
        self.group, self.sources = group, sources
        log.info("partitions assigned", partitions=sorted(self.partitions))

    def _committed(self, source: TopicPartition) -> OffsetAndMetadata | None:
        """Give a committed offset with its metadata; waits for a transaction that a dead linker left open."""
        patience_s = self.settings.transaction_timeout_s + ABORT_S + self.settings.request_timeout_s
        deadline = time.monotonic() + patience_s
        while not self.stopping():
            try:
                return self.consumer.committed(source, metadata=True, timeout_ms=int(SETTLE_S * 1000))
            except kafka_errors.KafkaTimeoutError:
                log.warning("committed offsets not to be had, likely held by a dead linker's transaction: waiting")
                if time.monotonic() > deadline:
                    text = f"no committed offsets from the broker for {patience_s:g} s: is it away?"
                    raise BrokerError(text) from None
        return None

    def _learn_tracks(self, starts: Mapping[int, int]) -> None:
        """Read what was published of the fields that were open, to the very end, open transactions included."""
        name = self.settings.topic(TRACKS)
        sources = [TopicPartition(name, number) for number in starts]
        if not sources:
            return
        options = {"enable_auto_commit": False, "allow_auto_create_topics": False}
        with contextlib.closing(consumer(self.settings, **options, isolation_level="read_uncommitted")) as all_seeing:
            ends = all_seeing.end_offsets(sources)
            firsts = all_seeing.beginning_offsets(sources)
        with contextlib.closing(consumer(self.settings, **options, isolation_level="read_committed")) as reader:
            reader.assign(sources)
            for source in sources:
                reader.seek(source, min(ends[source], max(starts[source.partition], firsts[source])))
            while not self.stopping() and any((reader.position(one) or 0) < ends[one] for one in sources):
                for source, batch in reader.poll(timeout_ms=int(POLL_S * 1000)).items():
                    for record in batch:
                        for track in decode(record.value, self.schema_of) if record.value else ():
                            self.partitions[source.partition].fields.learn(track)
        for source in sources:
            self.partitions[source.partition].tracks_end = ends[source]

    def _rebuilt(self, mine: Partition) -> None:
        """All is back that the last commit knew; what it had closed is closed, for of that only a part was read."""
        mine.fields.close(mine.clock_ms)
        mine.fields.keep_known()
        log.info("fields rebuilt", partition=mine.number, fields=sum(1 for _ in mine.fields))
