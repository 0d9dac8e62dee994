"""The ledger: one row for each answer and each alert of the stream, and what the rows say is wrong.

Numbers only, so that millions of them fit: 40 bytes a row. No Kafka here; ``stream.audit`` fills the tables. Only what
the workers are done with is judged (``done``: partition -> first offset that is not), and nothing that may have lost
its counterpart to retention (``horizon_ms``: what is older cannot be told).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# One summary or dead letter. ``answers``: how many of them the message led to, 0 when not known.
ANSWER = np.dtype(
    [
        ("partition", "i4"),
        ("offset", "i8"),
        ("extension", "i4"),
        ("rejected", "?"),
        ("streaks", "i4"),
        ("answers", "i4"),
        ("time_ms", "i8"),
    ]
)
# One alert; ``high`` and ``low`` are the halves of its id.
ALERT = np.dtype(
    [("high", "u8"), ("low", "u8"), ("partition", "i4"), ("offset", "i8"), ("extension", "i4"), ("time_ms", "i8")]
)
WHOLE = -1  # the extension of a dead letter that stands for its whole message
CHUNK_ROWS = 65_536
MESSAGE = ("partition", "offset")
HDU = ("partition", "offset", "extension")
IDENTITY = ("high", "low")

KINDS = {
    "frame-missing": "a message that the workers are done with, without any answer",
    "frame-expired": "messages that retention took away before a worker had read them",
    "frame-overdue": "messages that have been waiting for too long",
    "hdu-missing": "a message with fewer summaries and dead letters than it led to",
    "frame-doubled": "a message or HDU with more summaries and dead letters than it led to",
    "alert-missing": "a frame with fewer alerts than its summary says",
    "alert-surplus": "a frame with more alerts than its summary says, or without a summary",
    "alert-doubled": "an alert that one message led to more than once",
    "alert-repeated": "an alert of several messages: the same frame was sent more than once",
    "track-doubled": "a version of a track that is there more than once",
    "track-missing": "a track with a version left out below one that is there",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it must be: ``kind`` is one of ``KINDS``, ``what`` names the message or the alert."""

    kind: str
    what: str
    detail: str


@dataclass
class Rows:
    """A table that grows by rows."""

    kind: np.dtype[Any]
    chunks: list[NDArray[np.void]] = field(default_factory=list)
    last: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, row: tuple[Any, ...]) -> None:
        """Add one row."""
        self.last.append(row)
        if len(self.last) == CHUNK_ROWS:
            self.chunks.append(np.array(self.last, self.kind))
            self.last.clear()

    def table(self) -> NDArray[np.void]:
        """Give all rows, in the order in which they came."""
        return np.concatenate([*self.chunks, np.array(self.last, self.kind)])


@dataclass(frozen=True)
class Groups:
    """A table sorted so that equal rows lie together: the first row of each group, and how many there are."""

    table: NDArray[np.void]
    begins: NDArray[np.intp]
    counts: NDArray[np.intp]

    @property
    def firsts(self) -> NDArray[np.void]:
        """The first row of each group."""
        return self.table[self.begins]


def grouped(table: NDArray[np.void], names: Sequence[str]) -> Groups:
    """Give the groups of rows that agree in these columns."""
    rows = table[np.lexsort([table[name] for name in reversed(names)])]
    differs = np.zeros(len(rows), bool)
    differs[:1] = True
    for name in names:
        differs[1:] |= rows[name][1:] != rows[name][:-1]
    begins = np.flatnonzero(differs)
    return Groups(rows, begins, np.diff(begins, append=len(rows)))


def holes(answers: NDArray[np.void], partition: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Give the ranges of offsets, ends excluded, of a partition that no answer names."""
    offsets = np.unique(answers["offset"][answers["partition"] == partition])
    inside = offsets[(offsets >= start) & (offsets < end)]
    edges = np.concatenate([[start - 1], inside, [end]])
    for place in np.flatnonzero(np.diff(edges) > 1):
        yield int(edges[place]) + 1, int(edges[place + 1])


def of_done(table: NDArray[np.void], done: Mapping[int, int]) -> NDArray[np.void]:
    """Give the rows of messages that the workers are done with."""
    limits = np.array([done.get(number, 0) for number in range(int(table["partition"].max(initial=-1)) + 1)], np.int64)
    return table[table["offset"] < limits[table["partition"]]] if len(table) else table


def answer_problems(answers: NDArray[np.void], topic: str, *, horizon_ms: int) -> Iterator[Problem]:
    """Say which HDUs are answered twice, and which messages have fewer or more answers than they led to."""
    hdus = grouped(answers, HDU)
    for place in np.flatnonzero(hdus.counts > 1):
        row = hdus.firsts[place]
        extension = int(row["extension"])
        hdu = "the whole message" if extension == WHOLE else f"HDU {extension}"
        yield Problem("frame-doubled", _name(topic, row), f"{hdu} has {hdus.counts[place]} answers")
    messages = grouped(hdus.firsts, MESSAGE)
    if len(messages.begins) == 0:
        return
    expected = np.maximum.reduceat(messages.table["answers"], messages.begins)
    oldest_ms = np.minimum.reduceat(messages.table["time_ms"], messages.begins)
    for place in np.flatnonzero((expected > 0) & (expected != messages.counts) & (oldest_ms >= horizon_ms)):
        kind = "hdu-missing" if messages.counts[place] < expected[place] else "frame-doubled"
        detail = f"{messages.counts[place]} answers where there must be {expected[place]}"
        yield Problem(kind, _name(topic, messages.firsts[place]), detail)


def alert_problems(alerts: NDArray[np.void], topic: str) -> Iterator[Problem]:
    """Say which alerts are there more than once."""
    ids = grouped(alerts, IDENTITY)
    for place in np.flatnonzero(ids.counts > 1):
        first = ids.begins[place]
        rows = ids.table[first : first + ids.counts[place]]
        origins = grouped(rows, MESSAGE)
        name = str(uuid.UUID(int=(int(rows[0]["high"]) << 64) | int(rows[0]["low"])))
        for row, count in zip(origins.firsts, origins.counts, strict=True):
            if count > 1:
                yield Problem("alert-doubled", name, f"{count} times from {_name(topic, row)}")
        if len(origins.begins) > 1:
            yield Problem("alert-repeated", name, "from " + ", ".join(_name(topic, row) for row in origins.firsts))


def count_problems(
    answers: NDArray[np.void], alerts: NDArray[np.void], topic: str, *, horizon_ms: int
) -> Iterator[Problem]:
    """Say where the alerts of a frame are not as many as its summary says."""
    summaries = grouped(answers[~answers["rejected"]], HDU).firsts
    found = grouped(grouped(alerts, (*IDENTITY, *HDU)).firsts, HDU)
    both = np.zeros(
        len(summaries) + len(found.begins),
        [
            ("partition", "i4"),
            ("offset", "i8"),
            ("extension", "i4"),
            ("said", "i8"),
            ("found", "i8"),
            ("time_ms", "i8"),
        ],
    )
    here, there = both[: len(summaries)], both[len(summaries) :]
    for name in (*HDU, "time_ms"):
        here[name] = summaries[name]
        there[name] = found.firsts[name]
    here["said"] = summaries["streaks"]
    there["found"] = found.counts
    frames = grouped(both, HDU)
    if len(frames.begins) == 0:
        return
    said, seen = (np.add.reduceat(frames.table[name], frames.begins) for name in ("said", "found"))
    newest_ms = np.minimum.reduceat(frames.table["time_ms"], frames.begins)
    for place in np.flatnonzero((said != seen) & (newest_ms >= horizon_ms)):
        row = frames.firsts[place]
        kind = "alert-missing" if seen[place] < said[place] else "alert-surplus"
        detail = f"HDU {row['extension']}: {seen[place]} alerts, its summary says {said[place]}"
        yield Problem(kind, _name(topic, row), detail)


def _name(topic: str, row: np.void) -> str:
    return f"{topic}/{row['partition']}/{row['offset']}"


def track_problems(versions: Mapping[str, Mapping[int, int]], *, whole: bool) -> Iterator[Problem]:
    """Give the versions of tracks that are there twice, and those left out below one that is there.

    Where retention has cut the topic (not ``whole``) the first versions of a track may be gone.
    """
    for track, seen in versions.items():
        for version, times in seen.items():
            if times > 1:
                yield Problem("track-doubled", track, f"version {version} is there {times} times")
        lowest = 1 if whole else min(seen)
        missing = sorted(set(range(lowest, max(seen))) - set(seen))
        if missing:
            yield Problem("track-missing", track, f"version {max(seen)} is there, {missing[0]} is not")
