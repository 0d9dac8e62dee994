"""The network slid over a whole frame, as it is and binned: every window above the floor, in frame pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from detector.proposals import Proposals, concatenated
from detector.tiling import Tiling, pad, strips, unpadded
from detector.whitening import binned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from detector.streaknetwork import StreakNetwork

# The frame is searched as it is and binned 2 x 2 and 4 x 4: a window of 96 px then spans 384.
SCALES = (1, 2, 4)
# Rows of windows in one strip: 32 rows of a 4096 px frame are 1.4 Mpx.
STRIP_ROWS = 32
# Windows below this are not looked at again: a thousandth of the odds of an even chance.
FLOOR_LOGIT = -7.0
MAX_WINDOWS_PER_FRAME = 60_000


def propose(
    padded: NDArray[np.float32],
    shape: tuple[int, int],
    network: StreakNetwork,
    fwhm_px: float,
) -> Proposals:
    """Every window above the floor, of all scales, in frame pixels; the best ``MAX_WINDOWS_PER_FRAME``."""
    tiling = Tiling(network.window, network.step)
    tables = []
    for scale in SCALES:
        if scale > 1:
            smaller = binned(unpadded(padded, shape, tiling))
            shape = (smaller.shape[0], smaller.shape[1])
            if min(shape) < tiling.step:
                break
            padded = pad(smaller, tiling)
        tables += list(propose_at_scale(padded, tiling, network, fwhm_px, scale))
    found = concatenated(tables)
    if len(found) > MAX_WINDOWS_PER_FRAME:
        found = found.take(np.argpartition(-found.logit, MAX_WINDOWS_PER_FRAME)[:MAX_WINDOWS_PER_FRAME])
    return found


def propose_at_scale(
    padded: NDArray[np.float32],
    tiling: Tiling,
    network: StreakNetwork,
    fwhm_px: float,
    scale: int,
) -> Iterator[Proposals]:
    """The windows above the floor, strip by strip, of a frame binned ``scale`` x ``scale``."""
    for first_row, strip in strips(padded, tiling, STRIP_ROWS):
        output = network(strip, fwhm_px / scale)
        rows, cols = np.nonzero(output[..., 0] > FLOOR_LOGIT)
        ends = output[rows, cols, 1:].astype(np.float64)
        # Window pixels -> pixels of the binned frame -> pixels of the frame: a binned pixel's centre lies between.
        ends[:, [0, 2]] += (tiling.step * cols - tiling.margin)[:, None]
        ends[:, [1, 3]] += (tiling.step * (first_row + rows) - tiling.margin)[:, None]
        ends = ends * scale + 0.5 * (scale - 1)
        count = len(rows)
        yield Proposals(
            ends,
            output[rows, cols, 0].astype(np.float64),
            np.full(count, float(scale)),
            np.ones(count, np.int64),
        )
