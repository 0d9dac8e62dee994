"""Learning from a user's own labels: what a table may look like, what is refused, and that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits

from detector.psf import Psf
from detector.tiling import Tiling
from models.evaluate.injection import unit_streak
from models.networks.asteroid import AsteroidNet
from models.networks.streaknet import StreakNet, StreakNetShape
from models.training.labels import (
    IMPOSTOR_WEIGHT,
    LabelTraining,
    labelled_crops,
    labelled_frames,
    read_labels,
    train_on_labels,
)
from models.training.recipes import BadRecipe
from models.weights import load, save

SIDE = 176
PER_FRAME = 4


def table(rows: list[tuple[object, ...]], names: str = "frame x0 y0 x1 y1 label") -> dict[str, np.ndarray]:
    columns = dict(zip(names.split(), zip(*rows, strict=True), strict=True))
    return {name: np.array(column, np.str_ if name == "frame" else float) for name, column in columns.items()}


def write_night(folder: Path, frames: int = 3) -> dict[str, np.ndarray]:
    """Frames with bright trails (label 1) and round stars (label 0, as a pipeline took them for trails)."""
    rng = np.random.default_rng(8)
    rows: list[tuple[object, ...]] = []
    folder.mkdir()
    for number in range(frames):
        pixels = rng.normal(500.0, 10.0, (SIDE, SIDE))
        for k in range(PER_FRAME):
            x, y = 45 + 85 * (k % 2), 45 + 85 * (k // 2)
            angle = rng.uniform(0, np.pi)
            half = 12 * np.array([np.cos(angle), np.sin(angle)])
            ends = np.array([x, y]) + rng.uniform(-5, 5, 2) + np.array([-half, half])
            star = np.array([[x + 40.0, y - 20.0], [x + 44.0, y - 20.0]])
            for one, flux in ((ends, 9000.0), (star, 6000.0)):
                (top, left), light = unit_streak(one, Psf.gaussian(2.2))
                pixels[top : top + light.shape[0], left : left + light.shape[1]] += (
                    flux * light[: SIDE - top, : SIDE - left]
                )
                rows.append((f"f{number}.fits", *one.ravel(), float(one is ends)))
        header = fits.Header({"EXPTIME": 60.0, "GAIN": 1.0, "RDNOISE": 5.0})
        fits.writeto(folder / f"f{number}.fits", pixels.astype(np.float32), header)
    return table(rows)


def test_ends_may_come_as_a_middle_a_length_and_an_angle() -> None:
    (rows,) = read_labels(table([("a.fits", 50, 40, 20, 90)], "frame x y length angle")).values()
    assert rows[["x0", "y0", "x1", "y1"]][0].tolist() == pytest.approx((50, 30, 50, 50))
    assert rows["asteroid"].all()


def test_frames_are_told_apart_by_their_hdu() -> None:
    rows = [("a.fits", 1, 1, 9, 9, 1, 1), ("a.fits", 1, 1, 9, 9, 0, 2)]
    assert set(read_labels(table(rows, "frame x0 y0 x1 y1 label extension"))) == {("a.fits", 1), ("a.fits", 2)}


@pytest.mark.parametrize(
    ("rows", "names", "complaint"),
    [
        ([("a.fits", 1, 2, 3, 4)], "file x0 y0 x1 y1", "no column frame"),
        ([("a.fits", 1, 2, 3)], "frame x y length", "x0, y0, x1, y1, or x, y, length, angle"),
        ([("a.fits", 1, 2, 3, np.nan, 1)], "frame x0 y0 x1 y1 label", "row 1 has no number"),
        ([("a.fits", 1, 2, 3, 4, 2)], "frame x0 y0 x1 y1 label", "label 2"),
        ([("z.fits", 1, 2, 3, 4, 1)], "frame x0 y0 x1 y1 label", "'z.fits' fits none of 2 files"),
        ([("f0.fits", 1, 2, 300, 4, 1), ("f0.fits", 300, 2, 400, 4, 1)], "frame x0 y0 x1 y1 label", "row 2 .* outside"),
        ([("f0.fits", 10, 20, 30, 40, 1)], "frame x0 y0 x1 y1 label", "at least two"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_row(
    tmp_path: Path, rows: list[tuple[object, ...]], names: str, complaint: str
) -> None:
    write_night(tmp_path / "night", 2)
    columns = table(rows, names) if names.startswith("frame") else {"file": np.array(["a.fits"])}
    with pytest.raises(BadRecipe, match=complaint):
        train_on_labels("streaknet", LabelTraining(tmp_path / "run", columns, tmp_path / "night"))
    assert not (tmp_path / "run").exists()


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="streaknet"):
        train_on_labels("yolo", LabelTraining(tmp_path, {}, tmp_path))


def test_an_impostor_is_a_heavy_negative_and_an_asteroid_a_positive_with_its_ends(tmp_path: Path) -> None:
    labels = write_night(tmp_path / "night", 1)
    (frame,) = labelled_frames(labels, tmp_path / "night")
    scale, sample, labelled = next(iter(labelled_crops(frame, Tiling())))
    assert (scale, labelled.tolist()) == (1, [True])
    target, weight = sample.target[0], sample.weight[0]
    assert (weight == IMPOSTOR_WEIGHT).sum() == PER_FRAME
    assert (target[0][weight == IMPOSTOR_WEIGHT] == 0).all()
    rows, cols = np.nonzero(target[0])
    assert len(rows) >= PER_FRAME
    corner = 8 * np.array([cols[0], rows[0]]) - Tiling().margin
    ends = target[1:, rows[0], cols[0]].reshape(2, 2) + corner
    told = frame.ends[frame.asteroid].reshape(-1, 2, 2)
    apart = np.minimum(*(np.abs(told[:, order] - ends).max(axis=(1, 2)) for order in ([0, 1], [1, 0])))
    assert apart.min() < 0.01


def share_above(weights: str, night: Path, labels: dict[str, np.ndarray]) -> float:
    """The share of the empty windows that score above the median labelled one, in the held-back frame."""
    loaded = load(weights)
    network = StreakNet(StreakNetShape(channels=tuple(loaded.facts["shape"]["channels"])))
    network.load_state_dict({name: loaded.tensors[name] for name in network.state_dict()})
    frame = next(labelled_frames(labels, night))
    _, sample, _ = next(iter(labelled_crops(frame, Tiling())))
    with torch.inference_mode():
        logit = network(torch.from_numpy(sample.pixels), torch.tensor([sample.fwhm_px]))[:, 0].numpy()
    positive = sample.target[:, 0] > 0.5
    return float((logit[~positive & (sample.weight > 0)] > np.median(logit[positive])).mean())


def test_labels_teach_an_untrained_network_to_find_them_in_a_frame_held_back(tmp_path: Path) -> None:
    labels = write_night(tmp_path / "night")
    torch.manual_seed(2)
    shape = StreakNetShape(channels=(8, 8, 8, 8, 8, 8))
    facts = {
        "network": "streaknet",
        "shape": {"window": 96, "step": 8, "channels": [8] * 6},
        "calibration": {"slope": 1},
    }
    begin = str(tmp_path / "begin.safetensors")
    save(Path(begin), {**StreakNet(shape).state_dict(), "verifier.kept": torch.ones(2)}, facts)
    training = LabelTraining(
        tmp_path / "run", labels, tmp_path / "night", steps=100, device="cpu", init_from=begin, learning_rate=4e-3
    )
    done = train_on_labels("streaknet", training)
    assert (done.asteroids, done.impostors, done.frames) == (12, 12, 3)
    assert done.run.best_loss < 0.95 * done.before["loss"]
    finished = str(tmp_path / "run" / "streaknet.safetensors")
    before, after = (share_above(weights, tmp_path / "night", labels) for weights in (begin, finished))
    assert after < 0.03
    assert after < 0.3 * before
    kept = load(finished)
    assert kept.tensors["verifier.kept"].tolist() == [1, 1]
    assert kept.facts["calibration"] == {"slope": 1}
    assert kept.facts["recipe"]["labels"] == {"asteroids": 12, "others": 12, "frames": 3}


def test_labels_teach_an_untrained_second_stage_which_proposals_are_asteroids(tmp_path: Path) -> None:
    labels = write_night(tmp_path / "night", frames=4)
    shipped = load("streaknet")
    torch.manual_seed(3)
    blank = {f"verifier.{name}": tensor for name, tensor in AsteroidNet().state_dict().items()}
    blank |= {name: shipped.tensors[name] for name in ("verifier.mean", "verifier.scatter")}
    begin = str(tmp_path / "begin.safetensors")
    save(Path(begin), {**shipped.tensors, **blank}, shipped.facts)
    training = LabelTraining(
        tmp_path / "run", labels, tmp_path / "night", steps=120, device="cpu", init_from=begin, learning_rate=2e-3
    )
    done = train_on_labels("asteroid", training)
    assert (done.asteroids, done.impostors, done.frames) == (16, 16, 4)
    assert done.run.best_loss < 0.5 * done.before["loss"]
    finished = load(str(tmp_path / "run" / "streaknet.safetensors"))
    assert finished.facts["calibration"] == shipped.facts["calibration"]  # too few asteroids to make a new one
    assert torch.equal(finished.tensors["dense.weight"], shipped.tensors["dense.weight"])
