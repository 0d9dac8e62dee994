"""The recipes by name: what ``needlestream train NAME`` runs; seed and settings are recorded in the weights."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.progress import track

from models.networks.streaknet import StreakNet
from models.predictor import choose_device, is_verifier, load_streak_network, load_verifier
from models.simulate.stamps import SURVEYS as STAMP_SURVEYS
from models.training.asteroid import Mine, Verifying, train_and_calibrate
from models.training.classrecipes import CLASS_RECIPES, ClassTraining
from models.training.fit import Outcome, Run, fit
from models.training.scenes import EVALUATION_SEEDS, Bank, make_bank
from models.training.snippets import fit_snippets
from models.training.streaknet import StreakValidation, streak_batch_loss, streak_batches
from models.weights import load, save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.weights import Weights

# The skies that one set of weights learns from: two thirds of them Euclid's, where most frames will come from; `even`
# has more of those where single exposures are furthest from the noise.
KINDS = {
    "all": (("euclid-vis", 0.65), ("kids-omegacam", 0.1), ("subaru-hsc", 0.1), ("generic", 0.15)),
    "even": (("euclid-vis", 0.4), ("kids-omegacam", 0.2), ("subaru-hsc", 0.2), ("generic", 0.2)),
    "euclid-vis": (("euclid-vis", 0.9), ("generic", 0.1)),
    "kids-omegacam": (("kids-omegacam", 0.9), ("generic", 0.1)),
    "subaru-hsc": (("subaru-hsc", 0.9), ("generic", 0.1)),
}
VALIDATION_SCENES = 36


class BadRecipe(Exception):  # noqa: N818 - named like BadFrame
    """What was asked of ``train`` cannot be done; the text says what to give instead."""


@dataclass(frozen=True)
class Training:
    """What a recipe needs to know.

    ``survey`` is a key of ``KINDS``; ``folder`` holds the bank and the run;
    ``verifying`` exposures a round, ``rounds`` and ``verifying_steps`` train the second stage; ``init_from`` names
    weights to begin with. With ``tune`` the second stage begins with that of ``init_from``, not anew.
    """

    folder: Path
    survey: str = "all"
    seed: int = 1
    steps: int = 20_000
    minutes: float = 55.0
    scenes: int = 400
    scene_px: int = 1024
    verifying: int = 384
    rounds: int = 3
    verifying_steps: int = 3_500
    workers: int = 1
    device: str = "auto"
    resume: bool = False
    init_from: str | None = None
    stamps: int = 40_000
    freeze: int = 0
    own: Path | None = None
    frames: int = 0
    tune: bool = False


def train_streaknet(training: Training) -> Outcome:
    """Train StreakNet and calibrate it; what came of it is ``folder/streaknet.safetensors``."""
    kinds = KINDS[training.survey]
    folder = training.folder / "bank"
    shape = (training.scene_px, training.scene_px)
    bank = Bank(folder, training.seed, training.scenes, kinds, shape)
    validation = Bank(folder, training.seed + 1, min(VALIDATION_SCENES, training.scenes), kinds, shape)
    for each, what in ((bank, "skies"), (validation, "skies for validation")):
        for _ in track(make_bank(each, os.cpu_count() or 1), f"drawing {what}", total=each.count):
            pass
    # Threads that wait for each other are lost where the workers need the cores.
    torch.set_num_threads(max((os.cpu_count() or 1) - training.workers, 1))
    torch.manual_seed(training.seed)
    device = choose_device(training.device)
    network = StreakNet().to(device)
    if training.init_from is not None:
        tensors = load(training.init_from).tensors
        network.load_state_dict({name: tensor for name, tensor in tensors.items() if not is_verifier(name)})
    run = Run(
        training.folder,
        training.steps,
        minutes=training.minutes,
        device=device,
        resume=training.resume,
    )
    # A resumed run draws new exposures: the old ones are not repeated.
    checkpoint = training.folder / "last.pt"
    round_ = int(torch.load(checkpoint, weights_only=True)["step"]) if training.resume and checkpoint.exists() else 0
    facts = {
        "network": "streaknet",
        "shape": {
            "window": network.shape.window,
            "step": network.shape.step,
            "channels": list(network.shape.channels),
        },
        "recipe": {
            "survey": training.survey,
            "seed": training.seed,
            "steps": training.steps,
            "scenes": training.scenes,
            "init_from": None if training.init_from is None else Path(training.init_from).name,
        },
    }
    batches = streak_batches(bank, training.seed, round_, training.workers)
    outcome = fit(network, batches, streak_batch_loss, StreakValidation(validation, training.seed + 1), run, facts)
    finish_streaknet(training)
    return outcome


def finish_streaknet(training: Training) -> Path:
    """Train the second stage of a run's best weights, on skies that neither saw; gives the finished file."""
    return verified(training, training.folder / "best.safetensors")


def verified(training: Training, proposer: Path, begin: Weights | None = None) -> Path:
    """Train AsteroidNet for the StreakNet in the file ``proposer`` and calibrate: ``folder/streaknet.safetensors``.

    It is the second stage of ``begin`` that learns on, where weights are given.
    """
    chosen = load(str(proposer))
    shape = (training.scene_px, training.scene_px)
    bank = Bank(training.folder / "bank", training.seed + 2, 0, KINDS[training.survey], shape)
    plan = Verifying(
        training.verifying,
        max(training.verifying // 6, 2),
        training.rounds,
        training.verifying_steps,
        os.cpu_count() or 1,
    )
    mine = Mine(training.folder / "judged", str(proposer), chosen.sha256, training.device, bank, training.seed + 2)
    verifier, calibration = train_and_calibrate(mine, plan, None if begin is None else load_verifier(begin))
    tensors = {name: tensor for name, tensor in chosen.tensors.items() if not is_verifier(name)}
    tensors |= {f"verifier.{name}": tensor for name, tensor in verifier.state_dict().items()}
    finished = training.folder / "streaknet.safetensors"
    before = None if begin is None else begin.facts["recipe"].get("verifying")
    verifying = {**asdict(plan), "survey": training.survey, "seed": training.seed + 2, "begins_with": before}
    recipe = {**chosen.facts["recipe"], "verifying": verifying}
    save(finished, tensors, {**chosen.facts, "recipe": recipe, "calibration": asdict(calibration)})
    return finished


def train_asteroid(training: Training) -> Outcome:
    """Train the second stage alone, for the StreakNet of ``init_from``.

    Errors: ``BadRecipe`` where ``init_from`` is not given; ``BadWeights`` where it has no second stage to tune.
    """
    if training.init_from is None:
        raise BadRecipe("asteroid verifies what a StreakNet proposes: name its weights with --init-from, say streaknet")
    training.folder.mkdir(parents=True, exist_ok=True)
    chosen = load(training.init_from)
    proposer = training.folder / "proposer.safetensors"
    # What an earlier second stage left in the header says nothing of the candidates: judged once, they serve the next.
    recipe = {name: told for name, told in chosen.facts["recipe"].items() if name != "verifying"}
    facts = {name: told for name, told in chosen.facts.items() if name != "calibration"} | {"recipe": recipe}
    save(proposer, {name: tensor for name, tensor in chosen.tensors.items() if not is_verifier(name)}, facts)
    verified(training, proposer, chosen if training.tune else None)
    return Outcome(training.rounds * training.verifying_steps, 0.0, "steps")


def train_snippets(training: Training) -> Outcome:
    """Train the merger of snippets on the proposals of the shipped StreakNet, or of ``init_from``.

    ``training.scenes`` skies are exposed once each; what came of it is ``folder/best.safetensors``.
    """
    shape = (training.scene_px, training.scene_px)
    bank = Bank(training.folder / "bank", training.seed, training.scenes, KINDS[training.survey], shape)
    for _ in track(make_bank(bank, os.cpu_count() or 1), "drawing skies", total=bank.count):
        pass
    network = load_streak_network(training.init_from or "streaknet", training.device)
    run = Run(training.folder, training.steps, minutes=training.minutes, resume=training.resume)
    recipe = {"survey": training.survey, "seed": training.seed, "steps": training.steps, "exposures": bank.count}
    return fit_snippets(bank, network, run, {"recipe": recipe})


RECIPES: Mapping[str, Callable[[Training], Outcome]] = {
    "streaknet": train_streaknet,
    "asteroid": train_asteroid,
    "snippets": train_snippets,
}


def train(name: str, training: Training) -> Outcome:
    """Run the recipe ``name``.

    Errors: ``BadRecipe`` for a name, a survey or a seed that is not to be trained with.
    """
    if name not in {*RECIPES, *CLASS_RECIPES}:
        raise BadRecipe(f"no network named {name!r}: there are {', '.join(sorted([*RECIPES, *CLASS_RECIPES]))}")
    if name in CLASS_RECIPES and training.survey not in {"all", *STAMP_SURVEYS}:
        raise BadRecipe(f"no stamps of {training.survey!r} to train with: there are all, {', '.join(STAMP_SURVEYS)}")
    if training.survey not in KINDS:
        raise BadRecipe(f"no survey named {training.survey!r} to train for: there are {', '.join(sorted(KINDS))}")
    if not 0 <= training.seed < EVALUATION_SEEDS - 1:
        raise BadRecipe(
            f"seed {training.seed}: seeds from {EVALUATION_SEEDS} up belong to evaluation; give a lower one"
        )
    if name in RECIPES:
        return RECIPES[name](training)
    if training.freeze and training.init_from is None:
        raise BadRecipe("--freeze keeps layers of weights to begin with: name these with --init-from")
    told = asdict(training)
    known = {each.name: told[each.name] for each in fields(ClassTraining) if each.name in told}
    return CLASS_RECIPES[name](ClassTraining(**known), choose_device(training.device))
