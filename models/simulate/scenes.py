"""What a stamp shows before any camera: light on a grid, point sources, and the truth about them.

Every class draws its objects' magnitudes and sizes here, from the same laws, and gets its neighbours here: what
differed between classes at this place would tell them apart without a glance at their shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from models.simulate.profiles import add_sersic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.simulate.viewing import View

# AB magnitudes of the objects that stamps are centred on. They rise by 10^(0.1 m), less than counts do: lens galaxies
# are bright.
MAGNITUDES = {"euclid-vis": (17.8, 22.6), "kids-omegacam": (16.8, 20.8), "subaru-hsc": (17.8, 22.4)}
STEEPNESS = 0.1
# Those of mergers and non-mergers: whoever is to see a tail needs more light than for an arc.
LARGE_MAGNITUDES = {"euclid-vis": (16.8, 20.2), "kids-omegacam": (15.8, 18.8), "subaru-hsc": (16.8, 20.0)}
NO_RING = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
NO_ARMS = np.array([2.0, 0.0, 1.0, 0.3, 0.0])


@dataclass(frozen=True, eq=False)
class Scene:
    """One object and its surroundings, of one exposure, without the sky's own light.

    ``light`` float32 ``[points, points]``, electrons a grid point; ``features`` alike (what a lens makes of a source,
    not in ``light``) or None; ``stars`` ``[n, 3]`` x, y in native pixels, electrons; ``truth`` by column.
    """

    kind: str
    light: NDArray[np.float32]
    features: NDArray[np.float32] | None = None
    stars: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    trails: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 5)))
    truth: dict[str, float] = field(default_factory=dict)


def draw_magnitude(rng: np.random.Generator, survey: str, *, large: bool = False) -> float:
    """The magnitude of an object, the same law for both classes of a task; ``large``: for mergers and non-mergers."""
    bright, faint = (LARGE_MAGNITUDES if large else MAGNITUDES)[survey]
    span = 10.0 ** (STEEPNESS * (faint - bright)) - 1.0
    return bright + math.log10(1.0 + span * rng.random()) / STEEPNESS


def draw_radius_arcsec(rng: np.random.Generator, magnitude: float) -> float:
    """The half-light radius of an object of a magnitude, the same law for every class."""
    typical = 0.75 * 10.0 ** (-0.13 * (magnitude - 20.5))
    return float(np.clip(typical * math.exp(0.35 * rng.standard_normal()), 0.2, 4.0))


def empty(view: View) -> NDArray[np.float32]:
    """A grid without light."""
    return np.zeros((view.points, view.points), np.float32)


def spread_evenly(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is even between those of two others."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def near_middle(view: View, rng: np.random.Generator) -> tuple[float, float]:
    """Where the object lies: within half a native pixel of the middle."""
    half = 0.5 * view.oversampling
    return view.middle + rng.uniform(-half, half), view.middle + rng.uniform(-half, half)


def with_field(view: View, scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with the galaxies and stars that happen to lie in it: from an empty field to a rich one."""
    conditions = view.conditions
    population = conditions.population
    richness = spread_evenly(rng, 0.4, 3.0)
    mpx = view.side_px**2 * 1e-6
    light = scene.light.copy()
    for _ in range(rng.poisson(richness * population.galaxies * mpx)):
        flux = population.galaxy_faintest_e * (1.0 - rng.random()) ** (-1.0 / population.galaxy_slope)
        flux = min(flux, conditions.electrons(MAGNITUDES[conditions.kind][0]))
        radius = population.galaxy_size_px * (flux / population.galaxy_size_e) ** 0.3
        radius *= view.oversampling * math.exp(population.spread_of_sizes * rng.standard_normal())
        x, y = rng.uniform(0.0, view.points, 2)
        disc = rng.random() < 0.75
        ratio = max(0.12, rng.random()) if disc else rng.uniform(0.5, 1.0)
        add_sersic(
            light,
            x,
            y,
            flux,
            max(radius, 0.5),
            1.0 if disc else rng.uniform(2.0, 5.0),
            ratio,
            rng.uniform(0.0, math.pi),
        )
    stars = []
    for _ in range(rng.poisson(richness * population.stars * mpx)):
        flux = population.star_faintest_e * (1.0 - rng.random()) ** (-1.0 / population.star_slope)
        stars.append((*rng.uniform(0.0, view.side_px, 2), min(flux, conditions.electrons(15.0))))
    drawn = np.vstack([scene.stars, np.array(stars).reshape(-1, 3)])
    return Scene(scene.kind, light, scene.features, drawn, scene.trails, scene.truth)


def add_elliptical(
    view: View,
    light: NDArray[np.float32],
    rng: np.random.Generator,
    place: tuple[float, float],
    flux: float,
    radius_arcsec: float,
) -> tuple[float, float]:
    """An elliptical galaxy in place, half of them with an outer envelope; gives its axis ratio and angle."""
    ratio = float(np.clip(rng.normal(0.8, 0.12), 0.4, 1.0))
    angle = rng.uniform(0.0, math.pi)
    index = float(np.clip(rng.normal(4.0, 0.9), 2.5, 6.0))
    radius = radius_arcsec * view.points_per_arcsec
    envelope = rng.uniform(0.1, 0.4) if rng.random() < 0.5 else 0.0
    add_sersic(light, *place, flux * (1.0 - envelope), radius, index, ratio, angle)
    if envelope:
        add_sersic(
            light, *place, flux * envelope, radius * rng.uniform(1.5, 2.5), 1.2, ratio, angle + rng.normal(0.0, 0.1)
        )
    return ratio, angle
