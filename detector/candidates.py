"""Lenses and mergers of one frame, without a catalogue: peaks of the discriminator's map, judged on their cut-outs.

The discriminator sees the frame at about 0.2 arcsec a pixel and says of each cell what is in its middle; what stands
out there is centred as the training stamps were, cut out, and given to the network of its class. So a class costs what
its peaks cost, and their number has a bound. What fails at night: a frame whose pixels are of another size than the
networks know, or that does not say how large they are, is not searched, and is flagged ``classes-not-searched``.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import ndimage

from detector.astrometry import to_sky
from detector.centring import centred
from detector.classtable import CandidateFlag, empty_candidates
from detector.tiling import Tiling, pad, strips
from detector.whitening import binned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from detector.frame import FrameHeader

    F4 = NDArray[np.float32]
    F8 = NDArray[np.float64]

# What the layers of the discriminator's map are.
CLASSES = ("none", "lens", "merger", "asteroid")
STAMP_PX = 64
# The pixel of the discriminator's and the mergers' networks, how far one may be from it (a factor), and the smallest
# pixel that the lenses' networks have seen, arcsec.
COARSE_ARCSEC, COARSE_WITHIN = 0.2, 1.6
FINEST_ARCSEC = 0.085
# Rows of cells in one strip.
STRIP_ROWS = 48
# Peaks of a class that are looked at in a million coarse pixels, best first; in small frames at least so many.
PEAKS_PER_MPX, LEAST_PEAKS = 128, 64
# Candidates of a class that a frame may publish.
MOST_CANDIDATES = 100
# A cell with a higher one beside it is looked at when its class is likelier than all others together.
SHOULDER_LOG_ODDS = 0.0
# Two peaks that are centred to places nearer than this are one object, coarse pixels.
ONE_OBJECT_PX = 5.0
# A merger's two galaxies, and its knots, are peaks of their own: of candidates nearer than this the likeliest stays.
ONE_MERGER_ARCSEC = 5.0
# The core of a stamp (half its side) of which so much must be seen, and the share of all of it beyond which it is said.
CORE_PX, LEAST_CORE = 8, 0.5
MASKED_SHARE = 0.25


class Discriminator(Protocol):
    """The map network, evaluated densely on a strip of the padded, sky-sigma frame."""

    @property
    def window(self) -> int:
        """The window's side, px."""

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""

    def floor(self, name: str) -> float:
        """Give the lowest log-odds of a peak of class ``name`` that is looked at."""

    def __call__(self, strip: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give ``[rows, cols, 4]``: the log-odds of each of ``CLASSES`` against all others, of each window."""


class Classifier(Protocol):
    """The network, or ensemble, of one class."""

    @property
    def model(self) -> str:
        """Its name and the beginning of its hash."""

    @property
    def threshold(self) -> float:
        """The lowest probability that is published."""

    def judge(self, stamps: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the probability ``[n]`` of stamps ``[n, 64, 64]``, NaN where masked, and its spread."""

    def content(self, stamps: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the information content ``[n]`` and its spread; NaN where the network says nothing of it."""


@dataclass(frozen=True)
class ClassNetworks:
    """What finds lenses and mergers; a class that is None is not looked for."""

    discriminator: Discriminator
    lens: Classifier | None = None
    merger: Classifier | None = None

    @property
    def models(self) -> dict[str, str]:
        """Which network judges: by ``lenses`` and ``mergers``, without what is not looked for."""
        judges = {"lenses": self.lens, "mergers": self.merger}
        return {name: judge.model for name, judge in judges.items() if judge is not None}


@dataclass(frozen=True, eq=False)
class Searched:
    """Tables of ``CANDIDATE``, best first; drops by reason; words for the frame's flags."""

    lenses: NDArray[np.void]
    mergers: NDArray[np.void]
    dropped: Counter[str]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Levels:
    """A whitened frame binned 2 x 2 again and again; ``images[k]`` has ``2 ** k`` native pixels a side.

    ``fine`` is the level of the lenses' networks, ``coarse`` that of the others'.
    """

    images: tuple[F4, ...]
    fine: int
    coarse: int


def levels_of(whitened: F4, pixel_scale_arcsec: float | None) -> Levels | None:
    """The frame at the networks' pixels; None where its own are unknown or too large."""
    if not pixel_scale_arcsec or not math.isfinite(pixel_scale_arcsec) or pixel_scale_arcsec <= 0:
        return None
    coarse = max(0, round(math.log2(COARSE_ARCSEC / pixel_scale_arcsec)))
    fine = max(0, math.ceil(math.log2(FINEST_ARCSEC / pixel_scale_arcsec)))
    off = pixel_scale_arcsec * 2**coarse / COARSE_ARCSEC
    if not 1.0 / COARSE_WITHIN <= off <= COARSE_WITHIN or min(whitened.shape) < 2**coarse:
        return None
    images = [whitened]
    for _ in range(coarse):
        images.append(binned(images[-1]))
    return Levels(tuple(images), min(fine, coarse), coarse)


def find_candidates(
    whitened: F4, header: FrameHeader, networks: ClassNetworks, done: Callable[[str], None] = lambda _: None
) -> Searched:
    """Lenses and mergers of a whitened frame ``[h, w]``, NaN where masked; ``done`` is told of each stage."""
    nothing = Searched(empty_candidates(), empty_candidates(), Counter())
    if not networks.models:
        return nothing
    levels = levels_of(whitened, header.pixel_scale_arcsec or header.survey.pixel_scale_arcsec)
    if levels is None:
        return Searched(nothing.lenses, nothing.mergers, Counter(), ("classes-not-searched",))
    coarse = levels.images[levels.coarse]
    odds = class_map(coarse, networks.discriminator)
    done("discriminator")
    dropped: Counter[str] = Counter()
    flags: list[str] = []
    tables = []
    for name, classifier, level in (
        ("lens", networks.lens, levels.fine),
        ("merger", networks.merger, levels.coarse),
    ):
        if classifier is None:
            tables.append(empty_candidates())
            continue
        rows, reasons = verdicts(
            levels,
            level,
            shortlist(coarse, odds, name, networks.discriminator),
            classifier,
            header,
            apart_px=ONE_MERGER_ARCSEC / COARSE_ARCSEC if name == "merger" else 0.0,
        )
        tables.append(rows)
        dropped.update({f"{name}-{reason}": count for reason, count in reasons.items() if count})
        plural = "lenses" if name == "lens" else "mergers"
        if reasons["many"]:
            flags.append(f"many-{plural}")
        done(plural)
    return Searched(tables[0], tables[1], dropped, tuple(flags))


def class_map(coarse: F4, discriminator: Discriminator) -> F4:
    """The log-odds ``[rows, cols, 4]`` of each cell of a frame at the discriminator's pixels."""
    tiling = Tiling(discriminator.window, discriminator.step)
    padded = pad(coarse, tiling)
    parts = [discriminator(strip) for _, strip in strips(padded, tiling, STRIP_ROWS)]
    return np.nan_to_num(np.concatenate(parts), nan=-np.inf)


def peaks(odds: F4, name: str, discriminator: Discriminator) -> F8:
    """Where a class stands out of its map: x, y in coarse pixels and the log-odds ``[n, 3]``, best first."""
    layer = odds[..., CLASSES.index(name)]
    return _middles(layer, _highest(layer) & (layer >= discriminator.floor(name)), discriminator.step)


def shoulders(odds: F4, name: str, discriminator: Discriminator) -> F8:
    """Where a class is likely, but likelier in a cell beside: x, y and the log-odds ``[n, 3]``, best first.

    Another object may lie there, or only the same one be seen from its side.
    """
    layer = odds[..., CLASSES.index(name)]
    likely = layer >= max(discriminator.floor(name), SHOULDER_LOG_ODDS)
    return _middles(layer, likely & ~_highest(layer), discriminator.step)


def shortlist(coarse: F4, odds: F4, name: str, discriminator: Discriminator) -> F8:
    """The places ``[n, 3]`` that a class is looked for at: x, y and log-odds, best first, each object once.

    All but asteroids, whose trails have no peak, are centred on the light of ``coarse``. A cell beside a peak counts
    where its light has a peak of its own: the place that it is centred to is centred to itself.
    """
    found = peaks(odds, name, discriminator)
    if name == "asteroid":
        return found
    rows = [(*centred(coarse, x, y), height) for x, y, height in found]
    for x, y, height in shoulders(odds, name, discriminator):
        place = centred(coarse, x, y)
        if centred(coarse, *place) == place:
            rows.append((*place, height))
    rows.sort(key=lambda row: -row[2])
    once = one_each([row[:2] for row in rows], ONE_OBJECT_PX)
    return np.array([rows[k] for k in once], np.float64).reshape(-1, 3)


def verdicts(
    levels: Levels, level: int, found: F8, classifier: Classifier, header: FrameHeader, *, apart_px: float
) -> tuple[NDArray[np.void], Counter[str]]:
    """The candidates among places ``[n, 3]`` in coarse pixels, as their network sees them at ``level``; and drops.

    Of candidates nearer than ``apart_px`` coarse pixels the most probable is given. ``many`` counts what a bound on
    numbers took away.
    """
    image = levels.images[level]
    most = max(LEAST_PEAKS, round(PEAKS_PER_MPX * levels.images[levels.coarse].size * 1e-6))
    reasons = Counter(many=max(0, len(found) - most))
    places = [(int(x), int(y)) for x, y in found[:most, :2]]
    places = [_centred_at(image, place, 2 ** (levels.coarse - level)) for place in places]
    stamps = cut_stamps(image, places)
    core = stamps[
        :, STAMP_PX // 2 - CORE_PX : STAMP_PX // 2 + CORE_PX, STAMP_PX // 2 - CORE_PX : STAMP_PX // 2 + CORE_PX
    ]
    seen = np.isfinite(core).mean(axis=(1, 2)) >= LEAST_CORE
    reasons["masked-core"] = int((~seen).sum())
    places, stamps = [place for place, good in zip(places, seen, strict=True) if good], stamps[seen]
    if not places:
        return empty_candidates(), reasons
    probability, spread = classifier.judge(stamps)
    ranked = np.argsort(-probability, kind="stable")
    above = ranked[probability[ranked] >= classifier.threshold]
    reasons["below-threshold"] = len(ranked) - len(above)
    likeliest = one_each([places[k] for k in above], apart_px * 2 ** (levels.coarse - level))
    reasons["beside-likelier"] = len(above) - len(likeliest)
    above = above[likeliest]
    reasons["many"] += max(0, len(above) - MOST_CANDIDATES)
    kept = above[:MOST_CANDIDATES]
    rows = tabulated(image, 2**level, [places[k] for k in kept], stamps[kept], header)
    rows["probability"], rows["probability_err"] = probability[kept], spread[kept]
    if len(kept):
        rows["ic"], rows["ic_err"] = classifier.content(stamps[kept])
    known = np.isfinite(rows["ic"])
    rows["rank"][known] = 1 + np.argsort(np.argsort(-rows["ic"][known], kind="stable"), kind="stable")
    return rows, reasons


def one_each(places: Sequence[tuple[int, int]], apart_px: float) -> list[int]:
    """Which of the places (best first) are no nearer than ``apart_px`` to one before them that is kept."""
    kept: list[int] = []
    for k, (x, y) in enumerate(places):
        if all(math.hypot(x - places[j][0], y - places[j][1]) >= apart_px for j in kept):
            kept.append(k)
    return kept


def _highest(layer: F4) -> NDArray[np.bool_]:
    """Which cells of a map ``[rows, cols]`` have no higher one beside them."""
    return np.asarray(layer == ndimage.maximum_filter(layer, 3, mode="constant", cval=-np.inf), np.bool_)


def _middles(layer: F4, chosen: NDArray[np.bool_], step: int) -> F8:
    """The middles of the cells chosen, x and y in coarse pixels, and their heights ``[n, 3]``, highest first."""
    rows, columns = np.nonzero(chosen)
    order = np.argsort(-layer[rows, columns], kind="stable")
    places = [step * index[order] + 0.5 * (step - 1) for index in (columns, rows)]
    return np.column_stack([*places, layer[rows, columns][order]]).astype(np.float64)


def cut_stamps(image: F4, places: Sequence[tuple[int, int]]) -> F4:
    """Copies ``[n, 64, 64]`` of what lies around places (x, y); NaN where masked and beyond the border."""
    half = STAMP_PX // 2
    out = np.full((len(places), STAMP_PX, STAMP_PX), np.nan, np.float32)
    height, width = image.shape
    for stamp, (x, y) in zip(out, places, strict=True):
        left, top = x - half, y - half
        inside = np.s_[max(top, 0) : min(top + STAMP_PX, height), max(left, 0) : min(left + STAMP_PX, width)]
        part = image[inside]
        first_row, first_column = max(-top, 0), max(-left, 0)
        stamp[first_row : first_row + part.shape[0], first_column : first_column + part.shape[1]] = part
    out[~np.isfinite(out)] = np.nan
    return out


def tabulated(
    image: F4, size: int, places: Sequence[tuple[int, int]], stamps: F4, header: FrameHeader
) -> NDArray[np.void]:
    """Rows with positions and flags; ``size`` native pixels are a pixel of ``image``."""
    rows = empty_candidates(len(places))
    if not len(rows):
        return rows
    fine = np.array([refined(image, x, y) for x, y in places])
    rows["x"], rows["y"] = (fine * size + 0.5 * (size - 1)).T
    half = STAMP_PX // 2
    at = np.array(places)
    height, width = image.shape
    beyond = ((at < half) | (at + half > np.array([width, height]))).any(axis=1)
    rows["flags"][beyond] |= np.uint32(CandidateFlag.EDGE)
    rows["flags"][(~np.isfinite(stamps)).mean(axis=(1, 2)) > MASKED_SHARE] |= np.uint32(CandidateFlag.MASKED)
    if header.wcs is not None:
        rows["ra"], rows["dec"] = to_sky(header.wcs, rows["x"].copy(), rows["y"].copy())
    return rows


def refined(image: F4, x: int, y: int) -> tuple[float, float]:
    """The peak of the smoothed light about a pixel to a part of it: parabolas through its neighbours."""
    height, width = image.shape
    reach = 5
    if not (reach <= x < width - reach and reach <= y < height - reach):
        return float(x), float(y)
    part = np.arcsinh(np.nan_to_num(image[y - reach : y + reach + 1, x - reach : x + reach + 1]))
    smooth = ndimage.gaussian_filter(part, 1.5, mode="nearest")
    return x + _vertex(smooth[reach, reach - 1 : reach + 2]), y + _vertex(smooth[reach - 1 : reach + 2, reach])


def _vertex(three: NDArray[np.floating]) -> float:
    """Where a parabola through three neighbours peaks, from the middle one; at most half a pixel."""
    before, here, after = (float(value) for value in three)
    bend = 2.0 * here - before - after
    return float(np.clip(0.5 * (after - before) / bend, -0.5, 0.5)) if bend > 0 else 0.0


def _centred_at(image: F4, place: tuple[int, int], finer: int) -> tuple[int, int]:
    """A place in coarse pixels as one in pixels that are ``finer`` times smaller, centred there."""
    if finer == 1:
        return place
    x, y = (index * finer + 0.5 * (finer - 1) for index in place)
    return centred(image, x, y)
