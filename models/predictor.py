"""Networks as plain functions: numpy in, numpy out; device, precision and batches stay in here.

The only place that knows ``inference_mode`` and ``eval``. At night it fails by running out of GPU memory: the strip is
the unit of work and its size is bounded by the caller, so that means another process holds the card.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import special

from models.networks.asteroid import AsteroidNet
from models.networks.snippets import SnippetNet
from models.networks.streaknet import StreakNet, StreakNetShape
from models.weights import BadWeights, load

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from detector.snippets import Snippets
    from models.weights import Weights


# Lines of snippets that go through the merger together: 25 MB of states.
SNIPPETS_AT_ONCE = 4_096
# Candidates above this logit are seen mirrored too; and the ways of mirroring a stamp [n, c, along, across].
PLAINLY_FALSE = -5.0
MIRRORED = ((2,), (3,), (2, 3))
# Half precision where the device is made for it.
PRECISION = {"cuda": torch.float16, "cpu": torch.float32}


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is a device, else the CPU; any other name is torch's."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def device_memory_bytes(device: torch.device) -> dict[str, int]:
    """Memory of a GPU: ``used`` by tensors, ``reserved`` for them, ``total``; all 0 for a CPU."""
    if device.type != "cuda":
        return dict.fromkeys(("used", "reserved", "total"), 0)
    return {
        "used": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "total": torch.cuda.get_device_properties(device).total_memory,
    }


@dataclass(frozen=True, eq=False)
class StreakPredictor:
    """A trained StreakNet on a device, and the AsteroidNet that verifies: a ``detector.streaknetwork.StreakNetwork``.

    Without the second stage the judgement is the first's own, uncalibrated: for training one.
    """

    network: StreakNet
    device: torch.device
    precision: torch.dtype
    weights: Weights
    verifier: AsteroidNet | None

    @property
    def window(self) -> int:
        """The window's side in pixels."""
        return self.network.shape.window

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        return self.network.shape.step

    def __call__(self, strip: NDArray[np.float32], fwhm_px: float) -> NDArray[np.float32]:
        """Give ``[rows, cols, 5]`` of the windows of a strip ``[h, w]``: logit, x0, y0, x1, y1."""
        pixels = torch.from_numpy(strip)[None].to(self.device)  # 1 h w
        width = torch.tensor([fwhm_px], dtype=torch.float32, device=self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32),
        ):
            out: Tensor = self.network(pixels, width)
        result: NDArray[np.float32] = out[0].permute(1, 2, 0).cpu().numpy()
        return result

    def judge(self, stamps: NDArray[np.float32], evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the logit of candidates by their cut-outs ``[n, 6, 48, 48]`` and their evidence ``[n, k]``.

        What is not plainly false is seen mirrored too, as a line's ends and sides are alike: the mean of the four.
        """
        if self.verifier is None:
            return evidence[:, 0]
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32),
        ):
            seen = torch.from_numpy(stamps).to(self.device)
            told = torch.from_numpy(evidence.astype(np.float32)).to(self.device)
            logit = judge_mirrored(self.verifier, seen, told)
        return logit.cpu().numpy().astype(np.float64)

    def probability(self, logit: NDArray[np.float64], expected_per_frame: float) -> NDArray[np.float64]:
        """Give the probability that belongs to a logit where so many streaks are expected in a frame.

        Odds of true against false go with the number of true ones: a shift of the logit (Saerens et al. 2002).
        """
        curve = self.weights.facts.get("calibration")
        if self.verifier is None or curve is None:
            return np.asarray(special.expit(logit))
        shift = math.log(expected_per_frame / float(curve["density"]))
        return np.asarray(special.expit(float(curve["slope"]) * logit + float(curve["intercept"]) + shift))


def judge_mirrored(verifier: AsteroidNet, stamps: Tensor, evidence: Tensor) -> Tensor:
    """Give the logits ``[n]``; above ``PLAINLY_FALSE`` the mean over the stamps as they are and mirrored."""
    logit: Tensor = verifier(stamps, evidence).float()
    again = torch.nonzero(logit > PLAINLY_FALSE)[:, 0]
    if len(again):
        for axes in MIRRORED:
            logit[again] += verifier(stamps[again].flip(axes), evidence[again]).float()
        logit[again] /= 1 + len(MIRRORED)
    return logit


def load_streak_network(name: str = "streaknet", device: str = "auto") -> StreakPredictor:
    """Give the named StreakNet, ready to run.

    Errors: ``BadWeights`` where the weights are absent, changed, another network's, or without a verifier.
    """
    weights = load(name)
    if weights.facts.get("network") != "streaknet":
        raise BadWeights(f"{name!r} holds a {weights.facts.get('network')!r}, not a streaknet")
    if "calibration" not in weights.facts or not any(is_verifier(tensor) for tensor in weights.tensors):
        raise BadWeights(f"{name!r} has no verifier: give the file that `needlestream train` ends with")
    return streak_predictor(weights, device)


def streak_predictor(weights: Weights, device: str) -> StreakPredictor:
    """Give the StreakNet of these weights with its verifier.

    Errors: ``BadWeights`` where the verifier is that of another version.
    """
    bare = bare_predictor(weights, device)
    return replace(bare, verifier=load_verifier(weights).to(bare.device).eval())


def load_verifier(weights: Weights) -> AsteroidNet:
    """Give the verifier of these weights, on the CPU.

    Errors: ``BadWeights`` where it is that of another version, or there is none.
    """
    verifier = AsteroidNet()
    tensors = {name[9:]: tensor for name, tensor in weights.tensors.items() if is_verifier(name)}
    if {name: tensor.shape for name, tensor in tensors.items()} != {
        name: tensor.shape for name, tensor in verifier.state_dict().items()
    }:
        raise BadWeights(
            "these weights hold no second stage, or one of another version of this program: take the shipped ones, or "
            "train it again with `needlestream train asteroid --init-from FILE`"
        )
    verifier.load_state_dict(tensors)
    return verifier


def bare_predictor(weights: Weights, device: str) -> StreakPredictor:
    """Give the StreakNet of these weights alone: half precision on CUDA, float32 on the CPU."""
    shape = weights.facts["shape"]
    network = StreakNet(StreakNetShape(shape["window"], shape["step"], tuple(shape["channels"])))
    network.load_state_dict({name: tensor for name, tensor in weights.tensors.items() if not is_verifier(name)})
    where = choose_device(device)
    return StreakPredictor(network.to(where).eval(), where, PRECISION[where.type], weights, None)


@dataclass(frozen=True, eq=False)
class SnippetJoiner:
    """The trained merger of snippets: satisfies ``detector.snippets.Joiner``."""

    network: SnippetNet

    def __call__(self, table: Snippets) -> NDArray[np.float64]:
        """Give the probability ``[n, k]`` that each neighbour of a snippet belongs to its streak; 0 where none is."""
        probability = np.zeros(table.neighbours.shape)
        with torch.inference_mode():
            for begin in range(0, len(probability), SNIPPETS_AT_ONCE):
                rows = slice(begin, begin + SNIPPETS_AT_ONCE)
                present = torch.from_numpy(table.neighbours[rows] >= 0)
                logit = self.network(torch.from_numpy(table.features[rows]), present)
                probability[rows] = np.where(present.numpy(), special.expit(logit.numpy().astype(np.float64)), 0.0)
        return probability


def load_snippet_joiner(name: str = "snippets") -> SnippetJoiner:
    """Give the named merger of snippets; it is small, and runs on the CPU.

    Errors: ``BadWeights`` where the weights are absent, changed or another network's.
    """
    weights = load(name)
    if weights.facts.get("network") != "snippets":
        raise BadWeights(f"{name!r} holds a {weights.facts.get('network')!r}, not a merger of snippets")
    network = SnippetNet()
    network.load_state_dict(dict(weights.tensors))
    return SnippetJoiner(network.eval())


def is_verifier(name: str) -> bool:
    """Whether a tensor belongs to the verifier."""
    return name.startswith("verifier.")
