"""Lenses, mergers and impostors in whole exposures: the stamps' own painters, at places on the sky of a field.

An object is painted once for a field, without noise; each exposure shows it through its own optics, at its own place
between the pixels, among the field's stars, galaxies and asteroids. What is wrong with a place here looks like a
detector that misses: the truth is tested against the pixels. An object's light ends at the border of its canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from models.simulate.impostors import LENS_IMPOSTORS, draw_impostor
from models.simulate.lenses import draw_lens
from models.simulate.mergers import NON_MERGERS, draw_merger, draw_non_merger
from models.simulate.psf import point_spread
from models.simulate.stamps import BINNED_SURVEYS, SURVEYS
from models.simulate.viewing import OVERSAMPLING, STAMP_PX, WINGS_PX, make_view, seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.simulate.conditions import Conditions
    from models.simulate.psf import PointSpread
    from models.simulate.scenes import Scene
    from models.simulate.viewing import View

CLASSES = ("lens", "merger", "impostor")
# The widths of canvases in stamps: different ones, by which they are told.
LENS_CANVAS, MERGER_CANVAS = 2.25, 2.5
# Two objects are so far apart, if there is room, arcsec.
APART_ARCSEC = 14.0
ATTEMPTS = 40
# Impostors of lenses among all impostors; the rest are those of mergers. The frame has its own stars, and real mergers.
LENS_LIKE = 0.6
ELSEWHERE = frozenset({"star", "merger"})
# What is told of each class besides its place, NaN where it does not apply.
TOLD = {
    "lens": (
        "magnitude", "features_magnitude", "einstein_radius_arcsec", "source_radius_arcsec", "snr", "area_psf",
        "arc_fwhm", "one_sided", "ic",
    ),
    "merger": ("magnitude", "snr", "stage", "separation_arcsec", "mass_ratio"),
    "impostor": ("magnitude", "separation_arcsec"),
}  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """One object of a field at (x, y) of its tangent plane (px): the ``number``-th of its ``label`` in ``CLASSES``."""

    label: str
    number: int
    x: float
    y: float


def place_objects(
    rng: np.random.Generator,
    counts: dict[str, int],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    scale_arcsec: float,
) -> tuple[Planted, ...]:
    """Objects of each class between the corners ``low`` and ``high``, apart from each other if there is room."""
    apart = APART_ARCSEC / scale_arcsec
    taken = np.empty((0, 2))
    objects = []
    for label in CLASSES:
        for number in range(counts.get(label, 0)):
            place = rng.uniform(low, high)
            for _ in range(ATTEMPTS):
                if not len(taken) or float(np.hypot(*(taken - place).T).min()) >= apart:
                    break
                place = rng.uniform(low, high)
            taken = np.vstack([taken, place])
            objects.append(Planted(label, number, float(place[0]), float(place[1])))
    return tuple(objects)


def check_survey(kind: str) -> None:
    """Errors: ``ValueError`` where no stamps are drawn for this kind of camera."""
    if kind not in SURVEYS:
        raise ValueError(f"lenses and mergers are not drawn for {kind!r}, only for {', '.join(SURVEYS)}")


@lru_cache(maxsize=128)
def scene_of(conditions: Conditions, seed: int, label: str, number: int) -> Scene:
    """What an object of the field ``seed`` looks like, in one exposure of the field's own conditions, without noise."""
    rng = np.random.default_rng([seed, CLASSES.index(label), number, 11])
    lens_like = label == "lens" or (label == "impostor" and rng.random() < LENS_LIKE)
    view = _view(conditions, point_spread(conditions.optics, extent_px=WINGS_PX), lens_like=lens_like)
    if lens_like:
        lens = draw_lens(view, rng)
        if label == "lens":
            return lens.scene
        shares = {kind: share for kind, share in LENS_IMPOSTORS.items() if kind not in ELSEWHERE}
        return draw_impostor(view, rng, _chosen(rng, shares), lens)
    merger = draw_merger(view, rng, seed=seed, group=number)
    if label == "merger":
        return merger.scene
    return draw_non_merger(view, rng, _chosen(rng, NON_MERGERS), merger, seed=seed)


def add_object(
    image: NDArray[np.float32], scene: Scene, conditions: Conditions, spread: PointSpread, x: float, y: float
) -> None:
    """The light of ``scene`` added in place to ``image`` ``[h, w]`` (electrons), its middle at (x, y) of the frame."""
    light = scene.light if scene.features is None else scene.light + scene.features
    lens_like = light.shape[0] == _points(conditions.kind, lens_like=True)
    view = _view(conditions, spread, lens_like=lens_like)
    middle = 0.5 * (view.side_px - 1)
    left, top = round(x - middle), round(y - middle)
    shown = seen(view, _moved(light, *((p - middle - q) * view.oversampling for p, q in ((x, left), (y, top)))))
    height, width = image.shape
    rows, columns = np.clip([top, top + view.side_px], 0, height), np.clip([left, left + view.side_px], 0, width)
    if rows[0] < rows[1] and columns[0] < columns[1]:
        image[rows[0] : rows[1], columns[0] : columns[1]] += shown[
            rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left
        ]


def _moved(light: NDArray[np.float32], dx: float, dy: float) -> NDArray[np.float32]:
    """The light ``[n, n]`` moved by parts of a grid point."""
    n = light.shape[0]
    phase = np.exp(-2j * np.pi * (dy * fft.fftfreq(n)[:, None] + dx * fft.rfftfreq(n)[None, :]))
    return np.asarray(fft.irfft2(fft.rfft2(light) * phase, s=light.shape), np.float32)


def _points(kind: str, *, lens_like: bool) -> int:
    binning, oversampling = _grid(kind, lens_like=lens_like)
    return round((LENS_CANVAS if lens_like else MERGER_CANVAS) * STAMP_PX) * binning * oversampling


def _grid(kind: str, *, lens_like: bool) -> tuple[int, int]:
    """Binning of the stamps of a class, and grid points a native pixel."""
    binning = 1 if lens_like or kind not in BINNED_SURVEYS else 2
    return binning, OVERSAMPLING // binning


@lru_cache(maxsize=8)
def _view(conditions: Conditions, spread: PointSpread, *, lens_like: bool) -> View:
    oversampling = _grid(conditions.kind, lens_like=lens_like)[1]
    side = _points(conditions.kind, lens_like=lens_like) // oversampling
    return make_view(conditions, spread, 1, oversampling, side)


def _chosen(rng: np.random.Generator, shares: dict[str, float]) -> str:
    weights = np.array(list(shares.values()))
    return str(rng.choice(list(shares), p=weights / weights.sum()))
