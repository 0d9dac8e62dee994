"""``needlestream evaluate``: figures against truth, for our detections and for anybody's.

Thin: tables are read here, judged in ``models.evaluate``, and written to one folder (report.json, report.md, plots).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from stream.commands.examination import (
    beside_others,
    detect_files,
    examination,
    load,
    progress_bar,
    reader,
    training_extra,
)
from stream.commands.options import with_settings
from stream.settings import Settings  # noqa: TC001 - with_settings reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from rich.progress import Progress, TaskID

    from detector.streaks import Findings
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
    """Truth, detections and frames as columns; ``frames`` None where nobody listed them, then maybe their number.

    A ``peer`` is for comparison: it takes no part in the union.
    """

    truth: Columns
    detections: Columns
    frames: Columns | None
    n_frames: int | None
    peer: bool = False

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
        list[str] | None,
        typer.Option(
            metavar="[NAME=]TABLE",
            help="Anybody's table (CSV, ECSV, Parquet); several are compared, with their union.",
        ),
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
    seed: Annotated[
        int, typer.Option(min=0, help="With --survey: of the first field; with --inject.")
    ] = FIRST_EVALUATION_SEED,
    inject: Annotated[
        list[Path] | None,
        typer.Option(exists=True, metavar="FRAME", help="Own frame or folder to put streaks into; may be repeated."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="With --inject: how often each frame gets new streaks.")] = 5,
    streaks: Annotated[int, typer.Option(min=1, help="With --inject: streaks a round in 17 Mpx; at least 8.")] = 80,
    known: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="With --inject: real trails in the frames, as for --real."),
    ] = None,
    real: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of real frames with a truth.csv.")
    ] = None,
    weights: Annotated[str, typer.Option(help="The network: a shipped name or a .safetensors file.")] = "streaknet",
    together: Annotated[
        bool,
        typer.Option("--together/--alone", help="Exposures of one field are examined together, as `detect` does."),
    ] = True,
    expected: Annotated[
        float, typer.Option(min=0, help="Streaks expected in a frame: the density that scores are calibrated for.")
    ] = 10.0,
    false_per: Annotated[
        Literal["frame", "ccd"],
        typer.Option(help="What false ones are counted per: a frame, or the area of a Euclid CCD (17 Mpx)."),
    ] = "frame",
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap samples behind the errors of m50.")] = 100,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Run other people's detectors, as installed, on the frames.")
    ] = True,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw them (matplotlib).")] = True,
) -> None:
    """Completeness against magnitude and length, m50 beside the noise limit, false ones, errors, what a score is worth.

    docs/evaluation.md has the matching rule and the columns. Give one of: --truth with --detections; --simulated (with
    --detections: those are judged, else detection is run); --survey; --inject; --real. Written to OUT: report.json,
    report.md, plots.

    For example:

        needlestream evaluate streaks --detections mine.csv --truth truth.csv --frames 8

        needlestream evaluate streaks --simulated sky --detections network=a.csv --detections matched=b.csv

        needlestream evaluate streaks --inject night/ --rounds 5 --out injected

        needlestream evaluate streaks --survey euclid-vis --fields 2 --out evaluation
    """
    from models.evaluate.streaks import Judging  # noqa: PLC0415 - scipy

    ways = {"--truth": truth, "--simulated": simulated, "--survey": survey, "--inject": inject, "--real": real}
    if sum(bool(way) for way in ways.values()) != 1:
        raise typer.BadParameter(f"give exactly one of {', '.join(ways)}")
    if (truth is not None and not detections) or (detections and truth is None and not simulated):
        raise typer.BadParameter("--detections go with --truth or with --simulated")
    out.mkdir(parents=True, exist_ok=True)
    if real is not None:
        _judge_real(real, settings, weights, out, together=together)
        return
    judging = Judging(settings.threshold, expected, resamples, seed, false_per)
    if inject:
        from stream.commands.injection import inject as put_in  # noqa: PLC0415 - numba

        read, examine = examination(settings.model_copy(update={"threshold": 0.0}), weights, None)
        trails = None if known is None else _read(known)
        if trails is not None and not {"file", "x0", "y0", "x1", "y1", "ends_inside"} <= set(trails):
            raise typer.BadParameter(f"{known}: needs columns file, x0, y0, x1, y1, ends_inside", param_hint="--known")
        told: Mapping[str, Any] = {"rounds": rounds, "per_ccd": streaks, "seed": seed, "known": trails}
        made = put_in(inject, out, read=read, examine=examine, **told)
        tables = {OURS: Tables(made.truth, made.detections, made.frames, None)}
        title = "Streaks put into own frames"
        judge_tables(tables, judging, out, plots=plots, seconds=made.seconds, title=title, remarks=made.remarks)
        return
    seconds: dict[str, float] = {}
    if truth is not None:
        tables = _given(_named(detections or []), truth, frames)
    elif simulated and detections:
        tables = _compared(_named(detections), *_truth_in(simulated))
    else:
        folders = simulated or _simulate(out, str(survey), fields, empty_fields, asteroids, size, seed)
        tables, seconds = _detected(folders, settings, weights, out, together=together, peers=peers)
    judge_tables(tables, judging, out, plots=plots, seconds=seconds)


def judge_tables(
    tables: Mapping[str, Tables],
    judging: Judging,
    out: Path,
    *,
    plots: bool,
    seconds: Mapping[str, float],
    title: str = "Streaks against truth",
    remarks: Sequence[str] = (),
) -> None:
    """Judge each table and the union of several, write the reports and say the main figures.

    ``seconds`` by stage are the first table's; ``remarks`` are Markdown, put at the end of the page.
    """
    from models.evaluate.report import as_json, as_markdown  # noqa: PLC0415
    from models.evaluate.streaks import curve, judge  # noqa: PLC0415
    from models.evaluate.union import union  # noqa: PLC0415

    samples = {name: table.sample() for name, table in tables.items()}
    asked = [sample for name, sample in samples.items() if not tables[name].peer]
    if len(asked) > 1:
        samples["union (each one's best in turn)"] = union(asked)
    try:
        reports = {name: judge(sample, judging) for name, sample in samples.items()}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    first = next(iter(reports))
    reports[first] = dataclasses.replace(reports[first], seconds=seconds)
    (out / "report.json").write_text(as_json(reports), encoding="utf-8")
    page = as_markdown(title, reports) + "".join(f"\n{remark}\n" for remark in remarks)
    (out / "report.md").write_text(page, encoding="utf-8")
    if plots:
        with training_extra():
            from models.evaluate.plots import draw  # noqa: PLC0415

            curves = {name: curve(sample, sample.match(), judging.unit) for name, sample in samples.items()}
            draw(out, curves, reports[first])
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


def _named(given: Sequence[str]) -> dict[str, Path]:
    """Tables by name: ``NAME=TABLE``, else the file's name."""
    tables = {}
    for one in given:
        name, equals, file = one.partition("=")
        path = Path(file if equals else one)
        if not path.is_file():
            raise typer.BadParameter(f"{path}: no such table", param_hint="--detections")
        if not equals:
            name = OURS if _is_ours(path) else path.stem
        if name in tables:
            raise typer.BadParameter(f"two tables are called {name!r}: give NAME=TABLE", param_hint="--detections")
        tables[name] = path
    return tables


def _given(detections: Mapping[str, Path], truth: Path, frames: str | None) -> dict[str, Tables]:
    """Anybody's tables; frames are counted, or listed, or listed beside the truth as ``simulate`` does."""
    number = int(frames) if frames is not None and frames.isdecimal() else None
    beside = truth.with_name("frames.csv")
    listed = Path(frames) if frames is not None and number is None else beside if number is None else None
    if listed is not None and not listed.exists():
        if frames is not None:
            raise typer.BadParameter(f"{frames!r} is neither a number nor a table that exists", param_hint="--frames")
        listed = None
    return _compared(detections, _read(truth), None if listed is None else _read(listed), number)


def _compared(
    detections: Mapping[str, Path], truth: Columns, frames: Columns | None, n_frames: int | None = None
) -> dict[str, Tables]:
    return {name: Tables(truth, _read(path), frames, n_frames) for name, path in detections.items()}


def _truth_in(folders: Sequence[Path], *, examined_here: bool = False) -> tuple[Columns, Columns]:
    """Truth and list of frames of folders of ``simulate``.

    Names have their folder before them where that tells frames apart, or where they are ``examined_here``: somebody
    else's tables may know them by other folders.
    """
    names = [name for folder in folders for name in _read(folder / "frames.csv")["frame"].tolist()]
    by_folder = examined_here or len(set(names)) < len(names)
    truth, frames = (
        _joined([_in_folder(folder, table) if by_folder else _read(folder / table) for folder in folders])
        for table in ("truth.csv", "frames.csv")
    )
    return truth, frames


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
    folders: Sequence[Path], settings: Settings, weights: str, out: Path, *, together: bool, peers: bool
) -> tuple[dict[str, Tables], dict[str, float]]:
    """Every proposal on simulated frames (into ``out/streaks.csv``), and the peers' on the same; seconds by stage."""
    from stream.batch import Output, fits_files  # noqa: PLC0415
    from stream.export import Format  # noqa: PLC0415

    truth, frames = _truth_in(folders, examined_here=True)
    files = fits_files(folders)
    science = load(settings.model_copy(update={"survey": "auto", "threshold": 0.0}), weights)
    read = reader(science, None)
    spent: list[Mapping[str, float]] = []

    def noted(found: Findings) -> Findings:
        spent.append(found.seconds)
        return found

    fieldwise = beside_others(science, read, settings)
    fieldwise = dataclasses.replace(
        fieldwise, examine=lambda ready, others: noted(science.examine_prepared(ready, others=others))
    )
    detect_files(
        files,
        Output(out, Format.CSV, pictures=False),
        read=read,
        examine=lambda frame: noted(science.examine(frame)),
        fieldwise=fieldwise if together else None,
    )
    tables = {OURS: Tables(truth, _read(out / "streaks.csv"), frames, None)}
    if peers:
        found = _peers(files, read)
        tables |= {name: Tables(truth, columns, frames, None, peer=True) for name, columns in found.items()}
    stages = dict.fromkeys(stage for seconds in spent for stage in seconds)
    return tables, {stage: sum(seconds.get(stage, 0.0) for seconds in spent) / len(spent) for stage in stages}


def _peers(files: Sequence[Path], read: Read) -> dict[str, Columns]:
    """What each peer that is installed finds, as the columns of a table; says of the others what they need."""
    from detector.frame import Frame  # noqa: PLC0415
    from models.evaluate.peers import PEERS, installed  # noqa: PLC0415

    usable = {}
    for name, peer in PEERS.items():
        missing = [package for package in peer.packages if not installed(package)]
        if missing:
            typer.echo(f"left out: {name} (pip install {' '.join(missing)})", err=True)
        else:
            usable[name] = peer
    rows: dict[str, list[tuple[str, int, NDArray[np.float64]]]] = {name: [] for name in usable}
    with progress_bar() as bar:
        task = bar.add_task("peers", total=len(files))
        for file in files:
            for frame in read(file):
                if isinstance(frame, Frame):
                    for name, peer in usable.items():
                        rows[name].append((frame.header.name, frame.header.extension, peer.find(frame)))
            bar.advance(task)
    return {name: _peer_columns(found) for name, found in rows.items()}


def _peer_columns(found: Sequence[tuple[str, int, NDArray[np.float64]]]) -> Columns:
    names = [name for name, _, rows in found for _ in rows]
    extensions = [extension for _, extension, rows in found for _ in rows]
    all_rows = np.concatenate([np.empty((0, 5)), *(rows for *_, rows in found)])
    columns = dict(zip(("x0", "y0", "x1", "y1", "score"), all_rows.T, strict=True))
    return {"frame": np.array(names, np.str_), "extension": np.array(extensions, np.float64), **columns}


def _judge_real(folder: Path, settings: Settings, weights: str, out: Path, *, together: bool) -> None:
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
    science = load(settings.model_copy(update={"threshold": 0.0}), weights)
    read = reader(science, None)
    detect_files(
        fits_files(list(named)),
        Output(out, Format.CSV, pictures=False),
        read=read,
        examine=science.examine,
        fieldwise=beside_others(science, read, settings) if together else None,
    )
    report = judge_real(truth, _read(out / "streaks.csv"), _read(out / "frames.csv"), threshold=settings.threshold)
    (out / "report.json").write_text(as_json({"real": report}), encoding="utf-8")
    page = real_markdown(report)
    (out / "report.md").write_text(page, encoding="utf-8")
    typer.echo(page)
    typer.echo(f"written to {out}")
