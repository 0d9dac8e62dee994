"""The audit: whether every frame that came in is answered once, and every alert is there once.

It reads the topics from their beginnings to what are their ends now. The committed offsets of the group are read first,
so that on a stream that is running no frame counts as done whose answer is not in what is read afterwards; what lies
behind them is pending, not missing. Of the frames only offsets are needed: one that has an answer exists, and only
those without one are fetched (an offset may hold no message at all: the mark of a transaction, or an aborted message).

What retention has taken away cannot be judged, and is not: messages from before the log's start, and messages older
than what is left of a topic of answers. Memory: some 100 bytes a record while it runs; frames come one at a time.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream.broker import BrokerError
from stream.deadletters import dead_letter_of
from stream.framing import decode
from stream.ledger import (
    ALERT,
    ANSWER,
    MESSAGE,
    WHOLE,
    Problem,
    Rows,
    alert_problems,
    answer_problems,
    count_problems,
    grouped,
    holes,
    of_done,
    track_problems,
)
from stream.logreader import LogReader
from stream.marks import only_marks
from stream.messages import ALERT_TOPICS, ANSWERS, EXAMINED, EXPIRED, FRAMES, REJECTED, TRACKS
from stream.schemaregistry import schemas
from stream.topics import committed_offsets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from stream.framing import SchemaOf
    from stream.messages import Message
    from stream.settings import Settings


@dataclass(frozen=True)
class Audit:
    """What the topics hold, and what is wrong: messages, alerts and tracks by number, answers by HDU.

    ``beyond`` are messages without an answer that retention may have taken away.
    """

    messages: int
    pending: int
    beyond: int
    examined: int
    rejected: Counter[str]
    alerts: int
    tracks: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Answers:
    """The answers that are there, by reason where they are dead letters; older messages may have lost theirs."""

    table: NDArray[np.void]
    reasons: Counter[str]
    expired: tuple[Problem, ...]
    horizon_ms: int


def audit(settings: Settings, *, overdue_s: float | None, now_unix_s: float) -> Audit:
    """Read the topics and judge them; with ``overdue_s`` what is pending for longer is a problem too.

    Raises ``BrokerError`` when they cannot be read.
    """
    with contextlib.closing(LogReader(settings, FRAMES)) as log:
        if not log.exists:
            raise BrokerError(f"{settings.bootstrap_servers} has no topic {log.topic}: is topic_prefix right?")
        committed = committed_offsets(settings)
    with contextlib.closing(LogReader(settings, FRAMES)) as log:
        starts = {partition.partition: start for partition, start in log.starts.items()}
        done = {number: max(start, committed.get(number, start)) for number, start in starts.items()}
        schema_of = schemas(settings)
        answers = _answers(settings, schema_of, log.topic, starts)
        alerts, alerts_horizon_ms = _alerts(settings, schema_of, log.topic, starts)
        judged, judged_alerts = of_done(answers.table, done), of_done(alerts, done)
        unanswered = list(_unanswered(log, answers.table, starts, done))
        missing = [message for message in unanswered if message.timestamp_ms >= answers.horizon_ms]
        horizon_ms = max(answers.horizon_ms, alerts_horizon_ms)
        versions, whole = _track_versions(settings, schema_of)
        waiting = _waiting(settings, log, done)
        problems = (
            *(Problem("frame-missing", message.name, _called(message)) for message in missing),
            *answers.expired,
            *_expired(log, committed),
            *_overdue(log, done, waiting, overdue_s, now_unix_s),
            *answer_problems(judged, log.topic, horizon_ms=answers.horizon_ms),
            *alert_problems(alerts, log.topic),
            *count_problems(judged, judged_alerts, log.topic, horizon_ms=horizon_ms),
            *track_problems(versions, whole=whole),
        )
        return Audit(
            messages=len(grouped(judged, MESSAGE).begins) + len(unanswered),
            pending=sum(end - done[number] for number, end in waiting.items()),
            beyond=len(unanswered) - len(missing),
            examined=int((~answers.table["rejected"]).sum()),
            rejected=answers.reasons,
            alerts=len(alerts),
            tracks=len(versions),
            problems=problems,
        )


def _answers(settings: Settings, schema_of: SchemaOf, topic: str, starts: Mapping[int, int]) -> Answers:
    rows = Rows(ANSWER)
    reasons: Counter[str] = Counter()
    expired = []
    with contextlib.closing(LogReader(settings, EXAMINED)) as log:
        for message in log:
            answers = message.header(ANSWERS) or "0"
            for record in decode(message.value or b"", schema_of):
                origin = record["inputPartition"], record["inputOffset"]
                if record["inputTopic"] == topic and origin[1] >= starts.get(origin[0], 0):
                    alerts = sum(record[name] for name in ("nStreaks", "nLenses", "nMergers"))
                    rows.add((*origin, record["extension"], False, alerts, int(answers), message.timestamp_ms))
        examined_horizon_ms = log.horizon_ms
    with contextlib.closing(LogReader(settings, REJECTED)) as log:
        for message in log:
            letter = dead_letter_of(message)
            if letter.topic != topic or letter.partition is None or letter.offset is None:
                continue
            if letter.reason == EXPIRED:
                expired.append(Problem("frame-expired", f"{topic}/{letter.partition}", letter.detail))
            elif letter.offset >= starts.get(letter.partition, 0):
                extension = WHOLE if letter.extension is None else letter.extension
                origin = letter.partition, letter.offset
                rows.add((*origin, extension, True, 0, letter.answers or 0, message.timestamp_ms))
                reasons[letter.reason] += 1
        return Answers(rows.table(), reasons, tuple(expired), max(examined_horizon_ms, log.horizon_ms))


def _alerts(
    settings: Settings, schema_of: SchemaOf, topic: str, starts: Mapping[int, int]
) -> tuple[NDArray[np.void], int]:
    rows = Rows(ALERT)
    horizon_ms = 0
    for name in ALERT_TOPICS:
        with contextlib.closing(LogReader(settings, name)) as log:
            for message in log:
                for record in decode(message.value or b"", schema_of):
                    origin = record["inputPartition"], record["inputOffset"]
                    if record["inputTopic"] == topic and origin[1] >= starts.get(origin[0], 0):
                        number = uuid.UUID(record["alertId"]).int
                        halves = number >> 64, number & (2**64 - 1)
                        rows.add((*halves, *origin, record["extension"], message.timestamp_ms))
            horizon_ms = max(horizon_ms, log.horizon_ms)
    return rows.table(), horizon_ms


def _track_versions(settings: Settings, schema_of: SchemaOf) -> tuple[dict[str, Counter[int]], bool]:
    """Give how often each version of each track is there, and whether retention has left the topic whole."""
    versions: dict[str, Counter[int]] = {}
    with contextlib.closing(LogReader(settings, TRACKS)) as log:
        for message in log:
            for record in decode(message.value or b"", schema_of):
                versions.setdefault(record["trackId"], Counter())[record["version"]] += 1
        return versions, all(start == 0 for start in log.starts.values())


def _unanswered(
    log: LogReader, answers: NDArray[np.void], starts: Mapping[int, int], done: Mapping[int, int]
) -> Iterator[Message]:
    """Give the messages, without their bytes, that the workers are done with and that no answer names."""
    for partition, start in starts.items():
        for begin, end in holes(answers, partition, start, done[partition]):
            offset = begin
            while offset < end:
                message = log.message_at(partition, offset)
                if message is None or message.offset >= end:
                    break
                yield replace(message, value=None)
                offset = message.offset + 1


def _expired(log: LogReader, committed: Mapping[int, int]) -> Iterator[Problem]:
    for partition, start in log.starts.items():
        next_offset = committed.get(partition.partition)
        if next_offset is not None and next_offset < start:
            detail = f"offsets {next_offset} to {start - 1}: retention was shorter than the workers were behind"
            yield Problem("frame-expired", f"{log.topic}/{partition.partition}", detail)


def _waiting(settings: Settings, log: LogReader, done: Mapping[int, int]) -> dict[int, int]:
    """Give the ends of the partitions in which messages wait: not of those that hold but the mark of a transaction."""
    gaps = {partition: (done[partition.partition], end) for partition, end in log.ends.items()}
    marks = only_marks(settings, gaps)
    return {part.partition: end for part, (begin, end) in gaps.items() if begin < end and part not in marks}


def _overdue(
    log: LogReader, done: Mapping[int, int], waiting: Mapping[int, int], overdue_s: float | None, now_unix_s: float
) -> Iterator[Problem]:
    if overdue_s is None:
        return
    for partition, young in log.first_offsets_since(int((now_unix_s - overdue_s) * 1000)).items():
        if partition in waiting and young > done[partition]:
            detail = f"offsets {done[partition]} to {young - 1} have been waiting for more than {overdue_s:g} s"
            yield Problem("frame-overdue", f"{log.topic}/{partition}", detail)


def _called(message: Message) -> str:
    name = message.header("name")
    return "no summary, no dead letter" if name is None else f"no summary, no dead letter; it is {name}"
