"""Strong lenses as they are seen: an elliptical galaxy and, around it, what it makes of a source behind it.

The sources have structure (a Sersic profile with clumps), lie anywhere that makes more than one image, and are as
bright as is drawn for the *features* in the survey's own noise: a lens that nobody could recognise teaches nothing.
The stated cut: pixels are *visible* where the features are above two sigma (the lens's photons included) and above
``VISIBLE_CONTRAST`` of the lens galaxy's light; these have a signal-to-noise of ``FAINTEST_SNR`` and an area of
``SMALLEST_AREA`` PSFs in all, they go around the lens or lie on two sides of it (``ONE_SIDED``: the mean direction of
their light has at most this length), one arc of them is ``SHORTEST_ARC`` times the width of the PSF long where it is
above a quarter of their brightest, and the Einstein radius is at least ``RESOLVED_FWHM`` times that width. What fails,
images of a point among them, is neither a lens nor a non-lens: it is not drawn at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.simulate.lensing import Deflector, lensed_source
from models.simulate.scenes import (
    Scene,
    add_elliptical,
    draw_magnitude,
    draw_radius_arcsec,
    empty,
    near_middle,
    spread_evenly,
)
from models.simulate.viewing import seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.simulate.viewing import View

# Einstein radii (arcsec): space resolves small ones; those of groups are the ground's.
EINSTEIN_ARCSEC = {"euclid-vis": (0.5, 2.5), "kids-omegacam": (0.9, 3.5), "subaru-hsc": (0.8, 3.0)}
# The cut: what is drawn can be recognised.
FAINTEST_SNR = 40.0
BRIGHTEST_SNR = 400.0
SMALLEST_AREA = 6.0
SHORTEST_ARC = 3.5
VISIBLE_CONTRAST = 0.25
ONE_SIDED = 0.93
RESOLVED_FWHM = 1.6
# Light of the features for that of the lens galaxy.
CONTRAST = (0.015, 0.8)
# Sources that one deflector is tried with, and deflectors.
SOURCES, DEFLECTORS = 5, 16
# Sectors about the lens in which arcs are looked for.
SECTORS = 20


@dataclass(frozen=True)
class SourceStructure:
    """How sources are built: chances and ranges. The test of other settings has other ones."""

    sizes_arcsec: tuple[float, float] = (0.08, 0.5)
    indices: tuple[float, float] = (0.6, 2.0)
    clumps: tuple[int, int] = (0, 6)
    clump_share: tuple[float, float] = (0.1, 0.6)
    companion: float = 0.15


STRUCTURES = {
    "training": SourceStructure(),
    # Compact and clumpy, or smooth and cuspy: unlike what was trained with.
    "hard": SourceStructure((0.06, 0.7), (0.5, 4.0), (3, 14), (0.3, 0.85), 0.3),
}


@dataclass(frozen=True, eq=False)
class Lens:
    """A lens before its surroundings: ``scene`` with the deflector as its light, and what impostors are made like.

    ``place`` in grid points and ``radius_arcsec`` (of half the light) are the deflector's.
    """

    scene: Scene
    place: tuple[float, float]
    radius_arcsec: float

    @property
    def deflector_e(self) -> float:
        """Light of the deflector, electrons."""
        return float(self.scene.light.sum())

    @property
    def features_e(self) -> float:
        """Light of the lensed features, electrons."""
        return 0.0 if self.scene.features is None else float(self.scene.features.sum())

    @property
    def einstein_arcsec(self) -> float:
        """The Einstein radius."""
        return self.scene.truth["einstein_radius_arcsec"]


def draw_lens(view: View, rng: np.random.Generator, *, settings: str = "training", exposures: int = 1) -> Lens:
    """A lens that passes the cut in a stack of ``exposures``; the best of all that were tried if none does.

    Errors: ``ValueError`` where no source was lensed at all.
    """
    best: tuple[float, Lens] | None = None
    for _ in range(DEFLECTORS):
        tried = _with_deflector(view, rng, settings, exposures)
        if tried is not None and tried[0] == math.inf:
            return tried[1]
        if tried is not None and (best is None or tried[0] > best[0]):
            best = tried
    if best is None:
        kind = view.conditions.kind
        raise ValueError(f"no lens in all tries for {kind}: its PSF of {view.fwhm_arcsec:.2f} arcsec may be too wide")
    return best[1]


def _with_deflector(view: View, rng: np.random.Generator, settings: str, exposures: int) -> tuple[float, Lens] | None:
    """The best lens with one deflector, and its worth: infinite where it passes the cut."""
    kind = view.conditions.kind
    magnitude = draw_magnitude(rng, kind)
    total = view.conditions.electrons(magnitude)
    low, high = EINSTEIN_ARCSEC[kind]
    low = max(low, RESOLVED_FWHM * view.fwhm_arcsec)
    place = near_middle(view, rng)
    radius_arcsec = draw_radius_arcsec(rng, magnitude)
    light = empty(view)
    ratio, angle = add_elliptical(view, light, rng, place, 1.0, radius_arcsec)
    image = seen(view, light)
    best: tuple[float, Lens] | None = None
    for _ in range(SOURCES):
        # Most lenses are small; a wide one is as easily drawn in a logarithm that is even.
        einstein = spread_evenly(rng, low, max(high, 1.2 * low))
        features, source_arcsec = _draw_source(
            view, rng, _deflector(view, rng, place, einstein, ratio, angle), STRUCTURES[settings]
        )
        if features.max() <= 0.0:
            continue
        snr = spread_evenly(rng, 1.2 * FAINTEST_SNR, BRIGHTEST_SNR)
        scene = _scaled(view, (light, image), features, place, total, snr, exposures)
        truth = {
            **scene.truth,
            "magnitude": magnitude,
            "einstein_radius_arcsec": einstein,
            "source_radius_arcsec": source_arcsec,
            "ic": scene.truth["area_psf"] * einstein / source_arcsec,
        }
        lens = Lens(replace(scene, truth=truth), place, radius_arcsec)
        if recognisable(truth):
            return math.inf, lens
        worth = truth["area_psf"] * (1.0 - truth["one_sided"])
        if best is None or worth > best[0]:
            best = worth, lens
    return best


def arcs_about(
    view: View, rng: np.random.Generator, galaxy: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float, float] | None:
    """Lensed features that pass the cut about a galaxy that somebody saw; None if no source in all tries does.

    ``galaxy`` ``[side, side]``, electrons of a native pixel as ``view`` shows it, its peak in the middle. Gives the
    features on the grid, the share of its own light that the galaxy keeps, and the information content.
    """
    total = float(galaxy.sum())
    if total <= 0.0:
        return None
    light = empty(view)
    light[0, 0] = total  # only its sum is asked for
    ratio, angle = _shape(galaxy)
    place = (view.middle, view.middle)
    low, high = EINSTEIN_ARCSEC[view.conditions.kind]
    low = max(low, RESOLVED_FWHM * view.fwhm_arcsec)
    for _ in range(SOURCES * DEFLECTORS):
        einstein = spread_evenly(rng, low, max(high, 1.2 * low))
        deflector = _deflector(view, rng, place, einstein, ratio, angle)
        features, source_arcsec = _draw_source(view, rng, deflector, STRUCTURES["training"])
        if features.max() <= 0.0:
            continue
        snr = spread_evenly(rng, 1.2 * FAINTEST_SNR, BRIGHTEST_SNR)
        scene = _scaled(view, (light, galaxy), features, place, total, snr, 1)
        if recognisable(scene.truth) and scene.features is not None:
            left = float(scene.light.sum()) / total
            return scene.features, left, scene.truth["area_psf"] * einstein / source_arcsec
    return None


def _shape(galaxy: NDArray[np.float32]) -> tuple[float, float]:
    """Axis ratio and angle of light about the middle, by its second moments."""
    half = galaxy.shape[0] // 2
    rows, columns = np.indices(galaxy.shape) - half
    weight = np.sqrt(np.maximum(galaxy, 0.0)) * (galaxy > 0.02 * galaxy.max())
    xx, yy, xy = (float((weight * a * b).sum()) for a, b in ((columns, columns), (rows, rows), (columns, rows)))
    low, high = np.linalg.eigvalsh(np.array([[xx, xy], [xy, yy]]) + 1e-9 * np.eye(2))
    return float(np.sqrt(low / high)), 0.5 * math.atan2(2.0 * xy, xx - yy)


def recognisable(truth: Mapping[str, float]) -> bool:
    """Whether a lens with this truth passes the cut that the module states (its Einstein radius always does)."""
    return (
        truth["snr"] >= FAINTEST_SNR
        and truth["area_psf"] >= SMALLEST_AREA
        and truth["one_sided"] <= ONE_SIDED
        and truth["arc_fwhm"] >= SHORTEST_ARC
    )


def _deflector(
    view: View, rng: np.random.Generator, place: tuple[float, float], einstein: float, ratio: float, angle: float
) -> Deflector:
    """Mass that follows light, but for scatter; shear of galaxies in groups."""
    return Deflector(
        x=place[0] + rng.normal(0.0, 0.03) * view.points_per_arcsec,
        y=place[1] + rng.normal(0.0, 0.03) * view.points_per_arcsec,
        einstein=einstein * view.points_per_arcsec,
        ratio=float(np.clip(ratio + rng.normal(0.0, 0.08), 0.5, 0.99)),
        angle=angle + rng.normal(0.0, 0.15),
        shear=min(0.2, abs(rng.normal(0.0, 0.05))),
        shear_angle=rng.uniform(0.0, math.pi),
    )


def _draw_source(
    view: View, rng: np.random.Generator, lens: Deflector, structure: SourceStructure
) -> tuple[NDArray[np.float32], float]:
    """The images of a source, and its half-light radius (arcsec)."""
    unit = view.points_per_arcsec
    size_arcsec = spread_evenly(rng, *structure.sizes_arcsec)
    size = size_arcsec * unit
    # Even over the area in which there are two images at least; half of them near the caustic in the middle.
    reach = lens.einstein * (0.25 if rng.random() < 0.5 else 0.6)
    distance, turn = reach * math.sqrt(rng.random()), rng.uniform(0.0, 2.0 * math.pi)
    sx, sy = lens.x + distance * math.cos(turn), lens.y + distance * math.sin(turn)
    source = np.array([sx, sy, size, rng.uniform(*structure.indices), rng.uniform(0.3, 1.0), rng.uniform(0.0, math.pi)])
    n = int(rng.integers(structure.clumps[0], structure.clumps[1] + 1))
    share = rng.uniform(*structure.clump_share)
    clumps = np.empty((n, 4))
    clumps[:, :2] = np.array([sx, sy]) + rng.normal(0.0, 0.9 * size, (n, 2))
    clumps[:, 2] = rng.dirichlet(np.ones(max(n, 1)))[:n] * share / (1.0 - share)
    clumps[:, 3] = np.maximum(size * rng.uniform(0.08, 0.35, n), 0.25)
    if rng.random() < structure.companion:
        beside = np.array([[sx, sy, rng.uniform(0.1, 0.5), size * rng.uniform(0.3, 0.7)]])
        beside[0, :2] += rng.normal(0.0, 2.5 * size, 2)
        clumps = np.vstack([clumps, beside])
    return lensed_source(
        (view.points, view.points), lens, source, clumps, reach=2.2 * lens.einstein + 5.0 * size
    ), size_arcsec


def _scaled(
    view: View,
    deflector: tuple[NDArray[np.float32], NDArray[np.float32]],
    features: NDArray[np.float32],
    place: tuple[float, float],
    total: float,
    snr: float,
    exposures: int,
) -> Scene:
    """Lens and features with ``total`` electrons together, features of the wanted ``snr`` as far as contrast allows.

    ``deflector``: its light on the grid, and as it is seen.
    """
    image, lens_image = seen(view, features), deflector[1]
    noise2 = view.conditions.noise_e**2
    inside, lens_inside = float(features.sum()), float(deflector[0].sum())
    # The lens's own photons are noise under the features.
    variance = noise2 + np.maximum(lens_image, 0.0) * total / max(lens_inside, 1e-6)
    unit = math.sqrt(exposures * float((image * image / variance).sum())) / inside
    contrast = np.clip(
        snr / max(unit, 1e-12) / total, CONTRAST[0] / (1.0 + CONTRAST[0]), CONTRAST[1] / (1.0 + CONTRAST[1])
    )
    light = float(contrast) * total
    features_e = features * np.float32(light / inside)
    lens_e = deflector[0] * np.float32((total - light) / lens_inside)
    lens_image = lens_image * np.float32((total - light) / lens_inside)
    image *= np.float32(light / inside)
    sigmas = image * math.sqrt(exposures) / np.sqrt(noise2 + np.maximum(lens_image, 0.0))
    visible = (sigmas > 2.0) & (image > VISIBLE_CONTRAST * lens_image)
    middle = view.native(np.array(place))
    truth = {
        "snr": float(np.sqrt((sigmas[visible] ** 2).sum())),
        "area_psf": float(visible.sum()) / (math.pi * (0.5 * view.spread.core.fwhm_px) ** 2),
        "one_sided": _one_sided(image * visible, middle),
        "arc_fwhm": _arc_px(image * visible, middle) / view.spread.core.fwhm_px,
        "features_magnitude": _magnitude(view, light),
    }
    return Scene("lens", lens_e, features_e, truth=truth)


def _one_sided(light: NDArray[np.float32], middle: NDArray[np.float64]) -> float:
    """The length of the mean direction of light about a place: 1 for a spot beside it, 0 for a ring."""
    rows, columns = np.nonzero(light > 0.0)
    if not len(rows):
        return 1.0
    directions = np.exp(1j * np.arctan2(rows - middle[1], columns - middle[0]))
    # The root of the light, so that a bright image does not hide its faint counter-image.
    weights = np.sqrt(light[rows, columns].astype(np.float64))
    return float(np.abs((weights * directions).sum()) / weights.sum())


def _arc_px(light: NDArray[np.float32], middle: NDArray[np.float64]) -> float:
    """The length in pixels of the longest arc about a place, of light above a quarter of the brightest."""
    rows, columns = np.nonzero(light > 0.25 * max(float(light.max()), 1e-12))
    if not len(rows):
        return 0.0
    dy, dx = rows - middle[1], columns - middle[0]
    sector = np.floor(np.arctan2(dy, dx) / (2.0 * math.pi) * SECTORS).astype(np.int64) % SECTORS
    held = np.bincount(sector, minlength=SECTORS) > 0
    dark = np.flatnonzero(~held)
    # Between one sector without light and the next, once around.
    longest = SECTORS if not len(dark) else int(np.diff(np.append(dark, dark[0] + SECTORS)).max()) - 1
    return float(longest * 2.0 * math.pi / SECTORS * np.hypot(dx, dy).mean())


def _magnitude(view: View, electrons: float) -> float:
    conditions = view.conditions
    return conditions.zero_point - 2.5 * math.log10(max(electrons, 1e-6) / conditions.exposure_s)
