"""The table of tracks, and the table of streaks written back with what linking learned of it.

One row a sighting, columns as published (docs/tracks.md); positions and errors are those of the sighting, rate and
position angle those of the track's path at that moment. A table is complete or not there at all.
"""

from __future__ import annotations

import csv
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.linking import identifier
from detector.sightings import ENDS, NUMBERS, REQUIRED
from stream.tables import read_columns, replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.known import Match
    from detector.linking import Track

    Columns = Mapping[str, NDArray[Any]]

TRACK_NAMES = (
    *("track", "track_score", "n_sightings", "frame", "extension", "exposure", "ccd", "x0", "y0", "x1", "y1"),
    *("ra", "dec", "ra_err", "dec_err", "ra_dec_corr", "mid_time_utc", "mag", "rate_arcsec_h", "position_angle_deg"),
    *("trk_sub", "mag_err", "snr", "known_as", "known_also", "known_sep_arcsec"),
)
_DIGITS = {
    **dict.fromkeys(("x0", "y0", "x1", "y1"), "z.3f"),
    **dict.fromkeys(("ra", "dec"), "z.8f"),
    **dict.fromkeys(("ra_err", "dec_err", "ra_dec_corr"), "z.4g"),
    **dict.fromkeys(("mag", "mag_err"), "z.3f"),
    "snr": "z.2f",
    "extension": ".0f",
}
STATIC = "static"


def read_streaks(paths: Sequence[Path]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Tables of streaks one under the other, with numbers as such, and again as they are written (all text).

    Columns that one of them lacks are empty there; a row that stands in two tables (same frame, HDU and ends) is taken
    once. Errors: ``ValueError`` for a table that cannot be read or linked, naming it and what to look for.
    """
    tables = []
    for path in paths:
        table = read_columns(path, NUMBERS)
        missing = [name for name in REQUIRED if name not in table]
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(missing)}; give tables of streaks as `needlestream detect` writes them "
                f"(docs/streaks.md)"
            )
        tables.append(table)
    texts = _joined([read_columns(path, ()) for path in paths])
    joined = _joined(tables)
    if len(paths) > 1:
        first = _first_rows(joined)
        return {name: joined[name][first] for name in joined}, {name: texts[name][first] for name in texts}
    return joined, texts


def _joined(tables: Sequence[Columns]) -> dict[str, NDArray[Any]]:
    kinds = {name: table[name].dtype.kind for table in tables for name in table}
    return {
        name: np.concatenate(
            [
                table[name] if name in table else np.full(len(table["frame"]), np.nan if kind == "f" else "")
                for table in tables
            ]
        )
        for name, kind in kinds.items()
    }


def _first_rows(table: Columns) -> NDArray[np.int64]:
    """The rows without those that stand in the table already."""
    extension = table.get("extension", np.zeros(len(table["frame"])))
    columns = [table["frame"], np.nan_to_num(extension), *(table[name] for name in ENDS)]
    first: dict[tuple[Any, ...], int] = {}
    for row, key in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        first.setdefault(key, row)
    return np.array(list(first.values()), np.int64)


def frame_shapes(paths: Iterable[Path]) -> dict[tuple[str, int], tuple[float, float]]:
    """Rows and columns of frames by name and HDU, from the lists of frames beside tables of streaks."""
    shapes = {}
    for path in paths:
        beside = path.with_name("frames.csv")
        if not beside.is_file():
            continue
        table = read_columns(beside, {"extension", "height", "width"})
        if {"frame", "extension", "height", "width"} <= table.keys():
            columns = (table[name].tolist() for name in ("frame", "extension", "height", "width"))
            for name, extension, height, width in zip(*columns, strict=True):
                if np.isfinite([extension, height, width]).all():
                    shapes[name, int(extension)] = (height, width)
    return shapes


def track_rows(
    tracks: Iterable[Track], table: Columns, known: Sequence[tuple[Match, ...]] = ()
) -> Iterator[dict[str, str]]:
    """The rows of the table of tracks, best track first, each in the order of time, as texts.

    ``known``: for each track the known objects that it may be, the nearest first.
    """
    for track, objects in zip(tracks, chain(known, repeat(())), strict=False):
        name = identifier([sighting_key(table, row) for row in track.rows])
        for number, (row, mjd_tai) in enumerate(zip(track.rows, track.times_mjd_tai, strict=True)):
            _, _, angle = track.motion.at(mjd_tai)
            yield {
                "track": name,
                "track_score": f"{track.score:.6f}",
                "n_sightings": str(len(track.rows)),
                **{column: _text(table, column, row) for column in TRACK_NAMES[3:18]},
                "rate_arcsec_h": f"{track.motion.rate_arcsec_h:.4f}",
                "position_angle_deg": f"{angle % 360.0:.3f}",
                "trk_sub": name,
                **{column: _text(table, column, row) for column in ("mag_err", "snr")},
                **_known(objects, number),
            }


def _known(objects: tuple[Match, ...], sighting: int) -> dict[str, str]:
    if not objects:
        return {}
    apart = objects[0].separations_arcsec[sighting]
    return {
        "known_as": objects[0].name,
        "known_also": ";".join(match.name for match in objects[1:]),
        "known_sep_arcsec": f"{apart:.2f}" if np.isfinite(apart) else "",
    }


def sighting_key(table: Columns, row: int) -> str:
    """What makes a sighting the same wherever the table lies: exposure and CCD (else the frame), HDU, whole pixels."""

    def word(name: str) -> str:
        return str(table[name][row]) if name in table else ""

    where = f"{word('exposure')}/{word('ccd')}" if word("exposure") else word("frame")
    x, y = (0.5 * (float(table[f"{axis}0"][row]) + float(table[f"{axis}1"][row])) for axis in "xy")
    extension = float(np.nan_to_num(table["extension"][row])) if "extension" in table else 0.0
    return f"{where}/{extension:.0f}/{round(x)}/{round(y)}"


def _text(table: Columns, name: str, row: int) -> str:
    if name not in table:
        return ""
    value = table[name][row]
    if isinstance(value, str):
        return str(value)
    return format(float(value), _DIGITS.get(name, ".6g")) if np.isfinite(value) else ""


def write_tracks(path: Path, tracks: Iterable[Track], table: Columns, known: Sequence[tuple[Match, ...]] = ()) -> None:
    """Write the table of tracks (CSV)."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.DictWriter(stream, TRACK_NAMES, restval="", lineterminator="\n")
        lines.writeheader()
        lines.writerows(track_rows(tracks, table, known))


def write_streaks_back(path: Path, texts: Columns, static: NDArray[np.int64]) -> None:
    """Write a table of streaks (columns of text) as it was, with ``static`` among the flags of the rows ``static``."""
    marked = set(static.tolist())
    names = [*texts, *([] if "flags" in texts else ["flags"])]
    flags = texts.get("flags", np.full(len(texts["frame"]), ""))
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(names)
        columns = [texts[name].tolist() if name in texts else flags.tolist() for name in names]
        place = names.index("flags")
        for row, values in enumerate(zip(*columns, strict=True)):
            if row in marked and STATIC not in values[place].split():
                words = " ".join([*values[place].split(), STATIC])
                values = (*values[:place], words, *values[place + 1 :])  # noqa: PLW2901 - the row as it is written
            lines.writerow(values)
