"""The discriminator's weights of classes and its floors: scanned over simulated frames, and told as a page.

How much a class weighs at inference is a shift of its logit: it changes what outdoes what in a map, while the network
stays as it is. For thresholds that is the same as another share of the class in training, though not the same as
training with it. The floors of the chosen weights lose none of the objects that were scanned.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.classpredictor import log_odds_against_others
from models.evaluate.classframes import (
    COMPLETENESSES,
    RECOGNISED_FALSE,
    SEARCHED,
    ensemble,
    floor_for,
    purity_above,
    purity_at_rate,
    stamps_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from detector.candidates import Discriminator
    from models.evaluate.classframes import ClassFrame, Ensemble

    Recognised = Mapping[str, Sequence[NDArray[np.bool_]]]

WEIGHTS = (0.2, 1.0, 5.0)
# Objects a square arcminute: what Euclid expects of its 14,000 square degrees (1e5 lenses, 1e7 mergers, 1.5e5
# asteroids; Verdoes Kleijn et al.).
REAL_PER_ARCMIN2 = {"lens": 1e5 / 5.04e7, "merger": 1e7 / 5.04e7, "asteroid": 1.5e5 / 5.04e7}


@dataclass(frozen=True)
class ScanRow:
    """Weights of lens, merger and asteroid (that of nothing is 1), and by class the floor that loses none, and purity.

    ``floors`` are log-odds, ``purity`` that above them; ``near`` the purity where one object in 200 is lost.
    """

    weights: tuple[float, ...]
    floors: tuple[float, ...]
    purity: tuple[float, ...]
    near: tuple[float, ...]


def recognised(
    frames: Sequence[ClassFrame], logits: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float64]]]
) -> Recognised:
    """Which objects of each frame their own network (``logits`` by lens, merger) tells from the frames' impostors.

    The cut is the logit that one impostor in a hundred exceeds. Of asteroids all are, that count.
    """
    out: dict[str, Sequence[NDArray[np.bool_]]] = {
        "asteroid": [np.ones(len(frame.ends["asteroid"]), np.bool_) for frame in frames]
    }
    for label, logit in logits.items():
        false = np.concatenate([logit(stamps_of(frame, "impostor", label)) for frame in frames])
        cut = np.quantile(false, 1.0 - RECOGNISED_FALSE) if len(false) else -np.inf
        out[label] = [logit(stamps_of(frame, label, label)) > cut for frame in frames]
    return out


def weighted(weights: Sequence[float]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What makes log-odds of a map of logits ``[rows, cols, 4]`` where classes weigh ``weights`` (nothing first)."""
    shift = np.log(np.asarray(weights, np.float64))
    return lambda logits: log_odds_against_others(logits.astype(np.float64) + shift).astype(np.float32)


def ensembles(
    frames: Sequence[ClassFrame], known: Recognised, discriminator: Discriminator, weights: Sequence[float]
) -> dict[str, Ensemble]:
    """What each class's network would be shown, by class."""
    return {label: ensemble(frames, label, known[label], discriminator, weighted(weights)) for label in SEARCHED}


def scan(frames: Sequence[ClassFrame], known: Recognised, discriminator: Discriminator) -> list[ScanRow]:
    """Every combination of ``WEIGHTS``, the purest first."""
    rows = []
    for weights in itertools.product(WEIGHTS, repeat=3):
        found = ensembles(frames, known, discriminator, (1.0, *weights))
        floors = tuple(floor_for(one, 1.0) for one in found.values())
        purity = tuple(purity_above(one, floor) for one, floor in zip(found.values(), floors, strict=True))
        near = tuple(purity_above(one, floor_for(one, 0.995)) for one in found.values())
        rows.append(ScanRow(weights, floors, purity, near))
    return sorted(rows, key=lambda row: -float(np.nanmean(row.purity)))


def scan_table(rows: Sequence[ScanRow]) -> list[dict[str, float]]:
    """The scan as rows of plain numbers: ``weight_LENS ...``, ``floor_...`` (a probability), ``purity_...``."""
    table = []
    for row in rows:
        told: dict[str, float] = {}
        for k, label in enumerate(SEARCHED):
            told[f"weight_{label}"] = row.weights[k]
            told[f"floor_{label}"] = float(1.0 / (1.0 + np.exp(-row.floors[k])))
            told[f"purity_{label}"] = row.purity[k]
            told[f"purity_at_0.995_{label}"] = row.near[k]
        table.append(told)
    return table


def frames_markdown(frames: Sequence[ClassFrame], found: Mapping[str, Ensemble], floors: Mapping[str, float]) -> str:
    """The page of figures: of each class its density, and purity by completeness; ``floors`` are the weights' own."""
    area = sum(frame.area_arcmin2 for frame in frames)
    impostors = sum(len(frame.ends["impostor"]) for frame in frames)
    lines = [
        "# The discriminator on whole simulated frames",
        "",
        f"{len(frames)} frames, {area:.0f} square arcminutes; {impostors / area:.2f} impostors in each of these.",
        "",
        "| class | objects | recognised | per arcmin2 | completeness | floor | places a frame | purity | real sky |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for label, one in found.items():
        objects = sum(int(frame.counts[label].sum()) for frame in frames)
        density = sum(len(frame.ends[label]) for frame in frames) / area
        rarer = density / REAL_PER_ARCMIN2[label]
        cuts = [(f"{share:.3f}", floor_for(one, share)) for share in COMPLETENESSES]
        own = float((one.best >= floors[label]).mean()) if len(one.best) else float("nan")
        for told, floor in [*cuts, (f"{own:.3f} (its own floor)", floors[label])]:
            places = (one.odds >= floor).sum() / len(frames)
            lines.append(
                f"| {label} | {objects} | {len(one.best)} | {density:.2f} | {told} | {floor:.2f} | {places:.1f} | "
                f"{purity_above(one, floor):.3f} | {purity_at_rate(one, floor, rarer):.2g} |"
            )
        lost = int(np.isinf(one.best).sum())
        lines.append(f"| {label} | | | | without any place: {lost} | | {len(one.odds) / len(frames):.1f} | | |")
    return "\n".join(lines) + "\n"
