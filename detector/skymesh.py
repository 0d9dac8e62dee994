"""A mesh of boxes made whole: the empty filled, those that a source fills calmed, means turned into values at centres.

What a box could not say, its neighbours say; across a seam (an amplifier's end) nobody is anybody's neighbour.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTLIER = 0.25  # sigma by which a box must stand out of its neighbours to be replaced


def filled(
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


def _with_ring(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mesh with each empty box that has a neighbour given the median of its neighbours."""
    around = neighbours(mesh)
    fillable = ~np.isfinite(mesh) & np.isfinite(around).any(axis=0)
    filled = mesh.copy()
    filled[fillable] = np.nanmedian(around[:, fillable], axis=0)
    return filled


def neighbours(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
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


def without_outliers(
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


def at_centres(
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
    around = np.sort(neighbours(mesh), axis=0)  # NaN last
    n = np.isfinite(around).sum(axis=0)
    rank = np.where(n >= 5, 1, 0)
    low = np.take_along_axis(around, rank[None], axis=0)[0]
    high = np.take_along_axis(around, (n - 1 - rank)[None], axis=0)[0]
    reach = high - low + tolerance
    alone = (mesh > high + reach) | (mesh < low - reach)
    return np.where(alone, np.nanmedian(around, axis=0), mesh)
