"""SIGTERM and SIGINT as something that a loop looks at between two pieces of work.

At night this is how a service is stopped: it finishes what it has in hand, lets go of the broker, and ends with
status 0. With a broker that is away or silent there may be no end to that, whatever the client promises: a service that
was told to stop and does not come to its end in ``LEAVE_S`` says so and ends with status 1.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger()

LEAVE_S = 30.0  # the service managers' files in deploy/ wait for two minutes
STEP_S = 0.1


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Give the SIGTERM and SIGINT that came, so that what is in hand is finished first.

    The handler takes no lock, and so writes no log: it may have interrupted somebody who holds that lock.
    """
    came: list[int] = []
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Departure:
    """Sees to it that a process which was told to stop ends, whoever keeps it: a context around all that it does.

    The time in which it is ``working`` (a frame in hand is finished, however long that takes) does not count.
    """

    def __init__(
        self, signals: list[int], *, patience_s: float = LEAVE_S, leave: Callable[[], object] = lambda: os._exit(1)
    ) -> None:
        self.signals = signals
        self.patience_s = patience_s
        self.leave = leave
        self.busy = False
        self.over = threading.Event()

    def __enter__(self) -> Self:
        """Begin to watch."""
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """It has come to its end by itself."""
        self.over.set()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Stop the clock."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def _watch(self) -> None:
        left_s = self.patience_s
        while not self.over.wait(STEP_S):
            left_s = left_s - STEP_S if self.signals and not self.busy else self.patience_s
            if left_s <= 0:
                log.error(
                    "told to stop, and kept by a broker that does not answer: ended",
                    after_s=self.patience_s,
                    advice="what was not acknowledged comes again; is the broker there?",
                )
                self.leave()
                return
