"""Lines of the detector itself: along its rows or columns, and running to its border.

Hot columns, steps between amplifiers, the glow along an edge, charge that bled: what is too soft or too faint for
``detector.defects`` is still a perfect streak. It gives itself away by its direction, that of the pixels to within a
pixel from end to end, in which few trails of the sky lie; and it goes on to the border. A satellite that happens to
fly so is doubted too: it stays in the table, flagged, with a lower score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Along the grid: no more than this across, from end to end (a faint line is fitted to half a pixel at each).
ACROSS_PX = 1.5
# Shorter ones lie so by chance too often: an asteroid of 40 px in one of 20.
LEAST_LENGTH_PX = 40.0
# In raw frames the detector's own lines that reach the border are more common than trails that do, by at least so much.
MORE_COMMON = 10.0
# The least that is left of the odds.
LEAST_ODDS = 1e-4


def along_the_grid(ends: NDArray[np.float64], reaching: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each line ``[n, 4]`` runs along rows or columns; ``reaching`` ``[n]`` says which run to the border."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(ends[:, 2:] - ends[:, :2])
        return np.asarray(reaching & (apart.max(axis=1) >= LEAST_LENGTH_PX) & (apart.min(axis=1) <= ACROSS_PX))


def grid_doubted(
    score: NDArray[np.float64],
    aligned: NDArray[np.bool_],
    ends: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Probabilities ``[n]`` with the odds of what is ``aligned`` taken down, by how seldom the sky's trails are."""
    length = np.maximum(np.nan_to_num(np.abs(ends[:, 2:] - ends[:, :2]).max(axis=1)), LEAST_LENGTH_PX)
    # Four directions out of the circle, each as wide as what is allowed across.
    odds = np.maximum(4.0 * ACROSS_PX / (np.pi * length) / MORE_COMMON, LEAST_ODDS)
    return np.where(aligned, odds * score / (odds * score + 1.0 - score), score)
