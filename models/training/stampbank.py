"""A bank of labelled stamps: drawn once by several processes, kept in the run's folder, learned from many times.

Each part of a bank is a file that may be deleted at any time: it is drawn again from the bank's seed and its own
number, and so is one that holds fewer stamps than are wanted now. Half precision holds a stamp's pixels to a
thousandth, far below the noise that they are in. At night it fails on a full disk: a part is written whole or not at
all.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Literal, Protocol

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Task = Literal["lenses", "mergers", "discriminator"]
PART = 1_000
# Half precision ends at 65,504.
LARGEST_SIGMA = 60_000.0


@dataclass(frozen=True, eq=False)
class Stamps:
    """Stamps: ``pixels`` f2 ``[n, 64, 64]``, ``label`` ``[n]``, ``ic`` ``[n]``, ``kind`` ``[n]`` words."""

    pixels: NDArray[np.float16]
    label: NDArray[np.int8]
    ic: NDArray[np.float32]
    kind: NDArray[np.str_]

    def take(self, rows: NDArray[np.intp]) -> Stamps:
        """The same with these rows only."""
        return Stamps(self.pixels[rows], self.label[rows], self.ic[rows], self.kind[rows])


@dataclass(frozen=True)
class StampBank:
    """``count`` stamps for ``task`` of ``survey`` (or ``all``) from ``seed``, in ``folder``.

    ``settings`` and ``exposures`` are those of ``models.simulate.stamps.draw_stamps``.
    """

    folder: Path
    task: Task
    survey: str
    seed: int
    count: int
    settings: Literal["training", "hard"] = "training"
    exposures: int | None = None

    @property
    def parts(self) -> int:
        """Files of ``PART`` stamps each; the last may hold fewer."""
        return -(-self.count // PART)

    def path(self, part: int) -> Path:
        """Where part ``part`` lies."""
        depth = "any" if self.exposures is None else str(self.exposures)
        return self.folder / f"{self.task}-{self.survey}-{self.settings}-{depth}-{self.seed}-{part:04d}.npz"

    def make(self, part: int) -> None:
        """Draw part ``part`` unless it is there; in a process of its own."""
        from models.simulate.stamps import draw_stamps  # noqa: PLC0415 - numba compiles when it is run

        path = self.path(part)
        if self._there(part):
            return
        numba.set_num_threads(1)
        drawn = draw_stamps(
            self.task,
            self._wanted(part),
            survey=self.survey,
            seed=self.seed,
            settings=self.settings,
            exposures=self.exposures,
            first=part * PART,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        pixels = np.clip(drawn.pixels, -LARGEST_SIGMA, LARGEST_SIGMA).astype(np.float16)
        np.savez(partial, pixels=pixels, label=drawn.label, ic=drawn.ic, kind=np.array(drawn.kind, dtype=np.str_))
        partial.replace(path)

    def stamps(self) -> Stamps:
        """The ``count`` stamps, part after part."""
        parts = []
        for part in range(self.parts):
            with np.load(self.path(part)) as stored:
                own = Stamps(stored["pixels"], stored["label"], stored["ic"], stored["kind"])
            parts.append(own.take(np.arange(self._wanted(part))))
        return Stamps(
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.ic for part in parts]),
            np.concatenate([part.kind for part in parts]),
        )

    def _wanted(self, part: int) -> int:
        """How many stamps of a part are asked for: all but for the last."""
        return min(PART, self.count - part * PART)

    def _there(self, part: int) -> bool:
        """Whether a part lies there with stamps enough: a bank of fewer may have been drawn into the same folder."""
        path = self.path(part)
        if not path.exists():
            return False
        with np.load(path) as stored:
            return len(stored["label"]) >= self._wanted(part)


class Bank(Protocol):
    """What is drawn in parts, each by itself and only once."""

    @property
    def parts(self) -> int:
        """How many parts there are."""
        ...

    def make(self, part: int) -> None:
        """Draw this part unless it is there."""
        ...


def make_parts(bank: Bank, processes: int) -> Iterator[int]:
    """Draw every part of a bank that is not there yet; gives the number of each as it is done."""
    if processes <= 1 or bank.parts <= 1:
        for part in range(bank.parts):
            bank.make(part)
            yield part
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for part, _ in enumerate(pool.map(bank.make, range(bank.parts))):
            yield part
