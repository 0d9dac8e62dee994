"""Where frames come from: a member of the consumer group, one message in hand at a time.

How it fails at night. A worker that the group gave up on (stopped too long, or busy with one frame for longer than
``max_poll_interval_s``) is told so when it commits: nothing of its frame is published, it leaves with an error and is
to be started again. A frame that takes its workers down is known by the note that each leaves with the group before it
begins (``Source.begin``): to be killed leaves it there; to finish, or to stop for another reason, takes it away.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from kafka import ConsumerRebalanceListener, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState, OffsetAndMetadata

from detector.frame import BadFrame
from stream.broker import (
    ABORT_S,
    FETCH_BYTES,
    LAST_WORD_S,
    SETTLE_S,
    THOUGHT_DEAD,
    BrokerError,
    consumer,
    received,
)
from stream.messages import EXPIRED, Message

if TYPE_CHECKING:
    from kafka.structs import ConsumerGroupMetadata

    from stream.settings import Settings

log = structlog.get_logger()

METADATA_MS = 60_000  # how long partitions that were added, or a topic that was made again, may go unnoticed
NOTE_S = 30.0  # for the note that a frame is begun; then the frame is put back and the broker waited for
BATCH_HEAD_BYTES = 61  # of a batch of records; its length stands in the first twelve


class Source:
    """A member of the consumer group: gives the frame messages of its partitions, one at a time.

    A worker that was stopped in the middle of a rebalance and joins again may keep its old positions, and the broker
    would accept its commits. So each time it is taken in, every partition is first sought to its committed offset, and
    commits carry the metadata of then. What was fetched before that is dropped, and comes again.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.settings = settings
        session_ms = int(settings.session_timeout_s * 1000)
        self.consumer = consumer(
            settings,
            group_id=settings.group_id,
            # A partition's beginning is sought by us; what retention took is not to be passed over in silence.
            auto_offset_reset="none",
            enable_auto_commit=False,
            isolation_level="read_committed",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(200, session_ms // 4),
            max_poll_interval_ms=int(settings.max_poll_interval_s * 1000),
            max_poll_records=1,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
            allow_auto_create_topics=False,
            metadata_max_age_ms=METADATA_MS,
        )
        self.consumer.subscribe([topic], listener=_Announcer())
        self.topic = topic
        self.topic_id: uuid.UUID | None = None
        self.name = uuid.uuid4().hex
        self.group: ConsumerGroupMetadata = self.consumer.group_metadata()
        self.joined = False  # taken in by the group and told where to begin (with no partition, perhaps)
        self.notes: dict[TopicPartition, Note] = {}
        self.patience_s = settings.transaction_timeout_s + ABORT_S + settings.request_timeout_s
        self.unsettled_since: float | None = None

    def take(self, timeout_s: float) -> Message | None:
        """Give the next message, or None when none came in time.

        Where retention was faster than the workers, a message that is ``unread`` stands for all that are gone.
        """
        records: dict[TopicPartition, list[Any]] = {}
        gone: dict[TopicPartition, int] = {}
        try:
            records = self.consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=1)
        except kafka_errors.NoOffsetForPartitionError:
            log.debug("the group has no offset of a partition yet")  # it is begun at its beginning, below
        except kafka_errors.OffsetOutOfRangeError as error:
            (gone,) = error.args
        if not self._is_member():
            return None
        self._check_topic()
        for partition, offset in gone.items():
            return self._expired(partition, offset)
        return next((received(batch[0]) for batch in records.values()), None)

    def begin(self, message: Message) -> int | None:
        """Note with the group that this worker has the message in hand; gives how many died with it in hand before.

        None when the note was not surely taken: nothing may be done with the message, which comes again.
        """
        deaths = self._deaths(message)
        note = Note(message.offset, deaths, self.name)
        failure = self._note(message, note, NOTE_S)
        if failure is None:
            self.notes[partition_of(message)] = note
            return deaths
        if isinstance(failure, kafka_errors.AuthorizationError):
            raise failure
        log.warning("message put back: its beginning could not be noted", name=message.name, why=str(failure))
        self.joined = False
        if not isinstance(failure, THOUGHT_DEAD):
            # Still on its way, the note might arrive when the message is long done, and turn the offset back: a new
            # member's generation makes it void.
            self.consumer.unsubscribe()
            self.consumer.subscribe([message.topic], listener=_Announcer())
        return None

    def put_back(self, message: Message) -> None:
        """Take the note away, so that the end of this worker is not laid to the message; as far as the broker hears."""
        failure = self._note(message, Note(message.offset, self._deaths(message), None), LAST_WORD_S)
        log.info("message put back", name=message.name, noted=failure is None)

    def lag(self) -> dict[int, int]:
        """Give for each assigned partition how many messages are still to come, as far as is known."""
        behind: dict[int, int] = {}
        if not self.joined:
            return behind
        for partition in self.consumer.assignment():
            end = self.consumer.highwater(partition)
            if end is not None:
                behind[partition.partition] = max(0, end - (self.consumer.position(partition, timeout_ms=1000) or 0))
        return behind

    def waiting(self) -> tuple[int, int]:
        """Give how many messages, and how many bytes of them, were fetched and not yet opened."""
        messages = size_bytes = 0
        # The client says this nowhere else.
        for fetch in self.consumer._fetcher._completed_fetches.copy():  # noqa: SLF001
            batches = fetch.partition_data.records or b""
            messages += records_in(batches)
            size_bytes += len(batches)
        return messages, size_bytes

    def close(self) -> None:
        """Leave the group, without committing anything."""
        self.consumer.close(autocommit=False, timeout_ms=5000)

    def _advice(self, where: str) -> str:
        """Give the command that sets the group's offsets."""
        connection = f"--bootstrap-server {self.settings.bootstrap_servers}"
        what = f"--group {self.settings.group_id} --topic {self.topic}"
        return f"set its offsets: kafka-consumer-groups.sh {connection} {what} --reset-offsets {where} --execute"

    def _check_topic(self) -> None:
        """Raise ``BrokerError`` when the topic is another one by now: positions would be those of the old one."""
        now = self.consumer._client.cluster.topic_id(self.topic)  # noqa: SLF001 - the client does not tell it otherwise
        if self.topic_id is not None and now not in {None, self.topic_id}:
            raise BrokerError(
                f"{self.topic} was deleted and made again while this worker ran: some of it may have been passed over. "
                f"Stop all workers, and {self._advice('--to-earliest')}"
            )
        self.topic_id = now or self.topic_id

    def _expired(self, partition: TopicPartition, offset: int) -> Message:
        """Give what stands for the messages from this offset on that are gone, and go on behind them."""
        first = self.consumer.beginning_offsets([partition])[partition]
        name = f"{partition.topic}/{partition.partition}"
        if offset >= first:
            raise BrokerError(
                f"{name} ends before offset {offset}, where the group {self.settings.group_id!r} is: the topic was "
                "made again, or the brokers lost messages. What is to be examined: all of it (--to-earliest), or "
                f"what comes from now on (--to-latest)? Stop all workers, and {self._advice('--to-latest')}"
            )
        self.consumer.seek(partition, first)
        lost = f"offsets {offset} to {first - 1} are lost: retention took them before a worker had read them"
        log.error("messages lost", partition=name, what=lost, advice="raise the topic's retention, or add workers")
        return Message(partition.topic, partition.partition, first - 1, None, None, unread=BadFrame(EXPIRED, lost))

    def _is_member(self) -> bool:
        """Say whether the group has this worker as it had it when the positions were taken from the committed offsets.

        If it has not, they are taken again as soon as it is a member and the broker tells them.
        """
        group = self.consumer.group_metadata()
        if group.state is not MemberState.STABLE:
            self.joined = False
            return False
        if self.joined and (group.generation_id, group.member_id) == (self.group.generation_id, self.group.member_id):
            return True
        self.joined = False
        self._start_from_committed(group)
        return False

    def _start_from_committed(self, group: ConsumerGroupMetadata) -> None:
        """Take over the generation once the committed offsets are known; until then the next ``take`` tries again.

        They are not while a transaction holds them that a dead worker left open.
        """
        try:
            committed = {partition: self._committed(partition) for partition in self.consumer.assignment()}
        except kafka_errors.KafkaTimeoutError:
            self._wait_for_offsets()
            return
        for partition, offset in committed.items():
            if offset is None:
                self.consumer.seek_to_beginning(partition)
            else:
                self.consumer.seek(partition, offset.offset)
        self.notes = {partition: note_of(offset) for partition, offset in committed.items() if offset is not None}
        self.group = group
        self.joined = True
        self.unsettled_since = None

    def _committed(self, partition: TopicPartition) -> OffsetAndMetadata | None:
        # A request that was given up on is kept by the client, and its answer, maybe of before the rebalance, is given
        # to whoever asks next. Asking until there is one empties that place; the second question is put anew.
        self.consumer.committed(partition, timeout_ms=int(SETTLE_S * 1000))
        return self.consumer.committed(partition, metadata=True, timeout_ms=int(SETTLE_S * 1000))

    def _wait_for_offsets(self) -> None:
        now = time.monotonic()
        if self.unsettled_since is None:
            self.unsettled_since = now
            log.warning("committed offsets not to be had, likely held by a dead worker's transaction: waiting")
        if now - self.unsettled_since > self.patience_s:
            raise BrokerError(
                f"no committed offsets from the broker for {self.patience_s:g} s: it is away, or a worker that died "
                "with a longer transaction_timeout_s than this one's left its transaction open"
            )

    def _deaths(self, message: Message) -> int:
        note = self.notes.get(partition_of(message))
        if note is None or note.offset != message.offset:
            return 0
        return note.deaths + (note.worker not in {None, self.name})

    def _note(self, message: Message, note: Note, patience_s: float) -> Exception | None:
        """Commit the message's own offset with a note beside it, in one attempt; gives what went wrong."""
        offset = OffsetAndMetadata(message.offset, note.text(), -1)
        answered = threading.Event()
        future = self.consumer.commit_async({partition_of(message): offset}, callback=lambda *_: None)
        future.add_both(lambda _: answered.set())
        if not answered.wait(patience_s):
            return kafka_errors.KafkaTimeoutError(f"no answer from the group's coordinator in {patience_s:g} s")
        if future.succeeded() and future.value is not None:
            # What succeeded is the search for the coordinator: of a commit behind it nothing is heard.
            return kafka_errors.CoordinatorNotAvailableError("the group's coordinator was not known")
        return future.exception


def next_offset(message: Message) -> dict[TopicPartition, OffsetAndMetadata]:
    """Give what is committed once a message is done: the offset after it."""
    return {partition_of(message): OffsetAndMetadata(message.offset + 1, "", -1)}


def partition_of(message: Message) -> TopicPartition:
    """Give the partition that a message came from."""
    return TopicPartition(message.topic, message.partition)


def records_in(batches: bytes | memoryview) -> int:
    """Count the records of whole batches by their heads alone (a batch: offset 8, length 4 ... at 57 its records)."""
    count = place = 0
    while place + BATCH_HEAD_BYTES <= len(batches):
        count += int.from_bytes(batches[place + 57 : place + 61], "big")
        place += 12 + int.from_bytes(batches[place + 8 : place + 12], "big")
    return count


@dataclass(frozen=True)
class Note:
    """What the group keeps beside a committed offset: who has that message in hand, how many died with it before."""

    offset: int
    deaths: int
    worker: str | None

    def text(self) -> str:
        """Give it as the metadata of a committed offset."""
        return json.dumps({"deaths": self.deaths, "worker": self.worker})


def note_of(committed: OffsetAndMetadata) -> Note:
    """Give the note beside a committed offset; one without deaths where there is none, or somebody else's."""
    try:
        told = json.loads(committed.metadata or "{}")
        return Note(committed.offset, int(told.get("deaths", 0)), told.get("worker"))
    except (ValueError, TypeError, AttributeError):
        return Note(committed.offset, 0, None)


class _Announcer(ConsumerRebalanceListener):
    """Says in the log which partitions come and go."""

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Log what was taken away."""
        if revoked:
            log.info("partitions revoked", partitions=sorted(partition.partition for partition in revoked))

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Log what was given."""
        log.info("partitions assigned", partitions=sorted(partition.partition for partition in assigned))
