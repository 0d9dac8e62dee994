"""Commands that need no broker: ``detect``, ``simulate``, ``train``, and ``evaluate`` (``stream.commands.evaluation``).

Exit status: 0; 1 when some frames were refused, or something is missing that the text names; 2 for a wrong usage.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stream.commands import evaluation, linking
from stream.commands.examination import beside_others, detect_files, load, progress_bar, reader, training_extra
from stream.commands.options import CLASS_SETTINGS, SHIPPED_JUDGE, machine_errors, with_settings
from stream.settings import Settings  # noqa: TC001 - with_settings reads the annotations
from stream.tables import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXAMINATION = (
    *("survey", "device", "method", "threshold", "many_streaks", "expected_streaks_per_frame", "max_pixels"),
    "other_exposures_mb",
    *CLASS_SETTINGS,
)

# Fewer make no batch.
FEWEST_STAMPS = 64


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command("detect")(detect_command)
    app.command("simulate")(simulate_command)
    app.command("train")(train_command)
    app.add_typer(evaluation.app, name="evaluate")


@with_settings(*EXAMINATION)
def detect_command(
    *,
    frames: Annotated[
        list[Path], typer.Argument(exists=True, metavar="FRAME...", help="FITS files and folders (to the bottom).")
    ],
    settings: Settings,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("streaks"),
    kind: Annotated[
        Literal["csv", "ecsv", "parquet", "ds9"],
        typer.Option("--format", help="One table for all frames; ds9: one region file a frame."),
    ] = "csv",
    picture: Annotated[bool, typer.Option("--picture", help="Draw each frame with its streaks (PNG).")] = False,
    extension: Annotated[int | None, typer.Option(min=0, help="Only this HDU of each file (0 = primary).")] = None,
    flags: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Where each frame's flag maps lie, from its folder: * is its name without the ending, such as "
            "'*_flag.fits'.",
        ),
    ] = None,
    weights: Annotated[str, typer.Option(help="The network: a shipped name or a .safetensors file.")] = "streaknet",
    together: Annotated[
        bool,
        typer.Option(
            "--together/--alone", help="Exposures of one field tell each other what stands still; or each for itself."
        ),
    ] = True,
    judge: Annotated[
        str,
        typer.Option(help="What weighs a field's other exposures: a shipped name or a .safetensors file."),
    ] = SHIPPED_JUDGE,
    proposals: Annotated[
        bool, typer.Option("--proposals", help="Scores of the first stage alone: no second stage, not calibrated.")
    ] = False,
) -> None:
    """Find the streaks in FITS files, with --classes lenses and mergers: tables and pictures out, no broker.

    Writes streaks.csv (docs/streaks.md has every column), frames.csv with one line for each frame, and says for each
    frame how many streaks it has. --threshold 0 gives every proposal, best first, at most 20,000 a frame. With
    --classes asteroids,lenses,mergers there are lenses.csv and mergers.csv too (docs/classes.md).

    Each frame is examined beside those that show its field in the same night, by their WCS, at most seven, as `replay
    --together` does: each candidate's place is looked at in all of them. --alone examines each frame for itself.

    Exit status 1 when some frames were refused: the others are done, and the refused ones listed.

    For example:

        needlestream detect night/*.fits --out night/streaks --picture

        needlestream detect mosaic.fits.fz --extension 3 --threshold 0.1 --format ds9
    """
    from stream.batch import Output, fits_files  # noqa: PLC0415 - with astropy: --help does not wait for it
    from stream.candidatetable import LAYOUTS  # noqa: PLC0415
    from stream.export import Format  # noqa: PLC0415
    from stream.flagfiles import without_flags  # noqa: PLC0415

    files = fits_files(frames)
    if flags is not None:
        files = without_flags(files, flags)
    if not files:
        raise typer.BadParameter(f"no FITS file in {', '.join(map(str, frames))}", param_hint="FRAME...")
    science = load(settings, weights, verified=not proposals, judge=judge)
    read = reader(science, extension, flags)
    refused = detect_files(
        files,
        Output(out, Format(kind), picture, tuple(name for name in LAYOUTS if name in settings.classes)),
        read=read,
        examine=science.examine,
        fieldwise=beside_others(science, read, settings) if together else None,
    )
    typer.echo(f"written to {out}")
    if refused:
        raise typer.Exit(1)


@machine_errors()
def simulate_command(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the frames and their truth.")],
    survey: Annotated[str, typer.Option(help="Whose camera and sky; a wrong name lists all.")] = "euclid-vis",
    fields: Annotated[int, typer.Option(min=1, help="Fields, each of several exposures.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first field; the next has the next number.")] = 1,
    asteroids: Annotated[float, typer.Option(min=0, help="Asteroids in a CCD, on average.")] = 300.0,
    lenses: Annotated[float, typer.Option(min=0, help="Strong lenses in a CCD, on average: lenses.csv.")] = 0.0,
    mergers: Annotated[float, typer.Option(min=0, help="Galaxy mergers, likewise: mergers.csv.")] = 0.0,
    impostors: Annotated[float, typer.Option(min=0, help="What is mistaken for them, likewise: impostors.csv.")] = 0.0,
    ccds: Annotated[int, typer.Option(min=1, help="CCDs of the mosaic.")] = 1,
    dithers: Annotated[int, typer.Option(min=1, help="Exposures of a field.")] = 4,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Of a CCD; the camera's own when not given.")] = None,
    compressed: Annotated[bool, typer.Option("--compressed", help="Write .fits.fz (Rice).")] = False,
    flags: Annotated[bool, typer.Option("--flags", help="With an extension of cosmic-ray flags a CCD.")] = False,
    gallery: Annotated[
        bool, typer.Option("--gallery", help="Instead, one page of stamps of lenses, mergers and impostors (PNG).")
    ] = False,
) -> None:
    """Draw whole exposures with asteroids on them: FITS files as the instrument writes them, truth.csv, frames.csv.

    For example:

        needlestream simulate --survey euclid-vis --fields 2 --seed 900001 --out simulated
        needlestream simulate --survey all --gallery --seed 900001 --out simulated
    """
    if gallery:
        _draw_gallery(out, survey, seed)
        return
    shape = None if size is None else evaluation.frame_size(size)
    with training_extra():
        from models.simulate.exposure import CAMERAS, Plan, write_fields  # noqa: PLC0415 - numba compiles when it is run
        from models.simulate.stamps import SURVEYS  # noqa: PLC0415
    if survey not in CAMERAS:
        raise typer.BadParameter(f"{survey!r}: there are {', '.join(CAMERAS)}", param_hint="--survey")
    if (lenses or mergers or impostors) and survey not in SURVEYS:
        raise typer.BadParameter(f"lenses and mergers are drawn for {', '.join(SURVEYS)}", param_hint="--survey")
    plan = Plan(
        survey,
        asteroids=asteroids,
        shape=shape,
        ccds=ccds,
        dithers=dithers,
        lenses=lenses,
        mergers=mergers,
        impostors=impostors,
    )
    with progress_bar() as bar:
        task = bar.add_task("exposures", total=fields * dithers)
        truth = write_fields(
            out,
            plan,
            seed,
            fields=fields,
            compressed=compressed,
            flags=flags,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(f"{fields * dithers} exposures written to {out}, their truth to {truth}")


def _draw_gallery(out: Path, survey: str, seed: int) -> None:
    """Write ``out/gallery.png``."""
    with training_extra():
        from models.simulate.gallery import draw_gallery  # noqa: PLC0415 - numba compiles when it is run
        from models.simulate.stamps import SURVEYS  # noqa: PLC0415
    if survey not in {*SURVEYS, "all"}:
        raise typer.BadParameter(f"stamps are drawn for {', '.join(SURVEYS)}, all", param_hint="--survey")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "gallery.png"
    with replacing(path) as partial:
        draw_gallery(survey, seed).save(partial, format="PNG")
    typer.echo(f"written to {path}")


@machine_errors()
def train_command(
    name: Annotated[str, typer.Argument(help="Which network, such as streaknet.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for skies, log, checkpoints and weights.")],
    survey: Annotated[str, typer.Option(help="Whose skies to learn from; a wrong name lists all.")] = "all",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the optimiser, in the whole training: 20000, or 2000 with --labels.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Stop this call after so long; --resume goes on.")] = 55.0,
    scenes: Annotated[int, typer.Option(min=1, help="Skies to draw before training.")] = 400,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw exposures meanwhile.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Below 900000: those above belong to evaluation.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    init_from: Annotated[str | None, typer.Option(help="Begin with these weights: a shipped name or a file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    stamps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|DIR",
            help="For lenses and mergers: how many stamps to draw first (40000), or a folder of your own "
            "(docs/classes.md); both may be given.",
        ),
    ] = None,
    freeze: Annotated[
        int, typer.Option(min=0, help="With --init-from: the first layers (vgg19: blocks) that learn no more.")
    ] = 0,
    exposures: Annotated[
        int, typer.Option(min=2, help="For the second stage of streaknet, and asteroid: exposures to learn from.")
    ] = 384,
    tune: Annotated[
        bool, typer.Option("--tune", help="For asteroid: go on with the second stage that --init-from has.")
    ] = False,
    sky_frames: Annotated[
        int, typer.Option(min=0, help="For discriminator: whole frames of each survey to draw, to learn from besides.")
    ] = 0,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Learn from these labels (docs/labels.md), not simulated skies."
        ),
    ] = None,
    frames: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="With --labels: folder of the frames they name.")
    ] = None,
    lists: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="For linker: folder with streaks.csv and truth.csv; repeated."),
    ] = None,
) -> None:
    """Train a network on simulated skies, then calibrate it: OUT/streaknet.safetensors, for `detect --weights`.

    With --labels and --frames it learns from your own frames instead, beginning with --init-from (the shipped weights
    when not given): asteroids that were found before (label 1) against other detections (label 0).

    `train denselens`, `resnet`, `merger`, `vgg19` and `discriminator` draw --stamps stamps of lenses, mergers and what
    is mistaken for them, and learn from these: OUT/NAME.safetensors. vgg19 takes a file of the convolutions' weights
    (.safetensors or .pth) as --init-from.

    `train linker` learns the score of tracks from --scenes drawn fields (lists of streaks, no pixels) and from --lists.

    `train fieldjudge` learns what the other exposures of a field say of a streak, from --scenes whole drawn fields, for
    the network that --init-from names (the shipped one when not given); fields that are in --out are not drawn again.

    For example:

        needlestream train streaknet --survey euclid-vis --out runs/euclid --minutes 120

        needlestream train streaknet --labels found.csv --frames night/ --out runs/mine
    """
    if name == "linker":
        linking.train_linker_command(out, fields=scenes, seed=seed, lists=lists or [])
        return
    if name == "fieldjudge":
        _train_fieldjudge(out, fields=scenes, seed=seed, weights=init_from or "streaknet", device=device)
        return
    with training_extra():
        from models.training.particletable import BadStamps  # noqa: PLC0415
        from models.training.recipes import BadRecipe, Training, train  # noqa: PLC0415 - torch
        from models.weights import BadWeights  # noqa: PLC0415
    if (labels is None) != (frames is None):
        raise typer.BadParameter("--labels and --frames go together")
    if labels is not None and frames is not None:
        settings = {"seed": seed, "steps": steps, "minutes": minutes, "device": device, "resume": resume}
        _train_on_labels(name, out, labels, frames, init_from, settings)
        return
    drawn, own = _stamps_asked(stamps or [])
    training = Training(
        out,
        survey=survey,
        seed=seed,
        steps=steps or 20_000,
        minutes=minutes,
        scenes=scenes,
        workers=workers,
        device=device,
        resume=resume,
        init_from=init_from,
        stamps=drawn,
        own=own,
        freeze=freeze,
        frames=sky_frames,
        verifying=exposures,
        tune=tune,
    )
    try:
        outcome = train(name, training)
    except (BadRecipe, BadStamps, BadWeights) as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(f"step {outcome.step}, best validation loss {outcome.best_loss:.4f}, stopped by {outcome.stopped}")


def _train_fieldjudge(out: Path, *, fields: int, seed: int, weights: str, device: str) -> None:
    """Learn what other exposures say; says how well it does on the fields that were held back."""
    with training_extra():
        import lightgbm as _  # noqa: F401, PLC0415 - of the extra: say so before the work, not after it

        from models.training.fieldjudge import train_fieldjudge  # noqa: PLC0415 - torch
        from models.weights import BadWeights  # noqa: PLC0415
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    processes = os.cpu_count() or 1
    try:
        curve, found = train_fieldjudge(
            out, weights=weights, device=device, seed=seed, count=fields, processes=processes
        )
    except (BadWeights, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(
        f"held back: {curve.candidates} candidates; above one half {curve.found_at_half:.1%} of the true ones, and "
        f"{curve.false_at_half:.1f} false ones in 17 megapixels where {curve.density:.0f} are true; slope "
        f"{curve.slope:.3f}, calibration error {curve.error:.4f}"
    )
    typer.echo(
        f"found at ten false ones in 17 megapixels: {found['trees']:.1%} by the trees, {found['weighed']:.1%} by the "
        f"ratio of likelihoods, {found['judged']:.1%} by each exposure alone"
    )
    typer.echo(f"written to {out / 'fieldjudge.safetensors'}")


def _stamps_asked(words: Sequence[str]) -> tuple[int, Path | None]:
    """How many stamps to draw, and the folder of the user's own."""
    numbers = [int(word) for word in words if word.isdecimal()]
    folders = [Path(word) for word in words if not word.isdecimal()]
    if len(numbers) > 1 or len(folders) > 1:
        raise typer.BadParameter("give one number, one folder, or one of each", param_hint="--stamps")
    if numbers and numbers[0] < FEWEST_STAMPS:
        raise typer.BadParameter(f"at least {FEWEST_STAMPS}", param_hint="--stamps")
    if folders and not folders[0].is_dir():
        raise typer.BadParameter(f"{folders[0]}: neither a number nor a folder", param_hint="--stamps")
    return numbers[0] if numbers else 40_000, folders[0] if folders else None


def _train_on_labels(
    name: str, out: Path, labels: Path, frames: Path, init_from: str | None, settings: Mapping[str, Any]
) -> None:
    """Learn from a table of labels; says what the held-back frames say, before and after."""
    from models.training.labels import NUMBERS, LabelTraining, train_on_labels  # noqa: PLC0415 - torch
    from models.training.recipes import BadRecipe  # noqa: PLC0415
    from models.weights import BadWeights  # noqa: PLC0415
    from stream.tables import read_columns  # noqa: PLC0415

    told = {key: value for key, value in settings.items() if value is not None}
    if init_from is not None:
        told["init_from"] = init_from
    try:
        done = train_on_labels(name, LabelTraining(out, read_columns(labels, NUMBERS), frames, **told))
    except (BadRecipe, BadWeights, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(
        f"{done.asteroids} asteroids and {done.impostors} others in {done.frames} frames; step {done.run.step}, loss "
        f"on the held-back frames {done.before['loss']:.4f} -> {done.run.best_loss:.4f}, stopped by {done.run.stopped}"
    )
