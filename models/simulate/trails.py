"""What the light of a trail allows: its signal-to-noise in a matched filter, and the least errors of its ends.

Both are of the true shape, the PSF as it was drawn with its wings and its pixels, in the noise of the empty sky.
Nothing can fail here but memory, for a trail across a huge frame.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.simulate.asteroids import add_trails

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.simulate.asteroids import Kernel

# The matched filter is summed out to this distance from the trail, px.
FILTER_RIM_PX = 24
# So much light that the painter's cut-off is far below a per cent of the peak.
UNIT_E = 1e5
# How far an end is moved to see what changes, px; a shorter trail than this part of the PSF's width has no direction.
MOVED_PX = 0.05
SHORTEST_IN_FWHM = 0.15


class Bounds(NamedTuple):
    """Sigmas in pixels, along and across the trail, of an end and of the mid-point: no unbiased fit does better."""

    end_along_bound_px: float
    end_across_bound_px: float
    mid_along_bound_px: float
    mid_across_bound_px: float


UNKNOWN = Bounds(*(math.nan,) * 4)


def trail_snr(trail: NDArray[np.float64], kernel: Kernel, variance: float) -> float:
    """Signal-to-noise of a matched filter of a trail's true shape: flux * sqrt(sum p^2 / variance), p of unit sum."""
    stamp = _unit_stamp(trail, trail[:4], kernel)
    return float(trail[4] * np.sqrt(np.vdot(stamp, stamp) / variance))


def trail_bounds(trail: NDArray[np.float64], kernel: Kernel, variance: float) -> Bounds:
    """The Cramer-Rao bounds of a trail (x0, y0, x1, y1, electrons) with its flux and both ends unknown.

    A pixel's variance is that of the empty sky and of the trail's own photons. The light is drawn as the simulation
    draws it, each end a little to either side; the 5 x 5 information of what changes is inverted.
    """
    length = math.hypot(trail[2] - trail[0], trail[3] - trail[1])
    if length > 0:
        ux, uy = (trail[2] - trail[0]) / length, (trail[3] - trail[1]) / length
    else:
        ux, uy = 1.0, 0.0
    shortest = SHORTEST_IN_FWHM * kernel.fwhm_px
    reach = 0.5 * max(length, shortest)
    middle = np.array([trail[0] + trail[2], trail[1] + trail[3]]) / 2.0
    ends = np.concatenate([middle - reach * np.array([ux, uy]), middle + reach * np.array([ux, uy])])
    light = _unit_stamp(trail, ends, kernel).astype(np.float64)
    weight = 1.0 / (variance + trail[4] * light)
    changes = [light]
    for end in (0, 2):
        for dx, dy in ((ux, uy), (-uy, ux)):
            step = np.zeros(4)
            step[end : end + 2] = MOVED_PX * dx, MOVED_PX * dy
            there, back = (_unit_stamp(trail, ends + sign * step, kernel) for sign in (1.0, -1.0))
            changes.append(trail[4] * (there.astype(np.float64) - back) / (2.0 * MOVED_PX))
    shapes = np.stack(changes).reshape(5, -1)
    scale = np.sqrt((shapes**2 * weight.ravel()).sum(axis=1))
    if not (scale > 0).all():
        return UNKNOWN
    normed = shapes / scale[:, None]
    information = (normed * weight.ravel()) @ normed.T
    if np.linalg.cond(information) > 1e10:
        return UNKNOWN
    covariance = np.linalg.inv(information) / np.outer(scale, scale)
    along, across = covariance[np.ix_([1, 3], [1, 3])], covariance[np.ix_([2, 4], [2, 4])]
    variances = (np.trace(along) / 2.0, np.trace(across) / 2.0, along.sum() / 4.0, across.sum() / 4.0)
    return Bounds(*(math.sqrt(max(float(value), 0.0)) for value in variances))


def _unit_stamp(trail: NDArray[np.float64], ends: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float32]:
    """The light of unit flux between ``ends`` in the pixels about ``trail``."""
    x, y = (math.floor(min(trail[i], trail[i + 2])) - FILTER_RIM_PX for i in (0, 1))
    shape = tuple(math.ceil(abs(trail[3 - i] - trail[1 - i])) + 2 * FILTER_RIM_PX + 2 for i in range(2))
    stamp = np.zeros(shape, np.float32)
    add_trails(stamp, np.array([[ends[0] - x, ends[1] - y, ends[2] - x, ends[3] - y, UNIT_E]]), kernel)
    stamp /= np.float32(UNIT_E)
    return stamp
