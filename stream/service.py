"""The worker: poll, examine, publish, commit; the whole loop on one screen.

One message is one unit, whatever it holds: each of its science HDUs is either examined (its streaks and one summary) or
rejected (one dead letter with the reason), and the message's offset is committed last, with all of that acknowledged.

How it fails at night: a frame that can never be read (``BadFrame``) is rejected and the stream goes on. Everything else
(GPU, disk, broker, a defect of ours) leaves the loop with nothing acknowledged for the message in hand; the next worker
gets it again. A message that took down so many workers as ``DEATHS_TO_REJECT`` (killed for memory, crashed in native
code, stopped by a defect) is rejected unread. SIGTERM lets the message in hand be finished, then the worker leaves the
group. A small share of the frames is examined once more, with synthetic streaks in a copy, when all about them is
committed: whatever happens then costs no answer, and the frame behind waits for it.
"""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import structlog

from detector.frame import BadFrame
from stream.alerts import candidate_lists, examined_summary, streak_alerts, streak_cutouts
from stream.broker import MessageTooLargeError, check_reachable, explained
from stream.candidatealerts import candidate_alerts, candidate_cutouts
from stream.claims import Claims
from stream.delivery import DELIVERIES
from stream.exposures import UNREAD
from stream.framing import CONTAINERS
from stream.machine import MachineError, machine_fault
from stream.messages import (
    FLAGS_URI,
    FRAMES,
    as_message_says,
    counted,
    dead_letter,
    frame_source,
    mjd_tai,
    without_values,
)
from stream.metrics import Metrics, serve_metrics
from stream.schemaregistry import wire
from stream.signals import Departure, stop_signals
from stream.source import Source
from stream.topics import create_missing_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from detector.frame import Frame
    from detector.preparation import Prepared
    from detector.streaks import Findings
    from models.evaluate.sensitivity import Trial
    from stream.delivery import Delivery
    from stream.framing import Framing
    from stream.messages import Message, Output
    from stream.otherexposures import Named, OtherExposures
    from stream.settings import Settings

log = structlog.get_logger()

POLL_S = 0.5  # how soon a worker without messages notices that it shall stop
DEATHS_TO_REJECT = 3


class Read(Protocol):
    """Bytes or a file -> the frame of each science HDU, or why it is none (``detector.fits.read_frames``)."""

    def __call__(
        self,
        source: bytes | BinaryIO,
        *,
        name: str,
        survey: str | None,
        extension: int | None,
        flags: BinaryIO | BadFrame | None = None,
    ) -> Iterable[Frame | BadFrame]:
        """Give the frames one after the other; raises ``BadFrame`` when there is nothing to go through.

        ``flags`` is a file of flag maps, or why it cannot be had.
        """


class Examine(Protocol):
    """The science of one frame; ``others`` are exposures of the same field (``detector.examine.examine``)."""

    def __call__(self, frame: Frame, *, others: Sequence[Prepared] = ()) -> Findings:
        """Give what the frame shows. Raises ``BadFrame``."""


class Sensitivity(Protocol):
    """What measures how much is missed (``models.evaluate.sensitivity``)."""

    def wants(self, frame: Frame) -> bool:
        """Say whether ``frame`` is one of those to be measured."""

    def measure(self, frame: Frame, findings: Findings, others: Sequence[Prepared]) -> Trial | None:
        """Give what a copy with synthetic streaks tells; None where there is no room. Raises ``BadFrame``."""


@dataclass(frozen=True)
class Examiner:
    """What a worker does with a message; ``clock`` gives Unix time, ``gpu_memory`` bytes by kind.

    ``warm_up`` is called before the worker joins its group.

    Without ``others`` the other exposures that a message names are not looked at.
    """

    read: Read
    examine: Examine
    others: OtherExposures | None = None
    claims: Claims = field(default_factory=Claims)
    max_message_bytes: int = 2**31
    program_version: str = ""
    weights_versions: Mapping[str, str] = field(default_factory=dict)
    sensitivity: Sensitivity | None = None
    gpu_memory: Callable[[], Mapping[str, int]] = dict
    framing: Framing = CONTAINERS
    cutout_px: int = 0
    warm_up: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.time


@dataclass(frozen=True)
class Answer:
    """Everything that one message leads to; ``chosen`` is the frame that is to be examined with more streaks in it."""

    outputs: tuple[Output, ...]
    findings: tuple[Findings, ...]
    rejects: tuple[BadFrame, ...]
    seconds: Mapping[str, float]
    chosen: Examined | None = None


@dataclass(frozen=True)
class Examined:
    """A frame, the other exposures that were looked at with it, and what it showed."""

    frame: Frame
    others: tuple[Prepared, ...]
    findings: Findings


@dataclass(frozen=True)
class Limits:
    """When a worker ends by itself: after so many messages, or without any for so long; None is never.

    With more than ``sensitivity_lag`` messages waiting, no frame is examined a second time.
    """

    count: int | None = None
    idle_timeout_s: float | None = None
    sensitivity_lag: int = 0


def run_worker(settings: Settings, examiner: Examiner, limits: Limits) -> int:
    """Join the group and work until SIGTERM, SIGINT or a limit; gives the number of messages done.

    Raises ``BrokerError``; whatever ``examine`` raises besides ``BadFrame`` goes through.
    """
    metrics = Metrics()
    metrics.registry.show_build("worker", examiner.program_version, examiner.weights_versions)
    serve_metrics(metrics, settings)
    warmed_up(examiner)  # a signal ends it as it ends any program: nothing is in hand yet
    with explained(settings), contextlib.ExitStack() as cleanup:
        signals = cleanup.enter_context(stop_signals())
        departure = cleanup.enter_context(Departure(signals))
        check_reachable(settings)
        examiner = replace(examiner, framing=wire(settings)[0], cutout_px=settings.cutout_px)
        for topic in create_missing_topics(settings):
            log.info("topic created", topic=topic)
        source = Source(settings, settings.topic(FRAMES))
        cleanup.callback(source.close)
        delivery = DELIVERIES[settings.delivery](settings, source)
        cleanup.callback(delivery.close)
        log.info("worker started", group=settings.group_id, delivery=settings.delivery)
        done = serve(
            source,
            delivery,
            examiner,
            metrics,
            limits=limits,
            stopping=lambda: bool(signals),
            working=departure.working,
        )
    log.info("worker stopped", messages=done, signals=[signal.Signals(number).name for number in signals])
    return done


def warmed_up(examiner: Examiner) -> None:
    """Warm up; a GPU, memory or disk that fails then is told as one that fails later (``MachineError``)."""
    try:
        examiner.warm_up()
    except (OSError, RuntimeError, MemoryError) as error:
        fault = machine_fault(error)
        if fault is None:
            raise
        raise MachineError(f"warming up: {fault.advice} No message was taken ({error})") from error


def serve(
    source: Source,
    delivery: Delivery,
    examiner: Examiner,
    metrics: Metrics,
    *,
    limits: Limits,
    stopping: Callable[[], bool],
    working: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> int:
    """Work until told to stop or at a limit; gives the number of messages done.

    It is ``working`` while it depends on no broker.
    """
    done = 0
    waiting_since = time.monotonic()
    while not stopping() and done != limits.count:
        metrics.pulse.beat()
        message = source.take(POLL_S)
        metrics.show_lag(source.lag())
        metrics.show_queue(*source.waiting())
        metrics.show_gpu_memory(examiner.gpu_memory())
        if message is None:
            if not source.joined:
                waiting_since = time.monotonic()  # to wait for the group is not to be idle
            elif limits.idle_timeout_s is not None and time.monotonic() - waiting_since > limits.idle_timeout_s:
                break
            continue
        deaths = source.begin(message) if message.unread is None else 0
        if deaths is None:
            continue
        with working():
            killed = deaths >= DEATHS_TO_REJECT
            answer = killer(message, deaths) if killed else _answer(message, examiner, source, deaths)
        started = time.monotonic()
        _deliver(delivery, answer.outputs, message)
        _report(message, answer, metrics, time.monotonic() - started, examiner.clock())
        if answer.chosen is not None and not stopping():
            metrics.pulse.beat()
            behind = sum(source.lag().values()) > limits.sensitivity_lag
            with working():
                _measure(message, answer.chosen, examiner, metrics, behind=behind)
        done += 1
        waiting_since = time.monotonic()
    return done


def answer_to(message: Message, examiner: Examiner) -> Answer:
    """Give all that is to be published about one message; nothing has happened yet when it returns."""
    outputs: list[Output] = []
    findings: list[Findings] = []
    rejects: list[BadFrame] = []
    chosen: Examined | None = None
    spent = {"read": 0.0}
    with contextlib.ExitStack() as cleanup:
        try:
            source = frame_source(message, examiner.claims, max_message_bytes=examiner.max_message_bytes)
            if not isinstance(source, bytes):
                cleanup.enter_context(contextlib.closing(source))
            named = None if examiner.others is None else cleanup.enter_context(examiner.others.named_by(message))
            flags = _flags(message, examiner, cleanup)
            for frame, read_s in _timed(_frames(source, message, examiner, flags)):
                spent["read"] += read_s
                try:
                    one = _examined(_readable(frame), examiner, named)
                except BadFrame as bad:
                    rejects.append(bad)
                    outputs.append(dead_letter(message, bad, extension=_extension(frame)))
                    continue
                found = one.findings
                now = mjd_tai(examiner.clock())
                findings.append(found)
                # One of a message at most: it stays in memory until the answers are committed.
                if chosen is None and examiner.sensitivity is not None and examiner.sensitivity.wants(one.frame):
                    chosen = one
                pictures = streak_cutouts(one.frame, found.streaks, examiner.cutout_px)
                outputs += streak_alerts(found, message, source, now, examiner.framing, pictures)
                outputs += candidate_lists(found, message, source, now)
                pieces = candidate_cutouts(one.frame, found, examiner.cutout_px)
                outputs += candidate_alerts(found, message, source, now, examiner.framing, pieces)
                outputs.append(
                    examined_summary(
                        found,
                        message,
                        seconds={"read": read_s},
                        now_mjd_tai=now,
                        program_version=examiner.program_version,
                        weights_versions=examiner.weights_versions,
                        framing=examiner.framing,
                    )
                )
            if not outputs:
                raise BadFrame("no-image", "no science image in the message")  # noqa: TRY301 - one way out for all
        except BadFrame as bad:
            rejects.append(bad)
            outputs.append(dead_letter(message, bad, extension=None))
    return Answer(tuple(counted(outputs)), tuple(findings), tuple(rejects), spent, chosen)


def _examined(frame: Frame, examiner: Examiner, named: Named | None) -> Examined:
    """Examine a frame, with the other exposures of its field that its message names. Raises ``BadFrame``."""
    if not named:
        return Examined(frame, (), examiner.examine(frame))
    started = time.perf_counter()
    others = named.beside(frame)
    seconds = time.perf_counter() - started
    found = examiner.examine(frame, others=others)
    unread = (UNREAD,) if named.unread else ()
    found = replace(found, seconds={**found.seconds, "prepare others": seconds}, flags=(*found.flags, *unread))
    return Examined(frame, others, found)


def killer(message: Message, deaths: int) -> Answer:
    """Give the answer to a message that took its workers down: a dead letter, without a look at it."""
    bad = BadFrame(
        "killed-worker",
        f"{deaths} workers ended with this message in hand, none of them finished it: killed (for memory?), crashed in "
        "native code, stopped by an error, or silent for too long; their logs name it as 'message begun'",
    )
    return Answer(tuple(counted([dead_letter(message, bad, extension=None)])), (), (bad,), {})


def _answer(message: Message, examiner: Examiner, source: Source, deaths: int) -> Answer:
    """Give the answer to a message; a fault of the machine comes out as such, and is not laid to the message."""
    log.info("message begun", name=message.name, deaths=deaths)
    try:
        return answer_to(message, examiner)
    except (OSError, RuntimeError, MemoryError) as error:
        fault = machine_fault(error)
        if fault is None:
            raise
        if not fault.by_frame:
            source.put_back(message)
        third = " A frame that does this three times is rejected." if fault.by_frame else ""
        raise MachineError(f"{message.name}: {fault.advice}{third} Nothing was acknowledged ({error})") from error


def _measure(message: Message, chosen: Examined, examiner: Examiner, metrics: Metrics, *, behind: bool) -> None:
    """Examine a copy of a frame with synthetic streaks in it; all about the frame itself is committed already.

    Nothing of it is published but metrics. A frame that cannot be examined so is counted and passed over.
    """
    if examiner.sensitivity is None or behind:
        metrics.sensitivity.frames.labels("behind").inc()
        return
    try:
        trial = examiner.sensitivity.measure(chosen.frame, chosen.findings, chosen.others)
    except BadFrame as bad:
        metrics.sensitivity.frames.labels("refused").inc()
        log.warning("sensitivity not measured", name=message.name, reason=bad.reason, detail=bad.detail)
        return
    except (OSError, RuntimeError, MemoryError) as error:
        fault = machine_fault(error)
        if fault is None:
            raise
        text = f"{fault.advice} In the measure of sensitivity on {message.name}, whose answers are published ({error})"
        raise MachineError(text) from error
    if trial is None:
        metrics.sensitivity.frames.labels("no-room").inc()
        return
    metrics.sensitivity.count(trial)
    log.info(
        "sensitivity measured",
        name=message.name,
        injected=len(trial.found),
        found=int(trial.found.sum()),
        half_magnitude=trial.half_magnitude,
        half_snr=trial.half_snr,
        seconds=round(trial.seconds, 3),
    )


def _deliver(delivery: Delivery, outputs: tuple[Output, ...], message: Message) -> None:
    """Deliver; a dead letter that its topic refuses for its size goes without its bytes: it must not hold up the rest.

    A batch that another program packed may hold more than the topic of the dead letters takes unpacked.
    """
    try:
        delivery.deliver(outputs, message)
    except MessageTooLargeError as refused:
        lean = without_values(outputs)
        if lean == outputs:
            raise
        log.warning("dead letter without its bytes", name=message.name, why=str(refused))
        delivery.deliver(lean, message)


def _flags(message: Message, examiner: Examiner, cleanup: contextlib.ExitStack) -> BinaryIO | BadFrame | None:
    """Open the file of flag maps that a message names; gives why where it cannot be had."""
    uri = message.header(FLAGS_URI)
    if uri is None:
        return None
    try:
        return cleanup.enter_context(contextlib.closing(examiner.claims.open(uri)))
    except BadFrame as bad:
        log.warning("flags not used", name=message.name, uri=uri, reason=bad.reason, detail=bad.detail)
        return bad


def _frames(
    source: bytes | BinaryIO, message: Message, examiner: Examiner, flags: BinaryIO | BadFrame | None
) -> Iterator[Frame | BadFrame]:
    survey = message.header("survey")
    given = {} if flags is None else {"flags": flags}
    for frame in examiner.read(source, name=message.name, survey=survey, extension=message.extension, **given):
        yield frame if isinstance(frame, BadFrame) else as_message_says(frame, message)


def _timed(frames: Iterable[Frame | BadFrame]) -> Iterator[tuple[Frame | BadFrame, float]]:
    """Give each frame with the seconds that reading it took."""
    started = time.perf_counter()
    for frame in frames:
        yield frame, time.perf_counter() - started
        started = time.perf_counter()


def _readable(frame: Frame | BadFrame) -> Frame:
    if isinstance(frame, BadFrame):
        raise frame
    return frame


def _extension(frame: Frame | BadFrame) -> int | None:
    return frame.extension if isinstance(frame, BadFrame) else frame.header.extension


def _report(message: Message, answer: Answer, metrics: Metrics, publish_s: float, now_unix_s: float) -> None:
    size_bytes = len(message.value or b"")
    metrics.count(
        answer.findings,
        answer.rejects,
        seconds={**answer.seconds, "publish": publish_s},
        # Not every program gives its messages a time.
        latency_s=now_unix_s - message.timestamp_ms / 1000 if message.timestamp_ms > 0 else None,
        size_bytes=size_bytes,
        now_mjd_tai=mjd_tai(now_unix_s),
    )
    log.info(
        "message done",
        name=message.name,
        examined=len(answer.findings),
        rejected=len(answer.rejects),
        streaks=sum(len(found.streaks) for found in answer.findings),
        lenses=sum(len(found.lenses) for found in answer.findings),
        mergers=sum(len(found.mergers) for found in answer.findings),
        bytes=size_bytes,
        publish_s=round(publish_s, 3),
    )
    for bad in answer.rejects:
        log.warning("frame rejected", name=message.name, reason=bad.reason, detail=bad.detail)
