"""What is taken for a lens and is none: satellites, chance pairs, spirals, rings, edge-on discs, mergers, stars.

Each impostor is made *like a lens* that was drawn for it: with the lens's own galaxy where one belongs in its middle,
with as much light beside it as the arcs had, as far out as they were, and with the nucleus as bright. So neither
brightness nor size nor the place of the brightest pixel tells the classes apart. Ghosts and bright stars nearby are no
class of their own: ``disturbed`` gives lenses as many of them as the rest. What it comes to is measured with
``models.evaluate.floor``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.simulate.profiles import add_disc, add_sersic, add_spot
from models.simulate.scenes import NO_ARMS, NO_RING, Scene, empty, spread_evenly
from models.simulate.viewing import seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.simulate.lenses import Lens
    from models.simulate.viewing import View

# The kinds among the negatives of lenses, and their shares.
LENS_IMPOSTORS = {
    "elliptical": 0.22,
    "satellites": 0.2,
    "chance-pair": 0.18,
    "spiral": 0.18,
    "ring": 0.07,
    "edge-on": 0.08,
    "merger": 0.05,
    "star": 0.02,
}
# Shares of all scenes, lenses too, with the image of the pupil by a star elsewhere, and with the spikes of a bright
# star near by.
GHOSTS, SPIKES = 0.03, 0.02
# No satellite is farther away, native pixels: at a stamp's border it would be where no lens has arcs.
FARTHEST_PX = 20.0
# The share of an impostor's light that its nucleus may have.
NUCLEUS = (0.02, 0.97)


def draw_impostor(view: View, rng: np.random.Generator, kind: str, lens: Lens) -> Scene:
    """An object of a kind in ``LENS_IMPOSTORS`` (mergers are drawn elsewhere), made like a lens and in its place."""
    truth = {"magnitude": lens.scene.truth["magnitude"]}
    if kind == "star":
        return Scene(kind, empty(view), stars=_stars(view, rng, lens), truth=truth)
    return Scene(kind, PAINTERS[kind](view, rng, lens), truth=truth)


def as_bright_as(scene: Scene, lens: Lens) -> Scene:
    """The scene with as much light in all as the lens has."""
    factor = (lens.deflector_e + lens.features_e) / max(float(scene.light.sum()), 1e-6)
    truth = {**scene.truth, "magnitude": lens.scene.truth["magnitude"]}
    return replace(scene, light=scene.light * np.float32(factor), truth=truth)


def disturbed(view: View, rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene, sometimes with a ghost over it or a bright star beside it; of all classes alike."""
    chance = rng.random()
    if chance < GHOSTS:
        return replace(scene, light=scene.light + _ghost(view, rng))
    if chance < GHOSTS + SPIKES:
        distance, turn = rng.uniform(3.0, 7.0) / view.conditions.pixel_scale_arcsec, rng.uniform(0.0, 2.0 * math.pi)
        middle = 0.5 * (view.side_px - 1)
        flux = float(scene.light.sum()) * spread_evenly(rng, 3.0, 60.0)
        star = [[middle + distance * math.cos(turn), middle + distance * math.sin(turn), flux]]
        return replace(scene, stars=np.vstack([scene.stars, star]))
    return scene


def _balanced(view: View, lens: Lens, nucleus: NDArray[np.float32], around: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two parts with the light of the lens in all, shared so that the middle is as bright as that of the lens."""
    total = lens.deflector_e + lens.features_e
    x, y = (round(float(p)) for p in view.native(np.array(lens.place)))
    near = np.s_[y - 2 : y + 3, x - 2 : x + 3]
    nucleus, around = nucleus / np.float32(max(nucleus.sum(), 1e-6)), around / np.float32(max(around.sum(), 1e-6))
    whole = lens.scene.light if lens.scene.features is None else lens.scene.light + lens.scene.features
    wanted = float(seen(view, whole)[near].max()) / total
    bright, faint = float(seen(view, nucleus)[near].max()), float(seen(view, around)[near].max())
    share = float(np.clip((wanted - faint) / max(bright - faint, 1e-9), *NUCLEUS))
    return np.asarray(np.float32(total) * (np.float32(share) * nucleus + np.float32(1.0 - share) * around), np.float32)


def _elliptical(view: View, rng: np.random.Generator, lens: Lens) -> NDArray[np.float32]:
    """The lens's own galaxy in an envelope that has the light of the arcs, as far out as they are."""
    light = lens.scene.light.copy()
    radius = rng.uniform(0.7, 1.3) * lens.einstein_arcsec * view.points_per_arcsec
    index, ratio = rng.uniform(0.8, 2.0), rng.uniform(0.6, 1.0)
    add_sersic(light, *lens.place, lens.features_e, radius, index, ratio, rng.uniform(0.0, math.pi))
    return light


def _satellites(view: View, rng: np.random.Generator, lens: Lens) -> NDArray[np.float32]:
    """The lens's own galaxy among others that have the light of the arcs."""
    light = lens.scene.light.copy()
    n = int(rng.choice([1, 1, 2, 3]))
    for part in rng.dirichlet(np.full(n, 2.0)):
        distance = min(rng.uniform(1.3, 3.0) * lens.einstein_arcsec, FARTHEST_PX * view.conditions.pixel_scale_arcsec)
        _add_companion(view, rng, light, lens, part * lens.features_e, distance)
    return light


def _chance(view: View, rng: np.random.Generator, lens: Lens) -> NDArray[np.float32]:
    """The lens's own galaxy, and in place of its arcs galaxies in line of sight, some of them along a circle."""
    light = lens.scene.light.copy()
    n = int(rng.choice([1, 1, 1, 2, 2, 3]))
    for part in rng.dirichlet(np.full(n, 2.0)):
        distance = rng.uniform(0.6, 1.7) * lens.einstein_arcsec
        _add_companion(view, rng, light, lens, part * lens.features_e, distance, tangential=rng.random() < 0.3)
    return light


def _add_companion(
    view: View,
    rng: np.random.Generator,
    light: NDArray[np.float32],
    lens: Lens,
    flux: float,
    distance_arcsec: float,
    *,
    tangential: bool = False,
) -> None:
    """A small galaxy beside the object, along a circle about it when ``tangential``."""
    unit = view.points_per_arcsec
    turn = rng.uniform(0.0, 2.0 * math.pi)
    angle = turn + math.pi / 2.0 + rng.normal(0.0, 0.15) if tangential else rng.uniform(0.0, math.pi)
    ratio = rng.uniform(0.15, 0.45) if tangential else rng.uniform(0.3, 1.0)
    size = spread_evenly(rng, 0.2, 0.8) * unit
    x, y = (p + distance_arcsec * unit * f(turn) for p, f in zip(lens.place, (math.cos, math.sin), strict=True))
    add_sersic(light, x, y, flux, size, rng.uniform(0.6, 3.0), ratio, angle)


def _spiral(view: View, rng: np.random.Generator, lens: Lens) -> NDArray[np.float32]:
    """A bulge and a disc with arms, about as far out as the lens's arcs are, with knots along nothing in particular."""
    unit, angle = view.points_per_arcsec, rng.uniform(0.0, math.pi)
    ratio = rng.uniform(0.45, 1.0)
    scale = max(lens.radius_arcsec * rng.uniform(0.8, 1.3), lens.einstein_arcsec * rng.uniform(0.5, 0.9)) * unit / 1.5
    pitch = math.copysign(math.tan(rng.uniform(0.15, 0.6)), rng.normal())
    arms = np.array([
        rng.choice([2.0, 2.0, 2.0, 3.0, 4.0, 1.0]), rng.uniform(0.5, 1.0), rng.uniform(1.0, 4.0), pitch,
        rng.uniform(0.0, 2.0 * math.pi),
    ])  # fmt: skip
    disc, bulge = empty(view), empty(view)
    add_disc(disc, np.array([*lens.place, scale, ratio, angle]), 1.0, arms, NO_RING)
    for _ in range(rng.poisson(3.0)):
        distance, turn = scale * rng.uniform(0.7, 3.3), rng.uniform(0.0, 2.0 * math.pi)
        x, y = lens.place[0] + distance * math.cos(turn), lens.place[1] + distance * math.sin(turn)
        add_spot(disc, x, y, spread_evenly(rng, 0.002, 0.04), max(0.3, rng.uniform(0.02, 0.08) * unit))
    size = max(0.3, 0.4 * scale * rng.uniform(0.5, 1.5))
    add_sersic(bulge, *lens.place, 1.0, size, rng.uniform(1.0, 4.0), max(ratio, rng.uniform(0.6, 0.9)), angle)
    return _balanced(view, lens, bulge, disc)


def _ring(view: View, rng: np.random.Generator, lens: Lens) -> NDArray[np.float32]:
    """The lens's own galaxy in a ring or an ellipse of the arcs' light, with knots; sometimes off its middle."""
    unit = view.points_per_arcsec
    ratio, angle = rng.uniform(0.35, 0.95), rng.uniform(0.0, math.pi)
    scale = lens.einstein_arcsec * rng.uniform(0.8, 1.3) * unit / math.sqrt(ratio)
    off = rng.normal(0.0, 0.1, 2) * scale * (rng.random() < 0.4)
    x, y = lens.place[0] + off[0], lens.place[1] + off[1]
    around = empty(view)
    ring = np.array([1.0, rng.uniform(0.08, 0.3), 1.0, rng.uniform(0.0, 0.6), rng.uniform(0.0, 2.0 * math.pi)])
    add_disc(around, np.array([x, y, scale, ratio, angle]), 1.0, NO_ARMS, ring)
    if rng.random() < 0.5:
        add_disc(around, np.array([*lens.place, 0.6 * scale, ratio, angle]), rng.uniform(0.1, 1.0), NO_ARMS, NO_RING)
    for _ in range(rng.poisson(2.0)):
        turn = rng.uniform(0.0, 2.0 * math.pi)
        spot = complex(scale * math.cos(turn), scale * ratio * math.sin(turn)) * complex(
            math.cos(angle), math.sin(angle)
        )
        add_spot(around, x + spot.real, y + spot.imag, rng.uniform(0.01, 0.1), max(0.3, 0.05 * unit))
    return _balanced(view, lens, lens.scene.light, around)


def _edge_on(view: View, rng: np.random.Generator, lens: Lens) -> NDArray[np.float32]:
    """A thin disc, about as long as the lens's arcs are far apart, and its bulge."""
    angle, unit = rng.uniform(0.0, math.pi), view.points_per_arcsec
    disc, bulge = empty(view), empty(view)
    length = max(1.4 * lens.radius_arcsec, lens.einstein_arcsec * rng.uniform(0.6, 1.2)) * unit
    add_sersic(disc, *lens.place, 1.0, length, 1.0, rng.uniform(0.1, 0.3), angle)
    size = max(0.3, rng.uniform(0.15, 0.4) * length)
    add_sersic(bulge, *lens.place, 1.0, size, rng.uniform(1.5, 4.0), rng.uniform(0.6, 1.0), angle)
    return _balanced(view, lens, bulge, disc)


def _stars(view: View, rng: np.random.Generator, lens: Lens) -> NDArray[np.float64]:
    """A star, sometimes two or three: between the lens's light and a nucleus as bright as the lens's."""
    native = view.native(np.array(lens.place))
    image = seen(view, lens.scene.light)
    sharpest = 1.0 / (1.13 * view.spread.core.fwhm_px**2)
    alike = float(image.max()) / sharpest
    flux = math.sqrt(alike * (lens.deflector_e + lens.features_e))
    rows = []
    for k, share in enumerate(rng.dirichlet(np.full(int(rng.choice([1, 1, 2, 3])), 1.5))):
        off = rng.normal(0.0, 1.0, 2) / view.conditions.pixel_scale_arcsec if k else np.zeros(2)
        rows.append((native[0] + off[0], native[1] + off[1], flux * share))
    return np.array(rows)


def _ghost(view: View, rng: np.random.Generator) -> NDArray[np.float32]:
    """The pupil's image, near the middle."""
    unit = view.points_per_arcsec
    x, y = view.middle + rng.normal(0.0, 1.2, 2) * unit
    outer = rng.uniform(0.8, 3.5) * unit
    inner = outer * rng.uniform(0.0, 0.8)
    rows, columns = np.ogrid[: view.points, : view.points]
    r = np.hypot(columns - x, rows - y)
    disc = (np.clip(outer - r, 0.0, 1.0) * np.clip(r - inner, 0.0, 1.0)).astype(np.float32)
    level = spread_evenly(rng, 0.3, 3.0) * view.conditions.noise_e / view.oversampling**2
    return np.asarray(np.float32(level) * disc, np.float32)


PAINTERS: dict[str, Callable[[View, np.random.Generator, Lens], NDArray[np.float32]]] = {
    "elliptical": _elliptical,
    "satellites": _satellites,
    "chance-pair": _chance,
    "spiral": _spiral,
    "ring": _ring,
    "edge-on": _edge_on,
}
