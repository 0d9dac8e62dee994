"""``needlestream watch``: the live page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream.claims import RootError, check_roots
from stream.commands.options import BELIEF, CONNECTION, REGISTRY, broker_errors, frame_limits, with_settings
from stream.logs import configure_logs
from stream.settings import Settings  # noqa: TC001 - with_settings reads the annotations

if TYPE_CHECKING:
    import typer

PAGE = (
    *("watch_port", "watch_address", "watch_past_s", "group_id", "survey"),
    *("max_message_bytes", *BELIEF, "max_claim_bytes", "claim_roots", "log_format"),
)


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command("watch")(watch_command)


@with_settings(*CONNECTION, *REGISTRY, *PAGE)
def watch_command(*, settings: Settings) -> None:
    """Serve the live page: the focal plane, the newest frames, alerts and tracks, and whether the workers keep up.

    Follows the output topics of needlestream like any subscriber, without a group, and reads only; the pixels come from
    `frames`. --group-id says whose lag is shown. The page has neither users nor encryption, and is for this machine
    alone unless --watch-address says otherwise.

    For example:

        needlestream watch --bootstrap-servers kafka:9092

        needlestream watch --topic-prefix night. --watch-port 8011
    """
    import typer  # noqa: PLC0415

    configure_logs(settings.log_format)
    try:
        check_roots(settings.claim_roots)
    except RootError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    from stream.watch import run_watch  # noqa: PLC0415 - with astropy and numba: --help does not wait for them

    with broker_errors():
        run_watch(settings, frame_limits(settings))
