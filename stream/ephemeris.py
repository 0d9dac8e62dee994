"""Tables of places by time: where a space telescope was when it exposed.

How it fails at night: a time outside the table is refused with what the table covers, never extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.time import Time
from scipy.interpolate import CubicSpline

from stream.tables import read_columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

POSITION_COLUMNS = ("x_km", "y_km", "z_km")
# From just above the ground to beyond the planets; what lies outside is in another unit.
NEAREST_KM, FARTHEST_KM = 6_300.0, 1e11


def mjd_utc(texts: Sequence[str]) -> NDArray[np.float64]:
    """Give times as MJD (UTC): ISO texts, with or without a ``Z``, or numbers that are one. Raises ``ValueError``."""
    try:
        return np.array([float(text) for text in texts], np.float64)
    except ValueError:
        return np.asarray(Time([text.strip().removesuffix("Z") for text in texts], format="isot", scale="utc").mjd)


@dataclass(frozen=True, eq=False)
class Ephemeris:
    """Positions of a station: geocentric, ICRF axes, in km, ``(n, 3)`` at ``mjd`` (UTC), ascending."""

    mjd: NDArray[np.float64]
    positions_km: NDArray[np.float64]

    def at(self, mjd: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give positions ``(m, 3)`` by cubic splines. Raises ``ValueError`` for a time outside the table."""
        outside = mjd[(mjd < self.mjd[0]) | (mjd > self.mjd[-1])]
        if len(outside):
            first, last = (Time(day, format="mjd", precision=0).isot for day in (self.mjd[0], self.mjd[-1]))
            when = Time(outside[0], format="mjd", precision=0).isot
            raise ValueError(f"the ephemeris goes from {first}Z to {last}Z; an exposure was at {when}Z")
        return np.asarray(CubicSpline(self.mjd, self.positions_km)(mjd))


def read_ephemeris(path: Path) -> Ephemeris:
    """Read a table of a station's positions (CSV, ECSV, Parquet). Raises ``ValueError``: which, and what to give."""
    table: dict[str, Any] = read_columns(path, POSITION_COLUMNS)
    missing = [name for name in ("time_utc", *POSITION_COLUMNS) if name not in table]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}; give time_utc, x_km, y_km, z_km (geocentric, ICRF)")
    try:
        mjd = mjd_utc(table["time_utc"].tolist())
    except ValueError as error:
        raise ValueError(f"{path}: column time_utc: {error}; give ISO 8601, or MJD, both in UTC") from None
    order = np.argsort(mjd)
    positions = np.stack([table[name] for name in POSITION_COLUMNS], axis=1)[order]
    mjd = mjd[order]
    if len(mjd) < 4 or (np.diff(mjd) <= 0).any() or not np.isfinite(positions).all():
        raise ValueError(f"{path}: give four rows or more, each with a time of its own and three numbers")
    distances = np.linalg.norm(positions, axis=1)
    if distances.min() < NEAREST_KM or distances.max() > FARTHEST_KM:
        raise ValueError(f"{path}: {distances.min():.6g} from the geocentre is no place for a telescope: in km?")
    return Ephemeris(mjd, positions)
