"""Tables of lens or merger candidates, ours or anybody's, against a table of the true ones in the same frames.

A candidate lies on a true object that is no farther than a given radius on the sky, or in pixels where a table has no
sky. The most probable candidate on an object finds it; a further one is neither true nor false; one on no object is
false. A purity means nothing without the density of both, which is told with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from detector.astrometry import unit_vectors
from models.evaluate.framekeys import distinct, frame_keys, places_among

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any]]
    F8 = NDArray[np.float64]

NUMBERS = frozenset({"extension", "x", "y", "ra", "dec", "probability"})
TRUE, FALSE, NEITHER = 1, 0, -1
COMPLETENESSES = (0.995, 0.99, 0.95, 0.9, 0.8, 0.5)
CUTS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates: ``probability`` and ``verdict`` ``[n]``; of each true object ``best`` ``[m]``, -inf: not found."""

    probability: F8
    verdict: NDArray[np.int8]
    best: F8
    n_frames: int
    radius: str


@dataclass(frozen=True)
class Cut:
    """What is above a probability: the shares found of all true objects and true of what is settled, false a frame."""

    probability: float
    found: int
    false: int
    completeness: float
    purity: float
    false_per_frame: float


@dataclass(frozen=True)
class CandidateReport:
    """``at_completeness``: for each of ``COMPLETENESSES`` that is reached; ``at_probability``: for each of ``CUTS``."""

    objects: int
    candidates: int
    frames: int
    radius: str
    at_completeness: tuple[tuple[float, Cut], ...]
    at_probability: tuple[Cut, ...]


def judge_tables(
    truth: Columns, candidates: Columns, *, n_frames: int | None, within_arcsec: float, within_px: float
) -> Judged:
    """Match the tables frame by frame; by the sky where both have it, else by pixels.

    Raises ``ValueError`` for missing columns, places without a number, tables that share no frame, too few frames.
    """
    on_sky = all({"ra", "dec"} <= set(table) and _known(table, "ra", "dec") for table in (truth, candidates))
    place = ("ra", "dec") if on_sky else ("x", "y")
    for name, table, wanted in (("truth", truth, place), ("candidates", candidates, (*place, "probability"))):
        missing = [column for column in ("frame", *wanted) if column not in table]
        if missing:
            raise ValueError(f"{name}: no column {', '.join(missing)}; it has {', '.join(table) or 'none'}")
        if not _known(table, *wanted):
            raise ValueError(f"{name}: a row has no number in {', '.join(wanted)}")
    by_extension = all("extension" in table for table in (truth, candidates))
    keys = [frame_keys(table, by_extension=by_extension) for table in (truth, candidates)]
    listed = distinct(keys[0])
    of_truth, of_candidate = (places_among(one, listed) for one in keys)
    if len(listed) and len(of_candidate) and (of_candidate < 0).all():
        raise ValueError(f"the tables share no frame: truth has {keys[0][0][0]!r}, candidates {keys[1][0][0]!r}")
    others = distinct(key for key, found in zip(keys[1], of_candidate, strict=True) if found < 0)
    count = len(listed) + len(others)
    if n_frames is not None and n_frames < count:
        raise ValueError(f"{n_frames} frames were announced, and the tables name {count}")
    best = np.full(len(of_truth), -np.inf)
    verdict = np.zeros(len(of_candidate), np.int8)
    probability = np.asarray(candidates["probability"], np.float64)
    points = [_points(table, place) for table in (truth, candidates)]
    radius = 2.0 * np.sin(np.radians(within_arcsec / 3600.0) / 2.0) if on_sky else within_px
    for frame in range(len(listed)):
        rows, objects = np.flatnonzero(of_candidate == frame), np.flatnonzero(of_truth == frame)
        ranked = rows[np.argsort(-probability[rows], kind="stable")]
        tree = cKDTree(points[0][objects])
        for row in ranked:
            near = objects[tree.query_ball_point(points[1][row], radius)]
            if not len(near):
                continue
            free = near[np.isinf(best[near])]
            verdict[row] = TRUE if len(free) else NEITHER
            if len(free):
                nearest = free[np.argmin(np.linalg.norm(points[0][free] - points[1][row], axis=1))]
                best[nearest] = probability[row]
    shown = f"{within_arcsec:g} arcsec" if on_sky else f"{within_px:g} px"
    return Judged(probability, verdict, best, count if n_frames is None else n_frames, shown)


def candidate_report(judged: Judged) -> CandidateReport:
    """The figures of judged tables. Raises ``ValueError`` where there is no true object."""
    if not len(judged.best):
        raise ValueError("the truth names no object: completeness cannot be told")
    ranked = np.sort(judged.best)[::-1]
    reached = []
    for share in COMPLETENESSES:
        floor = float(ranked[int(np.ceil(share * len(ranked) - 1e-9)) - 1])
        if np.isfinite(floor):
            reached.append((share, _cut(judged, floor)))
    return CandidateReport(
        objects=len(judged.best),
        candidates=len(judged.probability),
        frames=judged.n_frames,
        radius=judged.radius,
        at_completeness=tuple(reached),
        at_probability=tuple(_cut(judged, probability) for probability in CUTS),
    )


def candidate_markdown(title: str, report: CandidateReport) -> str:
    """The report as a page."""
    head = "| | probability | found | false | completeness | purity | false a frame |\n|---|---|---|---|---|---|---|\n"
    rows = [(f"{share:.1%} found", cut) for share, cut in report.at_completeness]
    rows += [(f"probability {cut.probability:g}", cut) for cut in report.at_probability]
    lines = "".join(
        f"| {name} | {cut.probability:.4g} | {cut.found} | {cut.false} | {cut.completeness:.3f} | {cut.purity:.3f} "
        f"| {cut.false_per_frame:.2f} |\n"
        for name, cut in rows
    )
    told = (
        f"{report.candidates} candidates and {report.objects} true objects in {report.frames} frames, matched within "
        f"{report.radius}: {report.objects / max(report.frames, 1):.2f} true ones a frame."
    )
    return f"# {title}\n\n{told}\n\n{head}{lines}"


def _cut(judged: Judged, floor: float) -> Cut:
    found = int((judged.best >= floor).sum())
    false = int(((judged.probability >= floor) & (judged.verdict == FALSE)).sum())
    return Cut(
        probability=floor,
        found=found,
        false=false,
        completeness=found / len(judged.best),
        purity=found / (found + false) if found + false else float("nan"),
        false_per_frame=false / max(judged.n_frames, 1),
    )


def _known(table: Columns, *names: str) -> bool:
    return all(bool(np.isfinite(table[name]).all()) for name in names if name in table)


def _points(table: Columns, place: tuple[str, str]) -> F8:
    """Places ``[n, 3]`` on the unit sphere, or ``[n, 2]`` in pixels."""
    one, two = (np.asarray(table[name], np.float64) for name in place)
    return np.asarray(unit_vectors(one, two) if place[0] == "ra" else np.column_stack([one, two]), np.float64)
