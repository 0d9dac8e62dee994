"""Settings as options of the commands: each is declared once, in ``stream.settings``, and named here.

A command takes ``settings: Settings`` and lists which of them it wants as options; ``--config`` comes with them. What
goes wrong with them ends the program with status 2 and the setting's name.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import SecretStr

from detector.fitsheader import Limits
from stream.broker import BrokerError
from stream.machine import MachineError, machine_fault
from stream.settings import ENVIRONMENT_PREFIX, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Without the secrets: every user of a machine can read its processes' command lines.
CONNECTION = (
    *("bootstrap_servers", "topic_prefix", "request_timeout_s"),
    *("security_protocol", "sasl_mechanism", "sasl_username", "sasl_oauth_token_file", "sasl_oauth_token_url"),
    *("sasl_oauth_client_id", "sasl_oauth_scope", "tls_ca", "tls_cert", "tls_key"),
)
REGISTRY = ("schema_registry_url", "schema_registry_username", "schema_registry_ca")
# How much of a file is believed.
BELIEF = ("max_pixels", "max_hdus", "max_header_bytes", "max_decompressed_bytes")
# Which classes are looked for, and by which networks.
CLASS_SETTINGS = (
    *("classes", "lens_threshold", "merger_threshold"),
    *("lens_weights", "merger_weights", "discriminator_weights"),
)
# What weighs a field's other exposures, unless told otherwise.
SHIPPED_JUDGE = "fieldjudge"
CREATION = ("max_message_bytes", "partitions", "replication_factor")


def with_settings(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a decorator that turns a command's ``settings`` argument into ``--config`` and one option a setting."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]
        options = [_config_option(), *(_option(name) for name in names)]

        @functools.wraps(command)
        def run(*, config: Path | None, **given: Any) -> Any:
            command_line = {name: given.pop(name) for name in names}
            with machine_errors():
                return command(settings=settings_or_exit(config, command_line), **given)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own + options]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def settings_or_exit(config: Path | None, command_line: dict[str, Any]) -> Settings:
    """Give the effective settings, or leave with status 2 and what is wrong with them."""
    try:
        return load_settings(config, command_line)
    except SettingsError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def broker_errors() -> Iterator[None]:
    """Leave with status 1 and the sentence that says what to do, not with a traceback."""
    try:
        yield
    except (BrokerError, MachineError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@contextlib.contextmanager
def machine_errors() -> Iterator[None]:
    """Leave with status 1 and a sentence where disk, memory or GPU failed; a defect of ours keeps its traceback."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        # Whoever reads our output may close the pipe when he has enough.
        fault = None if isinstance(error, BrokenPipeError) else machine_fault(error)
        if fault is None:
            raise
        typer.echo(f"error: {fault.advice} ({error})", err=True)
        raise typer.Exit(1) from None


def frame_limits(settings: Settings) -> Limits:
    """Give how much of a file is believed, as the settings say."""
    return Limits(
        max_pixels=settings.max_pixels,
        max_decompressed_bytes=settings.max_decompressed_bytes,
        max_hdus=settings.max_hdus,
        max_header_bytes=settings.max_header_bytes,
    )


def config_annotation() -> Any:
    """Give the type of ``--config``, for commands that read the settings themselves."""
    return Annotated[
        Path | None, typer.Option("--config", dir_okay=False, help="TOML file with settings.", rich_help_panel=_PANEL)
    ]


_PANEL = "Settings (command line > environment > file > default)"


def _config_option() -> inspect.Parameter:
    return _parameter("config", config_annotation())


def _option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    shown = "" if default is None or field.default == () else f" [default: {default if default != '' else 'empty'}]"
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{field.description}{shown} (env {ENVIRONMENT_PREFIX}{name.upper()})",
        show_default=False,
        rich_help_panel=_PANEL,
    )
    return _parameter(name, Annotated[_plain_type(field.annotation), option])


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain_type(annotation: Any) -> Any:
    """Give what typer shall parse: numbers and paths as such, all else as text, which the settings then judge."""
    kinds = {kind for kind in (annotation, *get_args(annotation)) if kind is not type(None)}
    if SecretStr in kinds or any(get_origin(kind) in (Literal, tuple) for kind in kinds):
        return str | None
    return next((kind | None for kind in (float, int, Path) if kind in kinds), str | None)
