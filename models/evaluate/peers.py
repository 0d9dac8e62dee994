"""Other people's detectors on the same frames, for the rows beside ours.

A peer sees the pixels and mask that ours sees, and nothing else: where it needs its frames free of cosmic rays, they go
through LACosmic (van Dokkum 2001) first. Its score is for ranking only: it is no probability. What a peer needs is
installed for comparisons alone (extra ``peers``); where it is not, the peer is left out and named.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from detector.sky import measure_sky
from models.evaluate.matching import accepted_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from detector.frame import Frame

# Tuned for short faint streaks: five pixels above 1.5 sigma, a third longer than wide.
SEP_SIGMA, SEP_MIN_PIXELS, SEP_ELONGATION = 1.5, 5, 1.33
_SEP_STACK, _SEP_OBJECTS = 20_000_000, 100_000
# LACosmic as its author has it, for an undersampled PSF (objlim 5).
LA_SIGMA, LA_OBJECT_LIMIT = 4.5, 5.0
LA_READ_NOISE_E, LA_SATURATION_E = 5.0, 1e9  # where the header does not say
# Contours: level in sigmas of the sky, fewest pixels inside, largest 4 pi area / perimeter^2 (a circle has 1).
CONTOUR_SIGMA, CONTOUR_PIXELS, CONTOUR_ROUNDNESS = 2.0, 8.0, 0.6
# Hough: pixels above so many sigmas, of groups at least so much longer than wide; votes, length and gap of a line.
HOUGH_SIGMA, HOUGH_ELONGATION, HOUGH_VOTES, HOUGH_LENGTH_PX, HOUGH_GAP_PX = 2.0, 1.5, 8, 6, 3
_HOUGH_SEED = 1


@dataclass(frozen=True)
class Peer:
    """A detector: ``find`` gives ``[n, 5]`` x0, y0, x1, y1, score of a frame; ``packages`` is what it imports."""

    find: Callable[[Frame], NDArray[np.float64]]
    packages: tuple[str, ...]


def installed(package: str) -> bool:
    """Whether a package of PyPI is at hand."""
    return find_spec({"scikit-image": "skimage"}.get(package, package)) is not None


def sep_streaks(frame: Frame) -> NDArray[np.float64]:
    """The elongated ones of the sources that SExtractor's method finds: ``[n, 5]`` x0, y0, x1, y1, score."""
    masked = frame.mask != 0
    return _sep(np.where(masked, 0.0, frame.pixels), masked)


def cleaned_sep_streaks(frame: Frame) -> NDArray[np.float64]:
    """The same after LACosmic."""
    return _sep(without_cosmic_rays(frame), frame.mask != 0)


def _sep(pixels: NDArray[np.floating], masked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A line of length L has second moments that differ by L^2/12 along and across it; the score is 1 - b/a."""
    import sep  # noqa: PLC0415 - installed for comparisons only

    sep.set_extract_pixstack(_SEP_STACK)
    sep.set_sub_object_limit(_SEP_OBJECTS)
    pixels = np.ascontiguousarray(pixels, np.float32)
    background = sep.Background(pixels, mask=masked)
    found = sep.extract(pixels - background, SEP_SIGMA, err=background.globalrms, mask=masked, minarea=SEP_MIN_PIXELS)
    long = found[(found["a"] > SEP_ELONGATION * found["b"]) & np.isfinite(found["theta"])]
    half = np.sqrt(12 * (long["a"] ** 2 - long["b"] ** 2)) / 2
    dx, dy = half * np.cos(long["theta"]), half * np.sin(long["theta"])
    columns = (long["x"] - dx, long["y"] - dy, long["x"] + dx, long["y"] + dy, 1 - long["b"] / long["a"])
    return np.stack(columns, axis=-1).astype(np.float64)


@lru_cache(maxsize=1)  # several peers in turn look at one frame
def without_cosmic_rays(frame: Frame) -> NDArray[np.float32]:
    """The pixels after LACosmic, masked ones at the level of the sky."""
    import astroscrappy  # noqa: PLC0415

    masked = frame.mask != 0
    level = np.float32(np.median(frame.pixels[~masked])) if not masked.all() else np.float32(0)
    _, clean = astroscrappy.detect_cosmics(
        np.where(masked, level, frame.pixels),
        inmask=masked,
        sigclip=LA_SIGMA,
        objlim=LA_OBJECT_LIMIT,
        gain=1.0,
        readnoise=frame.header.read_noise_e or LA_READ_NOISE_E,
        satlevel=frame.header.saturation_e or LA_SATURATION_E,
    )
    pixels: NDArray[np.float32] = np.where(masked, level, clean).astype(np.float32)
    return pixels


def _in_sigmas(frame: Frame) -> NDArray[np.float64]:
    """The cleaned frame with its sky taken off, in units of the sky's sigma; 0 where masked."""
    pixels = without_cosmic_rays(frame)
    sky = measure_sky(pixels, frame.mask)
    zoom = [side / boxes for side, boxes in zip(pixels.shape, sky.background.shape, strict=True)]
    level, noise = (
        ndimage.zoom(mesh, zoom, order=1, mode="nearest", grid_mode=True)[: pixels.shape[0], : pixels.shape[1]]
        for mesh in (sky.background, sky.noise)
    )
    return np.where(frame.mask != 0, 0.0, (pixels - level) / np.maximum(noise, 1e-6))


def contour_streaks(frame: Frame) -> NDArray[np.float64]:
    """Contours as in ASTRiDE (Kim 2016): closed ones at a level, that are not round; ends where they reach farthest.

    The score is the perimeter over that of a circle of the same area.
    """
    from skimage import measure  # noqa: PLC0415

    rows = []
    for contour in measure.find_contours(_in_sigmas(frame), CONTOUR_SIGMA):
        if len(contour) < CONTOUR_PIXELS or (contour[0] != contour[-1]).any():
            continue
        y, x = contour.T
        area = 0.5 * abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])))
        perimeter = float(np.hypot(np.diff(x), np.diff(y)).sum())
        roundness = 4 * np.pi * area / perimeter**2
        if area < CONTOUR_PIXELS or roundness > CONTOUR_ROUNDNESS:
            continue
        x0, y0, x1, y1 = _axis_of(x, y)
        rows.append((x0, y0, x1, y1, roundness**-0.5))
    return np.array(rows, np.float64).reshape(-1, 5)


def _axis_of(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The ends of a closed contour on its long axis."""
    cx, cy = x.mean(), y.mean()
    _, axes = np.linalg.eigh(np.cov(x, y))
    along = (x - cx) * axes[0, 1] + (y - cy) * axes[1, 1]
    low, high = along.min(), along.max()
    return cx + low * axes[0, 1], cy + low * axes[1, 1], cx + high * axes[0, 1], cy + high * axes[1, 1]


def hough_streaks(frame: Frame) -> NDArray[np.float64]:
    """Probabilistic Hough transform of the pixels above a level, without groups that are round.

    Of lines on one place the best counts; the score is the signal along the line over its noise.
    """
    from skimage.transform import probabilistic_hough_line  # noqa: PLC0415

    sigmas = _in_sigmas(frame)
    lines = probabilistic_hough_line(
        _elongated(sigmas > HOUGH_SIGMA),
        threshold=HOUGH_VOTES,
        line_length=HOUGH_LENGTH_PX,
        line_gap=HOUGH_GAP_PX,
        rng=_HOUGH_SEED,
    )
    ends = np.array(lines, np.float64).reshape(-1, 2, 2)
    if not len(ends):
        return np.empty((0, 5))
    score = np.array([_along(sigmas, one) for one in ends])
    order = np.argsort(-score, kind="stable")
    ends, score = ends[order], score[order]
    pairs = accepted_pairs(ends, ends)
    needless = np.zeros(len(ends), np.bool_)
    needless[pairs[pairs[:, 0] < pairs[:, 1], 1]] = True
    return np.column_stack([ends[~needless].reshape(-1, 4), score[~needless]])


def _along(sigmas: NDArray[np.float64], ends: NDArray[np.float64]) -> float:
    """Sum of the pixels that a line crosses over the root of their number."""
    count = int(np.abs(ends[1] - ends[0]).max()) + 1
    x, y = np.linspace(ends[0], ends[1], count).round().astype(int).T
    return float(sigmas[y, x].clip(max=20.0).sum() / np.sqrt(count))


def _elongated(above: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of the pixels whose connected group is longer than wide, by second moments."""
    labels, count = ndimage.label(above, np.ones((3, 3)))
    y, x = np.nonzero(labels)
    group = labels[y, x]
    total = np.maximum(np.bincount(group, minlength=count + 1), 1)
    cx, cy = (np.bincount(group, values, count + 1) / total for values in (x, y))
    dx, dy = x - cx[group], y - cy[group]
    # A single pixel has a variance of 1/12 along each axis.
    xx, yy = (np.bincount(group, offset**2, count + 1) / total + 1 / 12 for offset in (dx, dy))
    xy = np.bincount(group, dx * dy, count + 1) / total
    middle, half = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    long = (middle + half) > HOUGH_ELONGATION**2 * (middle - half)
    kept: NDArray[np.bool_] = (long & (total >= 3))[labels] & above
    return kept


PEERS = {
    "sep (elongated sources)": Peer(sep_streaks, ("sep",)),
    "sep after LACosmic": Peer(cleaned_sep_streaks, ("sep", "astroscrappy")),
    "contours as in ASTRiDE, after LACosmic": Peer(contour_streaks, ("scikit-image", "astroscrappy")),
    "probabilistic Hough, after LACosmic": Peer(hough_streaks, ("scikit-image", "astroscrappy")),
}
