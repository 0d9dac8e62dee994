"""Light profiles on a fine grid: what galaxies of every kind are made of before any optics have seen them.

Positions and sizes are in pixels of the grid, light in electrons. What falls outside the grid is lost, as at the border
of a frame; a profile that is normalised wrongly makes one class brighter than another, and a network learns that
instead of shapes: the tests hold each profile to its total.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Half-light radii out to which a Sersic profile is drawn, and the entries of its table.
SERSIC_END = 14.0
TABLE = 400
# Pixels nearer to the centre than this are sampled this many times along each axis: cusps are steeper than a pixel.
CUSP_PX = 3.0
CUSP_SAMPLES = 5


@njit(cache=True, nogil=True)
def sersic_b(index: float) -> float:
    """The constant that makes the scale radius the half-light radius (Ciotti & Bertin 1999)."""
    return 2.0 * index - 1.0 / 3.0 + 4.0 / (405.0 * index) + 46.0 / (25515.0 * index * index)


@njit(cache=True, nogil=True)
def sersic_table(index: float, table: NDArray[np.float64]) -> None:
    """Surface brightness of unit flux and unit half-light radius at ``(k / last)^2 * SERSIC_END``, into ``table``."""
    b = sersic_b(index)
    total = 2.0 * math.pi * index * math.exp(b) * b ** (-2.0 * index) * math.gamma(2.0 * index)
    last = table.shape[0] - 1
    for k in range(table.shape[0]):
        radius = (k / last) ** 2 * SERSIC_END
        table[k] = math.exp(-b * (radius ** (1.0 / index) - 1.0)) / total


@njit(cache=True, nogil=True)
def table_value(table: NDArray[np.float64], radius: float) -> float:
    """The tabled profile at ``radius`` half-light radii; 0 beyond its end."""
    if radius >= SERSIC_END:
        return 0.0
    place = math.sqrt(radius / SERSIC_END) * (table.shape[0] - 1)
    k = min(int(place), table.shape[0] - 2)
    return table[k] + (place - k) * (table[k + 1] - table[k])


@njit(cache=True, nogil=True)
def add_sersic(
    image: NDArray[np.float32],
    x: float,
    y: float,
    flux: float,
    radius: float,
    index: float,
    ratio: float,
    angle: float,
) -> None:
    """An elliptical Sersic profile added to ``image`` ``[h, w]`` in place.

    ``radius`` is that of half the light along the major axis (px), ``ratio`` the axis ratio, ``angle`` radians from +x.
    """
    height, width = image.shape
    table = np.empty(TABLE)
    sersic_table(index, table)
    peak = flux / (radius * radius * ratio)
    reach = SERSIC_END * radius
    cosine, sine = math.cos(angle), math.sin(angle)
    left, right = max(0, int(x - reach)), min(width - 1, int(x + reach) + 1)
    top, bottom = max(0, int(y - reach)), min(height - 1, int(y + reach) + 1)
    for i in range(top, bottom + 1):
        for j in range(left, right + 1):
            dx, dy = j - x, i - y
            if dx * dx + dy * dy > CUSP_PX * CUSP_PX:
                u, v = dx * cosine + dy * sine, (dy * cosine - dx * sine) / ratio
                image[i, j] += np.float32(peak * table_value(table, math.sqrt(u * u + v * v) / radius))
            else:
                total = 0.0
                for a in range(CUSP_SAMPLES):
                    for c in range(CUSP_SAMPLES):
                        px = dx + (a + 0.5) / CUSP_SAMPLES - 0.5
                        py = dy + (c + 0.5) / CUSP_SAMPLES - 0.5
                        u, v = px * cosine + py * sine, (py * cosine - px * sine) / ratio
                        total += table_value(table, math.sqrt(u * u + v * v) / radius)
                image[i, j] += np.float32(peak * total / CUSP_SAMPLES**2)


@njit(cache=True, nogil=True)
def add_spot(image: NDArray[np.float32], x: float, y: float, flux: float, sigma: float) -> None:
    """A round Gaussian added to ``image`` in place; its pixels sum to ``flux`` (less what falls outside)."""
    height, width = image.shape
    reach = int(math.ceil(4.0 * sigma)) + 1
    cx, cy = int(math.floor(x + 0.5)), int(math.floor(y + 0.5))
    total = 0.0
    for i in range(cy - reach, cy + reach + 1):
        for j in range(cx - reach, cx + reach + 1):
            total += math.exp(-0.5 * ((i - y) ** 2 + (j - x) ** 2) / (sigma * sigma))
    for i in range(max(0, cy - reach), min(height - 1, cy + reach) + 1):
        for j in range(max(0, cx - reach), min(width - 1, cx + reach) + 1):
            image[i, j] += np.float32(flux * math.exp(-0.5 * ((i - y) ** 2 + (j - x) ** 2) / (sigma * sigma)) / total)


@njit(cache=True, nogil=True)
def add_disc(
    image: NDArray[np.float32],
    place: NDArray[np.float64],
    flux: float,
    arms: NDArray[np.float64],
    ring: NDArray[np.float64],
) -> None:
    """A disc with spiral arms, or a ring, added to ``image`` in place.

    ``place``: x, y, scale length (px), axis ratio, angle (radians). ``arms``: how many, their contrast (0: a smooth
    disc), sharpness, tangent of the pitch angle, phase. ``ring``: radius and width in scale lengths, share of the light
    (1: a ring alone), contrast and phase of its brighter side. All that is drawn sums to ``flux``.
    """
    x, y, scale, ratio, angle = place[0], place[1], place[2], place[3], place[4]
    height, width = image.shape
    cosine, sine = math.cos(angle), math.sin(angle)
    reach = 7.0 * scale
    left, right = max(0, int(x - reach)), min(width - 1, int(x + reach) + 1)
    top, bottom = max(0, int(y - reach)), min(height - 1, int(y + reach) + 1)
    if right < left or bottom < top:
        return
    drawn = np.zeros((bottom - top + 1, right - left + 1), np.float32)
    disc_light = 2.0 * math.pi
    ring_light = 2.0 * math.pi * ring[0] * ring[1] * math.sqrt(2.0 * math.pi)
    total = 0.0
    for i in range(top, bottom + 1):
        for j in range(left, right + 1):
            dx, dy = j - x, i - y
            u, v = (dx * cosine + dy * sine) / scale, (dy * cosine - dx * sine) / (ratio * scale)
            r = math.sqrt(u * u + v * v)
            if r > 7.0:
                continue
            theta = math.atan2(v, u)
            value = 0.0
            if ring[2] < 1.0:
                wave = 1.0
                if arms[1] > 0.0:
                    turn = arms[0] * (theta - math.log(r + 0.2) / arms[3]) + arms[4]
                    # Arms begin outside the bulge; each power narrows the crest.
                    crest = (0.5 + 0.5 * math.cos(turn)) ** arms[2]
                    inner = 1.0 - math.exp(-2.0 * r * r)
                    wave = 1.0 - 0.6 * arms[1] * inner + 2.0 * arms[1] * inner * crest
                value += (1.0 - ring[2]) * math.exp(-r) * wave / disc_light
            if ring[2] > 0.0:
                side = 1.0 + ring[3] * math.cos(theta + ring[4])
                value += ring[2] * math.exp(-0.5 * ((r - ring[0]) / ring[1]) ** 2) * side / ring_light
            drawn[i - top, j - left] = value
            total += value
    if total <= 0.0:
        return
    # Of a disc that reaches beyond the grid only the part inside is drawn.
    whole = max(total, ratio * scale * scale)
    for i in range(drawn.shape[0]):
        for j in range(drawn.shape[1]):
            image[top + i, left + j] += np.float32(flux / whole) * drawn[i, j]
