"""The static sky of a frame: stars, galaxies and the light behind them, as the optics deliver it, without noise.

Nine in ten false streaks of the classical detectors sit on the wings of stars and galaxies, so these must be as in
nature: edge-on discs as short as a streak, spiral arms, stars with spikes up to saturation, counts that go on below
what can be seen. Everything is drawn in electrons and pixels, so one painter serves every camera; what a camera is
stands in its ``Conditions``. A frame of which the conditions were wrong looks plausible and trains a network for a
telescope that does not exist: look at pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, cos, exp, log10, pi, sin, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy import special

from models.simulate.asteroids import Kernel, add_nearest, add_trails
from models.simulate.cosmicrays import Rays
from models.simulate.defects import Defects, add_ghosts, add_long_spikes, draw_defects
from models.simulate.psf import Optics, PointSpread, draw_optics, point_spread, spike_angles_deg

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("euclid-vis", "euclid-reference", "kids-omegacam", "subaru-hsc", "generic")

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


@dataclass(frozen=True)
class Population:
    """How many sources there are. Counts are per 1e6 pixels; N(> flux) falls as flux to the power of ``-slope``.

    ``galaxy_break_e`` is where galaxy counts steepen to the Euclidean 1.5; ``galaxy_size_px`` the median half-light
    radius of a galaxy of ``galaxy_size_e`` electrons. ``spread_of_sizes`` is natural-logarithmic.
    """

    stars: float
    star_faintest_e: float
    star_brightest_e: float
    star_slope: float
    galaxies: float
    galaxy_faintest_e: float
    galaxy_slope: float
    galaxy_break_e: float
    galaxy_size_px: float
    galaxy_size_e: float
    spread_of_sizes: float = 0.45


@dataclass(frozen=True)
class Backdrop:
    """The smooth light of a frame, relative to its sky: a slope, a hump or vignetting, fringes, clouds, donuts, ghosts.

    ``slope_x``, ``slope_y`` and ``hump`` are changes from the middle to the edge; ``fringes`` an amplitude with
    ``fringe_px`` from crest to crest; ``clouds`` the amplitude of nebulosity of the size ``cloud_px``; ``donuts`` the
    number of dust rings per 1e6 pixels. A star's ghost holds ``ghost_share`` of its light.
    """

    slope_x: float = 0.0
    slope_y: float = 0.0
    hump: float = 0.0
    fringes: float = 0.0
    fringe_px: float = 60.0
    clouds: float = 0.0
    cloud_px: float = 300.0
    donuts: float = 0.0
    ghost_share: float = 0.0
    ghost_offset_px: tuple[float, float] = (60.0, 10.0)
    ghost_radii_px: tuple[float, float] = (10.0, 30.0)
    spike_share: float = 0.0


@dataclass(frozen=True)
class Conditions:
    """Everything that was drawn for one frame; charges in electrons, ``zero_point`` the AB magnitude of 1 e-/s."""

    kind: str
    optics: Optics
    pixel_scale_arcsec: float
    exposure_s: float
    zero_point: float
    sky_e: float
    read_noise_e: float
    gain_e_adu: float
    population: Population
    backdrop: Backdrop
    rays_per_mpx: float
    rays: Rays
    defects: Defects

    @property
    def saturation_e(self) -> float:
        """From here on a pixel counts as full: the wells' brim less what read noise and amplifiers make of it."""
        return 0.97 * self.defects.full_well_e

    @property
    def noise_e(self) -> float:
        """Sigma of an empty pixel of the sky, before any resampling."""
        return sqrt(self.sky_e + self.read_noise_e**2)

    def electrons(self, magnitude: float) -> float:
        """What a source of this AB magnitude leaves in the whole exposure."""
        return float(self.exposure_s * 10.0 ** (0.4 * (self.zero_point - magnitude)))


@dataclass(frozen=True, eq=False)
class Scene:
    """A noise-free frame, float32 electrons ``[h, w]`` with its sky, and the PSF with which trails are to be added."""

    electrons: NDArray[np.float32]
    kernel: Kernel
    conditions: Conditions


def draw_conditions(rng: np.random.Generator, kind: str) -> Conditions:
    """The conditions of one frame of a camera in ``KINDS``; ``euclid-reference`` is Euclid VIS at its stated values."""
    if kind == "euclid-reference":
        drawn = draw_conditions(rng, "euclid-vis")
        # 10,000 tracks in 4132 x 4096 pixels; sky of 22.35 mag/arcsec2 in 565 s.
        return replace(drawn, sky_e=103.0, read_noise_e=4.4, rays_per_mpx=10_000 / 16.925)
    if kind == "euclid-vis":
        return _draw_survey(
            rng,
            kind,
            scale=0.1,
            exposure_s=565.0,
            zero_point=25.50,
            sky_e=rng.uniform(70.0, 210.0),
            read_noise_e=rng.uniform(3.8, 5.2),
            gain=3.48,
            full_well_e=200_000.0,
            rays_per_mpx=591.0 * rng.uniform(0.5, 1.5),
        )
    if kind == "kids-omegacam":
        # Sky 20.4-21.4 mag/arcsec2 and a zero point near 24.5 (1 e-/s) at the VST in r; about two cosmic rays a second.
        return _draw_survey(
            rng,
            kind,
            scale=0.214,
            exposure_s=360.0,
            zero_point=24.5,
            sky_e=rng.uniform(300.0, 700.0),
            read_noise_e=rng.uniform(5.0, 6.0),
            gain=2.5,
            full_well_e=150_000.0,
            rays_per_mpx=rng.uniform(30.0, 120.0),
        )
    if kind == "subaru-hsc":
        # Sky about 19.7 mag/arcsec2 in i and a zero point of 27.4 (1 e-/s) at the 8.2 m Subaru.
        return _draw_survey(
            rng,
            kind,
            scale=0.168,
            exposure_s=200.0,
            zero_point=27.4,
            sky_e=rng.uniform(4_000.0, 9_000.0),
            read_noise_e=rng.uniform(4.0, 5.0),
            gain=3.0,
            full_well_e=150_000.0,
            rays_per_mpx=rng.uniform(30.0, 150.0),
        )
    return _draw_generic(rng)


def _draw_survey(
    rng: np.random.Generator,
    kind: str,
    *,
    scale: float,
    exposure_s: float,
    zero_point: float,
    sky_e: float,
    read_noise_e: float,
    gain: float,
    full_well_e: float,
    rays_per_mpx: float,
) -> Conditions:
    def electrons(magnitude: float) -> float:
        return float(exposure_s * 10.0 ** (0.4 * (zero_point - magnitude)))

    mpx_per_arcmin2 = (60.0 / scale) ** 2 * 1e-6
    seen_from_space = kind == "euclid-vis"
    # 30 galaxies per square arcmin to 24.5 (Euclid's own requirement), N(< m) as 10^(0.35 m), down to where they fade.
    faintest = 26.5 if seen_from_space or kind == "subaru-hsc" else 25.5
    galaxies = 30.0 * exp(0.2 * rng.standard_normal()) * 10.0 ** (0.35 * (faintest - 24.5))
    # High galactic latitude has 2-4 stars per square arcmin to 24 and 0.15 to 17, so N(< m) goes as 10^(0.2 m); the
    # survey's edge towards the Milky Way has four times as many.
    stars = exp(rng.uniform(np.log(2.0), np.log(14.0))) * 10.0 ** (0.2 * (faintest - 24.0))
    population = Population(
        stars=stars / mpx_per_arcmin2,
        star_faintest_e=electrons(faintest),
        star_brightest_e=electrons(rng.uniform(9.0, 13.0)),
        star_slope=0.2 * 2.5,
        galaxies=galaxies / mpx_per_arcmin2,
        galaxy_faintest_e=electrons(faintest),
        galaxy_slope=0.35 * 2.5,
        galaxy_break_e=electrons(20.5),
        galaxy_size_px=rng.uniform(0.26, 0.36) / scale,
        galaxy_size_e=electrons(24.5),
    )
    angle = rng.uniform(0.0, 2.0 * pi)
    ghost_px = rng.uniform(20.0, 60.0)
    backdrop = Backdrop(
        slope_x=rng.normal(0.0, 0.02),
        slope_y=rng.normal(0.0, 0.02),
        hump=rng.normal(0.0, 0.02),
        fringes=0.0 if seen_from_space else abs(rng.normal(0.0, 0.002)),
        fringe_px=rng.uniform(40.0, 200.0),
        clouds=abs(rng.normal(0.0, 0.005)),
        cloud_px=rng.uniform(100.0, 800.0),
        ghost_share=exp(rng.uniform(np.log(2e-4), np.log(2e-3))),
        ghost_offset_px=(rng.uniform(30.0, 120.0) * cos(angle), rng.uniform(30.0, 120.0) * sin(angle)),
        ghost_radii_px=(ghost_px * rng.uniform(0.0, 0.7), ghost_px),
        spike_share=rng.uniform(2e-5, 2e-4),
    )
    return Conditions(
        kind=kind,
        optics=draw_optics(rng, kind),
        pixel_scale_arcsec=scale,
        exposure_s=exposure_s,
        zero_point=zero_point,
        sky_e=sky_e,
        read_noise_e=read_noise_e,
        gain_e_adu=gain,
        population=population,
        backdrop=backdrop,
        rays_per_mpx=rays_per_mpx,
        rays=_draw_rays(rng, median_length_px=10.0 if seen_from_space else rng.uniform(3.0, 15.0)),
        defects=draw_defects(rng, kind, sky_e=sky_e, full_well_e=full_well_e),
    )


def _draw_rays(rng: np.random.Generator, *, median_length_px: float) -> Rays:
    """Energy, length and charge diffusion of a detector's tracks: they depend on its thickness and its orbit."""
    return Rays(
        median_length_px=median_length_px * exp(0.15 * rng.standard_normal()),
        electrons_per_px=exp(rng.uniform(np.log(150.0), np.log(1200.0))),
        spread=rng.uniform(0.5, 1.1),
        worm_share=rng.uniform(0.03, 0.2),
        hit_share=rng.uniform(0.05, 0.3),
        fixed_charge_share=rng.uniform(0.0, 0.8),
        diffusion_px=rng.uniform(0.0, 0.4),
    )


def _draw_generic(rng: np.random.Generator) -> Conditions:
    """Anything between a space telescope and a small one in the city: one number after the other, none tied."""

    def spread_evenly(low: float, high: float) -> float:
        return float(exp(rng.uniform(np.log(low), np.log(high))))

    optics = draw_optics(rng, "generic")
    sky_e = spread_evenly(5.0, 50_000.0)
    read_noise_e = spread_evenly(2.0, 20.0)
    scale = spread_evenly(0.05, 3.0)
    exposure_s = spread_evenly(5.0, 1200.0)
    noise_e = sqrt(sky_e + read_noise_e**2)
    # A point source that is as bright as the noise within its PSF: the unit in which populations are drawn.
    faint_e = noise_e * 1.5 * optics.fwhm_px
    star_slope = rng.uniform(0.4, 0.9)
    galaxy_slope = rng.uniform(0.7, 1.0)
    # Stars per 1e6 pixels, from empty to one in each dozen FWHM squared (at one sigma), as towards the Galactic plane.
    stars = spread_evenly(20.0, 8e4 / optics.fwhm_px**2)
    galaxies = spread_evenly(20.0, 3_000.0) if scale < 0.8 else spread_evenly(1.0, 300.0)
    population = Population(
        stars=stars,
        star_faintest_e=faint_e,
        star_brightest_e=max(1e3 * faint_e, spread_evenly(1e6, 3e8)),
        star_slope=star_slope,
        galaxies=galaxies,
        galaxy_faintest_e=2.0 * faint_e,
        galaxy_slope=galaxy_slope,
        galaxy_break_e=100.0 * faint_e,
        galaxy_size_px=spread_evenly(0.5, 4.0),
        galaxy_size_e=10.0 * faint_e,
    )
    ghost_px = spread_evenly(8.0, 100.0)
    backdrop = Backdrop(
        slope_x=rng.normal(0.0, 0.05),
        slope_y=rng.normal(0.0, 0.05),
        hump=rng.normal(0.0, 0.05),
        fringes=rng.exponential(0.01) * (rng.random() < 0.3),
        fringe_px=rng.uniform(20.0, 200.0),
        clouds=rng.exponential(0.03) * (rng.random() < 0.4),
        cloud_px=rng.uniform(60.0, 800.0),
        donuts=rng.exponential(5.0) * (rng.random() < 0.2),
        ghost_share=spread_evenly(1e-4, 1e-2) * (rng.random() < 0.5),
        ghost_offset_px=(rng.normal(0.0, 80.0), rng.normal(0.0, 80.0)),
        ghost_radii_px=(ghost_px * rng.uniform(0.0, 0.8), ghost_px),
        spike_share=spread_evenly(1e-5, 1e-3) * (rng.random() < 0.4),
    )
    full_well_e = max(spread_evenly(20_000.0, 300_000.0), 3.0 * sky_e)
    return Conditions(
        kind="generic",
        optics=optics,
        pixel_scale_arcsec=scale,
        exposure_s=exposure_s,
        # So that a point source of 22-26 mag has a signal-to-noise of five: magnitudes mean what they do elsewhere.
        zero_point=rng.uniform(22.0, 26.0) + 2.5 * log10(5.0 * faint_e / exposure_s),
        sky_e=sky_e,
        read_noise_e=read_noise_e,
        gain_e_adu=spread_evenly(0.5, 6.0),
        population=population,
        backdrop=backdrop,
        rays_per_mpx=spread_evenly(1.0, 800.0) * (rng.random() < 0.8),
        rays=_draw_rays(rng, median_length_px=spread_evenly(2.0, 20.0)),
        defects=draw_defects(rng, "generic", sky_e=sky_e, full_well_e=full_well_e),
    )


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
