"""The door to Kafka: how every client connects, every size limit and every patience, and what its errors mean.

Who reads frames is in ``stream.source``, what sends in ``stream.producer``, and what makes both durable at once in
``stream.delivery``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer
from kafka import errors as kafka_errors

from stream.batches import Unread, read_with_limit
from stream.handshake import HandshakeError, login_options, shake_hands, tls_context
from stream.messages import Message
from stream.oauth import TokenError
from stream.refusals import cause_of, missing_right, sick_partitions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream.settings import Settings

# --- limits: all follow from max_message_bytes ------------------------------------------------------------------------

# A dead letter is its frame message and some headers more; one of a frame at the limit must still fit.
DEAD_LETTER_HEADROOM_BYTES = 1 << 20
# Sizes are judged by us, with a message that gives the size, so the client's own limits stay out of the way.
UNLIMITED_BYTES = 2**31 - 1
# One fetch brings at least one message, however large (KIP-74): a small fetch bounds the memory, not the frames.
FETCH_BYTES = 1 << 20

# --- patience ---------------------------------------------------------------------------------------------------------

SETTLE_S = 1.0  # one attempt to learn the committed offsets; in between a worker sees that it shall stop
ABORT_S = 10.0  # how often a broker looks for transactions that are over time, unless told otherwise
LAST_WORD_S = 5.0  # for what is tried once more on the way out


class BrokerError(Exception):
    """The broker cannot be used or refused us; the text says which, what, and what to do."""


class MessageTooLargeError(BrokerError):
    """A message over ``max_message_bytes``, or over what the broker takes; the text gives its size."""


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
    if isinstance(error, THOUGHT_DEAD):
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
THOUGHT_DEAD = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
)


def received(record: Any) -> Message:
    """Give what the client hands out as a message. A header without a value gets an empty one: it sends no others."""
    headers = tuple((name, bytes(value or b"")) for name, value in record.headers or ())
    where = record.topic, record.partition, record.offset
    if isinstance(record.value, Unread):
        kept = bytes(record.value) or None
        return Message(*where, record.key, kept, headers, record.timestamp, unread=record.value.why)
    return Message(*where, record.key, record.value, headers, record.timestamp)
