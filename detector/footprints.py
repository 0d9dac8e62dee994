"""Which exposures show a place: footprints of frames from the table of streaks alone.

Each row of the table has pixels and sky of three points of one line; from a frame's rows follows the map between the
two, as a polynomial, without the frame. An exposure that shows the predicted place of an object and has no sighting
there speaks against the track; one whose border or gap lies there says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detector.sightings import onto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from detector.sightings import Plane

    F8 = NDArray[np.float64]
    I8 = NDArray[np.int64]

BORDER_PX = 10.0
# Rows in a frame that bear a polynomial of this degree.
_LEAST_ROWS = {1: 4, 2: 16, 3: 64}


@dataclass(frozen=True, eq=False)
class Footprint:
    """One frame: its exposure in the plane, rows and columns, and the polynomial plane (arcsec) -> pixels."""

    exposure: int
    shape: tuple[float, float]
    middle: F8
    unit: float
    degree: int
    terms: F8

    def pixels(self, places: F8) -> F8:
        """Pixels ``[n, 2]`` (x, y) of places ``[n, 2]`` on the plane."""
        return np.asarray(_powers((places - self.middle) / self.unit, self.degree) @ self.terms, np.float64)


def covered(plane: Plane, footprints: Sequence[Footprint], paths: F8) -> NDArray[np.bool_]:
    """Whether each exposure shows the places of paths ``[m, 4]`` (``detector.motion.paths``): ``[m, k]``."""
    shown = np.zeros((len(paths), len(plane.times_s)), np.bool_)
    for frame in footprints:
        places = paths[:, :2] + (plane.times_s[frame.exposure] - plane.times_s.mean()) * paths[:, 2:]
        pixels = frame.pixels(places)
        highest = np.array([frame.shape[1] - 1.0, frame.shape[0] - 1.0]) - BORDER_PX
        shown[:, frame.exposure] |= ((pixels >= BORDER_PX) & (pixels <= highest)).all(axis=1)
    return shown


def footprints_of(plane: Plane) -> list[Footprint]:
    """The footprint of each frame of the plane that has rows enough for a map."""
    found = plane.catalogue
    # Frames of one camera are alike: where nobody said how large, as large as the widest table reaches.
    widest = found.pixels.reshape(-1, 2).max(axis=0) + 1.0
    of_row = found.frame[plane.index]
    listed = []
    for frame in np.unique(of_row).tolist():
        rows = np.flatnonzero(of_row == frame)
        degree = max((degree for degree, least in _LEAST_ROWS.items() if len(rows) >= least), default=0)
        if degree == 0:
            continue
        index = plane.index[rows]
        ends = found.pixels[index].reshape(-1, 2, 2)
        pixels = np.concatenate([ends[:, 0], ends[:, 1], ends.mean(axis=1)])
        places = onto(plane.axes, np.concatenate([found.ends[index, 0], found.ends[index, 1], found.middle[index]]))
        shape = found.frames.shape[frame]
        size = shape if np.isfinite(shape).all() else widest[::-1]
        middle = places.mean(axis=0)
        unit = max(float(np.abs(places - middle).max()), 1e-9)
        terms = np.linalg.lstsq(_powers((places - middle) / unit, degree), pixels, rcond=None)[0]
        shape_of = (float(size[0]), float(size[1]))
        listed.append(Footprint(int(plane.exposure[rows[0]]), shape_of, middle, unit, degree, terms))
    return listed


def _powers(places: F8, degree: int) -> F8:
    x, y = places.T
    return np.stack([x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=1)
