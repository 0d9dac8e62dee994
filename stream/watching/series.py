"""The last hour in steps: how many frames and streaks, how late they came, how much was waiting.

Bounded by construction: so many steps are kept at most, and so many latencies of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STEP_S = 30
STEPS = 120
MOST_STEPS = 4 * STEPS  # kept: clocks of other machines may be ahead
MOST_LATENCIES = 1000


@dataclass
class _Step:
    frames: int = 0
    streaks: int = 0
    latencies_s: list[float] = field(default_factory=list)
    lag: int | None = None


class Series:
    """What happened in each step of the last hour; all times are Unix seconds."""

    def __init__(self) -> None:
        self._steps: dict[int, _Step] = {}

    def examined(self, at_s: float, streaks: int, latency_s: float | None) -> None:
        """Take in one examined frame."""
        step = self._step(at_s)
        step.frames += 1
        step.streaks += streaks
        if latency_s is not None and len(step.latencies_s) < MOST_LATENCIES:
            step.latencies_s.append(latency_s)

    def waiting(self, at_s: float, messages: int) -> None:
        """Take in how many messages wait."""
        self._step(at_s).lag = messages

    def shown(self, now_s: float) -> dict[str, Any]:
        """Give the last hour, oldest step first; None where a step has nothing to say. Latencies: median, 98 %."""
        last = int(now_s // STEP_S)
        steps = [self._steps.get(number, _Step()) for number in range(last - STEPS + 1, last + 1)]
        return {
            "step_s": STEP_S,
            "end": (last + 1) * STEP_S,
            "frames": [step.frames for step in steps],
            "streaks": [step.streaks for step in steps],
            "latency": [_quantile(step.latencies_s, 0.5) for step in steps],
            "latency98": [_quantile(step.latencies_s, 0.98) for step in steps],
            "lag": [step.lag for step in steps],
        }

    def _step(self, at_s: float) -> _Step:
        step = self._steps.setdefault(int(at_s // STEP_S), _Step())
        if len(self._steps) > MOST_STEPS:
            del self._steps[min(self._steps)]
        return step


def _quantile(values: list[float], share: float) -> float | None:
    """Give the smallest value that is not exceeded by this share of them."""
    if not values:
        return None
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 2)
