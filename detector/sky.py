"""Background and noise of a frame, and the frame in units of that noise.

Every later stage sees a frame only as this module leaves it: sky subtracted, one unit = one sigma of the sky, masked
pixels NaN. So an error here is an error everywhere. What it must survive at night: fields where most pixels belong to
some source, ten thousand cosmic rays, haloes larger than a box, amplifiers with levels of their own, Bayer mosaics,
integers whose noise is smaller than one count, boxes without a good pixel. A box that says nothing takes the value of
its neighbours; a frame without a good pixel gives level 0 and noise 1 rather than an error, for its pixels are masked
anyway.

Method: in each box of a mesh the histogram's core, from 2.5 sigma below to 1 sigma above its peak, is fitted by a
Gaussian (Poisson likelihood). Sources only add light, so what they spoil is the side that the fit does not see; the
usual clipped mean is biased by them. The comb of integer data is blurred by a dither of one step first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.tiling import Tiling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.float32] | NDArray[np.uint16]

# The part of the histogram that is fitted, in sigma about its peak. Below -2.5 there is little left to win and bad
# pixels begin; above +1 lie the wings of faint sources.
CORE_LOW, CORE_HIGH = -2.5, 1.0
BIN = 0.25  # width of a bin in sigma: its own variance (1/12 of its square) is taken off afterwards
MIN_PIXELS = 64  # fewer good pixels in a box say nothing
MIN_FRACTION = 0.1  # nor does a box of which less than this is good
MIN_BOX_PX = 32  # smaller boxes would take the wings of a star for sky
STRIP_PX = 8  # on each side of an edge between boxes, where a step is looked for
STEEP = 0.1  # sigma between the two halves of a box from where on its slope is taken off
FINE_BOX_PX = 64  # for a curved sky; in smaller ones a halo or a wide trail is sky
CURVED = 0.2  # sigma by which a mesh may miss the sky between its centres; more, and it gets finer
SMALL_STEP = 0.1  # sigma: a smaller step of an amplifier does no harm
SMALL_PATTERN = 0.1  # sigma: nor does a weaker chequered pattern
OUTLIER = 0.25  # sigma by which a box must stand out of its neighbours to be replaced
SAMPLE = 1 << 17  # pixels that are enough for figures of the whole frame


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


@njit(cache=True)
def _histogram(values, level, sigma, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Count ``values`` in bins of ``BIN`` sigma that begin at ``CORE_LOW`` about ``level``."""
    counts[:] = 0.0
    low = np.float32(level + CORE_LOW * sigma)
    scale = np.float32(1.0 / (BIN * sigma))
    n_bins = np.float32(counts.size)
    for k in range(values.size):
        position = (values[k] - low) * scale
        if position >= np.float32(0.0) and position < n_bins:
            counts[int(position)] += 1.0


@njit(cache=True)
def _fit_counts(counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Peak and width (sigma units of the histogram) of a Gaussian through ``counts``; width 0 where there is none.

    Poisson regression of a parabola in the logarithm, by Newton steps.
    """
    n = counts.size
    x = np.empty(n)
    a = np.zeros(3)
    normal = np.zeros((3, 3))
    right = np.zeros(3)
    for k in range(n):
        x[k] = CORE_LOW + (k + 0.5) * BIN
    for step in range(8):
        normal[:] = 0.0
        right[:] = 0.0
        for k in range(n):
            if step == 0:
                weight = counts[k] + 0.5
                target = np.log(weight)
            else:
                eta = a[0] + x[k] * (a[1] + x[k] * a[2])
                weight = np.exp(min(eta, 30.0))
                target = eta + (counts[k] - weight) / max(weight, 1e-9)
            power = weight
            for p in range(5):
                for i in range(max(0, p - 2), min(3, p + 1)):
                    normal[i, p - i] += power
                if p < 3:
                    right[p] += power * target
                power *= x[k]
        if abs(np.linalg.det(normal)) < 1e-30:
            return 0.0, 0.0
        new = np.linalg.solve(normal, right)
        change = np.abs(new - a).max()
        a[:] = new
        if step > 0 and change < 1e-4:
            break
    if not a[2] < -0.02:  # hardly bent: wider than five sigma of what was supposed
        return 0.0, 0.0
    variance = -0.5 / a[2]
    return a[1] * variance, np.sqrt(max(variance - BIN * BIN / 12.0, 0.0))


@njit(cache=True)
def _first_guess(values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Peak and sigma from the shortest interval that holds a quarter of a sample: rough, but sources do not move it."""
    stride = max(1, values.size // 1024)
    sample = np.sort(values[::stride])
    quarter = max(2, sample.size // 4)
    best = 0
    for k in range(sample.size - quarter):
        if sample[k + quarter] - sample[k] < sample[best + quarter] - sample[best]:
            best = k
    # A quarter of a Gaussian lies within 0.3186 sigma of its peak.
    width = max(sample[best + quarter] - sample[best], np.float32(0.0))
    return 0.5 * (sample[best] + sample[best + quarter]), width / 0.6373


@njit(cache=True)
def _clipped(values, level, sigma):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mean and scatter of the values within three sigma, three times over."""
    for _ in range(3):
        count, total, squares = 0, 0.0, 0.0
        for k in range(values.size):
            value = float(values[k]) - level
            if abs(value) <= 3.0 * sigma:
                count += 1
                total += value
                squares += value * value
        if count == 0:
            break
        mean = total / count
        sigma = np.sqrt(max(squares / count - mean * mean, 1e-12 * sigma * sigma)) / 0.9866  # what clipping took
        level += mean
    return level, sigma


@njit(cache=True)
def _core(values, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Level and sigma of the core of ``values`` (finite, dithered by ``step``), which are overwritten by nobody."""
    level, sigma = _first_guess(values)
    floor = max(step * 0.28867513, abs(level) * 1e-6)  # noise of rounding: a step over the root of 12
    if sigma <= floor * 0.01:
        return float(level), floor
    counts = np.zeros(round((CORE_HIGH - CORE_LOW) / BIN))
    for _ in range(6):
        _histogram(values, level, sigma, counts)
        shift, width = _fit_counts(counts)
        if width <= 0.0:  # no peak in sight: look wider
            sigma *= 1.5
            continue
        shift = min(max(shift, -2.0), 2.0)
        width = min(max(width, 0.4), 2.5)
        level += shift * sigma
        sigma *= width
        if abs(shift) < 0.02 and abs(width - 1.0) < 0.02:
            break
    if sigma < 1.5 * step:  # two or three counts hold everything: the comb has no shape to fit
        level, sigma = _clipped(values, level, max(sigma, step))
    # The dither added the variance of a triangle two steps wide.
    return float(level), max(np.sqrt(max(sigma * sigma - step * step / 6.0, 0.0)), floor)


@njit(cache=True)
def _dither(y, x, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A number in (-step, step), triangular about 0, that is the same whenever the pixel is asked for.

    A triangle joins the teeth of the comb by straight lines; a box would leave stairs that bend the fit.
    """
    hashed = (y * 73856093 ^ x * 19349663) & 0xFFFFFFFF
    hashed = ((hashed ^ (hashed >> 15)) * 0x85EBCA6B) & 0xFFFFFFFF
    hashed ^= hashed >> 13
    return np.float32(step * ((hashed & 0xFFFF) + (hashed >> 16) - 65535.0) / 65536.0)


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
                        values[n] = tilted - pattern[y & 1, x & 1] + _dither(y, x, step)
                        n += 1
            if n < MIN_PIXELS or n < MIN_FRACTION * size:
                break
            level, sigma = _core(values[:n], step)
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


@njit(cache=True, parallel=True)
def _edge_steps(pixels, mask, background, noise, pattern, steps):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Jump of the level across each edge between vertically neighbouring boxes, in sigma; NaN where too few are good.

    ``steps`` [my - 1, mx]. Means of the ``STRIP_PX`` rows on each side, of pixels within 2.5 sigma of the two boxes'
    mean level and its half difference; the box's own gradient is taken off by the caller.
    """
    height, width = pixels.shape
    rows, cols = background.shape
    for cell in prange((rows - 1) * cols):
        i, j = cell // cols, cell % cols
        edge = (i + 1) * height // rows
        left, right = j * width // cols, (j + 1) * width // cols
        sigma = 0.5 * (noise[i, j] + noise[i + 1, j])
        middle = 0.5 * (background[i, j] + background[i + 1, j])
        reach = 2.5 * sigma + 0.5 * abs(background[i, j] - background[i + 1, j])
        total = np.zeros(2)
        count = np.zeros(2)
        for y in range(max(edge - STRIP_PX, 0), min(edge + STRIP_PX, height)):
            side = 0 if y < edge else 1
            for x in range(left, right):
                value = np.float32(pixels[y, x]) - pattern[y & 1, x & 1]
                if mask[y, x] == 0 and abs(value - middle) <= reach:
                    total[side] += value - middle
                    count[side] += 1.0
        steps[i, j] = np.nan
        if min(count[0], count[1]) >= MIN_PIXELS:
            steps[i, j] = (total[1] / count[1] - total[0] / count[0]) / sigma


@njit(cache=True)
def _pieces(mesh, edges, seams, curved, pieces):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Polynomials through one line of the mesh: ``pieces`` [2 * n, 4] in the distance from a cell's centre, in pixels.

    Two pieces a cell, before and after its centre. ``curved``: cubics with the slopes that the neighbours tell, beyond
    the last centre before a seam or a border the parabola through the last three. Else straight lines, level there.
    """
    n = mesh.size
    pieces[:] = 0.0
    first = 0
    while first < n:
        end = first + 1
        while end < n and not seams[end - 1]:
            end += 1
        for k in range(first, end):  # the slope at each centre, and the bend at the outer ones
            low, high = max(k - 1, first), min(k + 1, end - 1)
            if k in (first, end - 1) and end - first > 2:
                low, high = (first, first + 2) if k == first else (end - 3, end - 1)
            slope, bend = 0.0, 0.0
            if high > low:
                slope = (mesh[high] - mesh[low]) / _distance(edges, low, high)
            if high - low == 2 and k in (low, high):
                before = (mesh[low + 1] - mesh[low]) / _distance(edges, low, low + 1)
                after = (mesh[high] - mesh[high - 1]) / _distance(edges, high - 1, high)
                bend = (after - before) / _distance(edges, low, high)
                slope += bend * _distance(edges, low, high) * (1.0 if k == high else -1.0)
            for part in range(2):
                pieces[2 * k + part, 0] = mesh[k]
                pieces[2 * k + part, 1] = slope if curved else 0.0
                pieces[2 * k + part, 2] = bend if curved else 0.0
        for k in range(first, end - 1):  # and what lies between two centres
            span = _distance(edges, k, k + 1)
            rise = (mesh[k + 1] - mesh[k]) / span
            if not curved:
                pieces[2 * k + 1, 1] = rise
                pieces[2 * k + 2, 1] = rise
                continue
            left, right = pieces[2 * k, 1], pieces[2 * k + 3, 1]
            pieces[2 * k + 1, 2] = (3.0 * rise - 2.0 * left - right) / span
            pieces[2 * k + 2, 2] = (left + 2.0 * right - 3.0 * rise) / span
            pieces[2 * k + 1, 3] = (left + right - 2.0 * rise) / span**2
            pieces[2 * k + 2, 3] = pieces[2 * k + 1, 3]
        first = end


@njit(cache=True)
def _distance(edges, j, k):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Pixels between the centres of cells ``j`` and ``k``."""
    return 0.5 * (edges[k] + edges[k + 1] - edges[j] - edges[j + 1])


@njit(cache=True)
def _column_pieces(mesh, row_edges, row_seams, curved):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Polynomials down each column of the mesh, [mx, 2 * my, 4]."""
    rows, cols = mesh.shape
    pieces = np.empty((cols, 2 * rows, 4))
    for j in range(cols):
        _pieces(mesh[:, j], row_edges, row_seams, curved, pieces[j])
    return pieces


@njit(cache=True)
def _line(pieces, row_edges, y, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Values of the polynomials of ``_column_pieces`` in frame row ``y``: one a column of the mesh, into ``out``."""
    i = 0
    while row_edges[i + 1] <= y:
        i += 1
    t = y - (0.5 * (row_edges[i] + row_edges[i + 1]) - 0.5)
    part = 2 * i + (0 if t < 0.0 else 1)
    for j in range(out.size):
        a = pieces[j, part]
        out[j] = a[0] + t * (a[1] + t * (a[2] + t * a[3]))


@njit(cache=True)
def _spread(values, edges, seams, curved, line):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Interpolate one value a column of the mesh to each pixel of ``line``."""
    cols = values.size
    pieces = np.empty((2 * cols, 4))
    _pieces(values, edges, seams, curved, pieces)
    for j in range(cols):
        centre = 0.5 * (edges[j] + edges[j + 1]) - 0.5
        half = int(np.ceil(centre))
        for part in range(2):
            a0, a1, a2, a3 = pieces[2 * j + part]
            for x in range(edges[j] if part == 0 else half, half if part == 0 else edges[j + 1]):
                t = x - centre
                line[x] = a0 + t * (a1 + t * (a2 + t * a3))


@njit(cache=True, parallel=True)
def _whiten(pixels, mask, background, noise, row_seams, column_seams, pattern, pattern_noise, margin, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    height, width = pixels.shape
    rows, cols = background.shape
    row_edges = np.arange(rows + 1) * height // rows
    column_edges = np.arange(cols + 1) * width // cols
    levels = _column_pieces(background, row_edges, row_seams, True)
    sigmas = _column_pieces(noise, row_edges, row_seams, False)
    for i in prange(out.shape[0]):
        y = i - margin
        if y < 0 or y >= height:
            out[i, :] = np.nan
            continue
        out[i, :margin] = np.nan
        out[i, margin + width :] = np.nan
        values = np.empty(cols)
        level = np.empty(width, np.float32)
        sigma = np.empty(width, np.float32)
        _line(levels, row_edges, y, values)
        _spread(values, column_edges, column_seams, True, level)
        _line(sigmas, row_edges, y, values)
        _spread(values, column_edges, column_seams, False, sigma)
        for parity in range(2):
            level[parity::2] += pattern[y & 1, parity]
            sigma[parity::2] *= pattern_noise[y & 1, parity]
        for x in range(width):
            value = (np.float32(pixels[y, x]) - level[x]) / sigma[x]
            good = mask[y, x] == 0 and abs(value) < np.float32(np.inf)
            out[i, margin + x] = value if good else np.float32(np.nan)


@njit(cache=True, parallel=True)
def _bin(whitened, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for i in prange(out.shape[0]):
        for j in range(out.shape[1]):
            total = np.float32(0.0)
            count = 0
            for k in range(4):
                value = whitened[2 * i + k // 2, 2 * j + k % 2]
                if value == value:  # noqa: PLR0124 - not NaN
                    total += value
                    count += 1
            out[i, j] = total / np.float32(np.sqrt(np.float32(count))) if count >= 3 else np.float32(np.nan)


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
    row_seams = _seams(_edge_steps_of(pixels, mask, background, noise, slopes[0], pattern))
    column_seams = _seams(_edge_steps_of(pixels.T, mask.T, background.T, noise.T, slopes[1].T, pattern.T))
    background, noise = _without_outliers(background, noise, row_seams, column_seams)
    background = _at_centres(background, row_seams, column_seams)
    return Sky(
        background=background.astype(np.float32),
        noise=noise.astype(np.float32),
        box=box,
        row_seams=row_seams,
        column_seams=column_seams,
        pattern=pattern,
        pattern_noise=pattern_noise,
    )


def whiten(pixels: Pixels, mask: NDArray[np.uint8], sky: Sky, *, window: int, step: int) -> NDArray[np.float32]:
    """Give ``pixels`` [h, w] less the sky, in sigma of the sky, NaN where masked or not finite.

    The result is padded with NaN as ``Tiling(window, step)`` says: read once, written once.
    """
    tiling = Tiling(window, step)
    out = np.empty(tiling.padded_shape((pixels.shape[0], pixels.shape[1])), np.float32)
    _whiten(
        pixels,
        mask,
        sky.background,
        sky.noise,
        sky.row_seams,
        sky.column_seams,
        sky.pattern,
        sky.pattern_noise,
        tiling.margin,
        out,
    )
    return out


def binned(whitened: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bin a whitened frame [h, w] 2 x 2 to [h // 2, w // 2], again in units of its own sigma.

    A bin is the sum of its valid pixels over the root of their number, NaN where fewer than three of four are valid.
    Where neighbouring pixels are correlated (resampled frames) that sum scatters by more than 1; it is divided by the
    scatter that is measured, so that a threshold means the same at each scale. A smaller one is left as it is.
    """
    out = np.empty((whitened.shape[0] // 2, whitened.shape[1] // 2), np.float32)
    _bin(whitened, out)
    every = max(1, out.size // SAMPLE)
    sample = out[every // 2 :: every]
    sample = sample[np.isfinite(sample)]
    if sample.size < MIN_PIXELS:
        return out
    _, sigma = _core(sample, 0.0)
    if sigma > 1.0:
        out /= np.float32(sigma)
    return out


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
    return *_filled(background, noise), slopes


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
        levels[i, j], _ = _clipped(good.astype(np.float32), median, max(scatter, float(np.spacing(abs(median)))))
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


def _edge_steps_of(
    pixels: Pixels,
    mask: NDArray[np.uint8],
    background: NDArray[np.float64],
    noise: NDArray[np.float64],
    rises: NDArray[np.float64],
    pattern: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Jumps [my - 1, mx] of the level between rows of boxes, in sigma: what goes beyond twice the slopes.

    At a vignetted border the slope itself changes within a box; a jump has none to speak of beside it.
    """
    steps = np.empty((background.shape[0] - 1, background.shape[1]))
    _edge_steps(pixels, mask, background, noise, pattern, steps)
    smooth = 0.5 * (rises[1:] + rises[:-1]) * STRIP_PX / (0.5 * (noise[1:] + noise[:-1]))
    beyond = np.sign(steps - smooth) * np.maximum(np.abs(steps - smooth) - np.abs(smooth), 0.0)
    return np.where(np.isfinite(steps), beyond, np.nan)


def _seams(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which edges [n] between rows of boxes the level jumps at, in one half of the columns at least."""
    cols = steps.shape[1]
    return _jumps(steps[:, : (cols + 1) // 2]) | _jumps(steps[:, cols // 2 :])


def _jumps(steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Lines of ``steps`` [n, boxes], in sigma, whose median is large, beyond its error, and of one sign."""
    formal = 1.0 / np.sqrt(STRIP_PX * MIN_BOX_PX)
    jumps = np.zeros(steps.shape[0], np.bool_)
    for line, values in enumerate(steps):
        valid = values[np.isfinite(values)]
        if valid.size < max(1, steps.shape[1] // 2):
            continue
        median = np.median(valid)
        error = 1.2533 * max(1.4826 * np.median(np.abs(valid - median)), formal) / np.sqrt(valid.size)
        same_sign = np.mean(np.sign(valid) == np.sign(median))
        jumps[line] = abs(median) > max(SMALL_STEP, 5.0 * error) and same_sign >= 0.8
    return jumps


def _filled(
    background: NDArray[np.float64],
    noise: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The meshes with empty boxes filled from their neighbours, ring by ring, and no noise near zero.

    A box whose noise is under a twentieth of the frame's median is constant (dead, clipped): it gets that floor.
    """
    while not np.isfinite(background).all():
        background, noise = _with_ring(background), _with_ring(noise)
    typical = np.median(noise[noise > 0]) if (noise > 0).any() else 1.0
    return background, np.maximum(noise, 0.05 * typical)


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


def _with_ring(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mesh with each empty box that has a neighbour given the median of its neighbours."""
    around = _neighbours(mesh)
    fillable = ~np.isfinite(mesh) & np.isfinite(around).any(axis=0)
    filled = mesh.copy()
    filled[fillable] = np.nanmedian(around[:, fillable], axis=0)
    return filled


def _neighbours(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """The eight neighbours [8, my, mx] of each box, NaN beyond the border."""
    padded = np.pad(mesh, 1, constant_values=np.nan)
    rows, cols = mesh.shape
    return np.stack(
        [padded[i : i + rows, j : j + cols] for i in range(3) for j in range(3) if (i, j) != (1, 1)],
    )


def _panels(row_seams: NDArray[np.bool_], column_seams: NDArray[np.bool_]) -> list[tuple[slice, slice]]:
    """The parts of the mesh between seams."""
    rows = [0, *(np.flatnonzero(row_seams) + 1), row_seams.size + 1]
    columns = [0, *(np.flatnonzero(column_seams) + 1), column_seams.size + 1]
    return [np.s_[top:bottom, left:right] for top, bottom in pairwise(rows) for left, right in pairwise(columns)]


def _without_outliers(
    background: NDArray[np.float64],
    noise: NDArray[np.float64],
    row_seams: NDArray[np.bool_],
    column_seams: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The meshes with boxes that stand alone (a galaxy as large as a box) replaced by the median of their neighbours.

    Panel by panel between seams. A plain median filter would flatten gradients at borders.
    """
    background, noise = background.copy(), noise.copy()
    for panel in _panels(row_seams, column_seams):
        sigma = noise[panel].copy()
        background[panel] = _calmed(background[panel], OUTLIER * sigma)
        noise[panel] = _calmed(sigma, OUTLIER * sigma)
    return background, noise


def _at_centres(
    background: NDArray[np.float64],
    row_seams: NDArray[np.bool_],
    column_seams: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """The mesh of boxes' means as values in their centres: less a 24th of the second difference along each axis."""
    centres = background.copy()
    for panel in _panels(row_seams, column_seams):
        for axis in range(2):
            if background[panel].shape[axis] >= 3:
                bend = np.diff(background[panel], n=2, axis=axis) / 24.0
                centres[panel] -= np.pad(bend, [(int(k == axis),) * 2 for k in range(2)], mode="edge")
    return centres


def _calmed(mesh: NDArray[np.float64], tolerance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mesh, boxes beyond the range of their neighbours by that range and ``tolerance`` replaced by their median.

    Of five neighbours and more the extreme ones do not count: a source on the edge of two boxes excuses neither.
    """
    if mesh.size < 4:
        return mesh
    around = np.sort(_neighbours(mesh), axis=0)  # NaN last
    n = np.isfinite(around).sum(axis=0)
    rank = np.where(n >= 5, 1, 0)
    low = np.take_along_axis(around, rank[None], axis=0)[0]
    high = np.take_along_axis(around, (n - 1 - rank)[None], axis=0)[0]
    reach = high - low + tolerance
    alone = (mesh > high + reach) | (mesh < low - reach)
    return np.where(alone, np.nanmedian(around, axis=0), mesh)
