"""What is taken for a lens and is none: rings, spirals, edge-on discs, chance pairs, mergers, ghosts, spikes, stars.

Each kind has the magnitude of a lens, its neighbours and its noise. A plain elliptical with companions is the
commonest thing in the sky and therefore the commonest here; the rest are those that people were fooled by.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from models.simulate.profiles import add_disc, add_sersic, add_spot
from models.simulate.scenes import (
    NO_ARMS,
    NO_RING,
    Scene,
    add_elliptical,
    add_spiral,
    draw_magnitude,
    draw_radius_arcsec,
    empty,
    near_middle,
    spread_evenly,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.simulate.viewing import View

# The kinds among the negatives of lenses, and their shares.
LENS_IMPOSTORS = {
    "elliptical": 0.25,
    "chance-pair": 0.2,
    "spiral": 0.18,
    "ring": 0.12,
    "edge-on": 0.08,
    "merger": 0.07,
    "ghost": 0.03,
    "spike": 0.03,
    "star": 0.04,
}


def draw_impostor(view: View, rng: np.random.Generator, kind: str) -> Scene:
    """An object of a kind in ``LENS_IMPOSTORS`` (mergers are drawn elsewhere), at the middle of its grid."""
    magnitude = draw_magnitude(rng, view.conditions.kind)
    flux = view.conditions.electrons(magnitude)
    radius = draw_radius_arcsec(rng, magnitude)
    place = near_middle(view, rng)
    light = empty(view)
    stars: list[tuple[float, float, float]] = []
    PAINTERS[kind](view, rng, light, stars, place, flux, radius)
    return Scene(kind, light, stars=np.array(stars).reshape(-1, 3), truth={"magnitude": magnitude})


def _elliptical(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    stars: list[tuple[float, float, float]],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    del stars
    add_elliptical(view, light, rng, place, flux, radius)
    for _ in range(rng.poisson(0.5)):
        _companion(view, rng, light, place, flux * spread_evenly(rng, 0.01, 0.4), (1.0, 5.0))


def _companion(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    place: tuple[float, float],
    flux: float,
    distances_arcsec: tuple[float, float],
    *,
    tangential: bool = False,
) -> None:
    """A small galaxy beside the object, along a circle about it when ``tangential``."""
    unit = view.points_per_arcsec
    distance, turn = rng.uniform(*distances_arcsec) * unit, rng.uniform(0.0, 2.0 * math.pi)
    angle = turn + math.pi / 2.0 + rng.normal(0.0, 0.15) if tangential else rng.uniform(0.0, math.pi)
    ratio = rng.uniform(0.15, 0.45) if tangential else rng.uniform(0.3, 1.0)
    size = spread_evenly(rng, 0.1, 0.5) * unit
    x, y = place[0] + distance * math.cos(turn), place[1] + distance * math.sin(turn)
    add_sersic(light, x, y, flux, size, rng.uniform(0.6, 3.0), ratio, angle)


def _chance(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    stars: list[tuple[float, float, float]],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    del stars
    share = spread_evenly(rng, 0.02, 0.5)
    add_elliptical(view, light, rng, place, flux * (1.0 - share), radius)
    n = int(rng.choice([1, 1, 2, 2, 3, 4]))
    for part in rng.dirichlet(np.full(n, 2.0)):
        _companion(view, rng, light, place, flux * share * part, (0.5, 2.8), tangential=bool(rng.random() < 0.5))


def _spiral(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    stars: list[tuple[float, float, float]],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    del stars
    ratio = rng.uniform(0.45, 1.0)
    radius *= rng.uniform(1.0, 1.8)  # arms that a PSF hides fool nobody
    add_spiral(view, light, rng, place, flux, radius, ratio=ratio, contrast=rng.uniform(0.5, 1.0))
    _knots(view, rng, light, place, flux, radius)


def _knots(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    """Regions of star formation, about the half-light radius."""
    unit = view.points_per_arcsec
    for _ in range(rng.poisson(3.0)):
        distance, turn = radius * rng.uniform(0.4, 2.0) * unit, rng.uniform(0.0, 2.0 * math.pi)
        x, y = place[0] + distance * math.cos(turn), place[1] + distance * math.sin(turn)
        add_spot(light, x, y, flux * spread_evenly(rng, 0.002, 0.04), max(0.3, rng.uniform(0.02, 0.08) * unit))


def _ring(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    stars: list[tuple[float, float, float]],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    del stars
    share = rng.uniform(0.08, 0.6)
    disc = rng.uniform(0.0, 0.4) * (1.0 - share)
    ratio, angle = rng.uniform(0.4, 1.0), rng.uniform(0.0, math.pi)
    unit = view.points_per_arcsec
    scale = spread_evenly(rng, 0.5, 2.5) * unit
    off = rng.normal(0.0, 0.08, 2) * scale * (rng.random() < 0.3)
    ring = np.array([1.0, rng.uniform(0.08, 0.3), 1.0, rng.uniform(0.0, 0.6), rng.uniform(0.0, 2.0 * math.pi)])
    add_disc(light, np.array([place[0] + off[0], place[1] + off[1], scale, ratio, angle]), flux * share, NO_ARMS, ring)
    if disc:
        add_disc(light, np.array([*place, 0.6 * scale, ratio, angle]), flux * disc, NO_ARMS, NO_RING)
    core = min(radius * unit, 0.6 * scale)
    add_sersic(
        light,
        *place,
        flux * (1.0 - share - disc),
        core,
        rng.uniform(1.0, 4.5),
        rng.uniform(max(ratio, 0.6), 1.0),
        angle,
    )
    for _ in range(rng.poisson(2.0)):
        turn = rng.uniform(0.0, 2.0 * math.pi)
        u, v = scale * math.cos(turn), scale * ratio * math.sin(turn)
        x, y = (
            place[0] + u * math.cos(angle) - v * math.sin(angle),
            place[1] + u * math.sin(angle) + v * math.cos(angle),
        )
        add_spot(light, x, y, flux * share * rng.uniform(0.01, 0.1), max(0.3, 0.05 * unit))


def _edge_on(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    stars: list[tuple[float, float, float]],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    del stars
    angle = rng.uniform(0.0, math.pi)
    bulge = rng.uniform(0.05, 0.6)
    unit = view.points_per_arcsec
    add_sersic(light, *place, flux * (1.0 - bulge), 1.6 * radius * unit, 1.0, rng.uniform(0.1, 0.3), angle)
    add_sersic(
        light, *place, flux * bulge, max(0.3, 0.5 * radius * unit), rng.uniform(1.5, 4.0), rng.uniform(0.6, 1.0), angle
    )


def _ghost(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    stars: list[tuple[float, float, float]],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    """The pupil's image by a star elsewhere, over or beside a galaxy."""
    del stars
    add_elliptical(view, light, rng, place, flux, radius)
    unit = view.points_per_arcsec
    x, y = np.array(place) + rng.normal(0.0, 1.2, 2) * unit
    outer = rng.uniform(0.8, 3.5) * unit
    inner = outer * rng.uniform(0.0, 0.8)
    rows, columns = np.ogrid[: view.points, : view.points]
    r = np.hypot(columns - x, rows - y)
    disc = (np.clip(outer - r, 0.0, 1.0) * np.clip(r - inner, 0.0, 1.0)).astype(np.float32)
    level = spread_evenly(rng, 0.3, 3.0) * view.conditions.noise_e / view.oversampling**2
    light += np.float32(level) * disc


def _star(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    stars: list[tuple[float, float, float]],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    """A star, sometimes two or three."""
    del light, radius
    native = view.native(np.array(place))
    n = int(rng.choice([1, 1, 2, 3]))
    shares = rng.dirichlet(np.full(n, 1.5))
    for k, share in enumerate(shares):
        off = rng.normal(0.0, 1.0, 2) / view.conditions.pixel_scale_arcsec if k else np.zeros(2)
        stars.append((native[0] + off[0], native[1] + off[1], flux * share))


def _spike(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    stars: list[tuple[float, float, float]],
    place: tuple[float, float],
    flux: float,
    radius: float,
) -> None:
    """A galaxy in the spikes and wings of a star so bright that it is cut off."""
    add_elliptical(view, light, rng, place, flux, radius)
    distance, turn = rng.uniform(1.0, 4.0) / view.conditions.pixel_scale_arcsec, rng.uniform(0.0, 2.0 * math.pi)
    native = view.native(np.array(place))
    bright = flux * spread_evenly(rng, 3.0, 100.0)
    stars.append((native[0] + distance * math.cos(turn), native[1] + distance * math.sin(turn), bright))


PAINTERS: dict[str, Callable[..., None]] = {
    "elliptical": _elliptical,
    "chance-pair": _chance,
    "spiral": _spiral,
    "ring": _ring,
    "edge-on": _edge_on,
    "ghost": _ghost,
    "star": _star,
    "spike": _spike,
}
