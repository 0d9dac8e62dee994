"""Networks of lenses and mergers: what they answer, how they learn, what they refuse."""

import numpy as np
import pytest
import torch

from models.calibration import Curve, calibration_error, fit_curve
from models.networks.denselens import DenseShape, Ensemble
from models.networks.discriminator import STEP_PX, WINDOW_PX, Discriminator
from models.networks.vgg import Vgg19, read_vgg
from models.training.classes import class_batches, mean_logit
from models.training.recipes import BadRecipe, Training, train
from models.training.stampbank import Stamps
from models.weights import BadWeights, load


def discs_and_rings(count, seed):
    """Crude stamps that a network can tell: rings are lenses, discs are none."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-31.5:32, -31.5:32]
    radius = np.hypot(rows, columns)
    label = (np.arange(count) % 2).astype(np.int8)
    pixels = rng.standard_normal((count, 64, 64)).astype(np.float32)
    ring, disc = np.exp(-(((radius - 14) / 2) ** 2)), np.exp(-((radius / 6) ** 2))
    pixels += 8.0 * np.where(label[:, None, None] == 1, ring, disc).astype(np.float32)
    ic = np.where(label == 1, rng.uniform(1, 100, count), np.nan).astype(np.float32)
    return Stamps(pixels.astype(np.float16), label, ic, np.where(label == 1, "lens", "disc"))


@pytest.fixture
def drawn(monkeypatch):
    """Banks without a simulation; what hardly learned is not calibrated: the curve has its own test."""
    seeds = []

    def stamps(bank):
        seeds.append(bank.seed)
        return discs_and_rings(bank.count, bank.seed)

    monkeypatch.setattr("models.training.stampbank.StampBank.make", lambda *_: None)
    monkeypatch.setattr("models.training.stampbank.StampBank.stamps", stamps)
    monkeypatch.setattr("models.training.classrecipes.fit_curve", lambda *_: Curve(1.0, 0.0, 0.5))
    return seeds


def test_every_batch_has_as_many_lenses_as_others():
    stamps = discs_and_rings(90, 1).take(np.concatenate([np.arange(0, 90, 2), np.arange(1, 20, 2)]))
    batches = class_batches(stamps, 3)
    for _ in range(3):
        target = next(batches).target
        assert (target == 1).sum() == (target == 0).sum()


def test_denselens_learns_rings_and_its_weights_say_how_they_were_made(tmp_path, drawn):
    training = Training(tmp_path, seed=4, steps=6, stamps=160, device="cpu", survey="euclid-vis")
    train("denselens", training)
    weights = load(str(tmp_path / "denselens.safetensors"))
    assert drawn == [4, 5]
    assert weights.facts["recipe"]["seed"] == 4
    assert weights.facts["calibration"]["rate"] == 0.5
    assert 0 < weights.facts["threshold"] < 1
    assert {name.split(".")[0] for name in weights.tensors} == {"classifiers", "regressors"}


def test_seeds_of_evaluation_train_no_class(tmp_path, drawn):
    with pytest.raises(BadRecipe, match="900000"):
        train("merger", Training(tmp_path, seed=900_000))
    assert drawn == []


@pytest.mark.usefixtures("drawn")
def test_frozen_layers_learn_nothing(tmp_path):
    first = Training(tmp_path / "first", seed=4, steps=2, stamps=64, device="cpu")
    train("merger", first)
    begun = str(tmp_path / "first" / "merger.safetensors")
    train("merger", Training(tmp_path / "second", seed=6, steps=3, stamps=64, init_from=begun, freeze=1, device="cpu"))
    before, after = load(begun).tensors, load(str(tmp_path / "second" / "merger.safetensors")).tensors
    assert torch.equal(before["features.0.weight"], after["features.0.weight"])
    assert not torch.equal(before["features.3.weight"], after["features.3.weight"])


def test_the_discriminator_says_of_a_window_in_a_frame_what_it_says_of_the_window_alone():
    network = Discriminator().eval()
    frame = 5 * torch.randn(
        1, WINDOW_PX + 5 * STEP_PX, WINDOW_PX + 3 * STEP_PX, generator=torch.Generator().manual_seed(2)
    )
    with torch.inference_mode():
        whole = network(frame)[0]
        one = network(frame[:, 4 * STEP_PX : 4 * STEP_PX + WINDOW_PX, STEP_PX : STEP_PX + WINDOW_PX])[0, :, 0, 0]
    assert whole.shape == (4, 6, 4)
    assert torch.allclose(whole[:, 4, 1], one, atol=1e-5)


def test_masked_pixels_count_as_empty_sky():
    network = Ensemble(2, DenseShape(8, 4, (1, 1))).eval()
    empty, masked = torch.zeros(1, 64, 64), torch.full((1, 64, 64), torch.nan)
    with torch.inference_mode():
        assert torch.equal(network(empty), network(masked))


def test_vgg19_takes_the_convolutions_of_a_checkpoint_in_torchvisions_layout(tmp_path):
    given, path = Vgg19(narrow=16), tmp_path / "vgg.pth"
    state = {f"features.{name}": tensor for name, tensor in given.features.state_dict().items()}
    assert len([name for name in state if name.endswith("weight")]) == 16
    assert "features.34.weight" in state
    torch.save(state | {"classifier.0.weight": torch.zeros(3, 3)}, path)
    network = Vgg19(narrow=16)
    network.take(read_vgg(path), path)
    network.freeze(2)
    assert torch.equal(network.features[0].weight, given.features[0].weight)
    assert not network.features[5].weight.requires_grad
    assert network.features[10].weight.requires_grad


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path):
    path = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(BadWeights, match=r"vgg.pth: features.0.weight has the shape \(1,\)"):
        Vgg19(narrow=16).take(read_vgg(path), path)


def test_a_checkpoint_that_would_execute_something_is_refused(tmp_path):
    path = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": Curve(1.0, 0.0, 0.5)}, path)
    with pytest.raises(BadWeights, match="more than plain tensors"):
        read_vgg(path)


def test_a_calibrated_probability_is_the_share_of_true_ones():
    rng = np.random.default_rng(5)
    true = rng.uniform(size=20_000) < 0.3
    logit = np.where(true, 1.0, -1.0) * 3 + 4 * rng.standard_normal(true.size)
    curve = fit_curve(logit, true)
    assert calibration_error(curve.probability(logit), true) < 0.02
    rarer = curve.probability(logit, 0.03)
    assert rarer.mean() < curve.probability(logit).mean() / 3


def test_the_ensembles_probability_is_the_members_mean():
    assert mean_logit(np.array([[-20.0, 20.0]]))[0] == pytest.approx(0.0, abs=1e-6)
