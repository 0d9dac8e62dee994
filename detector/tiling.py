"""The sliding window: which windows a frame has, where each lies, and the pixels of each.

Every network of this house answers for the central cell of a window. The frame is padded all round with masked pixels
(NaN), so that the cells tile it without gap or overlap whatever its size: a frame smaller than a window has windows,
and a streak at the border is seen whole. Strips are views; cut-out windows are the definition that tests use, and cost
``(window / step) ** 2`` times the memory. At night nothing can fail here but memory: the padded frame is as large as
the frame in float32 plus its margins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Tiling:
    """Windows of ``window`` px every ``step`` px; both in pixels, their difference even so that cells are central."""

    window: int = 96
    step: int = 8

    def __post_init__(self) -> None:
        """Refuse what has no central cell."""
        if self.step < 1 or self.window < self.step or (self.window - self.step) % 2:
            raise ValueError(
                f"window {self.window} px, step {self.step} px: the step must be at least 1, at most the window, and "
                "differ from it by an even number, so that a window has a central cell",
            )

    @property
    def margin(self) -> int:
        """How far a window reaches beyond its central cell, px."""
        return (self.window - self.step) // 2

    def grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of windows over a frame of ``shape``."""
        return -(-shape[0] // self.step), -(-shape[1] // self.step)

    def padded_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the padded frame that holds each window of a frame of ``shape`` whole."""
        rows, cols = self.grid(shape)
        return self.window + self.step * (rows - 1), self.window + self.step * (cols - 1)

    def grid_of_padded(self, padded_shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of windows in a padded frame, or in a strip of one."""
        return (
            (padded_shape[0] - self.window) // self.step + 1,
            (padded_shape[1] - self.window) // self.step + 1,
        )


@njit(cache=True, parallel=True)
def _pad(array, padded, margin):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    height, width = array.shape
    for i in prange(padded.shape[0]):
        y = i - margin
        if y < 0 or y >= height:
            padded[i, :] = np.nan
            continue
        padded[i, :margin] = np.nan
        for x in range(width):
            padded[i, margin + x] = array[y, x]
        padded[i, margin + width :] = np.nan


@njit(cache=True, parallel=True)
def _gather(padded, window, step, first_row, cols, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for n in prange(out.shape[0]):
        top = step * (first_row + n // cols)
        left = step * (n % cols)
        for i in range(window):
            for j in range(window):
                out[n, i, j] = padded[top + i, left + j]


def pad(array: NDArray[np.float32], tiling: Tiling) -> NDArray[np.float32]:
    """Give ``array`` [h, w] in a float32 array of ``tiling.padded_shape``, NaN around it: one read, one write."""
    height, width = array.shape
    padded = np.empty(tiling.padded_shape((height, width)), np.float32)
    _pad(array, padded, tiling.margin)
    return padded


def unpadded(padded: NDArray[np.float32], shape: tuple[int, int], tiling: Tiling) -> NDArray[np.float32]:
    """Give the view [h, w] of the frame inside its padded array."""
    return padded[tiling.margin : tiling.margin + shape[0], tiling.margin : tiling.margin + shape[1]]


def windows(padded: NDArray[np.float32], tiling: Tiling, rows: range | None = None) -> NDArray[np.float32]:
    """Give copies of the windows, [n, window, window], row by row; of the given grid ``rows`` (consecutive), or all."""
    n_rows, n_cols = tiling.grid_of_padded((padded.shape[0], padded.shape[1]))
    wanted = range(n_rows) if rows is None else rows
    if wanted.step != 1 or (wanted and not 0 <= wanted[0] <= wanted[-1] < n_rows):
        raise ValueError(f"rows {wanted} of windows are not consecutive rows of the grid's {n_rows}")
    out = np.empty((len(wanted) * n_cols, tiling.window, tiling.window), np.float32)
    _gather(padded, tiling.window, tiling.step, wanted.start, n_cols, out)
    return out


def strips(padded: NDArray[np.float32], tiling: Tiling, cells: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Give ``(first_row, view)`` of strips ``cells`` grid rows high (the last may be lower); nothing is copied."""
    if cells < 1:
        raise ValueError(f"a strip of {cells} rows of cells: at least 1 is needed")
    n_rows, _ = tiling.grid_of_padded((padded.shape[0], padded.shape[1]))
    for first in range(0, n_rows, cells):
        last = min(first + cells, n_rows) - 1
        yield first, padded[tiling.step * first : tiling.step * last + tiling.window]


def to_frame(
    xy: NDArray[np.floating],
    row: NDArray[np.integer] | int,
    col: NDArray[np.integer] | int,
    tiling: Tiling,
) -> NDArray[np.float64]:
    """Give frame pixels [..., 2] (x, y) of positions in the windows at ``row``, ``col``."""
    return np.asarray(xy, np.float64) + _origins(row, col, tiling)


def to_window(
    xy: NDArray[np.floating],
    row: NDArray[np.integer] | int,
    col: NDArray[np.integer] | int,
    tiling: Tiling,
) -> NDArray[np.float64]:
    """Give positions [..., 2] (x, y) in the windows at ``row``, ``col`` of frame pixels."""
    return np.asarray(xy, np.float64) - _origins(row, col, tiling)


def cells_at(xy: NDArray[np.floating], tiling: Tiling) -> NDArray[np.int64]:
    """Give (row, col) [..., 2] of the windows whose central cells hold the frame positions ``xy`` [..., 2].

    A pixel reaches half a pixel to each side of its centre; positions outside the frame give cells outside the grid.
    """
    cells = np.floor((np.asarray(xy, np.float64) + 0.5) / tiling.step).astype(np.int64)
    return cells[..., ::-1]


def _origins(
    row: NDArray[np.integer] | int,
    col: NDArray[np.integer] | int,
    tiling: Tiling,
) -> NDArray[np.float64]:
    """Frame pixel (x, y) of the first pixel of each window."""
    corner = np.stack(np.broadcast_arrays(np.asarray(col), np.asarray(row)), axis=-1)
    return (tiling.step * corner - tiling.margin).astype(np.float64)
