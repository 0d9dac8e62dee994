"""Cells of the sky: where frames go that name no field, so that one linker sees what overlaps.

The sky is cut into bands of declination and each band into cells of about ``CELL_DEG``. A frame near the border of its
cell is of use to the neighbours too: ``touched`` names them, and its candidates are sent there as copies. Nights are
not in the name: exposures of two nights are told apart by their times, and no night is cut at anybody's midnight.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from detector.frame import FrameHeader

CELL_DEG = 5.0
# What moves at 80 arcsec/h goes as far in two hours (``detector.sightings``).
NEIGHBOURS_DEG = 160.0 / 3600.0
# Looked for on two circles: where the corner of a cell just reaches into the inner one, it is wide at the outer one.
_CIRCLES, _DIRECTIONS = (1.0, 1.5), 16


def touched(header: FrameHeader) -> tuple[str, ...]:
    """The cell of a frame's centre, then the cells that a frame overlapping it may belong to; none without a WCS."""
    if header.wcs is None or not header.pixel_scale_arcsec:
        return ()
    rows, cols = header.shape
    ra, dec = (float(value) for value in header.wcs.all_pix2world((cols - 1) / 2, (rows - 1) / 2, 0))
    if not (math.isfinite(ra) and math.isfinite(dec)):
        return ()
    # Two frames overlap, or nearly do, when their centres are closer than both their radii.
    reach = math.hypot(rows, cols) * header.pixel_scale_arcsec / 3600.0 + NEIGHBOURS_DEG
    places = [place for wider in _CIRCLES for place in _around(ra, dec, wider * reach)]
    return tuple(dict.fromkeys([cell(ra, dec), *(cell(*place) for place in places)]))


def cell(ra: float, dec: float) -> str:
    """The name of the cell of a place (degrees)."""
    bands = round(180.0 / CELL_DEG)
    band = min(bands - 1, max(0, math.floor((dec + 90.0) / CELL_DEG)))
    middle = (band + 0.5) * CELL_DEG - 90.0
    count = max(1, round(360.0 * math.cos(math.radians(middle)) / CELL_DEG))
    return f"cell-{band:02d}-{math.floor(ra % 360.0 / 360.0 * count) % count:02d}"


def _around(ra: float, dec: float, reach: float) -> list[tuple[float, float]]:
    """Places on the circle of this radius (degrees) about a place."""
    places = []
    a, d, r = math.radians(ra), math.radians(dec), math.radians(reach)
    # In three dimensions, for at a pole the formulae of angles are nothing but rounding.
    middle = np.array([math.cos(d) * math.cos(a), math.cos(d) * math.sin(a), math.sin(d)])
    east = np.array([-math.sin(a), math.cos(a), 0.0])
    north = np.array([-math.sin(d) * math.cos(a), -math.sin(d) * math.sin(a), math.cos(d)])
    for turn in np.linspace(0.0, 2.0 * math.pi, _DIRECTIONS, endpoint=False).tolist():
        x, y, z = (math.cos(r) * middle + math.sin(r) * (math.cos(turn) * north + math.sin(turn) * east)).tolist()
        places.append((math.degrees(math.atan2(y, x)) % 360.0, math.degrees(math.atan2(z, math.hypot(x, y)))))
    return places
