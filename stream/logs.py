"""Logs: events with fields, on standard error, for people or as one JSON object a line.

What ``sys.stderr`` is, is asked each time that something is written: whoever catches what one command says gives it
back afterwards, and the threads of a client may still have something to tell then.

kafka-python logs through the standard library; its warnings are rendered the same way, so that an operator greps one
format. Nothing is ever logged from the settings' secrets: they stay ``SecretStr`` until the client takes them.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor


def configure_logs(style: Literal["console", "json"], *, level: int = logging.INFO) -> None:
    """Send structlog's events and the standard library's warnings to standard error in one style."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(_StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # On its lower levels it logs whole requests, with the password in them: whatever the root's level is set to later.
    logging.getLogger("kafka").setLevel(logging.WARNING)
    # It warns whenever its thread waited a tenth of a second for the interpreter: on a busy worker, all the time.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    logging.getLogger("kafka.coordinator.consumer").addFilter(_not_held_offsets)


class _StandardError:
    """A stream that is what ``sys.stderr`` is at the time."""

    def write(self, text: str) -> None:
        """Write it there."""
        sys.stderr.write(text)

    def flush(self) -> None:
        """Have it seen."""
        sys.stderr.flush()


def _not_held_offsets(record: logging.LogRecord) -> bool:
    """Leave out that offsets are held by an open transaction: ten times a second, where the source says it once."""
    return "UnstableOffsetCommitError" not in record.getMessage()
