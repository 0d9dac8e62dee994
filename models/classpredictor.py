"""The networks of lenses and mergers and the discriminator as plain functions: numpy in, numpy out.

They satisfy what ``detector.candidates`` asks for. What they publish is what their weights say of themselves: the curve
that makes a probability of a logit, the threshold, the weights and floors of the discriminator's classes. At night it
fails by running out of GPU memory; stamps go through a part at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from detector.candidates import CLASSES
from models.calibration import Curve, curve_of
from models.networks.denselens import DenseShape, Ensemble
from models.networks.discriminator import STEP_PX, WINDOW_PX
from models.networks.discriminator import Discriminator as DiscriminatorNet
from models.networks.merger import MergerNet
from models.networks.resnet import ResNet
from models.networks.vgg import Vgg19
from models.predictor import choose_device
from models.weights import BadWeights, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.weights import Weights

LENS_NETWORKS = ("denselens", "resnet")
MERGER_NETWORKS = ("merger", "vgg19")
STAMPS_AT_ONCE = 64
# What is looked at where the weights of the discriminator name no floor: a chance of one in ten.
DEFAULT_FLOOR = 0.1
DEFAULT_THRESHOLD = 0.5
# Probabilities of 0 and 1 have no log-odds.
NEARLY = 1e-12


@dataclass(frozen=True, eq=False)
class ClassPredictor:
    """A network of one class, or an ensemble, and the regressors of information content where it has them."""

    network: nn.Module
    regressors: nn.Module | None
    device: torch.device
    curve: Curve
    threshold: float
    name: str
    weights: Weights

    @property
    def model(self) -> str:
        """The network's name and the first twelve digits of its weights' SHA-256."""
        return f"{self.name}@{self.weights.sha256[:12]}"

    def outputs(self, stamps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Give the members' logits ``[n, members]`` of stamps ``[n, 64, 64]``; of a single network one column."""
        return _through(self.network, stamps, self.device)

    def logit(self, stamps: NDArray[np.float32]) -> NDArray[np.float64]:
        """Give the logit ``[n]`` of the mean of the members' probabilities, not calibrated."""
        return mean_logit(self.outputs(stamps))

    def judge(self, stamps: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the probability ``[n]`` and its spread: over the members, or over four turns where there is one."""
        outputs = self.outputs(stamps)
        members = outputs
        if outputs.shape[1] == 1:
            turned = [self.outputs(np.ascontiguousarray(np.rot90(stamps, turn, (1, 2)))) for turn in (1, 2, 3)]
            members = np.concatenate([outputs, *turned], axis=1)
        return self.curve.probability(mean_logit(outputs)), self.curve.probability(members).std(axis=1)

    def content(self, stamps: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the information content ``[n]`` and its spread over the regressors; NaN where there are none."""
        if self.regressors is None:
            return np.full(len(stamps), np.nan), np.full(len(stamps), np.nan)
        logarithm = _through(self.regressors, stamps, self.device)
        ic = 10.0 ** logarithm.mean(axis=1)
        return ic, ic * math.log(10.0) * logarithm.std(axis=1)


@dataclass(frozen=True, eq=False)
class MapPredictor:
    """The discriminator: strips in, log-odds of the classes out, with its classes weighted as its weights say."""

    network: nn.Module
    device: torch.device
    class_weights: NDArray[np.float64]
    floors: Mapping[str, float]
    weights: Weights
    window: int = WINDOW_PX
    step: int = STEP_PX

    def floor(self, name: str) -> float:
        """Give the lowest log-odds of a peak of class ``name`` that is looked at."""
        return log_odds_of(float(self.floors.get(name, DEFAULT_FLOOR)))

    def __call__(self, strip: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give ``[rows, cols, 4]``: the log-odds of each class against all others."""
        with torch.inference_mode():
            out = self.network(torch.from_numpy(np.ascontiguousarray(strip))[None].to(self.device))  # 1 4 r c
        logits = out[0].permute(1, 2, 0).cpu().numpy().astype(np.float64) + np.log(self.class_weights)
        return log_odds_against_others(logits).astype(np.float32)


def log_odds_against_others(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the log-odds ``[..., k]`` of each class against all others, of their logits ``[..., k]``."""
    classes = logits.shape[-1]
    others = [np.logaddexp.reduce(np.delete(logits, k, axis=-1), axis=-1) for k in range(classes)]
    return logits - np.stack(others, axis=-1)


def log_odds_of(probability: float) -> float:
    """The log-odds of a probability; of 0 and 1 very large ones."""
    p = min(max(probability, NEARLY), 1.0 - NEARLY)
    return math.log(p / (1.0 - p))


def mean_logit(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logit ``[n]`` of the mean of the probabilities of members ``[n, members]``."""
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    probability = np.clip((1.0 / (1.0 + np.exp(-outputs))).mean(axis=1), NEARLY, 1.0 - NEARLY)
    return np.asarray(np.log(probability / (1.0 - probability)))


def load_class_network(name: str, device: str, *, task: str, threshold: float | None = None) -> ClassPredictor:
    """Give the named network of ``task`` (``lenses`` or ``mergers``), ready to run.

    ``threshold`` is the lowest probability published; None takes that of the weights.

    Errors: ``BadWeights`` where the weights are absent, changed, another network's, or not calibrated.
    """
    weights = load(name)
    kinds = LENS_NETWORKS if task == "lenses" else MERGER_NETWORKS
    kind = str(weights.facts.get("network"))
    if kind not in kinds:
        raise BadWeights(f"{name!r} holds a {kind!r}, not one of {', '.join(kinds)}")
    if "calibration" not in weights.facts:
        raise BadWeights(f"{name!r} is not calibrated: give the file that `needlestream train` ends with")
    where = choose_device(device)
    network, regressors = _built(name, weights)
    return ClassPredictor(
        network.to(where).eval(),
        None if regressors is None else regressors.to(where).eval(),
        where,
        curve_of(weights.facts),
        float(weights.facts.get("threshold", DEFAULT_THRESHOLD)) if threshold is None else threshold,
        kind,
        weights,
    )


def load_discriminator(name: str, device: str) -> MapPredictor:
    """Give the named discriminator, ready to run.

    Errors: ``BadWeights``.
    """
    weights = load(name)
    if weights.facts.get("network") != "discriminator":
        raise BadWeights(f"{name!r} holds a {weights.facts.get('network')!r}, not a discriminator")
    where = choose_device(device)
    network = _filled(name, DiscriminatorNet(), dict(weights.tensors))
    told = weights.facts.get("class_weights", {})
    class_weights = np.array([float(told.get(each, 1.0)) for each in CLASSES])
    return MapPredictor(network.to(where).eval(), where, class_weights, weights.facts.get("floors", {}), weights)


def _built(name: str, weights: Weights) -> tuple[nn.Module, nn.Module | None]:
    """The network of these weights, and its regressors where it has them."""
    facts, tensors = weights.facts, weights.tensors
    if facts["network"] == "denselens":
        shape: dict[str, Any] = dict(facts["shape"])
        members = int(shape.pop("classifiers")), int(shape.pop("regressors"))
        dense = DenseShape(int(shape["entry"]), int(shape["growth"]), tuple(shape["blocks"]))
        parts = [
            _filled(name, Ensemble(count, dense), _beginning(tensors, prefix))
            for count, prefix in zip(members, ("classifiers.", "regressors."), strict=True)
        ]
        return parts[0], parts[1]
    if facts["network"] == "vgg19":
        return _filled(name, Vgg19(narrow=int(facts["shape"]["narrow"])), dict(tensors)), None
    bare = ResNet() if facts["network"] == "resnet" else MergerNet()
    return _filled(name, bare, dict(tensors)), None


def _beginning(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _filled(name: str, network: nn.Module, tensors: Mapping[str, Any]) -> nn.Module:
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError:
        raise BadWeights(
            f"{name!r} holds tensors of another version of this program: take the shipped weights, or train again"
        ) from None
    return network


def _through(network: nn.Module, stamps: NDArray[np.float32], device: torch.device) -> NDArray[np.float64]:
    """What a network says of stamps, a part at a time: ``[n, members]``."""
    parts = [np.zeros((0, 1))]
    with torch.inference_mode():
        for first in range(0, len(stamps), STAMPS_AT_ONCE):
            part = torch.from_numpy(np.ascontiguousarray(stamps[first : first + STAMPS_AT_ONCE], np.float32))
            said = network(part.to(device)).float().cpu().numpy().astype(np.float64)
            parts.append(said.reshape(len(part), -1))
    return np.concatenate(parts[1:] or parts)
