"""``needlestream evaluate``: figures against truth, for our detections and for anybody's.

Thin: tables are read here, judged in ``models.evaluate``, and written to one folder (report.json, report.md, plots).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from stream.commands.examination import detect_files, examination, progress_bar, training_extra
from stream.commands.options import with_settings
from stream.settings import Settings  # noqa: TC001 - with_settings reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from rich.progress import Progress, TaskID

    from models.evaluate.sample import Sample
    from models.evaluate.streaks import Judging
    from stream.batch import Read

    Columns = Mapping[str, NDArray[Any]]

OURS = "needlestream"
FIRST_EVALUATION_SEED = 900_000  # training takes none from here up

app = typer.Typer(help="Figures against truth: ours, or anybody's tables.", no_args_is_help=True)


@app.callback()
def _evaluate() -> None:
    """Figures against truth: ours, or anybody's tables."""


@dataclass(frozen=True)
class Tables:
    """Truth, detections and frames as columns; ``frames`` None where nobody listed them, then maybe their number."""

    truth: Columns
    detections: Columns
    frames: Columns | None
    n_frames: int | None

    def sample(self) -> Sample:
        """What is judged; leaves with a sentence where the tables do not fit together."""
        from models.evaluate.sample import build_sample  # noqa: PLC0415 - scipy

        try:
            return build_sample(self.truth, self.detections, frames=self.frames, n_frames=self.n_frames)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None


@app.command("streaks")
@with_settings("device", "threshold", "max_pixels")
def streaks_command(
    *,
    settings: Settings,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("evaluation"),
    detections: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Anybody's table (CSV, ECSV, Parquet).")
    ] = None,
    truth: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Its truth.")] = None,
    frames: Annotated[
        str | None, typer.Option(help="Number of frames, or a table that lists them; else frames.csv beside the truth.")
    ] = None,
    simulated: Annotated[
        list[Path] | None, typer.Option(exists=True, file_okay=False, help="Folder of `simulate`; may be repeated.")
    ] = None,
    survey: Annotated[str | None, typer.Option(help="Simulate this survey's frames first, into OUT.")] = None,
    fields: Annotated[int, typer.Option(min=1, help="With --survey: fields of four exposures.")] = 2,
    empty_fields: Annotated[int, typer.Option(min=0, help="With --survey: fields without an asteroid.")] = 1,
    asteroids: Annotated[float, typer.Option(min=0, help="With --survey: asteroids in a CCD.")] = 300.0,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="With --survey: size of a CCD.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="With --survey: of the first field.")] = FIRST_EVALUATION_SEED,
    real: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of real frames with a truth.csv.")
    ] = None,
    weights: Annotated[str, typer.Option(help="The network: a shipped name or a .safetensors file.")] = "streaknet",
    expected: Annotated[
        float, typer.Option(min=0, help="Streaks expected in a frame: the density that scores are calibrated for.")
    ] = 10.0,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap samples behind the errors of m50.")] = 100,
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Run `sep`, if installed, on the frames.")] = True,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw them (matplotlib).")] = True,
) -> None:
    """Completeness against magnitude and length, m50 beside the noise limit, false ones, errors, what a score is worth.

    docs/evaluation.md has the matching rule and the columns. Give one of: --detections with --truth; --simulated;
    --survey; --real. Written to OUT: report.json, report.md, plots.

    For example:

        needlestream evaluate streaks --detections mine.csv --truth truth.csv --frames 8

        needlestream evaluate streaks --survey euclid-vis --fields 2 --out evaluation
    """
    from models.evaluate.streaks import Judging  # noqa: PLC0415 - scipy

    ways = {"--detections": detections, "--simulated": simulated, "--survey": survey, "--real": real}
    if sum(bool(way) for way in ways.values()) != 1:
        raise typer.BadParameter(f"give exactly one of {', '.join(ways)}")
    if (truth is None) != (detections is None):
        raise typer.BadParameter("--detections and --truth go together")
    out.mkdir(parents=True, exist_ok=True)
    if real is not None:
        _judge_real(real, settings, weights, out)
        return
    judging = Judging(settings.threshold, expected, resamples, seed)
    if detections is not None and truth is not None:
        tables = {OURS if _is_ours(detections) else detections.stem: _given(detections, truth, frames)}
    else:
        folders = simulated or _simulate(out, str(survey), fields, empty_fields, asteroids, size, seed)
        tables = _detected(folders, settings, weights, out, peers=peers)
    _judge(tables, judging, out, plots=plots)


def _judge(tables: Mapping[str, Tables], judging: Judging, out: Path, *, plots: bool) -> None:
    """Judge each table, write the reports and say the main figures."""
    from models.evaluate.report import as_json, as_markdown  # noqa: PLC0415
    from models.evaluate.streaks import curve, judge  # noqa: PLC0415

    samples = {name: table.sample() for name, table in tables.items()}
    reports = {name: judge(sample, judging) for name, sample in samples.items()}
    (out / "report.json").write_text(as_json(reports), encoding="utf-8")
    page = as_markdown("Streaks against truth", reports)
    (out / "report.md").write_text(page, encoding="utf-8")
    if plots:
        with training_extra():
            from models.evaluate.plots import draw  # noqa: PLC0415

            curves = {name: curve(sample, sample.match()) for name, sample in samples.items()}
            draw(out, curves, next(iter(reports.values())))
    typer.echo(page)
    typer.echo(f"written to {out}")


def _is_ours(table: Path) -> bool:
    return table.stem == "streaks"


def _read(path: Path) -> dict[str, NDArray[Any]]:
    from models.evaluate.sample import NUMBERS  # noqa: PLC0415
    from stream.tables import read_columns  # noqa: PLC0415

    try:
        return read_columns(path, NUMBERS)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _given(detections: Path, truth: Path, frames: str | None) -> Tables:
    """Anybody's tables; frames are counted, or listed, or listed beside the truth as ``simulate`` does."""
    number = int(frames) if frames is not None and frames.isdecimal() else None
    beside = truth.with_name("frames.csv")
    listed = Path(frames) if frames is not None and number is None else beside if number is None else None
    if listed is not None and not listed.exists():
        if frames is not None:
            raise typer.BadParameter(f"{frames!r} is neither a number nor a table that exists", param_hint="--frames")
        listed = None
    return Tables(_read(truth), _read(detections), None if listed is None else _read(listed), number)


def _simulate(
    out: Path, survey: str, fields: int, empty_fields: int, asteroids: float, size: str | None, seed: int
) -> list[Path]:
    """Simulate fields with asteroids and, apart, fields without; gives the folders."""
    with training_extra():
        from models.simulate.exposure import CAMERAS, Plan, write_fields  # noqa: PLC0415 - numba compiles when it is run
    if survey not in CAMERAS:
        raise typer.BadParameter(f"{survey!r}: there are {', '.join(CAMERAS)}", param_hint="--survey")
    shape = None if size is None else frame_size(size)
    parts = [("frames", fields, asteroids, seed), ("empty", empty_fields, 0.0, seed + fields)]
    parts = [part for part in parts if part[1]]
    with progress_bar() as bar:
        for name, count, density, first in parts:
            task = bar.add_task(f"simulate {name}", total=None)
            plan = Plan(survey, asteroids=density, shape=shape)
            advance = functools.partial(_advance, bar, task)
            write_fields(out / name, plan, first, fields=count, progress=advance)
    return [out / name for name, *_ in parts]


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def frame_size(text: str) -> tuple[int, int]:
    """Height and width of ``1024x2048``."""
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal()):
        raise typer.BadParameter("give HEIGHTxWIDTH in pixels, such as 1024x1024", param_hint="--size")
    return int(height), int(width)


def _joined(tables: Sequence[Columns]) -> Columns:
    """Tables one under the other: the columns that all have."""
    return {
        name: np.concatenate([table[name] for table in tables]) for name in tables[0] if all(name in t for t in tables)
    }


def _in_folder(folder: Path, name: str) -> Columns:
    """A table of ``simulate``, its frames with the folder before their names."""
    table = _read(folder / name)
    return {**table, "frame": np.array([str(folder / frame) for frame in table["frame"]], np.str_)}


def _detected(
    folders: Sequence[Path], settings: Settings, weights: str, out: Path, *, peers: bool
) -> dict[str, Tables]:
    """Every proposal on simulated frames (into ``out/streaks.csv``), and the peers' on the same."""
    from models.evaluate.peers import sep_installed  # noqa: PLC0415
    from stream.batch import Output, fits_files  # noqa: PLC0415
    from stream.export import Format  # noqa: PLC0415

    truth = _joined([_in_folder(folder, "truth.csv") for folder in folders])
    frames = _joined([_in_folder(folder, "frames.csv") for folder in folders])
    files = fits_files(folders)
    read, examine = examination(settings.model_copy(update={"survey": "auto", "threshold": 0.0}), weights, None)
    detect_files(files, Output(out, Format.CSV, pictures=False), read=read, examine=examine)
    tables = {OURS: Tables(truth, _read(out / "streaks.csv"), frames, None)}
    if peers and sep_installed():
        tables["sep (elongated sources)"] = Tables(truth, _peer(files, read), frames, None)
    return tables


def _peer(files: Sequence[Path], read: Read) -> Columns:
    """What ``sep`` finds, as the columns of a table."""
    from detector.frame import Frame  # noqa: PLC0415
    from models.evaluate.peers import sep_streaks  # noqa: PLC0415

    names: list[str] = []
    extensions: list[int] = []
    rows: list[NDArray[np.float64]] = [np.empty((0, 5))]
    for file in files:
        for frame in read(file):
            if isinstance(frame, Frame):
                found = sep_streaks(frame)
                names += [frame.header.name] * len(found)
                extensions += [frame.header.extension] * len(found)
                rows.append(found)
    columns = dict(zip(("x0", "y0", "x1", "y1", "score"), np.concatenate(rows).T, strict=True))
    return {"frame": np.array(names, np.str_), "extension": np.array(extensions, np.float64), **columns}


def _judge_real(folder: Path, settings: Settings, weights: str, out: Path) -> None:
    """Examine all frames beside those that the truth names, at threshold 0, and write what was found."""
    from models.evaluate.realframes import judge_real, real_markdown  # noqa: PLC0415
    from models.evaluate.report import as_json  # noqa: PLC0415
    from stream.batch import Output, fits_files  # noqa: PLC0415
    from stream.export import Format  # noqa: PLC0415

    table = folder / "truth.csv"
    if not table.exists():
        raise typer.BadParameter(f"{table}: no such table", param_hint="--real")
    truth = _read(table)
    named = dict.fromkeys((folder / file).parent for file in truth["file"].tolist())
    read, examine = examination(settings.model_copy(update={"threshold": 0.0}), weights, None)
    detect_files(fits_files(list(named)), Output(out, Format.CSV, pictures=False), read=read, examine=examine)
    report = judge_real(truth, _read(out / "streaks.csv"), _read(out / "frames.csv"), threshold=settings.threshold)
    (out / "report.json").write_text(as_json({"real": report}), encoding="utf-8")
    page = real_markdown(report)
    (out / "report.md").write_text(page, encoding="utf-8")
    typer.echo(page)
    typer.echo(f"written to {out}")
