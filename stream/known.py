"""Tracks of known objects, marked: by a table of places and times that the user brings, without any network.

How it fails at night: a table that is none is refused before anything is linked, by name, with what to give. One that
does not cover the night marks nothing; the service says at its start what the table covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.time import Time

from detector.astrometry import ARCSEC, unit_vectors
from detector.known import Seen, known_objects, matches
from stream.ephemeris import mjd_utc
from stream.tables import read_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.known import Known, Match
    from detector.linking import Track

REQUIRED = ("name", "time_utc", "ra", "dec")
OPTIONAL = ("rate_arcsec_h", "position_angle_deg")


@dataclass(frozen=True)
class KnownTable:
    """Known objects, and within how far of its place one is taken for a track."""

    objects: Known
    radius_arcsec: float

    def of_tracks(self, tracks: Sequence[Track], table: Mapping[str, NDArray[Any]]) -> list[tuple[Match, ...]]:
        """Give for each track of a table of streaks the objects that it may be, the nearest first."""
        seen = [_seen(np.array(track.times_mjd_tai), *_columns(table, list(track.rows))) for track in tracks]
        return matches(self.objects, seen, self.radius_arcsec)

    def marked(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Give records of the topic of tracks with ``knownAs``, ``knownAlso`` and the sightings' ``ephOffset``."""
        seen = [
            _seen(
                *(
                    np.array([np.nan if one[name] is None else one[name] for one in record["sightings"]], np.float64)
                    for name in ("midpointMjdTai", "trailRa", "trailDec", "trailRaErr", "trailDecErr")
                )
            )
            for record in records
        ]
        found = matches(self.objects, seen, self.radius_arcsec)
        return [_marked(dict(record), several) for record, several in zip(records, found, strict=True)]


def read_known(path: Path, radius_arcsec: float) -> KnownTable:
    """Read a table of known objects (CSV, ECSV, Parquet). Raises ``ValueError``: which, and what to give."""
    table: dict[str, Any] = read_columns(path, {"ra", "dec", *OPTIONAL})
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; give {', '.join(REQUIRED)} (degrees, ICRS), and where they are "
            f"known {', '.join(OPTIONAL)}"
        )
    count = len(table["name"])
    try:
        mjd = mjd_utc(table["time_utc"].tolist()) if count else np.empty(0)
        mjd_tai = np.asarray(Time(mjd, format="mjd", scale="utc").tai.mjd, np.float64).reshape(count)
    except ValueError as error:
        raise ValueError(f"{path}: column time_utc: {error}; give ISO 8601, or MJD, both in UTC") from None
    wrong = ~(np.isfinite(table["ra"]) & (np.abs(table["dec"]) <= 90.0) & np.isfinite(mjd_tai) & (table["name"] != ""))
    if wrong.any():
        raise ValueError(f"{path}: row {int(np.flatnonzero(wrong)[0]) + 1} has no name, time, or place on the sky")
    more = (table.get(name, np.full(count, np.nan)) for name in OPTIONAL)
    return KnownTable(known_objects(table["name"], mjd_tai, table["ra"], table["dec"], *more), radius_arcsec)


def _columns(table: Mapping[str, NDArray[Any]], rows: list[int]) -> list[NDArray[np.float64]]:
    nothing = np.full(len(rows), np.nan)
    return [table[name][rows] if name in table else nothing for name in ("ra", "dec", "ra_err", "dec_err")]


def _seen(
    mjd_tai: NDArray[np.float64],
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    ra_err: NDArray[np.float64],
    dec_err: NDArray[np.float64],
) -> Seen:
    return Seen(mjd_tai, unit_vectors(ra, dec), np.fmax(ra_err, dec_err) * ARCSEC)


def _marked(record: dict[str, Any], several: tuple[Match, ...]) -> dict[str, Any]:
    if not several:
        return record
    offsets = [None if np.isnan(apart) else apart for apart in several[0].separations_arcsec]
    sightings = [{**one, "ephOffset": offset} for one, offset in zip(record["sightings"], offsets, strict=True)]
    names = [match.name for match in several]
    return record | {"knownAs": names[0], "knownAlso": names[1:], "sightings": sightings}
