"""Gradient-boosted trees as plain arrays: evaluated here, trained elsewhere.

A model is six arrays and no program: nothing is unpickled, and the machine that links needs no boosting library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Trees:
    """The nodes of all trees, one after the other; ``roots`` ``[trees]`` says where each begins.

    A node sends a row to ``left`` where its ``feature`` is at most ``threshold``, else to ``right``; a leaf has
    ``feature`` -1 and adds its ``value``.
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check that every walk ends at a leaf: children come after their parents, and within the arrays."""
        count = len(self.feature)
        inner = self.feature >= 0
        here = np.flatnonzero(inner)
        for child in (self.left[inner], self.right[inner]):
            if (child <= here).any() or (child >= count).any():
                raise ValueError("trees: a node's children must come after it; the file is damaged")
        if not {len(self.threshold), len(self.left), len(self.right), len(self.value)} == {count}:
            raise ValueError("trees: arrays of different lengths; the file is damaged")
        if len(self.roots) and (self.roots.min() < 0 or self.roots.max() >= count):
            raise ValueError("trees: a root lies outside the arrays; the file is damaged")

    def __call__(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of all trees for rows ``[n, features]``: ``[n]``."""
        if len(self.feature) and rows.shape[1] <= self.feature.max():
            raise ValueError(f"trees: {rows.shape[1]} features were given, feature {self.feature.max()} is needed")
        return _summed(
            np.ascontiguousarray(rows, np.float64),
            self.roots, self.feature, self.threshold, self.left, self.right, self.value,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _summed(
    rows: NDArray[np.float64],
    roots: NDArray[np.int32],
    feature: NDArray[np.int32],
    threshold: NDArray[np.float64],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    value: NDArray[np.float64],
) -> NDArray[np.float64]:
    sums = np.zeros(len(rows))
    for n in range(len(rows)):
        for root in roots:
            node = root
            while feature[node] >= 0:
                node = left[node] if rows[n, feature[node]] <= threshold[node] else right[node]
            sums[n] += value[node]
    return sums
