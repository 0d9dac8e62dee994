"""The training loop that every network shares: steps, validation, early stopping, checkpoints that resume.

A run is a folder: ``log.csv`` (a line each validation), ``last.pt`` (to go on from; written whole or not at all) and
``best.safetensors`` (lowest validation loss of the running mean of the weights, Polyak & Juditsky 1992). Killed at any
moment, it goes on from the last checkpoint with ``--resume`` and loses at most the steps since then.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from models.weights import save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from torch import Tensor, nn


# The mean of the weights forgets over so many steps; early on over as many as there were.
MEAN_STEPS = 400


@dataclass(frozen=True)
class Run:
    """How long and how: ``minutes`` bounds this call, ``steps`` the whole training with its falling learning rate."""

    folder: Path
    steps: int
    minutes: float = math.inf
    learning_rate: float = 1.5e-3
    warmup_steps: int = 200
    validate_every: int = 500
    patience: int = 12
    mean_steps: int = MEAN_STEPS
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    resume: bool = False


@dataclass(frozen=True)
class Outcome:
    """Where a run stands: ``stopped`` says why (steps, minutes, patience)."""

    step: int
    best_loss: float
    stopped: str


def learning_rate(run: Run, step: int) -> float:
    """A short rise, then half a cosine down to a hundredth."""
    if step < run.warmup_steps:
        return run.learning_rate * (step + 1) / run.warmup_steps
    phase = min((step - run.warmup_steps) / max(run.steps - run.warmup_steps, 1), 1.0)
    return run.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * phase)))


def fit(
    network: nn.Module,
    batches: Iterator[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    validate: Callable[[nn.Module], Mapping[str, float]],
    run: Run,
    facts: Mapping[str, Any],
) -> Outcome:
    """Train ``network`` in place with Adam; ``validate`` gives named figures, of which ``loss`` decides what is best.

    ``batches`` gives values that ``loss`` takes, with a method ``to(device)``.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=run.learning_rate)
    step, best, stale, running = 0, math.inf, 0, 0.0
    checkpoint = run.folder / "last.pt"
    mean = copy.deepcopy(network)
    if run.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=run.device)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        step, best, stale = state["step"], state["best"], state["stale"]
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=run.steps, completed=step)
        while step < run.steps:
            batch = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(run, step)
            value = loss(network, batch.to(run.device))
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            step += 1
            drift(mean, network, 1.0 / min(step, run.mean_steps))
            running += 0.02 * (float(value.detach()) - running)
            progress.update(task, completed=step, description=f"training, loss {running:.4f}, best {best:.4f}")
            out_of_time = time.monotonic() - began > 60.0 * run.minutes
            if step % run.validate_every == 0 or step == run.steps or out_of_time:
                figures = dict(validate(mean))
                append_log(run.folder / "log.csv", {"step": step, "training_loss": running, **figures})
                stale = 0 if figures["loss"] < best else stale + 1
                if figures["loss"] < best:
                    best = figures["loss"]
                    save(
                        run.folder / "best.safetensors",
                        mean.state_dict(),
                        {**facts, "step": step, "validation": figures},
                    )
                keep_checkpoint(checkpoint, (network, mean), optimizer, step, best, stale)
                if stale >= run.patience:
                    return Outcome(step, best, "patience")
                if out_of_time:
                    return Outcome(step, best, "minutes")
    return Outcome(step, best, "steps")


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 in the forward pass where the machine has it; a CPU that imitates it is slower than with float32."""
    native = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in {"DEFAULT", "NO AVX", "AVX2"}
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def drift(mean: nn.Module, network: nn.Module, share: float) -> None:
    """Move the mean of the weights by ``share`` towards those of ``network``."""
    with torch.no_grad():
        for kept, now in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
            # What batch normalisation counts is no mean.
            kept.lerp_(now, share) if kept.is_floating_point() else kept.copy_(now)


def keep_checkpoint(
    path: Path,
    networks: tuple[nn.Module, nn.Module],
    optimizer: torch.optim.Optimizer,
    step: int,
    best: float,
    stale: int,
) -> None:
    """Write what ``resume`` needs, whole or not at all; ``networks`` are the one that learns and its mean."""
    partial = path.with_suffix(".partial")
    state = {
        "network": networks[0].state_dict(),
        "mean": networks[1].state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "best": best,
        "stale": stale,
    }
    torch.save(state, partial)
    partial.replace(path)


def append_log(path: Path, row: Mapping[str, float]) -> None:
    """One more line of the log, with a heading when the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
