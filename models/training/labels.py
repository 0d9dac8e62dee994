"""Learning from a user's own labels: asteroids that a classical pipeline found, against its other detections.

That is how the first network of "Object classification with Convolutional Neural Networks: from KiDS to Euclid"
(Verdoes Kleijn et al.) learned. The pixels are the user's own and go through the very functions that inference uses.
What is labelled 1 is a streak with its ends; what is labelled 0, the pipeline's other detections, is a hard negative
and weighs more than the rest of the sky, which counts as empty although it is not quite. One frame in five, at least
one, is held back and decides which weights are kept.

How it fails: a table that does not fit the frames is refused with its row, before anything is trained.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from detector.cutouts import cut_out, shown
from detector.defects import find_defects
from detector.fits import read_frames
from detector.frame import BadFrame, Frame
from detector.preparation import profile_fwhm_px
from detector.psfmeasurement import measure_psf
from detector.sky import measure_sky
from detector.streakcandidates import candidates
from detector.tiling import Tiling, pad, unpadded
from detector.whitening import binned, whiten
from models.evaluate.framekeys import same_path
from models.evaluate.matching import FALSE, NEITHER, TRUE, match_frame
from models.networks.streaknet import StreakNet, StreakNetShape
from models.predictor import choose_device, load_streak_network
from models.training.asteroid import CANDIDATES, Judged, answers, calibrate, learn, together
from models.training.cells import label_cells
from models.training.fit import Outcome, Run, fit
from models.training.recipes import BadRecipe
from models.training.scenes import SCALE_SHARES, Sample, crop_windows, seen_at, turned
from models.training.streaknet import (
    CROP_CELLS,
    WINDOWS_PER_BATCH,
    StreakBatch,
    split,
    stacked,
    streak_batch_loss,
    validation_figures,
)
from models.weights import load, save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.psf import Psf
    from detector.sky import Sky
    from detector.streaknetwork import StreakNetwork
    from models.networks.asteroid import AsteroidNet

    Columns = Mapping[str, NDArray[Any]]

ENDS = ("x0", "y0", "x1", "y1")
# Columns that hold numbers; lengths in pixels, angles in degrees from +x towards +y.
NUMBERS = frozenset({*ENDS, "x", "y", "length", "angle", "length_px", "angle_deg", "label", "snr", "extension"})
LABEL = np.dtype([("row", "i8"), *[(name, "f8") for name in ENDS], ("asteroid", "?"), ("snr", "f8")])
SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".fits.gz", ".fit.gz", ".fts.gz")
# What a classical pipeline found is clearly there; used where the table has no SNR.
CLEAR_SNR = 20.0
# A window of a labelled impostor teaches as much as so many of the empty sky.
IMPOSTOR_WEIGHT = 8.0
EMPTY_CROPS = 0.5  # crops without any label, for each crop with one
HELD_BACK = 5  # every fifth frame
ENOUGH_TO_CALIBRATE = 30
LEARNING_RATE = 2e-4  # a seventh of that from scratch: what the network knows is to be bent, not forgotten
VALIDATIONS = 10


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A whitened frame ``[h, w]`` (NaN where masked), its mask, sky and PSF, and its labels.

    ``ends`` ``[n, 4]`` in pixels, ``asteroid`` ``[n]``, ``snr`` ``[n]``: all that a network needs to learn from labels.
    """

    name: str
    pixels: NDArray[np.float32]
    mask: NDArray[np.uint8]
    sky: Sky
    psf: Psf
    ends: NDArray[np.float64]
    asteroid: NDArray[np.bool_]
    snr: NDArray[np.float64]

    @property
    def fwhm_px(self) -> float:
        """The width of the PSF."""
        return self.psf.fwhm_px


@dataclass(frozen=True)
class LabelTraining:
    """What learning from labels needs to know; ``init_from`` names the weights to begin with."""

    folder: Path
    labels: Columns
    frames: Path
    seed: int = 1
    steps: int = 2_000
    minutes: float = 55.0
    device: str = "auto"
    resume: bool = False
    init_from: str = "streaknet"
    learning_rate: float = LEARNING_RATE


@dataclass(frozen=True)
class LabelOutcome:
    """How a training on labels went: figures on the held-back frames before, and the run."""

    before: Mapping[str, float]
    run: Outcome
    asteroids: int
    impostors: int
    frames: int


def read_labels(table: Columns) -> dict[tuple[str, int | None], NDArray[np.void]]:
    """Labels (``LABEL``) by frame and HDU (None: the table has no such column). Raises ``BadRecipe``."""
    if "frame" not in table:
        raise BadRecipe(f"labels: no column frame; the table has {', '.join(table) or 'none'}")
    ends = _ends(table)
    rows = np.zeros(len(ends), LABEL)
    rows["row"] = np.arange(1, len(ends) + 1)
    for name, values in zip(ENDS, ends.T, strict=True):
        rows[name] = values
    empty = np.flatnonzero(~np.isfinite(ends).all(axis=1))
    if len(empty):
        raise BadRecipe(f"labels: row {empty[0] + 1} has no number for its place ({len(empty)} such rows)")
    label = table.get("label", np.ones(len(rows)))
    wrong = np.flatnonzero((label != 0) & (label != 1))
    if len(wrong):
        raise BadRecipe(
            f"labels: row {wrong[0] + 1} has label {label[wrong[0]]:g}: give 1 (asteroid) or 0 (no asteroid)"
        )
    rows["asteroid"] = label == 1
    snr = table.get("snr", np.full(len(rows), np.nan))
    rows["snr"] = np.where(np.isfinite(snr), snr, CLEAR_SNR)
    extension = table.get("extension", np.full(len(rows), np.nan))
    extensions = [int(value) if np.isfinite(value) else None for value in extension]
    keys = list(zip(table["frame"].tolist(), extensions, strict=True))
    places = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    of_row = np.array([places[key] for key in keys], np.int64)
    return {key: rows[of_row == number] for key, number in places.items()}


def _ends(table: Columns) -> NDArray[np.float64]:
    """Ends ``[n, 4]`` from x0, y0, x1, y1, or from x, y, length, angle."""
    if all(name in table for name in ENDS):
        return np.stack([table[name] for name in ENDS], axis=-1)
    length, angle = (
        table.get(name, table.get(other)) for name, other in (("length", "length_px"), ("angle", "angle_deg"))
    )
    if "x" not in table or "y" not in table or length is None or angle is None:
        raise BadRecipe(f"labels: give columns {', '.join(ENDS)}, or x, y, length, angle; there are {', '.join(table)}")
    along = 0.5 * length * np.cos(np.radians(angle)), 0.5 * length * np.sin(np.radians(angle))
    x, y = table["x"], table["y"]
    return np.stack([x - along[0], y - along[1], x + along[0], y + along[1]], axis=-1)


def labelled_frames(table: Columns, folder: Path) -> Iterator[LabelledFrame]:
    """The frames below ``folder`` that a table of labels names, one at a time. Raises ``BadRecipe``."""
    labels = read_labels(table)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(SUFFIXES))
    for name in dict.fromkeys(name for name, _ in labels):
        fitting = [file for file in files if same_path(name, str(file))]
        if len(fitting) != 1:
            found = f"{len(fitting)} files" if fitting else f"none of {len(files)} files"
            raise BadRecipe(f"labels: frame {name!r} fits {found} below {folder}")
        wanted = {extension: rows for (frame, extension), rows in labels.items() if frame == name}
        yield from _of_file(fitting[0], wanted)


def _of_file(file: Path, wanted: Mapping[int | None, NDArray[np.void]]) -> Iterator[LabelledFrame]:
    """The labelled HDUs of one file; without their numbers the file must have one image only."""
    try:
        frames = [frame for frame in read_frames(file, name=str(file)) if isinstance(frame, Frame)]
    except BadFrame as bad:
        raise BadRecipe(f"labels: {bad.detail}") from None
    if not frames:
        raise BadRecipe(f"labels: {file} has no image that can be read")
    by_extension = {frame.header.extension: frame for frame in frames}
    for extension, rows in wanted.items():
        if extension is None and len(frames) > 1:
            raise BadRecipe(f"labels: {file} has {len(frames)} images: give a column extension (0 = primary)")
        frame = frames[0] if extension is None else by_extension.get(extension)
        if frame is None:
            raise BadRecipe(f"labels: {file} has no image {extension}: there are {sorted(by_extension)}")
        yield _labelled(frame, rows)


def _labelled(frame: Frame, rows: NDArray[np.void]) -> LabelledFrame:
    height, width = frame.header.shape
    ends = np.stack([rows[name] for name in ENDS], axis=-1)
    x, y = 0.5 * (ends[:, 0] + ends[:, 2]), 0.5 * (ends[:, 1] + ends[:, 3])
    outside = np.flatnonzero((x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5))
    if len(outside):
        k = outside[0]
        raise BadRecipe(
            f"labels: row {rows['row'][k]} lies at x {x[k]:.1f}, y {y[k]:.1f}, outside {frame.header.name} "
            f"({width} x {height} px; x is the column, pixels count from 0)"
        )
    tiling = Tiling()
    mask = find_defects(frame.pixels, frame.mask, saturation_e=frame.header.saturation_e)
    sky = measure_sky(frame.pixels, mask)
    psf = measure_psf(frame.pixels, mask, sky, fallback_fwhm_px=profile_fwhm_px(frame.header))
    padded = whiten(frame.pixels, mask, sky, window=tiling.window, step=tiling.step)
    pixels = np.ascontiguousarray(unpadded(padded, (height, width), tiling))
    return LabelledFrame(frame.header.name, pixels, mask, sky, psf, ends, rows["asteroid"], rows["snr"])


# --- StreakNet: dense, at every scale of the search -------------------------------------------------------------------


def labelled_crops(frame: LabelledFrame, tiling: Tiling) -> Iterator[tuple[int, Sample, NDArray[np.bool_]]]:
    """Scale by scale the crops of a frame, and which of them hold a label."""
    trails = np.column_stack([frame.ends, np.ones(len(frame.ends)), frame.snr, np.ones(len(frame.ends))])
    pixels = frame.pixels
    for scale in SCALE_SHARES:
        if scale > 1:
            pixels = binned(pixels)
        seen = seen_at(trails, scale, frame.fwhm_px)
        grid = tiling.grid((pixels.shape[0], pixels.shape[1]))
        target, weight = label_cells(seen[frame.asteroid], grid, tiling.window, tiling.step)
        impostor, _ = label_cells(seen[~frame.asteroid], grid, tiling.window, tiling.step)
        weight = np.where((impostor[0] > 0.5) & (target[0] < 0.5), IMPOSTOR_WEIGHT * weight, weight)
        crops = crop_windows(pad(np.ascontiguousarray(pixels), tiling), target, weight, tiling, CROP_CELLS)
        labelled = np.asarray(((crops[1][:, 0] > 0.5) | (crops[2] > 1.0)).any(axis=(1, 2)))
        yield scale, Sample(crops[0], frame.fwhm_px / scale, crops[1], crops[2]), labelled


def gathered(
    frames: Sequence[LabelledFrame] | Iterator[LabelledFrame], rng: np.random.Generator
) -> dict[int, list[Sample]]:
    """The crops by scale: all that hold a label, and some that hold none."""
    kept: dict[int, list[Sample]] = {scale: [] for scale in SCALE_SHARES}
    for frame in frames:
        for scale, sample, labelled in labelled_crops(frame, Tiling()):
            others = np.flatnonzero(~labelled)
            some = rng.permutation(others)[: max(1, round(EMPTY_CROPS * int(labelled.sum())))]
            crops = split(sample)
            # Copies: a crop alone would keep its whole frame in memory.
            kept[scale] += [_copied(crops[k]) for k in [*np.flatnonzero(labelled), *some]]
    return kept


def _copied(sample: Sample) -> Sample:
    return Sample(sample.pixels.copy(), sample.fwhm_px, sample.target.copy(), sample.weight.copy())


def label_batches(crops: Mapping[int, list[Sample]], rng: np.random.Generator) -> Iterator[StreakBatch]:
    """Endless batches of one scale and one size of crops, turned at random."""
    groups: dict[tuple[int, tuple[int, ...]], list[Sample]] = {}
    for scale, samples in crops.items():
        for sample in samples:
            groups.setdefault((scale, sample.weight.shape), []).append(sample)
    keys = list(groups)
    share = np.array([SCALE_SHARES[scale] * len(groups[scale, shape]) for scale, shape in keys])
    while True:
        scale, shape = keys[int(rng.choice(len(keys), p=share / share.sum()))]
        members = groups[scale, shape]
        count = max(1, WINDOWS_PER_BATCH // int(np.prod(shape)))
        drawn = rng.integers(len(members), size=count)
        yield stacked([turned(members[k], int(rng.integers(8)), Tiling().window) for k in drawn])


def train_streaknet_on_labels(training: LabelTraining) -> LabelOutcome:
    """Fine-tune StreakNet on labels; what came of it is ``folder/streaknet.safetensors``.

    The second stage and the calibration are those of the weights that it began with. Raises ``BadRecipe``,
    ``BadWeights``.
    """
    start = load(training.init_from)
    if start.facts.get("network") != "streaknet":
        raise BadRecipe(f"{training.init_from!r} holds a {start.facts.get('network')!r}, not a streaknet to begin with")
    shape = start.facts["shape"]
    device = choose_device(training.device)
    torch.manual_seed(training.seed)
    network = StreakNet(StreakNetShape(shape["window"], shape["step"], tuple(shape["channels"]))).to(device)
    own = set(network.state_dict())
    network.load_state_dict({name: tensor for name, tensor in start.tensors.items() if name in own})

    frames = list(labelled_frames(training.labels, training.frames))
    learned, held_back = _divided(frames)
    rng = np.random.default_rng(training.seed)
    crops = gathered(learned, rng)
    if not any((sample.target[0] > 0.5).any() for samples in crops.values() for sample in samples):
        raise BadRecipe("labels: no asteroid is long enough to have a direction (1.2 widths of the PSF, 3 px)")
    fixed = [(scale, stacked([sample])) for scale, samples in gathered(held_back, rng).items() for sample in samples]
    before = dict(validation_figures(network, fixed))
    run = Run(
        training.folder,
        training.steps,
        minutes=training.minutes,
        learning_rate=training.learning_rate,
        warmup_steps=min(100, training.steps // 10),
        validate_every=max(1, training.steps // VALIDATIONS),
        device=device,
        resume=training.resume,
    )
    counts = [int(sum((one.asteroid == which).sum() for one in frames)) for which in (True, False)]
    recipe = {"labels": {"asteroids": counts[0], "others": counts[1], "frames": len(frames)}, "seed": training.seed}
    recipe |= {"steps": training.steps, "init_from": training.init_from, "init_sha256": start.sha256}
    facts = {**start.facts, "recipe": recipe}
    outcome = fit(
        network,
        label_batches(crops, rng),
        streak_batch_loss,
        lambda one: validation_figures(one, fixed),
        run,
        facts,
    )
    best = load(str(training.folder / "best.safetensors"))
    save(training.folder / "streaknet.safetensors", {**start.tensors, **best.tensors}, best.facts)
    return LabelOutcome(before, outcome, counts[0], counts[1], len(frames))


def _divided(frames: Sequence[LabelledFrame]) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Frames to learn from, and those held back: every fifth of those with an asteroid."""
    telling = [frame for frame in frames if frame.asteroid.any()]
    if len(telling) < 2:
        raise BadRecipe(
            f"labels: {len(telling)} frames have an asteroid (label 1): at least two are needed, one is held back"
        )
    held_back = telling[::HELD_BACK]
    kept = {id(frame) for frame in held_back}
    return [frame for frame in frames if id(frame) not in kept], held_back


# --- AsteroidNet: the cut-outs of what StreakNet proposes in those frames ---------------------------------------------


def labelled_candidates(frame: LabelledFrame, network: StreakNetwork) -> Judged:
    """What is proposed in a frame, on a labelled asteroid or not; what lies on a label 0 weighs more."""
    tiling = Tiling(network.window, network.step)
    shape = (frame.pixels.shape[0], frame.pixels.shape[1])
    found = candidates(
        pad(frame.pixels, tiling), shape, network, frame.sky, frame.psf, CANDIDATES, mask=frame.mask, method="both"
    )
    ends = found.fits.ends.reshape(-1, 2, 2)
    asteroids, others = (frame.ends[chosen].reshape(-1, 2, 2) for chosen in (frame.asteroid, ~frame.asteroid))
    logit = found.proposals.logit
    verdict = match_frame(asteroids, np.ones(len(asteroids), np.bool_), ends, logit).verdict
    settled = np.flatnonzero(verdict != NEITHER)
    on_other = match_frame(others, np.ones(len(others), np.bool_), ends, logit).verdict[settled] != FALSE
    true = verdict[settled] == TRUE
    found = found.take(settled)
    return Judged(
        cut_out(shown(frame.pixels, found.psf), found.fits.ends, found.fits.flux, found.psf).astype(np.float16),
        found.evidence().astype(np.float32),
        true,
        np.where(on_other & ~true, IMPOSTOR_WEIGHT, 1.0).astype(np.float32),
        pixels=frame.pixels.size,
        streaks=len(asteroids),
    )


def train_asteroid_on_labels(training: LabelTraining) -> LabelOutcome:
    """Fine-tune AsteroidNet on labels; what came of it is ``folder/streaknet.safetensors``, StreakNet unchanged.

    The calibration is made anew where the held-back frames have ``ENOUGH_TO_CALIBRATE`` asteroids that were proposed,
    else it stays. Raises ``BadRecipe``, ``BadWeights``.
    """
    start = load_streak_network(training.init_from, training.device)
    if start.verifier is None:
        raise BadRecipe(f"{training.init_from!r} has no second stage to begin with")
    frames = list(labelled_frames(training.labels, training.frames))
    learned, held_back = (together([labelled_candidates(frame, start) for frame in part]) for part in _divided(frames))
    if not learned.true.any() or not held_back.true.any():
        raise BadRecipe("labels: StreakNet proposes none of the asteroids: train it on them first")
    network = start.verifier.cpu().train()
    torch.manual_seed(training.seed)
    rng = np.random.default_rng(training.seed)
    before = {"loss": mean_loss(network.eval(), held_back)}
    learn(network, learned, training.steps, rng, learning_rate=training.learning_rate)
    outcome = Outcome(training.steps, mean_loss(network, held_back), "steps")
    counts = [int(sum((one.asteroid == which).sum() for one in frames)) for which in (True, False)]
    recipe = {"labels": {"asteroids": counts[0], "others": counts[1], "frames": len(frames)}, "seed": training.seed}
    recipe |= {"steps": training.steps, "init_from": training.init_from, "init_sha256": start.weights.sha256}
    facts = {**start.weights.facts, "recipe": recipe}
    if held_back.true.sum() >= ENOUGH_TO_CALIBRATE:
        facts["calibration"] = asdict(calibrate(network, held_back))
    tensors = {**start.weights.tensors, **{f"verifier.{name}": value for name, value in network.state_dict().items()}}
    save(training.folder / "streaknet.safetensors", tensors, facts)
    return LabelOutcome(before, outcome, counts[0], counts[1], len(frames))


def mean_loss(network: AsteroidNet, sample: Judged) -> float:
    """The cross-entropy of a sample, each class with half of the weight."""
    logit = answers(network, sample)
    loss = np.logaddexp(0.0, np.where(sample.true, -logit, logit))
    return float(0.5 * loss[sample.true].mean() + 0.5 * loss[~sample.true].mean())


# The networks that can learn from labels; one of another kind takes ``labelled_frames`` and makes its own examples.
LABEL_RECIPES: Mapping[str, Callable[[LabelTraining], LabelOutcome]] = {
    "streaknet": train_streaknet_on_labels,
    "asteroid": train_asteroid_on_labels,
}


def train_on_labels(name: str, training: LabelTraining) -> LabelOutcome:
    """Run the recipe ``name``. Raises ``BadRecipe`` for one that there is not, or for labels that do not fit."""
    if name not in LABEL_RECIPES:
        raise BadRecipe(f"no network named {name!r} learns from labels: there are {', '.join(sorted(LABEL_RECIPES))}")
    return LABEL_RECIPES[name](training)
