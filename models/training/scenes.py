"""Simulated skies, made once, and endless exposures of them for training.

Drawing galaxies is slow and exposing a detector is fast: a bank holds noise-free skies of many conditions, and each
training sample is a new exposure of one of them, with new streaks, cosmic rays, defects and noise. The pixels then go
through the very functions that inference uses (defects, sky, whitening, binning), so that the network learns from what
it will see. A bank is a folder of ``.npz`` files that may be deleted at any time: it is made again from its seeds.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from detector.defects import find_defects
from detector.sky import measure_sky
from detector.tiling import Tiling, pad, unpadded
from detector.whitening import binned, whiten
from models.simulate.asteroids import Kernel, add_trails
from models.simulate.conditions import draw_conditions
from models.simulate.defects import expose
from models.simulate.sky import Scene, draw_scene
from models.training.cells import label_cells

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from models.simulate.conditions import Conditions

# Evaluation owns the seeds from here on: training refuses them.
EVALUATION_SEEDS = 900_000
SCENE_SHAPE = (1024, 1024)
SCENES_PER_SEED = 10_000
# The frame is searched binned 1, 2 and 4; the share of exposures whose streaks have lengths made for each.
SCALE_SHARES = {1: 0.65, 2: 0.22, 4: 0.13}
# Streaks per Mpx of an exposure that StreakNet learns from.
DENSITY = (80.0, 350.0)
# The share of them that are satellites' trails.
CROSSING = 0.004
# A streak shorter than this many PSF widths has no direction: neither streak nor impostor.
SHORTEST_IN_FWHM = 1.2
SHORTEST_PX = 3.0


@dataclass(frozen=True)
class Bank:
    """A folder of skies: ``count`` scenes of ``shape``, their kinds drawn by ``kinds`` (name, share)."""

    folder: Path
    seed: int
    count: int
    kinds: tuple[tuple[str, float], ...]
    shape: tuple[int, int] = SCENE_SHAPE

    def conditions(self, index: int) -> Conditions:
        """What scene ``index`` was drawn under: deterministic, therefore not stored."""
        rng = np.random.default_rng([self.seed, index])
        names = [name for name, _ in self.kinds]
        shares = np.array([share for _, share in self.kinds])
        return draw_conditions(rng, str(rng.choice(names, p=shares / shares.sum())))

    def path(self, index: int) -> Path:
        """Where scene ``index`` lies."""
        return self.folder / f"scene-{self.seed}-{self.shape[0]}x{self.shape[1]}-{index:05d}.npz"

    def make(self, index: int) -> None:
        """Draw scene ``index`` unless it is there."""
        path = self.path(index)
        if path.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        scene = draw_scene(self.conditions(index), self.shape, self.seed * SCENES_PER_SEED + index)
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial,
            electrons=scene.electrons,
            kernel=scene.kernel.values,
            oversampling=scene.kernel.oversampling,
            fwhm_px=scene.kernel.fwhm_px,
        )
        partial.replace(path)

    def scene(self, index: int) -> Scene:
        """Scene ``index``, from the folder."""
        with np.load(self.path(index)) as stored:
            kernel = Kernel(stored["kernel"], int(stored["oversampling"]), float(stored["fwhm_px"]))
            return Scene(electrons=stored["electrons"], kernel=kernel, conditions=self.conditions(index))


def make_bank(bank: Bank, processes: int) -> Iterator[int]:
    """Draw every scene that is not there yet; gives the number of each as it is done."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for index, _ in enumerate(pool.map(bank.make, range(bank.count), chunksize=4)):
            yield index


@dataclass(frozen=True, eq=False)
class Sample:
    """One or several crops of one exposure at one scale.

    ``pixels`` ``[n, h, w]`` whitened, NaN where masked; ``fwhm_px`` what the network is told; ``target`` and ``weight``
    as ``label_cells`` gives them, ``[n, 5, r, c]`` and ``[n, r, c]``.
    """

    pixels: NDArray[np.float32]
    fwhm_px: float
    target: NDArray[np.float32]
    weight: NDArray[np.float32]


def trail_power(length_px: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    """Sum of the squared pixels of a trail of unit flux: the closed form for a Gaussian of the kernel's noise area."""
    pixels = kernel.values.astype(np.float64) / kernel.oversampling**2
    sigma = math.sqrt(1.0 / (4.0 * math.pi * (pixels**2).sum() * kernel.oversampling**2))
    a = np.maximum(length_px, 1e-3) / (2.0 * sigma)
    error = special.erf(a)
    along = (error - (1.0 - np.exp(-(a**2))) / (math.sqrt(math.pi) * a)) / np.maximum(length_px, 1e-3)
    return np.asarray(along / (2.0 * math.sqrt(math.pi) * sigma))


def draw_trails(
    rng: np.random.Generator,
    scene: Scene,
    scale: int,
    density: tuple[float, float] = DENSITY,
    crossing: float = CROSSING,
) -> NDArray[np.float64]:
    """Trails for one exposure ``[n, 7]``: x0, y0, x1, y1 (px), flux (e-), SNR, and 1 where it counts as a streak.

    Far more than in any sky, or the network would see mostly nothing (the calibration takes that back); one exposure in
    seven has none. ``scale`` is that at which the longest of the ordinary ones fit a window, ``density`` the range of
    streaks per Mpx, ``crossing`` the share of them that are satellites' trails.
    """
    height, width = scene.electrons.shape
    megapixels = height * width / 1e6 / scale**2
    drawn = math.exp(rng.uniform(math.log(density[0]), math.log(density[1]))) * (rng.uniform() > 0.15)
    count = rng.poisson(megapixels * drawn)
    shortest = shortest_px(scene.kernel.fwhm_px, 1)
    lengths = np.exp(rng.uniform(math.log(shortest), math.log(150.0 * scale), count))
    stubs = rng.uniform(size=count) < 0.05
    lengths[stubs] = rng.uniform(0.0, shortest, stubs.sum())
    snr = np.exp(rng.uniform(math.log(4.0), math.log(60.0), count))
    bright = rng.uniform(size=count) < 0.25
    snr[bright] = np.exp(rng.uniform(math.log(60.0), math.log(3000.0), bright.sum()))
    crosses = rng.uniform(size=count) < crossing
    lengths[crosses] = rng.uniform(300.0, 3000.0, crosses.sum())
    # Satellites: what matters is the signal over a window, not over the whole trail.
    snr[crosses] *= np.sqrt(lengths[crosses] / (60.0 * scale))
    angles = rng.uniform(0.0, math.pi, count)
    x, y = rng.uniform(-0.5, width - 0.5, count), rng.uniform(-0.5, height - 0.5, count)
    dx, dy = 0.5 * lengths * np.cos(angles), 0.5 * lengths * np.sin(angles)
    flux = snr * scene.conditions.noise_e / np.sqrt(trail_power(lengths, scene.kernel))
    counts = (lengths >= shortest).astype(float)
    return np.stack([x - dx, y - dy, x + dx, y + dy, flux, snr, counts], axis=1)


def exposure_mask(electrons: NDArray[np.float32], saturation_e: float | None) -> NDArray[np.uint8]:
    """The mask of an exposure whose file brought none."""
    return find_defects(electrons, np.zeros(electrons.shape, np.uint8), saturation_e=saturation_e)


def whitened_exposure(electrons: NDArray[np.float32], saturation_e: float | None) -> NDArray[np.float32]:
    """The exposure as ``detector.examine`` sees it: defects masked, sky subtracted, in units of the sky's sigma."""
    tiling = Tiling()
    mask = exposure_mask(electrons, saturation_e)
    sky = measure_sky(electrons, mask)
    padded = whiten(electrons, mask, sky, window=tiling.window, step=tiling.step)
    return unpadded(padded, (electrons.shape[0], electrons.shape[1]), tiling)


def shortest_px(fwhm_px: float, scale: int) -> float:
    """The shortest streak that has a direction in a frame binned ``scale`` x ``scale``, in pixels of that frame."""
    return max(SHORTEST_PX, SHORTEST_IN_FWHM * fwhm_px / scale)


def seen_at(trails: NDArray[np.float64], scale: int, fwhm_px: float) -> NDArray[np.float64]:
    """Trails as ``label_cells`` takes them ``[n, 6]``, in pixels of the frame binned ``scale`` x ``scale``."""
    ends = (trails[:, :4] - 0.5 * (scale - 1)) / scale
    length = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
    counts = (trails[:, 6] > 0.5) & (length >= shortest_px(fwhm_px, scale))
    return np.column_stack([ends, trails[:, 5], counts])


def draw_exposure(
    rng: np.random.Generator,
    scene: Scene,
    scale: int,
    density: tuple[float, float] = DENSITY,
    crossing: float = CROSSING,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A new exposure of ``scene`` in electrons, and its trails as ``draw_trails`` gives them."""
    trails = draw_trails(rng, scene, scale, density, crossing)
    electrons = scene.electrons.copy()
    add_trails(electrons, np.ascontiguousarray(trails[:, :5]), scene.kernel)
    return expose(electrons, scene.conditions, int(rng.integers(2**31))), trails


def draw_samples(rng: np.random.Generator, scene: Scene, tiling: Tiling, cells: int) -> Iterator[tuple[int, Sample]]:
    """A new exposure of ``scene``: each scale with its crops of ``cells`` x ``cells`` windows, or what fits."""
    electrons, trails = draw_exposure(rng, scene, int(rng.choice(list(SCALE_SHARES), p=list(SCALE_SHARES.values()))))
    # Some headers do not say where the detector saturates.
    pixels = whitened_exposure(electrons, scene.conditions.defects.full_well_e * 0.97 if rng.uniform() < 0.8 else None)
    pixels = with_masks(rng, pixels)
    told = scene.kernel.fwhm_px * math.exp(rng.normal(0.0, 0.06)) * (rng.uniform() > 0.05)
    for scale in SCALE_SHARES:
        if scale > 1:
            pixels = binned(pixels)
        seen = seen_at(trails, scale, scene.kernel.fwhm_px)
        target, weight = label_cells(seen, tiling.grid(pixels.shape), tiling.window, tiling.step)
        crops = crop_windows(pad(np.ascontiguousarray(pixels), tiling), target, weight, tiling, cells)
        yield scale, Sample(crops[0], told / scale, crops[1], crops[2])


def with_masks(rng: np.random.Generator, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with what instruments mask: columns, rows, patches, borders; often nothing."""
    masked = pixels.copy()
    height, width = pixels.shape
    if rng.uniform() < 0.3:
        for _ in range(rng.poisson(3)):
            x, y, w, h = rng.integers(width), rng.integers(height), rng.integers(1, 4), rng.integers(20, height)
            masked[y : y + h, x : x + w] = np.nan
        for _ in range(rng.poisson(4)):
            x, y, size = rng.integers(width), rng.integers(height), rng.integers(2, 40)
            masked[y : y + size, x : x + int(size * rng.uniform(0.5, 2.0)) + 1] = np.nan
    if rng.uniform() < 0.15:
        depth = int(rng.integers(1, 60))
        border = np.rot90(masked, int(rng.integers(4)))  # a view: one of the four sides comes to the top
        border[:depth] = np.nan
    return masked


def turned(sample: Sample, which: int, window: int) -> Sample:
    """One of the eight symmetries of the square: what a window answers turns with it, since its cell is central."""
    pixels, target, weight = sample.pixels, sample.target, sample.weight
    last = window - 1
    if which & 1:
        pixels, target, weight = pixels[..., ::-1], target[..., ::-1].copy(), weight[..., ::-1]
        target[..., [1, 3], :, :] = last - target[..., [1, 3], :, :]
    if which & 2:
        pixels, target, weight = pixels[..., ::-1, :], target[..., ::-1, :].copy(), weight[..., ::-1, :]
        target[..., [2, 4], :, :] = last - target[..., [2, 4], :, :]
    if which & 4:
        pixels, weight = np.swapaxes(pixels, -1, -2), np.swapaxes(weight, -1, -2)
        target = np.swapaxes(target, -1, -2)[..., [0, 2, 1, 4, 3], :, :]
    return Sample(pixels, sample.fwhm_px, target, weight)


def crop_windows(
    padded: NDArray[np.float32],
    target: NDArray[np.float32],
    weight: NDArray[np.float32],
    tiling: Tiling,
    cells: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Square crops of ``cells`` windows a side that cover the grid, as far as whole ones fit."""
    rows, cols = weight.shape
    cells = min(cells, rows, cols)
    side = tiling.window + tiling.step * (cells - 1)
    pixels, targets, weights = [], [], []
    for r in range(0, rows - cells + 1, cells):
        for c in range(0, cols - cells + 1, cells):
            pixels.append(padded[tiling.step * r : tiling.step * r + side, tiling.step * c : tiling.step * c + side])
            targets.append(target[:, r : r + cells, c : c + cells])
            weights.append(weight[r : r + cells, c : c + cells])
    return np.stack(pixels), np.stack(targets), np.stack(weights)
