"""The topics: made with the limits that full frames need, and shown with how far the workers are behind.

``run`` and ``replay`` make what is missing, because a broker that makes topics by itself gives them a limit of 1 MB. At
night this fails where the user may not create topics: the error says so, and an administrator runs ``topics --create``.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    AuthorizationError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from stream.broker import DEAD_LETTER_HEADROOM_BYTES, BrokerError, client_options
from stream.marks import only_marks
from stream.messages import FRAMES, REJECTED, TOPICS
from stream.refusals import missing_right

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream.settings import Settings

COORDINATOR_PATIENCE_S = 30
VISIBLE_S = 5  # for a topic that was just made to be known everywhere


@dataclass(frozen=True)
class TopicState:
    """One topic as the broker has it; ``lag`` only for the topic that the workers read, None for a missing topic."""

    name: str
    exists: bool
    partitions: int = 0
    messages: int | None = None
    lag: int | None = None
    max_message_bytes: int | None = None


@contextlib.contextmanager
def administration(settings: Settings) -> Iterator[Any]:
    """Give an admin client, closed at the end."""
    admin = KafkaAdminClient(**client_options(settings))
    try:
        yield admin
    finally:
        admin.close()


def create_missing_topics(settings: Settings) -> list[str]:
    """Create those of our topics that the broker has not; gives their full names."""
    with administration(settings) as admin:
        there = set(admin.list_topics())
        missing = [name for name in TOPICS if settings.topic(name) not in there]
        made = []
        for name in missing:
            # Two workers started together both find it missing: the second to come is content.
            with contextlib.suppress(TopicAlreadyExistsError):
                _create(admin, name, settings)
                made.append(settings.topic(name))
        _check_visible(admin, {settings.topic(name) for name in missing}, settings)
        return made


def _create(admin: Any, name: str, settings: Settings) -> None:
    """Create one topic; raises ``BrokerError`` where this user may not."""
    try:
        admin.create_topics({settings.topic(name): _wanted(name, settings)}, wait_for_metadata=True)
    except AuthorizationError as error:
        refused = TopicAuthorizationFailedError({settings.topic(name)})
        raise BrokerError(
            f"{settings.bootstrap_servers}: {missing_right(refused, settings, 'Create')}. Or an administrator makes "
            "the topics: `needlestream topics --create`"
        ) from error


def _check_visible(admin: Any, names: set[str], settings: Settings) -> None:
    """Raise ``BrokerError`` for topics that are there and not to be seen: who reads such a one just waits for ever."""
    deadline = time.monotonic() + VISIBLE_S
    while hidden := names - set(admin.list_topics()):
        if time.monotonic() > deadline:
            refused = TopicAuthorizationFailedError(hidden)
            raise BrokerError(f"{settings.bootstrap_servers}: {missing_right(refused, settings, 'Describe')}")
        time.sleep(0.2)


def create_log_of_keys(settings: Settings, name: str) -> None:
    """Create a topic, if it is missing, that keeps the last message of each key for good."""
    with administration(settings) as admin, contextlib.suppress(TopicAlreadyExistsError):
        if settings.topic(name) not in set(admin.list_topics()):
            wanted = {
                "num_partitions": 1,
                "replication_factor": settings.replication_factor,
                "configs": {"cleanup.policy": "compact"},
            }
            admin.create_topics({settings.topic(name): wanted}, wait_for_metadata=True)


def committed_offsets(settings: Settings) -> dict[int, int]:
    """Give the group's committed offset for each partition of ``frames`` that has one."""
    with administration(settings) as admin:
        (described,) = admin.describe_topics([settings.topic(FRAMES)])
        partitions = [
            TopicPartition(settings.topic(FRAMES), part["partition_index"]) for part in described["partitions"]
        ]
        group = group_offsets(admin, settings, partitions)
    return {partition.partition: offset for partition, offset in group.items()}


def group_offsets(admin: Any, settings: Settings, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Give the committed offset of the workers' group for each of these partitions that has one."""
    group = _patiently(lambda: admin.list_group_offsets({settings.group_id: partitions}))[settings.group_id]
    return {partition: entry.offset for partition, entry in group.items() if entry.offset >= 0}


def partition_offsets(admin: Any, partitions: list[TopicPartition], *, latest: bool) -> dict[TopicPartition, int]:
    """Give the end of each partition's log, or its beginning."""
    found = admin.list_partition_offsets(dict.fromkeys(partitions, -1 if latest else -2))  # Kafka's own sentinels
    return {partition: entry.offset for partition, entry in found.items()}


def topic_states(settings: Settings) -> list[TopicState]:
    """Give the state of each of our topics."""
    with administration(settings) as admin:
        there = set(admin.list_topics())
        return [
            _state(admin, name, settings) if settings.topic(name) in there else TopicState(settings.topic(name), False)
            for name in TOPICS
        ]


def _wanted(name: str, settings: Settings) -> dict[str, Any]:
    # Each record of a batch costs some bytes more than its value: the headroom covers that too.
    limit = settings.max_message_bytes + DEAD_LETTER_HEADROOM_BYTES * (2 if name == REJECTED else 1)
    return {
        "num_partitions": settings.partitions,
        "replication_factor": settings.replication_factor,
        "configs": {"max.message.bytes": str(limit)},
    }


def _state(admin: Any, name: str, settings: Settings) -> TopicState:
    full_name = settings.topic(name)
    (described,) = admin.describe_topics([full_name])
    partitions = [TopicPartition(full_name, part["partition_index"]) for part in described["partitions"]]
    ends = partition_offsets(admin, partitions, latest=True)
    starts = partition_offsets(admin, partitions, latest=False)
    return TopicState(
        full_name,
        True,
        len(partitions),
        messages=sum(ends.values()) - sum(starts.values()),
        lag=_lag(admin, partitions, starts, ends, settings) if name == FRAMES else None,
        max_message_bytes=_limit(admin, full_name),
    )


def _lag(
    admin: Any,
    partitions: list[TopicPartition],
    starts: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
    settings: Settings,
) -> int:
    group = group_offsets(admin, settings, partitions)
    gaps = {part: (max(group.get(part, 0), starts[part]), ends[part]) for part in partitions}
    marks = only_marks(settings, gaps)
    return sum(max(0, end - done) for part, (done, end) in gaps.items() if part not in marks)


def _patiently(ask: Callable[[], Any]) -> Any:
    """Give the answer of a group's coordinator: a new broker takes some seconds until it has one."""
    deadline = time.monotonic() + COORDINATOR_PATIENCE_S
    while True:
        try:
            return ask()
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _limit(admin: Any, full_name: str) -> int | None:
    """Give ``max.message.bytes`` of a topic; None where the broker does not say (the embedded one does not)."""
    try:
        described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, full_name)], config_filter="all")
        return int(described["topic"][full_name]["max.message.bytes"]["value"])
    except (KafkaError, KeyError, TypeError, ValueError):
        return None
