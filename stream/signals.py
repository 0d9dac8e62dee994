"""SIGTERM and SIGINT as something that a loop looks at between two pieces of work.

At night this is how a service is stopped: it finishes what it has in hand, lets go of the broker, and ends with
status 0.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
