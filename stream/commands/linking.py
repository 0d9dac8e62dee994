"""``needlestream link`` and ``evaluate tracks``: tables of streaks in, tracks out, and how good they are.

Exit status: 0, also without a single track; 1 when something is missing that the text names; 2 for tables that cannot
be linked or judged, with what to look for.
"""

from __future__ import annotations

import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from stream.broker import check_reachable
from stream.commands import evaluation
from stream.commands.examination import detect_files, examination, training_extra
from stream.commands.options import CONNECTION, CREATION, REGISTRY, broker_errors, with_settings
from stream.logs import configure_logs
from stream.settings import Settings  # noqa: TC001 - with_settings reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from detector.known import Match
    from detector.linking import Linked
    from models.linker import Linker
    from stream.known import KnownTable

    Columns = Mapping[str, NDArray[Any]]

LINKER = (
    *("group_id", "delivery", "session_timeout_s", "max_poll_interval_s", "transaction_timeout_s"),
    *("field_timeout_s", "link_after_s", "known_radius_arcsec", "metrics_port", "metrics_address", "log_format"),
    *("alert_framing", *REGISTRY),
)
KNOWN = typer.Option(
    exists=True, dir_okay=False, help="Table of known objects (CSV, ECSV, Parquet): tracks are marked."
)
OURS = "needlestream"
CLASSICAL = "multi-epoch (sep)"
# Far below any alert: one candidate in two thousand is enough to be worth a look from three sides.
LINK_SCORE = 0.0005
MOST_CANDIDATES = 20_000


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command("link")(link_command)
    app.command("track")(track_command)
    evaluation.app.command("tracks")(tracks_command)


@with_settings("known_radius_arcsec")
def link_command(
    *,
    settings: Settings,
    streaks: Annotated[
        list[Path],
        typer.Argument(
            exists=True, dir_okay=False, metavar="STREAKS...", help="Tables of `detect` (CSV, ECSV, Parquet)."
        ),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("tracks"),
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest probability of a track; else by its sightings, as the weights say."),
    ] = None,
    known: Annotated[Path | None, KNOWN] = None,
    weights: Annotated[str, typer.Option(help="The score: a shipped name or a .safetensors file.")] = "linker",
) -> None:
    """Link the streaks of the exposures of a field into tracks.

    Streaks of many fields, nights and CCDs may come at once: exposures that overlap within a night are linked. Give
    candidates far below the threshold for alerts (detect --threshold 0): three sightings on a path reject chance.

    Writes tracks.csv (docs/tracks.md has every column), and streaks.csv: the streaks with the flag `static` where
    another exposure shows the same thing at the same place. With --known (columns name, time_utc, ra, dec; also
    rate_arcsec_h, position_angle_deg) tracks of known objects are marked.

    For example:

        needlestream detect night/*.fits --threshold 0 --out night

        needlestream link night/streaks.csv --out night/tracks --known asteroids.csv
    """
    begin = time.perf_counter()
    scorer = _scorer(weights, threshold)
    linked, objects = _link(streaks, out, scorer, _known(known, settings))
    for reason, count in linked.counts.items():
        typer.echo(f"{reason}: {count}")
    if known is not None:
        typer.echo(f"tracks of known objects: {sum(map(bool, objects))}, ambiguous: {sum(len(o) > 1 for o in objects)}")
    for sightings in sorted({len(track.rows) for track in linked.tracks}):
        typer.echo(f"tracks of {sightings} sightings: {sum(len(t.rows) == sightings for t in linked.tracks)}")
    typer.echo(f"written to {out} after {time.perf_counter() - begin:.1f} s")


@with_settings(*CONNECTION, *CREATION, *LINKER)
def track_command(
    *,
    settings: Settings,
    idle_timeout: Annotated[
        float | None,
        typer.Option(min=0, help="End after so many seconds without a message, all linked.", metavar="SECONDS"),
    ] = None,
    known: Annotated[Path | None, KNOWN] = None,
    weights: Annotated[str, typer.Option(help="The score: a shipped name or a .safetensors file.")] = "linker",
) -> None:
    """Link as a service: streaks and candidates of the workers in, tracks out.

    Reads the topics `streaks` and `candidates` in the group GROUP_ID-linker (as many linkers as you like, up to one a
    partition) and writes `tracks`. A field is linked when it has rested; a track that gets another sighting is
    published again, with the same id and a higher version. What it knows of open fields it has from the topics.
    SIGTERM ends it in order; the exit status is then 0.

    For example:

        needlestream track --bootstrap-servers kafka:9092 --metrics-port 9109

        needlestream track --delivery at-least-once --session-timeout-s 6 --idle-timeout 30     (the embedded broker)
    """
    configure_logs(settings.log_format)
    from stream.linker import run_linker  # noqa: PLC0415 - with astropy and numba: --help does not wait for them

    table = _known(known, settings)
    with broker_errors():
        check_reachable(settings)  # before the weights are loaded
        run_linker(settings, _scorer(weights, None), idle_timeout_s=idle_timeout, known=table)


def _scorer(weights: str, threshold: float | None) -> Linker:
    """The score of tracks; leaves with a sentence where it cannot be had."""
    from models.linker import load_linker  # noqa: PLC0415 - numba and torch: --help does not wait for them
    from models.weights import BadWeights  # noqa: PLC0415

    try:
        scorer = load_linker(weights)
    except BadWeights as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    return scorer if threshold is None else scorer.accepting(threshold)


def _known(path: Path | None, settings: Settings) -> KnownTable | None:
    """The table of known objects; leaves with what is wrong with it."""
    if path is None:
        return None
    from stream.known import read_known  # noqa: PLC0415 - astropy

    try:
        return read_known(path, settings.known_radius_arcsec)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--known") from None


def _link(
    streaks: Sequence[Path], out: Path, scorer: Linker, known: KnownTable | None = None
) -> tuple[Linked, Sequence[tuple[Match, ...]]]:
    """Link tables into ``out``: tracks.csv, streaks.csv; gives the known objects of each track too."""
    from detector.linking import link  # noqa: PLC0415
    from detector.sightings import catalogue  # noqa: PLC0415
    from stream.tracktable import frame_shapes, read_streaks, write_streaks_back, write_tracks  # noqa: PLC0415

    try:
        table, texts = read_streaks(streaks)
        found = catalogue(table, frame_shapes(streaks))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    linked = link(found, scorer)
    objects = known.of_tracks(linked.tracks, table) if known else ()
    write_tracks(out / "tracks.csv", linked.tracks, table, objects)
    write_streaks_back(out / "streaks.csv", texts, linked.static)
    return linked, objects


@with_settings("device", "max_pixels")
def tracks_command(
    *,
    settings: Settings,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("evaluation"),
    tracks: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Anybody's table of tracks (CSV, ECSV, Parquet).")
    ] = None,
    truth: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Its truth.")] = None,
    frames: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="List of frames; else frames.csv beside the truth.")
    ] = None,
    streaks: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Streaks that were linked: what was lost, --scrambled."),
    ] = None,
    simulated: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="Folder of `simulate`: detect and link; may be repeated."),
    ] = None,
    scrambled: Annotated[
        int, typer.Option(min=0, help="Link so many times with exposures shifted at random: what links is chance.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of those shifts.")] = evaluation.FIRST_EVALUATION_SEED,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="With --simulated: lowest score of streaks that are linked; 0 for all.")
    ] = LINK_SCORE,
    classical: Annotated[
        bool, typer.Option("--classical/--no-classical", help="With --simulated: the multi-epoch route beside (`sep`).")
    ] = True,
    detector: Annotated[str, typer.Option(help="With --simulated: weights of the streaks' network.")] = "streaknet",
    weights: Annotated[str, typer.Option(help="The score of tracks: a shipped name or a file.")] = "linker",
) -> None:
    """Which objects were linked, which tracks are false, how faint it goes; and what chance alone links.

    docs/tracks.md has the rule. Give --tracks with --truth, or --simulated, or --streaks with --scrambled alone (any
    lists, also of real frames). Written to OUT: report.json, report.md.

    For example:

        needlestream evaluate tracks --tracks mine.csv --truth truth.csv

        needlestream evaluate tracks --simulated simulated --scrambled 100 --out evaluation

        needlestream evaluate tracks --streaks night/streaks.csv --scrambled 200
    """
    from models.evaluate.report import as_json  # noqa: PLC0415 - scipy
    from models.evaluate.trackreport import tracks_markdown  # noqa: PLC0415
    from models.evaluate.tracks import Chance, TrackReport, judge_tracks  # noqa: PLC0415

    if (tracks is None) != (truth is None) or (tracks is not None and simulated):
        raise typer.BadParameter("give --tracks with --truth, or --simulated")
    if tracks is None and not simulated and not (streaks and scrambled):
        raise typer.BadParameter("give --tracks with --truth, or --simulated, or --streaks with --scrambled")
    out.mkdir(parents=True, exist_ok=True)
    lists, tables, true, listed = list(streaks or []), {}, None, None
    if simulated:
        true, listed = _in_folders(simulated, "truth.csv"), _in_folders(simulated, "frames.csv")
        tables = _linked_frames(simulated, settings, detector, score, out, _scorer(weights, None), classical=classical)
        lists = [out / "streaks.csv"]
    elif tracks is not None and truth is not None:
        beside = frames or truth.with_name("frames.csv")
        true, listed = _read(truth), _read(beside) if beside.exists() else None
        tables = {OURS if tracks.stem == "tracks" else tracks.stem: _read(tracks)}
    reports: dict[str, TrackReport] = {}
    if true is not None:
        seen = _joined([_read(path) for path in lists]) if lists else None
        try:
            for name, table in tables.items():
                mine = None if name == CLASSICAL else seen
                reports[name] = judge_tracks(table, true, listed, streaks=mine)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    chances: dict[str, Chance] = {}
    if scrambled and lists:
        chances = {OURS: _chance(lists, _scorer(weights, None), scrambled, seed)}
    (out / "report.json").write_text(as_json({"tracks": reports, "scrambled": chances}), encoding="utf-8")
    page = tracks_markdown("Tracks against truth" if reports else "Tracks by chance", reports, chances)
    (out / "report.md").write_text(page, encoding="utf-8")
    typer.echo(page)
    typer.echo(f"written to {out}")


def _chance(lists: Sequence[Path], scorer: Linker, times: int, seed: int) -> Any:
    """Link lists whose exposures are shifted against each other."""
    from models.evaluate.tracks import chance_rate  # noqa: PLC0415
    from stream.tracktable import frame_shapes, read_streaks  # noqa: PLC0415

    try:
        table, _ = read_streaks(lists)
        return chance_rate(table, scorer, times=times, seed=seed, shapes=frame_shapes(lists))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _read(path: Path) -> Columns:
    from models.evaluate.tracks import NUMBERS  # noqa: PLC0415
    from stream.tables import read_columns  # noqa: PLC0415

    try:
        return read_columns(path, NUMBERS)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _joined(tables: Sequence[Columns]) -> Columns:
    """Tables one under the other: the columns that all have."""
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: np.concatenate([table[name] for table in tables]) for name in names}


def _in_folders(folders: Sequence[Path], name: str) -> Columns:
    """Tables of `simulate` from several folders, their frames with the folder before their names."""
    tables = []
    for folder in folders:
        table = _read(folder / name)
        tables.append({**table, "frame": np.array([str(folder / frame) for frame in table["frame"]], np.str_)})
    return _joined(tables)


def _linked_frames(
    folders: Sequence[Path],
    settings: Settings,
    detector: str,
    score: float,
    out: Path,
    scorer: Linker,
    *,
    classical: bool,
) -> dict[str, Columns]:
    """Detect and link the frames of simulated folders, into ``out``; and the classical route on the same frames."""
    from stream.batch import Output, fits_files  # noqa: PLC0415
    from stream.export import Format  # noqa: PLC0415

    files = fits_files(folders)
    changed = {"survey": "auto", "threshold": score, "many_streaks": MOST_CANDIDATES}
    read, examine = examination(settings.model_copy(update=changed), detector, None)
    detect_files(files, Output(out, Format.CSV, pictures=False), read=read, examine=examine)
    _link([out / "streaks.csv"], out / "linked", scorer)
    tables = {OURS: _read(out / "linked" / "tracks.csv")}
    if classical and find_spec("sep") is not None:
        tables[CLASSICAL] = _classical(files, read)
    return tables


def _classical(files: Sequence[Path], read: Any) -> Columns:
    """The classical multi-epoch route on files, field by field and CCD by CCD."""
    from detector.frame import Frame  # noqa: PLC0415
    from models.evaluate.multiepoch import multi_epoch_tracks  # noqa: PLC0415

    groups: dict[tuple[str | None, str | None], list[tuple[Path, int]]] = defaultdict(list)
    for file in files:
        for frame in read(file):
            if isinstance(frame, Frame):
                groups[frame.header.field, frame.header.ccd].append((file, frame.header.extension))
    tables = []
    for members in groups.values():
        wanted = set(members)
        frames = [
            frame
            for file in dict.fromkeys(file for file, _ in members)
            for frame in read(file)
            if isinstance(frame, Frame) and (file, frame.header.extension) in wanted
        ]
        tables.append(multi_epoch_tracks(frames))
    return _joined(tables)


def train_linker_command(out: Path, *, fields: int, seed: int, lists: Sequence[Path]) -> None:
    """Train the score of tracks on drawn lists, and on those of ``lists``: folders with streaks.csv and truth.csv."""
    from rich.progress import track  # noqa: PLC0415

    from models.evaluate.tracks import owners  # noqa: PLC0415
    from stream.tracktable import frame_shapes, read_streaks  # noqa: PLC0415

    with training_extra():
        import lightgbm as _  # noqa: F401, PLC0415 - of the extra: say so before the work, not after it

        from models.training.linking import Lists, split_fields, train_linker  # noqa: PLC0415
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    given: list[Lists] = []
    try:
        for folder in lists:
            table, _texts = read_streaks([folder / "streaks.csv"])
            truth = _read(folder / "truth.csv")
            on = owners(table, truth)
            objects = np.unique(truth["object"], return_inverse=True)[1].reshape(-1)
            owner = np.where(on >= 0, objects[on], -1) if len(objects) else on
            given += split_fields(Lists(table, owner, frame_shapes([folder / "streaks.csv"])))
        calibration = train_linker(
            out,
            seed=seed,
            count=fields,
            lists=given,
            watch=lambda each, count: track(each, "linking drawn fields", total=count),
        )
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    for kind, figures in calibration.items():
        words = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        typer.echo(f"tracks of {kind}: {words}")
    typer.echo(f"written to {out / 'linker.safetensors'}")
