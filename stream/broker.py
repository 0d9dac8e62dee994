"""The door to Kafka: where frames come from, where answers go, and every size limit, in one place.

Delivery. A worker takes one message, examines it, publishes everything that it says about it and commits its offset
last. ``ExactlyOnce`` puts the outputs and the offset into one transaction that carries the group's metadata, so that
the broker refuses a worker that was thought dead; downstream reads ``read_committed``. ``AtLeastOnce`` is for brokers
without transactions: outputs first, each acknowledged by all replicas, then the offset; a crash in between repeats
the message, with the same alert ids.

How it fails at night. A worker that the group gave up on (stopped too long, or busy with one frame for longer than
``max_poll_interval_s``) is told so when it commits: nothing of its frame is published, it leaves with an error and is
to be started again. A frame that takes its workers down is known by the note that each leaves with the group before it
begins (``Source.begin``): to be killed leaves it there; to finish, or to stop for another reason, takes it away. A
worker that dies in the middle of a transaction leaves it open: who takes over its partitions cannot be told their
offsets until the broker aborts it (``transaction_timeout_s`` and up to ten seconds), and waits that long.
A broker that goes away is waited for until the client's delivery time-out (two minutes) is over; then the worker
leaves, with nothing acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState, OffsetAndMetadata

from detector.frame import BadFrame
from stream.batches import Unread, read_with_limit
from stream.handshake import HandshakeError, login_options, shake_hands, tls_context
from stream.messages import EXPIRED, Message
from stream.oauth import TokenError
from stream.refusals import cause_of, missing_right, sick_partitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kafka.structs import ConsumerGroupMetadata

    from stream.messages import Output
    from stream.settings import Settings

log = structlog.get_logger()

# --- limits: all follow from max_message_bytes ------------------------------------------------------------------------

# A dead letter is its frame message and some headers more; one of a frame at the limit must still fit.
DEAD_LETTER_HEADROOM_BYTES = 1 << 20
# Sizes are judged by us, with a message that gives the size, so the client's own limits stay out of the way.
UNLIMITED_BYTES = 2**31 - 1
# One fetch brings at least one message, however large (KIP-74): a small fetch bounds the memory, not the frames.
FETCH_BYTES = 1 << 20
BATCH_HEAD_BYTES = 61

# --- patience ---------------------------------------------------------------------------------------------------------

METADATA_MS = 60_000  # how long partitions that were added, or a topic that was made again, may go unnoticed
SETTLE_S = 1.0  # one attempt to learn the committed offsets; in between a worker sees that it shall stop
ABORT_S = 10.0  # how often a broker looks for transactions that are over time, unless told otherwise
NOTE_S = 30.0  # for the note that a frame is begun; then the frame is put back and the broker waited for
LAST_WORD_S = 5.0  # for what is tried once more on the way out


class BrokerError(Exception):
    """The broker cannot be used or refused us; the text says which, what, and what to do."""


class MessageTooLargeError(BrokerError):
    """A message over ``max_message_bytes``, or over what the broker takes; the text gives its size."""


# --- connection -------------------------------------------------------------------------------------------------------


def client_options(settings: Settings) -> dict[str, Any]:
    """Give what every client needs: addresses, security, limits."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
        "receive_message_max_bytes": UNLIMITED_BYTES,
        "request_timeout_ms": int(settings.request_timeout_s * 1000),
        "reconnect_backoff_max_ms": 5_000,
        "bootstrap_timeout_ms": 20_000,
    }
    if "SSL" in settings.security_protocol:
        options["ssl_context"] = tls_context(settings)
    return options | login_options(settings)


def consumer(settings: Settings, **options: Any) -> KafkaConsumer:
    """Give a consumer that no batch of records takes down, whoever sent it."""
    read_with_limit(settings.max_message_bytes)
    return KafkaConsumer(**client_options(settings), **options)


def check_reachable(settings: Settings) -> None:
    """Raise ``BrokerError`` when none of the brokers' addresses lets us in; the text says why not, for each.

    The client itself only says, after half a minute, that it cannot bootstrap.
    """
    away, shut = [], []
    for address in settings.bootstrap_servers.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit():
            raise BrokerError(f"bootstrap_servers: {address.strip()!r} is not HOST:PORT")
        try:
            shake_hands(settings, host.strip("[]"), int(port))
        except HandshakeError as error:
            shut.append(f"{address.strip()}: {error}")
        except OSError as error:
            away.append(f"{address.strip()} ({error.strerror or error})")
        else:
            return
    if shut:
        raise BrokerError("; ".join(shut + [f"{one} does not answer" for one in away]))
    raise BrokerError(
        f"no Kafka broker answers at {', '.join(away)}. Is it running, and is bootstrap_servers right? "
        "`needlestream broker` starts a small one on this machine"
    )


@contextlib.contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turn what Kafka says into a ``BrokerError`` that says what to do."""
    try:
        yield
    except kafka_errors.KafkaError as error:
        raise BrokerError(_explain(error, settings)) from error
    except (HandshakeError, TokenError) as error:
        raise BrokerError(str(error)) from None


def _explain(failure: kafka_errors.KafkaError, settings: Settings) -> str:
    where = settings.bootstrap_servers
    error = cause_of(failure)
    if isinstance(error, _THOUGHT_DEAD):
        return (
            f"the group {settings.group_id!r} gave this worker up ({error}); nothing of the frame in hand was "
            "acknowledged: start it again. If frames take longer than max_poll_interval_s "
            f"({settings.max_poll_interval_s:g} s), raise that"
        )
    if isinstance(error, kafka_errors.AuthorizationError):
        return f"{where}: {missing_right(error, settings)}"
    if isinstance(error, _NOT_LET_IN):
        # The client says no more than this of a refused login or certificate: ask by hand what is wrong.
        try:
            check_reachable(settings)
        except BrokerError as reason:
            return str(reason)
        sick = sick_partitions(client_options(settings), settings) or "Overloaded, or its other brokers are away?"
        return f"{where} lets us in and did not answer in time ({error}). {sick}"
    return f"{where}: {error}"


_NOT_LET_IN = (
    kafka_errors.KafkaTimeoutError,
    kafka_errors.KafkaConnectionError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.NotEnoughReplicasError,
    kafka_errors.NotEnoughReplicasAfterAppendError,
    kafka_errors.KafkaStorageError,
)
_THOUGHT_DEAD = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
)


# --- in ---------------------------------------------------------------------------------------------------------------


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
            self.notes[_partition(message)] = note
            return deaths
        if isinstance(failure, kafka_errors.AuthorizationError):
            raise failure
        log.warning("message put back: its beginning could not be noted", name=message.name, why=str(failure))
        self.joined = False
        if not isinstance(failure, _THOUGHT_DEAD):
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
        note = self.notes.get(_partition(message))
        if note is None or note.offset != message.offset:
            return 0
        return note.deaths + (note.worker not in {None, self.name})

    def _note(self, message: Message, note: Note, patience_s: float) -> Exception | None:
        """Commit the message's own offset with a note beside it, in one attempt; gives what went wrong."""
        offset = OffsetAndMetadata(message.offset, note.text(), -1)
        answered = threading.Event()
        future = self.consumer.commit_async({_partition(message): offset}, callback=lambda *_: None)
        future.add_both(lambda _: answered.set())
        if not answered.wait(patience_s):
            return kafka_errors.KafkaTimeoutError(f"no answer from the group's coordinator in {patience_s:g} s")
        if future.succeeded() and future.value is not None:
            # What succeeded is the search for the coordinator: of a commit behind it nothing is heard.
            return kafka_errors.CoordinatorNotAvailableError("the group's coordinator was not known")
        return future.exception


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


# --- out --------------------------------------------------------------------------------------------------------------


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
    if not isinstance(cause_of(error), _THOUGHT_DEAD):
        source.put_back(message)


DELIVERIES: dict[str, Callable[[Settings, Source], Delivery]] = {
    "exactly-once": ExactlyOnce,
    "at-least-once": AtLeastOnce,
}


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


def next_offset(message: Message) -> dict[TopicPartition, OffsetAndMetadata]:
    """Give what is committed once a message is done: the offset after it."""
    return {_partition(message): OffsetAndMetadata(message.offset + 1, "", -1)}


def received(record: Any) -> Message:
    """Give what the client hands out as a message. A header without a value gets an empty one: it sends no others."""
    headers = tuple((name, bytes(value or b"")) for name, value in record.headers or ())
    where = record.topic, record.partition, record.offset
    if isinstance(record.value, Unread):
        kept = bytes(record.value) or None
        return Message(*where, record.key, kept, headers, record.timestamp, unread=record.value.why)
    return Message(*where, record.key, record.value, headers, record.timestamp)


def _partition(message: Message) -> TopicPartition:
    return TopicPartition(message.topic, message.partition)


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
