"""Commands that talk to Kafka (``run``, ``topics``, ``broker``); and ``settings``: every knob, shown."""

from __future__ import annotations

import functools
import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from stream.broker import check_reachable, explained
from stream.claims import Claims, RootError, check_roots
from stream.commands.options import (
    BELIEF,
    CLASS_SETTINGS,
    CONNECTION,
    CREATION,
    REGISTRY,
    SHIPPED_JUDGE,
    broker_errors,
    config_annotation,
    settings_or_exit,
    with_settings,
)
from stream.embedded import ADDRESS, broker_command
from stream.logs import configure_logs
from stream.settings import Settings, sources
from stream.topics import create_missing_topics, topic_states

if TYPE_CHECKING:
    from collections.abc import Callable

    from detector.fits import Reading
    from detector.fitsheader import Limits
    from detector.frame import BadFrame
    from detector.survey import Survey
    from stream.service import Examiner

WORKER = (
    *("group_id", "survey", "device", "threshold", "delivery", "session_timeout_s", "max_poll_interval_s"),
    *("transaction_timeout_s", *BELIEF, "max_claim_bytes", "claim_roots", "other_exposures_mb"),
    *("many_streaks", "method", "expected_streaks_per_frame", *CLASS_SETTINGS),
    *("link_threshold", "metrics_port", "metrics_address", "log_format"),
    *("sensitivity_share", "sensitivity_window", "sensitivity_lag", "alert_framing", "cutout_px", *REGISTRY),
)


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command("run")(run_command)
    app.command("topics")(topics_command)
    app.command("broker")(broker_command_foreground)
    app.command("settings")(settings_command)


@with_settings(*CONNECTION, *CREATION, *WORKER)
def run_command(
    *,
    settings: Settings,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    idle_timeout: Annotated[
        float | None, typer.Option(min=0, help="End after so many seconds without a message.", metavar="SECONDS")
    ] = None,
    weights: Annotated[str, typer.Option(help="The network: a shipped name or a .safetensors file.")] = "streaknet",
    judge: Annotated[
        str,
        typer.Option(help="What weighs a field's other exposures: a shipped name or a .safetensors file."),
    ] = SHIPPED_JUDGE,
) -> None:
    """Work: take frames from Kafka, publish the streaks in them.

    Reads the topic `frames` in a consumer group (start as many workers as you like, up to one a partition) and writes
    `streaks`, `frames.examined` and `frames.rejected`. Missing topics are made. SIGTERM lets the frame in hand be
    finished; the exit status is then 0.

    A frame is examined by itself, or with the other exposures of its field that the headers of its message name
    (docs/stream.md; `replay --together` names them): what stands still is then told from what moves.

    For example:

        needlestream run --bootstrap-servers kafka:9092 --metrics-port 9108

        needlestream run --delivery at-least-once --idle-timeout 30     (the embedded broker; end when all is done)
    """
    configure_logs(settings.log_format)
    try:
        check_roots(settings.claim_roots)
    except RootError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    from stream.service import Limits, run_worker  # noqa: PLC0415 - with torch and numba: only this command waits

    with broker_errors():
        check_reachable(settings)  # before the networks are loaded
        limits = Limits(count, idle_timeout, settings.sensitivity_lag)
        run_worker(settings, _examiner(settings, weights, judge), limits)


@with_settings(*CONNECTION, *CREATION, "group_id")
def topics_command(
    *,
    settings: Settings,
    create: Annotated[bool, typer.Option("--create", help="Make those that are missing.")] = False,
) -> None:
    """Show the topics: partitions, messages, how far the workers are behind; with --create make the missing ones.

    For example:

        needlestream topics --create --partitions 36

        needlestream topics --group-id needlestream
    """
    configure_logs("console")
    with broker_errors(), explained(settings):
        check_reachable(settings)
        if create:
            for topic in create_missing_topics(settings):
                typer.echo(f"created {topic}")
        states = topic_states(settings)
    table = Table("topic", "partitions", "messages", f"lag of {settings.group_id}", "max.message.bytes")
    for state in states:
        numbers = (state.messages, state.lag, state.max_message_bytes)
        shown = ("-" if number is None else f"{number:,}" for number in numbers)
        table.add_row(state.name, str(state.partitions) if state.exists else "missing", *shown)
    Console().print(table)


def broker_command_foreground(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback address.")] = 9092,
) -> None:
    """Run the embedded broker in the foreground, on this machine only; it keeps all in memory, Ctrl-C ends it.

    Workers on it: `needlestream run --delivery at-least-once --session-timeout-s 6`.
    """
    with broker_errors():
        command = broker_command(port)
    typer.echo(f"broker on {ADDRESS}:{port}; everything is forgotten when it stops", err=True)
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 - this process becomes the broker: signals reach it directly


def settings_command(config: config_annotation() = None) -> None:  # type: ignore[valid-type]  # typer's annotation
    """Show every setting, its value and where that comes from; secrets are masked.

    A setting is an option (--topic-prefix), a variable (NEEDLESTREAM_TOPIC_PREFIX) and a key of the TOML file that
    --config names (topic_prefix); the first of these that is given wins.
    """
    settings = settings_or_exit(config, {})
    table = Table("setting", "value", "from", "what it is")
    for name, origin in sources(config, {}).items():
        table.add_row(name, _shown(getattr(settings, name)), origin, Settings.model_fields[name].description)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def message_reader(profile: Survey | None, limits: Limits) -> Callable[..., Reading]:
    """Give what reads a message's FITS: by its ``survey`` header, else by ``profile`` (None: by its keywords)."""
    from detector.fits import read_flags, read_frames  # noqa: PLC0415 - astropy and numba: only a worker waits
    from detector.frame import BadFrame  # noqa: PLC0415
    from detector.survey import SURVEYS  # noqa: PLC0415

    def flag_maps(file: BinaryIO | BadFrame | None, name: str) -> Reading | BadFrame | None:
        if file is None or isinstance(file, BadFrame):
            return file
        try:
            return read_flags(file, name=f"flags of {name}", limits=limits)
        except BadFrame as bad:
            return bad

    def read(
        source: bytes | BinaryIO,
        *,
        name: str,
        survey: str | None,
        extension: int | None,
        flags: BinaryIO | BadFrame | None = None,
    ) -> Reading:
        if survey not in {None, "auto", *SURVEYS}:
            raise BadFrame(
                "bad-header", f"header 'survey' is {str(survey)[:40]!r}; there are auto, {', '.join(SURVEYS)}"
            )
        chosen = SURVEYS.get(survey) if survey else profile
        maps = flag_maps(flags, name)
        return read_frames(source, name=name, survey=chosen, limits=limits, extension=extension, flags=maps)

    return read


def _examiner(settings: Settings, weights: str, judge: str) -> Examiner:
    """Give what the worker does with a message: the reader, the networks and the science, as the settings say."""
    from models.evaluate.sensitivity import Sensitivity  # noqa: PLC0415 - astropy, numba, torch: only a worker waits
    from models.predictor import device_memory_bytes  # noqa: PLC0415
    from stream.commands.science import load_science  # noqa: PLC0415
    from stream.otherexposures import OtherExposures  # noqa: PLC0415
    from stream.service import Examiner  # noqa: PLC0415
    from stream.warmup import warm_up  # noqa: PLC0415

    science = load_science(settings, weights, link_threshold=settings.link_threshold, judge=judge)
    read = message_reader(science.survey, science.limits)
    claims = Claims(settings.claim_roots, settings.max_claim_bytes)
    # Where no streak is looked for, none can be missed.
    share = settings.sensitivity_share if "asteroids" in settings.classes else 0.0
    return Examiner(
        read=read,
        examine=science.examine,
        others=OtherExposures(claims, read, science.prepare, settings.other_exposures_mb * 1_000_000),
        claims=claims,
        max_message_bytes=settings.max_message_bytes,
        program_version=metadata.version("needlestream"),
        weights_versions={weights: science.network.weights.sha256, **science.versions},
        sensitivity=Sensitivity(science.examine_streaks, share=share, window=settings.sensitivity_window),
        gpu_memory=functools.partial(device_memory_bytes, science.network.device),
        warm_up=functools.partial(warm_up, read, science.prepare, science.examine),
    )


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "*****"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return "" if value is None else str(value)
