"""Stamps and simulation tables of the user's own, brought to what a survey shows, to learn from beside drawn ones.

``docs/classes.md`` has the layout of the folder. Nothing is ever sharpened: what has wider pixels than the survey is
refused, a PSF is only widened, noise only added. Where one class alone came from somebody's camera, a network would
learn to tell the camera: finished stamps of one class without the other are refused. All that is made of one file is
learned from or validated on, never both. What fails: a file that cannot be read ends the training before it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from astropy.io import fits
from scipy import ndimage

from detector.centring import centred
from detector.fits import read_frames
from detector.frame import BadFrame, Frame
from detector.stamps import border_level, resampled, widened
from models.simulate.lenses import arcs_about
from models.simulate.mergers import NON_MERGERS, draw_non_merger, paint_merger
from models.simulate.stamps import LABELS, SURVEYS, binning, photographed
from models.simulate.viewing import MARGIN_PX, STAMP_PX, draw_view, seen, stamp_of
from models.training.particletable import BadStamps, read_particles
from models.training.stampbank import LARGEST_SIGMA, Stamps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.simulate.viewing import View

# The folders that are looked for: finished stamps of what is one and of what is none, and what stamps are made of.
FOLDERS = {"lenses": ("lenses", "impostors", "ellipticals"), "mergers": ("mergers", "galaxies", "encounters")}
PSF_KEYWORD = "PSF_FWHM"
# Stamps made of each file, each in another PSF and noise of the survey, and of each table of particles, from as many
# sides; of the latter two and of ellipticals as many again that are none.
FROM_STAMP, FROM_TABLE = 4, 8
# Every so many files one is for validation.
HELD = 8
# Pixels may be this much larger than the survey's; a stamp has at least so many of the survey's along a side.
WIDER, SMALLEST_PX = 1.1, 48
CANVAS_PX = STAMP_PX + 2 * MARGIN_PX
# Within this (survey's pixels) a galaxy's light is summed and its shape measured.
GALAXY_PX = 20


@dataclass(frozen=True, eq=False)
class OwnImage:
    """Pixels ``[h, w]`` and what the file says of them; None where it does not.

    ``zero_point`` is the AB magnitude of 1 e-/s; pixels are then electrons of ``exposure_s`` seconds.
    """

    path: Path
    pixels: NDArray[np.float32]
    pixel_scale_arcsec: float
    fwhm_arcsec: float | None
    zero_point: float | None
    exposure_s: float | None


def own_stamps(
    folder: Path, task: Literal["lenses", "mergers"], *, survey: str = "all", seed: int
) -> tuple[Stamps, Stamps]:
    """What to learn from and what to validate on, of a folder with any of ``FOLDERS[task]``.

    Errors: ``BadStamps``, which names the file and what is wrong with it.
    """
    true, false, made_of = (_files(folder / name) for name in FOLDERS[task])
    if not (true or false or made_of):
        raise BadStamps(f"{folder}: none of the folders {', '.join(FOLDERS[task])} with files (*.fits, *.csv) in it")
    if bool(true) != bool(false):
        with_, without = FOLDERS[task][:2] if true else FOLDERS[task][1::-1]
        raise BadStamps(
            f"{folder}: stamps in {with_} but none in {without}: a network would learn to tell their camera. Give "
            "both, from the same images"
        )
    parts: tuple[list[Stamps], list[Stamps]] = ([], [])
    label = LABELS["lens" if task == "lenses" else "merger"]
    jobs = [(k, path, label) for k, path in enumerate(true)] + [(k, path, 0) for k, path in enumerate(false)]
    for k, path, what in jobs:
        rng = np.random.default_rng([seed, k, what, 11])
        parts[k % HELD == HELD - 1].append(_finished(path, task, what, survey, rng, seed))
    for k, path in enumerate(made_of):
        rng = np.random.default_rng([seed, k, 12])
        make = _with_arcs if task == "lenses" else _met
        parts[k % HELD == HELD - 1].append(make(path, survey, rng, seed))
    return joined(parts[0]), joined(parts[1])


def joined(parts: Sequence[Stamps]) -> Stamps:
    """One set after another."""
    return Stamps(
        np.concatenate([np.empty((0, STAMP_PX, STAMP_PX), np.float16), *(part.pixels for part in parts)]),
        np.concatenate([np.empty(0, np.int8), *(part.label for part in parts)]),
        np.concatenate([np.empty(0, np.float32), *(part.ic for part in parts)]),
        np.concatenate([np.empty(0, "U1"), *(part.kind for part in parts)]),
    )


def read_own_image(path: Path) -> OwnImage:
    """The first image of a FITS file that says how large its pixels are.

    Errors: ``BadStamps``.
    """
    try:
        frame = next(iter(read_frames(path, name=str(path))), None)
    except BadFrame as bad:
        raise BadStamps(f"{path}: {bad.detail}") from None
    if not isinstance(frame, Frame):
        raise BadStamps(f"{path}: {'no image in it' if frame is None else frame.detail}")
    header = frame.header
    if not header.pixel_scale_arcsec:
        raise BadStamps(f"{path}: does not say how large its pixels are: give it a celestial WCS (CTYPE1, CD1_1 ...)")
    told = fits.getheader(path, header.extension).get(PSF_KEYWORD)
    if told is not None and not (isinstance(told, int | float) and 0.0 < told < 60.0):
        raise BadStamps(f"{path}: {PSF_KEYWORD} is {told!r}: give the full width at half maximum in arcsec")
    pixels = np.where(frame.mask == 0, frame.pixels, np.float32(np.nan)).astype(np.float32)
    scale = float(header.pixel_scale_arcsec)
    return OwnImage(path, pixels, scale, None if told is None else float(told), header.zero_point, header.exposure_s)


def as_seen(own: OwnImage, view: View, rng: np.random.Generator) -> NDArray[np.float32]:
    """The canvas ``[84, 84]`` about the object's peak as ``view`` shows it, in sigmas of the sky; NaN beyond the image.

    The PSF is widened to the view's where the file tells its own; noise is filled up to what the image had or, with a
    zero point and an exposure time, to the survey's, never taken away.

    Errors: ``BadStamps`` for pixels that are too wide or a stamp that is too small.
    """
    wanted = view.conditions.pixel_scale_arcsec * view.binning
    factor = wanted / own.pixel_scale_arcsec
    if factor < 1.0 / WIDER:
        raise BadStamps(
            f"{own.path}: pixels of {own.pixel_scale_arcsec:.3f} arcsec are wider than the {wanted:.3f} of "
            f"{view.conditions.kind}, and nothing is sharpened: give finer ones, or another --survey"
        )
    if min(own.pixels.shape) / factor < SMALLEST_PX:
        raise BadStamps(
            f"{own.path}: covers {min(own.pixels.shape) / factor:.0f} pixels of {view.conditions.kind}, at least "
            f"{SMALLEST_PX} are needed: cut larger stamps"
        )
    plain = resampled(own.pixels, factor)
    image = plain
    if own.fwhm_arcsec is not None and own.fwhm_arcsec < view.fwhm_arcsec:
        sigma = np.sqrt(view.fwhm_arcsec**2 - own.fwhm_arcsec**2) / 2.355
        image = resampled(widened(own.pixels, sigma / own.pixel_scale_arcsec), factor)
    level, sigma = border_level(image)
    floor = border_level(plain)[1]
    if own.zero_point is not None and own.exposure_s:
        # What an electron of the survey's exposure is in the image's own unit, a pixel of the survey.
        unit = own.exposure_s * 10.0 ** (0.4 * (own.zero_point - view.conditions.zero_point))
        unit /= view.conditions.exposure_s * factor**2
        floor = max(floor, view.conditions.noise_e * view.binning * unit)
    lacking = np.sqrt(max(floor**2 - sigma**2, 0.0))
    noisy = image - level + lacking * rng.standard_normal(image.shape)
    whole = (noisy / max(floor, sigma, 1e-30)).astype(np.float32)
    x, y = centred(whole, 0.5 * (whole.shape[1] - 1), 0.5 * (whole.shape[0] - 1))
    half = CANVAS_PX // 2
    return np.pad(whole, CANVAS_PX, constant_values=np.nan)[
        y - half + CANVAS_PX : y + half + CANVAS_PX, x - half + CANVAS_PX : x + half + CANVAS_PX
    ]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []


def _views(
    task: Literal["lenses", "mergers"], survey: str, seed: int, count: int, scale: float = 0.0
) -> Iterator[View]:
    """Views of the survey, or of all in turn that have no finer pixels than ``scale`` allows (all if none)."""
    names = SURVEYS if survey == "all" else (survey,)
    for k in range(count):
        views = [draw_view(name, binning(task, name), seed, k) for name in names]
        usable = [v for v in views if v.conditions.pixel_scale_arcsec * v.binning * WIDER >= scale] or views
        yield usable[k % len(usable)]


def _finished(
    path: Path, task: Literal["lenses", "mergers"], label: int, survey: str, rng: np.random.Generator, seed: int
) -> Stamps:
    own = read_own_image(path)
    views = _views(task, survey, seed, FROM_STAMP, own.pixel_scale_arcsec)
    pixels = [stamp_of(as_seen(own, view, rng), rng) for view in views]
    return _collected(pixels, [label] * len(pixels), [np.nan] * len(pixels), "own")


def _with_arcs(path: Path, survey: str, rng: np.random.Generator, seed: int) -> Stamps:
    """A galaxy as it is, and with the arcs of sources behind it in place of a part of its light."""
    own = read_own_image(path)
    pixels, labels, contents = [], [], []
    for view in _views("lenses", survey, seed, FROM_STAMP, own.pixel_scale_arcsec):
        plain = as_seen(own, view, rng)
        noise = view.conditions.noise_e
        near = np.hypot(*np.ogrid[-CANVAS_PX // 2 : CANVAS_PX // 2, -CANVAS_PX // 2 : CANVAS_PX // 2]) < GALAXY_PX
        galaxy = np.where(near, np.maximum(ndimage.gaussian_filter(np.nan_to_num(plain), 1.0), 0.0), 0.0) * noise
        drawn = arcs_about(view, rng, galaxy.astype(np.float32))
        if drawn is None:
            continue
        features, left, ic = drawn
        image = seen(view, features)
        scatter = np.sqrt(1.0 - left**2 + np.maximum(image, 0.0) / noise**2)
        lensed = plain * left + image / noise + scatter * rng.standard_normal(plain.shape)
        for canvas, label, content in ((lensed, LABELS["lens"], ic), (plain, 0, np.nan)):
            pixels.append(stamp_of(canvas.astype(np.float32), rng))
            labels.append(label)
            contents.append(content)
    return _collected(pixels, labels, contents, "own-elliptical")


def _met(path: Path, survey: str, rng: np.random.Generator, seed: int) -> Stamps:
    """A snapshot of an encounter from several sides, and for each what is none and made like it."""
    snapshot = read_particles(path)
    pixels, labels = [], []
    for view in _views("mergers", survey, seed, FROM_TABLE):
        exposures = int(rng.integers(1, 5))
        merger = paint_merger(view, rng, snapshot, exposures=exposures)
        kind = str(rng.choice(list(NON_MERGERS)))
        none = draw_non_merger(view, rng, kind, merger, seed=seed)
        for scene, label in ((merger.scene, LABELS["merger"]), (none, 0)):
            pixels.append(photographed(scene, view, exposures, rng))
            labels.append(label)
    return _collected(pixels, labels, [np.nan] * len(pixels), "own-encounter")


def _collected(pixels: list[NDArray[np.float32]], labels: list[int], ic: list[float], kind: str) -> Stamps:
    stacked = np.array(pixels, np.float32).reshape(-1, STAMP_PX, STAMP_PX)
    return Stamps(
        np.clip(stacked, -LARGEST_SIGMA, LARGEST_SIGMA).astype(np.float16),
        np.array(labels, np.int8),
        np.array(ic, np.float32),
        np.full(len(labels), kind),
    )
