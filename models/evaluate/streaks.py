"""The figures of a streak detector against truth, all from one matching: the report of ``evaluate streaks``.

Anybody's detections can be judged, ours are not treated otherwise. Figures of few frames are noisy: the report says how
many there were, and m50 carries its error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from models.evaluate.accuracy import Pull, Reliability, Residuals, pulls, reliability, residuals
from models.evaluate.completeness import CCD_PX, LENGTH_CLASSES, Curve, Grid, HalfMagnitude, grid, score_at
from models.evaluate.matching import FALSE, TRUE, Matches, end_distances, ends_of, strict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.evaluate.sample import Sample

LENGTH_EDGES = (0.0, 5.0, 15.0, 40.0, 80.0, 130.0)
RATE_EDGES = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0)
SHORTEST_PX = LENGTH_CLASSES["all"][0]
AT_FALSE_PER_FRAME = 10.0  # the second price, beside the threshold, for which completeness is tabled


@dataclass(frozen=True)
class Judging:
    """How to judge: the published ``threshold``, the density that scores are calibrated for, and the bootstrap.

    Prices are in false ones per ``unit``: ``frame``, or ``ccd`` for the area of a Euclid CCD, whatever a frame's size.
    """

    threshold: float
    expected_streaks_per_frame: float
    resamples: int
    seed: int
    unit: str = "frame"


@dataclass(frozen=True)
class AtThreshold:
    """What an operator sees at the threshold. ``density`` is truths per frame that count and are 5 px or longer.

    ``purity`` holds at that density, ``purity_expected`` at the survey's; None where nothing passes. Empty frames are
    those without any truth.
    """

    threshold: float
    density: float
    found: int
    truths: int
    false_per_frame: float
    purity: float | None
    expected_streaks_per_frame: float
    purity_expected: float | None
    empty_frames: int
    false_per_empty_frame: float | None
    clean_fraction: float | None


@dataclass(frozen=True)
class AtPrice:
    """What is found at ``false_per_frame``: medians over both ends and over mid-points, and the strict share."""

    false_per_frame: float
    found: int
    end_px: float | None
    mid_px: float | None
    strict_fraction: float | None


@dataclass(frozen=True, eq=False)
class StreakReport:
    """All that is said of one detector on one sample.

    ``strict_half_magnitudes`` ask besides for both ends. ``seconds`` is the mean over frames by stage, where known.
    ``pixels`` is the mean size of a frame, None where nobody said.
    """

    n_frames: int
    pixels: float | None
    unit: str
    truths: int
    truths_that_count: int
    detections: int
    duplicates: int
    left_out: int
    half_magnitudes: list[HalfMagnitude]
    strict_half_magnitudes: list[HalfMagnitude]
    at_price: AtPrice
    at_threshold: AtThreshold
    by_length: Mapping[str, Grid]
    by_rate: Mapping[str, Grid]
    residuals: list[Residuals]
    pulls: list[Pull]
    reliability: list[Reliability]
    seconds: Mapping[str, float] = field(default_factory=dict)


def judge(sample: Sample, judging: Judging) -> StreakReport:
    """Give all figures of a sample."""
    matches = sample.match()
    line = curve(sample, matches, judging.unit)
    halves = line.half_magnitudes(resamples=judging.resamples, seed=judging.seed)
    both_ends = curve(sample, _strictly(sample, matches), judging.unit)
    table = at_threshold(sample, matches, judging)
    scores = {"at the threshold": np.nextafter(judging.threshold, -1), "at 10 false per frame": _score(halves)}
    measured = sample.truths["counts"] & (matches.claimed >= 0)
    measured &= sample.detections["score"][matches.claimed] >= judging.threshold if len(sample.detections) else False
    pairs = sample.truths[measured], sample.detections[matches.claimed[measured]]
    settled = _settled(sample, matches)
    return StreakReport(
        n_frames=sample.n_frames,
        pixels=sample.pixels if np.isfinite(sample.pixels) else None,
        unit=judging.unit,
        truths=len(sample.truths),
        truths_that_count=len(line.mag),
        detections=len(sample.detections),
        duplicates=len(sample.detections) - int((matches.verdict == FALSE).sum()) - int((matches.claimed >= 0).sum()),
        left_out=sample.left_out,
        half_magnitudes=halves,
        strict_half_magnitudes=both_ends.half_magnitudes(resamples=judging.resamples, seed=judging.seed),
        at_price=_at_price(sample, matches, line),
        at_threshold=table,
        by_length={name: _grid(sample, matches, "length_px", LENGTH_EDGES, above) for name, above in scores.items()},
        by_rate={name: _grid(sample, matches, "rate_arcsec_h", RATE_EDGES, above) for name, above in scores.items()},
        residuals=residuals(*pairs, seed=judging.seed),
        pulls=pulls(*pairs),
        reliability=reliability(
            sample.detections["score"][settled],
            matches.verdict[settled] == TRUE,
            density=table.density,
            expected=judging.expected_streaks_per_frame,
        ),
    )


def curve(sample: Sample, matches: Matches, unit: str = "frame") -> Curve:
    """What m50 needs: the truths that count and are 5 px or longer with the scores that found them; the false ones.

    Raises ``ValueError`` where the price is per CCD and nobody said how large the frames are.
    """
    known = bool(np.isfinite(sample.pixels))
    ccds = sample.pixels / CCD_PX if known else 1.0
    if unit == "ccd" and not known:
        raise ValueError("false ones per CCD: the list of frames has to say their height and width")
    members = sample.truths["counts"] & (sample.truths["length_px"] >= SHORTEST_PX)
    truths = sample.truths[members]
    false = sample.detections[matches.verdict == FALSE]
    false = false[np.argsort(-false["score"], kind="stable")]
    return Curve(
        mag=truths["mag"],
        length_px=truths["length_px"],
        snr_limit=truths["snr_limit"],
        score=_truth_scores(sample, matches)[members],
        frame=truths["frame"],
        false_score=false["score"],
        false_frame=false["frame"],
        n_frames=sample.n_frames,
        units=sample.n_frames * (ccds if unit == "ccd" else 1.0),
        ccds_per_unit=1.0 if unit == "ccd" else ccds,
    )


def _strictly(sample: Sample, matches: Matches) -> Matches:
    """The same matches, of which only those with both ends right find their truth; no other verdict changes."""
    claimed = matches.claimed.copy()
    found = np.flatnonzero(claimed >= 0)
    agree = strict(ends_of(sample.truths[found]), ends_of(sample.detections[claimed[found]]))
    claimed[found[~agree]] = -1
    return Matches(claimed, matches.verdict)


def _at_price(sample: Sample, matches: Matches, line: Curve) -> AtPrice:
    """Errors of what is found at the second price."""
    above = score_at(line.false_score, np.ones(len(line.false_score)), AT_FALSE_PER_FRAME * line.units)
    found = sample.truths["counts"] & (sample.truths["length_px"] >= SHORTEST_PX)
    found &= _truth_scores(sample, matches) > above
    if not found.any():
        return AtPrice(AT_FALSE_PER_FRAME, 0, None, None, None)
    truth, detected = ends_of(sample.truths[found]), ends_of(sample.detections[matches.claimed[found]])
    apart = detected.mean(axis=1) - truth.mean(axis=1)
    return AtPrice(
        false_per_frame=AT_FALSE_PER_FRAME,
        found=int(found.sum()),
        end_px=float(np.median(end_distances(truth, detected))),
        mid_px=float(np.median(np.hypot(apart[:, 0], apart[:, 1]))),
        strict_fraction=float(strict(truth, detected).mean()),
    )


def at_threshold(sample: Sample, matches: Matches, judging: Judging) -> AtThreshold:
    """Count what passes the threshold."""
    members = sample.truths["counts"] & (sample.truths["length_px"] >= SHORTEST_PX)
    found = int((_truth_scores(sample, matches)[members] >= judging.threshold).sum())
    false = (matches.verdict == FALSE) & (sample.detections["score"] >= judging.threshold)
    per_frame = np.bincount(sample.detections["frame"][false], minlength=sample.n_frames)
    is_empty = np.bincount(sample.truths["frame"], minlength=sample.n_frames) == 0
    truths, n_false = int(members.sum()), int(false.sum())
    density = truths / sample.n_frames
    expected = judging.expected_streaks_per_frame * found / truths if truths else 0.0
    passing = expected + n_false / sample.n_frames
    return AtThreshold(
        threshold=judging.threshold,
        density=density,
        found=found,
        truths=truths,
        false_per_frame=n_false / sample.n_frames,
        purity=found / (found + n_false) if found + n_false else None,
        expected_streaks_per_frame=judging.expected_streaks_per_frame,
        purity_expected=expected / passing if passing > 0 else None,
        empty_frames=int(is_empty.sum()),
        false_per_empty_frame=float(per_frame[is_empty].mean()) if is_empty.any() else None,
        clean_fraction=float((per_frame[is_empty] == 0).mean()) if is_empty.any() else None,
    )


def _truth_scores(sample: Sample, matches: Matches) -> NDArray[np.float64]:
    """The score that found each truth, -inf where none did."""
    scores = np.append(sample.detections["score"], -np.inf)  # index -1 is "not found"
    found: NDArray[np.float64] = scores[matches.claimed]
    return found


def _settled(sample: Sample, matches: Matches) -> NDArray[np.bool_]:
    """Detections that are true by a truth of the class, or false: for those alone a probability can be judged."""
    settled = matches.verdict != 1
    short = sample.truths["length_px"] < SHORTEST_PX
    settled[matches.claimed[short & (matches.claimed >= 0)]] = False
    return settled


def _score(halves: list[HalfMagnitude]) -> float:
    score = next(half.score for half in halves if half.false_per_frame == AT_FALSE_PER_FRAME)
    return -np.inf if score is None else score


def _grid(sample: Sample, matches: Matches, second: str, edges: tuple[float, ...], above: float) -> Grid:
    members = sample.truths["counts"]
    truths = sample.truths[members]
    found = _truth_scores(sample, matches)[members] > above
    return grid(truths["mag"], truths[second], np.array(edges), found)
