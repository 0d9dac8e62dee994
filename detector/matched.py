"""The classical detector: an oriented matched filter over a whole frame, whose SNR means what it says.

It needs no training and has no secrets, so it stands beside the network: where the two differ, one of them is to be
looked at. The frame is filtered with its own PSF and summed along lines of every direction and of 4 to 136 px
(``detector.linesums``), points beside them for what moves less than the PSF. The SNR of a line is its sum over the
noise of the same sum: over the pixels that are not masked, with the scatter of the filtered frame itself where that is
more than the sky's. What is not a line of light through the optics is kept out by its own physics: no image of the sky
is sharper than the PSF (cosmic rays), a streak is even along its line (stars on a line are not), and it is as wide as
the PSF (galaxies are wider). Each maximum's ends are then moved to where the SNR is highest.

At night it finds fewer in crowded fields, where bright sources own many pixels, and what is left of a cosmic ray whose
charge was spread wide is found as a streak. Its cost is that of the pixels, whatever is in them.

Method: Turin 1960 (IRE Trans. IT-6, 311) for the filter, Zackay & Ofek 2017 (ApJ 836, 187) for its normalisation; the
bound on sharpness is that of any positive sky seen through a PSF that is a sum of Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.lineodds import log_odds
from detector.linepower import Core, core_of, line_power, point_power
from detector.linerefinement import LONGEST_PX, POINT, SNR, refine
from detector.linesums import KINDS, SHORTEST_ROWS, line_maxima, rows_of
from detector.proposals import Proposals
from detector.sharpness import sharp_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.psf import Psf

LOWEST_SNR = 3.8  # noise alone passes it some 40,000 times in a frame of 17 Mpx: more than are asked for
# A pixel counts in the bank for no more than this: bright sources are found all the same, and reach less far.
CLIP_SIGMA = 8.0
# The local level: medians of blocks of this side, and of so many blocks around; less than this of it is noise.
BLOCK_PX, BLOCKS, LEVEL_SIGMA = 4, 5, 0.15
MESH_PX = 128  # boxes in which the scatter of the filtered frame is measured
# A line that has less than this share of its pixels for itself is a side lobe of better ones.
FREE_SHARE = 0.6
OWNED_ACROSS = 0.75  # to each side of a line, in widths (FWHM) of the PSF: what is its own


@dataclass(frozen=True, eq=False)
class Filtered:
    """A whitened frame filtered with its PSF's core, over its own scatter: an integral along a line is an SNR.

    ``smooth``, ``coverage`` ``[height, width]``; ``clean`` the frame that was filtered: what is sharper than the PSF
    is NaN, the wings of bright sources are off.
    """

    core: Core
    clean: NDArray[np.float32]
    smooth: NDArray[np.float32]
    coverage: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Matched:
    """What the filter found, best first.

    ``proposals`` as the network's (scale 1, one member each); their ``logit`` is the log-odds of ``detector.lineodds``.
    ``snr`` ``[n]`` is that of the matched filter alone; ``snr_point`` ``[n]`` the highest SNR of a point on the line:
    what is no longer than the PSF has nearly as much.
    """

    proposals: Proposals
    snr: NDArray[np.float64]
    snr_point: NDArray[np.float64]


def filtered_frame(frame: NDArray[np.float32], psf: Psf) -> Filtered:
    """Filter a whitened frame (``detector.whitening.whiten``, without its margin; NaN where masked) with its PSF."""
    core = core_of(psf)
    clean = cleaned(frame, psf)
    smooth, coverage = filtered(clean, core)
    smooth /= scatter_map(smooth, coverage, core)
    return Filtered(core, clean, smooth, coverage)


def matched_proposals(frame: Filtered, *, most: int = 20_000) -> Matched:
    """The ``most`` best lines of a frame."""
    measured = measured_lines(frame)
    logit = log_odds(measured, frame.core)
    order = np.argsort(-logit, kind="stable")[:most]
    measured, logit = measured[order], logit[order]
    proposals = Proposals(measured[:, :4].copy(), logit, np.ones(len(logit)), np.ones(len(logit), np.int64))
    return Matched(proposals, measured[:, SNR].copy(), measured[:, POINT].copy())


def measured_lines(frame: Filtered) -> NDArray[np.float64]:
    """All lines above ``LOWEST_SNR`` in a frame, refined: the columns of ``refine``."""
    core, smooth, coverage = frame.core, frame.smooth, frame.coverage
    clipped, _ = filtered(np.minimum(frame.clean, np.float32(CLIP_SIGMA)), core)
    found = np.concatenate(
        [
            line_maxima(clipped, line_norms(core), LOWEST_SNR),
            point_maxima(clipped, float(1.0 / np.sqrt(point_power(core))), LOWEST_SNR),
        ]
    )
    middle, half = found[:, 1:3], found[:, 3:5]
    ends = np.concatenate([middle - half, middle + half], axis=1)
    ends = ends[unclaimed(ends, found[:, 0], smooth, core)[0]]
    measured = refine(smooth, coverage, ends, core)
    rows, snr = unclaimed(measured[:, :4], measured[:, SNR], smooth, core)
    measured = measured[rows]
    measured[:, SNR] = snr
    return measured


def line_norms(core: Core) -> NDArray[np.float32]:
    """Factors ``[kind, slope + rows]`` that make the bank's sums along rows an SNR."""
    most = SHORTEST_ROWS << (KINDS // 2 - 1)
    norms = np.zeros((KINDS, 2 * most + 1), np.float32)
    for kind in range(KINDS):
        rows = SHORTEST_ROWS << (kind // 2)
        step = np.hypot(1.0, np.arange(-rows, rows + 1) / rows)
        norms[kind, : 2 * rows + 1] = step / np.sqrt(line_power(core, rows_of(kind) * step))
    return norms


def cleaned(frame: NDArray[np.float32], psf: Psf) -> NDArray[np.float32]:
    """The frame less its local level near bright sources, NaN where something is sharper than the PSF allows."""
    sharp = sharp_pixels(frame, psf)
    out = np.where(sharp, np.float32(np.nan), frame)
    _subtract(out, _levels(out))
    return out


@njit(cache=True, parallel=True)
def _block_means(frame: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Means of blocks, NaN where less than half of one is there."""
    height, width = frame.shape
    for i in prange(out.shape[0]):
        for j in range(out.shape[1]):
            total, count = np.float32(0.0), 0
            for y in range(i * BLOCK_PX, min((i + 1) * BLOCK_PX, height)):
                for x in range(j * BLOCK_PX, min((j + 1) * BLOCK_PX, width)):
                    if frame[y, x] == frame[y, x]:
                        total += frame[y, x]
                        count += 1
            out[i, j] = total / count if 2 * count >= BLOCK_PX * BLOCK_PX else np.nan


@njit(cache=True, parallel=True)
def _block_medians(means: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """The median of the blocks around each; 0 where that is below ``LEVEL_SIGMA``, itself from twice that on."""
    height, width = means.shape
    half = BLOCKS // 2
    for i in prange(height):
        values = np.empty(BLOCKS * BLOCKS, np.float32)
        for j in range(width):
            n = 0
            for y in range(max(i - half, 0), min(i + half + 1, height)):
                for x in range(max(j - half, 0), min(j + half + 1, width)):
                    if means[y, x] == means[y, x]:
                        values[n] = means[y, x]
                        n += 1
            out[i, j] = 0.0
            if n >= BLOCKS:
                level = np.median(values[:n])
                out[i, j] = max(min(level, np.float32(2.0) * (level - np.float32(LEVEL_SIGMA))), np.float32(0.0))


def _levels(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    """The local level by blocks of ``BLOCK_PX``, sigma."""
    shape = (-(-frame.shape[0] // BLOCK_PX), -(-frame.shape[1] // BLOCK_PX))
    means, levels = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _block_means(frame, means)
    _block_medians(means, levels)
    return levels


@njit(cache=True, parallel=True)
def _subtract(frame: NDArray[np.float32], levels: NDArray[np.float32]) -> None:
    """Take the levels, linearly between the blocks' middles, off our own ``frame``."""
    rows, cols = levels.shape
    for y in prange(frame.shape[0]):
        v = (y + 0.5) / BLOCK_PX - 0.5
        i = min(max(int(math.floor(v)), 0), max(rows - 2, 0))
        fy = np.float32(min(max(v - i, 0.0), 1.0))
        k = min(i + 1, rows - 1)
        for x in range(frame.shape[1]):
            u = (x + 0.5) / BLOCK_PX - 0.5
            j = min(max(int(math.floor(u)), 0), max(cols - 2, 0))
            fx = np.float32(min(max(u - j, 0.0), 1.0))
            m = min(j + 1, cols - 1)
            low = levels[i, j] + fx * (levels[i, m] - levels[i, j])
            high = levels[k, j] + fx * (levels[k, m] - levels[k, j])
            frame[y, x] -= low + fy * (high - low)


@njit(cache=True, parallel=True)
def _blur(frame: NDArray[np.float32], kernel: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Add the separable convolution of the good pixels to ``out``; nothing lies outside."""
    height, width = frame.shape
    reach = len(kernel) // 2
    for y in prange(height):
        line = np.zeros(width + 2 * reach, np.float32)
        for i in range(max(y - reach, 0), min(y + reach + 1, height)):
            factor, row = kernel[i - y + reach], frame[i]
            for x in range(width):
                value = row[x]
                line[x + reach] += factor * value if value == value else np.float32(0.0)  # noqa: PLR0124
        target = out[y]
        for k in range(len(kernel)):
            factor = kernel[k]
            for x in range(width):
                target[x] += factor * line[x + k]


@njit(cache=True, parallel=True)
def _goodness(frame: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """1 where there is a pixel, 0 where it is masked."""
    for y in prange(frame.shape[0]):
        for x in range(frame.shape[1]):
            out[y, x] = 1.0 if frame[y, x] == frame[y, x] else 0.0


def _kernel(sigma: float) -> NDArray[np.float32]:
    """A sampled Gaussian of unit sum."""
    reach = max(1, math.ceil(4.0 * sigma))
    values = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (values / (math.sqrt(2.0 * math.pi) * sigma)).astype(np.float32)


def filtered(frame: NDArray[np.float32], core: Core) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The frame filtered with the PSF, masked pixels as 0; and the share of the squared PSF that lies on good ones."""
    smooth, coverage, good = np.zeros((3, *frame.shape), np.float32)
    for sigma, weight in zip(*core, strict=True):
        kernel = _kernel(float(sigma)) * np.float32(math.sqrt(weight))
        _blur(frame, kernel, smooth)
    _goodness(frame, good)
    # The squared PSF has its light within half of its core.
    kernel = _kernel(float(core[0][0]) / math.sqrt(2.0))
    _blur(good, kernel / kernel.sum(), coverage)
    # Outside the frame there is nothing: what the kernel reaches there is not good either.
    return smooth, coverage


def scatter_map(smooth: NDArray[np.float32], coverage: NDArray[np.float32], core: Core) -> NDArray[np.float32]:
    """The scatter of the filtered frame, over that of white noise; at least 1: one value a frame row and column."""
    height, width = smooth.shape
    rows, cols = max(1, round(height / MESH_PX)), max(1, round(width / MESH_PX))
    mesh = np.ones((rows, cols))
    white = math.sqrt(point_power(core))
    for i, j in np.ndindex(rows, cols):
        box = np.s_[height * i // rows : height * (i + 1) // rows : 2, width * j // cols : width * (j + 1) // cols : 2]
        values = smooth[box][coverage[box] > 0.99]
        if values.size >= 100:
            low, middle = np.quantile(values, [0.1587, 0.5])
            mesh[i, j] = max(1.0, (middle - low) / white)
    mesh = np.maximum(mesh / max(1.0, min(1.03, float(np.median(mesh)))), 1.0)
    out: NDArray[np.float32] = np.repeat(
        np.repeat(mesh, np.diff(height * np.arange(rows + 1) // rows), axis=0),
        np.diff(width * np.arange(cols + 1) // cols), axis=1,
    ).astype(np.float32)  # fmt: skip
    return out


@njit(cache=True)
def _points(smooth: NDArray[np.float32], lowest: float, table: NDArray[np.float64]) -> int:
    """Local maxima of the filtered frame."""
    height, width = smooth.shape
    count = 0
    for y in range(height):
        for x in range(width):
            value = smooth[y, x]
            if value < lowest:
                continue
            highest = True
            for i in range(max(y - 1, 0), min(y + 2, height)):
                for j in range(max(x - 1, 0), min(x + 2, width)):
                    other = smooth[i, j]
                    if other > value or (other == value and (i < y or (i == y and j < x))):
                        highest = False
            if highest and count < len(table):
                table[count, 0], table[count, 1], table[count, 2] = value, x, y
                count += 1
    return count


def point_maxima(smooth: NDArray[np.float32], norm: float, lowest_snr: float) -> NDArray[np.float64]:
    """Local maxima of points, in the columns of ``line_maxima``: half a pixel to each side."""
    table = np.zeros((max(1000, smooth.size // 100), 5))
    count = _points(smooth, lowest_snr / norm, table)
    table[:, 0] *= norm
    table[:, 3] = 0.5
    return table[:count]


def unclaimed(
    ends: NDArray[np.float64],
    snr: NDArray[np.float64],
    smooth: NDArray[np.float32],
    core: Core,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rows, highest SNR first, of the lines that do not lie on better ones, and the SNR of what is theirs alone.

    A line that crosses a brighter one has some of its light; what is left must still be above ``LOWEST_SNR``.
    """
    order = np.argsort(-snr, kind="stable")
    own = np.zeros(len(ends))
    power = line_power(core, np.arange(2 * LONGEST_PX + 2) / 2.0)
    reach = OWNED_ACROSS * 2.355 * float(np.sum(core[0] * core[1]))
    _claim(ends[order], snr[order], smooth, np.zeros(smooth.shape, np.bool_), own, power, reach)
    kept = np.flatnonzero(own >= LOWEST_SNR)
    return order[kept], own[kept]


@njit(cache=True)
def _claim(
    ends: NDArray[np.float64],
    snr: NDArray[np.float64],
    smooth: NDArray[np.float32],
    owned: NDArray[np.bool_],
    own: NDArray[np.float64],
    power: NDArray[np.float64],
    across: float,
) -> None:
    """Give each line that is mostly on free pixels those within ``across``, and more if it is bright."""
    height, width = owned.shape
    for n in range(len(ends)):
        x0, y0, x1, y1 = ends[n]
        length = math.hypot(x1 - x0, y1 - y0)
        steps = min(max(1, int(2.0 * length + 0.5)), len(power) - 1)
        free, total = 0, 0.0
        for k in range(steps):
            x, y = x0 + (x1 - x0) * (k + 0.5) / steps, y0 + (y1 - y0) * (k + 0.5) / steps
            i, j = int(math.floor(y + 0.5)), int(math.floor(x + 0.5))
            if 0 <= i < height and 0 <= j < width and not owned[i, j]:
                free += 1
                total += smooth[i, j]
        if free < FREE_SHARE * steps:
            continue
        # Sums over the nearest pixels lose some light; a line that is free all over has it all.
        left = 0.5 * total / math.sqrt(power[steps] * free / steps)
        own[n] = snr[n] if free == steps else min(snr[n], left)
        if own[n] < LOWEST_SNR:
            continue
        # Light falls off about as r^-3: the wings of a bright one reach further.
        reach = across * max(1.0, (snr[n] / 15.0) ** 0.4)
        ux, uy = (x1 - x0) / max(length, 1e-9), (y1 - y0) / max(length, 1e-9)
        for i in range(max(0, int(min(y0, y1) - reach)), min(height, int(max(y0, y1) + reach) + 2)):
            for j in range(max(0, int(min(x0, x1) - reach)), min(width, int(max(x0, x1) + reach) + 2)):
                t = (j - x0) * ux + (i - y0) * uy
                d = abs((i - y0) * ux - (j - x0) * uy)
                t = max(0.0, -t, t - length)
                if d * d + t * t <= reach * reach:
                    owned[i, j] = True
