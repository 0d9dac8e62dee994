"""Galaxies in encounters, and what is none: isolated ones and chance pairs, all drawn particle by particle.

One painter draws all of them: the same particles, the same smoothing, the same arms and knots of young stars. Were the
non-mergers drawn with smooth formulae, a network would learn the grain of the particles. What is left to tell them by
is what tides do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from models.simulate.encounters import BANKS, Snapshot, encounter, isolated, rotation
from models.simulate.scenes import Scene, draw_magnitude, draw_radius_arcsec, empty, near_middle, spread_evenly

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.simulate.viewing import View

NON_MERGERS = {"isolated": 0.55, "chance-pair": 0.45}
# A particle is never smoother than this, in grid points, nor sharper.
BLUR_POINTS = (1.0, 14.0)
# Encounters that the stamps of one group are of, and isolated galaxies of a bank.
IN_TURN = 4
ISOLATED = 24
# Discs are this much wider than the common law of sizes has it, in which most galaxies are not discs.
WIDER = 1.25
# Light of two by chance and of one alone for that of two that meet: as much of it is in the middle and in a stamp.
PAIRED, ALONE = 1.1, 0.68
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


@njit(cache=True, nogil=True)
def _add_particles(
    image: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    weight: NDArray[np.float32],
    blur: NDArray[np.float32],
) -> None:
    """Each particle as (1 - (d / blur)^2)^2, its pixels summing to its weight."""
    height, width = image.shape
    for n in range(x.shape[0]):
        h = blur[n]
        left, right = int(math.ceil(x[n] - h)), int(math.floor(x[n] + h))
        top, bottom = int(math.ceil(y[n] - h)), int(math.floor(y[n] + h))
        if weight[n] <= 0.0 or right < 0 or bottom < 0 or left >= width or top >= height:
            continue
        total = math.pi * h * h / 3.0
        if h < 4.0:  # the sum of few pixels is not the integral
            total = 0.0
            for i in range(top, bottom + 1):
                for j in range(left, right + 1):
                    d = 1.0 - ((i - y[n]) ** 2 + (j - x[n]) ** 2) / (h * h)
                    if d > 0.0:
                        total += d * d
        for i in range(max(0, top), min(height - 1, bottom) + 1):
            for j in range(max(0, left), min(width - 1, right) + 1):
                d = 1.0 - ((i - y[n]) ** 2 + (j - x[n]) ** 2) / (h * h)
                if d > 0.0:
                    image[i, j] += np.float32(weight[n] * d * d / total)


def draw_merger(view: View, rng: np.random.Generator, *, seed: int, group: int, settings: str = "training") -> Scene:
    """An encounter at a random stage from a random direction; ``seed`` and ``group`` say which are in turn."""
    bank = bank_of(seed, settings)
    index = (group * IN_TURN + int(rng.integers(IN_TURN)) + seed % 7) % BANKS[bank].count
    snapshots = encounter(bank, index)
    return paint_merger(view, rng, snapshots[int(rng.integers(len(snapshots)))], settings=settings)


def bank_of(seed: int, settings: str) -> str:
    """Which encounters the stamps of a seed are of: those for evaluation were never trained with."""
    if settings == "hard":
        return "hard"
    return "training" if seed < EVALUATION_SEEDS else "evaluation"


def paint_merger(view: View, rng: np.random.Generator, snapshot: Snapshot, *, settings: str = "training") -> Scene:
    """One snapshot of an encounter, from a random direction, the brighter nucleus at the middle."""
    law = LAWS[settings]
    magnitude = draw_magnitude(rng, view.conditions.kind, large=True) + law.fainter_mag
    unit = _unit(view, rng, magnitude)
    turn = rotation(rng)
    weight = _weights(rng, snapshot, law)
    share = float(weight[snapshot.galaxy == 1].sum() / weight.sum())
    middle = snapshot.centres[0 if share <= 0.5 else 1] @ turn.T
    light = empty(view)
    flux = view.conditions.electrons(magnitude)
    _paint(rng, light, snapshot, weight, turn, near_middle(view, rng), middle, unit, flux, law)
    apart = np.hypot(*((snapshot.centres[1] - snapshot.centres[0]) @ turn.T)[:2]) * unit
    truth = {
        "magnitude": magnitude,
        "stage": snapshot.stage,
        "mass_ratio": snapshot.mass_ratio,
        "separation_arcsec": apart / view.points_per_arcsec,
    }
    return Scene("merger", light, truth=truth)


def draw_non_merger(view: View, rng: np.random.Generator, kind: str, *, seed: int, settings: str = "training") -> Scene:
    """A galaxy of its own, or two that happen to be near each other on the sky."""
    law = LAWS[settings]
    bank = bank_of(seed, settings)
    magnitude = draw_magnitude(rng, view.conditions.kind, large=True) + law.fainter_mag
    place = near_middle(view, rng)
    pair = kind == "chance-pair"
    # A galaxy alone is the brighter one of two; what of two that meet is outside a stamp is so of two that do not.
    flux = view.conditions.electrons(magnitude) * (PAIRED if pair else ALONE)
    # As bright beside each other as two that meet.
    share = rng.uniform(*BANKS[bank].mass_ratios) if pair else 0.0
    share = share / (1.0 + share)
    light = empty(view)
    unit = _unit(view, rng, magnitude)
    truth = {"magnitude": magnitude}
    for part, other in ((1.0 - share, False), (share, True)):
        if part == 0.0:
            continue
        snapshot = isolated(bank, int(rng.integers(ISOLATED)))
        where = place
        if other:
            apart, turn = rng.uniform(1.5, 9.0) * unit, rng.uniform(0.0, 2.0 * math.pi)
            where = place[0] + apart * math.cos(turn), place[1] + apart * math.sin(turn)
            unit *= math.sqrt(share / (1.0 - share)) * math.exp(0.25 * rng.standard_normal())
            truth["separation_arcsec"] = apart / view.points_per_arcsec
        weight = _weights(rng, snapshot, law)
        _paint(rng, light, snapshot, weight, rotation(rng), where, np.zeros(3), unit, flux * part, law)
    return Scene(kind, light, truth=truth)


def _unit(view: View, rng: np.random.Generator, magnitude: float) -> float:
    """Grid points in a scale length of the first disc: half of a disc's light lies within 1.68 of them."""
    return WIDER * draw_radius_arcsec(rng, magnitude) * view.points_per_arcsec / 1.68


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


def _paint(
    rng: np.random.Generator,
    light: NDArray[np.float32],
    snapshot: Snapshot,
    weight: NDArray[np.float32],
    turn: NDArray[np.float64],
    place: tuple[float, float],
    middle: NDArray[np.float64],
    unit: float,
    flux: float,
    law: StarFormation,
) -> None:
    """A snapshot's light added in place: smooth particles, and knots of young stars about some of the disc's."""
    seen = snapshot.places @ turn.T.astype(np.float32)
    x = ((seen[:, 0] - middle[0]) * unit + place[0]).astype(np.float32)
    y = ((seen[:, 1] - middle[1]) * unit + place[1]).astype(np.float32)
    blur = np.clip(snapshot.spread * np.float32(unit), *BLUR_POINTS).astype(np.float32)
    young = rng.uniform(*law.young)
    disc = np.flatnonzero(~snapshot.bulge & (weight > 0.0))
    knots = int(rng.integers(law.knots[0], law.knots[1] + 1)) if len(disc) else 0
    young = young if knots else 0.0
    # Bulges that are nearly all of the light have no young stars beside them.
    young *= float(weight[disc].sum())
    _add_particles(light, x, y, weight * np.float32(flux * (1.0 - young)), blur)
    if knots:
        chosen = rng.choice(disc, knots, p=weight[disc] / weight[disc].sum())
        shares = rng.dirichlet(np.full(knots, 1.0)) * young * flux
        sizes = np.clip(unit * np.array([spread_evenly(rng, 0.05, 0.35) for _ in chosen]), *BLUR_POINTS)
        _add_particles(light, x[chosen], y[chosen], shares.astype(np.float32), sizes.astype(np.float32))
