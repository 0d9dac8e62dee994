"""What a frame was taken with and under: camera, optics, sky, sources, cosmic rays and defects, as numbers.

A camera's ``Conditions`` are drawn anew for each frame: every range is as wide as what the camera's archive holds, and
``generic`` is wider than any. A frame of which the conditions were wrong looks plausible and trains a network for a
telescope that does not exist: look at pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, exp, log10, pi, sin, sqrt
from typing import TYPE_CHECKING

import numpy as np

from models.simulate.cosmicrays import Rays
from models.simulate.psf import draw_optics

if TYPE_CHECKING:
    from models.simulate.psf import Optics

KINDS = ("euclid-vis", "euclid-reference", "kids-omegacam", "subaru-hsc", "generic")


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
class Defects:
    """What is wrong with one detector. Rates are per 1e6 pixels, columns per 1,000 columns; charges are electrons.

    ``ccd_shape`` is the detector that a smaller image is taken to be a random part of; ``amplifiers`` (rows, columns)
    divide it, with relative gains scattered by ``gain_spread`` and biases by ``step_e``. ``bleed`` is the direction of
    saturated charge: ``columns``, ``rows`` or ``none``. ``flat_scatter`` is the scatter of the pixels' response,
    ``bayer`` the contrast of a chequered colour filter. ``overscan_px`` wide strips at the detector's edges saw no
    light; beyond ``lit_radius`` (of the half diagonal; 0 = everywhere lit) neither did its corners. ``resampling`` is
    the share of its neighbours that interpolation mixed into each pixel along either axis.
    """

    ccd_shape: tuple[int, int] = (4132, 4096)
    full_well_e: float = 200_000.0
    bleed: str = "columns"
    hot_pixels: float = 50.0
    hot_columns: float = 0.5
    dead_columns: float = 0.5
    column_e: float = 100.0
    amplifiers: tuple[int, int] = (2, 2)
    gain_spread: float = 0.002
    step_e: float = 0.3
    flat_scatter: float = 0.0
    bayer: float = 0.0
    residuals: float = 0.0
    overscan_px: int = 0
    lit_radius: float = 0.0
    resampling: float = 0.0


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


def draw_defects(rng: np.random.Generator, kind: str, *, sky_e: float, full_well_e: float) -> Defects:
    """The defects of one frame: a calibrated survey frame's for the named cameras, anything at all for ``generic``."""
    if kind in {"euclid-vis", "kids-omegacam", "subaru-hsc"}:
        shapes = {"euclid-vis": (4132, 4096), "kids-omegacam": (4100, 2048), "subaru-hsc": (4176, 2048)}
        amplifiers = {"euclid-vis": (2, 2), "kids-omegacam": (1, 1), "subaru-hsc": (1, 4)}
        return Defects(
            ccd_shape=shapes[kind],
            full_well_e=full_well_e,
            hot_pixels=rng.uniform(10.0, 150.0),
            hot_columns=rng.uniform(0.0, 1.5),
            dead_columns=rng.uniform(0.0, 1.0),
            column_e=sqrt(sky_e) * rng.uniform(3.0, 30.0),
            amplifiers=amplifiers[kind],
            gain_spread=rng.uniform(0.0, 0.006),
            step_e=sqrt(sky_e) * rng.uniform(0.0, 0.1),
        )
    rows, columns = rng.choice([512, 1024, 2048, 4096], 2)
    return Defects(
        ccd_shape=(int(rows), int(columns)),
        full_well_e=full_well_e,
        bleed=str(rng.choice(["columns", "columns", "rows", "none"])),
        hot_pixels=float(np.exp(rng.uniform(0.0, 8.0))) * (rng.random() < 0.7),
        hot_columns=rng.exponential(1.5) * (rng.random() < 0.5),
        dead_columns=rng.exponential(1.5) * (rng.random() < 0.5),
        column_e=sqrt(sky_e) * float(np.exp(rng.uniform(0.0, 4.0))),
        amplifiers=(int(rng.choice([1, 1, 2])), int(rng.choice([1, 1, 2, 2, 4, 8]))),
        gain_spread=rng.exponential(0.01) * (rng.random() < 0.5),
        step_e=sqrt(sky_e) * rng.exponential(0.5) * (rng.random() < 0.5),
        # Of the noise of the sky at the most a half: beyond that it is the flat's noise and no longer a sky.
        flat_scatter=min(rng.exponential(0.01), 0.5 / sqrt(sky_e)) * (rng.random() < 0.3),
        bayer=rng.uniform(0.05, 0.5) * (rng.random() < 0.06),
        residuals=float(np.exp(rng.uniform(2.0, 6.0))) * (rng.random() < 0.2),
        overscan_px=int(rng.integers(4, 64)) * (rng.random() < 0.25),
        lit_radius=rng.uniform(0.7, 1.0) * (rng.random() < 0.12),
        resampling=rng.uniform(0.02, 0.16) * (rng.random() < 0.3),
    )
