"""The static sky of a frame: stars, galaxies and the light behind them, as the optics deliver it, without noise.

Nine in ten false streaks of the classical detectors sit on the wings of stars and galaxies, so these must be as in
nature: edge-on discs as short as a streak, spiral arms, stars with spikes up to saturation, counts that go on below
what can be seen. Everything is drawn in electrons and pixels, so one painter serves every camera; what a camera is
stands in its ``Conditions`` (``models.simulate.conditions``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, cos, pi, sin, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy import special

from models.simulate.asteroids import Kernel, add_nearest, add_trails
from models.simulate.defects import add_ghosts, add_long_spikes
from models.simulate.psf import PointSpread, point_spread, spike_angles_deg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.simulate.conditions import Conditions, Population

# Sersic profiles in the table, from a galaxy with a flat core to a cuspy elliptical.
SERSIC_INDICES = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.5)
# The table's last radius, in half-light radii: 0.5 % of a de Vaucouleurs profile lie beyond.
PROFILE_END = 30.0
# A galaxy ends where its light falls below this part of the noise of a pixel.
FAINTEST_RING = 0.01
# Stars with more light than this get their wings drawn; a hundredth of less, over 1,000 pixels, is lost in any sky.
WINGS_FROM_E = 3e4


@dataclass(frozen=True)
class Sources:
    """A catalogue on a pixel grid: ``stars`` float64 ``[n, 3]`` (x, y, electrons); ``galaxies`` float64 ``[m, 9]``.

    A galaxy is x, y, electrons, half-light radius (px, major axis), row of ``SERSIC_INDICES``, axis ratio, position
    angle (radians from +x), contrast of its spiral arms, phase of the arms.
    """

    stars: NDArray[np.float64]
    galaxies: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """A noise-free frame, float32 electrons ``[h, w]`` with its sky, and the PSF with which trails are to be added."""

    electrons: NDArray[np.float32]
    kernel: Kernel
    conditions: Conditions


def draw_sources(
    rng: np.random.Generator, population: Population, shape: tuple[int, int], *, rim_px: int = 64
) -> Sources:
    """A catalogue for an image of ``shape`` and a rim around it, whose sources shine in."""
    height, width = shape
    mpx = (height + 2 * rim_px) * (width + 2 * rim_px) * 1e-6

    def places(n: int) -> NDArray[np.float64]:
        return np.column_stack([rng.uniform(-rim_px, width + rim_px, n), rng.uniform(-rim_px, height + rim_px, n)])

    n = int(rng.poisson(population.stars * mpx))
    p = population
    ratio = (p.star_faintest_e / p.star_brightest_e) ** p.star_slope
    fluxes = p.star_faintest_e * (1.0 - rng.random(n) * (1.0 - ratio)) ** (-1.0 / p.star_slope)
    stars = np.column_stack([places(n), fluxes])

    n = int(rng.poisson(p.galaxies * mpx))
    fluxes = p.galaxy_faintest_e * (1.0 - rng.random(n)) ** (-1.0 / p.galaxy_slope)
    steep = np.maximum(fluxes / p.galaxy_break_e, 1.0) ** (p.galaxy_slope / 1.5 - 1.0)
    return Sources(stars, _draw_galaxies(rng, population, places(n), fluxes * steep))


def _draw_galaxies(
    rng: np.random.Generator, population: Population, places: NDArray[np.float64], fluxes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shapes: three in four are discs seen at any inclination (the edge-on ones too), half of these with a bulge."""
    n = len(fluxes)
    # The half-light radius grows as flux^0.3 (HST counts: a factor 1.3 a magnitude) with a log-normal scatter.
    radii = population.galaxy_size_px * (fluxes / population.galaxy_size_e) ** 0.3
    radii *= np.exp(population.spread_of_sizes * rng.standard_normal(n))
    angles = rng.uniform(0.0, pi, n)
    disc = rng.random(n) < 0.75
    thickness = rng.uniform(0.08, 0.25, n)
    cosine = rng.random(n)
    ratios = np.where(disc, np.sqrt(cosine**2 * (1.0 - thickness**2) + thickness**2), rng.uniform(0.5, 1.0, n))
    profiles = np.where(disc, rng.choice([1, 2, 2, 3], n), rng.choice([4, 5, 6, 7], n))
    bulge = np.where(disc & (rng.random(n) < 0.5), rng.uniform(0.05, 0.5, n), 0.0)
    arms = np.where(disc, rng.uniform(0.0, 0.8, n), 0.0)
    phases = rng.uniform(0.0, 2.0 * pi, n)
    discs = np.column_stack([places, fluxes * (1.0 - bulge), radii, profiles, ratios, angles, arms, phases])
    b = bulge > 0.0
    shape = np.column_stack([radii * 0.3, np.full(n, 5.0), np.maximum(ratios, 0.6), angles, 0.0 * arms, phases])
    return np.vstack([discs, np.column_stack([places, fluxes * bulge, shape])[b]])


def draw_scene(conditions: Conditions, shape: tuple[int, int], seed: int) -> Scene:
    """A noise-free frame of ``shape`` (h, w) under ``conditions``; the same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    spread = point_spread(conditions.optics, extent_px=min(160, max(shape) // 4))
    sources = draw_sources(rng, conditions.population, shape)
    image = paint_backdrop(conditions, shape, int(rng.integers(1 << 31)))
    paint_sources(image, sources, spread, conditions)
    return Scene(image, spread.core, conditions)


def paint_sources(image: NDArray[np.float32], sources: Sources, spread: PointSpread, conditions: Conditions) -> None:
    """Stars with wings, spikes and ghosts, and galaxies, added in place to ``image``, which the caller must own."""
    stars = sources.stars
    points = np.column_stack([stars[:, :2], stars])
    points[:, 4] *= 1.0 - spread.wing_share
    add_trails(image, points, spread.core)
    bright = points[stars[:, 2] > WINGS_FROM_E]
    bright[:, 4] /= 1.0 - spread.wing_share
    add_trails(image, bright, spread.wings)
    backdrop = conditions.backdrop
    if backdrop.ghost_share:
        # A ghost counts where it is at least a twentieth of the noise in a pixel.
        area = pi * backdrop.ghost_radii_px[1] ** 2
        faintest = 0.05 * conditions.noise_e * area / backdrop.ghost_share
        add_ghosts(image, stars, faintest, backdrop.ghost_share, backdrop.ghost_offset_px, backdrop.ghost_radii_px)
    angles = np.array(spike_angles_deg(conditions.optics))
    if backdrop.spike_share and len(angles):
        reach = 0.9 * (spread.wings.values.shape[0] // 2)
        add_long_spikes(image, stars, angles, backdrop.spike_share, 0.6 * spread.core.fwhm_px, reach)
    _add_galaxies(
        image,
        sources.galaxies,
        spread.core.phases,
        spread.core.envelope,
        _profiles(),
        spread.core.fwhm_px,
        FAINTEST_RING * conditions.noise_e,
    )


@lru_cache(maxsize=1)
def _profiles() -> NDArray[np.float64]:
    """Light within a radius: ``[profile, k]`` at ``(k / last)^2 * PROFILE_END`` half-light radii (Sersic 1963)."""
    indices = np.array(SERSIC_INDICES)[:, None]
    radii = PROFILE_END * np.linspace(0.0, 1.0, 512)[None, :] ** 2
    within = special.gammainc(2.0 * indices, special.gammaincinv(2.0 * indices, 0.5) * radii ** (1.0 / indices))
    light: NDArray[np.float64] = within / within[:, -1:]
    return light


@njit(cache=True, nogil=True)
def _light_within(profile: NDArray[np.float64], radii: float) -> float:
    place = sqrt(min(radii / PROFILE_END, 1.0)) * (profile.shape[0] - 1)
    k = min(int(place), profile.shape[0] - 2)
    return profile[k] + (place - k) * (profile[k + 1] - profile[k])


@njit(cache=True, nogil=True)
def _add_galaxies(
    image: NDArray[np.float32],
    galaxies: NDArray[np.float64],
    phases: NDArray[np.float32],
    envelope: NDArray[np.float32],
    profiles: NDArray[np.float64],
    fwhm: float,
    faintest_e: float,
) -> None:
    """Each galaxy as elliptical rings of point sources, closer together than the PSF can tell."""
    height, width = image.shape
    step = min(0.45 * fwhm, 1.0)
    # Outside its middle a galaxy is smoother than the wings of the PSF: its inner part, with all of the light, will do.
    short = min(int(ceil(2.5 * fwhm)), envelope.shape[0])
    middle_stamp = phases[0, 0]
    radius_px = middle_stamp.shape[0] // 2
    span = slice(radius_px - min(short, radius_px), radius_px + min(short, radius_px) + 1)
    short_share = middle_stamp[span, span].sum()
    for g in range(galaxies.shape[0]):
        x, y, flux, radius = galaxies[g, 0], galaxies[g, 1], galaxies[g, 2], galaxies[g, 3]
        profile, ratio = profiles[int(galaxies[g, 4])], galaxies[g, 5]
        cosine, sine = cos(galaxies[g, 6]), sin(galaxies[g, 6])
        arms, arm_phase = galaxies[g, 7], galaxies[g, 8]
        inner = 0.0
        inside = 0.0
        while inside < 0.998:
            outer = inner + (0.5 * step if inner == 0.0 else step)
            light = _light_within(profile, outer / radius) - inside
            inside += light
            area = pi * ratio * (outer * outer - inner * inner)
            if light * flux < faintest_e * area:
                break
            middle = 0.5 * (inner + outer) if inner > 0.0 else 0.4 * outer
            # The circumference of an ellipse to a few per cent; three points at the least, for the centre.
            n = max(3, ceil(2.0 * pi * middle * sqrt(0.5 * (1.0 + ratio * ratio)) / step))
            weight = light * flux / n
            reach = 1
            while reach < envelope.shape[0] and envelope[reach] * min(weight * 30.0, light * flux) > 0.1 * faintest_e:
                reach += 1
            if middle > 2.0 * fwhm and reach > short:
                reach = short
                weight /= short_share
            for k in range(n):
                theta = 2.0 * pi * (k + 0.5 * (n % 2)) / n + middle
                u, v = middle * cos(theta), middle * ratio * sin(theta)
                px, py = x + u * cosine - v * sine, y + u * sine + v * cosine
                if px < -reach or py < -reach or px > width + reach or py > height + reach:
                    continue
                wave = 1.0 + arms * middle / (middle + radius) * cos(
                    2.0 * theta - 4.0 * np.log(1.0 + middle / radius) + arm_phase
                )
                add_nearest(image, px, py, weight * wave, phases, reach)
            inner = outer


def paint_backdrop(conditions: Conditions, shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """The sky behind the sources, float32 electrons of ``shape``: never below a tenth of its mean."""
    rng = np.random.default_rng(seed)
    height, width = shape
    b = conditions.backdrop
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    relative = (1.0 + b.slope_x * x + b.slope_y * y + b.hump * (1.0 - x * x - y * y)).astype(np.float32)
    if b.fringes:
        turn = rng.uniform(0.0, 2.0 * pi)
        scale = 2.0 * pi / b.fringe_px
        warp = 2.0 * _smooth_noise(rng, shape, 5.0 * b.fringe_px)
        ahead = (scale * cos(turn) * 0.5 * width) * x + (scale * sin(turn) * 0.5 * height) * y
        relative += np.float32(b.fringes) * np.sin(ahead + warp)
    if b.clouds:
        relative += np.float32(b.clouds) * _smooth_noise(rng, shape, b.cloud_px)
    for _ in range(rng.poisson(b.donuts * height * width * 1e-6)):
        _stamp_donut(relative, rng)
    result: NDArray[np.float32] = np.maximum(relative, 0.1) * np.float32(conditions.sky_e)
    return result


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], size_px: float) -> NDArray[np.float32]:
    """A random field of unit scatter without structure below ``size_px``: values on a mesh, joined by cubics."""
    rows, columns = (ceil(s / size_px) + 4 for s in shape)
    mesh = rng.standard_normal((rows, columns)).astype(np.float32)
    along_y = _cubic_weights(shape[0], size_px, rows)
    along_x = _cubic_weights(shape[1], size_px, columns)
    return np.asarray((along_y @ mesh) @ along_x.T, np.float32)


def _cubic_weights(length: int, size_px: float, nodes: int) -> NDArray[np.float32]:
    """Cubic B-spline weights ``[length, nodes]`` of mesh nodes ``size_px`` apart, scaled to unit scatter."""
    place = np.arange(length)[:, None] / size_px + 1.0 - np.arange(nodes)[None, :]
    d = np.abs(place)
    weights = np.where(d < 1.0, 2.0 / 3.0 - d**2 + 0.5 * d**3, np.where(d < 2.0, (2.0 - d) ** 3 / 6.0, 0.0))
    return (weights / np.sqrt((weights**2).mean(axis=0).max() * nodes)).astype(np.float32)


def _stamp_donut(relative: NDArray[np.float32], rng: np.random.Generator) -> None:
    """The out-of-focus shadow of a grain of dust, in place."""
    height, width = relative.shape
    outer = rng.uniform(10.0, 60.0)
    inner = outer * rng.uniform(0.2, 0.6)
    depth = rng.uniform(0.01, 0.1)
    cx, cy = rng.uniform(0.0, width), rng.uniform(0.0, height)
    rows = slice(max(0, int(cy - outer) - 2), max(0, int(cy + outer) + 3))
    columns = slice(max(0, int(cx - outer) - 2), max(0, int(cx + outer) + 3))
    y, x = np.ogrid[rows.start : min(height, rows.stop), columns.start : min(width, columns.stop)]
    r = np.hypot(x - cx, y - cy)
    relative[rows, columns] *= 1.0 - depth * np.clip(outer - r, 0.0, 1.0) * np.clip(r - inner, 0.0, 1.0)
