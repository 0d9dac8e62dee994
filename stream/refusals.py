"""What a broker does not let us do, as a sentence: the right that is missing, the copy of a partition that is away.

The client says of these the name of an error, or that the time is over. At night they are an administrator's work, who
is not at the keyboard that the worker ran on: so the sentence holds the command that gives the right, or the partition
to look at.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from stream.messages import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream.settings import Settings

MOST_NAMED = 3  # partitions in one sentence


def cause_of(error: Exception) -> Exception:
    """Give what the client says was first: it wraps it, when it failed at another place than this one."""
    if type(error) is kafka_errors.KafkaError:
        return next((cause for cause in error.args if isinstance(cause, kafka_errors.KafkaError)), error)
    return error


def missing_right(error: kafka_errors.AuthorizationError, settings: Settings, operation: str = "Read") -> str:
    """Give which right is missing, and the command that gives it; ``operation`` is what was tried with a topic."""
    told = error.args[0] if error.args else ""
    if isinstance(error, kafka_errors.GroupAuthorizationFailedError):
        return _grant(settings, "Read", "group", str(told) or settings.group_id)
    if isinstance(error, kafka_errors.TransactionalIdAuthorizationFailedError):
        ours = f"{settings.topic_prefix}{settings.group_id}-"
        return _grant(settings, "Write", "transactional-id", ours, more=" --resource-pattern-type prefixed")
    if isinstance(error, kafka_errors.TopicAuthorizationFailedError):
        names = sorted(told) if isinstance(told, set | frozenset | list | tuple) else [str(told)]
        named = [name for name in names if name] or [f"{settings.topic_prefix}*"]
        return "; ".join(_grant(settings, operation, "topic", name) for name in named)
    return f"{_user(settings)} may not do what is needed: {error}"


def _grant(settings: Settings, operation: str, kind: str, name: str, *, more: str = "") -> str:
    user = settings.sasl_username or "NAME"
    command = (
        f"kafka-acls.sh --bootstrap-server {settings.bootstrap_servers} --add --allow-principal User:{user} "
        f"--operation {operation} --{kind} {name}{more}"
    )
    return f"{_user(settings)} lacks the right {operation} on {kind} {name!r}; an administrator gives it: {command}"


def _user(settings: Settings) -> str:
    return f"user {settings.sasl_username!r}" if settings.sasl_username else "this client's user"


def sick_partitions(options: Mapping[str, Any], settings: Settings) -> str | None:
    """Give which partitions of our topics take no messages as they are; None where none is known to.

    ``options`` are those of a client. Raises nothing of Kafka's: it is asked when something else has failed already.
    """
    with contextlib.suppress(kafka_errors.KafkaError), contextlib.closing(KafkaAdminClient(**options)) as admin:
        names = [name for name in map(settings.topic, TOPICS) if name in set(admin.list_topics())]
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        told = admin.describe_configs(asked, config_filter="all")["topic"] if names else {}
        least = {name: int(told[name]["min.insync.replicas"]["value"]) for name in names}
        sick = sorted(line for topic in admin.describe_topics(names) for line in _sick(topic, least)) if names else []
        if sick:
            more = f" (and {len(sick) - MOST_NAMED} more)" if len(sick) > MOST_NAMED else ""
            return f"{'; '.join(sick[:MOST_NAMED])}{more}. Is a broker away, or its disk full?"
    return None


def _sick(topic: Mapping[str, Any], least: Mapping[str, int]) -> Iterator[str]:
    for part in topic["partitions"]:
        name = f"{topic['name']}/{part['partition_index']}"
        if part["leader_id"] < 0:
            yield f"{name} has no leader"
            continue
        # A broker asks for no more copies than the partition has in all (KIP-966).
        wanted = min(least[topic["name"]], len(part["replica_nodes"]))
        if len(part["isr_nodes"]) < wanted:
            yield f"{name} has {len(part['isr_nodes'])} of {wanted} copies in sync (min.insync.replicas)"
