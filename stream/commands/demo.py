"""``needlestream demo``: the whole stream on one machine, told step by step; what a new user runs first.

Frames (simulated with their truth, or the user's own) go by ``replay`` through the embedded broker to ``run``, three
processes as in a real night, and everything shown is read from the output topics. Exit status 1 when counts out are
not counts in, or when one of the three fails: then its last lines are shown. All are ended in every case.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import shlex
import signal
import socket
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream.broker import BrokerError, check_reachable, explained
from stream.children import Child, ChildError, child
from stream.commands.demo_report import Places, Results, head, report, say
from stream.commands.evaluation import FIRST_EVALUATION_SEED, frame_size
from stream.commands.examination import training_extra
from stream.commands.options import broker_errors, with_settings
from stream.embedded import ADDRESS, broker_binary
from stream.framing import decode
from stream.messages import EXAMINED, FRAMES, LENSES, MERGERS, REJECTED, STREAKS, Message, mjd_tai
from stream.settings import Settings
from stream.subscriber import Subscriber
from stream.topics import create_missing_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.progress import TaskID

    from stream.candidatetable import Class
    from stream.commands.demo_report import Key

ASTEROIDS_A_CCD = 25.0
LENSES_A_CCD, MERGERS_A_CCD, IMPOSTORS_A_CCD = 3.0, 2.0, 1.0  # far more than the sky has: some are to be seen
CLASS_OF: dict[str, Class] = {LENSES: "lenses", MERGERS: "mergers"}  # by topic
SESSION_TIMEOUT_S = 6.0  # the embedded broker lets a group's first member wait for half of this
READY_S = 120.0  # for a machine that is busy with other things
MOST_BYTES = 4_000_000_000  # the embedded broker keeps every frame in memory
PLAIN_WIDTH = 110  # of what goes into a pipe or a file


@dataclass(frozen=True)
class Heard:
    """A message of an output topic, and when (Unix time) it was in the subscriber's hands."""

    at_unix_s: float
    message: Message


def register(app: typer.Typer) -> None:
    """Add this module's command to the program."""
    app.command("demo")(demo_command)


@with_settings("survey", "device", "threshold")
def demo_command(
    *,
    frames: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, metavar="[FRAME]...", help="FITS files and folders of your own; else simulated."),
    ] = None,
    settings: Settings,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("demo-output"),
    size: Annotated[str, typer.Option(metavar="HxW", help="Of a simulated CCD.")] = "1024x1024",
    ccds: Annotated[int, typer.Option(min=1, help="Simulated CCDs of an exposure.")] = 2,
    dithers: Annotated[int, typer.Option(min=1, help="Simulated exposures of the field.")] = 4,
    weights: Annotated[str, typer.Option(help="The network: a shipped name or a .safetensors file.")] = "streaknet",
) -> None:
    """Show it all: frames through a broker and a worker of their own on this machine, and what was found in them.

    Without FRAMES a dithered Euclid VIS exposure is simulated, and what was found is shown beside what was put in:
    streaks of asteroids, lenses and mergers.

    For example:

        needlestream demo

        needlestream demo night/ --out night-demo
    """
    screen = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    shape = frame_size(size)
    places = Places(out)
    try:
        with broker_errors(), _ended_by_sigterm():
            broker_binary()  # before anybody waits for a simulation
            places.logs.mkdir(parents=True, exist_ok=True)
            simulated = not frames
            files = _simulate(screen, places, shape, ccds, dithers) if simulated else _own(screen, frames or [])
            settings = _demo_settings(settings)
            results = _stream(screen, places, files, settings, weights)
            balanced = report(screen, places, files, settings, results, simulated=simulated)
    except ChildError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"error: {error.filename or out}: {error.strerror or error} (--out says where to write)", err=True)
        raise typer.Exit(1) from None
    if not balanced:
        raise typer.Exit(1)


# --- 1: the frames ----------------------------------------------------------------------------------------------------


def _simulate(screen: Console, places: Places, shape: tuple[int, int], ccds: int, dithers: int) -> list[Path]:
    """Simulate one field; gives its files in the order of time."""
    with training_extra():
        from models.simulate.exposure import Plan, write_fields  # noqa: PLC0415 - numba compiles when it is run
    head(screen, 1, "The frames: one simulated Euclid VIS field")
    started = time.monotonic()
    plan = Plan(
        "euclid-vis",
        asteroids=ASTEROIDS_A_CCD,
        shape=shape,
        ccds=ccds,
        dithers=dithers,
        lenses=LENSES_A_CCD,
        mergers=MERGERS_A_CCD,
        impostors=IMPOSTORS_A_CCD,
    )
    with _bars(screen) as bar:
        task = bar.add_task("exposures simulated", total=dithers)
        advance = functools.partial(_advance, bar, task)
        truth = write_fields(places.frames, plan, FIRST_EVALUATION_SEED, progress=advance)
    with truth.open(newline="") as rows:
        asteroids = len({row["object"] for row in csv.DictReader(rows)})
    # The folder may hold frames of an earlier demo: the list has those of this one.
    with (places.frames / "frames.csv").open(newline="") as rows:
        files = list(dict.fromkeys(places.frames / row["frame"] for row in csv.DictReader(rows)))
    say(
        screen,
        f"{dithers} dithered exposures of {ccds} CCDs, {shape[1]} x {shape[0]} px each, with stars, galaxies and "
        f"cosmic rays; {asteroids} asteroids move through them. Among the galaxies are about {LENSES_A_CCD:g} lenses, "
        f"{MERGERS_A_CCD:g} mergers and {IMPOSTORS_A_CCD:g} impostor a CCD, far more than the sky has. "
        f"{_size(files)}, seed {FIRST_EVALUATION_SEED}, made in {time.monotonic() - started:.0f} s.",
    )
    return files


def _own(screen: Console, paths: Sequence[Path]) -> list[Path]:
    """Look at the user's files. Raises ``typer.BadParameter`` where the embedded broker is no place for them."""
    from stream.batch import fits_files  # noqa: PLC0415 - with astropy: --help does not wait for it

    files = fits_files(paths)
    if not files:
        raise typer.BadParameter(f"no FITS file in {', '.join(map(str, paths))}", param_hint="FRAME...")
    size_bytes = sum(file.stat().st_size for file in files)
    limit_bytes = Settings.model_fields["max_message_bytes"].default
    if size_bytes > MOST_BYTES:
        raise typer.BadParameter(
            f"{_size(files)}: the demo's broker keeps all in memory and takes {MOST_BYTES / 1e9:.0f} GB; name fewer "
            "files, or use `needlestream replay` with a Kafka of your own",
            param_hint="FRAME...",
        )
    for file in files:
        if file.stat().st_size > limit_bytes:
            raise typer.BadParameter(
                f"{file} has {file.stat().st_size:,} bytes, a message takes {limit_bytes:,}: leave it out, or send its "
                "HDUs one by one (`needlestream replay --split`)",
                param_hint="FRAME...",
            )
    head(screen, 1, "The frames: your own")
    say(screen, f"{_size(files)}: {', '.join(escape(str(path)) for path in paths)}")
    return files


# --- 2: the stream ----------------------------------------------------------------------------------------------------


def _demo_settings(chosen: Settings) -> Settings:
    """Give the settings of a broker of our own: of what the user's environment says, only the science counts."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port = probe.getsockname()[1]
    return Settings.model_construct(
        bootstrap_servers=f"{ADDRESS}:{port}",
        delivery="at-least-once",
        session_timeout_s=SESSION_TIMEOUT_S,
        survey=chosen.survey,
        device=chosen.device,
        threshold=chosen.threshold,
    )


def _stream(screen: Console, places: Places, files: Sequence[Path], settings: Settings, weights: str) -> Results:
    """Run broker, worker and replay; gives all that came out. Raises ``ChildError``, ``BrokerError``."""
    address = settings.bootstrap_servers
    worker_words = ["run", "--bootstrap-servers", address, "--delivery", settings.delivery]
    worker_words += ["--session-timeout-s", f"{settings.session_timeout_s:g}", "--count", str(len(files))]
    for name in ("survey", "device", "threshold"):
        if getattr(settings, name) != Settings.model_fields[name].default:
            worker_words += [f"--{name}", str(getattr(settings, name))]
    worker_words += ["--classes", ",".join(("asteroids", *CLASS_OF.values()))]
    worker_words += [] if weights == "streaknet" else ["--weights", weights]
    # All that is given comes back, copies too; the embedded broker has forgotten what an earlier demo sent.
    replay_words = ["replay", *map(str, files), "--bootstrap-servers", address, "--delivery", settings.delivery]
    replay_words += ["--state", str(places.logs), "--keep-copies", "--run", "demo"]

    head(screen, 2, "The stream: three processes on this machine")
    with contextlib.ExitStack() as running:
        broker_words = ["broker", "--port", address.rpartition(":")[2]]
        broker = running.enter_context(child("broker", broker_words, places.logs / "broker.log"))
        _wait(broker, lambda: _answers(settings))
        _show_process(screen, "broker", broker_words)
        with explained(settings), contextlib.closing(_subscriber(settings)) as subscriber:
            worker = running.enter_context(child("worker", worker_words, places.logs / "worker.log"))
            _show_process(screen, "worker", worker_words)
            with _bars(screen) as bar:
                bar.add_task(
                    "the worker loads its networks, compiles (minutes, but once on a machine) and joins the group",
                    total=None,
                )
                _wait(worker, lambda: "partitions assigned" in worker.said())
            _show_process(screen, "replay", ["replay", *_shortened(files), "--bootstrap-servers", address])
            replay = running.enter_context(child("replay", replay_words, places.logs / "replay.log"))
            heard = _follow(screen, subscriber, len(files), broker, worker, replay)
            sent = subscriber.count(FRAMES)
    results = _results(heard, sent)
    say(
        screen,
        f"{sent} messages sent; {results.n_examined} frames examined, {len(results.rejected)} rejected; "
        f"{results.n_alerts} streaks, {results.n_candidates} lenses and mergers published.",
    )
    return results


def _answers(settings: Settings) -> bool:
    try:
        check_reachable(settings)
    except BrokerError:
        return False
    return True


def _subscriber(settings: Settings) -> Subscriber:
    create_missing_topics(settings)
    return Subscriber(settings, (STREAKS, LENSES, MERGERS, EXAMINED, REJECTED))


def _wait(process: Child, ready: Callable[[], bool]) -> None:
    """Return when it is ready. Raises ``ChildError`` when it ends before, or when that takes too long."""
    deadline = time.monotonic() + READY_S
    while not ready():
        if process.ended():
            raise ChildError(process.explain("ended before it began"))
        if time.monotonic() > deadline:
            raise ChildError(process.explain(f"was not ready after {READY_S:.0f} s"))
        time.sleep(0.1)


def _follow(
    screen: Console, subscriber: Subscriber, messages: int, broker: Child, worker: Child, replay: Child
) -> list[Heard]:
    """Listen until the worker has done all messages; gives what was heard. Raises ``ChildError``."""
    heard: list[Heard] = []
    with _bars(screen) as bar:
        sent = bar.add_task("files sent", total=messages)
        done = bar.add_task("files done", total=messages)
        while True:
            # Asked before listening: what was published before the worker ended is then heard for sure.
            finished = replay.ended() & worker.ended()
            if broker.ended():
                raise ChildError(broker.explain("ended in the middle of the stream"))
            heard += [Heard(time.time(), message) for message in subscriber.take(0.2)]
            streaks = sum(one.message.topic == STREAKS for one in heard)
            bar.update(sent, completed=subscriber.count(FRAMES))
            bar.update(done, completed=_messages_done(heard), description=f"files done, {streaks} streaks")
            if finished and not subscriber.behind():
                return heard


def _messages_done(heard: Iterable[Heard]) -> int:
    """Count the frame messages that were answered: all answers to one are published together."""
    return len({_origin(one.message) for one in heard if one.message.topic in (EXAMINED, REJECTED)})


def _origin(message: Message) -> tuple[int, int]:
    """Partition and offset of the frame message that this one answers."""
    if message.topic == REJECTED:
        return int(message.header("input-partition") or 0), int(message.header("input-offset") or 0)
    (summary,) = decode(message.value or b"")
    return summary["inputPartition"], summary["inputOffset"]


def _results(heard: Sequence[Heard], sent: int) -> Results:
    alerts: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    summaries: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    candidates: dict[Class, dict[Key, list[Mapping[str, Any]]]] = {
        name: defaultdict(list) for name in CLASS_OF.values()
    }
    latencies_s: dict[Key, float] = {}
    for one in heard:
        if one.message.topic == REJECTED:
            continue
        (record,) = decode(one.message.value or b"")
        key = record["source"], record["extension"]
        if one.message.topic == STREAKS:
            alerts[key].append(record)
            continue
        if one.message.topic in CLASS_OF:
            candidates[CLASS_OF[one.message.topic]][key].append(record)
            continue
        summaries[key].append(record)
        latencies_s[key] = (mjd_tai(one.at_unix_s) - record["timeArrivedMjdTai"]) * 86400.0
    in_order = dict(sorted(summaries.items()))
    rejected = [one.message for one in heard if one.message.topic == REJECTED]
    return Results(sent, alerts, candidates, in_order, rejected, latencies_s)


# --- on the screen ----------------------------------------------------------------------------------------------------


def _bars(screen: Console) -> Progress:
    """Bars that are gone when their work is done; none where nobody watches."""
    columns = (
        TextColumn("  "),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _show_process(screen: Console, name: str, words: Sequence[str]) -> None:
    """Show a command as one would type it."""
    screen.print(f"   [bold]{name}[/]  needlestream {escape(shlex.join(words))}", soft_wrap=True)


def _shortened(files: Sequence[Path]) -> list[str]:
    return [str(files[0]), *(["..."] if len(files) > 1 else [])]


def _size(files: Sequence[Path]) -> str:
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    return f"{len(files)} file{'s' * (len(files) > 1)}, {megabytes:.0f} MB"


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Leave by way of every clean-up when told to end, as with Ctrl-C: the children must not stay behind."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
