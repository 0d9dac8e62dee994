"""How well stamps of lenses and mergers are told from all others: ROC, purity of the best, what a probability is worth.

A rate of false ones is given only where there are negatives enough to see it (ten at that rate); else it is NaN, never
a number that stands for nothing. The stamps come from seeds that no training takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.calibration import calibration_error, reliability
from models.evaluate.floor import area

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FALSE_RATES = (1e-2, 1e-3, 1e-4)
# Negatives above the cut that are enough to say where a rate lies.
ENOUGH_FALSE = 10
# What is best of a sky of so many galaxies, in rows of the page.
SKY_GALAXIES = 100_000
TOP = (10, 30, 100, 300, 1000)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What one judge said of stamps: ``score`` ``[n]``, any number that grows; ``probability`` ``[n]`` where it is one.

    ``threshold`` is the probability from which on it says yes.
    """

    score: NDArray[np.float64]
    probability: NDArray[np.float64] | None = None
    threshold: float = 0.5


@dataclass(frozen=True, eq=False)
class ClassReport:
    """The figures of one judge; ``found`` at each of ``FALSE_RATES``, NaN where negatives are too few.

    ``accuracy`` and ``precision`` are at a probability of one half, for the shares in the sample; the shares
    ``found_at_threshold`` and ``false_at_threshold`` at the judge's own. ``reliability`` ``[10, 3]`` as in
    ``models.calibration``.
    """

    positives: int
    negatives: int
    area: float
    found: tuple[float, ...]
    accuracy: float
    precision: float
    found_at_threshold: float
    false_at_threshold: float
    calibration_error: float
    reliability: NDArray[np.float64] | None


def judged(judgement: Judgement, true: NDArray[np.bool_]) -> ClassReport:
    """The figures of a judge on stamps of which ``true`` ``[n]`` says what they are.

    Errors: ``ValueError`` where one of the classes is missing.
    """
    probability = judgement.probability
    said = None if probability is None else probability >= 0.5
    above = None if probability is None else probability >= judgement.threshold
    return ClassReport(
        positives=int(true.sum()),
        negatives=int((~true).sum()),
        area=area(judgement.score, true),
        found=tuple(found_at(judgement.score, true, rate) for rate in FALSE_RATES),
        accuracy=np.nan if said is None else float((said == true).mean()),
        precision=np.nan if said is None else _share(true[said]),
        found_at_threshold=np.nan if above is None else _share(above[true]),
        false_at_threshold=np.nan if above is None else _share(above[~true]),
        calibration_error=np.nan if probability is None else calibration_error(probability, true),
        reliability=None if probability is None else reliability(probability, true),
    )


def found_at(score: NDArray[np.float64], true: NDArray[np.bool_], rate: float) -> float:
    """The share of true ones above the score that only ``rate`` of the others exceed; NaN with too few others."""
    false = np.sort(score[~true])[::-1]
    if rate * len(false) < ENOUGH_FALSE:
        return float("nan")
    return float((score[true] > false[int(rate * len(false))]).mean())


def roc(score: NDArray[np.float64], true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give ``[n, 2]``: the share of false ones and of true ones above each score, from the highest down."""
    order = np.argsort(-score, kind="stable")
    return np.column_stack([np.cumsum(~true[order]) / (~true).sum(), np.cumsum(true[order]) / true.sum()])


def purity_of_top(
    score: NDArray[np.float64], true: NDArray[np.bool_], count: int, *, rate: float, galaxies: int = SKY_GALAXIES
) -> float:
    """The share of true ones among the ``count`` best of so many ``galaxies``, of which the share ``rate`` is true.

    A stamp of the sample stands for as many galaxies of its class as the sky has for each that was drawn; so the more
    stamps, the fewer of the best can be judged. NaN where ``count`` is less than what ``ENOUGH_FALSE`` false stamps
    stand for, and where it is all of the sky.
    """
    false_worth = galaxies * (1.0 - rate) / max((~true).sum(), 1)
    true_worth = galaxies * rate / max(true.sum(), 1)
    order = np.argsort(-score, kind="stable")
    taken = np.cumsum(np.where(true[order], true_worth, false_worth))
    if count < ENOUGH_FALSE * false_worth or count >= galaxies:
        return float("nan")
    last = int(np.searchsorted(taken, count))
    found = float(true[order][:last].sum()) * true_worth
    # Of the stamp at the edge only that part of what it stands for is among the best which there is room for.
    if true[order][last]:
        found += count - (float(taken[last]) - true_worth)
    return found / count


def top_markdown(judgements: Mapping[str, Judgement], true: NDArray[np.bool_], *, rate: float) -> str:
    """The purity of the best of a sky of ``SKY_GALAXIES``, one row a judge."""
    lines = [
        f"Purity of the best of {SKY_GALAXIES:,} galaxies of which {SKY_GALAXIES * rate:,.0f} are true.",
        f"A dash: fewer than {ENOUGH_FALSE} false stamps would stand for them all; draw more.",
        "",
        f"| judge | {' | '.join(f'best {count}' for count in TOP)} |",
        "|---" * (1 + len(TOP)) + "|",
    ]
    for name, one in judgements.items():
        purities = (_number(purity_of_top(one.score, true, count, rate=rate)) for count in TOP)
        lines.append(f"| {name} | {' | '.join(purities)} |")
    return "\n".join(lines)


def class_markdown(title: str, reports: Mapping[str, ClassReport], remarks: tuple[str, ...] = ()) -> str:
    """The page of figures: one row a judge."""
    first = next(iter(reports.values()))
    rates = " | ".join(f"found at {rate:g}" for rate in FALSE_RATES)
    lines = [
        f"# {title}",
        "",
        f"{first.positives} true and {first.negatives} false stamps. A dash: too few false ones to see that rate.",
        "",
        f"| judge | area | {rates} | accuracy | precision | at its threshold: found, false | calibration error |",
        "|---" * (7 + len(FALSE_RATES)) + "|",
    ]
    for name, report in reports.items():
        found = " | ".join(_number(value) for value in report.found)
        own = f"{_number(report.found_at_threshold)}, {_number(report.false_at_threshold, 4)}"
        lines.append(
            f"| {name} | {_number(report.area)} | {found} | {_number(report.accuracy)} | {_number(report.precision)} | "
            f"{own} | {_number(report.calibration_error)} |"
        )
    told = [report for report in reports.values() if report.reliability is not None]
    if told and told[0].reliability is not None:
        lines += [
            "",
            f"What a probability of {next(iter(reports))} is worth:",
            "",
            "| said | true | stamps |",
            "|---|---|---|",
        ]
        lines += [f"| {_number(a)} | {_number(b)} | {int(n)} |" for a, b, n in told[0].reliability if n]
    return "\n".join([*lines, *(f"\n{remark}" for remark in remarks)]) + "\n"


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _number(value: float, digits: int = 3) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
