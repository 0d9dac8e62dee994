"""Commands of this program as child processes, each with a log, all ended with the block that started them.

They run in sessions of their own: a Ctrl-C reaches the parent alone, which ends them in its own order. How it fails:
a child that ends with an error is noticed by ``check`` and named with its last lines; only a parent that is killed
outright (SIGKILL) leaves children behind.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream.settings import ENVIRONMENT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PATIENCE_S = 5.0
LAST_LINES = 12


class ChildError(Exception):
    """A child ended with an error; the text says which, its last lines and where its log lies."""


@dataclass(frozen=True)
class Child:
    """One running command; ``name`` is what a person calls it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Give all that it has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ended(self) -> bool:
        """Say whether it has ended, and well. Raises ``ChildError`` when it ended with an error."""
        status = self.process.poll()
        if status:
            raise ChildError(self.explain(f"ended with status {status}"))
        return status is not None

    def explain(self, what: str) -> str:
        """Give a text that names the child, says what happened to it, its last lines, and where the log lies."""
        lines = self.said().splitlines()[-LAST_LINES:] or ["(nothing)"]
        last = "\n".join(f"    {line}" for line in lines)
        return f"the {self.name} {what}. The last that it said:\n{last}\nall of it: {self.log}"


@contextlib.contextmanager
def child(name: str, words: Sequence[str], log: Path) -> Iterator[Child]:
    """Run ``needlestream WORDS...`` until the block ends; what it says goes to ``log``.

    It sees no setting of the environment: what it shall know is in ``words``.
    """
    environment = {key: value for key, value in os.environ.items() if not key.upper().startswith(ENVIRONMENT_PREFIX)}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", "from stream.cli import app; app()", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        yield Child(name, process, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and make it end when it does not in time, or when somebody is in a hurry."""
    process.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
