"""Whether a program's loop still turns: what a container engine asks, at ``/healthz`` beside the metrics.

The metrics are served by a thread of their own and answer for as long as the process lives, also when its loop hangs
in a broker, a file system or a frame. At night a loop that has not turned for ``max_poll_interval_s`` is one that its
group has given up on: to start it again loses nothing, for nothing of what it has in hand was acknowledged.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Pulse:
    """When a loop turned last; one thread beats, others ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.beat_s = clock()

    def beat(self) -> None:
        """Say that the loop turns."""
        self.beat_s = self.clock()

    def told(self, stuck_after_s: float) -> tuple[HTTPStatus, str]:
        """Give the answer to whoever asks: 200, or 503 where it has not turned for longer; and the sentence."""
        since_s = self.clock() - self.beat_s
        if since_s > stuck_after_s:
            sentence = (
                f"the loop has not turned for {since_s:.0f} s, longer than max_poll_interval_s ({stuck_after_s:g} s)"
            )
            return HTTPStatus.SERVICE_UNAVAILABLE, sentence
        return HTTPStatus.OK, f"the loop turned {since_s:.1f} s ago"
