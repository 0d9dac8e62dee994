"""Tracks against truth: which objects were linked, which tracks are of nothing, and what chance alone would link.

A sighting is of the object on whose streak it lies, by the rule for streaks (``models.evaluate.matching``). A track is
true when two thirds of its sightings, and at least two, are of one object; the best-scored true track of an object
finds it, further ones are duplicates, all others are false. An object counts when at least three of its sightings are
detectable: true SNR of 8 or more, both ends 10 px inside.

Chance is measured on the lists themselves: the exposures of a field are shifted against each other at random, around
the edges of their frames, until nothing in them moves as it did. Whatever links then is false.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.astrometry import east_north, unit_vectors
from detector.linking import link
from detector.sightings import catalogue, fields, off, onto
from models.evaluate.completeness import LENGTH_CLASSES, half_magnitude
from models.evaluate.framekeys import same_path
from models.evaluate.matching import accepted_pairs, end_distances, inside, lengths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from detector.linking import Scorer

    Columns = Mapping[str, NDArray[Any]]
    Shapes = Mapping[tuple[str, int], tuple[float, float]]

DETECTABLE_SNR = 8.0
LEAST_SIGHTINGS = 3
PRECISE_SNR = 30.0
TRUTH_COLUMNS = ("frame", "object", "x0", "y0", "x1", "y1", "mag")
TRACK_COLUMNS = ("track", "track_score", "n_sightings", "frame", "x0", "y0", "x1", "y1")
NUMBERS = frozenset(
    {
        *("x0", "y0", "x1", "y1", "ra", "dec", "mag", "snr_limit", "inside", "length_px", "width", "height"),
        *("extension", "track_score", "n_sightings", "score", "psf_fwhm_px"),
    }
)


def is_true(owners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether sets of sightings are one object: ``owners`` ``[n, k]`` are object numbers, -1 none, -2 no sighting."""
    right = np.zeros(len(owners), np.int64)
    for column in range(owners.shape[1]):
        mine = owners[:, column : column + 1]
        right = np.maximum(right, np.where(mine[:, 0] >= 0, (owners == mine).sum(axis=1), 0))
    return np.asarray((right >= 2) & (3 * right >= 2 * (owners > -2).sum(axis=1)), np.bool_)


def owners(rows: Columns, truth: Columns) -> NDArray[np.int64]:
    """For each row of a table of streaks or tracks the row of the truth on whose streak it lies, -1 for none."""
    found = np.full(len(rows["frame"]), -1, np.int64)
    by_extension = "extension" in rows and "extension" in truth
    rows_of, truths_of = _by_frame(rows, by_extension=by_extension), _by_frame(truth, by_extension=by_extension)
    row_ends, truth_ends = _ends(rows), _ends(truth)
    for (name, extension), of_truth in truths_of.items():
        of_rows = np.concatenate(
            [np.empty(0, np.int64)]
            + [index for (other, hdu), index in rows_of.items() if hdu == extension and same_path(name, other)]
        )
        pairs = accepted_pairs(truth_ends[of_truth], row_ends[of_rows])
        near, seen = of_truth[pairs[:, 0]], of_rows[pairs[:, 1]]
        apart = end_distances(truth_ends[near], row_ends[seen]).sum(axis=1)
        for pair in np.argsort(-apart, kind="stable"):  # the closest is written last
            found[seen[pair]] = near[pair]
    return found


def _by_frame(table: Columns, *, by_extension: bool) -> dict[tuple[str, int], NDArray[np.int64]]:
    extension = np.nan_to_num(table["extension"]) if by_extension else np.zeros(len(table["frame"]))
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(table["frame"].tolist(), extension.astype(int).tolist(), strict=True)):
        groups[key].append(row)
    return {key: np.array(rows, np.int64) for key, rows in groups.items()}


def _ends(table: Columns) -> NDArray[np.float64]:
    return np.stack([table[name] for name in ("x0", "y0", "x1", "y1")], axis=1).reshape(-1, 2, 2)


@dataclass(frozen=True)
class TrackClass:
    """Tracks of ``sightings`` and no other number (the last class: and more), or of all (``sightings`` 0).

    ``found`` counts objects that such a track found, ``false`` and ``duplicates`` tracks; purity is of tracks.
    """

    sightings: int
    tracks: int
    found: int
    duplicates: int
    false: int
    false_per_field: float
    purity: float | None


@dataclass(frozen=True)
class TrackHalf:
    """m50 of objects with at least ``sightings`` sightings inside, found by a track of at least as many."""

    sightings: int
    lengths: str
    objects: int
    found: int
    m50: float | None


@dataclass(frozen=True)
class TrackReport:
    """All that is said of one linker on one sample.

    ``completeness`` is of the objects with three or more detectable sightings; ``missing`` counts those of them by how
    many of their sightings the table of streaks has, where that is at hand. ``mid_px`` is the median distance of a
    sighting's mid-point from the true one for true SNR above 30, ``mid_along_px``, ``mid_across_px`` the robust sigmas.
    """

    fields: int
    objects: int
    found: int
    completeness: float | None
    classes: list[TrackClass]
    halves: list[TrackHalf]
    precise: int
    mid_px: float | None
    mid_along_px: float | None
    mid_across_px: float | None
    missing: dict[str, int]


def judge_tracks(
    tracks: Columns, truth: Columns, frames: Columns | None, *, streaks: Columns | None = None
) -> TrackReport:
    """The figures of a table of tracks. Errors: ``ValueError`` for tables without the columns that are needed."""
    for name, table, needed in (("truth", truth, TRUTH_COLUMNS), ("tracks", tracks, TRACK_COLUMNS)):
        missing = [column for column in needed if column not in table]
        if missing:
            raise ValueError(f"{name}: no column {', '.join(missing)}; it has {', '.join(table) or 'none'}")
    counts = _counting(truth, frames)
    names, of_truth = np.unique(truth["object"], return_inverse=True)
    of_truth = of_truth.reshape(-1)
    detectable = counts & (truth["snr_limit"] >= DETECTABLE_SNR) if "snr_limit" in truth else counts
    n_detectable = np.bincount(of_truth[detectable], minlength=len(names))
    n_inside = np.bincount(of_truth[counts], minlength=len(names))
    on = owners(tracks, truth)
    object_of = np.where(on >= 0, of_truth[on], -1) if len(of_truth) else on
    labels, first, of_row = np.unique(tracks["track"], return_index=True, return_inverse=True)
    verdicts = [_verdict(object_of[of_row == k]) for k in range(len(labels))]
    order = np.argsort(-tracks["track_score"][first], kind="stable")
    found_by = np.zeros(len(names), np.int64)
    best: dict[int, int] = {}
    duplicates: list[int] = []
    for k in order.tolist():
        if verdicts[k] >= 0:
            if verdicts[k] in best:
                duplicates.append(k)
            else:
                best[verdicts[k]] = k
                found_by[verdicts[k]] = int((of_row == k).sum())
    wanted = n_detectable >= LEAST_SIGHTINGS
    length = _median_length(truth, of_truth, len(names))
    magnitude = np.array([np.median(truth["mag"][of_truth == k]) for k in range(len(names))])
    fields = _fields(truth, frames)
    sizes = np.bincount(of_row, minlength=len(labels))
    classes = [_class(kind, sizes, np.array(verdicts), duplicates, fields) for kind in (0, 2, 3, 4)]
    halves = [
        _half(least, name, magnitude, length, n_inside, found_by) for least in (2, 3, 4) for name in LENGTH_CLASSES
    ]
    return TrackReport(
        fields=fields,
        objects=int(wanted.sum()),
        found=int((wanted & (found_by > 0)).sum()),
        completeness=float((found_by[wanted] > 0).mean()) if wanted.any() else None,
        classes=classes,
        halves=halves,
        missing=_missing(streaks, truth, of_truth, wanted & (found_by == 0)),
        **_precision(tracks, truth, on),
    )


def _counting(truth: Columns, frames: Columns | None) -> NDArray[np.bool_]:
    """Which rows of the truth have both ends 10 px inside their frame."""
    counts = np.nan_to_num(truth["inside"], nan=1.0) > 0 if "inside" in truth else np.ones(len(truth["mag"]), np.bool_)
    if frames is None or "height" not in frames:
        return np.asarray(counts, np.bool_)
    by_extension = "extension" in frames and "extension" in truth
    ends = _ends(truth)
    truths_of = _by_frame(truth, by_extension=by_extension)
    for (name, hdu), rows in _by_frame(frames, by_extension=by_extension).items():
        shape = int(frames["height"][rows[0]]), int(frames["width"][rows[0]])
        for (other, extension), index in truths_of.items():
            if extension == hdu and same_path(name, other):
                counts[index] = inside(ends[index], shape)
    return np.asarray(counts, np.bool_)


def _verdict(objects: NDArray[np.int64]) -> int:
    """The object of a track's sightings, -1 where they are not of one."""
    return int(np.bincount(objects[objects >= 0]).argmax()) if is_true(objects[None])[0] else -1


def _median_length(truth: Columns, of_truth: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    length = lengths(_ends(truth))
    return np.array([np.median(length[of_truth == k]) for k in range(count)])


def _fields(truth: Columns, frames: Columns | None) -> int:
    """Fields of one CCD: as many as there are pairs of a field and a CCD; 1 where the tables do not say."""
    table = frames if frames is not None and "field" in frames else truth
    if "field" not in table:
        return 1
    ccd = table.get("ccd", np.full(len(table["field"]), ""))
    return max(len(set(zip(table["field"].tolist(), ccd.tolist(), strict=True))), 1)


def _class(
    kind: int, sizes: NDArray[np.int64], verdicts: NDArray[np.int64], duplicates: list[int], fields: int
) -> TrackClass:
    here = sizes >= kind if kind in (0, 4) else sizes == kind
    double = np.zeros(len(sizes), np.bool_)
    double[duplicates] = True
    true, false = here & (verdicts >= 0), int((here & (verdicts < 0)).sum()) if len(sizes) else 0
    found = int((true & ~double).sum()) if len(sizes) else 0
    return TrackClass(
        sightings=kind,
        tracks=int(here.sum()),
        found=found,
        duplicates=int((here & double).sum()),
        false=false,
        false_per_field=false / fields,
        purity=found / (found + false) if found + false else None,
    )


def _half(
    least: int,
    name: str,
    magnitude: NDArray[np.float64],
    length: NDArray[np.float64],
    n_inside: NDArray[np.int64],
    found_by: NDArray[np.int64],
) -> TrackHalf:
    shortest, longest = LENGTH_CLASSES[name]
    members = (n_inside >= least) & (length >= shortest) & (length < longest)
    found = found_by[members] >= least
    return TrackHalf(least, name, int(members.sum()), int(found.sum()), half_magnitude(magnitude[members], found))


def _precision(tracks: Columns, truth: Columns, on: NDArray[np.int64]) -> dict[str, Any]:
    """How far the mid-points of bright sightings are from the true ones."""
    bright = on >= 0
    if "snr_limit" in truth and len(on):
        bright &= truth["snr_limit"][on] > PRECISE_SNR
    if not bright.any():
        return {"precise": 0, "mid_px": None, "mid_along_px": None, "mid_across_px": None}
    measured, true = _ends(tracks)[bright], _ends(truth)[on[bright]]
    offset = measured.mean(axis=1) - true.mean(axis=1)
    unit = (true[:, 1] - true[:, 0]) / np.maximum(lengths(true), 1e-9)[:, None]
    along = (offset * unit).sum(axis=1)
    across = offset[:, 0] * unit[:, 1] - offset[:, 1] * unit[:, 0]
    return {
        "precise": int(bright.sum()),
        "mid_px": float(np.median(np.hypot(offset[:, 0], offset[:, 1]))),
        "mid_along_px": _robust_sigma(along),
        "mid_across_px": _robust_sigma(across),
    }


def _robust_sigma(values: NDArray[np.float64]) -> float:
    low, high = np.percentile(values, [25.0, 75.0])
    return float(high - low) / 1.349


def _missing(
    streaks: Columns | None, truth: Columns, of_truth: NDArray[np.int64], lost: NDArray[np.bool_]
) -> dict[str, int]:
    """Objects that should have been linked and were not, by how many of their sightings are among the streaks."""
    if streaks is None:
        return {}
    on = owners(streaks, truth)
    seen = np.unique(on[on >= 0])
    counts = np.bincount(of_truth[seen], minlength=len(lost))
    return {str(n): int((counts[lost] == n).sum()) for n in np.unique(counts[lost]).tolist()}


def scrambled(table: Columns, rng: np.random.Generator, shapes: Shapes | None = None) -> dict[str, NDArray[Any]]:
    """A table of streaks whose frames are shifted at random, in pixels and on the sky; what leaves a frame re-enters.

    All CCDs of an exposure are shifted alike. Frames with fewer than three rows stay (they have no map to the sky).
    """
    moved = {name: np.array(column) for name, column in table.items()}
    hdu = table["extension"] if "extension" in table else np.zeros(len(table["frame"]))
    groups = _by_frame({"frame": table["frame"], "extension": hdu}, by_extension=True)
    widest = np.array([max(np.max(table[f"{axis}{end}"], initial=1.0) for end in "01") + 1.0 for axis in "xy"])
    shares = {time: rng.uniform(0.0, 1.0, 2) for time in np.unique(table["mid_time_utc"]).tolist()}
    for key, rows in groups.items():
        size = np.array(shapes[key][::-1], np.float64) if shapes and key in shapes else widest
        if not np.isfinite(size).all():
            size = widest
        if len(rows) >= 3:
            _shift(moved, rows, size, shares[table["mid_time_utc"][rows[0]]] * size)
    return moved


def _shift(
    moved: dict[str, NDArray[Any]], rows: NDArray[np.int64], size: NDArray[np.float64], shift_px: NDArray[np.float64]
) -> None:
    """Shift the rows of one frame in ``moved``, which the caller owns."""
    one = {name: np.asarray(moved[name][rows], np.float64) for name in ("x0", "y0", "x1", "y1")}
    middle = np.stack([0.5 * (one["x0"] + one["x1"]), 0.5 * (one["y0"] + one["y1"])], axis=1)
    step = np.mod(middle + shift_px, size) - middle
    for end in "01":
        for axis, name in enumerate("xy"):
            moved[f"{name}{end}"][rows] = one[f"{name}{end}"] + step[:, axis]
    vectors = {end: _vectors(moved, rows, end) for end in ("", "0", "1")}
    centre = vectors[""].mean(axis=0)
    axes = _axes(centre / np.linalg.norm(centre))
    # Pixels -> plane from both ends of all rows: a straight map is good to a pixel over a CCD, and that is enough.
    pixels = np.concatenate([np.stack([one[f"x{end}"], one[f"y{end}"], np.ones(len(rows))], axis=1) for end in "01"])
    places = np.concatenate([onto(axes, vectors[end]) for end in "01"])
    matrix = np.linalg.lstsq(pixels, places, rcond=None)[0][:2]
    for end in ("", "0", "1"):
        sky = off(axes, onto(axes, vectors[end]) + step @ matrix)
        moved[f"ra{end}"][rows] = np.degrees(np.arctan2(sky[:, 1], sky[:, 0])) % 360.0
        moved[f"dec{end}"][rows] = np.degrees(np.arcsin(np.clip(sky[:, 2], -1.0, 1.0)))


def _vectors(table: Columns, rows: NDArray[np.int64], end: str) -> NDArray[np.float64]:
    return unit_vectors(np.asarray(table[f"ra{end}"][rows], float), np.asarray(table[f"dec{end}"][rows], float))


def _axes(centre: NDArray[np.float64]) -> NDArray[np.float64]:
    longitude, latitude = np.degrees(np.arctan2(centre[1], centre[0])), np.degrees(np.arcsin(centre[2]))
    return np.stack([*east_north(np.array(longitude), np.array(latitude)), centre])


@dataclass(frozen=True)
class Chance:
    """Tracks in ``fields`` scrambled fields of one CCD, by their sightings ("2", "3", "4" and more)."""

    fields: int
    tracks: dict[str, int]
    per_field: float
    per_field_err: float


def chance_rate(table: Columns, scorer: Scorer, *, times: int, seed: int, shapes: Shapes | None = None) -> Chance:
    """Link a table of streaks ``times`` times with its exposures shifted at random: what links is chance.

    Each CCD of each field counts as one field each time; the error is that of counting.
    """
    rng = np.random.default_rng(seed)
    tracks = dict.fromkeys(("2", "3", "4"), 0)
    found = catalogue(table, shapes)
    detectors = found.frames.detector[found.frame]
    per_time = sum(len(np.unique(detectors[index])) for index in fields(found))
    for _ in range(times):
        for track in link(catalogue(scrambled(table, rng, shapes), shapes), scorer).tracks:
            tracks[str(min(len(track.rows), 4))] += 1
    total, count = sum(tracks.values()), max(per_time * times, 1)
    return Chance(count, tracks, total / count, float(np.sqrt(max(total, 1))) / count)
