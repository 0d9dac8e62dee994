"""``needlestream evaluate streaks --inject``: a user's own frames, with streaks of known magnitude put into them.

Thin: frames are read and examined here, drawn on in ``models.evaluate.injection``. A frame that cannot be read, or that
has no room for a streak, is named and left out.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from detector.frame import BadFrame, Frame
from models.evaluate.framekeys import same_path
from models.evaluate.injection import (
    INJECTED,
    INSTRUMENTAL_ZERO_POINT,
    canvas,
    depths,
    depths_markdown,
    draw_streaks,
    magnitudes,
    outranking,
    with_streaks,
)
from models.evaluate.realframes import on_trail
from models.evaluate.report import as_json
from models.evaluate.sample import build_sample
from stream.batch import fits_files
from stream.commands.examination import progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from detector.frame import FrameHeader
    from detector.streaks import Findings
    from stream.batch import Examine, Read

    Columns = Mapping[str, NDArray[Any]]

TRUTH_NAMES = ("x0", "y0", "x1", "y1", "flux_e", "length_px", "snr_limit")
STREAK_NAMES = ("x0", "y0", "x1", "y1", "x0_err", "y0_err", "x1_err", "y1_err", "score", "snr", "flux", "flux_err")


@dataclass(frozen=True)
class Round:
    """One examined frame: which, and what was put in (none in the first, which is the frame as it came)."""

    name: str
    header: FrameHeader
    truth: NDArray[np.void]
    streaks: NDArray[np.void]
    psf_fwhm_px: float
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Injected:
    """The columns of truth, detections and frames, remarks for the report, and seconds by stage."""

    truth: Columns
    detections: Columns
    frames: Columns
    remarks: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def inject(
    paths: Sequence[Path],
    out: Path,
    *,
    read: Read,
    examine: Examine,
    rounds: int,
    per_ccd: float,
    seed: int,
    known: Columns | None = None,
) -> Injected:
    """Examine every frame as it is and ``rounds`` times with new streaks; tables are written to ``out`` too.

    ``known`` are real trails (columns file, x0 .. y1, ends_inside): what lies on them is neither true nor false.
    """
    files = fits_files(paths)
    done: list[Round] = []
    with progress_bar() as bar:
        task = bar.add_task("inject", total=len(files))
        for number, file in enumerate(files):
            try:
                for frame in read(file):
                    if isinstance(frame, BadFrame):
                        typer.echo(f"left out ({frame.reason}): {file} [{frame.extension}]", err=True)
                        continue
                    key = [seed, number, frame.header.extension]
                    made = _rounds(frame, examine, rounds, per_ccd, np.random.default_rng(key))
                    done += made if known is None else [_without_known(one, known) for one in made]
            except BadFrame as bad:
                typer.echo(f"left out ({bad.reason}): {file}", err=True)
            bar.advance(task)
    if not any(len(one.truth) for one in done):
        raise typer.BadParameter(
            f"no frame with room for streaks in {', '.join(map(str, paths))}", param_hint="--inject"
        )
    return _tables(done, out)


def _rounds(frame: Frame, examine: Examine, rounds: int, per_ccd: float, rng: np.random.Generator) -> list[Round]:
    """The frame as it came, then with streaks; empty where it has no room for any, or cannot be examined."""
    header = frame.header
    try:
        baseline = examine(frame)
    except BadFrame as bad:
        typer.echo(f"left out ({bad.reason}): {header.name} [{header.extension}]", err=True)
        return []
    on = canvas(frame)
    found = [_round(header.name, baseline, np.zeros(0, INJECTED))]
    for number in range(1, rounds + 1):
        rows = draw_streaks(rng, on, per_ccd)
        if not len(rows):
            typer.echo(f"left out (no room for streaks): {header.name} [{header.extension}]", err=True)
            return []
        one = _round(f"{header.name}#{number}", examine(with_streaks(rng, on, rows)), rows)
        found.append(one)
    typer.echo(
        f"{header.name} [{header.extension}]: {len(baseline.streaks)} candidates, "
        f"{sum(len(one.truth) for one in found)} streaks in {rounds} rounds, PSF {on.psf.fwhm_px:.2f} px"
        + ("" if on.psf.n_stars else " (not measured)")
    )
    before = baseline.streaks
    return [found[0], *(_without_its_own(one, before) for one in found[1:])]


def _without_known(one: Round, known: Columns) -> Round:
    """The round without the detections that lie on known real trails of its file."""
    on_one = np.zeros(len(one.streaks), np.bool_)
    for row, file in enumerate(known["file"].tolist()):
        if same_path(file, one.header.name):
            on_one |= on_trail(known, row, one.streaks)
    return replace(one, streaks=one.streaks[~on_one])


def _round(name: str, found: Findings, rows: NDArray[np.void]) -> Round:
    return Round(name, found.header, rows, found.streaks, found.psf_fwhm_px, found.seconds)


def _without_its_own(one: Round, baseline: NDArray[np.void]) -> Round:
    kept = one.streaks[outranking(one.truth, one.streaks, baseline)]
    return replace(one, streaks=kept)


def _tables(done: Sequence[Round], out: Path) -> Injected:
    calibrated = all(one.header.zero_point is not None and one.header.exposure_s for one in done)
    truth = _columns(done, [one.truth for one in done], TRUTH_NAMES)
    truth["mag"] = np.concatenate([_mags(one.header, one.truth["flux_e"], calibrated) for one in done])
    truth["inside"] = np.ones(len(truth["mag"]))
    detections = _columns(done, [one.streaks for one in done], STREAK_NAMES)
    detections["mag"] = np.concatenate([_mags(one.header, one.streaks["flux"], calibrated) for one in done])
    with np.errstate(invalid="ignore", divide="ignore"):
        detections["mag_err"] = 2.5 / np.log(10.0) * detections["flux_err"] / detections["flux"]
    frames: dict[str, NDArray[Any]] = {
        "frame": np.array([one.name for one in done], np.str_),
        "extension": np.array([one.header.extension for one in done], np.float64),
        "height": np.array([one.header.shape[0] for one in done], np.float64),
        "width": np.array([one.header.shape[1] for one in done], np.float64),
        "psf_fwhm_px": np.array([one.psf_fwhm_px for one in done]),
    }
    for name, columns in {"truth.csv": truth, "streaks.csv": detections, "frames.csv": frames}.items():
        _write(out / name, columns)
    sample = build_sample(truth, detections, frames=frames, n_frames=None)
    groups = [(Path(one.header.name).name, one.header.extension) for one in done]
    rows = depths(sample, frames, groups)
    (out / "depths.json").write_text(as_json({"depths": [asdict(row) for row in rows]}), encoding="utf-8")
    kind = (
        "Magnitudes are AB, by the zero points of the frames."
        if calibrated
        else f"Not every frame has a zero point and an exposure time: magnitudes are {INSTRUMENTAL_ZERO_POINT:g} - 2.5 "
        "log10 of the electrons in the streak, and compare streaks of one frame only. Go by the SNR."
    )
    own = (
        "False ones are the frames' own candidates, real objects that nobody told among them. Rounds of one frame "
        "share its sky, so the errors of m50 are too small."
    )
    stages = dict.fromkeys(stage for one in done for stage in one.seconds)
    seconds = {stage: sum(one.seconds.get(stage, 0.0) for one in done) / len(done) for stage in stages}
    return Injected(truth, detections, frames, (f"{kind} {own}", depths_markdown(rows)), seconds)


def _mags(header: FrameHeader, flux_e: NDArray[np.float64], calibrated: bool) -> NDArray[np.float64]:
    return magnitudes(flux_e, header.zero_point if calibrated else None, header.exposure_s)


def _columns(
    done: Sequence[Round], tables: Sequence[NDArray[np.void]], names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {
        "frame": np.array([one.name for one, rows in zip(done, tables, strict=True) for _ in rows], np.str_),
        "extension": np.concatenate(
            [np.full(len(rows), float(one.header.extension)) for one, rows in zip(done, tables, strict=True)]
        ),
    }
    return columns | {name: np.concatenate([rows[name] for rows in tables]).astype(np.float64) for name in names}


def _write(path: Path, columns: Columns) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*(column.tolist() for column in columns.values()), strict=True):
            writer.writerow([_cell(value) for value in row])


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.9g}" if np.isfinite(value) else ""
