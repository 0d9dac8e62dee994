"""Diffraction spikes: straight, as sharp as the PSF, and they point at a bright star.

To a network on a cut-out a spike is a perfect streak; the star that it belongs to may lie two hundred pixels off. So
each candidate's line is followed beyond its ends: where it meets the middle of a source that is saturated, or as bright
as such, it is far more often a spike than an asteroid that happens to fly there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from detector.frame import MaskBit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What counts as a bright star: saturated pixels, or whitened ones above this, so many of them together.
BRIGHT_SIGMA = 1_000.0
LEAST_PIXELS = 9
# Fainter sources whose wings and spikes may still be taken for streaks: what the evidence is about.
WINGED_SIGMA = 150.0
# No wing or spike is followed farther than this many radii of its source.
FARTHEST_RADII = 100.0
# The line meets the star's middle to within this, at most so many lengths beyond an end (or so many pixels).
ACROSS_PX = 5.0
BEYOND_LENGTHS, BEYOND_PX = 1.0, 60.0
# Shorter ones have no direction to speak of.
LEAST_LENGTH_PX = 15.0
# The least that pointing at a star leaves of a streak's odds; more where lines as long often meet one by chance.
LEAST_ODDS = 0.01


def bright_stars(
    whitened: NDArray[np.float32],
    mask: NDArray[np.uint8],
    sigma: float = BRIGHT_SIGMA,
) -> NDArray[np.float64]:
    """Middles and radii ``[n, 3]`` (x, y, r) of the sources above ``sigma`` of a whitened frame ``[h, w]``.

    Masked pixels are NaN; the radius is that of a circle as large as what is brighter.
    """
    with np.errstate(invalid="ignore"):
        bright = (whitened > sigma) | ((mask & np.uint8(MaskBit.SATURATED)) != 0)
    labels, count = ndimage.label(bright, structure=np.ones((3, 3)))
    if not count:
        return np.zeros((0, 3))
    # Of each, the box: charge that bled along a column makes it long, and the star is where it is widest.
    stars = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[box] == number
        if own.sum() < LEAST_PIXELS:
            continue
        rows, columns = own.sum(axis=1), own.sum(axis=0)
        wide_rows = np.flatnonzero(rows >= 0.5 * rows.max())
        wide_columns = np.flatnonzero(columns >= 0.5 * columns.max())
        width = np.sqrt(len(wide_rows) * len(wide_columns) / np.pi)
        stars.append((box[1].start + wide_columns.mean(), box[0].start + wide_rows.mean(), width))
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
        near[known, 1] = np.where(across < np.maximum(ACROSS_PX, 0.5 * radius), apart, np.inf).min(axis=1)
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
        found[n] = bool(((across < ACROSS_PX) & (t > -reach) & (t < length[n] + reach)).any())
    return found


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
