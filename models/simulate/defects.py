"""What the instrument itself puts into a frame: noise, cosmic rays, and every defect that has been taken for a streak.

Hot columns, bleeding stars, amplifier steps and ghosts fooled each streak finder that was trained without them; the
nights on which they show up are those on which nobody has time to look. Everything here is drawn anew for each call
from a seed, and is fast enough that training frames are exposed afresh every time they are shown.
"""

from __future__ import annotations

from math import cos, exp, floor, hypot, pi, sin, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from models.simulate.cosmicrays import add_cosmic_rays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.simulate.conditions import Conditions

# Above this many electrons a Poisson draw is a normal one to better than a hundredth of its sigma's shape.
NORMAL_ABOVE_E = 50.0


def expose(electrons: NDArray[np.float32], conditions: Conditions, seed: int) -> NDArray[np.float32]:
    """The frame that a detector makes of the noise-free ``electrons`` (float32 ``[h, w]``), as new float32 electrons.

    Response, photon noise, cosmic rays, defects, saturation with bleeding, read noise and quantisation, in the order
    in which they happen. An image smaller than the detector is a random part of it.
    """
    return expose_again(electrons, conditions, seed, detector_seed=seed)[0]


def expose_again(
    electrons: NDArray[np.float32], conditions: Conditions, seed: int, *, detector_seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``expose`` with a detector that keeps its own defects from one exposure to the next, and the cosmic rays' charge.

    ``detector_seed`` fixes hot pixels, columns and amplifiers, ``seed`` the noise and the cosmic rays.
    """
    defects = conditions.defects
    detector, rng = np.random.default_rng([detector_seed, 1]), np.random.default_rng([seed, 2])
    height, width = electrons.shape
    full_height, full_width = max(height, defects.ccd_shape[0]), max(width, defects.ccd_shape[1])
    origin = (int(detector.integers(0, full_height - height + 1)), int(detector.integers(0, full_width - width + 1)))
    gains = 1.0 + defects.gain_spread * detector.standard_normal(defects.amplifiers)
    steps = defects.step_e * detector.standard_normal(defects.amplifiers)
    colours = 1.0 + defects.bayer * detector.uniform(-1.0, 1.0, (2, 2))
    place = np.array([*origin, full_height, full_width])
    lit = np.array([defects.overscan_px, defects.lit_radius])

    charge = np.zeros_like(electrons)
    tracks = conditions.rays_per_mpx * height * width * 1e-6
    add_cosmic_rays(charge, tracks, int(rng.integers(1 << 31)), rays=conditions.rays)
    image = _photons(electrons, rng, place, gains, colours, defects.flat_scatter, lit)
    image += charge
    _add_hot_pixels(image, detector, defects.hot_pixels, defects.column_e)
    _set_columns(image, detector, defects.hot_columns, defects.dead_columns, defects.column_e)
    if defects.residuals:
        _add_residuals(image, rng, defects.residuals, conditions.noise_e, conditions.optics.fwhm_px / 2.355)
    if defects.bleed == "columns":
        _bleed(image, defects.full_well_e)
    elif defects.bleed == "rows":
        _bleed(image.T, defects.full_well_e)
    _read_out(image, rng, place, steps, conditions.read_noise_e, conditions.gain_e_adu, defects.full_well_e)
    return (_resampled(image, defects.resampling) if defects.resampling else image), charge


@njit(cache=True, nogil=True)
def _photons(
    electrons: NDArray[np.float32],
    rng: np.random.Generator,
    place: NDArray[np.int64],
    gains: NDArray[np.float64],
    colours: NDArray[np.float64],
    flat_scatter: float,
    lit: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Photo-electrons counted: response of amplifier, filter and pixel, dark edges, Poisson noise."""
    height, width = electrons.shape
    top, left, full_height, full_width = place
    image = np.empty_like(electrons)
    half_diagonal = 0.5 * hypot(full_height, full_width)
    edge, radius = lit[0], lit[1] * half_diagonal
    for y in range(height):
        row = y + top
        amplifier_row = row * gains.shape[0] // full_height
        dark_row = row < edge or row >= full_height - edge
        for x in range(width):
            column = x + left
            response = gains[amplifier_row, column * gains.shape[1] // full_width]
            response *= colours[row % 2, column % 2]
            if flat_scatter > 0.0:
                response *= 1.0 + flat_scatter * rng.standard_normal()
            if dark_row or column < edge or column >= full_width - edge:
                response = 0.0
            if radius > 0.0:
                r = hypot(row - 0.5 * full_height, column - 0.5 * full_width)
                response *= min(1.0, max(0.0, (radius - r) / (0.02 * half_diagonal) + 0.5))
            expected = response * electrons[y, x]
            if expected > NORMAL_ABOVE_E:
                image[y, x] = expected + sqrt(expected) * rng.standard_normal()
            elif expected > 0.0:
                image[y, x] = _poisson(expected, rng)
            else:
                image[y, x] = 0.0
    return image


@njit(cache=True, nogil=True)
def _poisson(expected: float, rng: np.random.Generator) -> float:
    """A Poisson draw by inversion: one uniform number, and as many steps as electrons."""
    u = rng.random()
    probability = exp(-expected)
    total = probability
    k = 0
    while u > total and k < 200:
        k += 1
        probability *= expected / k
        total += probability
    return float(k)


@njit(cache=True, nogil=True)
def _add_hot_pixels(image: NDArray[np.float32], rng: np.random.Generator, rate: float, scale_e: float) -> None:
    """Single hot pixels, a few of them pairs and short runs along a column, with an exponential run of charges."""
    height, width = image.shape
    for _ in range(rng.poisson(rate * height * width * 1e-6)):
        x, y = int(rng.random() * width), int(rng.random() * height)
        charge = scale_e * 3.0 * exp(1.5 * rng.standard_normal())
        length = 1
        while rng.random() < 0.15 and length < 8:
            length += 1
        for j in range(y, min(height, y + length)):
            image[j, x] += np.float32(charge * (0.5 + rng.random()))


@njit(cache=True, nogil=True)
def _set_columns(image: NDArray[np.float32], rng: np.random.Generator, hot: float, dead: float, scale_e: float) -> None:
    """Columns that glow or are blind, from some row on, one to three pixels wide."""
    height, width = image.shape
    n_hot = rng.poisson(hot * width * 1e-3)
    for k in range(n_hot + rng.poisson(dead * width * 1e-3)):
        x = int(rng.random() * width)
        begin = int((rng.random() * 1.5 - 0.5) * height)
        charge = scale_e * exp(rng.standard_normal())
        kept = rng.random() * 0.9
        thickness = 1 if rng.random() < 0.8 else 2 + int(2 * rng.random())
        for i in range(x, min(width, x + thickness)):
            for y in range(max(0, begin), height):
                if k < n_hot:
                    image[y, i] += np.float32(charge + sqrt(charge) * rng.standard_normal())
                else:
                    image[y, i] *= np.float32(kept)


@njit(cache=True, nogil=True)
def _add_residuals(
    image: NDArray[np.float32], rng: np.random.Generator, rate: float, noise_e: float, sigma: float
) -> None:
    """What the subtraction of a misaligned reference leaves: dipoles, and holes where a source faded."""
    height, width = image.shape
    reach = int(4.0 * sigma) + 2
    for _ in range(rng.poisson(rate * height * width * 1e-6)):
        x, y = rng.random() * width, rng.random() * height
        peak = noise_e * exp(rng.random() * 5.0)
        angle = rng.random() * 2.0 * pi
        apart = sigma * (0.2 + 1.5 * rng.random())
        positive = peak if rng.random() < 0.7 else 0.0
        dx, dy = 0.5 * apart * cos(angle), 0.5 * apart * sin(angle)
        for row in range(max(0, int(y) - reach), min(height, int(y) + reach + 1)):
            for column in range(max(0, int(x) - reach), min(width, int(x) + reach + 1)):
                plus = (column - x - dx) ** 2 + (row - y - dy) ** 2
                minus = (column - x + dx) ** 2 + (row - y + dy) ** 2
                scale = 0.5 / (sigma * sigma)
                image[row, column] += np.float32(positive * exp(-plus * scale) - peak * exp(-minus * scale))


@njit(cache=True, nogil=True)
def _bleed(image: NDArray[np.float32], full_well: float) -> None:
    """Charge above the full well pushed along the columns, half of it either way, until wells with room take it up."""
    height, width = image.shape
    spills = np.zeros(width, np.bool_)
    for y in range(height):
        for x in range(width):
            if image[y, x] > full_well:
                spills[x] = True
    for x in range(width):
        if not spills[x]:
            continue
        y = 0
        while y < height:
            excess = 0.0
            first = y
            while y < height and image[y, x] >= full_well:
                excess += image[y, x] - full_well
                image[y, x] = full_well
                y += 1
            if excess > 0.0:
                _pour(image[:, x], first - 1, -1, 0.5 * excess, full_well)
                _pour(image[:, x], y, 1, 0.5 * excess, full_well)
            y += 1


@njit(cache=True, nogil=True)
def _pour(column: NDArray[np.float32], begin: int, step: int, charge: float, full_well: float) -> None:
    y = begin
    while charge > 0.0 and 0 <= y < column.shape[0]:
        taken = min(charge, max(0.0, full_well - column[y]))
        column[y] += np.float32(taken)
        charge -= taken
        y += step


@njit(cache=True, nogil=True)
def _read_out(
    image: NDArray[np.float32],
    rng: np.random.Generator,
    place: NDArray[np.int64],
    steps: NDArray[np.float64],
    read_noise: float,
    gain: float,
    full_well: float,
) -> None:
    """Read noise, the amplifiers' biases, and whole ADU."""
    height, width = image.shape
    top, left, full_height, full_width = place
    for y in range(height):
        amplifier_row = (y + top) * steps.shape[0] // full_height
        for x in range(width):
            value = min(np.float64(image[y, x]), full_well) + read_noise * rng.standard_normal()
            value += steps[amplifier_row, (x + left) * steps.shape[1] // full_width]
            image[y, x] = np.float32(gain * floor(value / gain + 0.5))


@njit(cache=True, nogil=True)
def _resampled(image: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Each pixel mixed with ``share`` of each of its neighbours along x, then along y: correlated noise."""
    height, width = image.shape
    own, share32 = np.float32(1.0 - 2.0 * share), np.float32(share)
    across = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            left, right = image[y, max(0, x - 1)], image[y, min(width - 1, x + 1)]
            across[y, x] = own * image[y, x] + share32 * (left + right)
    out = np.empty_like(image)
    for y in range(height):
        below, above = across[max(0, y - 1)], across[min(height - 1, y + 1)]
        for x in range(width):
            out[y, x] = own * across[y, x] + share32 * (below[x] + above[x])
    return out


@njit(cache=True, nogil=True)
def add_ghosts(
    image: NDArray[np.float32],
    stars: NDArray[np.float64],
    brighter_than_e: float,
    share: float,
    offset: tuple[float, float],
    radii: tuple[float, float],
) -> None:
    """The dichroic's second image of each bright star, added in place: a faint annulus displaced from it.

    ``stars`` is float64 ``[n, 3]`` of x, y, electrons; ``offset`` (dx, dy) and ``radii`` (inner, outer) in pixels.
    """
    height, width = image.shape
    inner, outer = radii
    area = pi * (outer * outer - inner * inner)
    for k in range(stars.shape[0]):
        if stars[k, 2] < brighter_than_e:
            continue
        x, y = stars[k, 0] + offset[0], stars[k, 1] + offset[1]
        level = share * stars[k, 2] / area
        for row in range(max(0, int(y - outer) - 2), min(height, int(y + outer) + 3)):
            for column in range(max(0, int(x - outer) - 2), min(width, int(x + outer) + 3)):
                r = hypot(column - x, row - y)
                covered = min(1.0, max(0.0, outer - r + 0.5)) * min(1.0, max(0.0, r - inner + 0.5))
                image[row, column] += np.float32(level * covered)


@njit(cache=True, nogil=True)
def add_long_spikes(
    image: NDArray[np.float32],
    stars: NDArray[np.float64],
    angles_deg: NDArray[np.float64],
    share: float,
    sigma: float,
    from_px: float,
) -> None:
    """Diffraction spikes beyond the PSF's kernel, in place: they start at ``from_px`` and fade as the distance squared.

    ``share`` is the part of a star's light in one arm beyond ``from_px``; each arm ends where it adds under 0.1 e-.
    """
    height, width = image.shape
    for k in range(stars.shape[0]):
        x, y, flux = stars[k, 0], stars[k, 1], stars[k, 2]
        peak = flux * share / from_px / (sqrt(2.0 * pi) * sigma)
        if peak < 0.2:
            continue
        length = min(2000.0, from_px * sqrt(peak / 0.1))
        for a in range(2 * angles_deg.shape[0]):
            angle = (angles_deg[a // 2] + 180.0 * (a % 2)) * pi / 180.0
            dx, dy = cos(angle), sin(angle)
            steep = abs(dy) > abs(dx)
            slope = dx / dy if steep else dy / dx
            stretch = hypot(1.0, slope)
            direction = (1 if dy > 0 else -1) if steep else (1 if dx > 0 else -1)
            start = y if steep else x
            half = int(4.0 * sigma * stretch) + 1
            for step in range(int(from_px * 0.8 / stretch), int(length / stretch)):
                major = int(start) + direction * step
                if major < 0 or major >= (height if steep else width):
                    continue
                along = major - start
                middle = (x if steep else y) + slope * along
                r = abs(along) * stretch
                fade = min(1.0, max(0.0, (r - 0.8 * from_px) / (0.2 * from_px))) * (from_px / r) ** 2
                for minor in range(int(middle) - half, int(middle) + half + 2):
                    if minor < 0 or minor >= (width if steep else height):
                        continue
                    across = (minor - middle) / stretch
                    value = np.float32(peak * fade * exp(-0.5 * (across / sigma) ** 2))
                    if steep:
                        image[major, minor] += value
                    else:
                        image[minor, major] += value
