"""Background and noise of a frame, in a mesh of boxes.

Every later stage sees a frame only as this leaves it: sky subtracted, one unit = one sigma of the sky, masked pixels
NaN (``detector.whitening``). So an error here is an error everywhere. What it must survive at night: fields where most
pixels belong to some source, ten thousand cosmic rays, haloes larger than a box, amplifiers with levels of their own,
Bayer mosaics, integers whose noise is smaller than one count, boxes without a good pixel. A box that says nothing takes
the value of its neighbours; a frame without a good pixel gives level 0 and noise 1 rather than an error, for its pixels
are masked anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.skylevel import MIN_BOX_PX, MIN_PIXELS, SAMPLE, clipped, core, dither
from detector.skymesh import at_centres, filled, without_outliers
from detector.skyseams import edge_steps, seams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.skylevel import Pixels

MIN_FRACTION = 0.1  # nor does a box of which less than this is good
STEEP = 0.1  # sigma between the two halves of a box from where on its slope is taken off
FINE_BOX_PX = 64  # for a curved sky; in smaller ones a halo or a wide trail is sky
CURVED = 0.2  # sigma by which a mesh may miss the sky between its centres; more, and it gets finer
SMALL_PATTERN = 0.1  # sigma: nor does a weaker chequered pattern


@dataclass(frozen=True, eq=False)
class Sky:
    """Sky of one frame: ``background`` and ``noise`` (one sigma) in electrons a pixel, float32 meshes [my, mx].

    Mesh cell ``[i, j]`` covers frame rows ``i * h // my`` to ``(i + 1) * h // my`` and the columns alike, its value
    holds in its centre; ``box`` is about their size. ``row_seams`` [my - 1] and ``column_seams`` [mx - 1] say at which
    edges between cells the level jumps (an amplifier ends there): nothing is interpolated across those.
    ``pattern`` [2, 2] is what a chequered (Bayer) frame adds to pixels of even and odd row and column, electrons, and
    ``pattern_noise`` [2, 2] the factor on their noise; 0 and 1 in other frames.
    """

    background: NDArray[np.float32]
    noise: NDArray[np.float32]
    box: int
    row_seams: NDArray[np.bool_]
    column_seams: NDArray[np.bool_]
    pattern: NDArray[np.float32]
    pattern_noise: NDArray[np.float32]


@njit(cache=True, parallel=True)
def _measure_boxes(pixels, mask, background, noise, slopes, step, pattern):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Level, sigma and slopes (per row, per column) of each box into the meshes; NaN where too few pixels are good.

    A slope widens the histogram: it is taken off and the box measured again as long as it is a good part of the sigma.
    """
    height, width = pixels.shape
    rows, cols = background.shape
    for cell in prange(rows * cols):
        i, j = cell // cols, cell % cols
        top, bottom = i * height // rows, (i + 1) * height // rows
        left, right = j * width // cols, (j + 1) * width // cols
        background[i, j] = np.nan
        noise[i, j] = np.nan
        slopes[:, i, j] = 0.0
        size = (bottom - top) * (right - left)
        values = np.empty(size, np.float32)
        middle_y, middle_x = 0.5 * (top + bottom - 1), 0.5 * (left + right - 1)
        rise, slope = 0.0, 0.0
        for _ in range(4):
            n = 0
            for y in range(top, bottom):
                tilt = np.float32(rise * (y - middle_y))
                for x in range(left, right):
                    value = np.float32(pixels[y, x])
                    if mask[y, x] == 0 and abs(value) < np.float32(np.inf):
                        tilted = value - tilt - np.float32(slope * (x - middle_x))
                        values[n] = tilted - pattern[y & 1, x & 1] + dither(y, x, step)
                        n += 1
            if n < MIN_PIXELS or n < MIN_FRACTION * size:
                break
            level, sigma = core(values[:n], step)
            background[i, j] = level
            noise[i, j] = sigma
            # Halves, in the order in which the values were collected: the mask does not shift one against the other
            # by more than it takes away.
            total = np.zeros(4)
            count = np.zeros(4)
            n = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    if mask[y, x] == 0 and abs(np.float32(pixels[y, x])) < np.float32(np.inf):
                        value = values[n] - level
                        n += 1
                        if abs(value) <= 3.0 * sigma:
                            vertical, horizontal = int(y > middle_y), 2 + int(x > middle_x)
                            total[vertical] += value
                            count[vertical] += 1.0
                            total[horizontal] += value
                            count[horizontal] += 1.0
            if count.min() < MIN_PIXELS // 2:
                break
            up, right_more = total[1] / count[1] - total[0] / count[0], total[3] / count[3] - total[2] / count[2]
            rise += 2.0 * up / (bottom - top)
            slope += 2.0 * right_more / (right - left)
            slopes[0, i, j], slopes[1, i, j] = rise, slope
            if max(abs(up), abs(right_more)) < STEEP * sigma:
                break


def measure_sky(pixels: Pixels, mask: NDArray[np.uint8], box: int = 128) -> Sky:
    """Sky of ``pixels`` [h, w] where ``mask`` [h, w] is 0 and the pixel finite, in boxes of about ``box`` px.

    Each axis has an even number of boxes, so that the middle, where most amplifiers meet, is an edge between two;
    a small frame has smaller boxes, down to ``MIN_BOX_PX``, or one. Where the sky is too curved for the mesh
    (vignetting, nebulae) the boxes are halved, down to ``FINE_BOX_PX``.
    """
    step = _quantum(pixels, mask)
    pattern, pattern_noise = _chequers(pixels, mask)
    background, noise, slopes = _measured(pixels, mask, box, step, pattern)
    while _curvature(background, noise) > CURVED and box >= 2 * FINE_BOX_PX:
        box //= 2
        background, noise, slopes = _measured(pixels, mask, box, step, pattern)
    row_seams = seams(edge_steps(pixels, mask, background, noise, slopes[0], pattern))
    column_seams = seams(edge_steps(pixels.T, mask.T, background.T, noise.T, slopes[1].T, pattern.T))
    background, noise = without_outliers(background, noise, row_seams, column_seams)
    background = at_centres(background, row_seams, column_seams)
    return Sky(
        background=background.astype(np.float32),
        noise=noise.astype(np.float32),
        box=box,
        row_seams=row_seams,
        column_seams=column_seams,
        pattern=pattern,
        pattern_noise=pattern_noise,
    )


def noise_at(sky: Sky, ends: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """The sky's sigma (electrons) of the box in which each mid-point lies."""
    rows, cols = sky.noise.shape
    y = 0.5 * (ends[:, 1] + ends[:, 3]) * rows / shape[0]
    x = 0.5 * (ends[:, 0] + ends[:, 2]) * cols / shape[1]
    values: NDArray[np.float64] = sky.noise[
        np.clip(y.astype(np.int64), 0, rows - 1),
        np.clip(x.astype(np.int64), 0, cols - 1),
    ].astype(np.float64)
    return values


def _measured(
    pixels: Pixels,
    mask: NDArray[np.uint8],
    box: int,
    step: float,
    pattern: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Background [my, mx], noise and slopes [2, my, mx] of the boxes, each filled."""
    shape = _mesh_shape((pixels.shape[0], pixels.shape[1]), box)
    background, noise = np.empty((2, *shape))
    slopes = np.empty((2, *shape))
    _measure_boxes(pixels, mask, background, noise, slopes, step, pattern)
    if not np.isfinite(background).any():
        background, noise = _whole(pixels, mask, shape)
    return *filled(background, noise), slopes


def _curvature(background: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """By how many sigma the sky leaves the lines between the boxes' centres, in the worst quarter of the frame."""
    bends = [
        np.abs(np.diff(mesh, n=2, axis=0)) / 8.0 / sigma[1:-1]
        for mesh, sigma in ((background, noise), (background.T, noise.T))
        if mesh.shape[0] >= 4
    ]
    return max((float(np.quantile(bend, 0.75)) for bend in bends), default=0.0)


def _mesh_shape(shape: tuple[int, int], box: int) -> tuple[int, int]:
    """Boxes a side: an even number, or one where half the side is smaller than a box may be."""
    if box < MIN_BOX_PX:
        raise ValueError(f"a box of {box} px: at least {MIN_BOX_PX} px are needed to tell the sky from a star")
    rows, cols = (2 * max(1, round(side / (2 * box))) if side >= 2 * MIN_BOX_PX else 1 for side in shape)
    return rows, cols


def _quantum(pixels: Pixels, mask: NDArray[np.uint8]) -> float:
    """Step between neighbouring values that occur in the frame's core, electrons; next to 0 where it is continuous."""
    values = _masked_sample(pixels, mask)
    values = values[np.isfinite(values)]
    if values.size < MIN_PIXELS:
        return 0.0
    low, high = np.quantile(values, [0.1, 0.6])
    distinct = np.unique(values[(values >= low) & (values <= high)])
    # One value alone is as good as constant: its neighbours in the whole frame say the step.
    distinct = distinct if distinct.size > 1 else np.unique(values)
    return float(np.median(np.diff(distinct))) if distinct.size > 1 else 0.0


def _chequers(pixels: Pixels, mask: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Offsets [2, 2] of the four parities of row and column, electrons, and factors [2, 2] on their noise.

    Zeros and ones unless the offsets are many times their error and more than ``SMALL_PATTERN`` of the noise. Clipped
    means of the whole frame: stars and gradients are the same in all four.
    """
    none = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    levels, noises, errors = np.zeros((3, 2, 2))
    for i, j in np.ndindex(2, 2):
        values = _masked_sample(pixels[i::2, j::2], mask[i::2, j::2])
        differences = np.diff(values, axis=1).ravel()
        differences = differences[np.isfinite(differences)]
        good = values[np.isfinite(values)]
        if min(good.size, differences.size) < MIN_PIXELS:
            return none
        median = np.median(good)
        scatter = 1.4826 * np.median(np.abs(good - median))
        # A mean, for the medians of integers differ by whole counts where the levels do not.
        levels[i, j], _ = clipped(good.astype(np.float32), median, max(scatter, float(np.spacing(abs(median)))))
        errors[i, j] = 1.2533 * scatter / np.sqrt(good.size)
        noises[i, j] = 1.4826 * np.median(np.abs(differences)) / np.sqrt(2.0)
    noise = np.sqrt(np.mean(noises**2))
    offsets = levels - levels.mean()
    if noise <= 0.0 or np.ptp(offsets) < max(10.0 * errors.max(), SMALL_PATTERN * noise):
        return none
    factors = np.clip(noises / noise, 0.2, 5.0)
    return offsets.astype(np.float32), factors.astype(np.float32)


def _masked_sample(pixels: Pixels, mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Whole rows spread over the frame, about ``SAMPLE`` pixels, float64, NaN where masked."""
    every = max(1, pixels.size // SAMPLE)
    return np.where(mask[every // 2 :: every] == 0, pixels[every // 2 :: every], np.nan).astype(np.float64)


def _whole(
    pixels: Pixels,
    mask: NDArray[np.uint8],
    shape: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Meshes of one level and noise from all good pixels of a frame that has no good box; 0 and 1 if there is none."""
    values = pixels[(mask == 0) & np.isfinite(pixels)]
    level = float(np.median(values)) if values.size else 0.0
    sigma = 1.4826 * float(np.median(np.abs(values - level))) if values.size > 1 else 1.0
    return np.full(shape, level), np.full(shape, sigma if sigma > 0.0 else 1.0)
