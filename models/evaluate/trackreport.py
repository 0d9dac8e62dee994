"""The figures of tracks for people: one page of Markdown, several linkers side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.evaluate.report import figure, table
from models.evaluate.tracks import DETECTABLE_SNR, LEAST_SIGHTINGS, PRECISE_SNR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.evaluate.tracks import Chance, TrackClass, TrackReport

_NAMES = {0: "all", 2: "2", 3: "3", 4: "4 and more"}
# Fewer fields, scrambled or not, cannot show a rate of 0.02.
_QUOTABLE_FIELDS = 150


def tracks_markdown(title: str, reports: Mapping[str, TrackReport], chances: Mapping[str, Chance]) -> str:
    """Tables for people: all linkers by name; chance is of those whose lists were scrambled."""
    parts = [f"# {title}"]
    if reports:
        first = next(iter(reports.values()))
        parts += [
            _sample(first),
            "## Linked",
            _linked(reports),
            "## Tracks by their sightings",
            _classes(reports),
            "## m50 of tracks (magnitude at which half of the objects have one)",
            _halves(reports),
            f"## Mid-points of sightings with a true SNR above {PRECISE_SNR:g}",
            _precision(reports),
        ]
    if chances:
        parts += ["## Exposures shifted against each other at random: what links is chance", _chance(chances)]
    return "\n\n".join(parts) + "\n"


def _sample(report: TrackReport) -> str:
    return (
        f"{report.fields} fields of one CCD. Objects with at least {LEAST_SIGHTINGS} detectable sightings (true SNR "
        f"{DETECTABLE_SNR:g} or more, both ends 10 px inside): {report.objects}."
    )


def _linked(reports: Mapping[str, TrackReport]) -> str:
    rows = [
        [
            name,
            f"{report.found} / {report.objects}",
            figure(report.completeness, 3),
            figure(report.classes[0].false_per_field, 3),
            ", ".join(f"{count} with {seen}" for seen, count in report.missing.items()) or "-",
        ]
        for name, report in reports.items()
    ]
    return table(["linker", "linked", "completeness", "false per field", "not linked, by sightings in the lists"], rows)


def _classes(reports: Mapping[str, TrackReport]) -> str:
    def row(name: str, one: TrackClass) -> list[str]:
        counts = [str(one.tracks), str(one.found), str(one.duplicates), str(one.false)]
        return [name, _NAMES[one.sightings], *counts, figure(one.false_per_field, 3), figure(one.purity, 4)]

    head = ["linker", "sightings", "tracks", "found", "duplicates", "false", "false per field", "purity"]
    return table(head, [row(name, one) for name, report in reports.items() for one in report.classes])


def _halves(reports: Mapping[str, TrackReport]) -> str:
    rows = []
    for name, report in reports.items():
        for least in sorted({half.sightings for half in report.halves}):
            mine = [half for half in report.halves if half.sightings == least]
            rows.append([name, str(least), *(f"{figure(half.m50)} ({half.found}/{half.objects})" for half in mine)])
    lengths = [half.lengths for half in next(iter(reports.values())).halves if half.sightings == LEAST_SIGHTINGS]
    named = [f"{'5 and longer' if name == 'all' else name} px" for name in lengths]
    return table(["linker", "sightings, at least", *named], rows)


def _precision(reports: Mapping[str, TrackReport]) -> str:
    rows = [
        [name, str(one.precise), figure(one.mid_px, 3), figure(one.mid_along_px, 3), figure(one.mid_across_px, 3)]
        for name, one in reports.items()
    ]
    return table(["linker", "sightings", "median distance px", "along px", "across px"], rows)


def _chance(chances: Mapping[str, Chance]) -> str:
    rows = [
        [
            name,
            str(one.fields),
            *(str(one.tracks[kind]) for kind in ("2", "3", "4")),
            f"{one.per_field:.4f} ± {one.per_field_err:.4f}" + ("" if one.fields >= _QUOTABLE_FIELDS else " (few)"),
        ]
        for name, one in chances.items()
    ]
    return table(["lists", "fields", "of 2", "of 3", "of 4 and more", "false per field"], rows)
