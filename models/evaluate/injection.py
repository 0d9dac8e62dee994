"""Streaks of known magnitude in somebody's own frames: how deep the search goes where nobody simulated the sky.

Simulations flatter whoever made them. Here sky, stars, cosmic rays, defects and PSF are the frame's own, and only the
streaks are drawn: a line of even brightness under the PSF that the frame's stars have (a sum of Gaussians), with the
Poisson noise of its light. Each round draws few, so that they stay as rare as the frame can bear.

What the frame shows without them is its own: those candidates are the false ones (real objects among them, for nobody
knows all). A streak that falls on one of them is found only by a detection that outranks it.

Magnitudes are AB where every frame has a zero point and an exposure time, else ``INSTRUMENTAL_ZERO_POINT`` - 2.5 log10
of the electrons in the streak, which compares nothing but streaks of one frame. The SNR at which half are found, beside
that of the noise limit, compares frames of any camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr

from detector.defects import find_defects
from detector.preparation import profile_fwhm_px
from detector.psfmeasurement import measure_psf
from detector.sky import measure_sky, noise_at
from models.evaluate.completeness import CCD_PX, half_magnitude, noise_limit_snr, score_at
from models.evaluate.matching import FALSE, accepted_pairs, ends_of, inside
from models.evaluate.report import figure, table
from models.evaluate.streaks import SHORTEST_PX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from detector.frame import Frame
    from detector.psf import Psf
    from detector.sky import Sky
    from models.evaluate.sample import Sample

INSTRUMENTAL_ZERO_POINT = 25.0
# From streaks that nothing can find to such that nothing should miss; lengths of the classes of the report.
SNR_RANGE = (3.0, 60.0)
LENGTH_RANGE_PX = (5.0, 130.0)
LONGEST_OF_FRAME = 0.3  # of its shorter side
FEWEST = 8  # streaks a round in a small frame
APART_PX = 20.0  # between the circles about any two streaks of one round
MASKED_SHARE = 0.25  # a streak of which more is masked cannot be seen by anybody
TRIES = 200  # places that are drawn for each streak before it is given up
REACH_SIGMAS = 6.0
PRICES = (1.0, 10.0)  # false ones per frame of the table of depths

INJECTED = np.dtype([*[(name, "f8") for name in ("x0", "y0", "x1", "y1", "flux_e", "length_px", "snr_limit")]])


@dataclass(frozen=True, eq=False)
class Canvas:
    """A frame with what must be known to draw on it."""

    frame: Frame
    mask: NDArray[np.uint8]
    sky: Sky
    psf: Psf


@dataclass(frozen=True)
class Depth:
    """How deep one frame is searched, at one price.

    ``snr_half`` is the matched-filter SNR at which half are found, ``snr_noise`` that above which noise alone gives as
    many false ones; ``behind_mag`` their ratio in magnitudes. None where half are never found.
    """

    frame: str
    extension: int | None
    psf_fwhm_px: float
    false_per_frame: float
    streaks: int
    found: int
    snr_half: float | None
    snr_noise: float
    behind_mag: float | None


def canvas(frame: Frame) -> Canvas:
    """Measure the sky and the PSF of ``frame`` as ``detector.examine`` does."""
    mask = find_defects(frame.pixels, frame.mask, saturation_e=frame.header.saturation_e)
    sky = measure_sky(frame.pixels, mask)
    psf = measure_psf(frame.pixels, mask, sky, fallback_fwhm_px=profile_fwhm_px(frame.header))
    return Canvas(frame, mask, sky, psf)


def draw_streaks(
    rng: np.random.Generator, on: Canvas, per_ccd: float, *, snr_range: tuple[float, float] = SNR_RANGE
) -> NDArray[np.void]:
    """Streaks for one round (``INJECTED``): as many as ``per_ccd`` in a Euclid CCD, at least ``FEWEST``, none touching.

    Fewer where the frame has no room; lengths and SNRs are spread evenly in their logarithms.
    """
    height, width = shape = on.frame.header.shape
    wanted = max(FEWEST, round(per_ccd * height * width / CCD_PX))
    longest = max(min(LENGTH_RANGE_PX[1], LONGEST_OF_FRAME * min(shape)), LENGTH_RANGE_PX[0])
    length = np.exp(rng.uniform(math.log(LENGTH_RANGE_PX[0]), math.log(longest), wanted))
    placed: list[NDArray[np.float64]] = []
    kept: list[int] = []
    for number, one in enumerate(length):
        for _ in range(TRIES):
            angle = rng.uniform(0.0, math.pi)
            half = 0.5 * one * np.array([math.cos(angle), math.sin(angle)])
            ends = rng.uniform((0.0, 0.0), (width, height)) + np.array([-half, half])
            if _has_room(ends, placed, on.mask):
                placed.append(ends)
                kept.append(number)
                break
    rows = np.zeros(len(kept), INJECTED)
    flat = np.array(placed).reshape(-1, 4)
    for k, name in enumerate(("x0", "y0", "x1", "y1")):
        rows[name] = flat[:, k]
    rows["length_px"] = length[kept]
    rows["snr_limit"] = np.exp(rng.uniform(math.log(snr_range[0]), math.log(snr_range[1]), len(kept)))
    power = np.array([(stamp**2).sum() for _, stamp in (unit_streak(one, on.psf) for one in placed)])
    rows["flux_e"] = rows["snr_limit"] * noise_at(on.sky, flat, shape) / np.sqrt(power)
    return rows


def _has_room(ends: NDArray[np.float64], placed: Sequence[NDArray[np.float64]], mask: NDArray[np.uint8]) -> bool:
    """Whether a streak counts in the frame, is mostly unmasked, and keeps away from those that were placed."""
    if not inside(ends[None], (mask.shape[0], mask.shape[1]))[0]:
        return False
    steps = np.linspace(0.0, 1.0, 2 * int(np.abs(ends[1] - ends[0]).max()) + 2)[:, None]
    x, y = (ends[0] + steps * (ends[1] - ends[0])).round().astype(int).T
    if (mask[y, x] != 0).mean() > MASKED_SHARE:
        return False
    middle, length = ends.mean(axis=0), math.dist(*ends)
    return all(math.dist(middle, o.mean(axis=0)) > 0.5 * (length + math.dist(*o)) + APART_PX for o in placed)


def unit_streak(ends: NDArray[np.float64], psf: Psf) -> tuple[tuple[int, int], NDArray[np.float64]]:
    """A streak of flux 1 between ``ends`` ``[2, 2]``: the place (y, x) of its first pixel, and its pixels.

    ``psf`` includes the pixel, so its value at a pixel's centre is the light in it. For one Gaussian the line's
    integral is (Phi((u + L/2) / s) - Phi((u - L/2) / s)) / L along, times a normal density across.
    """
    reach = math.ceil(REACH_SIGMAS * float(psf.sigmas.max()))
    low = np.floor(ends.min(axis=0)).astype(int) - reach
    high = np.ceil(ends.max(axis=0)).astype(int) + reach
    x, y = np.arange(low[0], high[0] + 1)[None, :], np.arange(low[1], high[1] + 1)[:, None]
    length = max(math.dist(*ends), 1e-6)
    unit, middle = (ends[1] - ends[0]) / length, ends.mean(axis=0)
    along = (x - middle[0]) * unit[0] + (y - middle[1]) * unit[1]
    across = (y - middle[1]) * unit[0] - (x - middle[0]) * unit[1]
    light = np.zeros(along.shape)
    for sigma, weight in zip(psf.sigmas, psf.weights, strict=True):
        line = (ndtr((along + 0.5 * length) / sigma) - ndtr((along - 0.5 * length) / sigma)) / length
        light += weight * line * np.exp(-0.5 * (across / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)
    return (int(low[1]), int(low[0])), light


def with_streaks(rng: np.random.Generator, on: Canvas, rows: NDArray[np.void]) -> Frame:
    """The frame with streaks (``INJECTED``) added, their light with its Poisson noise; masked pixels stay masked."""
    pixels = on.frame.pixels.copy()
    height, width = pixels.shape
    for row, ends in zip(rows, ends_of(rows), strict=True):
        (top, left), light = unit_streak(ends, on.psf)
        electrons = rng.poisson(row["flux_e"] * light)
        y, x = slice(max(top, 0), top + light.shape[0]), slice(max(left, 0), left + light.shape[1])
        inner = electrons[max(-top, 0) : height - top, max(-left, 0) : width - left]
        pixels[y, x] += inner.astype(np.float32)
    return replace(on.frame, pixels=pixels)


def outranking(truth: NDArray[np.void], detections: NDArray[np.void], baseline: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which ``detections`` may find a truth: not those on one where ``baseline`` has a candidate with as high a score.

    ``baseline`` is what the frame gave without the truths; all three have ends, the last two a score.
    """
    before = np.full(len(truth), -np.inf)
    pairs = accepted_pairs(ends_of(truth), ends_of(baseline))
    np.maximum.at(before, pairs[:, 0], baseline["score"][pairs[:, 1]])
    may = np.ones(len(detections), np.bool_)
    pairs = accepted_pairs(ends_of(truth), ends_of(detections))
    may[pairs[detections["score"][pairs[:, 1]] <= before[pairs[:, 0]], 1]] = False
    return may


def magnitudes(flux_e: NDArray[np.float64], zero_point: float | None, exposure_s: float | None) -> NDArray[np.float64]:
    """AB magnitudes of fluxes, instrumental ones without a zero point or an exposure time; NaN for no light."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if zero_point is None or not exposure_s:
            return np.asarray(INSTRUMENTAL_ZERO_POINT - 2.5 * np.log10(flux_e))
        return np.asarray(zero_point - 2.5 * np.log10(flux_e / exposure_s))


def depths(sample: Sample, frames: Mapping[str, NDArray[Any]], groups: Sequence[tuple[str, int]]) -> list[Depth]:
    """The depth of each frame by its own false ones, and of all together (``frame`` "all").

    ``frames`` is the list of the sample's frames, ``groups`` names for each of them the frame that it was made from.
    """
    matches = sample.match()
    names = list(dict.fromkeys(groups))
    group_of = np.array([names.index(group) for group in groups])
    scores = np.append(sample.detections["score"], -np.inf)[matches.claimed]
    members = sample.truths["counts"] & (sample.truths["length_px"] >= SHORTEST_PX)
    found = []
    for which in [*range(len(names)), None]:
        rounds = group_of == which if which is not None else np.ones(len(groups), np.bool_)
        of_truth = members & rounds[sample.truths["frame"]]
        false = (matches.verdict == FALSE) & rounds[sample.detections["frame"]]
        ranked = np.sort(sample.detections["score"][false])[::-1]
        ccds = float((frames["height"] * frames["width"])[rounds].mean() / CCD_PX)
        fwhm = float(np.median(frames["psf_fwhm_px"][rounds]))
        snr = sample.truths["snr_limit"][of_truth]
        name, extension = names[which] if which is not None else ("all", None)
        for price in PRICES:
            passed = scores[of_truth] > score_at(ranked, np.ones(len(ranked)), price * rounds.sum())
            faintest = half_magnitude(-2.5 * np.log10(snr), passed)
            half = None if faintest is None else 10 ** (-0.4 * faintest)
            limit = noise_limit_snr(price, ccds)
            behind = None if half is None else 2.5 * math.log10(half / limit)
            found.append(Depth(name, extension, fwhm, price, len(snr), int(passed.sum()), half, limit, behind))
    return found


def depths_markdown(rows: Sequence[Depth]) -> str:
    """The table of depths for people."""
    head = [
        "frame",
        "HDU",
        "PSF px",
        "streaks",
        "false per frame",
        "found",
        "SNR of half",
        "noise limit",
        "behind, mag",
    ]
    lines = [
        [
            row.frame,
            "" if row.extension is None else str(row.extension),
            figure(row.psf_fwhm_px),
            str(row.streaks),
            f"{row.false_per_frame:g}",
            str(row.found),
            figure(row.snr_half),
            figure(row.snr_noise),
            figure(row.behind_mag),
        ]
        for row in rows
    ]
    return "## Depth of each frame: the SNR at which half are found, beside the noise limit\n\n" + table(head, lines)
