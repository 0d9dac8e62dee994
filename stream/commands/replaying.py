"""``needlestream replay``: an archive into the topic ``frames``, each frame once, in the order of the nights."""

from __future__ import annotations

import contextlib
import csv
import functools
import re
import sqlite3
import time
from collections import Counter
from importlib import metadata
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from stream.archive import Outcome, Way, due, paced, parse_rate, replay, run_name, state_folder
from stream.broker import BrokerError, check_reachable, explained
from stream.commands.options import BELIEF, CONNECTION, CREATION, broker_errors, frame_limits, with_settings
from stream.inventory import Inventory, Selection
from stream.lag import Gate, WorkersLag
from stream.logs import configure_logs
from stream.machine import MachineError, machine_fault
from stream.manifest import Run, SentFrame, SentFrames, sent_before
from stream.messages import FRAMES
from stream.settings import Settings  # noqa: TC001 - the options are made from the annotations
from stream.signals import stop_signals
from stream.topics import create_missing_topics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from detector.frame import FrameLabel
    from stream.inventory import ArchivedFile

log = structlog.get_logger()

SAY_S = 30.0  # between two lines of progress where there is no terminal
INTERRUPTED = 130  # as a shell says of Ctrl-C: not all is sent
MANIFEST_COLUMNS = (
    *("status", "file", "extension", "exposure", "ccd", "field", "filter", "mid_time_utc", "bytes", "sha256"),
    *("topic", "partition", "offset", "detail"),
)
SELECTION = "Which frames (each may be given more than once, but the times)"


def register(app: typer.Typer) -> None:
    """Add this module's command to the program."""
    app.command("replay")(replay_command)


def _rate(text: str) -> str:
    try:
        parse_rate(text)
    except ValueError:
        raise typer.BadParameter("give max, real-time, or a speed-up such as 10x") from None
    return text


def _run(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise typer.BadParameter("give up to 100 letters, digits, dots, dashes and underscores")
    return text


def _time(text: str | None) -> str | None:
    try:
        _mjd_tai(text)
    except ValueError:
        raise typer.BadParameter("give a date or a time in UTC, such as 2024-05-06 or 2024-05-06T01:30:00") from None
    return text


@with_settings(*CONNECTION, *CREATION, *BELIEF, "group_id", "delivery", "transaction_timeout_s")
def replay_command(
    *,
    paths: Annotated[list[Path], typer.Argument(exists=True, help="FITS files and folders (searched to the bottom).")],
    settings: Settings,
    run: Annotated[
        str | None, typer.Option(help="Name of this replay; else made from the paths.", callback=_run)
    ] = None,
    rate: Annotated[str, typer.Option(help="max, real-time, or a speed-up such as 10x.", callback=_rate)] = "max",
    max_lag: Annotated[
        int | None, typer.Option(min=1, help="Wait while so many messages are waiting for the group's workers.")
    ] = None,
    split: Annotated[bool, typer.Option("--split", help="Each science HDU becomes a message of its own.")] = False,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Each message names the other exposures of its field, for workers that may read PATHS (claim_roots).",
        ),
    ] = False,
    keep_copies: Annotated[
        bool, typer.Option("--keep-copies", help="Send the same frame again when it is there in several files.")
    ] = False,
    after: Annotated[
        str | None, typer.Option(help="From this time on (UTC).", callback=_time, rich_help_panel=SELECTION)
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="Before this time (UTC).", callback=_time, rich_help_panel=SELECTION)
    ] = None,
    field: Annotated[list[str] | None, typer.Option(help="Of this field.", rich_help_panel=SELECTION)] = None,
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", help="In this filter.", rich_help_panel=SELECTION)
    ] = None,
    exposure: Annotated[list[str] | None, typer.Option(help="This exposure.", rich_help_panel=SELECTION)] = None,
    ccd: Annotated[list[str] | None, typer.Option(help="Of this CCD.", rich_help_panel=SELECTION)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")] = False,
    manifest: Annotated[
        Path | None, typer.Option(dir_okay=False, help="CSV of all that the run has sent, and of what was left out.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the inventory of headers; any may be deleted.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Send all of it again.")] = False,
) -> None:
    """Send archived exposures into the topic `frames`, each once, in the order of their mid-times.

    Given again, the same command goes on where it was, and sends what is new: what a run has sent is kept in the topic
    `frames.sent`, in the same transactions as the frames. Frames carry the run's name in the header `replayed`. Exit
    With --together each frame is examined with the other exposures of its field and night, as `detect` does it: the
    workers read these by the same absolute paths, under their `claim_roots`. Exit
    status 1 when a file could not be sent (the others are), 130 when it was told to stop before the end.

    For example:

        needlestream replay night/ --rate 10x

        needlestream replay archive/ --run spring --after 2024-03-01 --filter r --max-lag 50 --manifest spring.csv

        needlestream replay mosaic_70hdu.fits.fz --split --dry-run
    """
    from detector.fitsarchive import file_pointing, frame_labels, split_frames  # noqa: PLC0415 - astropy: only this command waits

    configure_logs(settings.log_format)
    selection = Selection(
        *(_mjd_tai(after), _mjd_tai(before)),
        *(tuple(names or ()) for names in (field, filter_, exposure, ccd)),
    )
    name = run or run_name(paths)
    limits = frame_limits(settings)
    screen = Console(stderr=True)
    folder = state or state_folder()
    with broker_errors(), explained(settings), _disk_faults(folder), contextlib.ExitStack() as cleanup:
        if not dry_run:
            check_reachable(settings)
        signals = cleanup.enter_context(stop_signals())

        def stopping() -> bool:
            return bool(signals)

        inventory = Inventory(folder / "archive.sqlite", metadata.version("needlestream"))
        cleanup.callback(inventory.close)
        with screen.status("reading headers") as status:
            look = functools.partial(frame_labels, limits=limits)

            def looked(number: int) -> None:
                if number % 100 == 0:
                    status.update(f"reading headers: {number:,} files")

            unread = inventory.scan(paths, look, looked=looked)
            if together:
                inventory.point(functools.partial(file_pointing, limits=limits), looked=looked)
        totals = inventory.choose(selection)
        files = inventory.chosen(selection)
        if dry_run:
            _list(files, _sent_or_nothing(settings, name), split=split, keep_copies=keep_copies)
            return
        create_missing_topics(settings)
        feed = Run(settings, name)
        cleanup.callback(feed.close)
        if restart:
            feed.forget()
        if len(feed.sent):
            log.info("going on", run=name, sent_before=len(feed.sent), again="--restart sends all of it again")
        lag = WorkersLag(settings, feed) if max_lag is not None else None
        if lag is not None:
            cleanup.callback(lag.close)
        gate = Gate(lag or (lambda: 0), max_lag, stopping)
        way = Way(split=functools.partial(split_frames, limits=limits), each_hdu=split, keep_copies=keep_copies,
                  wait=gate.wait, stopping=stopping,
                  field=inventory.field_of if together else lambda path: (path,))  # fmt: skip
        write = cleanup.enter_context(_manifest(manifest, settings, feed))
        outcomes = replay(paced(files, parse_rate(rate), stopping), feed, way)
        counts = _follow(screen, outcomes, totals, write)
    for line in unread:
        typer.echo(f"refused: {line}", err=True)
    _conclude(settings, name, counts, totals[0], refused=len(unread), stopped=stopping())


def _conclude(settings: Settings, name: str, counts: Counter[str], files: int, *, refused: int, stopped: bool) -> None:
    """Say what became of the files, and leave with the status that says so."""
    typer.echo(
        f"{counts['sent']:,} of {files:,} files sent to {settings.topic(FRAMES)} ({counts['messages']:,} messages, run "
        f"{name}); {counts['sent-before']:,} sent before, "
        f"{counts['same-content'] + counts['same-exposure']:,} copies left out, {counts['refused'] + refused:,} refused"
    )
    if counts["sent-before"] and not counts["sent"]:
        typer.echo("nothing new: --restart sends all of it again, --run NAME begins another replay", err=True)
    if stopped:
        typer.echo("stopped: the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED)
    if counts["refused"] or refused:
        raise typer.Exit(1)


def _follow(screen: Console, outcomes: Iterator[Outcome], totals: tuple[int, int], write: Any) -> Counter[str]:
    """Go through the replay with a bar, or with a line now and then; gives the files by what became of them."""
    counts: Counter[str] = Counter()
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    started = said = time.monotonic()
    sent_bytes = past_bytes = 0
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task("replay", total=totals[1])
        for outcome in outcomes:
            counts[outcome.reason or "sent"] += 1
            counts["messages"] += outcome.messages
            past_bytes += outcome.file.size_bytes
            sent_bytes += outcome.file.size_bytes if outcome.messages else 0
            if outcome.reason not in {"", "sent-before", "stopped"}:
                write(outcome)
                log.warning("left out", file=outcome.file.shown, reason=outcome.reason, detail=outcome.detail)
            done = counts.total() - counts["messages"]
            bar.update(task, completed=past_bytes, description=f"{done:,}/{totals[0]:,} {outcome.file.path.name}")
            now = time.monotonic()
            if bar.disable and now - said > SAY_S:
                said = now
                rate = sent_bytes / (now - started)
                left_s = round((totals[1] - past_bytes) / rate) if rate else None
                log.info("replay", files=done, of=totals[0], megabytes_s=round(rate / 1e6, 2), left_s=left_s)
    return counts


@contextlib.contextmanager
def _manifest(path: Path | None, settings: Settings, feed: Run) -> Iterator[Any]:
    """Lend what notes a file that was left out; at the end the table of these and of all that was sent is there."""
    if path is None:
        yield lambda _: None
        return
    from stream.tables import replacing, utc_text  # noqa: PLC0415 - astropy

    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(MANIFEST_COLUMNS)

        def left_out(outcome: Outcome) -> None:
            words = _identity(outcome.file.wanted, utc_text)
            file = outcome.file
            table.writerow([outcome.reason, file.path, "", *words, file.size_bytes, *[""] * 4, outcome.detail])

        yield left_out
        for one in feed.sent:
            words = _identity(one.frames, utc_text)
            place = (settings.topic(FRAMES), one.partition, one.offset)
            extension = "" if one.extension is None else one.extension
            table.writerow(["sent", one.file, extension, *words, one.size_bytes, one.sha256, *place, ""])


def _identity(frames: Sequence[FrameLabel], utc_text: Any) -> list[str]:
    """Give exposure, CCD, field, filter and time of some frames; of several, what each of them has, once."""
    times = [frame.mid_time_mjd_tai for frame in frames if frame.mid_time_mjd_tai is not None]
    columns = ([getattr(frame, name) for frame in frames] for name in ("exposure", "ccd", "field", "filter_name"))
    words = [" ".join(dict.fromkeys(word for word in column if word)) for column in columns]
    return [*words, utc_text(min(times)) if times else ""]


def _list(files: Iterator[ArchivedFile], sent: SentFrames, *, split: bool, keep_copies: bool) -> None:
    """Say of each file in its turn what would become of it, as far as headers tell."""
    from stream.tables import utc_text  # noqa: PLC0415 - astropy

    counts: Counter[str] = Counter()
    for file in files:
        left = due(file, sent, keep_copies=keep_copies)
        if not left.reason:
            counts["messages"] += 1 if left.whole(file, each_hdu=split) else len(left.frames)
            sent.add(SentFrame(str(file.path), None, file.size_bytes, "", left.frames))
        reason = left.reason or "send"
        counts[reason] += 1
        words = (word or "-" for word in _identity(file.wanted, utc_text))
        typer.echo("\t".join((reason, *words, f"{file.size_bytes}", file.shown)))
    typer.echo(
        f"{counts['send']:,} files would be sent in {counts['messages']:,} messages; "
        f"{counts['sent-before']:,} sent before, {counts['same-exposure']:,} copies by their headers",
        err=True,
    )


def _sent_or_nothing(settings: Settings, name: str) -> SentFrames:
    try:
        check_reachable(settings)
        return sent_before(settings, name)
    except BrokerError as error:
        typer.echo(f"what was sent before is not known: {error}", err=True)
        return SentFrames()


@contextlib.contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    """Turn a disk that fails into a sentence."""
    try:
        yield
    except sqlite3.Error as error:
        raise MachineError(
            f"the inventory in {folder}: {error}. Is there room? --state names another folder"
        ) from error
    except OSError as error:
        fault = machine_fault(error)
        raise MachineError(fault.advice if fault else str(error)) from error


def _mjd_tai(text: str | None) -> float | None:
    if text is None:
        return None
    from astropy.time import Time  # noqa: PLC0415 - seconds

    return float(Time(text.rstrip("Z"), scale="utc").tai.mjd)
