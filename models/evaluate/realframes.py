"""Real frames with a few known trails: what was found of them, at which rank, and what else was claimed.

Real truth is never complete, so there is no completeness here: a table of objects and a table of frames. No threshold
may be chosen by it. A trail that crosses the frame has no ends to compare: it is matched by its line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from models.evaluate.framekeys import same_path
from models.evaluate.matching import (
    ANGLE_DEG,
    ANGLE_FROM_PX,
    accepted_pairs,
    end_distances,
    ends_of,
    lengths,
)
from models.evaluate.report import figure, table
from models.evaluate.sample import DETECTION, DETECTION_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any]]

LINE_PX = 6.0  # trails of satellites are wide and bend a little
ENDS_PX = 20.0  # a piece at the border may have its middle so far outside the given ends


@dataclass(frozen=True)
class Sighting:
    """One known trail in one frame; ``rank`` counts from 0, best first, over all proposals.

    ``rows`` is how many detections above the threshold lie on it; ``ends_px`` the distances of both ends of the best,
    None for a trail that crosses the frame or was not found.
    """

    frame: str
    name: str
    kind: str
    found: bool
    above_threshold: bool
    rank: int | None
    score: float | None
    rows: int
    ends_px: tuple[float, float] | None


@dataclass(frozen=True)
class RealFrame:
    """One frame: how many proposals, how many above the threshold, and how many of those lie on no known trail."""

    frame: str
    extension: int
    proposals: int
    above_threshold: int
    false: int
    flags: str


@dataclass(frozen=True)
class RealReport:
    """All sightings and all frames, with the threshold that they were counted at."""

    threshold: float
    sightings: list[Sighting]
    frames: list[RealFrame]


def judge_real(truth: Columns, detections: Columns, frames: Columns, *, threshold: float) -> RealReport:
    """Compare ``truth`` (columns file, object, x0 .. y1, ends_inside, kind) with the tables that ``detect`` wrote."""
    sightings: list[Sighting] = []
    judged: list[RealFrame] = []
    for index in np.flatnonzero(frames["reason"] == ""):
        name, extension = str(frames["frame"][index]), int(frames["extension"][index])
        rows = _detections(detections, (detections["frame"] == name) & (detections["extension"] == extension))
        known = [row for row, file in enumerate(truth["file"].tolist()) if same_path(file, name)]
        on_known = np.zeros(len(rows), np.bool_)
        for row in known:
            on_this = on_trail(truth, row, rows)
            on_known |= on_this
            sightings.append(_sighting(name, truth, row, rows, on_this, threshold))
        above = rows["score"] >= threshold
        flags = str(frames["flags"][index])
        judged.append(RealFrame(name, extension, len(rows), int(above.sum()), int((above & ~on_known).sum()), flags))
    return RealReport(threshold, sightings, judged)


def _detections(table: Columns, members: NDArray[np.bool_]) -> NDArray[np.void]:
    rows = np.zeros(int(members.sum()), DETECTION)
    for name in DETECTION_NUMBERS:
        rows[name] = table[name][members] if name in table else np.nan
    return rows[np.argsort(-rows["score"], kind="stable")]


def on_trail(truth: Columns, row: int, detections: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which detections ``[n]`` lie on the trail in ``row`` of the truth."""
    line = np.array([truth[name][row] for name in ("x0", "y0", "x1", "y1")], np.float64).reshape(1, 2, 2)
    ends = ends_of(detections)
    if truth["ends_inside"][row] == "both":
        on_it = np.zeros(len(detections), np.bool_)
        on_it[accepted_pairs(line, ends)[:, 1]] = True
        return on_it
    return on_line(line[0], ends)


def on_line(line: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which streaks ``[n, 2, 2]`` lie along ``line`` ``[2, 2]``: mid-point within 6 px of it, and its direction."""
    length = float(np.hypot(*(line[1] - line[0])))
    unit = (line[1] - line[0]) / length
    offset = ends.mean(axis=1) - line[0]
    along = offset @ unit
    across = np.abs(offset[:, 0] * unit[1] - offset[:, 1] * unit[0])
    detected = lengths(ends)
    cosine = np.abs((ends[:, 1] - ends[:, 0]) @ unit)
    turned = (detected > ANGLE_FROM_PX) & (cosine < np.cos(np.radians(ANGLE_DEG)) * detected)
    return np.asarray((across <= LINE_PX) & (along >= -ENDS_PX) & (along <= length + ENDS_PX) & ~turned)


def _sighting(
    name: str,
    truth: Columns,
    row: int,
    detections: NDArray[np.void],
    on_it: NDArray[np.bool_],
    threshold: float,
) -> Sighting:
    rank = int(np.argmax(on_it)) if on_it.any() else None
    score = None if rank is None else float(detections["score"][rank])
    ends_px = None
    if rank is not None and truth["ends_inside"][row] == "both":
        line = np.array([truth[column][row] for column in ("x0", "y0", "x1", "y1")], np.float64).reshape(1, 2, 2)
        first, second = end_distances(line, ends_of(detections[rank : rank + 1]))[0].tolist()
        ends_px = (first, second)
    return Sighting(
        frame=name,
        name=str(truth["object"][row]),
        kind=str(truth["kind"][row]),
        found=rank is not None,
        above_threshold=score is not None and score >= threshold,
        rank=rank,
        score=score,
        rows=int((on_it & (detections["score"] >= threshold)).sum()),
        ends_px=ends_px,
    )


def real_markdown(report: RealReport) -> str:
    """Both tables for people; ranks count from 0."""
    parts = [f"# Real frames, threshold {report.threshold:g}", "## Known trails", _trails(report.sightings)]
    return "\n\n".join([*parts, "## Frames", _frames(report.frames)]) + "\n"


def _trails(sightings: Sequence[Sighting]) -> str:
    head = ["frame", "object", "above threshold", "score", "rank", "rows on it", "ends px"]
    rows = [
        [
            PurePath(one.frame).name,
            one.name,
            "yes" if one.above_threshold else "no",
            figure(one.score, 3),
            "-" if one.rank is None else str(one.rank),
            str(one.rows),
            "-" if one.ends_px is None else " ".join(figure(distance) for distance in one.ends_px),
        ]
        for one in sightings
    ]
    return table(head, rows)


def _frames(frames: Sequence[RealFrame]) -> str:
    head = ["frame", "HDU", "above threshold", "false (on no known trail)", "proposals", "flags"]
    rows = [
        [
            PurePath(one.frame).name,
            str(one.extension),
            str(one.above_threshold),
            str(one.false),
            str(one.proposals),
            one.flags,
        ]
        for one in frames
    ]
    return table(head, rows)
