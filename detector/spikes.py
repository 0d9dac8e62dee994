"""Diffraction spikes: straight, as sharp as the PSF, and they point at a bright star.

To a network on a cut-out a spike is a perfect streak; the star that it belongs to may lie two hundred pixels off. So
each candidate's line is followed beyond its ends: where it meets the middle of a source that is saturated, or as bright
as such, it is far more often a spike than an asteroid that happens to fly there.

The star may also lie outside the frame. But the struts of a telescope are the same for all stars: the directions of
spikes are measured on those in the frame, and a long candidate in just such a direction is doubted too, by as much as
few asteroids fly so. It is not asked how many candidates share a direction, for asteroids near opposition do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy import ndimage

from detector.frame import MaskBit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What counts as a bright star: saturated pixels, or whitened ones above this, so many of them together.
BRIGHT_SIGMA = 1_000.0
LEAST_PIXELS = 9
# A source's middle is the mean of the pixels that are at least this deep in it, of its deepest.
DEEPEST_SHARE = 0.9
# Fainter sources whose wings and spikes may still be taken for streaks: what the evidence is about.
WINGED_SIGMA = 150.0
# No wing or spike is followed farther than this many radii of its source.
FARTHEST_RADII = 100.0
# The line meets the star's middle to within this (pixels, or radii of its bright disc), at most so many lengths beyond
# an end and the disc (or so many pixels).
ACROSS_PX, ACROSS_RADII = 5.0, 0.2
BEYOND_LENGTHS, BEYOND_PX = 1.0, 60.0
# Shorter ones have no direction to speak of.
LEAST_LENGTH_PX = 15.0
# The directions of spikes are measured about so many of the largest stars, between these radii (those of the star's
# bright disc, and pixels), on pixels that count for no more than so many sigma, in bins of half a degree.
ANGLED_STARS, ANGLED_RADIUS_PX = 60, 2.0
NEAREST_RADII, FARTHEST_SPIKE_RADII, FARTHEST_SPIKE_PX = 4.0, 30.0, 250.0
MOST_SIGMA = 4.0
ANGLE_BINS = 360
SPIKE_BINS, SURROUNDING_BINS = 3, 41
# A direction stands out by this many times the scatter of all, and there are few of them; a line has it within so much.
ANGLE_SIGNIFICANCE = 7.0
MOST_ANGLES = 6
ANGLE_WITHIN_DEG = 1.5
# The least that pointing at a star leaves of a streak's odds; more where lines as long often meet one by chance.
LEAST_ODDS = 0.01


def bright_stars(
    whitened: NDArray[np.float32],
    mask: NDArray[np.uint8],
    sigma: float = BRIGHT_SIGMA,
) -> NDArray[np.float64]:
    """Middles and radii ``[n, 3]`` (x, y, r) of the sources above ``sigma`` of a whitened frame ``[h, w]``.

    Masked pixels are NaN; the radius is that of the largest circle in what is brighter.
    """
    with np.errstate(invalid="ignore"):
        bright = (whitened > sigma) | ((mask & np.uint8(MaskBit.SATURATED)) != 0)
    labels, count = ndimage.label(bright, structure=np.ones((3, 3)))
    if not count:
        return np.zeros((0, 3))
    # Of each, the largest circle that it holds: spikes, a ghost that touches and bled charge do not move its middle.
    stars = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        own = np.pad(labels[box] == number, 1)
        if own.sum() < LEAST_PIXELS:
            continue
        depth = ndimage.distance_transform_edt(own)
        rows, columns = np.nonzero(depth >= DEEPEST_SHARE * depth.max())
        stars.append((box[1].start - 1 + columns.mean(), box[0].start - 1 + rows.mean(), depth.max()))
    return np.array(stars, np.float64).reshape(-1, 3)


def beside_stars(ends: NDArray[np.float64], stars: NDArray[np.float64]) -> NDArray[np.float64]:
    """How near each line ``[n, 4]`` is to a bright source (x, y, r) ``[m, 3]``, in the source's radii: ``[n, 2]``.

    The negative logarithm of the distance from the line's middle to the nearest source, and to the nearest that the
    line, followed beyond its ends, meets; that of ``FARTHEST_RADII`` where there is none.
    """
    near = np.full((len(ends), 2), FARTHEST_RADII)
    known = np.flatnonzero(np.isfinite(ends).all(axis=1))
    if len(stars) and len(known):
        radius = np.maximum(stars[:, 2], 1.0)
        middle = 0.5 * (ends[known, :2] + ends[known, 2:])
        along = ends[known, 2:] - ends[known, :2]
        unit = along / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
        dx = stars[None, :, 0] - middle[:, :1]
        dy = stars[None, :, 1] - middle[:, 1:]
        apart = np.hypot(dx, dy) / radius  # n m
        across = np.abs(dx * unit[:, 1:] - dy * unit[:, :1])
        near[known, 0] = apart.min(axis=1)
        near[known, 1] = np.where(across < np.maximum(ACROSS_PX, ACROSS_RADII * radius), apart, np.inf).min(axis=1)
    return np.asarray(-np.log(np.clip(near, 1.0, FARTHEST_RADII)))


def points_at_star(ends: NDArray[np.float64], stars: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each line ``[n, 4]``, followed beyond its ends, meets one of the ``stars`` ``[m, 3]``."""
    found = np.zeros(len(ends), np.bool_)
    if not len(stars):
        return found
    along = ends[:, 2:] - ends[:, :2]
    length = np.hypot(along[:, 0], along[:, 1])
    for n in np.flatnonzero(np.isfinite(ends).all(axis=1) & (length >= LEAST_LENGTH_PX)):
        unit = along[n] / length[n]
        offset = stars[:, :2] - ends[n, :2]
        t = offset @ unit
        across = np.abs(offset[:, 0] * unit[1] - offset[:, 1] * unit[0])
        reach = max(BEYOND_LENGTHS * length[n], BEYOND_PX)
        wide = np.maximum(ACROSS_PX, ACROSS_RADII * stars[:, 2])
        far = reach + stars[:, 2]
        found[n] = bool(((across < wide) & (t > -far) & (t < length[n] + far)).any())
    return found


def spike_angles(whitened: NDArray[np.float32], stars: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions ``[k]`` (degrees from +x towards +y, in [0, 180)) of the spikes of a frame's ``stars`` ``[m, 3]``.

    None where the stars have none, or are too few to tell.
    """
    large = stars[stars[:, 2] >= ANGLED_RADIUS_PX]
    large = large[np.argsort(-large[:, 2], kind="stable")[:ANGLED_STARS]]
    if not len(large):
        return np.zeros(0)
    profile = np.zeros(ANGLE_BINS)
    _around(whitened, large, profile)
    # A degree and a half is a spike's width, seen from afar; what is wider is the star itself.
    smooth = ndimage.uniform_filter1d(profile, SPIKE_BINS, mode="wrap")
    smooth -= ndimage.median_filter(profile, SURROUNDING_BINS, mode="wrap")
    middle = float(np.median(smooth))
    scatter = 1.4826 * float(np.median(np.abs(smooth - middle))) + 1e-12
    highest = (smooth >= np.roll(smooth, 1)) & (smooth > np.roll(smooth, -1))
    found = np.flatnonzero(highest & (smooth > middle + ANGLE_SIGNIFICANCE * scatter))
    found = found[np.argsort(-smooth[found], kind="stable")[:MOST_ANGLES]]
    return np.asarray(np.sort((found + 0.5) * 180.0 / ANGLE_BINS))


@njit(cache=True)
def _around(whitened: NDArray[np.float32], stars: NDArray[np.float64], profile: NDArray[np.float64]) -> None:
    """Add up what lies in each direction from the stars, less what lies in most others as far from them."""
    height, width = whitened.shape
    ring = np.empty(2 * len(profile))
    for n in range(len(stars)):
        x, y, radius = stars[n]
        last = min(FARTHEST_SPIKE_RADII * radius, FARTHEST_SPIKE_PX)
        steps = int(last - NEAREST_RADII * radius)
        for k in range(steps):
            r = NEAREST_RADII * radius + k
            for a in range(len(ring)):
                angle = (a + 0.5) * math.pi / len(profile)
                j, i = int(math.floor(x + r * math.cos(angle) + 0.5)), int(math.floor(y + r * math.sin(angle) + 0.5))
                ring[a] = np.nan
                if 0 <= i < height and 0 <= j < width:
                    ring[a] = whitened[i, j]
            level = np.nanmedian(ring) if np.isfinite(ring).any() else 0.0
            for a in range(len(ring)):
                if math.isfinite(ring[a]):
                    profile[a % len(profile)] += min(max(ring[a] - level, -MOST_SIGMA), MOST_SIGMA) / steps


def lies_along(ends: NDArray[np.float64], angles_deg: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each line ``[n, 4]`` has one of these directions; shorter ones than ``LEAST_LENGTH_PX`` have none."""
    along = ends[:, 2:] - ends[:, :2]
    with np.errstate(invalid="ignore"):
        long = np.hypot(along[:, 0], along[:, 1]) >= LEAST_LENGTH_PX
    if not len(angles_deg):
        return np.zeros(len(ends), np.bool_)
    angle = np.degrees(np.arctan2(along[:, 1], along[:, 0]))
    turn = np.abs((angle[:, None] - angles_deg + 90.0) % 180.0 - 90.0)
    # A short line's direction is known to about a pixel at either end.
    within = np.maximum(ANGLE_WITHIN_DEG, np.degrees(1.0 / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1.0)))
    return np.asarray(long & (turn <= within[:, None]).any(axis=1))


def doubted(
    score: NDArray[np.float64],
    spike: NDArray[np.bool_],
    ends: NDArray[np.float64],
    stars_per_px: float,
) -> NDArray[np.float64]:
    """Probabilities with the odds of what points at a star taken down, by how seldom a line as long does so by chance.

    ``stars_per_px`` is the number of bright stars over that of pixels: a satellite's trail meets some in every frame.
    """
    length = np.nan_to_num(np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]))
    strip = 2.0 * ACROSS_PX * (length + 2.0 * np.maximum(BEYOND_LENGTHS * length, BEYOND_PX))
    odds = np.clip(stars_per_px * strip, LEAST_ODDS, 1.0)
    return np.where(spike, odds * score / (odds * score + 1.0 - score), score)


def doubted_by_angle(
    score: NDArray[np.float64],
    along: NDArray[np.bool_],
    angles_deg: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Probabilities with the odds of what lies ``along`` a spike taken down, by how seldom that is chance."""
    if not len(angles_deg):
        return score
    odds = min(2.0 * ANGLE_WITHIN_DEG * len(angles_deg) / 180.0, 1.0)
    return np.where(along, odds * score / (odds * score + 1.0 - score), score)
