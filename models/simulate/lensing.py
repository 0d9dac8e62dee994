"""Gravitational lensing by a singular isothermal ellipsoid in an external shear: rays shot from pixels to the source.

The deflection is closed (Kormann, Schneider & Bartelmann 1994, A&A 284, 285; Keeton & Kochanek 1998, ApJ 495, 157), so
every pixel of the image asks the source directly how bright it is there, and arcs, rings, doubles and quads come out as
they are in nature. A sign wrong in the shear gives images that look right and teach wrong shapes: the numpy twin and
the lens equation are the test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from models.simulate.profiles import TABLE, sersic_table, table_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rounder lenses than this are taken as so round: the closed form divides by their ellipticity.
ROUNDEST = 0.9995


@dataclass(frozen=True)
class Deflector:
    """An SIE with shear; lengths in the unit of the caller. ``x``, ``y`` its place, ``angle`` of its major axis.

    ``einstein`` is the Einstein radius in the intermediate-axis convention: the circle that holds the same mean
    convergence, 1. ``ratio`` is the axis ratio of the mass, ``shear`` and ``shear_angle`` (radians) the external shear.
    """

    x: float
    y: float
    einstein: float
    ratio: float
    angle: float
    shear: float
    shear_angle: float

    def array(self) -> NDArray[np.float64]:
        """The seven numbers as the kernels take them."""
        fields = (self.x, self.y, self.einstein, min(self.ratio, ROUNDEST), self.angle, self.shear, self.shear_angle)
        return np.array(fields, np.float64)


@njit(cache=True, nogil=True)
def unlensed(lens: NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
    """Where in the source plane a ray through the image position (x, y) ends, in the same coordinates."""
    dx, dy = x - lens[0], y - lens[1]
    ratio = lens[3]
    cosine, sine = math.cos(lens[4]), math.sin(lens[4])
    u, v = dx * cosine + dy * sine, dy * cosine - dx * sine
    f = math.sqrt(1.0 - ratio * ratio)
    psi = math.sqrt(ratio * ratio * u * u + v * v) + 1e-9
    along = lens[2] * math.sqrt(ratio) / f * math.atan(f * u / psi)
    across = lens[2] * math.sqrt(ratio) / f * math.atanh(f * v / (psi + 1e-12))
    ax, ay = along * cosine - across * sine, along * sine + across * cosine
    g1, g2 = lens[5] * math.cos(2.0 * lens[6]), lens[5] * math.sin(2.0 * lens[6])
    return x - ax - g1 * dx - g2 * dy, y - ay - g2 * dx + g1 * dy


def unlensed_plainly(
    lens: Deflector, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The plain numpy twin of ``unlensed``, for whole arrays: what tests it."""
    ratio = min(lens.ratio, ROUNDEST)
    place = (x - lens.x + 1j * (y - lens.y)) * np.exp(-1j * lens.angle)
    f = np.sqrt(1.0 - ratio**2)
    psi = np.hypot(ratio * place.real, place.imag)
    inner = np.arctan(f * place.real / psi) + 1j * np.arctanh(f * place.imag / psi)
    deflection = lens.einstein * np.sqrt(ratio) / f * inner * np.exp(1j * lens.angle)
    shear = lens.shear * np.exp(2j * lens.shear_angle) * np.conj(x - lens.x + 1j * (y - lens.y))
    source = x + 1j * y - deflection - shear
    return source.real, source.imag


@njit(cache=True, nogil=True)
def _source_light(
    bx: float, by: float, source: NDArray[np.float64], table: NDArray[np.float64], clumps: NDArray[np.float64]
) -> float:
    """Surface brightness of the source at (bx, by)."""
    dx, dy = bx - source[0], by - source[1]
    cosine, sine = math.cos(source[5]), math.sin(source[5])
    u, v = dx * cosine + dy * sine, (dy * cosine - dx * sine) / source[4]
    radius = source[2]
    value = table_value(table, math.sqrt(u * u + v * v) / radius) / (radius * radius * source[4])
    for k in range(clumps.shape[0]):
        r2 = (bx - clumps[k, 0]) ** 2 + (by - clumps[k, 1]) ** 2
        s2 = clumps[k, 3] * clumps[k, 3]
        if r2 < 16.0 * s2:
            value += clumps[k, 2] * math.exp(-0.5 * r2 / s2) / (2.0 * math.pi * s2)
    return value


@njit(cache=True, nogil=True)
def _shoot(
    image: NDArray[np.float32],
    lens: NDArray[np.float64],
    source: NDArray[np.float64],
    clumps: NDArray[np.float64],
    reach: float,
) -> None:
    height, width = image.shape
    table = np.empty(TABLE)
    sersic_table(source[3], table)
    for i in range(max(0, int(lens[1] - reach)), min(height - 1, int(lens[1] + reach)) + 1):
        for j in range(max(0, int(lens[0] - reach)), min(width - 1, int(lens[0] + reach)) + 1):
            if (i - lens[1]) ** 2 + (j - lens[0]) ** 2 > reach * reach:
                continue
            bx, by = unlensed(lens, float(j), float(i))
            image[i, j] += np.float32(_source_light(bx, by, source, table, clumps))


def lensed_source(
    shape: tuple[int, int], lens: Deflector, source: NDArray[np.float64], clumps: NDArray[np.float64], *, reach: float
) -> NDArray[np.float32]:
    """The images of one source, float32 ``shape``, for a source of unit flux (a part more for its clumps).

    All in pixels: ``source`` is x, y, half-light radius, Sersic index, axis ratio, angle; ``clumps`` ``[k, 4]`` x, y,
    flux, sigma, in the source plane. Nothing is drawn farther than ``reach`` from the lens.
    """
    image = np.zeros(shape, np.float32)
    _shoot(image, lens.array(), np.ascontiguousarray(source, np.float64), clumps, reach)
    return image
