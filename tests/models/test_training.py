"""Training: what it refuses, that it learns on the CPU, and that it goes on where it stopped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.cutouts import CHANNELS, SIDE
from detector.evidence import NAMES
from detector.tiling import Tiling
from models.predictor import PLAINLY_FALSE, load_streak_network
from models.training import asteroid
from models.training.cells import label_cells
from models.training.recipes import BadRecipe, Training, train
from models.training.scenes import Bank, Sample, draw_samples, turned
from models.weights import BadWeights, load, save, write_manifest


@pytest.mark.parametrize(
    ("name", "survey", "seed"),
    [("streaknet", "all", 900_000), ("streaknet", "all", 899_999), ("streaknet", "sdss", 1), ("yolo", "all", 1)],
)
def test_evaluation_seeds_and_unknown_names_are_refused(tmp_path: Path, name: str, survey: str, seed: int) -> None:
    with pytest.raises(BadRecipe):
        train(name, Training(tmp_path, survey=survey, seed=seed))
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_stopped_goes_on_and_ends_with_calibrated_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asteroid, "BATCH", 16)
    small = {
        "folder": tmp_path,
        "survey": "euclid-vis",
        "seed": 5,
        "scenes": 1,
        "scene_px": 384,
        "workers": 0,
        "verifying": 3,
        "rounds": 2,
        "verifying_steps": 60,
    }
    first = train("streaknet", Training(**small, steps=6, minutes=0.0))
    assert (first.stopped, first.step) == ("minutes", 1)
    second = train("streaknet", Training(**small, steps=6, resume=True))
    assert (second.stopped, second.step) == ("steps", 6)
    network = load_streak_network(str(tmp_path / "streaknet.safetensors"), "cpu")
    assert network.weights.facts["recipe"]["seed"] == 5
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    assert network.weights.facts["recipe"]["verifying"]["rounds"] == 2

    # The second stage alone, for what the first run proposed: the proposer stays as it was.
    again = Training(**small | {"folder": tmp_path / "again"}, init_from=str(tmp_path / "streaknet.safetensors"))
    assert train("asteroid", again).stopped == "steps"
    other = load_streak_network(str(tmp_path / "again" / "streaknet.safetensors"), "cpu")
    for name, tensor in network.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name])

    # Tuned, it begins where the other ended, on the same judged exposures.
    judged = {path: path.stat().st_mtime_ns for path in (tmp_path / "again" / "judged").iterdir()}
    begin = str(tmp_path / "again" / "streaknet.safetensors")
    tuned = replace(again, init_from=begin, tune=True, verifying_steps=1)
    assert train("asteroid", tuned).stopped == "steps"
    third = load_streak_network(str(tmp_path / "again" / "streaknet.safetensors"), "cpu")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "again" / "judged").iterdir()} == judged
    assert third.weights.facts["recipe"]["verifying"]["begins_with"]["steps"] == 60
    before, after = (each.verifier.state_dict() for each in (other, third) if each.verifier is not None)
    # A step of Adam is as long as its learning rate, whatever the gradient.
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert moved["mean"] == moved["scatter"] == 0.0
    assert 0.0 < max(moved.values()) < 2.0 * asteroid.LEARNING_RATE * asteroid.LATER_ROUNDS * tuned.rounds


def test_what_a_window_should_answer_turns_with_the_image() -> None:
    tiling, shape = Tiling(), (256, 256)
    trails = np.array([[100.0, 60.0, 125.0, 80.0, 50.0, 1.0], [200.0, 100.0, 210.0, 60.0, 40.0, 1.0]])

    def labelled(rows: np.ndarray) -> Sample:
        target, weight = label_cells(rows, tiling.grid(shape), tiling.window, tiling.step)
        return Sample(np.zeros((344, 344), np.float32), 2.0, target, weight)

    for which in range(8):
        moved = trails.copy()
        moved[:, [0, 2]] = 255 - moved[:, [0, 2]] if which & 1 else moved[:, [0, 2]]
        moved[:, [1, 3]] = 255 - moved[:, [1, 3]] if which & 2 else moved[:, [1, 3]]
        moved[:, :4] = moved[:, [1, 0, 3, 2]] if which & 4 else moved[:, :4]
        found, expected = turned(labelled(trails), which, tiling.window), labelled(moved)
        np.testing.assert_array_equal(found.weight, expected.weight)
        positive = expected.target[0] > 0
        np.testing.assert_allclose(found.target[:, positive], expected.target[:, positive], atol=1e-4)
        assert (found.target[0] == expected.target[0]).all()


def test_an_exposure_is_cut_into_crops_of_whole_windows_at_every_scale(tmp_path: Path) -> None:
    bank = Bank(tmp_path, 3, 1, (("euclid-vis", 1.0),), (384, 384))
    bank.make(0)
    tiling = Tiling()
    drawn = dict(draw_samples(np.random.default_rng(1), bank.scene(0), tiling, 16))
    assert {scale: sample.pixels.shape for scale, sample in drawn.items()} == {
        1: (9, 216, 216),
        2: (1, 216, 216),
        4: (1, 184, 184),
    }
    assert all(sample.target.shape[1:] == (5, *sample.weight.shape[1:]) for sample in drawn.values())


def test_weights_that_were_changed_or_are_something_else_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "streaknet.safetensors"
    save(path, {"a": torch.zeros(3)}, {"network": "something"})
    with pytest.raises(BadWeights, match="something"):
        load_streak_network(str(path))
    write_manifest(tmp_path)
    monkeypatch.setattr("models.weights.shipped", lambda name: tmp_path / f"{name}.safetensors")
    assert load("streaknet").facts == {"network": "something"}
    (tmp_path / "manifest.json").write_text(json.dumps({path.name: "0" * 64}))
    with pytest.raises(BadWeights, match="install again"):
        load("streaknet")
    with pytest.raises(BadWeights, match="no weights"):
        load("nothing")


def test_a_second_stage_of_another_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    shipped = load("streaknet")
    tensors = {**shipped.tensors, "verifier.mean": torch.zeros(3)}
    save(tmp_path / "old.safetensors", tensors, shipped.facts)
    with pytest.raises(BadWeights, match="train it again"):
        load_streak_network(str(tmp_path / "old.safetensors"), "cpu")


def test_what_is_not_plainly_false_is_judged_alike_from_all_four_sides() -> None:
    network = load_streak_network("streaknet", "cpu")
    rng = np.random.default_rng(4)
    stamps = rng.normal(size=(60, len(CHANNELS), SIDE, SIDE)).astype(np.float32)
    evidence = rng.normal(size=(60, len(NAMES))) * 2.0
    judged = network.judge(stamps, evidence)
    assert network.verifier is not None
    with torch.inference_mode():
        once = network.verifier(torch.from_numpy(stamps), torch.from_numpy(evidence.astype(np.float32))).numpy()
    plain = once <= PLAINLY_FALSE
    assert 5 < plain.sum() < 55
    np.testing.assert_allclose(judged[plain], once[plain], atol=1e-4)
    assert np.abs(judged - once)[~plain].max() > 0.05
    clear = judged > PLAINLY_FALSE + 3.0
    for axes in ((2,), (3,), (2, 3)):
        seen = network.judge(np.flip(stamps, axes).copy(), evidence)
        np.testing.assert_allclose(seen[clear], judged[clear], atol=1e-3)


def test_the_shipped_network_gives_probabilities_that_fall_with_the_expected_density() -> None:
    network = load_streak_network("streaknet", "cpu")
    rng = np.random.default_rng(3)
    evidence = rng.normal(size=(50, len(NAMES)))
    logit = network.judge(rng.normal(size=(50, len(CHANNELS), SIDE, SIDE)).astype(np.float32), evidence)
    many, few = network.probability(logit, 100.0), network.probability(logit, 0.1)
    assert np.ptp(many) > 0
    assert (few < many).all()
    odds = (many / (1 - many)) / (few / (1 - few))
    np.testing.assert_allclose(odds, 1000.0, rtol=1e-4)
