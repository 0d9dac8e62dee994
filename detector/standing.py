"""What stands still: on the sky (stars, galaxies) or on the detector (defects), seen by comparing exposures.

Two sightings of different exposures at one place, alike in trail and brightness, are one thing that stands still where
their trails would have carried it away meanwhile. A thing that moves is at a place once.

Also how full the surroundings of each sighting are: chance has to be reckoned where it strikes, and impostors gather
about bright stars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from detector.motion import Surroundings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sightings import Catalogue, Plane

    F8 = NDArray[np.float64]
    I8 = NDArray[np.int64]

SAME_PLACE_PX = 2.5
# A trail that is not longer than the PSF says only that its object is slow: then the place must be the very same.
SAME_PLACE_SHORT_PX = 1.2
ALIKE_MAG = 1.5
ALIKE_TRAIL_SIGMA = 4.0
ALIKE_TRAIL_SHARE = 0.3
# How much farther than it is apart a pair should have moved.
MOVED_AT_LEAST_PX = 3.0
_NEIGHBOURS = 5


def surroundings(plane: Plane) -> Surroundings:
    """How dense and how unmoved the neighbourhood of each sighting of a plane is."""
    return Surroundings(
        density=_density(plane),
        trail_density=_trail_density(plane),
        standing=_marked(len(plane.index), standing_pairs(plane)),
        sticking=_marked(len(plane.index), _sticking_pairs(plane)),
    )


def standing_pairs(plane: Plane) -> I8:
    """Pairs ``[m, 2]`` of sightings that stand still on the sky."""
    if not len(plane.index):
        return np.empty((0, 2), np.int64)
    scale = plane.scale_arcsec
    pairs = cKDTree(plane.place).query_pairs(SAME_PLACE_PX * scale, output_type="ndarray").astype(np.int64)
    pairs = pairs[_alike(plane, pairs)]
    one, other = pairs.T
    apart = np.linalg.norm(plane.place[one] - plane.place[other], axis=1)
    length = np.minimum(*(np.linalg.norm(plane.trail[k], axis=1) for k in (one, other)))
    gap = np.abs(plane.time_s[one] - plane.time_s[other])
    moved = length * np.nan_to_num(gap / plane.exposure_s[one])
    short = plane.catalogue.short[plane.index]
    stands = np.where(
        short[one] | short[other], apart < SAME_PLACE_SHORT_PX * scale, moved > apart + MOVED_AT_LEAST_PX * scale
    )
    return pairs[stands]


def _sticking_pairs(plane: Plane) -> I8:
    """Pairs of sightings at one pixel of one detector and at different places on the sky."""
    found = plane.catalogue
    pixels = found.pixels[plane.index].reshape(-1, 2, 2).mean(axis=1)
    detector = found.frames.detector[found.frame[plane.index]]
    # Detectors side by side, farther apart than any is wide, make one search of many.
    shifted = pixels + np.stack([detector * 1e6, np.zeros(len(detector))], axis=1)
    pairs = cKDTree(shifted).query_pairs(SAME_PLACE_PX, output_type="ndarray").astype(np.int64)
    pairs = pairs[_alike(plane, pairs)]
    apart = np.linalg.norm(plane.place[pairs[:, 0]] - plane.place[pairs[:, 1]], axis=1)
    return pairs[apart > 2.0 * SAME_PLACE_PX * plane.scale_arcsec]


def _alike(plane: Plane, pairs: I8) -> NDArray[np.bool_]:
    """Pairs of different exposures with like trails and brightness."""
    one, other = pairs[:, 0], pairs[:, 1]
    trail, spread = plane.trail, plane.trail_spread
    apart = np.minimum(
        np.linalg.norm(trail[one] - trail[other], axis=1), np.linalg.norm(trail[one] + trail[other], axis=1)
    )
    sigma = np.sqrt(spread[one, 0] + spread[one, 2] + spread[other, 0] + spread[other, 2])
    length = np.maximum(np.linalg.norm(trail[one], axis=1), np.linalg.norm(trail[other], axis=1))
    mag = plane.catalogue.mag[plane.index]
    fainter = np.nan_to_num(np.abs(mag[one] - mag[other]))
    return np.asarray(
        (plane.exposure[one] != plane.exposure[other])
        & (apart < np.maximum(ALIKE_TRAIL_SIGMA * sigma / np.sqrt(2.0), ALIKE_TRAIL_SHARE * length))
        & (fainter < ALIKE_MAG)
    )


def _marked(count: int, pairs: I8) -> NDArray[np.bool_]:
    marks = np.zeros(count, np.bool_)
    marks[pairs.reshape(-1)] = True
    return marks


def _density(plane: Plane) -> F8:
    """Sightings per arcsec^2 about each, in its own exposure, by the distance of its fifth neighbour."""
    density = np.empty(len(plane.index))
    # Few sightings say little of how large their frames are: no CCD is smaller.
    extent = max(float(np.ptp(plane.place, axis=0).max(initial=0.0)), 500.0 * plane.scale_arcsec)
    for exposure in range(len(plane.times_s)):
        here = plane.exposure == exposure
        place = plane.place[here]
        if len(place) <= _NEIGHBOURS:
            density[here] = len(place) / extent**2
            continue
        farthest = cKDTree(place).query(place, _NEIGHBOURS + 1)[0][:, -1]
        density[here] = _NEIGHBOURS / (np.pi * np.maximum(farthest, plane.scale_arcsec) ** 2)
    return density


def _trail_density(plane: Plane) -> F8:
    """Which share of the sightings has its trail within an arcsec^2 of each one's, directions taken as even."""
    length = np.linalg.norm(plane.trail, axis=1)
    ordered = np.sort(length)
    margin = 0.2 * length + plane.scale_arcsec
    low, high = np.maximum(length - margin, 0.0), length + margin
    inside = np.searchsorted(ordered, high, "right") - np.searchsorted(ordered, low, "left")
    # A trail has no sign: half of the ring.
    area = 0.5 * np.pi * (high**2 - low**2)
    return np.asarray(inside / max(len(length), 1) / area, np.float64)


def static_rows(found: Catalogue, plane: Plane, tracked: I8) -> I8:
    """Rows of the table that stand still, those of accepted tracks (rows ``tracked``) apart."""
    marked = np.unique(standing_pairs(plane))
    rows = found.row[plane.index[marked]]
    return np.asarray(rows[~np.isin(rows, tracked)], np.int64)
