"""``evaluate discriminator`` and ``calibrate discriminator``: whole simulated frames, mapped and judged by their truth.

Thin: folders of ``simulate`` are read here, judged in ``models.evaluate``, and written to one folder.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from stream.commands.evaluation import app as evaluation_app
from stream.commands.examination import training_extra
from stream.commands.options import with_settings
from stream.settings import Settings  # noqa: TC001 - with_settings reads the annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.classpredictor import MapPredictor
    from models.evaluate.classframes import ClassFrame

# Peaks of a lower probability than this are not looked at, whatever the floors of the weights.
LOWEST = 1e-4


@evaluation_app.command("discriminator")
@with_settings("device", "lens_weights", "merger_weights", "discriminator_weights")
def discriminator_command(
    *,
    settings: Settings,
    simulated: Annotated[
        list[Path], typer.Option(exists=True, file_okay=False, help="Folder of `simulate`, with its tables; repeated.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for all that is written.")] = Path("evaluation"),
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the curves (matplotlib).")] = True,
) -> None:
    r"""Completeness and purity of what the discriminator hands on, on whole simulated frames with lenses and mergers.

    Of lenses and mergers those count that their own network tells from the frames' impostors; of asteroids those of a
    signal-to-noise of 10 and no longer than 64 px of 0.2 arcsec. Written to OUT: report.md, completeness.png, and
    stamps-lens.png and so on, the best true places above the worst false ones.

    For example:

        needlestream simulate --survey kids-omegacam --size 1024x1024 --dithers 1 --lenses 32 --mergers 32 \\
            --impostors 40 --seed 905000 --out sky

        needlestream evaluate discriminator --simulated sky --out discriminator
    """
    from models.evaluate.classplots import draw_completeness, stamp_page  # noqa: PLC0415
    from models.evaluate.classscan import ensembles, frames_markdown  # noqa: PLC0415

    network = _network(settings.discriminator_weights, settings.device)
    frames, known = _read(simulated, network, settings)
    found = ensembles(frames, known, _deep(network), network.class_weights.tolist())
    floors = {label: network.floor(label) for label in found}
    page = frames_markdown(frames, found, floors)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(page, encoding="utf-8")
    for label, one in found.items():
        pixels = _pictured(frames, label, network)
        judged = one.verdict >= 0
        stamp_page(pixels[judged], one.odds[judged], one.verdict[judged] == 1).save(out / f"stamps-{label}.png")
    if plots:
        with training_extra():
            draw_completeness(out, found)
    typer.echo(page)
    typer.echo(f"written to {out}")


def calibrate_discriminator(weights: str, simulated: Sequence[Path], out: Path, settings: Settings) -> None:
    """Scan the weights of the classes: ``out`` with the purest weights and their floors, the scan beside it."""
    from models.classpredictor import log_odds_of  # noqa: PLC0415
    from models.evaluate.classscan import scan, scan_table  # noqa: PLC0415
    from models.networks.discriminator import CLASSES  # noqa: PLC0415
    from models.weights import load, save  # noqa: PLC0415

    out.parent.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    network = dataclasses.replace(_network(weights, settings.device), class_weights=np.ones(len(CLASSES)))
    frames, known = _read(simulated, network, settings)
    rows = scan(frames, known, _deep(network))
    table = scan_table(rows)
    with out.with_suffix(".scan.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows({name: f"{value:.4g}" for name, value in row.items()} for row in table)
    best, told = rows[0], table[0]
    floors = {
        label: told[f"floor_{label}"] if floor > log_odds_of(LOWEST) else LOWEST
        for label, floor in zip(("lens", "merger", "asteroid"), best.floors, strict=True)
    }
    given = load(weights)
    facts = {
        **given.facts,
        "class_weights": dict(zip(CLASSES, (1.0, *best.weights), strict=True)),
        "floors": floors,
        "scan": told,
    }
    save(out, given.tensors, facts)
    typer.echo("\n".join(f"{name} {value:.4g}" for name, value in told.items()))
    typer.echo(f"written to {out}, the scan to {out.with_suffix('.scan.csv')}")


def _network(weights: str, device: str) -> MapPredictor:
    from models.classpredictor import load_discriminator  # noqa: PLC0415
    from models.weights import BadWeights  # noqa: PLC0415

    try:
        return load_discriminator(weights, device)
    except BadWeights as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _deep(network: MapPredictor) -> MapPredictor:
    """The same network with floors far below any operating point."""
    return dataclasses.replace(network, floors=dict.fromkeys(("lens", "merger", "asteroid"), LOWEST))


def _read(
    folders: Sequence[Path], network: MapPredictor, settings: Settings
) -> tuple[list[ClassFrame], dict[str, Sequence[NDArray[np.bool_]]]]:
    """The frames, mapped, and which of their objects are recognised; leaves with a sentence where there are none."""
    from detector.candidates import class_map  # noqa: PLC0415
    from detector.tiling import Tiling  # noqa: PLC0415
    from models.classpredictor import load_class_network  # noqa: PLC0415
    from models.evaluate.classframes import read_folder  # noqa: PLC0415
    from models.evaluate.classscan import recognised  # noqa: PLC0415
    from models.weights import BadWeights  # noqa: PLC0415

    even = dataclasses.replace(network, class_weights=np.ones_like(network.class_weights))

    def logits_of(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logarithms of the classes' probabilities: logits but for what all have in common."""
        return -np.logaddexp(np.float32(0.0), -class_map(coarse, even))

    tiling = Tiling(network.window, network.step)
    try:
        frames = [frame for folder in folders for frame in read_folder(folder, logits_of, tiling)]
        judges = {
            "lens": load_class_network(settings.lens_weights, settings.device, task="lenses"),
            "merger": load_class_network(settings.merger_weights, settings.device, task="mergers"),
        }
    except BadWeights as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--simulated") from None
    return frames, dict(recognised(frames, {label: judge.logit for label, judge in judges.items()}))


def _pictured(frames: Sequence[ClassFrame], label: str, network: MapPredictor) -> NDArray[np.float32]:
    """The cut-outs of all places of a class, in the order of its ensemble."""
    from detector.candidates import cut_stamps, shortlist  # noqa: PLC0415
    from models.evaluate.classscan import weighted  # noqa: PLC0415

    parts = []
    for frame in frames:
        found = shortlist(frame.coarse, weighted(network.class_weights.tolist())(frame.logits), label, _deep(network))
        parts.append(cut_stamps(frame.coarse, [(round(x), round(y)) for x, y in found[:, :2]]))
    return np.concatenate(parts)
