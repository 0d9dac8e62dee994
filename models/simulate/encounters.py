"""Encounters of two galaxies in three dimensions: the restricted three-body problem, in the manner of Toomre & Toomre.

Each galaxy is a rigid halo and bulge (Hernquist 1990) that carries disc and bulge particles without mass of their own;
the two centres fall towards each other, just bound, lose energy by dynamical friction (Chandrasekhar's formula in
the halo of the other) and coalesce. So bridges, tails, shells and double nuclei come out as tides make them
(Toomre & Toomre 1972, ApJ 178, 623). What the method lacks: the discs' own gravity, and a remnant that relaxes.

Units: G = 1, lengths in scale lengths of the first disc, the first galaxy's circular speed is about 0.9. An orbit takes
a fraction of a second of one core and is kept for the process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Mass and scale of halo and bulge of a galaxy of mass 1: a flat rotation curve from one scale length to ten.
HALO_MASS, HALO_SCALE = 40.0, 12.0
BULGE_MASS, BULGE_SCALE = 1.2, 0.6
DISC_PARTICLES, BULGE_PARTICLES = 3200, 1000
# Particles that are moved together.
TOGETHER = 256
STEP = 0.1
BEGIN = 22.0  # separation from which an encounter is followed
BOUND = 0.7  # speed there, of that of a parabola: friction of the haloes has begun before
LONGEST = 260.0  # what has not coalesced by then is given up to its last snapshot
COALESCED = 0.8  # separation that is never exceeded again after coalescence
AFTERMATH = 8.0  # how long the remnant is followed: then its tails have faded
COULOMB_LOGARITHM = 0.6
DISPERSION = 0.6
NEIGHBOURS = 8
# Scale lengths from both nuclei beyond which a disc's particle is counted to the tides.
TIDES_BEYOND = 5.0
# Snapshots of an encounter, from first passage on.
SNAPSHOTS = 9


@dataclass(frozen=True)
class Orbits:
    """The ranges that encounters are drawn from: mass ratio, pericentre in scale lengths, how many different ones."""

    name: str
    mass_ratios: tuple[float, float]
    pericentres: tuple[float, float]
    count: int


BANKS = {
    "training": Orbits("training", (0.3, 1.0), (1.0, 7.0), 48),
    "evaluation": Orbits("evaluation", (0.3, 1.0), (1.0, 7.0), 32),
    # Other mass ratios: minor mergers too.
    "hard": Orbits("hard", (0.12, 0.5), (0.5, 10.0), 32),
}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Particles at one moment. ``places`` float32 ``[n, 3]``; ``spread`` ``[n]``, the distance to their neighbours.

    ``galaxy`` int8 ``[n]`` 0 or 1; ``bulge`` bool ``[n]``; ``azimuth`` and ``radius`` ``[n]`` in the plane of the own
    disc about the own centre (for spiral arms); ``tidal`` bool ``[n]``: of a disc, and beyond ``TIDES_BEYOND`` of both
    nuclei; ``centres`` ``[2, 3]``. ``stage`` is 0 at first passage, 1 at coalescence, NaN for an isolated galaxy;
    ``mass_ratio`` of the second to the first.
    """

    places: NDArray[np.float32]
    spread: NDArray[np.float32]
    galaxy: NDArray[np.int8]
    bulge: NDArray[np.bool_]
    azimuth: NDArray[np.float32]
    radius: NDArray[np.float32]
    tidal: NDArray[np.bool_]
    centres: NDArray[np.float64]
    stage: float
    mass_ratio: float


@njit(cache=True, nogil=True)
def _pull(r: float, mass: float) -> float:
    """Acceleration over radius at distance r from the middle of a galaxy of ``mass``, whose lengths go as its root."""
    scale = math.sqrt(mass)
    halo, bulge = HALO_MASS * mass / (r + HALO_SCALE * scale) ** 2, BULGE_MASS * mass / (r + BULGE_SCALE * scale) ** 2
    return (halo + bulge) / (r + 1e-3)


def pull_plainly(r: NDArray[np.float64], mass: float) -> NDArray[np.float64]:
    """The plain twin of the kernels' force law: enclosed mass over the cube of the radius."""
    scale = math.sqrt(mass)
    enclosed = HALO_MASS * mass * (r / (r + HALO_SCALE * scale)) ** 2
    enclosed = enclosed + BULGE_MASS * mass * (r / (r + BULGE_SCALE * scale)) ** 2
    return np.asarray(enclosed / (r**2 * (r + 1e-3)))


@njit(cache=True, nogil=True)
def _fall(place: NDArray[np.float64], speed: NDArray[np.float64], mass: float, path: NDArray[np.float64]) -> None:
    """The second centre about the first, into ``path`` ``[steps, 3]``: both galaxies' pull, and friction."""
    for k in range(path.shape[0]):
        r2, v2 = 0.0, 0.0
        for a in range(3):
            path[k, a] = place[a]
            r2 += place[a] * place[a]
            v2 += speed[a] * speed[a]
        r, v = math.sqrt(r2), math.sqrt(v2)
        density = HALO_MASS * HALO_SCALE / (2.0 * math.pi * (r + 0.5) * (r + HALO_SCALE) ** 3)
        density += BULGE_MASS * BULGE_SCALE / (2.0 * math.pi * (r + 0.5) * (r + BULGE_SCALE) ** 3)
        x = v / (math.sqrt(2.0) * DISPERSION)
        moving = math.erf(x) - 2.0 * x / math.sqrt(math.pi) * math.exp(-x * x)
        # The mass that feels the drag is what tides have left of the smaller one.
        bound = HALO_MASS * mass * (1.0 + mass) * min(1.0, (0.15 + r / 25.0))
        drag = 4.0 * math.pi * COULOMB_LOGARITHM * density * bound * moving / (v2 + 0.05) ** 1.5
        pull = _pull(r, 1.0) + _pull(r, mass)
        for a in range(3):
            speed[a] = (speed[a] - STEP * pull * place[a]) / (1.0 + STEP * drag)
        for a in range(3):
            place[a] += STEP * speed[a]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _carry(
    places: NDArray[np.float64],
    speeds: NDArray[np.float64],
    path: NDArray[np.float64],
    begin: int,
    end: int,
    mass: float,
) -> None:
    """Particles ``[3, n]`` moved in place from step ``begin`` to ``end``; the two centres balance about the origin.

    Some at a time, so that they stay in the cache and the processor moves several at once.
    """
    first, second = -mass / (1.0 + mass), 1.0 / (1.0 + mass)
    scale = math.sqrt(mass)
    halo, bulge = HALO_MASS * mass, BULGE_MASS * mass
    for left in range(0, places.shape[1], TOGETHER):
        x, y, z = (
            places[0, left : left + TOGETHER],
            places[1, left : left + TOGETHER],
            places[2, left : left + TOGETHER],
        )
        u, v, w = (
            speeds[0, left : left + TOGETHER],
            speeds[1, left : left + TOGETHER],
            speeds[2, left : left + TOGETHER],
        )
        for k in range(begin, end):
            px, py, pz = path[k, 0], path[k, 1], path[k, 2]
            for n in range(x.shape[0]):
                ax, ay, az = x[n] - first * px, y[n] - first * py, z[n] - first * pz
                r = math.sqrt(ax * ax + ay * ay + az * az)
                pull = (HALO_MASS / (r + HALO_SCALE) ** 2 + BULGE_MASS / (r + BULGE_SCALE) ** 2) / (r + 1e-3)
                bx, by, bz = x[n] - second * px, y[n] - second * py, z[n] - second * pz
                s = math.sqrt(bx * bx + by * by + bz * bz)
                other = (halo / (s + HALO_SCALE * scale) ** 2 + bulge / (s + BULGE_SCALE * scale) ** 2) / (s + 1e-3)
                u[n] -= STEP * (pull * ax + other * bx)
                v[n] -= STEP * (pull * ay + other * by)
                w[n] -= STEP * (pull * az + other * bz)
                x[n] += STEP * u[n]
                y[n] += STEP * v[n]
                z[n] += STEP * w[n]


def carry_plainly(
    places: NDArray[np.float64],
    speeds: NDArray[np.float64],
    path: NDArray[np.float64],
    mass: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The plain twin of the kernel that moves particles ``[3, n]`` along a whole path: what tests it."""
    places, speeds = places.copy(), speeds.copy()
    for step in path:
        for balance, m in ((-mass / (1.0 + mass), 1.0), (1.0 / (1.0 + mass), mass)):
            away = places - balance * step[:, None]
            speeds -= STEP * pull_plainly(np.linalg.norm(away, axis=0), m) * away
        places += STEP * speeds
    return places, speeds


def rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A random rotation ``[3, 3]``, even over all directions."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    turned: NDArray[np.float64] = q * np.sign(np.diag(r))
    turned[:, 0] *= np.sign(np.linalg.det(turned))
    return turned


def _galaxy(
    rng: np.random.Generator, mass: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Particles of a galaxy in its own plane: places, speeds ``[n, 3]``, and which belong to the bulge."""
    scale = math.sqrt(mass)
    radius = np.minimum(rng.gamma(2.0, 1.0, DISC_PARTICLES), 7.0) * scale
    turn = rng.uniform(0.0, 2.0 * math.pi, DISC_PARTICLES)
    disc = np.column_stack(
        [radius * np.cos(turn), radius * np.sin(turn), rng.laplace(0.0, 0.08 * scale, DISC_PARTICLES)]
    )
    circular = np.sqrt(pull_plainly(radius, mass)) * radius
    heat = 0.08 * circular[:, None] * rng.standard_normal((DISC_PARTICLES, 3))
    round_ = np.column_stack([-np.sin(turn), np.cos(turn), np.zeros_like(turn)]) * circular[:, None]
    share = np.sqrt(rng.uniform(0.0, 0.85, BULGE_PARTICLES))
    within = 0.5 * BULGE_SCALE * scale * share / (1.0 - share)
    directions = rng.standard_normal((BULGE_PARTICLES, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    hot = np.sqrt(0.4 * pull_plainly(within, mass)) * within
    bulge_speeds = hot[:, None] * rng.standard_normal((BULGE_PARTICLES, 3))
    is_bulge = np.arange(DISC_PARTICLES + BULGE_PARTICLES) >= DISC_PARTICLES
    return np.vstack([disc, directions * within[:, None]]), np.vstack([round_ + heat, bulge_speeds]), is_bulge


def _spread(places: NDArray[np.float64]) -> NDArray[np.float32]:
    tree = cKDTree(places, balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(places, k=[NEIGHBOURS])
    return np.asarray(distances[:, 0], np.float32)


@lru_cache(maxsize=256)
def isolated(bank: str, index: int) -> Snapshot:
    """A galaxy that has met nobody, in its own plane, made of the same particles as those in encounters."""
    rng = np.random.default_rng([index, sum(bank.encode()), 1])
    places, _, bulge = _galaxy(rng, 1.0)
    return Snapshot(
        places=places.astype(np.float32),
        spread=_spread(places),
        galaxy=np.zeros(len(places), np.int8),
        bulge=bulge,
        azimuth=np.arctan2(places[:, 1], places[:, 0]).astype(np.float32),
        radius=np.hypot(places[:, 0], places[:, 1]).astype(np.float32),
        tidal=np.zeros(len(places), np.bool_),
        centres=np.zeros((2, 3)),
        stage=math.nan,
        mass_ratio=math.nan,
    )


@lru_cache(maxsize=128)
def encounter(bank: str, index: int) -> tuple[Snapshot, ...]:
    """The snapshots of one encounter of a bank, from first passage to after coalescence."""
    orbits = BANKS[bank]
    rng = np.random.default_rng([index, sum(bank.encode()), 2])
    mass = rng.uniform(*orbits.mass_ratios)
    path = _path(rng, mass, orbits)
    distance = np.linalg.norm(path, axis=1)
    # The first minimum of the distance; then the last time that it was more than a nucleus.
    passage = int(np.flatnonzero(np.diff(distance) > 0.0)[0])
    apart = np.flatnonzero(distance > COALESCED)
    coalesced = max(int(apart[-1]), passage + 1)
    last = min(coalesced + round(AFTERMATH / STEP), len(path) - 1)
    frames = [rotation(rng), rotation(rng)]
    parts = [_galaxy(rng, m) for m in (1.0, mass)]
    velocity = np.gradient(path[:3], STEP, axis=0)[0]
    balance = (-mass / (1.0 + mass), 1.0 / (1.0 + mass))
    placed = [p @ f.T + b * path[0] for (p, _, _), f, b in zip(parts, frames, balance, strict=True)]
    moving = [s @ f.T + b * velocity for (_, s, _), f, b in zip(parts, frames, balance, strict=True)]
    places, speeds = (np.ascontiguousarray(np.vstack(rows).T) for rows in (placed, moving))
    bulge = np.concatenate([is_bulge for _, _, is_bulge in parts])
    galaxy = np.repeat(np.array([0, 1], np.int8), [len(parts[0][0]), len(parts[1][0])])
    snapshots = []
    now = 0
    for when in np.linspace(passage + 10, last, SNAPSHOTS).astype(int):
        _carry(places, speeds, path, now, int(when), mass)
        now = int(when)
        centres = np.array([b * path[now] for b in balance])
        stage = (now - passage) / (coalesced - passage)
        snapshots.append(snapshot_of(np.ascontiguousarray(places.T), galaxy, bulge, centres, frames, stage, mass))
    return tuple(snapshots)


def _path(rng: np.random.Generator, mass: float, orbits: Orbits) -> NDArray[np.float64]:
    """The second centre about the first, ``[steps, 3]``, on an orbit with the pericentre that was drawn."""
    pericentre = rng.uniform(*orbits.pericentres)
    # Bound already, by friction of haloes before; angular momentum as at the pericentre.
    speed = BOUND * math.sqrt(2.0 * _depth(BEGIN, mass))
    momentum = pericentre * math.sqrt(2.0 * _depth(pericentre, mass) + speed**2 - 2.0 * _depth(BEGIN, mass))
    across = min(momentum / BEGIN, 0.95 * speed)
    along = -math.sqrt(speed**2 - across**2)
    path = np.empty((round(LONGEST / STEP), 3))
    _fall(np.array([BEGIN, 0.0, 0.0]), np.array([along, across, 0.0]), mass, path)
    turned: NDArray[np.float64] = path @ rotation(rng).T
    return turned


def _depth(r: float, mass: float) -> float:
    """The depth of both potentials at a separation, as two Hernquist spheres act on a point."""
    return sum(
        m * (HALO_MASS / (r + HALO_SCALE * math.sqrt(m)) + BULGE_MASS / (r + BULGE_SCALE * math.sqrt(m)))
        for m in (1.0, mass)
    )


def snapshot_of(
    places: NDArray[np.float64],
    galaxy: NDArray[np.int8],
    bulge: NDArray[np.bool_],
    centres: NDArray[np.float64],
    frames: list[NDArray[np.float64]],
    stage: float,
    mass: float,
) -> Snapshot:
    """The moment of particles ``[n, 3]`` whose centres ``[2, 3]`` and planes (rotations ``[3, 3]``) are known."""
    plane = np.empty((len(places), 3))
    away = [np.linalg.norm(places - centres[k], axis=1) / math.sqrt((1.0, mass)[k]) for k in (0, 1)]
    for k, frame in enumerate(frames):
        plane[galaxy == k] = (places[galaxy == k] - centres[k]) @ frame / math.sqrt((1.0, mass)[k])
    return Snapshot(
        places=places.astype(np.float32),
        spread=_spread(places),
        galaxy=galaxy,
        bulge=bulge,
        azimuth=np.arctan2(plane[:, 1], plane[:, 0]).astype(np.float32),
        radius=np.hypot(plane[:, 0], plane[:, 1]).astype(np.float32),
        tidal=(np.minimum(*away) > TIDES_BEYOND) & ~bulge,
        centres=centres,
        stage=stage,
        mass_ratio=mass,
    )
