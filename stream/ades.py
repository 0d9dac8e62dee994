"""Observations for the Minor Planet Center in its exchange format (ADES 2022), from the table of tracks.

One optical observation a sighting. ``rmsRA`` is along the sky (ADES: of RA cos DEC), like ``ra_err`` in the table; what
the table does not say stays empty. How it fails at night: a table that would make an invalid report is refused before
anything is written, with the row's track and the column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np

from stream.ephemeris import mjd_utc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stream.ephemeris import Ephemeris

    Columns = Mapping[str, NDArray[Any]]
    Observation = dict[str, str]

VERSION = "2022"
# Columns of the table of tracks; the first ones must be there and filled.
REQUIRED = ("track", "trk_sub", "mid_time_utc", "ra", "dec")
NUMBERS = frozenset({"ra", "dec", "ra_err", "dec_err", "ra_dec_corr", "mag", "mag_err", "snr"})
# In the order in which ADES wants them.
FIELDS = (
    *("permID", "provID", "trkSub", "mode", "stn", "sys", "ctr", "pos1", "pos2", "pos3", "obsTime", "ra", "dec"),
    *("rmsRA", "rmsDec", "rmsCorr", "astCat", "mag", "rmsMag", "band", "logSNR", "remarks"),
)
_NUMBERED = re.compile(r"[0-9]+")
_PROVISIONAL = re.compile(r"[12][0-9]{3} [A-HJ-Y][A-HJ-Z][0-9]*")


@dataclass(frozen=True)
class Report:
    """What a report says of itself: who observed with what, and against which catalogue (the MPC's names of these)."""

    station: str
    catalogue: str
    submitter: str
    observers: tuple[str, ...]
    aperture_m: float
    design: str = "Reflector"
    detector: str = "CCD"
    band: str | None = None

    def header(self) -> dict[str, list[tuple[str, str]]]:
        """Give the header's groups, each with its lines."""
        people = [("name", name) for name in self.observers or (self.submitter,)]
        telescope = [("design", self.design), ("aperture", f"{self.aperture_m:g}"), ("detector", self.detector)]
        return {
            "observatory": [("mpcCode", self.station)],
            "submitter": [("name", self.submitter)],
            "observers": people,
            "measurers": [("name", self.submitter)],
            "telescope": telescope,
            "software": [("astrometry", "Needlestream")],
        }


def observations(tracks: Columns, report: Report, ephemeris: Ephemeris | None) -> list[Observation]:
    """Give the observations, one a row of the table of tracks. Raises ``ValueError``."""
    missing = [name for name in REQUIRED if name not in tracks]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}: give tracks.csv as `needlestream link` writes it")
    _check_names(tracks)
    places: NDArray[np.float64] | None = None
    if ephemeris is not None and len(tracks["track"]):
        places = ephemeris.at(mjd_utc(tracks["mid_time_utc"].tolist()))
    return [_observation(tracks, row, report, places) for row in range(len(tracks["track"]))]


def psv(found: Sequence[Observation], report: Report) -> str:
    """Give the report as pipe-separated values: only the columns that hold something."""
    names = [name for name in FIELDS if any(name in one for one in found)]
    lines = [f"# version={VERSION}"]
    for group, pairs in report.header().items():
        lines += [f"# {group}", *(f"! {name} {value}" for name, value in pairs)]
    lines += ["|".join(names), *("|".join(one.get(name, "") for name in names) for one in found)]
    return "\n".join(lines) + "\n"


def xml(found: Sequence[Observation], report: Report) -> str:
    """Give the report as XML."""
    root = ET.Element("ades", version=VERSION)
    block = ET.SubElement(root, "obsBlock")
    context = ET.SubElement(block, "obsContext")
    for group, pairs in report.header().items():
        element = ET.SubElement(context, group)
        for name, value in pairs:
            ET.SubElement(element, name).text = value
    data = ET.SubElement(block, "obsData")
    for one in found:
        optical = ET.SubElement(data, "optical")
        for name in FIELDS:
            if name in one:
                ET.SubElement(optical, name).text = one[name]
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _check_names(tracks: Columns) -> None:
    """Raise where a name is no ``trkSub``, or stands for two tracks."""
    owner: dict[str, str] = {}
    for track, name in zip(tracks["track"].tolist(), tracks["trk_sub"].tolist(), strict=True):
        if not re.fullmatch(r"[A-Za-z0-9]{1,8}", name):
            raise ValueError(f"track {track}: trk_sub {name!r} must be one to eight letters and figures")
        if owner.setdefault(name, track) != track:
            raise ValueError(f"trk_sub {name} stands for two tracks, {owner[name]} and {track}: report them apart")


def _observation(tracks: Columns, row: int, report: Report, places: NDArray[np.float64] | None) -> Observation:
    def number(name: str) -> float:
        return float(tracks[name][row]) if name in tracks else np.nan

    track, time_utc, ra, dec = str(tracks["track"][row]), str(tracks["mid_time_utc"][row]), number("ra"), number("dec")
    if not np.isfinite([ra, dec]).all() or not time_utc:
        raise ValueError(f"track {track}: a sighting without ra, dec or mid_time_utc cannot be reported")
    error_deg = np.nanmin([number("ra_err"), number("dec_err"), 1e-4])
    digits = int(np.clip(np.ceil(-np.log10(max(error_deg, 1e-9))) + 1, 5, 8))  # a tenth of the error, or finer
    told: dict[str, str | None] = {
        **_designation(tracks, row),
        "trkSub": str(tracks["trk_sub"][row]),
        "mode": "CCD",
        "stn": report.station,
        **({} if places is None else _location(places[row])),
        "obsTime": time_utc.removesuffix("Z") + "Z",
        "ra": f"{round(ra % 360.0, digits) % 360.0:.{digits}f}",
        "dec": f"{dec:+.{digits}f}",
        **_errors(number("ra_err") * 3600.0, number("dec_err") * 3600.0, number("ra_dec_corr")),
        "astCat": report.catalogue,
        **_brightness(number("mag"), number("mag_err"), report.band),
        "logSNR": f"{np.log10(number('snr')):.2f}" if number("snr") > 0 else None,
    }
    return {name: value for name, value in told.items() if value}


def _designation(tracks: Columns, row: int) -> dict[str, str]:
    """The object's own name, where it is one of the MPC's and the match is not ambiguous."""
    name = str(tracks["known_as"][row]) if "known_as" in tracks else ""
    if "known_also" in tracks and str(tracks["known_also"][row]):
        return {}
    if _NUMBERED.fullmatch(name):
        return {"permID": name}
    return {"provID": name} if _PROVISIONAL.fullmatch(name) else {}


def _location(position_km: NDArray[np.float64]) -> dict[str, str]:
    """The station's place; 13 characters and a sign at most."""
    digits = int(np.clip(11 - np.floor(np.log10(np.abs(position_km).max() + 1.0)), 0, 4))
    names = ("pos1", "pos2", "pos3")
    values = (f"{value:+.{digits}f}" for value in position_km)
    return {"sys": "ICRF_KM", "ctr": "399", **dict(zip(names, values, strict=True))}


def _errors(ra_arcsec: float, dec_arcsec: float, correlation: float) -> dict[str, str]:
    if not (ra_arcsec > 0 and dec_arcsec > 0):
        return {}
    told = {"rmsRA": _short(ra_arcsec, 7), "rmsDec": _short(dec_arcsec, 7)}
    if np.isfinite(correlation):
        told["rmsCorr"] = f"{np.clip(correlation, -0.9999, 0.9999):.4f}"
    return told


def _brightness(mag: float, error: float, band: str | None) -> dict[str, str]:
    """Magnitudes mean something in a band alone."""
    if band is None or not -5 <= mag <= 35:
        return {}
    return {"mag": f"{mag:.2f}", **({"rmsMag": _short(error, 6)} if error > 0 else {}), "band": band}


def _short(value: float, width: int) -> str:
    """A positive number in so many characters, without an exponent and never zero."""
    least = 10.0 ** (2 - width)
    text = f"{max(value, least):.{width - 2}f}"
    return text[:width].rstrip(".") if len(text) > width else text
