"""How the judge of fields is trained: on whole simulated fields, as the detector sees them.

Each field is drawn with its own sky, optics, dithers and moving objects, written as a camera would write it, read,
prepared and searched; the evidence on every candidate (``detector.fieldevidence``) is held against the truth. Every
fifth field is kept for the calibration. A field's file may be deleted at any time: it is made again from its number.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from rich.progress import track

from detector.elsewhere import looked_up, same_sky
from detector.fieldevidence import NAMES, field_evidence
from detector.fits import read_frames
from detector.frame import Frame
from detector.preparation import prepare
from detector.streakcandidates import candidates, judged
from models.boosted import tensors_of
from models.evaluate.matching import NEITHER, TRUE, inside, match_frame
from models.predictor import load_streak_network
from models.training.asteroid import FRAME_PIXELS, LEAST_SNR, fitted_curve
from models.training.boosting import Boosting, grown
from models.training.scenes import EVALUATION_SEEDS, shortest_px
from models.training.stampbank import make_parts
from models.weights import load, save

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.preparation import Prepared
    from models.simulate.exposure import Plan, Truth
    from models.training.asteroid import Calibration

# Whose fields: name, share, magnitudes (a magnitude below where noise ends to far above the sky), side in px.
KINDS = (
    ("euclid-vis", 0.4, (20.0, 26.5), (1200, 1700)),
    ("subaru-hsc", 0.24, (19.0, 25.5), (1000, 1400)),
    ("kids-omegacam", 0.21, (18.0, 24.0), (1000, 1400)),
    ("generic", 0.15, (17.0, 25.0), (900, 1300)),
)
# Moving objects in a megapixel, and how fast: rarely as fast as what passes near the Earth.
DENSITY = (15.0, 90.0)
RATES_ARCSEC_H, FAST_ARCSEC_H, FAST = (2.0, 80.0), (2.0, 600.0), 0.2
DITHERS = (2, 5)
# Candidates that are fitted: from those of a whole frame above a threshold to the deepest table of a small one.
CANDIDATES_PER_MEGAPIXEL = (300, 1100)
# The share of fields whose files flag their cosmic rays.
FLAGGED = 0.25
# One field in so many calibrates.
HELD_BACK = 5
BOOSTING = Boosting(rounds=300, leaves=31, rate=0.03)
# What is compared at a price: so many false ones in a Euclid VIS frame.
PRICE = 10.0
# More of these is better (1), or worse (-1), whatever else is known.
DIRECTIONS = {"judged": 1, "weighed": 1, "moves": 1}


@dataclass(frozen=True, eq=False)
class JudgedField:
    """Candidates of a field's exposures that were looked up in others: ``evidence`` ``[n, k]``, ``true`` ``[n]``.

    ``pixels`` and ``streaks`` are those of its exposures.
    """

    evidence: NDArray[np.float64]
    true: NDArray[np.bool_]
    pixels: int
    streaks: int


@dataclass(frozen=True)
class Fields:
    """A folder of ``parts`` judged fields of the seeds ``seed`` and up, by the streak network ``weights``.

    ``version`` is the hash of these: it tells the candidates of one network from another's.
    """

    folder: Path
    weights: str
    version: str
    device: str
    seed: int
    parts: int

    def path(self, number: int) -> Path:
        """Where field ``number`` lies."""
        return self.folder / f"field-{self.version[:12]}-{self.seed + number:06d}.npz"

    def make(self, number: int) -> None:
        """Draw and judge field ``number`` unless it is there; in a process of its own."""
        path = self.path(number)
        if path.exists():
            return
        numba.set_num_threads(1)
        torch.set_num_threads(1)
        frames = self.folder / f"frames-{self.seed + number}"
        field = judge_field(frames, self.seed + number, self.weights, self.device)
        shutil.rmtree(frames)
        partial = path.with_suffix(".partial.npz")
        counts = np.array([field.pixels, field.streaks])
        np.savez_compressed(partial, evidence=field.evidence.astype(np.float32), true=field.true, counts=counts)
        partial.replace(path)

    def field(self, number: int) -> JudgedField:
        """Field ``number``, from the folder."""
        with np.load(self.path(number)) as stored:
            pixels, streaks = stored["counts"].tolist()
            return JudgedField(stored["evidence"].astype(np.float64), stored["true"], pixels, streaks)


def draw_plan(rng: np.random.Generator) -> Plan:
    """What a field to learn from holds."""
    from models.simulate.exposure import Plan  # noqa: PLC0415 - numba compiles when it is run

    shares = np.array([share for _, share, _, _ in KINDS])
    kind, _, magnitudes, sides = KINDS[int(rng.choice(len(KINDS), p=shares / shares.sum()))]
    height, width = rng.integers(*sides, 2, endpoint=True).tolist()
    density = math.exp(rng.uniform(math.log(DENSITY[0]), math.log(DENSITY[1])))
    return Plan(
        kind,
        asteroids=density * height * width / 1e6,
        magnitudes=magnitudes,
        rates_arcsec_h=FAST_ARCSEC_H if rng.uniform() < FAST else RATES_ARCSEC_H,
        shape=(height, width),
        dithers=int(rng.integers(*DITHERS, endpoint=True)),
    )


def judge_field(folder: Path, seed: int, weights: str, device: str) -> JudgedField:
    """All candidates of a new field on which the truth has a verdict and other exposures a word."""
    from models.simulate.exposure import draw_field, write_exposure  # noqa: PLC0415 - numba compiles when it is run

    network = load_streak_network(weights, device)
    rng = np.random.default_rng([seed, 53])
    folder.mkdir(parents=True, exist_ok=True)
    ready: list[Prepared] = []
    truths: list[tuple[Truth, ...]] = []
    plan, flags = draw_plan(rng), bool(rng.uniform() < FLAGGED)
    for exposure in draw_field(plan, seed):
        path = folder / exposure[0].facts.frame
        write_exposure(path, exposure, compressed=False, flags=flags)
        frame = next(each for each in read_frames(path, name=path.name) if isinstance(each, Frame))
        ready.append(prepare(frame, network))
        truths.append(exposure[0].truths)
    most = float(rng.uniform(*CANDIDATES_PER_MEGAPIXEL))
    tables, verdicts, pixels, streaks = [np.zeros((0, len(NAMES)))], [np.zeros(0, np.bool_)], 0, 0
    for one, truth in zip(ready, truths, strict=True):
        others = [other for other in ready if other is not one and same_sky(one, other)]
        shape = one.header.shape
        count = int(most * shape[0] * shape[1] / 1e6)
        found = candidates(one.padded, shape, network, one.sky, one.psf, count, mask=one.mask, method="both")
        logit = judged(found, one.padded, shape, network)
        elsewhere = looked_up(found, one.header, others)
        ends = np.array([(t.x0, t.y0, t.x1, t.y1) for t in truth]).reshape(-1, 2, 2)
        counts = inside(ends, shape) & np.array(
            [t.snr_limit >= LEAST_SNR and t.length_px >= shortest_px(one.psf.fwhm_px, 1) for t in truth], np.bool_
        )
        verdict = match_frame(ends, counts, found.fits.ends.reshape(-1, 2, 2), logit).verdict
        used = (verdict != NEITHER) & (elsewhere.seen > 0)
        tables.append(field_evidence(logit, found, elsewhere)[used])
        verdicts.append(verdict[used] == TRUE)
        pixels += shape[0] * shape[1]
        streaks += int(counts.sum())
    return JudgedField(np.concatenate(tables), np.concatenate(verdicts), pixels, streaks)


def train_fieldjudge(
    folder: Path, *, weights: str = "streaknet", device: str = "auto", seed: int, count: int, processes: int = 1
) -> tuple[Calibration, dict[str, float]]:
    """Draw and judge ``count`` fields, train on four in five, calibrate on the others; ``weights`` name the StreakNet.

    Gives the calibration, and the share of the others' true candidates that is found at ``PRICE`` by the second stage
    alone (``judged``), by the ratio of likelihoods (``weighed``) and by the trees. Writes
    ``folder/fieldjudge.safetensors``. Errors: ``ValueError`` for seeds of evaluation, and where the fields do not tell
    true from false; ``BadWeights``.
    """
    if seed + count > EVALUATION_SEEDS:
        raise ValueError(f"seeds from {EVALUATION_SEEDS} up belong to evaluation; {seed} and {count} fields reach them")
    if count < HELD_BACK:
        raise ValueError(f"{count} fields: at least {HELD_BACK} are needed, one in {HELD_BACK} calibrates")
    version = load(weights).sha256
    fields = Fields(folder / "fields", weights, version, device, seed, count)
    for _ in track(make_parts(fields, processes), "judging fields", total=count):
        pass
    held = [fields.field(number) for number in range(HELD_BACK - 1, count, HELD_BACK)]
    learned = [fields.field(number) for number in range(count) if number % HELD_BACK != HELD_BACK - 1]
    table, true = _joined(learned)
    trees = grown(table, true, BOOSTING, [DIRECTIONS.get(name, 0) for name in NAMES], seed)
    rest, verdict = _joined(held)
    curve = fitted_curve(trees(rest), verdict, sum(each.pixels for each in held), sum(each.streaks for each in held))
    by = {name: rest[:, NAMES.index(name)] for name in ("judged", "weighed")} | {"trees": trees(rest)}
    allowed = round(PRICE * sum(each.pixels for each in held) / FRAME_PIXELS)
    found = {name: found_at(score, verdict, allowed) for name, score in by.items()}
    facts: dict[str, Any] = {
        "network": "fieldjudge",
        "evidence": list(NAMES),
        "streaknet": version,
        "calibration": asdict(curve),
        "found_at_price": found,
        "recipe": {
            "seed": seed,
            "fields": count,
            **asdict(BOOSTING),
            "candidates": len(true),
            "true": int(true.sum()),
        },
    }
    save(folder / "fieldjudge.safetensors", tensors_of(trees), facts)
    return curve, found


def found_at(score: NDArray[np.float64], true: NDArray[np.bool_], allowed: int) -> float:
    """The share of true candidates ``[n]`` above the threshold that so many false ones pass; 0 where there are none."""
    false = np.sort(score[~true])[::-1]
    bar = false[allowed] if allowed < len(false) else -np.inf
    return float((score[true] > bar).sum() / max(true.sum(), 1))


def _joined(fields: Iterable[JudgedField]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    parts = list(fields)
    return np.concatenate([part.evidence for part in parts]), np.concatenate([part.true for part in parts])
