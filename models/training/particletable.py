"""Tables of particles from somebody's simulation of an encounter, as the painter of mergers takes them.

Any unit of length will do: half the first galaxy's disc particles lie within 1.68 scale lengths of its nucleus. What
fails: a table without the columns that are needed, or with a galaxy of too few particles, is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.io.ascii import InconsistentTableError
from astropy.table import Table

from models.simulate.encounters import snapshot_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.simulate.encounters import Snapshot

COLUMNS = ("x", "y", "z", "galaxy")
# Disc particles of each galaxy: fewer show their grain. More than so many in all are thinned, for time.
FEWEST, MOST = 300, 12_000
# An exponential disc has half its light within so many scale lengths.
HALF_LIGHT = 1.68
NUCLEUS_PARTICLES = 20


class BadStamps(Exception):  # noqa: N818 - named like BadFrame
    """The user's own stamps or tables cannot be learned from; the text says which file and what to look for."""


def read_particles(path: Path) -> Snapshot:
    """The encounter in a table (CSV or FITS) with the columns x, y, z, galaxy (0 or 1), and perhaps bulge, mass.

    Errors: ``BadStamps``.
    """
    try:
        table = Table.read(path, format="ascii.csv" if path.suffix == ".csv" else "fits")
        missing = [name for name in COLUMNS if name not in table.colnames]
        if missing:
            raise BadStamps(f"{path}: no column {', '.join(missing)}; there are {', '.join(table.colnames)}")
        places = np.column_stack([np.asarray(table[name], np.float64) for name in COLUMNS[:3]])
        galaxy = np.asarray(table["galaxy"], np.int8)
        bulge = np.asarray(table["bulge"], np.float64) > 0 if "bulge" in table.colnames else np.zeros(len(galaxy), bool)
        mass = np.asarray(table["mass"], np.float64) if "mass" in table.colnames else np.ones(len(galaxy))
    except (InconsistentTableError, OSError, ValueError, TypeError) as error:
        raise BadStamps(f"{path}: cannot be read as a table of numbers, CSV or FITS: {error}") from None
    if not np.isfinite(places).all() or not np.isfinite(mass).all():
        raise BadStamps(f"{path}: places or masses that are no numbers")
    for k in (0, 1):
        disc = int(((galaxy == k) & ~bulge).sum())
        if disc < FEWEST:
            raise BadStamps(f"{path}: galaxy {k} has {disc} disc particles, at least {FEWEST} are needed")
    heavier = int(mass[galaxy == 1].sum() > mass[galaxy == 0].sum())
    ratio = float(mass[galaxy == 1 - heavier].sum() / mass[galaxy == heavier].sum())
    kept = np.isin(galaxy, (0, 1))
    kept &= np.arange(len(kept)) % max(1, -(-len(kept) // MOST)) == 0
    return _snapshot(places[kept], (galaxy[kept] != heavier).astype(np.int8), bulge[kept], ratio)


def nucleus(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle ``[3]`` of the densest half of the densest half ... of particles ``[n, 3]``."""
    middle = np.median(places, axis=0)
    while len(places) > 2 * NUCLEUS_PARTICLES:
        distance = np.linalg.norm(places - middle, axis=1)
        places = places[distance <= np.median(distance)]
        middle = np.median(places, axis=0)
    return np.asarray(middle)


def _snapshot(
    places: NDArray[np.float64], galaxy: NDArray[np.int8], bulge: NDArray[np.bool_], mass_ratio: float
) -> Snapshot:
    centres = np.array([nucleus(places[galaxy == k]) for k in (0, 1)])
    first = np.linalg.norm(places[(galaxy == 0) & ~bulge] - centres[0], axis=1)
    unit = max(float(np.median(first)) / HALF_LIGHT, 1e-12)
    middle = centres.mean(axis=0)
    places, centres = (places - middle) / unit, (centres - middle) / unit
    frames = []
    for k, mass in ((0, 1.0), (1, mass_ratio)):
        disc = places[(galaxy == k) & ~bulge] - centres[k]
        inner = disc[np.linalg.norm(disc, axis=1) < 3.0 * np.sqrt(mass)]
        # The direction in which a disc is thinnest is the last.
        frames.append(np.linalg.svd(inner if len(inner) > 3 else disc, full_matrices=False)[2].T)
    return snapshot_of(places, galaxy, bulge, centres, frames, float("nan"), mass_ratio)
