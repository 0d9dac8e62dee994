"""Labelled stamps of lenses, mergers and what is mistaken for them: what the networks of these classes learn from.

A stamp is what the stream would cut out: pixels in units of the sky's sigma, the object near the middle by the same
rule for every class. Each stamp has a generator of its own, so that the same seed gives the same stamps in whatever
order, on whatever machine. Where classes differed in anything but shape (brightness, size, centring, noise), a network
would learn that and fail in the first real frame: ``models.evaluate.floor`` measures it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.simulate.asteroids import add_trails
from models.simulate.impostors import LENS_IMPOSTORS, as_bright_as, disturbed, draw_impostor
from models.simulate.lenses import Lens, draw_lens
from models.simulate.mergers import NON_MERGERS, Merger, draw_merger, draw_non_merger
from models.simulate.scenes import Scene, empty, spread_evenly, with_field
from models.simulate.viewing import STAMP_PX, View, binned, draw_view, exposed, seen, stamp_of, with_stars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SURVEYS = ("euclid-vis", "kids-omegacam", "subaru-hsc")
TASKS = ("lenses", "mergers", "discriminator")
LABELS = {"none": 0, "lens": 1, "merger": 2, "asteroid": 3}
# What is known of a stamp besides its label; NaN where it does not apply. ``stage`` runs from 0 at first passage to 1
# at coalescence and beyond; ``snr``, ``area_psf`` (in areas of the PSF), ``one_sided`` and ``arc_fwhm`` are those of
# the visible lensed features (``models.simulate.lenses``); ``snr`` also that of a trail or of a merger's tides.
TRUTH = (
    "magnitude",
    "snr",
    "area_psf",
    "one_sided",
    "arc_fwhm",
    "features_magnitude",
    "einstein_radius_arcsec",
    "source_radius_arcsec",
    "ic",
    "stage",
    "separation_arcsec",
    "mass_ratio",
    "length_px",
)
# So many stamps in turn are of one survey and share its PSF and sky.
GROUP = 128
# What the discriminator's "none" is made of.
NONE_KINDS = {"lens-impostor": 0.4, "non-merger": 0.35, "sky": 0.25}
# A class of 2 arcsec at 0.2 arcsec a pixel: Euclid's frames are binned for what is larger than a lens.
BINNED_SURVEYS = frozenset({"euclid-vis"})
TRAIL_PX = (5.0, 60.0)
TRAIL_SNR = (7.0, 200.0)


@dataclass(frozen=True, eq=False)
class StampSet:
    """Stamps ``pixels`` float32 ``[n, 64, 64]``: sigmas of the sky, background subtracted, NaN where masked.

    ``label`` int8 ``[n]``: 0 none, 1 lens, 2 merger, 3 asteroid. ``kind`` a word for each. ``ic`` float32 ``[n]`` the
    information content of a lens's features, NaN for others: area above two sigma in areas of the PSF, times Einstein
    radius over the source's half-light radius (Nagam 2023). ``truth`` has a float32 ``[n]`` for each of ``TRUTH``.
    ``survey`` a name for each; ``pixel_scale_arcsec`` and ``fwhm_px`` float32 ``[n]``, of the stamp's own pixels.
    """

    pixels: NDArray[np.float32]
    label: NDArray[np.int8]
    kind: tuple[str, ...]
    ic: NDArray[np.float32]
    truth: dict[str, NDArray[np.float32]]
    survey: tuple[str, ...]
    pixel_scale_arcsec: NDArray[np.float32]
    fwhm_px: NDArray[np.float32]
    exposures: NDArray[np.int16]


def binning(task: str, survey: str) -> int:
    """How many native pixels of a survey, along each axis, make a pixel of the stamps of a task.

    Lenses are shown at native pixels; mergers and the discriminator at about 0.2 arcsec a pixel, for which Euclid's
    frames are binned (``detector.whitening.binned``).
    """
    if task not in TASKS:
        raise ValueError(f"no such task: {task!r}; known are {', '.join(TASKS)}")
    if survey not in SURVEYS:
        raise ValueError(f"no stamps of the survey {survey!r}; known are {', '.join(SURVEYS)}")
    return 2 if task != "lenses" and survey in BINNED_SURVEYS else 1


def draw_stamps(
    task: Literal["lenses", "mergers", "discriminator"],
    count: int,
    *,
    survey: str = "all",
    seed: int,
    settings: Literal["training", "hard"] = "training",
    exposures: int | None = None,
    shares: Sequence[float] | None = None,
    first: int = 0,
) -> StampSet:
    """The stamps ``first`` to ``first + count`` of a seed; the same whatever ``count`` is.

    Half are positives for ``lenses`` and ``mergers``; the ``discriminator`` has its four classes in ``shares`` (none,
    lens, merger, asteroid; equal ones when not given). ``exposures`` None draws 1 to 4, of which a stack is made;
    1 is a single exposure as it streams. ``settings`` "hard" are others than those to train with.

    Errors: ``ValueError`` for a task or survey that is not known.
    """
    if survey != "all":
        binning(task, survey)
    elif task not in TASKS:
        binning(task, SURVEYS[0])
    surveys = SURVEYS if survey == "all" else (survey,)
    parts = np.asarray(shares if shares is not None else (1.0, 1.0, 1.0, 1.0), np.float64)
    stamps = []
    for index in range(first, first + count):
        group = index // GROUP
        view = draw_view(surveys[group % len(surveys)], binning(task, surveys[group % len(surveys)]), seed, group)
        stamps.append(_draw_stamp(task, index, view, seed, settings, exposures, parts / parts.sum()))
    return _collected(stamps)


@dataclass(frozen=True, eq=False)
class _Stamp:
    pixels: NDArray[np.float32]
    label: int
    scene: Scene
    view: View
    exposures: int


def _draw_stamp(
    task: str, index: int, view: View, seed: int, settings: str, exposures: int | None, shares: NDArray[np.float64]
) -> _Stamp:
    rng = np.random.default_rng([seed, index, TASKS.index(task)])
    label = _label(task, index, rng, shares)
    # A lens and the impostor that is made like it are neighbours.
    pair = np.random.default_rng([seed, index // 2, TASKS.index(task), 1])
    n = int(pair.integers(1, 5)) if exposures is None else exposures
    scene = _draw_scene(task, label, view, rng, settings, n, (seed, index))
    return _Stamp(photographed(scene, view, n, rng), label, scene, view, n)


def photographed(scene: Scene, view: View, exposures: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The stamp ``[64, 64]`` of a scene among what happens to lie around it, in a stack of ``exposures``."""
    scene = with_field(view, scene, rng)
    light = scene.light if scene.features is None else scene.light + scene.features
    image = with_stars(view, seen(view, light), scene.stars)
    if len(scene.trails):
        add_trails(image, scene.trails, view.spread.core)
    return stamp_of(binned(exposed(view, image, exposures, rng), view.binning), rng)


@lru_cache(maxsize=4)
def _lens_of(view: View, seed: int, pair: int, task: str, settings: str, exposures: int) -> Lens:
    """The lens of a pair of stamps: one shows it, the other an impostor made like it."""
    rng = np.random.default_rng([seed, pair, TASKS.index(task), 2])
    return draw_lens(view, rng, settings=settings, exposures=exposures)


@lru_cache(maxsize=4)
def _merger_of(view: View, seed: int, group: int, pair: int, task: str, settings: str, exposures: int) -> Merger:
    """The merger of a pair of stamps: one shows it, the other a non-merger as bright and large."""
    rng = np.random.default_rng([seed, pair, TASKS.index(task), 3])
    return draw_merger(view, rng, seed=seed, group=group, settings=settings, exposures=exposures)


def _label(task: str, index: int, rng: np.random.Generator, shares: NDArray[np.float64]) -> int:
    if task == "discriminator":
        return int(rng.choice(4, p=shares))
    return index % 2 * (LABELS["lens"] if task == "lenses" else LABELS["merger"])


def _draw_scene(
    task: str,
    label: int,
    view: View,
    rng: np.random.Generator,
    settings: str,
    exposures: int,
    turn: tuple[int, int],
) -> Scene:
    seed, index = turn
    group = index // GROUP
    what = {"lenses": "lens-impostor", "mergers": "non-merger"}.get(task) or _chosen(rng, NONE_KINDS)
    none = label == LABELS["none"]
    if label == LABELS["asteroid"]:
        return _draw_trail(view, rng)
    if none and what == "sky":
        return Scene("sky", empty(view))
    if label == LABELS["merger"] or (none and what == "non-merger"):
        merger = _merger_of(view, seed, group, index // 2, task, settings, exposures)
        kind = _chosen(rng, NON_MERGERS)
        return draw_non_merger(view, rng, kind, merger, seed=seed, settings=settings) if none else merger.scene
    lens = _lens_of(view, seed, index // 2, task, settings, exposures)
    if not none:
        return disturbed(view, rng, lens.scene)
    kind = _chosen(rng, {k: v for k, v in LENS_IMPOSTORS.items() if task == "lenses" or k != "merger"})
    if kind == "merger":
        merger = draw_merger(view, rng, seed=seed, group=group, settings=settings, exposures=exposures)
        return disturbed(view, rng, as_bright_as(merger.scene, lens))
    return disturbed(view, rng, draw_impostor(view, rng, kind, lens))


def _chosen(rng: np.random.Generator, shares: dict[str, float]) -> str:
    weights = np.array(list(shares.values()))
    return str(rng.choice(list(shares), p=weights / weights.sum()))


def _draw_trail(view: View, rng: np.random.Generator) -> Scene:
    """An asteroid's trail through the middle, of a drawn signal-to-noise."""
    middle = 0.5 * (view.side_px - 1) + rng.uniform(-0.5, 0.5, 2)
    length = spread_evenly(rng, *TRAIL_PX)
    turn = rng.uniform(0.0, math.pi)
    half = 0.5 * length * np.array([math.cos(turn), math.sin(turn)])
    snr = spread_evenly(rng, *TRAIL_SNR)
    width = view.spread.core.fwhm_px / 2.355
    # The noise of a matched filter over a line of a Gaussian's width.
    noise_area = 2.0 * math.sqrt(math.pi) * width * max(length, 2.0 * math.sqrt(math.pi) * width)
    flux = snr * view.conditions.noise_e * math.sqrt(noise_area)
    trail = np.array([[*(middle - half), *(middle + half), flux]])
    return Scene("asteroid", empty(view), trails=trail, truth={"snr": snr, "length_px": length})


def _collected(stamps: list[_Stamp]) -> StampSet:
    truth = {name: np.array([stamp.scene.truth.get(name, np.nan) for stamp in stamps], np.float32) for name in TRUTH}
    truth["ic"] = np.where([stamp.label == LABELS["lens"] for stamp in stamps], truth["ic"], np.float32(np.nan))
    return StampSet(
        pixels=np.stack([stamp.pixels for stamp in stamps])
        if stamps
        else np.empty((0, STAMP_PX, STAMP_PX), np.float32),
        label=np.array([stamp.label for stamp in stamps], np.int8),
        kind=tuple(stamp.scene.kind for stamp in stamps),
        ic=truth["ic"],
        truth=truth,
        survey=tuple(stamp.view.conditions.kind for stamp in stamps),
        pixel_scale_arcsec=np.array(
            [stamp.view.conditions.pixel_scale_arcsec * stamp.view.binning for stamp in stamps], np.float32
        ),
        fwhm_px=np.array([stamp.view.spread.core.fwhm_px / stamp.view.binning for stamp in stamps], np.float32),
        exposures=np.array([stamp.exposures for stamp in stamps], np.int16),
    )
