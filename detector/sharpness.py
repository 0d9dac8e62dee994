"""What is sharper than the PSF: cosmic rays, hot pixels, and whatever else did not come through the optics.

No image of the sky, however bright and however shaped, falls off faster from one pixel to the next than the PSF does.
For a Gaussian the mean of two opposite neighbours is at least exp(-1 / (2 sigma^2)) of the pixel between them, whatever
positive light is blurred, for it is a mean of hyperbolic cosines over that light; for a sum of Gaussians the share is
least at the middle of a point. The same holds for a pair of pixels and what lies beside it. At night an undersampled
frame (FWHM below 1.5 px) leaves little to tell by, and few cosmic rays are found; nothing else is lost.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.psf import Psf

# The bound is the PSF's own ratio times this, for what the fitted Gaussians leave out; and so many sigma beyond it are
# a cosmic ray.
TOLERANCE = 0.75
EXCESS_SIGMA = 4.0
PEAK_SIGMA = 5.0
GROWTH_SIGMA = 2.5  # neighbours of a cosmic ray's pixels that are brighter belong to it
GROWTHS = 2


def sharp_pixels(frame: NDArray[np.float32], psf: Psf) -> NDArray[np.bool_]:
    """Pixels [h, w] of a whitened ``frame`` that are sharper than the PSF, and their bright neighbours."""
    sharp = np.zeros(frame.shape, np.bool_)
    _sharp(frame, sharpness_bounds(psf), sharp)
    for _ in range(GROWTHS):
        grown = sharp.copy()
        _grow(frame, sharp, grown)
        sharp = grown
    return sharp


def sharpness_bounds(psf: Psf) -> NDArray[np.float32]:
    """The least share that the neighbours have of a pixel [0], and of a pair of pixels [1]; along a diagonal [2, 3]."""

    def at(r: float) -> float:
        return float(np.sum(psf.weights / psf.sigmas**2 * np.exp(-0.5 * (r / psf.sigmas) ** 2)))

    root = math.sqrt(2.0)
    bounds = [at(1.0) / at(0.0), at(1.5) / at(0.5), at(root) / at(0.0), at(1.5 * root) / at(0.5 * root)]
    return (TOLERANCE * np.array(bounds)).astype(np.float32)


@njit(cache=True, parallel=True)
def _sharp(frame: NDArray[np.float32], bounds: NDArray[np.float32], sharp: NDArray[np.bool_]) -> None:
    """Mark pixels that outshine their neighbours on two opposite sides by more than the PSF allows."""
    height, width = frame.shape
    for y in prange(height):
        for x in range(width):
            peak = frame[y, x]
            if not peak > PEAK_SIGMA:
                continue
            for k in range(4):
                dx, dy = (1, 0, 1, 1)[k], (0, 1, 1, -1)[k]
                diagonal = 2 if k >= 2 else 0
                # Alone, then as a pair with the next pixel on either side.
                for pair in range(3):
                    total, expected, variance = peak, bounds[diagonal], np.float32(0.5)
                    ax, ay, bx, by = x - dx, y - dy, x + dx, y + dy
                    if pair > 0:
                        expected = bounds[diagonal + 1]
                        sx, sy = (dx, dy) if pair == 1 else (-dx, -dy)
                        mx, my = x + sx, y + sy
                        if mx < 0 or my < 0 or mx >= width or my >= height or not frame[my, mx] > 0.5 * peak:
                            continue
                        total = 0.5 * (peak + frame[my, mx])
                        ax, ay, bx, by = x - sx, y - sy, x + 2 * sx, y + 2 * sy
                    if min(ax, ay, bx, by) < 0 or max(ax, bx) >= width or max(ay, by) >= height:
                        continue
                    beside = 0.5 * (frame[ay, ax] + frame[by, bx])
                    excess = expected * total - beside
                    # The photons' own noise: at least 5 e- to a sigma of the sky.
                    variance = (0.5 + expected * expected) * (1.0 + 0.2 * expected * total)
                    if excess > EXCESS_SIGMA * math.sqrt(variance):
                        sharp[y, x] = True


@njit(cache=True, parallel=True)
def _grow(frame: NDArray[np.float32], sharp: NDArray[np.bool_], grown: NDArray[np.bool_]) -> None:
    """Add the bright neighbours of marked pixels."""
    height, width = frame.shape
    for y in prange(height):
        for x in range(width):
            if sharp[y, x] or not frame[y, x] > GROWTH_SIGMA:
                continue
            for i in range(max(y - 1, 0), min(y + 2, height)):
                for j in range(max(x - 1, 0), min(x + 2, width)):
                    if sharp[i, j]:
                        grown[y, x] = True
