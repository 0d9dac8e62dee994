"""Galaxies in encounters, and what is none: isolated ones and chance pairs, all drawn particle by particle.

One painter draws all of them: the same particles, the same smoothing, the same arms and knots of young stars. Were the
non-mergers drawn with smooth formulae, a network would learn the grain of the particles. What is left to tell them by
is what tides do; and every non-merger is made like a merger that was drawn for it, as bright and as large.

The stated cut: a merger's *tides* are the light of disc particles farther than ``encounters.TIDES_BEYOND`` scale
lengths from both nuclei. Where, smoothed over ``SMOOTHED_PX`` pixels, they are above two sigma of the sky, they have a
signal-to-noise of ``FAINTEST_TIDES`` in all. What fails ``TRIES`` times is drawn nevertheless: one in twelve or so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy import ndimage

from models.simulate.encounters import BANKS, Snapshot, encounter, isolated, rotation
from models.simulate.profiles import add_sersic
from models.simulate.scenes import Scene, draw_magnitude, draw_radius_arcsec, empty, near_middle, spread_evenly
from models.simulate.viewing import seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.simulate.viewing import View

NON_MERGERS = {"isolated": 0.45, "chance-pair": 0.55}
# A particle is never smoother than this, in grid points, nor sharper.
BLUR_POINTS = (1.0, 14.0)
# A particle's radius in distances to its neighbours: less would show the grain.
SMOOTHNESS = 1.5
# Encounters that the stamps of one group are of, and isolated galaxies of a bank.
IN_TURN = 4
ISOLATED = 24
# Discs are this much wider than the common law of sizes has it, in which most galaxies are not discs.
WIDER = 1.1
# Light of two by chance and of one alone for that of two that meet: as much of it is in the middle and in a stamp.
PAIRED, ALONE = 1.0, 0.96
# One alone is so much larger: tides spread what they find.
LARGER_ALONE = 1.3
# An undisturbed galaxy's stars far out, for its light and in scale lengths: as many as tides bring there, but evenly.
HALO, HALO_LENGTHS = (0.0, 0.07), (3.0, 7.0)
# The cut.
SMOOTHED_PX = 5
FAINTEST_TIDES = 25.0
TRIES = 24
# Snapshots with a smaller share of their particles in tides are not even painted.
LEAST_TIDES = 0.06
# As in ``models.training.scenes``: seeds from here on are for evaluation.
EVALUATION_SEEDS = 900_000


@dataclass(frozen=True)
class StarFormation:
    """Where young stars shine: their share of the discs' light, how many knots, the power of density behind them."""

    young: tuple[float, float]
    knots: tuple[int, int]
    power: float
    # How much fainter or brighter than the common law the objects are: the depth that a survey is looked at with.
    fainter_mag: float


LAWS = {
    "training": StarFormation((0.0, 0.35), (0, 14), 0.5, 0.0),
    "hard": StarFormation((0.15, 0.6), (4, 30), 1.2, 0.6),
}


@njit(cache=True, nogil=True, fastmath=True)
def _add_particles(
    image: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    weight: NDArray[np.float32],
    blur: NDArray[np.float32],
) -> None:
    """Each particle as (1 - (d / blur)^2)^2, its pixels summing to its weight."""
    height, width = image.shape
    nought = np.float32(0.0)
    for n in range(x.shape[0]):
        h = blur[n]
        left, right = int(math.ceil(x[n] - h)), int(math.floor(x[n] + h))
        top, bottom = int(math.ceil(y[n] - h)), int(math.floor(y[n] + h))
        if weight[n] <= 0.0 or right < 0 or bottom < 0 or left >= width or top >= height:
            continue
        narrow = np.float32(1.0) / (h * h)
        total = np.float32(math.pi) * h * h / np.float32(3.0)
        if h < 4.0:  # the sum of few pixels is not the integral
            total = nought
            for i in range(top, bottom + 1):
                row = np.float32(1.0) - (np.float32(i) - y[n]) ** 2 * narrow
                for j in range(left, right + 1):
                    total += max(row - (np.float32(j) - x[n]) ** 2 * narrow, nought) ** 2
        level = weight[n] / total
        left, right = max(0, left), min(width - 1, right)
        for i in range(max(0, top), min(height - 1, bottom) + 1):
            row = np.float32(1.0) - (np.float32(i) - y[n]) ** 2 * narrow
            line = image[i]
            for j in range(left, right + 1):
                line[j] += level * max(row - (np.float32(j) - x[n]) ** 2 * narrow, nought) ** 2


@dataclass(frozen=True, eq=False)
class Merger:
    """A merger before its surroundings, and the grid points in a scale length of its first disc."""

    scene: Scene
    unit: float


def draw_merger(
    view: View, rng: np.random.Generator, *, seed: int, group: int, settings: str = "training", exposures: int = 1
) -> Merger:
    """An encounter from a random direction that passes the cut in a stack of ``exposures``; the last if none does.

    ``seed`` and ``group`` say which encounters are in turn.
    """
    bank = bank_of(seed, settings)
    for attempt in range(TRIES):
        index = (group * IN_TURN + int(rng.integers(IN_TURN)) + seed % 7) % BANKS[bank].count
        snapshots = encounter(bank, index)
        snapshot = snapshots[int(rng.integers(len(snapshots)))]
        last = attempt == TRIES - 1
        if snapshot.tidal.mean() < LEAST_TIDES and not last:
            continue
        merger = paint_merger(view, rng, snapshot, settings=settings, exposures=exposures, anyway=last)
        if merger.scene.truth["snr"] >= FAINTEST_TIDES:
            break
    return merger


def bank_of(seed: int, settings: str) -> str:
    """Which encounters the stamps of a seed are of: those for evaluation were never trained with."""
    if settings == "hard":
        return "hard"
    return "training" if seed < EVALUATION_SEEDS else "evaluation"


def paint_merger(
    view: View,
    rng: np.random.Generator,
    snapshot: Snapshot,
    *,
    settings: str = "training",
    exposures: int = 1,
    anyway: bool = True,
) -> Merger:
    """One snapshot of an encounter, from a random direction, the brighter nucleus at the middle.

    Of one that fails the cut only the tides are painted, unless it is wanted ``anyway``.
    """
    law = LAWS[settings]
    magnitude = draw_magnitude(rng, view.conditions.kind, large=True) + law.fainter_mag
    unit = WIDER * draw_radius_arcsec(rng, magnitude) * view.points_per_arcsec / 1.68
    turn = rotation(rng)
    weight = _weights(rng, snapshot, law)
    share = float(weight[snapshot.galaxy == 1].sum() / weight.sum())
    middle = snapshot.centres[0 if share <= 0.5 else 1] @ turn.T
    flux = view.conditions.electrons(magnitude)
    placed = _place(rng, snapshot, weight, turn, near_middle(view, rng), middle, unit, flux, law)
    tides = empty(view)
    _add_particles(tides, *(part[np.flatnonzero(snapshot.tidal)] for part in placed))
    apart = np.hypot(*((snapshot.centres[1] - snapshot.centres[0]) @ turn.T)[:2]) * unit
    truth = {
        "magnitude": magnitude,
        "snr": _tides_snr(view, tides, exposures),
        "stage": snapshot.stage,
        "mass_ratio": snapshot.mass_ratio,
        "separation_arcsec": apart / view.points_per_arcsec,
    }
    if truth["snr"] < FAINTEST_TIDES and not anyway:
        return Merger(Scene("merger", tides, truth=truth), unit)
    light = empty(view)
    _add_particles(light, *placed)
    return Merger(Scene("merger", light, truth=truth), unit)


def _tides_snr(view: View, tides: NDArray[np.float32], exposures: int) -> float:
    """The signal-to-noise of the tides where they can be seen against the sky."""
    level = seen(view, tides) * np.float32(math.sqrt(exposures) / view.conditions.noise_e)
    visible = ndimage.uniform_filter(level, SMOOTHED_PX) * SMOOTHED_PX > 2.0
    return float(np.sqrt((level[visible] ** 2).sum()))


def draw_non_merger(
    view: View, rng: np.random.Generator, kind: str, like: Merger, *, seed: int, settings: str = "training"
) -> Scene:
    """A galaxy of its own, or two that happen to be near each other on the sky; as bright and large as a merger."""
    law = LAWS[settings]
    bank = bank_of(seed, settings)
    place = near_middle(view, rng)
    pair = kind == "chance-pair"
    truth = {"magnitude": like.scene.truth["magnitude"]}
    # A galaxy alone is the brighter one of two; what of two that meet is outside a stamp is so of two that do not.
    flux = view.conditions.electrons(truth["magnitude"]) * (PAIRED if pair else ALONE)
    # As bright beside each other as two that meet.
    share = rng.uniform(*BANKS[bank].mass_ratios) if pair else 0.0
    share = share / (1.0 + share)
    light = empty(view)
    unit = like.unit * (1.0 if pair else LARGER_ALONE)
    for part, other in ((1.0 - share, False), (share, True)):
        if part == 0.0:
            continue
        snapshot = isolated(bank, int(rng.integers(ISOLATED)))
        where = place
        if other:
            apart, turn = rng.uniform(1.5, 8.0) * unit, rng.uniform(0.0, 2.0 * math.pi)
            where = place[0] + apart * math.cos(turn), place[1] + apart * math.sin(turn)
            unit *= math.sqrt(share / (1.0 - share)) * math.exp(0.25 * rng.standard_normal())
            truth["separation_arcsec"] = apart / view.points_per_arcsec
        weight = _weights(rng, snapshot, law)
        placed = _place(rng, snapshot, weight, rotation(rng), where, np.zeros(3), unit, flux * part, law)
        _add_particles(light, *placed)
    halo = flux * rng.uniform(*HALO)
    radius, ratio = rng.uniform(*HALO_LENGTHS) * like.unit, rng.uniform(0.6, 1.0)
    add_sersic(light, *place, halo, radius, 1.0, ratio, rng.uniform(0.0, math.pi))
    return Scene(kind, light, truth=truth)


def _weights(rng: np.random.Generator, snapshot: Snapshot, law: StarFormation) -> NDArray[np.float32]:
    """The light of each particle: bulge and disc of each galaxy, spiral arms where the disc is still one."""
    weight = np.zeros(len(snapshot.places))
    for k in (0, 1):
        mine = snapshot.galaxy == k
        if not mine.any():
            continue
        # One in eight has no disc to speak of.
        bulge = rng.uniform(0.9, 1.0) if rng.random() < 0.12 else rng.uniform(0.03, 0.6)
        mass = snapshot.mass_ratio if k else 1.0
        inside, disc = mine & snapshot.bulge, mine & ~snapshot.bulge
        weight[inside] = mass * bulge / max(inside.sum(), 1)
        radius, azimuth = snapshot.radius[disc], snapshot.azimuth[disc]
        pitch = math.copysign(math.tan(rng.uniform(0.15, 0.6)), rng.normal())
        arms = rng.choice([2.0, 2.0, 3.0, 4.0])
        crest = (0.5 + 0.5 * np.cos(arms * (azimuth - np.log(radius + 0.2) / pitch))) ** rng.uniform(1.0, 3.0)
        contrast = rng.uniform(0.0, 0.9) * np.exp(-((radius / 4.0) ** 2))
        light = 1.0 - 0.6 * contrast + 2.0 * contrast * crest
        # Stars form where it is dense.
        light *= np.clip(0.3 / snapshot.spread[disc], 0.2, 5.0) ** (law.power * rng.uniform(0.0, 1.0))
        weight[disc] = mass * (1.0 - bulge) * light / light.sum() if disc.any() else 0.0
    return (weight / weight.sum()).astype(np.float32)


def _place(
    rng: np.random.Generator,
    snapshot: Snapshot,
    weight: NDArray[np.float32],
    turn: NDArray[np.float64],
    place: tuple[float, float],
    middle: NDArray[np.float64],
    unit: float,
    flux: float,
    law: StarFormation,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Where a snapshot's light is: smooth particles, and after them knots of young stars about some of the disc's.

    Gives x, y (grid points), light and blur of each.
    """
    seen = snapshot.places @ turn.T.astype(np.float32)
    x = ((seen[:, 0] - middle[0]) * unit + place[0]).astype(np.float32)
    y = ((seen[:, 1] - middle[1]) * unit + place[1]).astype(np.float32)
    blur = np.clip(snapshot.spread * np.float32(SMOOTHNESS * unit), *BLUR_POINTS).astype(np.float32)
    young = rng.uniform(*law.young)
    disc = np.flatnonzero(~snapshot.bulge & (weight > 0.0))
    knots = int(rng.integers(law.knots[0], law.knots[1] + 1)) if len(disc) else 0
    young = young if knots else 0.0
    # Bulges that are nearly all of the light have no young stars beside them.
    young *= float(weight[disc].sum())
    smooth = weight * np.float32(flux * (1.0 - young))
    if not knots:
        return x, y, smooth, blur
    chosen = rng.choice(disc, knots, p=weight[disc] / weight[disc].sum())
    shares = (rng.dirichlet(np.full(knots, 1.0)) * young * flux).astype(np.float32)
    sizes = np.clip(unit * np.array([spread_evenly(rng, 0.05, 0.35) for _ in chosen]), *BLUR_POINTS).astype(np.float32)
    knotted = ((x, x[chosen]), (y, y[chosen]), (smooth, shares), (blur, sizes))
    x, y, smooth, blur = (np.concatenate(pair) for pair in knotted)
    return x, y, smooth, blur
