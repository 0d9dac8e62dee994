"""What each stage of a frame took: the cost of a frame is stated by stage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Stopwatch:
    """Seconds by stage: call it with a stage's name when the stage is done; ``before``: those of stages done before."""

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self.seconds = dict(before or {})
        self._last = time.perf_counter()

    def __call__(self, stage: str) -> None:
        """Credit the time since the last call to ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
