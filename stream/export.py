"""What one run over files leaves behind: the table of streaks, the list of frames, DS9 regions.

``frames.csv`` counts every HDU that was looked at, with its streaks or with the reason why it was refused: in = out,
also without a broker. At night this fails when the disk is full: the command says so and ends with status 1, and the
``.partial`` files hold what was done until then.
"""

from __future__ import annotations

import csv
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from stream.candidatetable import LAYOUTS, rows_of
from stream.tables import STREAK_LAYOUT, csv_table, ecsv_table, parquet_table, replacing, utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from detector.frame import FrameHeader
    from detector.streaks import Findings
    from stream.candidatetable import Class
    from stream.tables import Add, Layout


class Format(StrEnum):
    """How streaks are written; the value is the file's suffix, but for ``ds9``, whose files end in ``.reg``."""

    CSV = "csv"
    ECSV = "ecsv"
    PARQUET = "parquet"
    DS9 = "ds9"


@dataclass(frozen=True)
class Refused:
    """A frame that could not be read: which, and why (``detector.frame.BadFrame``); ``extension`` None is the file."""

    frame: str
    extension: int | None
    reason: str
    detail: str


COLOURS: dict[Class, str] = {"lenses": "yellow", "mergers": "cyan"}
FRAME_NAMES = (
    "frame",
    "extension",
    "exposure",
    "ccd",
    "mid_time_utc",
    "width",
    "height",
    "streaks",
    "background_e",
    "noise_e",
    "psf_fwhm_px",
    "seconds",
    "lenses",
    "mergers",
    "flags",
    "reason",
    "detail",
)


def common_root(names: Sequence[str]) -> Path:
    """The deepest folder that holds all the named files."""
    return Path(os.path.commonpath([Path(name).absolute().parent for name in names]))


def file_stem(header: FrameHeader, root: Path) -> str:
    """A file name for one frame, without suffix: its path below ``root`` in one word, and its extension.

    Two frames of one run never share it: ``a/f.fits`` and ``b/f.fits`` keep their folders, ``f.fits`` and ``f.fits.fz``
    their suffixes.
    """
    below = Path(header.name).absolute().relative_to(root)
    return f"{'-'.join(below.parts)}-{header.extension}"


@contextmanager
def streak_output(folder: Path, kind: Format, root: Path, classes: Sequence[Class] = ()) -> Iterator[Add]:
    """Lend the function that takes the findings of one frame after the other, in the wanted format.

    A table becomes ``folder/streaks.SUFFIX``, beside it ``lenses`` and ``mergers`` where they are looked for; DS9
    regions become one ``.reg`` a frame, for their coordinates belong to one image.
    """
    if kind is Format.DS9:
        folder.mkdir(parents=True, exist_ok=True)
        yield lambda findings: write_regions(folder / f"{file_stem(findings.header, root)}.reg", findings)
        return
    tables = {Format.CSV: csv_table, Format.ECSV: ecsv_table, Format.PARQUET: parquet_table}
    with ExitStack() as stack:
        layouts: dict[str, Layout] = {"streaks": STREAK_LAYOUT, **{name: LAYOUTS[name] for name in classes}}
        adds = [
            stack.enter_context(tables[kind](folder / f"{name}.{kind.value}", layout))
            for name, layout in layouts.items()
        ]

        def add_all(findings: Findings) -> None:
            for add in adds:
                add(findings)

        yield add_all


def write_regions(path: Path, findings: Findings) -> None:
    """Write the streaks of one frame as DS9 lines, lenses and mergers as circles; DS9 counts pixels from 1."""
    streaks = findings.streaks
    lines = ["# Region file format: DS9 version 4.1", "global color=green width=1", "image"]
    lines += [
        f"line({row['x0'] + 1:.3f},{row['y0'] + 1:.3f},{row['x1'] + 1:.3f},{row['y1'] + 1:.3f})"
        f" # line=0 0 text={{{row['score']:.3f}}}"
        for row in streaks
    ]
    for name in LAYOUTS:
        lines += [
            f"circle({row['x'] + 1:.2f},{row['y'] + 1:.2f},20) # color={COLOURS[name]}"
            f" text={{{name} {row['probability']:.3f}}}"
            for row in rows_of(findings, name)
        ]
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def frame_list(path: Path) -> Iterator[Callable[[Findings | Refused], None]]:
    """Write the list of frames: one line for each that was examined or refused."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
        lines = csv.DictWriter(out, FRAME_NAMES, restval="", lineterminator="\n")
        lines.writeheader()

        def add(outcome: Findings | Refused) -> None:
            lines.writerow(_refused_line(outcome) if isinstance(outcome, Refused) else _examined_line(outcome))
            out.flush()

        yield add


def _refused_line(refused: Refused) -> dict[str, object]:
    return {
        "frame": refused.frame,
        "extension": refused.extension,
        "reason": refused.reason,
        "detail": refused.detail,
    }


def _examined_line(findings: Findings) -> dict[str, object]:
    header = findings.header
    height, width = header.shape
    return {
        "frame": header.name,
        "extension": header.extension,
        "exposure": header.exposure,
        "ccd": header.ccd,
        "mid_time_utc": utc_text(header.mid_time_mjd_tai),
        "width": width,
        "height": height,
        "streaks": len(findings.streaks),
        "background_e": f"{findings.background_e:.6g}",
        "noise_e": f"{findings.noise_e:.5g}",
        "psf_fwhm_px": f"{findings.psf_fwhm_px:.3f}",
        "seconds": f"{sum(findings.seconds.values()):.3f}",
        **{name: len(rows_of(findings, name)) for name in LAYOUTS if name in findings.models},
        "flags": " ".join(findings.flags),
    }
