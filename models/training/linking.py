"""How the score of tracks is trained: boosted trees on sets of sightings of drawn lists, and of real ones beside them.

The sets are those that ``detector.linking`` itself makes of the lists of a field, so that most false ones are the
impostors that really come. Drawn lists (``models.simulate.streaklists``) vary everything; lists that a detector made of
simulated frames add its own habits, as they are and with their exposures shifted against each other, which leaves
nothing true. Fields are held back for the calibration, which is made on what is left after the best sets have taken
their sightings: the probability is one of published tracks, for two, three, and more sightings apart.

Trees can only be trusted inside what they saw; constraints of direction (more evidence never lowers the score) keep
them sensible beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize
from scipy.special import logit

from detector.linking import Sets, pieces, resolved
from detector.motion import FEATURES
from detector.sightings import catalogue, fields
from models.boosted import tensors_of
from models.evaluate.tracks import is_true, scrambled
from models.linker import CLASSES, Linker, classes_of
from models.simulate.streaklists import draw_circumstances, draw_lists
from models.training.boosting import Boosting, grown
from models.training.scenes import EVALUATION_SEEDS
from models.weights import save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.trees import Trees

    Columns = dict[str, NDArray[Any]]

# What each class may contribute to the false tracks in a field of a quarter of a CCD, as those are that train. Pairs
# are where chance is: the rates of three and more are reached by drawn lists alone, more crowded than real ones.
FALSE_PER_FIELD = {"2": 0.002, "3": 0.004, "4": 0.003, "2-slow": 0.001, "3-slow": 0.004, "4-slow": 0.004}
# The lowest thresholds, whatever the sample says: two sightings are never published at less than this.
LEAST_THRESHOLD = {"2": 0.95, "3": 0.5, "4": 0.3, "2-slow": 0.99, "3-slow": 0.8, "4-slow": 0.5}
# Two of four rest on their trails alone, and what was seen in training looks clearer than what will come.
MARGIN = 10.0
# So many times as many fields calibrate as train: a rate of 0.001 has to be seen.
HELD_BACK = 30
# How often the given lists of a field are used again with their exposures shifted; as many times more to calibrate.
SCRAMBLES = 100
ROUNDS, LEAVES, RATE = 300, 15, 0.05
# Direction in which each feature may move the score: more of it is better (1) or worse (-1), or may be either (0).
DIRECTIONS = {
    **dict.fromkeys(("log_odds_sum", "log_odds_min", "log_odds_max", "log_shift"), 1),
    **dict.fromkeys(("missed", "chi2_place", "chi2_rate", "chi2_direction", "chi2_worst", "chi2_mag"), -1),
    **dict.fromkeys(("log_chance", "log_crowding", "standing", "sticking"), -1),
}


@dataclass(frozen=True, eq=False)
class Lists:
    """A table of streaks, which object made each row (-1: none), and shapes of its frames where known."""

    table: Columns
    owner: NDArray[np.int64]
    shapes: dict[tuple[str, int], tuple[float, float]] | None = None


@dataclass(frozen=True, eq=False)
class Example:
    """The sets of one plane, which of them are true, and the sightings that the plane answers for."""

    sets: Sets
    owner: NDArray[np.int64]
    core: NDArray[np.bool_]

    @property
    def true(self) -> NDArray[np.bool_]:
        """Whether each set is one object."""
        owner = np.append(self.owner, -1)
        return is_true(np.where(self.sets.members >= 0, owner[self.sets.members], -2))


def drawn(seed: int, count: int) -> Iterator[Lists]:
    """Lists of ``count`` fields of seeds ``seed`` and up."""
    if not 0 <= seed <= seed + count <= EVALUATION_SEEDS:
        raise ValueError(f"seeds from {EVALUATION_SEEDS} up belong to evaluation; give a lower one than {seed}")
    for number in range(seed, seed + count):
        rng = np.random.default_rng([number, 41])
        night = draw_circumstances(rng)
        yield Lists(*draw_lists(rng, night), shapes={(f"exposure-{k}.fits", 0): night.shape for k in range(10)})


def split_fields(lists: Lists) -> list[Lists]:
    """The fields of a table apart, so that some can be held back."""
    found = catalogue(lists.table, lists.shapes)
    rows = [found.row[index] for index in fields(found)]
    return [
        Lists({name: column[mine] for name, column in lists.table.items()}, lists.owner[mine], lists.shapes)
        for mine in rows
    ]


def with_scrambled(lists: Iterable[Lists], times: int, seed: int) -> Iterator[Lists]:
    """Lists as they are, and each ``times`` more with its exposures shifted at random: nothing in those is true."""
    rng = np.random.default_rng([seed, 7])
    for one in lists:
        yield one
        for _ in range(times):
            yield replace(one, table=scrambled(one.table, rng, one.shapes), owner=np.full(len(one.owner), -1))


def examples(lists: Iterable[Lists]) -> Iterator[Example]:
    """The sets of sightings of every field of every table."""
    for one in lists:
        found = catalogue(one.table, one.shapes)
        for index in fields(found):
            for plane, core in pieces(found, index):
                yield Example(Sets.of(plane), one.owner[found.row[plane.index]], core)


def train_trees(parts: list[Example], seed: int, *, rounds: int = ROUNDS) -> Trees:
    """Boosted trees (binary log loss) on all sets of the examples."""
    table = np.concatenate([part.sets.table for part in parts if len(part.sets.members)])
    true = np.concatenate([part.true for part in parts if len(part.sets.members)])
    if true.all() or not true.any():
        raise ValueError(f"{len(true)} sets of sightings, {int(true.sum())} of them true: both kinds are needed")
    return grown(table, true, Boosting(rounds, LEAVES, RATE), [DIRECTIONS.get(name, 0) for name in FEATURES], seed)


def published(parts: Iterable[Example], linker: Linker) -> tuple[NDArray[np.float64], int]:
    """What resolving leaves of held-back examples: ``[n, 3]`` logit, class, true; and how many examples they were.

    A further true track of an object counts neither as true nor as false and is left out.
    """
    rows, count = [], 0
    for part in parts:
        count += 1
        rows_of = part.sets.plane.catalogue.row[part.sets.plane.index].tolist()
        place_of = {row: place for place, row in enumerate(rows_of)}
        seen: set[int] = set()
        for track in resolved(part.sets, linker, set(), part.core):
            owners = part.owner[[place_of[row] for row in track.rows]]
            true = bool(is_true(owners[None])[0])
            if true:
                whose = int(np.bincount(owners[owners >= 0]).argmax())
                if whose in seen:
                    continue
                seen.add(whose)
            chosen = np.array([place_of[row] for row in track.rows])
            members = np.full((1, len(part.sets.plane.times_s)), -1, np.int64)
            members[0, part.sets.plane.exposure[chosen]] = chosen
            kind = int(classes_of(part.sets.judged(members))[0])
            rows.append((float(logit(np.clip(track.score, 1e-12, 1 - 1e-12))), kind, true))
    return np.array(rows, np.float64).reshape(-1, 3), count


def calibrated(samples: list[tuple[NDArray[np.float64], int]], *, seen: bool = False) -> dict[str, dict[str, float]]:
    """For each class its logistic curve, and the threshold that leaves so few false ones per field of every sample.

    A sample is the tracks of held-back fields by an uncalibrated linker (``published``), and how many fields they are.
    ``seen`` says that lists among them were also trained on: then two sightings need ``MARGIN`` times the odds.
    """
    tracks = np.concatenate([one for one, _ in samples])
    table = {}
    for number, kind in enumerate(CLASSES):
        here = tracks[tracks[:, 1] == number]
        value, true = here[:, 0], here[:, 2] > 0.5
        slope, intercept = _platt(value, true)
        bar = -math.inf
        for sample, count in samples:
            mine = sample[(sample[:, 1] == number) & (sample[:, 2] < 0.5), 0]
            false = np.sort(slope * mine + intercept)[::-1]
            allowed = int(FALSE_PER_FIELD[kind] * count)
            # The first false one too many must not pass.
            bar = max(bar, float(false[allowed]) if allowed < len(false) else -math.inf)
        threshold = max(LEAST_THRESHOLD[kind], 1.0 / (1.0 + math.exp(-min(max(bar, -30.0), 30.0))) + 1e-6)
        if seen and kind.startswith("2"):
            threshold = MARGIN * threshold / (1.0 - threshold + MARGIN * threshold)
        passing = 1.0 / (1.0 + np.exp(-(slope * value + intercept))) >= threshold
        table[kind] = {
            "slope": slope,
            "intercept": intercept,
            "threshold": min(threshold, 0.999999),
            "tracks": len(here),
            "true": int(true.sum()),
            "found": int((passing & true).sum()),
            "false": int((passing & ~true).sum()),
        }
    return table


def _platt(value: NDArray[np.float64], true: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of a logistic curve; the identity where one kind is missing."""
    if true.all() or not true.any():
        return 1.0, 0.0

    def cost(parameters: NDArray[np.float64]) -> float:
        logits = parameters[0] * value + parameters[1]
        return float(np.logaddexp(0.0, np.where(true, -logits, logits)).sum() + 0.5 * (parameters[0] - 1.0) ** 2)

    slope, intercept = optimize.minimize(cost, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return max(float(slope), 0.1), float(intercept)


def train_linker(
    folder: Path,
    *,
    seed: int,
    count: int,
    lists: list[Lists],
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda each, _: each,
) -> dict[str, dict[str, float]]:
    """Train on ``count`` drawn fields and ``lists``; calibrate on ``HELD_BACK`` times as many.

    Of ``lists`` the even ones train and the odd ones calibrate (a single one does both). Writes
    ``folder/linker.safetensors``, gives the calibration. Errors: ``ValueError``.
    """
    mine, others = lists[::2], lists[1::2] or lists
    training = list(watch(examples(drawn(seed, count)), count))
    training += watch(examples(with_scrambled(mine, SCRAMBLES, seed)), len(mine) * (1 + SCRAMBLES))
    trees = train_trees(training, seed)
    sets = sum(len(part.sets.members) for part in training)
    bare = Linker(trees, (1.0,) * len(CLASSES), (0.0,) * len(CLASSES), (0.02,) * len(CLASSES), {})
    del training
    held, times = HELD_BACK * count, HELD_BACK * SCRAMBLES
    samples = [published(watch(examples(drawn(seed + count, held)), held), bare)]
    if others:
        given = with_scrambled(others, times, seed + count)
        samples.append(published(watch(examples(given), len(others) * (1 + times)), bare))
    table = calibrated(samples, seen=len(lists) == 1)
    facts = {
        "network": "linker",
        "features": list(FEATURES),
        "calibration": table,
        "recipe": {
            "seed": seed,
            "fields": count,
            "lists": len(lists),
            "rounds": ROUNDS,
            "leaves": LEAVES,
            "sets": sets,
        },
    }
    save(folder / "linker.safetensors", tensors_of(trees), facts)
    return table
