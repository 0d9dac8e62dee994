"""The whole science of one frame on one screen: Frame + networks (callables) -> Findings.

defects -> sky -> PSF -> whitened frame -> proposals at three scales -> merged -> fitted -> scored -> on the sky. Each
step is a function of its own module; this one only says in which order. It fails on nothing that a frame can hold: what
cannot be read never gets here (``BadFrame``), and what cannot be measured is null and flagged.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from scipy.spatial import cKDTree

from detector.astrometry import on_the_sky
from detector.cutouts import cut_out, shown
from detector.defects import find_defects
from detector.elsewhere import moved, same_sky, with_others
from detector.endpoints import settled
from detector.evidence import FILTER_NAMES, evidence, heard
from detector.fitting import fit_lines
from detector.gridlines import along_the_grid, grid_doubted
from detector.matched import filtered_frame, matched_proposals
from detector.merging import merge
from detector.proposals import Proposals, concatenated
from detector.psf import Psf
from detector.psfmeasurement import measure_psf
from detector.repeats import first_rows
from detector.sky import measure_sky
from detector.spikes import (
    WINGED_SIGMA,
    beside_stars,
    bright_stars,
    doubted,
    doubted_by_angle,
    lies_along,
    points_at_star,
    spike_angles,
)
from detector.streaks import MAX_STREAKS_PER_FRAME, Findings, StreakFlag, empty
from detector.tiling import Tiling, pad, strips, unpadded
from detector.whitening import binned, whiten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from detector.fitting import Fits
    from detector.frame import Frame, FrameHeader
    from detector.sky import Sky

# Who proposes: StreakNet, the oriented matched filter, or both; the second stage judges either's.
Method = Literal["network", "matched", "both"]

# The frame is searched as it is and binned 2 x 2 and 4 x 4: a window of 96 px then spans 384.
SCALES = (1, 2, 4)
# Rows of windows in one strip: 32 rows of a 4096 px frame are 1.4 Mpx.
STRIP_ROWS = 32
# Windows below this are not looked at again: a thousandth of the odds of an even chance.
FLOOR_LOGIT = -7.0
# Candidates that are fitted where a threshold will leave far fewer.
CANDIDATES_PER_FRAME = 3_000
MAX_WINDOWS_PER_FRAME = 60_000
# Cut-outs of 46 kB each in memory at a time.
STAMPS_AT_ONCE = 1_024
# The logarithm of odds below which a row is flagged `static`: 1 in 50.
STANDS_BELOW = -4.0
# Sources that tell whether two frames show one sky are this bright in their pixels, and wider than a cosmic ray.
SOURCES_SIGMA, SOURCES_RADIUS_PX = 20.0, 2.0
# Ends of two proposals of one streak that are worth one fit.
SAME_ENDS_PX = 2.0
# An end whose continuation by this much is outside or masked may go on there.
EDGE_PX = 10.0
# Where neither the stars nor the profile say how wide the PSF is.
DEFAULT_FWHM_PX = 2.5
# The candidates that say how wide an unmeasured PSF is: clearly there, and the network's favourites.
CLEAR_SNR = 20.0
CLEAR_CANDIDATES = 3
# How far the network's ends may be off, in pixels of its scale.
ENDS_UNCERTAINTY_PX = 1.5


class StreakNetwork(Protocol):
    """The proposal network, evaluated densely on a strip of the padded, sky-sigma frame."""

    @property
    def window(self) -> int:
        """The window's side, px."""

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""

    def __call__(self, strip: NDArray[np.float32], fwhm_px: float) -> NDArray[np.float32]:
        """Give ``[rows, cols, 5]``: logit, x0, y0, x1, y1 (pixels, from the window's first pixel) of each window.

        ``strip`` is ``[window + step * (rows - 1), window + step * (cols - 1)]``; masked pixels are NaN.
        """

    def judge(self, stamps: NDArray[np.float32], evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the logit of candidates by their cut-outs (``detector.cutouts``) and their evidence ``[n, k]``."""

    def probability(self, logit: NDArray[np.float64], expected_per_frame: float) -> NDArray[np.float64]:
        """Give the probability that belongs to a logit where so many streaks are expected in a frame."""


@dataclass(frozen=True)
class Search:
    """How deep to look.

    ``threshold`` is the lowest score published (0.2: at most one false streak in a simulated empty frame,
    docs/results.md); 0 gives every proposal, at most 20,000. Above ``many_streaks`` a frame is flagged and only so
    many, the best, are given (unless the threshold is 0). ``link_threshold`` asks for candidates besides: what is not
    published and has at least this score. ``expected_streaks_per_frame``: None takes the survey's.
    """

    method: Method = "both"
    threshold: float = 0.2
    many_streaks: int = 500
    expected_streaks_per_frame: float | None = None
    link_threshold: float | None = None


class Stopwatch:
    """Seconds by stage: call it with a stage's name when the stage is done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def restart(self) -> None:
        """Credit the time since the last call to nothing."""
        self._last = time.perf_counter()

    def __call__(self, stage: str) -> None:
        """Credit the time since the last call to ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame ready to be searched: what is masked, its sky, its PSF, and its pixels in units of the sky's sigma.

    ``padded`` has ``margin`` pixels of NaN all round. Another exposure of the field is given as this.
    """

    header: FrameHeader
    mask: NDArray[np.uint8]
    sky: Sky
    psf: Psf
    padded: NDArray[np.float32]
    margin: int

    @property
    def whitened(self) -> NDArray[np.float32]:
        """The frame itself, without its margin."""
        height, width = self.header.shape
        return self.padded[self.margin : self.margin + height, self.margin : self.margin + width]

    @cached_property
    def sources(self) -> NDArray[np.float64]:
        """Middles and radii ``[n, 3]`` of the bright sources: by them frames of one sky know each other."""
        found = bright_stars(self.whitened, self.mask, SOURCES_SIGMA)
        return found[found[:, 2] >= SOURCES_RADIUS_PX]

    def noise_at(self, ends: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sky's sigma in electrons ``[n]`` at the mid-points of lines; the nearest known beyond the border."""
        return noise_at(self.sky, np.nan_to_num(ends, nan=0.0, posinf=0.0, neginf=0.0), self.header.shape)


def prepare(frame: Frame, network: StreakNetwork, done: Stopwatch | None = None) -> Prepared:
    """Defects, sky, PSF: all that is known of a frame before anything is looked for."""
    done = done or Stopwatch()
    tiling = Tiling(network.window, network.step)
    mask = find_defects(frame.pixels, frame.mask, saturation_e=frame.header.saturation_e)
    done("defects")
    sky = measure_sky(frame.pixels, mask)
    padded = whiten(frame.pixels, mask, sky, window=tiling.window, step=tiling.step)
    done("sky")
    psf = measure_psf(frame.pixels, mask, sky, fallback_fwhm_px=profile_fwhm_px(frame.header))
    done("psf")
    return Prepared(frame.header, mask, sky, psf, padded, tiling.margin)


def examine(frame: Frame, network: StreakNetwork, search: Search) -> Findings:
    """Give what one frame shows; streaks best first."""
    done = Stopwatch()
    return search_frame(prepare(frame, network, done), network, search, done=done)


def examine_together(frames: Sequence[Frame], network: StreakNetwork, search: Search) -> Iterator[Findings]:
    """Give what each of several exposures of one field shows, in order; each tells the others what stands still."""
    watches = [Stopwatch() for _ in frames]
    ready = []
    for frame, done in zip(frames, watches, strict=True):
        done.restart()
        ready.append(prepare(frame, network, done))
    for one, done in zip(ready, watches, strict=True):
        done.restart()
        others = [other for other in ready if other is not one and same_sky(one, other)]
        yield search_frame(one, network, search, others=others, done=done)


def search_frame(
    ready: Prepared,
    network: StreakNetwork,
    search: Search,
    *,
    others: Sequence[Prepared] = (),
    done: Stopwatch | None = None,
) -> Findings:
    """Give what a prepared frame shows; ``others`` are exposures of the same field that tell what stands still."""
    done = done or Stopwatch()
    dropped: Counter[str] = Counter()
    flags = list(ready.header.flags)
    header, psf = ready.header, ready.psf
    if psf.n_stars == 0:
        flags.append("psf-from-profile")
    most = MAX_STREAKS_PER_FRAME if search.threshold <= 0 else min(CANDIDATES_PER_FRAME, MAX_STREAKS_PER_FRAME)
    found = candidates(
        ready.padded, header.shape, network, ready.sky, psf, most, mask=ready.mask, method=search.method, done=done
    )
    dropped.update(found.dropped)
    expected = search.expected_streaks_per_frame or header.survey.expected_streaks_per_frame
    score = network.probability(judged(found, ready.padded, header.shape, network), expected)
    score, spike = spikes_doubted(score, found.fits.ends, ready)
    score, aligned = gridlines_doubted(score, found.fits.ends, ready.mask)
    done("score")
    moves = moved(found, header, others)
    if others:
        score = with_others(score, moves)
        done("other exposures")
    wide = found.psf.fwhm_px * np.exp(np.clip(np.nan_to_num(found.fits.width[:, 0]), 0.0, 2.0))
    once = first_rows(found.fits.ends, score, wide)
    rows, reasons = chosen(score, once, search)
    published = len(rows)
    rows = np.concatenate([rows, beneath(score, once, published, search)])
    dropped.update(reasons)
    if reasons["many-streaks"]:
        flags.append("many-streaks")
    found = found.take(rows)
    streaks = tabulated(found, score[rows], header, ready.mask, found.psf)
    streaks["flags"][moves[rows] < STANDS_BELOW] |= np.uint32(StreakFlag.STATIC)
    streaks["flags"][spike[rows]] |= np.uint32(StreakFlag.SPIKE)
    streaks["flags"][aligned[rows]] |= np.uint32(StreakFlag.ALIGNED)
    streaks = on_the_sky(streaks, found.fits.covariance[:, :4, :4], header)
    done("astrometry")
    return Findings(
        header=header,
        streaks=streaks[:published],
        background_e=float(np.median(ready.sky.background)),
        noise_e=float(np.median(ready.sky.noise)),
        psf_fwhm_px=found.psf.fwhm_px,
        dropped={reason: count for reason, count in dropped.items() if count},
        seconds=done.seconds,
        flags=tuple(flags),
        candidates=streaks[published:],
    )


def spikes_doubted(
    score: NDArray[np.float64], ends: NDArray[np.float64], ready: Prepared
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores with those of likely diffraction spikes taken down, and which these are."""
    stars = bright_stars(ready.whitened, ready.mask)
    angles = spike_angles(ready.whitened, stars)
    pointing, along = points_at_star(ends, stars), lies_along(ends, angles)
    score = doubted(score, pointing, ends, len(stars) / ready.mask.size)
    return doubted_by_angle(score, along, angles), pointing | along


def gridlines_doubted(
    score: NDArray[np.float64], ends: NDArray[np.float64], mask: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores with those of likely lines of the detector taken down, and which these are."""
    first, last = at_border(np.nan_to_num(ends), mask)
    aligned = along_the_grid(ends, first | last)
    return grid_doubted(score, aligned, ends), aligned


def profile_fwhm_px(header: FrameHeader) -> float:
    """The PSF's width in pixels as the survey's profile has it, or a plain guess."""
    scale = header.pixel_scale_arcsec or header.survey.pixel_scale_arcsec
    if header.survey.psf_fwhm_arcsec and scale:
        return header.survey.psf_fwhm_arcsec / scale
    return DEFAULT_FWHM_PX


def propose(
    padded: NDArray[np.float32],
    shape: tuple[int, int],
    network: StreakNetwork,
    fwhm_px: float,
) -> Proposals:
    """Every window above the floor, of all scales, in frame pixels; the best ``MAX_WINDOWS_PER_FRAME``."""
    tiling = Tiling(network.window, network.step)
    tables = []
    for scale in SCALES:
        if scale > 1:
            smaller = binned(unpadded(padded, shape, tiling))
            shape = (smaller.shape[0], smaller.shape[1])
            if min(shape) < tiling.step:
                break
            padded = pad(smaller, tiling)
        tables += list(propose_at_scale(padded, tiling, network, fwhm_px, scale))
    found = concatenated(tables)
    if len(found) > MAX_WINDOWS_PER_FRAME:
        found = found.take(np.argpartition(-found.logit, MAX_WINDOWS_PER_FRAME)[:MAX_WINDOWS_PER_FRAME])
    return found


def propose_at_scale(
    padded: NDArray[np.float32],
    tiling: Tiling,
    network: StreakNetwork,
    fwhm_px: float,
    scale: int,
) -> Iterator[Proposals]:
    """The windows above the floor, strip by strip, of a frame binned ``scale`` x ``scale``."""
    for first_row, strip in strips(padded, tiling, STRIP_ROWS):
        output = network(strip, fwhm_px / scale)
        rows, cols = np.nonzero(output[..., 0] > FLOOR_LOGIT)
        ends = output[rows, cols, 1:].astype(np.float64)
        # Window pixels -> pixels of the binned frame -> pixels of the frame: a binned pixel's centre lies between.
        ends[:, [0, 2]] += (tiling.step * cols - tiling.margin)[:, None]
        ends[:, [1, 3]] += (tiling.step * (first_row + rows) - tiling.margin)[:, None]
        ends = ends * scale + 0.5 * (scale - 1)
        count = len(rows)
        yield Proposals(
            ends,
            output[rows, cols, 0].astype(np.float64),
            np.full(count, float(scale)),
            np.ones(count, np.int64),
        )


@dataclass(frozen=True, eq=False)
class Candidates:
    """Fitted candidates, the network's best first: proposals, fits, PSF, the sky's sigma (electrons), drops.

    ``filtered`` ``[n, 3]`` is the matched filter's word on each (``detector.evidence.heard``), zeros unless asked;
    ``beside`` ``[n, 2]`` how near bright stars are (``detector.spikes.beside_stars``).
    """

    proposals: Proposals
    fits: Fits
    psf: Psf
    noise_e: NDArray[np.float64]
    filtered: NDArray[np.float64]
    beside: NDArray[np.float64]
    dropped: Counter[str]

    def take(self, rows: NDArray[np.intp]) -> Candidates:
        """The same with these rows only."""
        return Candidates(
            self.proposals.take(rows),
            self.fits.take(rows),
            self.psf,
            self.noise_e[rows],
            self.filtered[rows],
            self.beside[rows],
            self.dropped,
        )

    def evidence(self) -> NDArray[np.float64]:
        """The evidence on each ``[n, len(NAMES)]`` (``detector.evidence``)."""
        return evidence(self.proposals, self.fits, self.psf, self.filtered, self.beside)


def candidates(
    padded: NDArray[np.float32],
    shape: tuple[int, int],
    network: StreakNetwork,
    sky: Sky,
    psf: Psf,
    most: int,
    *,
    mask: NDArray[np.uint8],
    method: Method = "network",
    done: Stopwatch | None = None,
) -> Candidates:
    """What is proposed in a whitened frame of ``shape`` (padded), merged and fitted: the ``most`` best."""
    done = done or Stopwatch()
    frame = unpadded(padded, shape, Tiling(network.window, network.step))
    filtered = filtered_frame(frame, psf)
    done("filter")
    tables, seen, matched = [], 0, None
    if method != "matched":
        proposals = propose(padded, shape, network, psf.fwhm_px)
        done("network")
        merged = merge(proposals, fwhm_px=psf.fwhm_px)
        tables.append(best(merged, most if method == "network" else most - most // 2))
        seen += len(proposals)
        done("merging")
    if method != "network":
        matched = matched_proposals(filtered, most=most)
        tables.append(best(unknown_to_network(matched.proposals, tables), most))
        seen += len(matched.proposals)
        done("matched")
    merged = concatenated(tables)
    kept = best(merged, most)
    noise_e = noise_at(sky, kept.ends, shape)
    margin = Tiling(network.window, network.step).margin
    fits = fit_lines(padded, margin, kept.ends, ENDS_UNCERTAINTY_PX * kept.scale, noise_e, psf)
    if psf.n_stars == 0:
        # Nobody measured the PSF: the brightest streaks say how wide it is.
        psf = rescaled(psf, fits)
        fits = fit_lines(padded, margin, kept.ends, ENDS_UNCERTAINTY_PX * kept.scale, noise_e, psf)
    done("fit")
    fits = settled(padded, margin, fits, noise_e, psf, filtered)
    done("ends")
    dropped = Counter({"same-streak": seen - len(merged), "too-doubtful": len(merged) - len(kept)})
    said = np.zeros((len(kept), len(FILTER_NAMES))) if matched is None else heard(fits.ends, matched)
    stars = bright_stars(frame, mask, WINGED_SIGMA)
    return Candidates(kept, fits, psf, noise_e, said, beside_stars(fits.ends, stars), dropped)


def best(proposals: Proposals, most: int) -> Proposals:
    """The first ``most`` rows."""
    return proposals.take(np.arange(min(len(proposals), most)))


def unknown_to_network(proposals: Proposals, known: Sequence[Proposals]) -> Proposals:
    """What the matched filter found and no table of ``known`` has: as the network would have said it, below its floor.

    Nothing is joined: the filter's lines are whole. Two rows are one where all four coordinates of their ends agree
    to ``SAME_ENDS_PX``; what is one streak only once it is fitted goes by its fit (``first_rows``).
    """
    new = np.ones(len(proposals), np.bool_)
    for table in known:
        if len(table) and len(proposals):
            tree = cKDTree(table.ends)
            for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
                new &= tree.query(proposals.ends[:, order], p=np.inf)[0] > SAME_ENDS_PX
    fresh = proposals.take(new)
    behind = np.arange(len(fresh)) / max(len(fresh), 1)
    return replace(fresh, logit=FLOOR_LOGIT - 1e-3 * behind)


def judged(
    found: Candidates,
    padded: NDArray[np.float32],
    shape: tuple[int, int],
    network: StreakNetwork,
) -> NDArray[np.float64]:
    """The second stage's logit of each candidate, by its cut-out and its fit."""
    frame = shown(unpadded(padded, shape, Tiling(network.window, network.step)), found.psf)
    known = found.evidence()
    logit = np.zeros(len(known))
    for first in range(0, len(known), STAMPS_AT_ONCE):
        part = slice(first, first + STAMPS_AT_ONCE)
        stamps = cut_out(frame, found.fits.ends[part], found.fits.flux[part], found.psf)
        logit[part] = network.judge(stamps, known[part])
    return logit


def rescaled(psf: Psf, fits: Fits) -> Psf:
    """A guessed PSF made as wide as the fits of the brightest candidates say, by their median; at most twofold."""
    clear = np.flatnonzero(fits.good & (fits.snr > CLEAR_SNR))[:CLEAR_CANDIDATES]
    if len(clear) == 0:
        return psf
    return Psf.gaussian(psf.fwhm_px * float(np.exp(np.clip(np.median(fits.width[clear, 0]), -0.7, 0.7))))


def chosen(
    score: NDArray[np.float64],
    once: NDArray[np.intp],
    search: Search,
) -> tuple[NDArray[np.intp], Counter[str]]:
    """Rows to publish, best first, of the rows ``once`` that are one a streak; and what is dropped by reason."""
    ranked = once[np.argsort(-score[once], kind="stable")]
    above = ranked[score[ranked] >= search.threshold]
    kept = above if search.threshold <= 0 else above[: search.many_streaks]
    return kept, Counter(
        {
            "same-fit": len(score) - len(once),
            "below-threshold": len(ranked) - len(above),
            "many-streaks": len(above) - len(kept),
        },
    )


def beneath(score: NDArray[np.float64], once: NDArray[np.intp], published: int, search: Search) -> NDArray[np.intp]:
    """Rows for the linker, best first: those behind the ``published`` best that have its score."""
    if search.link_threshold is None:
        return once[:0]
    ranked = once[np.argsort(-score[once], kind="stable")][published:MAX_STREAKS_PER_FRAME]
    return ranked[score[ranked] >= search.link_threshold]


def noise_at(sky: Sky, ends: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """The sky's sigma (electrons) of the box in which each mid-point lies."""
    rows, cols = sky.noise.shape
    y = 0.5 * (ends[:, 1] + ends[:, 3]) * rows / shape[0]
    x = 0.5 * (ends[:, 0] + ends[:, 2]) * cols / shape[1]
    values: NDArray[np.float64] = sky.noise[
        np.clip(y.astype(np.int64), 0, rows - 1),
        np.clip(x.astype(np.int64), 0, cols - 1),
    ].astype(np.float64)
    return values


def tabulated(
    found: Candidates,
    score: NDArray[np.float64],
    header: FrameHeader,
    mask: NDArray[np.uint8],
    psf: Psf,
) -> NDArray[np.void]:
    """The table of streaks without the sky: pixels, flux, shape, flags."""
    fits, proposals, noise_e = found.fits, found.proposals, found.noise_e
    rows = empty(len(score))
    swap = fits.ends[:, 0] > fits.ends[:, 2]
    ends = np.where(swap[:, None], fits.ends[:, [2, 3, 0, 1]], fits.ends)
    errors = np.sqrt(np.einsum("nii->ni", fits.covariance))
    errors = np.where(swap[:, None], errors[:, [2, 3, 0, 1, 4]], errors)
    for k, name in enumerate(("x0", "y0", "x1", "y1")):
        rows[name] = ends[:, k]
        rows[f"{name}_err"] = errors[:, k]
    dx, dy = ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]
    length = np.hypot(dx, dy)
    rows["score"] = score
    rows["snr"] = fits.snr
    rows["flux"] = fits.flux * noise_e
    rows["flux_err"] = errors[:, 4] * noise_e
    if header.zero_point is not None and header.exposure_s:
        with np.errstate(invalid="ignore", divide="ignore"):
            rows["mag"] = header.zero_point - 2.5 * np.log10(rows["flux"] / header.exposure_s)
            rows["mag_err"] = 2.5 / np.log(10.0) * rows["flux_err"] / rows["flux"]
    rows["chi2"] = fits.chi2
    rows["length_px"] = length
    rows["angle_deg"] = np.degrees(np.arctan2(dy, dx)) % 180.0
    rows["length_px_err"], across = length_and_turn_errors(fits)
    rows["angle_deg_err"] = np.degrees(across)
    rows["flags"] = flagged(ends, length, fits, proposals, mask, psf)
    return rows


def length_and_turn_errors(fits: Fits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One sigma of the length (px) and of the direction (radians), from the ends' covariance."""
    along = fits.ends[:, 2:] - fits.ends[:, :2]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)
    unit = along / length[:, None]
    for_length = np.concatenate([-unit, unit], axis=1)
    normal = np.stack([-unit[:, 1], unit[:, 0]], axis=1) / length[:, None]
    for_turn = np.concatenate([-normal, normal], axis=1)
    ends = fits.covariance[:, :4, :4]
    return (
        np.sqrt(np.einsum("ni,nij,nj->n", for_length, ends, for_length)),
        np.sqrt(np.einsum("ni,nij,nj->n", for_turn, ends, for_turn)),
    )


def flagged(
    ends: NDArray[np.float64],
    length: NDArray[np.float64],
    fits: Fits,
    proposals: Proposals,
    mask: NDArray[np.uint8],
    psf: Psf,
) -> NDArray[np.uint32]:
    """The flags of each row."""
    first, last = at_border(ends, mask)
    flags = np.zeros(len(ends), np.uint32)
    for condition, flag in (
        (first | last, StreakFlag.EDGE),
        (first & last, StreakFlag.CROSSES),
        (length > 96.0 * proposals.scale, StreakFlag.JOINED),
        (fits.masked > 0.25, StreakFlag.MASKED),
        (~fits.good, StreakFlag.NO_FIT),
        (length < psf.fwhm_px, StreakFlag.SHORT),
        (np.full(len(ends), psf.n_stars == 0), StreakFlag.PSF_FROM_PROFILE),
    ):
        flags[condition] |= np.uint32(flag)
    return flags


def at_border(ends: NDArray[np.float64], mask: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each line ``[n, 4]`` may go on beyond its first end, and beyond its last, where nothing is seen."""
    along = ends[:, 2:] - ends[:, :2]
    unit = along / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
    return unusable(ends[:, :2] - EDGE_PX * unit, mask), unusable(ends[:, 2:] + EDGE_PX * unit, mask)


def unusable(xy: NDArray[np.float64], mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether positions ``[n, 2]`` are outside the frame or masked."""
    height, width = mask.shape
    x, y = np.round(xy[:, 0]).astype(np.int64), np.round(xy[:, 1]).astype(np.int64)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    masked = mask[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] != 0
    return ~inside | masked
