"""Whole simulated frames that the discriminator learns from: what stamps do not show it.

In a frame most windows hold no object in their middle: stars and their spikes, half of a galaxy, cosmic rays, the edge
of a mask. Each frame is drawn once, written as a camera would write it, read and whitened as the stream does, and kept
at the discriminator's pixels with what was put in. A part of it may be deleted at any time: it is drawn again.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

from detector.candidates import levels_of
from detector.fits import read_frames
from detector.frame import Frame
from detector.preparation import whitened_frame
from detector.tiling import Tiling
from models.networks.discriminator import CLASSES, STEP_PX, WINDOW_PX
from models.training.stampbank import LARGEST_SIGMA

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.simulate.exposure import Plan

TILING = Tiling(WINDOW_PX, STEP_PX)
# Side in native pixels, lenses, mergers, impostors, asteroids of a frame: as dense as they go without touching.
DENSE = {
    "kids-omegacam": (1024, 32, 32, 40, 25),
    "subaru-hsc": (1024, 22, 22, 30, 25),
    "euclid-vis": (1280, 10, 10, 12, 14),
}
ASTEROID_MAGNITUDES = (19.0, 24.5)
# Asteroids that are not learned from, and not as nothing either: fainter in a matched filter, or longer, coarse px.
FAINTEST_SNR, LONGEST_PX = 8.0, 64.0
# A cell's middle is so near its object, px; one that is farther than the second is no object's.
NEAR_PX, FAR_PX = 5.7, 9.0
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class SkyFrame:
    """A frame at the discriminator's pixels, sigmas of the sky, f2 ``[h, w]``, NaN where masked.

    ``objects`` f8 ``[n, 5]``: label (an index of ``CLASSES``, or -1 for what is neither learned nor nothing), and both
    ends x, y of a trail in these pixels; of anything else twice its middle.
    """

    pixels: NDArray[np.float16]
    objects: NDArray[np.float64]


@dataclass(frozen=True)
class SkyFrames:
    """``count`` frames of each survey, of the seeds ``seed`` and up, in ``folder``."""

    folder: Path
    seed: int
    count: int
    survey: str = "all"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The surveys in turn."""
        return tuple(DENSE) if self.survey == "all" else (self.survey,)

    @property
    def parts(self) -> int:
        """How many frames there are."""
        return self.count * len(self.kinds)

    def make(self, part: int) -> None:
        """Draw frame ``part`` unless it is there; in a process of its own."""
        turn, which = divmod(part, len(self.kinds))
        path = self._folder(part) / "coarse.npz"
        if path.exists():
            return
        numba.set_num_threads(1)
        frame = drawn_frame(path.parent, self.kinds[which], self.seed + turn)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, pixels=frame.pixels, objects=frame.objects)
        partial.replace(path)

    def frames(self) -> list[SkyFrame]:
        """All that is there."""
        out = []
        for part in range(self.parts):
            with np.load(self._folder(part) / "coarse.npz") as stored:
                out.append(SkyFrame(stored["pixels"], stored["objects"]))
        return out

    def _folder(self, part: int) -> Path:
        turn, which = divmod(part, len(self.kinds))
        return self.folder / f"{self.kinds[which]}-{self.seed + turn}"


def frames_seed(seed: int) -> int:
    """The first seed of the frames of a training of ``seed``: far from those of stamps, below those of evaluation."""
    return 400_000 + 10_000 * (seed % 40)


def dense_plan(kind: str) -> Plan:
    """What a frame to learn from holds."""
    from models.simulate.exposure import Plan  # noqa: PLC0415 - numba compiles when it is run

    side, lenses, mergers, impostors, asteroids = DENSE[kind]
    return Plan(
        kind,
        asteroids=asteroids,
        magnitudes=ASTEROID_MAGNITUDES,
        lenses=lenses,
        mergers=mergers,
        impostors=impostors,
        shape=(side, side),
        dithers=1,
    )


def drawn_frame(folder: Path, kind: str, seed: int) -> SkyFrame:
    """A frame written to ``folder`` unless it is there, read again as the stream would; with its objects."""
    from models.simulate.exposure import PLANTED_TABLES, write_fields  # noqa: PLC0415

    if not (folder / "impostors.csv").exists():
        write_fields(folder, dense_plan(kind), seed)
    path = next(iter(sorted(folder.glob("*.fits"))))
    frame = next(each for each in read_frames(path, name=path.name) if isinstance(each, Frame))
    levels = levels_of(whitened_frame(frame, TILING), frame.header.pixel_scale_arcsec)
    if levels is None:
        raise ValueError(f"{path}: its pixels are not those of the discriminator's networks")
    size = 2.0**levels.coarse
    objects: list[tuple[float, ...]] = []
    for label in ("lens", "merger"):
        for row in _rows(folder / PLANTED_TABLES[label]):
            place = (float(row["x"]), float(row["y"]))
            objects.append((CLASSES.index(label), *place, *place))
    for row in _rows(folder / "truth.csv"):
        unseen = float(row["snr_limit"]) < FAINTEST_SNR or float(row["length_px"]) > LONGEST_PX * size
        label_ = UNKNOWN if unseen else CLASSES.index("asteroid")
        objects.append((label_, *(float(row[name]) for name in ("x0", "y0", "x1", "y1"))))
    table = np.array(objects, np.float64).reshape(-1, 5)
    table[:, 1:] = (table[:, 1:] - 0.5 * (size - 1.0)) / size
    coarse = np.clip(levels.images[levels.coarse], -LARGEST_SIGMA, LARGEST_SIGMA)
    return SkyFrame(coarse.astype(np.float16), table)


def cell_labels(objects: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """What each cell of a frame of ``shape`` has to say ``[rows, cols]``: a class, or -1 where nothing is asked.

    An object is asked for in the cells about its middle. A trail also lies in others, and what is a little off the
    middle of a window is as little nothing as it is the object: there anything may be said.
    """
    rows, cols = TILING.grid(shape)
    y, x = np.mgrid[:rows, :cols] * STEP_PX + 0.5 * (STEP_PX - 1)
    labels = np.zeros((rows, cols), np.int64)
    nearest = np.full((rows, cols), np.inf)
    for label, x0, y0, x1, y1 in objects:
        middle = np.hypot(x - 0.5 * (x0 + x1), y - 0.5 * (y0 + y1))
        labels[(_distance(x, y, x0, y0, x1, y1) < FAR_PX) & (nearest > NEAR_PX)] = UNKNOWN
        own = (middle <= NEAR_PX) & (middle < nearest)
        labels[own], nearest[own] = int(label), middle[own]
    return labels


def _distance(
    x: NDArray[np.float64], y: NDArray[np.float64], x0: float, y0: float, x1: float, y1: float
) -> NDArray[np.float64]:
    """How far places are from the line between two."""
    dx, dy = x1 - x0, y1 - y0
    along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9)
    share = np.clip(along, 0.0, 1.0)
    return np.asarray(np.hypot(x - x0 - share * dx, y - y0 - share * dy))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
