"""Which object of the sky a candidate is: a name that follows from its position alone, the same in every exposure.

The sky is cut into bands of declination of ``CELL_ARCSEC`` and each band into cells as wide; an object is named after
its cell (uuid5). Nobody has to remember anything, and workers need not talk to each other. Wherever cells end, two
measurements of one object can fall on both sides: therefore a candidate also says which other cells begin within
``NEAR_ARCSEC`` of it. Two candidates closer than that are one object exactly when the name of one is the name of the
other or among its near ones, and that can be told from the two records alone. Lenses and mergers have names of their
own: one galaxy may be both. A candidate whose place on the sky is not known has no name.
"""

from __future__ import annotations

import math
import uuid

CELL_ARCSEC = 5.0
# Positions of one object in two exposures differ by less than this: half a pixel of centring, and the astrometry.
NEAR_ARCSEC = 0.5
# Namespace of the names; an arbitrary constant that must never change (RFC 9562, section 6.6).
OBJECT_NAMESPACE = uuid.UUID("b0c2a9de-7e0f-5f63-8c1b-3a5a4d9d2f10")
_BANDS = round(180.0 * 3600.0 / CELL_ARCSEC)


def object_names(kind: str, ra: float, dec: float) -> tuple[str, ...]:
    """The name of the object of ``kind`` at a place (ICRS degrees), then those of the cells that begin near it.

    None at all where the place is not known.
    """
    if not (math.isfinite(ra) and math.isfinite(dec)):
        return ()
    own = _cell(ra, _band(dec))
    near = NEAR_ARCSEC / 3600.0
    around = [own]
    for band in range(_band(dec - near), _band(dec + near) + 1):
        count = _count(band)
        across = math.cos(math.radians(min(abs(dec) + near, 90.0)))
        # At a pole every cell of a band is near.
        reach = near / across if across > near / 180.0 else 180.0
        first, last = (math.floor((ra + way * reach) / 360.0 * count) for way in (-1.0, 1.0))
        around += [(band, index % count) for index in range(first, min(last, first + count - 1) + 1)]
    return tuple(str(uuid.uuid5(OBJECT_NAMESPACE, f"{kind}/{band}/{index}")) for band, index in dict.fromkeys(around))


def _band(dec: float) -> int:
    return min(_BANDS - 1, max(0, math.floor((dec + 90.0) * 3600.0 / CELL_ARCSEC)))


def _count(band: int) -> int:
    """How many cells a band has."""
    middle = (band + 0.5) * CELL_ARCSEC / 3600.0 - 90.0
    return max(1, round(360.0 * math.cos(math.radians(middle)) * 3600.0 / CELL_ARCSEC))


def _cell(ra: float, band: int) -> tuple[int, int]:
    count = _count(band)
    return band, math.floor(ra % 360.0 / 360.0 * count) % count
