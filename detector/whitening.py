"""A frame less its sky in units of the sky's sigma, and the same binned 2 x 2.

The mesh of the sky is interpolated by cubics between seams, its noise by straight lines, in one pass that reads each
pixel once and writes it once. Masked pixels, and what is not finite, become NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.skylevel import MIN_PIXELS, SAMPLE, core
from detector.tiling import Tiling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sky import Sky
    from detector.skylevel import Pixels


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
    _, sigma = core(sample, 0.0)
    if sigma > 1.0:
        out /= np.float32(sigma)
    return out
