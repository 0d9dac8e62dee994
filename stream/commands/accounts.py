"""Commands that ask whether all is there: ``audit``, and ``rejected`` with the way back for dead letters."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from stream.broker import BrokerError, check_reachable, explained
from stream.commands.options import CONNECTION, REGISTRY, with_settings
from stream.deadletters import Replayer, dead_letters
from stream.logs import configure_logs
from stream.settings import Settings  # noqa: TC001 - the options are made from the annotations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream.deadletters import DeadLetter
    from stream.ledger import Problem

SHOWN = 100
TROUBLE = 2  # as of grep and diff: 1 is an answer, 2 is none


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command("audit")(audit_command)
    app.command("rejected")(rejected_command)


@contextlib.contextmanager
def _topics_read(settings: Settings) -> Iterator[None]:
    """Leave with status 2 when the topics cannot be read, and say why."""
    configure_logs("console")
    try:
        with explained(settings):
            check_reachable(settings)
            yield
    except BrokerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(TROUBLE) from None


@with_settings(*CONNECTION, *REGISTRY, "group_id", "transaction_timeout_s")
def audit_command(
    *,
    settings: Settings,
    overdue: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="What has been pending for longer is a problem too."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Name at most so many problems of a kind; all are counted.")
    ] = SHOWN,
) -> None:
    """Check that no frame was lost or answered twice, and no alert either.

    Reads `frames`, `frames.examined`, `frames.rejected` and `streaks`; what the workers of the group are not done with
    is pending. Exit status: 0 when all is well, 1 when something is missing or doubled, 2 when that could not be told.

    For example:

        needlestream audit --bootstrap-servers kafka:9092 --overdue 600
    """
    from stream.audit import audit  # noqa: PLC0415 - numpy: only this command waits

    with _topics_read(settings):
        found = audit(settings, overdue_s=overdue, now_unix_s=time.time())
    rejected = sum(found.rejected.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(found.rejected.items()))
    typer.echo(f"messages done     {found.messages:>12,}")
    typer.echo(f"messages pending  {found.pending:>12,}")
    typer.echo(f"HDUs received     {found.examined + rejected:>12,}")
    typer.echo(f"HDUs examined     {found.examined:>12,}")
    typer.echo(f"HDUs rejected     {rejected:>12,}" + (f"  ({reasons})" if reasons else ""))
    typer.echo(f"alerts            {found.alerts:>12,}")
    typer.echo(f"tracks            {found.tracks:>12,}")
    if found.beyond:
        typer.echo(f"{found.beyond:,} messages without an answer are older than what retention left of the answers")
    _show(found.problems, limit)
    if found.problems:
        raise typer.Exit(1)
    typer.echo("nothing missing, nothing doubled")


@with_settings(*CONNECTION, "delivery", "transaction_timeout_s", "max_message_bytes")
def rejected_command(
    *,
    settings: Settings,
    reason: Annotated[str | None, typer.Option(help="Only those with this reason.", metavar="WORD")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many, the oldest of each partition first.")
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Send them to `frames` again, each once.")] = False,
) -> None:
    """List the dead letters, one a line: where it lies, reason, frame message, size, detail; then counts by reason.

    With --replay they are sent again as they came (for one HDU of several, only that one is meant), with a header that
    names the dead letter. What was sent again is noted with the broker: to run it twice sends nothing twice.

    For example:

        needlestream rejected --reason bad-header --limit 20

        needlestream rejected --reason claim-missing --replay
    """
    with _topics_read(settings):
        letters = dead_letters(settings, reason=reason)
        counts = _send_again(settings, letters, limit) if replay else _list(letters, limit)
    for word, count in sorted(counts.items()):
        typer.echo(f"{count:>9,} {word or '(no reason)'}")
    typer.echo(f"{counts.total():>9,} {'sent again' if replay else 'dead letters'}")


def _show(problems: Iterable[Problem], limit: int) -> None:
    shown: Counter[str] = Counter()
    for problem in problems:
        shown[problem.kind] += 1
        if shown[problem.kind] <= limit:
            typer.echo(f"{problem.kind}\t{problem.what}\t{problem.detail}")
    for kind, count in sorted(shown.items()):
        typer.echo(f"{count:>9,} {kind}")


def _list(letters: Iterable[DeadLetter], limit: int | None) -> Counter[str]:
    counts: Counter[str] = Counter()
    for letter in letters:
        size = "not here" if letter.left_out == "value" else f"{len(letter.message.value or b''):,} bytes"
        detail = " ".join(letter.detail.split())
        typer.echo(f"{letter.name}\t{letter.reason}\t{letter.origin}\t{size}\t{detail}")
        counts[letter.reason] += 1
        if counts.total() == limit:
            break
    return counts


def _send_again(settings: Settings, letters: Iterable[DeadLetter], limit: int | None) -> Counter[str]:
    counts: Counter[str] = Counter()
    with contextlib.closing(Replayer(settings)) as replayer:
        for letter in letters:
            if letter.left_out:
                told = f"not sent again: its {letter.left_out} is not here; is {letter.origin} still there?"
                typer.echo(f"{letter.name}\t{letter.reason}\t{told}", err=True)
            elif replayer.send(letter):
                counts[letter.reason] += 1
                typer.echo(f"{letter.name}\t{letter.reason}\t{letter.origin}")
            if counts.total() == limit:
                break
    return counts
