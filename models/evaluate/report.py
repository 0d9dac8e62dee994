"""The figures as files: JSON for programs, Markdown for people.

Both say the same. A figure that does not exist (a class that never reaches one half, a PSF that nobody measured) is
null in one and a dash in the other, never a number that stands for nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from models.evaluate.accuracy import snr_range
from models.evaluate.completeness import CCD_PX, FALSE_PER_FRAME, LENGTH_CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from models.evaluate.completeness import Grid, HalfMagnitude
    from models.evaluate.streaks import StreakReport

_QUOTABLE_FRAMES = 8  # fewer give an m50 that is good to 0.1 mag at best


def as_json(facts: Mapping[str, Any]) -> str:
    """Facts (values, dataclasses, arrays, nested) as JSON text; what is not finite is null."""
    return json.dumps(_plain(facts), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def as_markdown(title: str, reports: Mapping[str, StreakReport]) -> str:
    """Tables for people: the first report in full, all of them side by side in the table of m50.

    ``reports`` are the detectors by name, run on the same frames.
    """
    first = next(iter(reports.values()))
    parts = [f"# {title}", _sample(first), "## Side by side, 5 px and longer", _side_by_side(reports)]
    parts += ["## m50 (magnitude at which half are found)", _halves(reports)]
    if first.seconds:
        parts += ["## Seconds a frame, by stage", _seconds(first)]
    parts += ["## At the threshold", _threshold(first)]
    for name, table in first.by_length.items():
        parts += [f"## Found of all, by length and magnitude, {name}", _grid("length px", table)]
    for name, table in first.by_rate.items():
        if table.total.any():
            parts += [f"## Found of all, by rate and magnitude, {name}", _grid("arcsec/h", table)]
    parts += ["## Residuals of what is found at the threshold, medians", _residuals(first)]
    parts += ["## Residual over claimed sigma", _pulls(first), "## What a score is worth", _reliability(first)]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def figure(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals, a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _sample(report: StreakReport) -> str:
    size = "" if report.pixels is None else f" of {report.pixels / 1e6:.2f} Mpx"
    lines = (
        f"{report.n_frames} frames{size}, {report.truths} truths ({report.truths_that_count} of 5 px and longer with "
        f"both ends 10 px inside), {report.detections} detections ({report.duplicates} duplicates)."
    )
    if report.left_out:
        lines += f" {report.left_out} truths and detections are of frames that were not examined, and left out."
    if report.n_frames < _QUOTABLE_FRAMES:
        lines += f" Fewer than {_QUOTABLE_FRAMES} frames: not to be quoted."
    return lines


def _unit(report: StreakReport) -> str:
    return "frame" if report.unit == "frame" else "CCD of 17 Mpx"


def _side_by_side(reports: Mapping[str, StreakReport]) -> str:
    """One row a detector: m50 at each price, and the errors of what is found at the second."""
    first = next(iter(reports.values()))
    unit = _unit(first)
    head = ["detector", *(f"m50 at {rate:g} false per {unit}" for rate in FALSE_PER_FRAME)]
    price = first.at_price.false_per_frame
    head += [f"behind noise at {price:g}, mag", f"found at {price:g}", "end px, median", "mid-point px", "strict share"]
    rows = []
    for detector, report in reports.items():
        halves = [half for half in report.half_magnitudes if half.lengths == "all"]
        behind = next(_behind(half) for half in halves if half.false_per_frame == price)
        at = report.at_price
        rows.append([detector, *(_half(half) for half in halves), figure(behind), str(at.found)])
        rows[-1] += [figure(value) for value in (at.end_px, at.mid_px, at.strict_fraction)]
    limits = [figure(half.noise_limit) for half in first.half_magnitudes if half.lengths == "all"]
    return table(head, [*rows, ["noise alone (analytic, the same truths)", *limits, "0.00", "", "", "", ""]])


def _behind(half: HalfMagnitude) -> float | None:
    """How much brighter than the noise limit m50 is."""
    return None if half.m50 is None or half.noise_limit is None else half.noise_limit - half.m50


def _seconds(report: StreakReport) -> str:
    rows = [[stage, figure(seconds, 3)] for stage, seconds in report.seconds.items()]
    return table(["stage", "s"], [*rows, ["all", figure(sum(report.seconds.values()), 3)]])


def _halves(reports: Mapping[str, StreakReport]) -> str:
    unit = _unit(next(iter(reports.values())))
    head = ["detector", "length px", *(f"{rate:g} false per {unit}" for rate in FALSE_PER_FRAME)]
    rows = []
    for detector, report in reports.items():
        for name in LENGTH_CLASSES:
            halves = [half for half in report.half_magnitudes if half.lengths == name]
            rows.append([detector, _length_name(name), *(_half(half) for half in halves)])
        halves = [half for half in report.strict_half_magnitudes if half.lengths == "all"]
        rows.append([detector, f"{_length_name('all')}, strict", *(_half(half) for half in halves)])
    first = next(iter(reports.values())).half_magnitudes
    limits = {name: [figure(half.noise_limit) for half in first if half.lengths == name] for name in LENGTH_CLASSES}
    rows += [["noise alone (analytic, the same truths)", _length_name(name), *limits[name]] for name in LENGTH_CLASSES]
    return table(head, rows)


def _length_name(name: str) -> str:
    return "5 and longer" if name == "all" else name


def _half(half: HalfMagnitude) -> str:
    error = "" if half.m50_err is None else f" ± {half.m50_err:.2f}"
    return figure(half.m50) + error if half.m50 is not None else "-"


def _threshold(report: StreakReport) -> str:
    at = report.at_threshold
    rows = [
        ["threshold", figure(at.threshold, 3)],
        ["found / truths that count", f"{at.found} / {at.truths}"],
        ["truths per frame (density of this sample)", figure(at.density, 1)],
        ["false per frame", figure(at.false_per_frame)],
        ["false per CCD of 17 Mpx", figure(at.false_per_frame * CCD_PX / report.pixels if report.pixels else None)],
        [f"purity at {at.density:.1f} per frame", figure(at.purity, 3)],
        [f"purity at {at.expected_streaks_per_frame:g} per frame", figure(at.purity_expected, 3)],
        ["empty frames", str(at.empty_frames)],
        ["false per empty frame", figure(at.false_per_empty_frame)],
        ["empty frames without any", figure(at.clean_fraction, 2)],
    ]
    return table(["", ""], rows)


def _grid(name: str, grid: Grid) -> str:
    edges = grid.mag_edges
    head = [name, *(f"{low:g}-{high:g} mag" for low, high in pairwise(edges))]
    rows = [
        [f"{low:g}-{high:g}", *(f"{k}/{n}" if n else "" for k, n in zip(found, total, strict=True))]
        for (low, high), found, total in zip(pairwise(grid.second_edges), grid.found, grid.total, strict=True)
    ]
    return table(head, rows)


def _residuals(report: StreakReport) -> str:
    head = ["SNR", "streaks", "end px", "bound px", "end / bound", "mid-point px", "bound px", "along px", "across px"]
    rows = [
        [
            snr_range(row.snr_from, row.snr_to),
            str(row.count),
            *(figure(value, 3) for value in (row.end_px, row.end_bound_px)),
            figure(row.end_px / row.end_bound_px) if row.end_px is not None and row.end_bound_px else "-",
            *(figure(value, 3) for value in (row.mid_px, row.mid_bound_px, row.along_px, row.across_px)),
            figure(row.strict / row.count, 3) if row.count else "-",
        ]
        for row in report.residuals
    ]
    return table([*head, "strict"], rows)


def _pulls(report: StreakReport) -> str:
    rows = [
        [pull.quantity, str(pull.count), figure(pull.middle), figure(pull.width), figure(pull.beyond_3, 3)]
        for pull in report.pulls
    ]
    return table(["", "number", "middle", "width", "beyond 3"], rows)


def _reliability(report: StreakReport) -> str:
    density, expected = report.at_threshold.density, report.at_threshold.expected_streaks_per_frame
    head = ["score", "detections", "mean score", f"true at {density:.1f} per frame", f"true at {expected:g} per frame"]
    rows = [
        [
            f"{row.score_from:g}-{row.score_to:g}",
            str(row.count),
            figure(row.mean_score, 3),
            figure(row.true_fraction, 3),
            figure(row.true_fraction_expected, 3),
        ]
        for row in report.reliability
    ]
    return table(head, rows)
