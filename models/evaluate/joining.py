"""How well long streaks are put together: the geometric rule beside the recurrent merger, on simulated skies.

Run ``python -m models.evaluate.joining OUT``: exposures with many long streaks (``models.training.snippets``), of seeds
that training refuses, through the shipped networks. Proposals are kept in OUT, so a second run only judges.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.progress import track

from detector.merging import merge
from models.evaluate.matching import FALSE, end_distances, inside, match_frame, strict
from models.evaluate.report import figure, table
from models.predictor import load_snippet_joiner, load_streak_network
from models.training.recipes import KINDS
from models.training.scenes import EVALUATION_SEEDS, Bank, make_bank
from models.training.snippets import keep_proposed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from detector.proposals import Proposals
    from models.training.snippets import Proposed

LENGTH_EDGES = (5.0, 15.0, 40.0, 80.0, 130.0, 250.0, 450.0)
FALSE_PER_FRAME = 100.0
FRAME_PIXELS = 4132 * 4096
# Fainter ones are nobody's, and of brighter ones all are found.
FAINTEST_SNR, BRIGHTEST_SNR = 5.0, 60.0
# A further row lies on a streak when its middle is as near as this across, and its direction agrees (sine).
ON_PX, ON_SINE = 6.0, 0.35


@dataclass(frozen=True)
class Put:
    """What became of one streak.

    ``logit`` of the row that found it (-inf for none), ``strict`` whether both ends of that row are right, ``ends_px``
    the error of the worse one, ``rows`` the logits of all rows that lie on it.
    """

    length_px: float
    logit: float
    strict: bool
    ends_px: float
    rows: NDArray[np.float64]


@dataclass(frozen=True)
class Joined:
    """The ``streaks`` of one class of length at one price: shares found, and found with both ends right.

    ``ends_px`` is the median error of the worse end, ``rows`` the rows on a streak that is found, on average.
    """

    shortest_px: float
    longest_px: float
    streaks: int
    found: float
    strict: float
    ends_px: float
    rows: float


def judge_joining(samples: Sequence[Proposed], merged: Callable[[Proposed], Proposals]) -> list[Joined]:
    """The figures of one way of merging at ``FALSE_PER_FRAME`` false rows in 17 Mpx, by length."""
    streaks: list[Put] = []
    false = []
    for sample in samples:
        rows = merged(sample)
        truth, found = sample.trails[:, :4].reshape(-1, 2, 2), rows.ends.reshape(-1, 2, 2)
        counts = inside(truth, sample.shape) & (sample.trails[:, 5] >= FAINTEST_SNR)
        matches = match_frame(truth, counts, found, rows.logit)
        false.append(rows.logit[matches.verdict == FALSE])
        members = np.flatnonzero(counts & (sample.trails[:, 5] < BRIGHTEST_SNR))
        streaks += [put(truth[i], found, rows.logit, int(matches.claimed[i])) for i in members]
    frames = sum(sample.shape[0] * sample.shape[1] for sample in samples) / FRAME_PIXELS
    ranked = np.sort(np.concatenate(false))[::-1]
    price = float(ranked[min(int(FALSE_PER_FRAME * frames), len(ranked) - 1)])
    return [of_class(streaks, edges, price) for edges in itertools.pairwise(LENGTH_EDGES)]


def put(truth: NDArray[np.float64], found: NDArray[np.float64], logit: NDArray[np.float64], claim: int) -> Put:
    """What became of one streak that row ``claim`` found (-1: none)."""
    length = float(np.hypot(*(truth[1] - truth[0])))
    rows = logit[on_streak(truth, found)]
    if claim < 0:
        return Put(length, -np.inf, strict=False, ends_px=np.nan, rows=rows)
    pair = truth[None], found[claim][None]
    return Put(length, float(logit[claim]), bool(strict(*pair)[0]), float(end_distances(*pair).max()), rows)


def on_streak(truth: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows lie on a streak: middles on it, directions along it."""
    span = truth[1] - truth[0]
    length = max(float(np.hypot(*span)), 1e-9)
    unit = span / length
    offset = found.mean(axis=1) - truth[0]
    along = found[:, 1] - found[:, 0]
    own = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    place = offset @ unit
    across = np.abs(offset[:, 1] * unit[0] - offset[:, 0] * unit[1])
    sine = np.abs(along[:, 1] * unit[0] - along[:, 0] * unit[1]) / own
    return np.asarray((place > 0.0) & (place < length) & (across < ON_PX) & (sine < ON_SINE))


def of_class(streaks: Sequence[Put], edges: tuple[float, float], price: float) -> Joined:
    """The figures of the streaks of one class of length; rows count from the ``price`` (a logit) up."""
    members = [streak for streak in streaks if edges[0] <= streak.length_px < edges[1]]
    found = [streak for streak in members if streak.logit > price]
    share = max(len(members), 1)
    return Joined(
        *edges,
        len(members),
        len(found) / share,
        sum(streak.strict for streak in found) / share,
        float(np.median([streak.ends_px for streak in found])) if found else np.nan,
        float(np.mean([max(int((streak.rows > price).sum()), 1) for streak in found])) if found else np.nan,
    )


def joining_markdown(ways: Mapping[str, Sequence[Joined]]) -> str:
    """One table: ways of merging beside each other, by length."""
    head = ["length px", "streaks", *(f"{name}: found / both ends right / worse end px / rows" for name in ways)]
    body = []
    for classes in zip(*ways.values(), strict=True):
        first = classes[0]
        cells = [
            f"{figure(one.found)} / {figure(one.strict)} / {figure(one.ends_px, 1)} / {figure(one.rows)}"
            for one in classes
        ]
        body.append([f"{first.shortest_px:.0f}-{first.longest_px:.0f}", str(first.streaks), *cells])
    return table(head, body)


def main(
    out: Annotated[Path, typer.Argument(file_okay=False, help="Folder for skies and proposals.")],
    scenes: Annotated[int, typer.Option(min=1, help="Skies of 1024 x 1024 px.")] = 30,
    seed: Annotated[int, typer.Option(min=EVALUATION_SEEDS, help="Of the skies.")] = 900_100,
    weights: Annotated[str, typer.Option(help="The network that proposes: a shipped name or a file.")] = "streaknet",
    merger: Annotated[str, typer.Option(help="The recurrent merger: a shipped name or a file.")] = "snippets",
) -> None:
    """Compare the ways of merging."""
    bank = Bank(out / "bank", seed, scenes, KINDS["all"])
    for _ in track(make_bank(bank, os.cpu_count() or 1), "drawing skies", total=scenes):
        pass
    network, joiner = load_streak_network(weights), load_snippet_joiner(merger)
    samples = [keep_proposed(network, bank, number, out) for number in track(range(scenes), "proposing")]

    def by_rule(sample: Proposed) -> Proposals:
        return merge(sample.proposals, fwhm_px=sample.fwhm_px)

    def by_network(sample: Proposed) -> Proposals:
        return merge(sample.proposals, fwhm_px=sample.fwhm_px, joiner=joiner)

    ways = {"geometric rule": judge_joining(samples, by_rule), "recurrent": judge_joining(samples, by_network)}
    typer.echo(joining_markdown(ways))


if __name__ == "__main__":
    typer.run(main)
