"""Lenses and mergers in stamps: ``classify``, ``evaluate lenses`` and ``mergers``, ``calibrate``.

Thin: stamps are read or drawn here, judged in ``models``, and written to tables and pages.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from stream.commands.candidatejudging import CandidateTable, FrameCount, TruthTable, Within, judge_candidate_tables
from stream.commands.discriminating import calibrate_discriminator
from stream.commands.evaluation import FIRST_EVALUATION_SEED
from stream.commands.evaluation import app as evaluation_app
from stream.commands.examination import progress_bar, training_extra
from stream.commands.options import with_settings
from stream.settings import Settings  # noqa: TC001 - with_settings reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from detector.frame import FrameHeader
    from models.classpredictor import ClassPredictor
    from models.evaluate.classes import Judgement
    from models.training.stampbank import Stamps, Task

FIRST_SEED = FIRST_EVALUATION_SEED + 700
# A lens is as rare among massive galaxies, a merger among galaxies (Collett 2015; Lotz et al. 2011).
BASE_RATES = {"lenses": 1e-3, "mergers": 0.1}
FEWEST_FALSE = 1_000


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command("classify")(classify_command)
    app.command("calibrate")(calibrate_command)


@with_settings("survey", "device", "max_pixels", "lens_weights", "merger_weights")
def classify_command(
    *,
    what: Annotated[Literal["lenses", "mergers"], typer.Argument(help="What the stamps may show.")],
    stamps: Annotated[list[Path], typer.Argument(exists=True, metavar="STAMP...", help="FITS stamps and folders.")],
    settings: Settings,
    out: Annotated[Path, typer.Option(dir_okay=False, help="The table (CSV).")] = Path("candidates.csv"),
    pixel_scale: Annotated[
        float | None, typer.Option(min=0.001, metavar="ARCSEC", help="Of a pixel, where the file does not say.")
    ] = None,
    fwhm: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="ARCSEC", help="Of the PSF: one narrower than was trained with is widened."),
    ] = None,
) -> None:
    """Judge stamps that show one object in their middle: the table of candidates, every stamp in it.

    Each is brought to pixels that the network knows, its noise is measured at its border, and the peak of its light
    is centred (docs/classes.md). The rank of lenses is that among all stamps given. Exit status 1 when some could not
    be read.

    For example:

        needlestream classify lenses cutouts/*.fits --pixel-scale 0.1 --out lenses.csv
    """
    from stream.batch import fits_files  # noqa: PLC0415
    from stream.candidatetable import LAYOUTS  # noqa: PLC0415
    from stream.tables import csv_table  # noqa: PLC0415

    judge = _judge(what, settings)
    images, headers, places, refused = _read_stamps(fits_files(stamps), settings, what, pixel_scale, fwhm)
    rows = _candidates(images, places, judge)
    rank = _ranks(rows["ic"])
    with csv_table(out, LAYOUTS[what]) as add:
        for header, row, place in zip(headers, rows, rank, strict=True):
            row["rank"] = place
            add(_as_findings(header, row, what, judge.model))
            typer.echo(f"{header.name} [{header.extension}]: {row['probability']:.4f}")
    for sentence in refused:
        typer.echo(f"refused: {sentence}", err=True)
    typer.echo(f"written to {out}")
    if refused:
        raise typer.Exit(1)


@evaluation_app.command("lenses")
@with_settings("device", "lens_weights")
def lenses_command(
    *,
    settings: Settings,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("evaluation"),
    stamps: Annotated[int, typer.Option(min=100, help="To draw, half of them lenses.")] = 4_000,
    seed: Annotated[int, typer.Option(min=FIRST_EVALUATION_SEED, help="No training takes these.")] = FIRST_SEED,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw stamps.")] = 1,
    survey: Annotated[str, typer.Option(help="all, or one that stamps are drawn for.")] = "all",
    baseline: Annotated[str, typer.Option(help="Weights to stand beside it; empty for none.")] = "resnet",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw them (matplotlib).")] = True,
    detections: CandidateTable = None,
    truth: TruthTable = None,
    frames: FrameCount = None,
    within: Within = 1.0,
) -> None:
    """ROC, rank order and probabilities of the lens networks on simulated stamps, beside the floor of hand-made shapes.

    The stamps are kept in OUT/bank, a thousand a file: what was drawn there before is not drawn again.

    With --detections and --truth anybody's table of candidates is judged instead (docs/classes.md has the rule).

    For example:

        needlestream evaluate lenses --stamps 20000 --out lenses

        needlestream evaluate lenses --detections found/lenses.csv --truth sky/lenses.csv --out lenses
    """
    if detections is not None or truth is not None:
        judge_candidate_tables("Lenses", detections, truth, frames, within, out)
        return
    drawn = _drawn(out / "bank", "lenses", survey, seed, stamps, "training", workers)
    judge, true, pixels, judgements = _judged("lenses", drawn, settings, baseline)
    ic, _ = judge.content(pixels)
    from models.evaluate.classes import Judgement, top_markdown  # noqa: PLC0415

    # Not every network says how much a lens has to tell.
    if np.isfinite(ic).all():
        judgements["rank by IC, of what is above the threshold"] = Judgement(
            np.where(judgements[judge.name].probability >= judge.threshold, 1e6 + ic, judgements[judge.name].score)  # type: ignore[operator]
        )
    best = top_markdown(judgements, true, rate=BASE_RATES["lenses"])
    _write(out, "Lenses in simulated stamps", judgements, true, pixels, judge.name, (best,), plots=plots)


@evaluation_app.command("mergers")
@with_settings("device", "merger_weights")
def mergers_command(
    *,
    settings: Settings,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("evaluation"),
    stamps: Annotated[int, typer.Option(min=100, help="To draw, half of them mergers.")] = 2_000,
    seed: Annotated[int, typer.Option(min=FIRST_EVALUATION_SEED, help="No training takes these.")] = FIRST_SEED,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw stamps.")] = 1,
    survey: Annotated[str, typer.Option(help="all, or one that stamps are drawn for.")] = "all",
    drawn: Annotated[
        Literal["training", "hard"],
        typer.Option("--settings", help="hard: other mass ratios, star formation and depth than in training."),
    ] = "hard",
    baseline: Annotated[str, typer.Option(help="Weights to stand beside it (vgg19); empty for none.")] = "",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw them (matplotlib).")] = True,
    detections: CandidateTable = None,
    truth: TruthTable = None,
    frames: FrameCount = None,
    within: Within = 1.0,
) -> None:
    """Accuracy, precision and ROC of the merger networks on simulated stamps, beside the floor of hand-made shapes.

    The stamps are kept in OUT/bank, a thousand a file: what was drawn there before is not drawn again.

    With --detections and --truth anybody's table of candidates is judged instead (docs/classes.md has the rule).

    For example:

        needlestream evaluate mergers --settings hard --out mergers

        needlestream evaluate mergers --detections found/mergers.csv --truth sky/mergers.csv --out mergers
    """
    if detections is not None or truth is not None:
        judge_candidate_tables("Mergers", detections, truth, frames, within, out)
        return
    found = _drawn(out / "bank", "mergers", survey, seed, stamps, drawn, workers)
    judge, true, pixels, judgements = _judged("mergers", found, settings, baseline)
    _write(out, f"Mergers in simulated stamps ({drawn})", judgements, true, pixels, judge.name, (), plots=plots)


def calibrate_command(
    name: Annotated[str, typer.Argument(help="Shipped weights or a file: denselens, ..., discriminator.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The calibrated weights (.safetensors).")],
    labels: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="CSV with the columns stamp (a FITS file), label.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="The share of true ones where it will be used; that of the sample if not given."),
    ] = None,
    pixel_scale: Annotated[float | None, typer.Option(min=0.001, help="Of the stamps, where they do not say.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    simulated: Annotated[
        list[Path] | None, typer.Option(exists=True, file_okay=False, help="For discriminator: folders of `simulate`.")
    ] = None,
) -> None:
    """Make the probabilities of a network mean what they say on your own labelled stamps, or for another share.

    The networks stay as they are; the curve and the threshold are new. With fewer than 1,000 stamps that are none the
    threshold stays at the network's own answer, for a rate of one in a thousand cannot be seen.

    The discriminator is calibrated on whole frames of `simulate` with lenses and mergers (--simulated): the weights of
    its classes are scanned, the scan is kept beside OUT, and the floors of the purest weights lose none of the objects.

    For example:

        needlestream calibrate denselens --labels mine.csv --rate 0.001 --out mine.safetensors
    """
    from models.calibration import curve_of, fit_curve, recalibrated  # noqa: PLC0415
    from models.weights import BadWeights, load, save  # noqa: PLC0415
    from stream.settings import load_settings  # noqa: PLC0415

    if simulated:
        calibrate_discriminator(name, simulated, out, load_settings(None, {"device": device}))
        return
    if labels is None and rate is None:
        raise typer.BadParameter("give --labels, --rate, or both")
    try:
        weights = load(name)
        curve = curve_of(weights.facts)
        if labels is not None:
            logit, true = _labelled(labels, name, device, pixel_scale)
            curve = fit_curve(logit, true)
            enough = int((~true).sum()) >= FEWEST_FALSE
        facts = recalibrated(
            weights.facts, curve, rate, false_logit=logit[~true] if labels is not None and enough else None
        )
    except (BadWeights, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    save(out, weights.tensors, facts)
    told = facts["calibration"]
    typer.echo(
        f"written to {out}: slope {told['slope']:.3f}, share {told['rate']:g}, threshold {facts['threshold']:.4g}"
    )


def _labelled(
    table: Path, name: str, device: str, pixel_scale: float | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The network's logit of each labelled stamp, and whether it is one."""
    from models.classpredictor import LENS_NETWORKS, load_class_network  # noqa: PLC0415
    from models.weights import load  # noqa: PLC0415
    from stream.settings import load_settings  # noqa: PLC0415
    from stream.tables import read_columns  # noqa: PLC0415

    columns = read_columns(table, {"label"})
    if not {"stamp", "label"} <= set(columns):
        raise ValueError(f"{table}: needs the columns stamp and label")
    task = "lenses" if load(name).facts.get("network") in LENS_NETWORKS else "mergers"
    judge = load_class_network(name, device, task=task)
    files = [table.parent / file for file in columns["stamp"].tolist()]
    images, _, _, refused = _read_stamps(files, load_settings(None, {}), task, pixel_scale)
    if refused or len(images) != len(files):
        raise ValueError(f"{table}: each stamp must be one image that can be read: {'; '.join(refused[:3])}")
    return judge.logit(images), columns["label"] > 0


def _judge(task: str, settings: Settings) -> ClassPredictor:
    from models.classpredictor import load_class_network  # noqa: PLC0415
    from models.weights import BadWeights  # noqa: PLC0415

    name = settings.lens_weights if task == "lenses" else settings.merger_weights
    try:
        return load_class_network(name, settings.device, task=task)
    except BadWeights as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _read_stamps(
    files: Sequence[Path], settings: Settings, task: str, pixel_scale: float | None, fwhm: float | None = None
) -> tuple[NDArray[np.float32], list[FrameHeader], list[tuple[float, float]], list[str]]:
    """Stamps ``[n, 64, 64]`` as networks of ``task`` see them, their headers and middles; what could not be read."""
    from detector.fits import read_frames  # noqa: PLC0415
    from detector.frame import BadFrame  # noqa: PLC0415
    from detector.stamps import prepared_stamp  # noqa: PLC0415
    from detector.survey import SURVEYS  # noqa: PLC0415
    from stream.commands.options import frame_limits  # noqa: PLC0415

    images, headers, places, refused = [], [], [], []
    for file in files:
        try:
            survey = SURVEYS.get(settings.survey)
            for frame in read_frames(file, name=str(file), survey=survey, limits=frame_limits(settings)):
                if isinstance(frame, BadFrame):
                    refused.append(frame.detail)
                    continue
                scale = pixel_scale or frame.header.pixel_scale_arcsec or frame.header.survey.pixel_scale_arcsec
                if not scale:
                    refused.append(
                        f"{file} [{frame.header.extension}] does not say how large its pixels are: give --pixel-scale"
                    )
                    continue
                image, x, y = prepared_stamp(frame.pixels, frame.mask, scale, task, fwhm_arcsec=fwhm)
                images.append(image)
                places.append((x, y))
                headers.append(replace(frame.header, pixel_scale_arcsec=scale))
        except BadFrame as bad:
            refused.append(bad.detail)
        except (PermissionError, FileNotFoundError) as error:
            refused.append(f"{file}: {error.strerror}")
    return np.array(images, np.float32).reshape(-1, 64, 64), headers, places, refused


def _candidates(images: NDArray[np.float32], places: Sequence[tuple[float, float]], judge: ClassPredictor) -> Any:
    """The table of candidates of stamps."""
    from detector.classtable import empty_candidates  # noqa: PLC0415

    rows = empty_candidates(len(images))
    if len(rows):
        rows["x"], rows["y"] = np.array(places).T
        rows["probability"], rows["probability_err"] = judge.judge(images)
        rows["ic"], rows["ic_err"] = judge.content(images)
    return rows


def _ranks(ic: NDArray[np.float64]) -> NDArray[np.intp]:
    """The place of each by its information content, 1 first; 0 where there is none."""
    ranks = np.zeros(len(ic), np.intp)
    known = np.isfinite(ic)
    ranks[known] = 1 + np.argsort(np.argsort(-ic[known], kind="stable"), kind="stable")
    return ranks


def _as_findings(header: FrameHeader, row: Any, task: str, model: str) -> Any:
    from detector.astrometry import to_sky  # noqa: PLC0415
    from detector.streaks import Findings, empty  # noqa: PLC0415

    rows = np.array([row])
    if header.wcs is not None:
        rows["ra"], rows["dec"] = to_sky(header.wcs, rows["x"].copy(), rows["y"].copy())
    nothing = Findings(header, empty(0), 0.0, 0.0, 0.0, {}, {}, header.flags, models={task: model})
    return replace(nothing, lenses=rows) if task == "lenses" else replace(nothing, mergers=rows)


def _drawn(
    folder: Path,
    task: Task,
    survey: str,
    seed: int,
    count: int,
    drawn: Literal["training", "hard"],
    workers: int,
) -> Stamps:
    """The stamps of a bank, of which is drawn what is not there yet."""
    with training_extra():
        from models.simulate.stamps import SURVEYS  # noqa: PLC0415 - numba compiles when it is run
        from models.training.stampbank import StampBank, make_parts  # noqa: PLC0415
    if survey not in {"all", *SURVEYS}:
        raise typer.BadParameter(f"stamps are drawn for {', '.join(SURVEYS)}, all", param_hint="--survey")
    bank = StampBank(folder, task, survey, seed, count, settings=drawn)
    with progress_bar() as bar:
        for _ in bar.track(make_parts(bank, workers), total=bank.parts, description="drawing stamps"):
            pass
    return bank.stamps()


def _judged(
    task: Task, stamps: Stamps, settings: Settings, baseline: str
) -> tuple[ClassPredictor, NDArray[np.bool_], NDArray[np.float32], dict[str, Judgement]]:
    """The judge, which drawn stamps are true, their pixels, and what each judge says; the floor is the last one."""
    from models.classpredictor import load_class_network  # noqa: PLC0415
    from models.evaluate.classes import Judgement  # noqa: PLC0415

    with training_extra():
        from models.evaluate.floor import boosted_scores, morphology_features  # noqa: PLC0415
    judge = _judge(task, settings)
    true, pixels = stamps.label > 0, stamps.pixels.astype(np.float32)
    judges = [judge] if not baseline else [judge, load_class_network(baseline, settings.device, task=task)]
    judgements = {}
    for one in judges:
        logit = one.logit(pixels)
        judgements[one.name] = Judgement(logit, one.curve.probability(logit), one.threshold)
    with training_extra():
        floor = boosted_scores(morphology_features(pixels), true)
    judgements["floor: shapes, boosted"] = Judgement(floor, floor)
    return judge, true, pixels, judgements


def _write(
    out: Path,
    title: str,
    judgements: Mapping[str, Judgement],
    true: NDArray[np.bool_],
    pixels: NDArray[np.float32],
    name: str,
    remarks: tuple[str, ...],
    *,
    plots: bool,
) -> None:
    """Write report.json, report.md, the page of stamps and, where asked, the curves."""
    from models.evaluate.classes import class_markdown, judged  # noqa: PLC0415
    from models.evaluate.classplots import draw_curves, stamp_page  # noqa: PLC0415
    from models.evaluate.report import as_json  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    reports = {judge: judged(judgement, true) for judge, judgement in judgements.items()}
    page = class_markdown(title, reports, remarks)
    (out / "report.md").write_text(page, encoding="utf-8")
    (out / "report.json").write_text(as_json(reports), encoding="utf-8")
    stamp_page(pixels, judgements[name].score, true).save(out / "stamps.png")
    if plots:
        with training_extra():
            draw_curves(out, judgements, reports, true)
    typer.echo(page)
    typer.echo(f"written to {out}")
