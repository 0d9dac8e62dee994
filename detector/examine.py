"""The whole science of one frame on one screen: Frame + networks (callables) -> Findings.

defects -> sky -> PSF -> whitened frame -> proposals at three scales -> merged -> fitted -> scored -> on the sky. Each
step is a function of its own module; this one only says in which order. It fails on nothing that a frame can hold: what
cannot be read never gets here (``BadFrame``), and what cannot be measured is null and flagged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from detector.astrometry import on_the_sky
from detector.candidates import find_candidates
from detector.elsewhere import looked_up, same_sky, with_others
from detector.fieldevidence import field_evidence
from detector.gridlines import along_the_grid, grid_doubted
from detector.preparation import prepare
from detector.repeats import first_rows
from detector.spikes import bright_stars, doubted, doubted_by_angle, lies_along, points_at_star, spike_angles
from detector.stopwatch import Stopwatch
from detector.streakcandidates import candidates, judged
from detector.streaks import MAX_STREAKS_PER_FRAME, Findings, StreakFlag, empty
from detector.streaktable import at_border, tabulated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from detector.candidates import ClassNetworks
    from detector.frame import Frame
    from detector.preparation import Prepared
    from detector.psf import Psf
    from detector.streakcandidates import Method
    from detector.streaknetwork import FieldJudge, StreakNetwork

# Candidates that are fitted where a threshold will leave far fewer.
CANDIDATES_PER_FRAME = 3_000
# The logarithm of odds below which a row is flagged `static`: 1 in 50.
STANDS_BELOW = -4.0


@dataclass(frozen=True)
class Search:
    """How deep to look.

    ``threshold`` is the lowest score published (0.2: at most one false streak in a simulated empty frame,
    docs/results.md); 0 gives every proposal, at most 20,000. Above ``many_streaks`` a frame is flagged and only so
    many, the best, are given (unless the threshold is 0). ``link_threshold`` asks for candidates besides: what is not
    published and has at least this score. ``expected_streaks_per_frame``: None takes the survey's. Without ``streaks``
    none are looked for.
    """

    method: Method = "both"
    threshold: float = 0.2
    many_streaks: int = 500
    expected_streaks_per_frame: float | None = None
    link_threshold: float | None = None
    streaks: bool = True


def examine(
    frame: Frame,
    network: StreakNetwork,
    search: Search,
    classes: ClassNetworks | None = None,
    *,
    others: Sequence[Prepared] = (),
    judge: FieldJudge | None = None,
) -> Findings:
    """Give what one frame shows; streaks best first, lenses and mergers where ``classes`` has their networks.

    ``others`` and ``judge`` as in ``examine_prepared``.
    """
    return examine_prepared(prepare(frame, network), network, search, classes, others=others, judge=judge)


def examine_prepared(
    ready: Prepared,
    network: StreakNetwork,
    search: Search,
    classes: ClassNetworks | None = None,
    *,
    others: Sequence[Prepared] = (),
    judge: FieldJudge | None = None,
) -> Findings:
    """Give what a frame shows that was prepared before.

    ``others`` are exposures of the same field, which tell what stands still; ``judge`` says what they mean, and without
    it a ratio of likelihoods does.
    """
    done = Stopwatch(ready.seconds)
    of_sky = [other for other in others if same_sky(ready, other)]
    found = search_frame(ready, network, search, others=of_sky, judge=judge, done=done)
    return with_classes(found, ready, classes, done)


def search_frame(
    ready: Prepared,
    network: StreakNetwork,
    search: Search,
    *,
    others: Sequence[Prepared] = (),
    judge: FieldJudge | None = None,
    done: Stopwatch | None = None,
) -> Findings:
    """Give what a prepared frame shows; ``others`` are exposures of the same field that tell what stands still."""
    done = done or Stopwatch()
    dropped: Counter[str] = Counter()
    flags = list(ready.header.flags)
    header, psf = ready.header, ready.psf
    if psf.n_stars == 0:
        flags.append("psf-from-profile")
    if not search.streaks:
        return described(ready, psf, done.seconds, tuple(flags))
    most = MAX_STREAKS_PER_FRAME if search.threshold <= 0 else min(CANDIDATES_PER_FRAME, MAX_STREAKS_PER_FRAME)
    found = candidates(
        ready.padded, header.shape, network, ready.sky, psf, most, mask=ready.mask, method=search.method, done=done
    )
    dropped.update(found.dropped)
    expected = search.expected_streaks_per_frame or header.survey.expected_streaks_per_frame
    logit = judged(found, ready.padded, header.shape, network)
    score = network.probability(logit, expected)
    done("score")
    elsewhere = looked_up(found, header, others)
    moves = elsewhere.moves()
    if others:
        if judge is None:
            score = with_others(score, moves)
        else:
            together = judge(field_evidence(logit, found, elsewhere), expected)
            score = np.where(elsewhere.seen > 0, together, score)
        done("other exposures")
    score, spike = spikes_doubted(score, found.fits.ends, ready)
    score, aligned = gridlines_doubted(score, found.fits.ends, ready.mask)
    done("doubts")
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
    return replace(
        described(ready, found.psf, done.seconds, tuple(flags)),
        streaks=streaks[:published],
        dropped={reason: count for reason, count in dropped.items() if count},
        candidates=streaks[published:],
    )


def described(ready: Prepared, psf: Psf, seconds: dict[str, float], flags: tuple[str, ...]) -> Findings:
    """Findings without a streak: what is known of a frame before anything is looked for."""
    return Findings(
        header=ready.header,
        streaks=empty(0),
        background_e=float(np.median(ready.sky.background)),
        noise_e=float(np.median(ready.sky.noise)),
        psf_fwhm_px=psf.fwhm_px,
        dropped={},
        seconds=seconds,
        flags=flags,
    )


def with_classes(findings: Findings, ready: Prepared, classes: ClassNetworks | None, done: Stopwatch) -> Findings:
    """The findings with the lenses and mergers of the same frame."""
    if classes is None:
        return findings
    found = find_candidates(ready.whitened, ready.header, classes, done)
    return replace(
        findings,
        lenses=found.lenses,
        mergers=found.mergers,
        models=classes.models,
        dropped={**findings.dropped, **found.dropped},
        seconds=done.seconds,
        flags=(*findings.flags, *found.flags),
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
