"""Where and when a frame looked: what says whether two frames are exposures of one field.

From headers alone, so that the exposures of a field find each other before anybody reads pixels. Nothing here fails: a
frame without coordinates or time has no pointing, and stays alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from detector.astrometry import to_sky, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from detector.frame import FrameHeader

Name = TypeVar("Name")

# Two frames whose middles are this share of their shorter side apart still show a piece of the same sky.
REACH = 0.9
# Exposures of a field that are looked at together.
EXPOSURES_TOGETHER = 8
NIGHT_DAYS = 0.5
# Two copies of one exposure would tell each other that everything stands still.
ANOTHER_EXPOSURE_DAYS = 1.0 / 86400.0


@dataclass(frozen=True)
class Pointing:
    """The middle of a frame (ICRS, deg), how far another may be (``reach_deg``), mid-time, shape [y, x], filter."""

    ra: float
    dec: float
    reach_deg: float
    mid_time_mjd_tai: float
    shape: tuple[int, int]
    filter_name: str | None

    def apart_deg(self, other: Pointing) -> float:
        """The distance of the two middles on the sky."""
        one, two = self._middle(), other._middle()
        return float(np.degrees(2.0 * np.arcsin(min(1.0, 0.5 * float(np.linalg.norm(one - two))))))

    def shows_field_of(self, other: Pointing) -> bool:
        """Whether both show one field in different exposures of a night: same shape and filter, overlapping."""
        apart_days = abs(self.mid_time_mjd_tai - other.mid_time_mjd_tai)
        return (
            self.shape == other.shape
            and self.filter_name == other.filter_name
            and ANOTHER_EXPOSURE_DAYS < apart_days < NIGHT_DAYS
            and self.apart_deg(other) < self.reach_deg
        )

    def _middle(self) -> NDArray[np.float64]:
        return np.asarray(unit_vectors(np.array([self.ra]), np.array([self.dec]))[0])


def pointing_of(header: FrameHeader) -> Pointing | None:
    """The pointing of a frame; None without a WCS, a pixel scale or a time, or where the WCS leads nowhere."""
    if header.wcs is None or not header.pixel_scale_arcsec or header.mid_time_mjd_tai is None:
        return None
    height, width = header.shape
    ra, dec = to_sky(header.wcs, np.array([0.5 * (width - 1)]), np.array([0.5 * (height - 1)]))
    if not np.isfinite(ra + dec).all():
        return None
    reach_deg = REACH * min(height, width) * header.pixel_scale_arcsec / 3600.0
    return Pointing(float(ra[0]), float(dec[0]), reach_deg, header.mid_time_mjd_tai, header.shape, header.filter_name)


def exposures_together(own: Pointing, name: Name, others: Iterable[tuple[Pointing, Name]]) -> list[Name]:
    """Give the names of a frame and of those that show its field in other exposures of the night, in their order.

    ``others`` come nearest in time first, and as many are taken as are looked at together; of an exposure's CCDs the
    nearest on the sky, and of copies the first that comes.
    """
    found = [(own.mid_time_mjd_tai, 0.0, name)]
    for pointing, other in others:
        if not pointing.shows_field_of(own):
            continue
        here = (pointing.mid_time_mjd_tai, pointing.apart_deg(own), other)
        same = next((k for k, known in enumerate(found) if abs(known[0] - here[0]) < ANOTHER_EXPOSURE_DAYS), None)
        if same is None:
            found.append(here)
        elif here[1] < found[same][1]:
            found[same] = here
    return [other for _, _, other in sorted(found[:EXPOSURES_TOGETHER], key=lambda one: one[0])]
