"""The light of an even line seen through a measured PSF, quickly: the model that the fit calls a thousand times a line.

A line along a direction is the difference of two half-lines, and a half-line needs only two coordinates: how far along
and how far across a pixel lies from its end. So one table a direction, the PSF summed up along it, holds every line of
that direction, whatever the PSF looks like (an Airy ring, coma, spikes; circular Gaussians miss them, and with them
6 % of the light and 0.05 px at the ends of bright streaks). Values and derivatives come from one cubic spline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numba import njit, prange
from scipy.ndimage import spline_filter, spline_filter1d

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.psf import Psf

# What a compiled loop needs of a table: the splines of half-lines and of endless lines, nodes a pixel, reach.
Tables: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32], float, float]"
# The PSF turns by 3 degrees from one table to the next: out of round by 0.2, it is then wrong by 0.5 %.
DIRECTIONS = 120
# Nodes a FWHM: a cubic spline through a Gaussian is then good to 1e-4 of its peak.
NODES_PER_FWHM = 8.0
# Nodes outside the reach, which the spline needs.
RIM = 2
# Pixels that lie further from the line than this many FWHM and pixels say nothing of it.
HALF_WIDTH_FWHM, HALF_WIDTH_PX = 1.9, 2.0
# Further than this from where its fit began no line is followed with one set of pixels.
ROOM_PX = 1.5
MIN_LENGTH_PX = 0.5


@dataclass(frozen=True, eq=False)
class LineTables:
    """Cubic splines of lines of unit brightness a pixel, one a direction.

    ``half`` ``[direction, across, along]`` of the line from minus infinity to the origin, ``whole``
    ``[direction, across]`` of the endless line; nodes every ``step_px`` from ``-reach_px`` on, less ``RIM`` nodes.
    """

    half: NDArray[np.float32]
    whole: NDArray[np.float32]
    step_px: float
    reach_px: float

    @property
    def arrays(self) -> Tables:
        """What the compiled functions take."""
        return self.half, self.whole, 1.0 / self.step_px, self.reach_px


def half_width_px(fwhm_px: float) -> float:
    """How far from a line its pixels lie that are fitted."""
    return HALF_WIDTH_FWHM * fwhm_px + HALF_WIDTH_PX


def line_tables(psf: Psf) -> LineTables:
    """The tables of a PSF."""
    step = psf.fwhm_px / NODES_PER_FWHM
    nodes = math.ceil((half_width_px(psf.fwhm_px) + ROOM_PX) / step)
    reach = nodes * step
    side = 2 * (nodes + RIM) + 1
    image, image_step = psf.sampled()
    turned = np.empty((DIRECTIONS, side, side))
    _turn(spline_filter(image, order=3, mode="mirror"), 1.0 / image_step, reach + RIM * step, step, turned)
    # Trapezia and their next correction (Euler and Maclaurin).
    slope = np.gradient(turned, step, axis=2)
    pieces = 0.5 * step * (turned[:, :, 1:] + turned[:, :, :-1]) - step**2 / 12.0 * np.diff(slope, axis=2)
    half = np.concatenate([np.zeros((DIRECTIONS, side, 1)), np.cumsum(pieces, axis=2)], axis=2)
    whole = half[:, :, -1].copy()
    for axis in (1, 2):
        half = spline_filter1d(half, order=3, axis=axis, mode="mirror")
    whole = spline_filter1d(whole, order=3, axis=1, mode="mirror")
    return LineTables(half.astype(np.float32), whole.astype(np.float32), step, reach)


@njit(cache=True, parallel=True)
def _turn(spline: NDArray[np.float64], per_px: float, reach: float, step: float, turned: NDArray[np.float64]) -> None:
    """The PSF of which ``spline`` has the coefficients, in the frame (across, along) of each direction."""
    directions, side, _ = turned.shape
    middle, last = spline.shape[0] // 2, spline.shape[0] - 1
    for k in prange(directions):
        angle = 2.0 * math.pi * k / directions
        ux, uy = math.cos(angle), math.sin(angle)
        for i in range(side):
            across = i * step - reach
            for j in range(side):
                along = j * step - reach
                x = (along * ux - across * uy) * per_px + middle
                y = (along * uy + across * ux) * per_px + middle
                value = 0.0
                if 1.0 <= x < last - 1 and 1.0 <= y < last - 1:
                    column, row = int(x), int(y)
                    wx, wy = _weights(x - column), _weights(y - row)
                    for n in range(4):
                        for m in range(4):
                            value += wy[n] * wx[m] * spline[row - 1 + n, column - 1 + m]
                turned[k, i, j] = value


@njit(cache=True)
def _weights(f: float) -> tuple[float, float, float, float]:
    """Weights of the four coefficients about a place ``f`` nodes after the second of them."""
    g = 1.0 - f
    return (
        g * g * g / 6.0,
        (4.0 - 6.0 * f * f + 3.0 * f * f * f) / 6.0,
        (4.0 - 6.0 * g * g + 3.0 * g * g * g) / 6.0,
        f * f * f / 6.0,
    )


@njit(cache=True)
def _slopes(f: float) -> tuple[float, float, float, float]:
    """Derivatives of the weights by ``f``."""
    g = 1.0 - f
    return -0.5 * g * g, (1.5 * f - 2.0) * f, (2.0 - 1.5 * g) * g, 0.5 * f * f


@njit(cache=True)
def _half_line(
    half: NDArray[np.float32], direction: int, along: float, across: float, per_px: float
) -> tuple[float, float, float]:
    """Value of a half-line and its derivatives along and across; ``along``, ``across`` in nodes, inside the table."""
    j, i = int(along), int(across)
    f, e = along - j, across - i
    w, s, v, r = _weights(f), _slopes(f), _weights(e), _slopes(e)
    value, by_along, by_across = 0.0, 0.0, 0.0
    for n in range(4):
        c0, c1 = half[direction, i - 1 + n, j - 1], half[direction, i - 1 + n, j]
        c2, c3 = half[direction, i - 1 + n, j + 1], half[direction, i - 1 + n, j + 2]
        level = w[0] * c0 + w[1] * c1 + w[2] * c2 + w[3] * c3
        value += v[n] * level
        by_across += r[n] * level
        by_along += v[n] * (s[0] * c0 + s[1] * c1 + s[2] * c2 + s[3] * c3)
    return value, by_along * per_px, by_across * per_px


@njit(cache=True)
def line_frame(p: NDArray[np.float64]) -> tuple[float, float, float, int]:
    """Unit vector, length and direction (of the tables) of a line; a point gets the least length."""
    dx, dy = p[2] - p[0], p[3] - p[1]
    length = math.sqrt(dx * dx + dy * dy)
    ux, uy = (dx / length, dy / length) if length > 1e-9 else (1.0, 0.0)
    turn = math.atan2(uy, ux) / (2.0 * math.pi) * DIRECTIONS
    return ux, uy, max(length, MIN_LENGTH_PX), int(math.floor(turn + 0.5)) % DIRECTIONS


@njit(cache=True)
def line_profile(
    rx: float, ry: float, ux: float, uy: float, length: float, direction: int, tables: Tables
) -> tuple[float, float, float, float, float, float]:
    """Value of a line of unit flux at ``rx, ry`` px from its first end; its derivatives by x0, y0, x1, y1, ln width.

    The width is that of the PSF, its light kept. Beyond the tables' reach everything is 0.
    """
    half, whole, per_px, reach = tables
    t, d = rx * ux + ry * uy, ry * ux - rx * uy
    b = t - length
    if abs(d) >= reach or t <= -reach or b >= reach:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    across = (d + reach) * per_px + RIM
    value, by_across, head, tail = 0.0, 0.0, 0.0, 0.0
    if t < reach:
        value, head, by_across = _half_line(half, direction, (t + reach) * per_px + RIM, across, per_px)
    else:
        i = int(across)
        v, r = _weights(across - i), _slopes(across - i)
        for n in range(4):
            value += v[n] * whole[direction, i - 1 + n]
            by_across += r[n] * whole[direction, i - 1 + n] * per_px
    if b > -reach:
        before, tail, before_across = _half_line(half, direction, (b + reach) * per_px + RIM, across, per_px)
        value -= before
        by_across -= before_across
    share = 1.0 / length
    value *= share
    by_d = by_across * share
    by_t = (head - tail) * share
    by_length = (tail - value) * share
    by_width = -value - (t * head - b * tail) * share - d * by_d
    turn_x, turn_y = uy * share, -ux * share
    return (
        value,
        by_t * (-ux + d * turn_x) + by_d * (uy - t * turn_x) - by_length * ux,
        by_t * (-uy + d * turn_y) + by_d * (-ux - t * turn_y) - by_length * uy,
        (by_d * t - by_t * d) * turn_x + by_length * ux,
        (by_d * t - by_t * d) * turn_y + by_length * uy,
        by_width,
    )
