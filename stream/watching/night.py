"""What the page remembers of the night: the last frames, the state of each CCD, the latest alerts and tracks.

Bounded however long it runs: everything has a largest number, and what has not moved for longest goes first. One lock
guards it, since one thread fills it and many read it; what leaves it is never changed afterwards.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream.framing import no_registry
from stream.messages import CANDIDATES, COPY_OF, EXAMINED, LENSES, MERGERS, REJECTED, STREAKS, TRACKS
from stream.watching.records import (
    candidate_mark,
    frame_shape,
    frame_summary,
    key_of,
    object_alert,
    records_of,
    refusal,
    streak_alert,
    track,
)
from stream.watching.series import Series

if TYPE_CHECKING:
    from stream.framing import SchemaOf
    from stream.messages import Message
    from stream.watching.records import Key, Shown

MOST_FRAMES = 1000
MOST_CCDS = 1000
MOST_ALERTS = 300
MOST_TRACKS = 500
MOST_REFUSALS = 50
MOST_REASONS = 50
MOST_MARKS = 200  # streaks, and candidates, that are drawn into a frame
UNNAMED = "(no CCD named)"
LATE_S = 86_400.0  # since the shutter closed: beyond that a frame comes from an archive, and was not waited for


@dataclass
class FrameSeen:
    """One frame: its summary once that has come, and what is drawn into it."""

    summary: Shown | None = None
    streaks: list[Shown] = field(default_factory=list)
    candidates: list[list[float | None]] = field(default_factory=list)
    objects: list[Shown] = field(default_factory=list)
    shape: tuple[int, int] | None = None


class Night:
    """Takes messages in, gives what is shown."""

    def __init__(self, schema_of: SchemaOf = no_registry) -> None:
        self._schema_of = schema_of
        self._lock = threading.Lock()
        self.lag: int | None = None
        self._waiting_since_s: float | None = None
        self._forget()
        self.epoch = 0  # how often it was begun anew
        self.version = 0

    def forget(self) -> None:
        """Begin anew: the topics are not those that they were."""
        with self._lock:
            self._forget()
            self.epoch += 1
            self.version += 1

    def take(self, message: Message) -> None:
        """Take one message of an output topic in. Raises ``ValueError`` or ``KeyError`` for what is no record."""
        with self._lock:
            self._taking[message.topic](self, message)
            self.version += 1

    def touch(self) -> None:
        """Count something that is shown and kept elsewhere as a change."""
        with self._lock:
            self.version += 1

    def waiting(self, at_s: float, messages: int | None) -> None:
        """Take in how many frame messages wait for the workers; None where that is not known."""
        with self._lock:
            self.version += self.lag != messages
            if not messages:
                self._waiting_since_s = None
            elif self._waiting_since_s is None:
                self._waiting_since_s = at_s
            self.lag = messages
            if messages is not None:
                self._series.waiting(at_s, messages)

    def shown(self, now_s: float) -> dict[str, Any]:
        """Give all that the page shows at first sight."""
        with self._lock:
            newest = sorted(
                (seen for seen in self._frames.values() if seen.summary), key=lambda seen: -(seen.summary or {})["at"]
            )[:12]
            alerts = sorted(self._alerts.values(), key=lambda alert: -(alert["at"] or 0))
            objects = sorted(self._objects.values(), key=lambda one: -(one["at"] or 0))
            tracks = sorted(self._tracks.values(), key=lambda one: -(one["at"] or 0))
            return {
                "totals": dict(self._totals) | {"tracks": len(self._tracks)},
                "lag": self.lag,
                "waiting_since": self._waiting_since_s,
                "series": self._series.shown(now_s),
                "ccds": list(self._ccds.values()),
                "frames": [_whole(seen) for seen in newest],
                "alerts": alerts[:60],
                "objects": objects[:60],
                "tracks": tracks[:150],
                "refusals": self._refusals[::-1],
                "reasons": dict(self._reasons),
            }

    def frame(self, key: Key) -> Shown | None:
        """Give one frame with all that is drawn into it; None for one that is not remembered."""
        with self._lock:
            seen = self._frames.get(key)
            return None if seen is None else _whole(seen)

    def frames_of(self, ccd: str) -> list[Shown]:
        """Give the summaries of the frames of a CCD that are remembered, newest first."""
        with self._lock:
            summaries = [seen.summary for seen in self._frames.values() if seen.summary]
            return sorted((one for one in summaries if (one["ccd"] or UNNAMED) == ccd), key=lambda one: -one["at"])

    def _forget(self) -> None:
        self._frames: OrderedDict[Key, FrameSeen] = OrderedDict()
        self._ccds: OrderedDict[str, Shown] = OrderedDict()
        self._alerts: OrderedDict[str, Shown] = OrderedDict()
        self._objects: OrderedDict[str, Shown] = OrderedDict()
        self._tracks: OrderedDict[str, Shown] = OrderedDict()
        self._refusals: list[Shown] = []
        self._reasons: Counter[str] = Counter()
        self._totals = dict.fromkeys(("examined", "rejected", "streaks", "lenses", "mergers"), 0)
        self._series = Series()
        self.lag = None
        self._waiting_since_s = None

    def _seen(self, key: Key) -> FrameSeen:
        return _newest(self._frames, key, self._frames.get(key) or FrameSeen(), MOST_FRAMES)

    def _take_summary(self, message: Message) -> None:
        (record,) = records_of(message, 1, self._schema_of)
        summary = frame_summary(record)
        self._seen(key_of(record)).summary = summary
        self._totals["examined"] += 1
        for kind in ("streaks", "lenses", "mergers"):
            self._totals[kind] += summary[kind]
        at, arrived = summary["at"] or 0.0, summary["arrived"]
        self._series.examined(at, summary["streaks"], None if arrived is None else max(0.0, at - arrived))
        name = summary["ccd"] or UNNAMED
        before = self._ccds.get(name, {"frames": 0, "last": None, "refused": None})
        last = before["last"]
        newer = last is None or last["at"] <= at
        known = {"name": name, "frames": before["frames"] + 1, "last": summary if newer else last}
        _newest(self._ccds, name, before | known | ({"refused": None} if newer else {}), MOST_CCDS)

    def _take_streak(self, message: Message) -> None:
        for record in records_of(message, MOST_MARKS, self._schema_of):
            alert = streak_alert(record)
            seen = self._seen(key_of(record))
            seen.shape = frame_shape(message) or seen.shape
            if len(seen.streaks) < MOST_MARKS and all(one["id"] != alert["id"] for one in seen.streaks):
                seen.streaks.append(alert)
            _newest(self._alerts, alert["id"], alert, MOST_ALERTS)

    def _take_candidates(self, message: Message) -> None:
        if message.header(COPY_OF) is not None:
            return
        records = records_of(message, MOST_MARKS, self._schema_of)
        if records:
            seen = self._seen(key_of(records[0]))
            seen.shape = frame_shape(message) or seen.shape
            seen.candidates = [candidate_mark(record) for record in records]

    def _take_object(self, message: Message) -> None:
        """Take a lens or a merger in."""
        for record in records_of(message, MOST_MARKS, self._schema_of):
            alert = object_alert(record, "lens" if message.topic == LENSES else "merger")
            seen = self._seen(key_of(record))
            seen.shape = frame_shape(message) or seen.shape
            if len(seen.objects) < MOST_MARKS and all(one["id"] != alert["id"] for one in seen.objects):
                seen.objects.append(alert)
            _newest(self._objects, alert["id"], alert, MOST_ALERTS)

    def _take_track(self, message: Message) -> None:
        (record,) = records_of(message, 1, self._schema_of)
        told = track(record)
        before = self._tracks.get(told["id"])
        if before is not None and before["version"] > told["version"]:
            return
        if told["withdrawn"]:
            self._tracks.pop(told["id"], None)
        else:
            _newest(self._tracks, told["id"], told, MOST_TRACKS)

    def _take_refusal(self, message: Message) -> None:
        refused = refusal(message)
        self._totals["rejected"] += 1
        if refused["reason"] in self._reasons or len(self._reasons) < MOST_REASONS:
            self._reasons[refused["reason"]] += 1
        self._refusals = [*self._refusals, refused][-MOST_REFUSALS:]
        # A message names its CCD in its header; replay's also in its key.
        name = refused["ccd"] or refused["key"].rpartition("/")[2]
        if name in self._ccds:
            last = self._ccds[name]["last"]
            if last is None or last["at"] <= refused["at"]:
                self._ccds[name] = self._ccds[name] | {"refused": refused}

    _taking = {  # noqa: RUF012 - a constant
        EXAMINED: _take_summary,
        STREAKS: _take_streak,
        CANDIDATES: _take_candidates,
        LENSES: _take_object,
        MERGERS: _take_object,
        TRACKS: _take_track,
        REJECTED: _take_refusal,
    }


def _newest(held: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> Any:
    """Hold a value as the newest; the oldest goes when there are too many. Gives the value."""
    held[key] = value
    held.move_to_end(key)
    if len(held) > most:
        held.popitem(last=False)
    return value


def _whole(seen: FrameSeen) -> Shown:
    return {
        "summary": seen.summary,
        "streaks": list(seen.streaks),
        "candidates": seen.candidates,
        "objects": list(seen.objects),
        "shape": seen.shape,
    }
