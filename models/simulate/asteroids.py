"""Trails of moving objects, drawn exactly: what the truth of every simulation rests on.

A trail is a line of even brightness convolved with the effective PSF (optics, jitter *and* pixel), so it is smooth
where a cosmic ray is sharp. If end points were drawn half a pixel off here, every network and every fit trained or
judged on it would be off by as much, and nothing downstream could notice: hence the twin in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, hypot
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sub-sources a pixel of trail: the mid-point rule errs by h^2/24 of the PSF's slope at the two ends, 0.5 % for h = 1/3.
SOURCES_PER_PX = 3.0
# A source ends where it would add less than this to any pixel: a hundredth of the quietest read noise.
FAINTEST_E = 0.01


@dataclass(frozen=True, eq=False)
class Kernel:
    """An effective PSF: the share of a source's light in a pixel, as a function of the pixel's offset from the source.

    ``values`` is float32 ``[n, n]``, n odd, sampled ``oversampling`` times a pixel, the source in the middle sample;
    its sum is ``oversampling ** 2``, so that the pixels of one source sum to 1. ``fwhm_px`` includes the pixel.
    """

    values: NDArray[np.float32]
    oversampling: int
    fwhm_px: float

    @cached_property
    def phases(self) -> NDArray[np.float32]:
        """``values`` re-ordered as ``[o, o, k, k]``: for each place of the source in its pixel, the k x k pixels.

        Entry ``[q, p, r + j, r + i]`` is the kernel ``j + q / o`` rows and ``i + p / o`` columns from the source.
        """
        o = self.oversampling
        half = self.values.shape[0] // 2
        radius = half // o + 1
        padded = np.zeros((2 * radius * o + o,) * 2, np.float32)
        begin = radius * o - half
        padded[begin : begin + self.values.shape[0], begin : begin + self.values.shape[0]] = self.values
        k = 2 * radius + 1
        return np.ascontiguousarray(padded.reshape(k, o, k, o).transpose(1, 3, 0, 2))

    @cached_property
    def envelope(self) -> NDArray[np.float32]:
        """Float32 ``[radius + 2]``: entry r is the largest value of ``values`` at least r pixels off in x or in y."""
        half = self.values.shape[0] // 2
        offsets = np.abs(np.arange(-half, half + 1)) // self.oversampling
        rings = np.maximum(offsets[:, None], offsets[None, :])
        largest = np.zeros(half // self.oversampling + 2, np.float32)
        np.maximum.at(largest, rings.ravel(), np.abs(self.values).ravel())
        return np.maximum.accumulate(largest[::-1])[::-1].copy()


def add_trails(image: NDArray[np.float32], trails: NDArray[np.float64], kernel: Kernel) -> None:
    """Each trail's light added to ``image`` in place, which the caller must own.

    ``image`` is float32 ``[h, w]`` in electrons; ``trails`` float64 ``[n, 5]`` of x0, y0, x1, y1 (pixels) and flux
    (electrons, negative ones subtract). Coinciding ends make a point source; what falls outside the image is dropped.
    """
    _add_trails(image, np.ascontiguousarray(trails, dtype=np.float64), kernel.phases, kernel.envelope)


@njit(cache=True, nogil=True)
def _add_trails(
    image: NDArray[np.float32],
    trails: NDArray[np.float64],
    phases: NDArray[np.float32],
    envelope: NDArray[np.float32],
) -> None:
    for k in range(trails.shape[0]):
        x0, y0, x1, y1, flux = trails[k, 0], trails[k, 1], trails[k, 2], trails[k, 3], trails[k, 4]
        n = max(1, ceil(hypot(x1 - x0, y1 - y0) * SOURCES_PER_PX))
        # The light that reaches a pixel r px away comes from some 2 r px of the trail, not from all of it.
        reach = 0
        while (
            reach < envelope.shape[0]
            and envelope[reach] * abs(flux) * min(1.0, SOURCES_PER_PX * (2 * reach + 2) / n) > FAINTEST_E
        ):
            reach += 1
        for m in range(n):
            t = (m + 0.5) / n
            _add_point(image, x0 + t * (x1 - x0), y0 + t * (y1 - y0), flux / n, phases, reach)


@njit(cache=True, nogil=True)
def _add_point(
    image: NDArray[np.float32], x: float, y: float, flux: float, phases: NDArray[np.float32], reach: int
) -> None:
    """A point source, the kernel interpolated bilinearly between its samples."""
    o = phases.shape[0]
    cx, cy = floor(x), floor(y)
    # The pixel (cx, cy) lies (cx - x) from the source, between -1 and 0: in samples from a full pixel to the left.
    sx, sy = (cx - x + 1.0) * o, (cy - y + 1.0) * o
    px, py = floor(sx), floor(sy)
    fx, fy = sx - px, sy - py
    for corner in range(4):
        qx, qy = px + corner % 2, py + corner // 2
        weight = flux * (fx if corner % 2 else 1.0 - fx) * (fy if corner // 2 else 1.0 - fy)
        if weight != 0.0:
            # Sample q of the pixel cx + i is at i - 1 + q / o from the source: whole pixels, and a phase.
            _add_stamp(image, cx + 1 - qx // o, cy + 1 - qy // o, weight, phases[qy % o, qx % o], reach)


@njit(cache=True, nogil=True)
def add_nearest(
    image: NDArray[np.float32], x: float, y: float, flux: float, phases: NDArray[np.float32], reach: int
) -> None:
    """A point source moved to the nearest sample of the kernel: for sources of which many make up a smooth one."""
    o = phases.shape[0]
    cx, cy = floor(x), floor(y)
    qx, qy = floor((cx - x + 1.0) * o + 0.5), floor((cy - y + 1.0) * o + 0.5)
    _add_stamp(image, cx + 1 - qx // o, cy + 1 - qy // o, flux, phases[qy % o, qx % o], reach)


@njit(cache=True, nogil=True)
def _add_stamp(image: NDArray[np.float32], x: int, y: int, flux: float, stamp: NDArray[np.float32], reach: int) -> None:
    """The ``stamp`` times ``flux`` about the pixel (x, y), out to ``reach`` pixels and within the image."""
    height, width = image.shape
    radius = stamp.shape[0] // 2
    reach = min(reach, radius)
    i_from, i_to = max(-reach, -x), min(reach, width - 1 - x)
    j_from, j_to = max(-reach, -y), min(reach, height - 1 - y)
    scale = np.float32(flux)
    for j in range(j_from, j_to + 1):
        row = image[y + j]
        values = stamp[radius + j]
        for i in range(i_from, i_to + 1):
            row[x + i] += scale * values[radius + i]
