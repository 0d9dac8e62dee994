"""The recipes of the networks of lenses and mergers and of the discriminator: bank, training, calibration, weights.

Each ends with one file of weights that holds all members, how they were made, the curve that turns their answer into a
probability, and the threshold above which one false one in a thousand comes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import track

from models.calibration import calibration_error, fit_curve
from models.networks.denselens import DenseShape, Ensemble
from models.networks.discriminator import CLASSES, WINDOW_PX, Discriminator
from models.networks.merger import MergerNet
from models.networks.resnet import ResNet
from models.networks.vgg import Vgg19, read_vgg
from models.training.classes import (
    BinaryValidation,
    MapValidation,
    NumberValidation,
    all_outputs,
    binary_loss,
    class_batches,
    map_loss,
    mean_logit,
    number_batches,
    number_loss,
)
from models.training.discriminator import SkyValidation, sky_batches, sky_loss
from models.training.fit import MEAN_STEPS, Outcome, Run, fit
from models.training.ownstamps import joined, own_stamps
from models.training.particletable import BadStamps
from models.training.skyframes import SkyFrames, frames_seed
from models.training.stampbank import StampBank, make_parts
from models.weights import BadWeights, load, save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from models.training.skyframes import SkyFrame
    from models.training.stampbank import Stamps, Task

CLASSIFIERS, REGRESSORS = 2, 2
VALIDATION_SHARE = 8
# The rate of false ones, among simulated ones that are none, at the default threshold.
FALSE_RATE = 1e-3


@dataclass(frozen=True)
class ClassTraining:
    """What a recipe of a class needs to know.

    ``survey`` is ``all`` or one that stamps are drawn for; ``stamps`` are drawn before training; ``init_from`` names
    weights to begin with, whose first ``freeze`` layers (blocks of VGG19) then learn no more. ``own`` is a folder of
    the user's stamps and tables (``models.training.ownstamps``), learned from beside those that are drawn.
    The discriminator is shown ``frames`` whole frames of each survey.
    """

    folder: Path
    survey: str = "all"
    seed: int = 1
    stamps: int = 40_000
    steps: int = 4_000
    minutes: float = 55.0
    workers: int = 1
    device: str = "auto"
    resume: bool = False
    init_from: str | None = None
    freeze: int = 0
    own: Path | None = None
    learning_rate: float = 2e-3
    frames: int = 0

    def run(self, folder: Path, device: torch.device, *, share: float = 1.0) -> Run:
        """The run of one network in ``folder``, with a share of the time."""
        return Run(
            folder,
            self.steps,
            minutes=self.minutes * share,
            learning_rate=self.learning_rate,
            warmup_steps=min(100, self.steps // 10 + 1),
            validate_every=max(min(200, self.steps // 4), 1),
            device=device,
            resume=self.resume,
            # A short training's mean must not reach back to its beginning.
            mean_steps=min(MEAN_STEPS, max(self.steps // 10, 10)),
        )

    def recipe(self) -> dict[str, Any]:
        """What is told of it in the weights."""
        told = asdict(self)
        own = {} if self.own is None else {"own": self.own.name}
        if self.init_from is not None:
            told["init_from"] = Path(self.init_from).name
        return own | {
            name: told[name] for name in ("survey", "seed", "stamps", "steps", "init_from", "freeze", "learning_rate")
        }


def train_denselens(training: ClassTraining, device: torch.device) -> Outcome:
    """Train the classifiers, then the regressors of the information content: ``folder/denselens.safetensors``."""
    shape = DenseShape()
    learned, held = _bank(training, "lenses")
    classifiers = Ensemble(CLASSIFIERS, shape)
    _begin(classifiers, training, "classifiers.")
    outcome = _learn(
        classifiers,
        training,
        device,
        "classification",
        class_batches(learned, training.seed),
        binary_loss,
        BinaryValidation(held),
        0.75,
    )
    regressors = Ensemble(REGRESSORS, shape)
    _begin(regressors, training, "regressors.")
    second = replace(training, steps=max(training.steps // 3, 1))
    _learn(
        regressors,
        second,
        device,
        "regression",
        number_batches(learned, training.seed),
        number_loss,
        NumberValidation(held),
        0.25,
    )
    tensors = {f"classifiers.{name}": tensor for name, tensor in classifiers.state_dict().items()}
    tensors |= {f"regressors.{name}": tensor for name, tensor in regressors.state_dict().items()}
    facts = {"network": "denselens", "shape": {**asdict(shape), "classifiers": CLASSIFIERS, "regressors": REGRESSORS}}
    _finish(training, classifiers, tensors, facts, held)
    return outcome


def train_resnet(training: ClassTraining, device: torch.device) -> Outcome:
    """Train the baseline on the same stamps: ``folder/resnet.safetensors``."""
    return _train_one(training, device, "resnet", "lenses", ResNet())


def train_merger(training: ClassTraining, device: torch.device) -> Outcome:
    """Train the merger network: ``folder/merger.safetensors``."""
    return _train_one(training, device, "merger", "mergers", MergerNet())


def train_vgg19(training: ClassTraining, device: torch.device) -> Outcome:
    """Fine-tune VGG19, from the user's file where ``init_from`` names one: ``folder/vgg19.safetensors``."""
    network = Vgg19()
    if training.init_from is not None:
        path = Path(training.init_from)
        network.take(read_vgg(path), path)
    network.freeze(training.freeze)
    return _train_one(replace(training, init_from=None, freeze=0), device, "vgg19", "mergers", network, told=training)


def train_discriminator(training: ClassTraining, device: torch.device) -> Outcome:
    """Train the discriminator on stamps, and on whole frames if wanted: ``folder/discriminator.safetensors``."""
    learned, held = _bank(training, "discriminator")
    network = Discriminator()
    _begin(network, training, "")
    validate: Callable[[nn.Module], Mapping[str, float]] = MapValidation(held)
    if training.frames:
        skies, held_skies = _skies(training)
        validate = SkyValidation(held, held_skies)
        batches = sky_batches(learned, skies, training.seed)
        outcome = _learn(network, training, device, "run", batches, sky_loss, validate, 1.0)
    else:
        alone = class_batches(learned, training.seed, window=WINDOW_PX)
        outcome = _learn(network, training, device, "run", alone, map_loss, validate, 1.0)
    facts = {
        "network": "discriminator",
        "recipe": {**training.recipe(), "frames": training.frames},
        "class_weights": dict.fromkeys(CLASSES, 1.0),
        "validation": dict(validate(network)),
    }
    save(training.folder / "discriminator.safetensors", network.state_dict(), facts)
    return outcome


CLASS_RECIPES: Mapping[str, Callable[[ClassTraining, torch.device], Outcome]] = {
    "denselens": train_denselens,
    "resnet": train_resnet,
    "merger": train_merger,
    "vgg19": train_vgg19,
    "discriminator": train_discriminator,
}


def threshold_at(logit: NDArray[np.float64], true: NDArray[np.bool_], rate: float = FALSE_RATE) -> float:
    """The logit above which at most ``rate`` of those that are none lie."""
    false = np.sort(logit[~true])[::-1]
    return float(false[min(int(rate * len(false)), len(false) - 1)])


def _train_one(
    training: ClassTraining,
    device: torch.device,
    name: str,
    task: Task,
    network: nn.Module,
    *,
    told: ClassTraining | None = None,
) -> Outcome:
    learned, held = _bank(training, task)
    _begin(network, training, "")
    batches = class_batches(learned, training.seed)
    outcome = _learn(network, training, device, "run", batches, binary_loss, BinaryValidation(held), 1.0)
    facts: dict[str, Any] = {"network": name}
    if isinstance(network, Vgg19):
        facts["shape"] = {"narrow": network.narrow}
    _finish(told or training, network, dict(network.state_dict()), facts, held)
    return outcome


def _bank(training: ClassTraining, task: Task) -> tuple[Stamps, Stamps]:
    """The stamps to learn from, and those of the next seed to validate on."""
    folder = training.folder / "bank"
    banks = [
        StampBank(folder, task, training.survey, training.seed, training.stamps),
        StampBank(folder, task, training.survey, training.seed + 1, max(training.stamps // VALIDATION_SHARE, 40)),
    ]
    for bank in banks:
        for _ in track(make_parts(bank, max(training.workers, 1)), "drawing stamps", total=bank.parts):
            pass
    drawn = banks[0].stamps(), banks[1].stamps()
    if training.own is None:
        return drawn
    if task == "discriminator":
        raise BadStamps(f"{training.own}: the discriminator learns from drawn stamps alone")
    own = own_stamps(training.own, task, survey=training.survey, seed=training.seed)
    return joined([drawn[0], own[0]]), joined([drawn[1], own[1]])


def _skies(training: ClassTraining) -> tuple[list[SkyFrame], list[SkyFrame]]:
    """Whole frames to learn from, and one of each survey of the next seed to validate on."""
    folder = training.folder / "frames"
    banks = [
        SkyFrames(folder, frames_seed(training.seed), training.frames, training.survey),
        SkyFrames(folder, frames_seed(training.seed + 1), 1, training.survey),
    ]
    for bank in banks:
        for _ in track(make_parts(bank, max(training.workers, 1)), "drawing frames", total=bank.parts):
            pass
    return banks[0].frames(), banks[1].frames()


def _begin(network: nn.Module, training: ClassTraining, prefix: str) -> None:
    """Take the weights of ``init_from`` and freeze the first layers.

    Errors: ``BadWeights`` where they are another network's.
    """
    if training.init_from is not None:
        given = load(training.init_from).tensors
        tensors = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
        try:
            network.load_state_dict(tensors)
        except RuntimeError:
            raise BadWeights(f"{training.init_from} holds another network's weights: give those of this one") from None
    for body in features_of(network):
        for layer in list(body)[: training.freeze]:
            layer.requires_grad_(requires_grad=False)


def features_of(network: nn.Module) -> list[Any]:
    """The bodies of a network, or of each member of an ensemble: what ``freeze`` counts the layers of."""
    members: list[Any] = list(network.members) if isinstance(network, Ensemble) else [network]
    return [member.features for member in members]


def _learn(
    network: nn.Module,
    training: ClassTraining,
    device: torch.device,
    name: str,
    batches: Iterator[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    validate: Callable[[nn.Module], Mapping[str, float]],
    share: float,
) -> Outcome:
    """Train in place; the network then has the weights that were best."""
    folder = training.folder / name
    torch.manual_seed(training.seed)
    outcome = fit(network.to(device), batches, loss, validate, training.run(folder, device, share=share), {})
    network.load_state_dict(dict(load(str(folder / "best.safetensors")).tensors))
    network.eval()
    return outcome


def _finish(
    training: ClassTraining, network: nn.Module, tensors: dict[str, Tensor], facts: dict[str, Any], held: Stamps
) -> None:
    """Calibrate on the held-back stamps and write the weights."""
    name = str(facts["network"])
    logit, true = mean_logit(all_outputs(network, held.pixels)), held.label > 0
    save(
        training.folder / f"{name}.safetensors",
        tensors,
        {
            **facts,
            "recipe": training.recipe(),
            "validation": dict(BinaryValidation(held)(network)),
            **calibrated(logit, true),
        },
    )


def calibrated(logit: NDArray[np.float64], true: NDArray[np.bool_]) -> dict[str, Any]:
    """What weights tell of their probabilities: the curve, its error, and the default threshold."""
    curve = fit_curve(logit, true)
    cut = np.array([threshold_at(logit, true)])
    return {
        "calibration": curve.facts(),
        "calibration_error": calibration_error(curve.probability(logit), true),
        "threshold": float(curve.probability(cut)[0]),
    }
