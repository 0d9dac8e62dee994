"""How a survey shows an object: its optics, pixels, noise and cosmic rays, for canvases a little larger than a stamp.

A scene is painted without noise on a grid finer than the pixels; here it goes through the PSF of a drawn frame, gets
the noise of one exposure or of a stack, and leaves in units of the sky's sigma, as ``detector.sky`` hands frames to the
networks. All classes go through this one door: whatever it did to one class alone would be learned instead of shapes.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

from detector.centring import centred
from models.simulate.asteroids import add_trails
from models.simulate.conditions import draw_conditions
from models.simulate.cosmicrays import add_cosmic_rays
from models.simulate.psf import point_spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.simulate.asteroids import Kernel
    from models.simulate.conditions import Conditions
    from models.simulate.psf import PointSpread

STAMP_PX = 64
# Around the stamp: room for centring (6 px) and for its random offset.
MARGIN_PX = 10
# A stamp's object lies this far from its middle at the most, along either axis, whatever its class.
OFFSET_PX = 2
# How far the wings of stars reach.
WINGS_PX = 96
# Grid points a pixel, so that the PSF is sampled at least three times in its width.
OVERSAMPLING = 2
# The share of single exposures that come with the instrument's own mask of cosmic rays, and of stacks whose pixels
# were interpolated, and how much of a neighbour a pixel then holds.
FLAGGED_SHARE = 0.3
FLAGGED_SIGMA = 1.5
RESAMPLED_SHARE = 0.4
RESAMPLED = (0.02, 0.14)
# Of a stack's cosmic rays this share is left.
SURVIVING_RAYS = 0.01


@dataclass(frozen=True, eq=False)
class View:
    """A survey's frame as it was for some stamps. ``side_px`` is the canvas in native pixels.

    A grid has ``oversampling`` points a native pixel; ``transform`` is the PSF's on that grid. ``binning`` native
    pixels along each axis make a pixel of the stamp.
    """

    conditions: Conditions
    spread: PointSpread
    binning: int
    oversampling: int
    side_px: int
    transform: NDArray[np.complex64]

    @property
    def points(self) -> int:
        """Grid points along a side of the canvas."""
        return self.side_px * self.oversampling

    @property
    def points_per_arcsec(self) -> float:
        """Grid points in an arcsecond."""
        return self.oversampling / self.conditions.pixel_scale_arcsec

    @property
    def middle(self) -> float:
        """The canvas's middle in grid points, the same along both axes."""
        return 0.5 * (self.points - 1)

    @property
    def fwhm_arcsec(self) -> float:
        """Width of the effective PSF."""
        return self.spread.core.fwhm_px * self.conditions.pixel_scale_arcsec

    def native(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places in grid points as places in native pixels."""
        return (place - 0.5 * (self.oversampling - 1)) / self.oversampling


@lru_cache(maxsize=24)
def draw_view(survey: str, binning: int, seed: int, group: int) -> View:
    """The view shared by one group of stamps of a seed."""
    rng = np.random.default_rng([seed, group, zlib.crc32(survey.encode())])
    conditions = draw_conditions(rng, survey)
    spread = point_spread(conditions.optics, extent_px=WINGS_PX)
    return make_view(conditions, spread, binning, OVERSAMPLING // binning, (STAMP_PX + 2 * MARGIN_PX) * binning)


def make_view(conditions: Conditions, spread: PointSpread, binning: int, oversampling: int, side_px: int) -> View:
    """A view with the transform of its PSF."""
    transform = _transform(spread.core, oversampling, side_px * oversampling)
    return View(conditions, spread, binning, oversampling, side_px, transform)


def _transform(kernel: Kernel, oversampling: int, points: int) -> NDArray[np.complex64]:
    """The kernel's transform on a grid: pixel p of the image is point ``oversampling * p + oversampling // 2`` of it.

    For an even oversampling no point lies in the middle of a pixel: the half point goes into the kernel.
    """
    offsets = np.arange(points) - points // 2
    place = (offsets - oversampling // 2 + 0.5 * (oversampling - 1)) / oversampling
    at = place * kernel.oversampling + kernel.values.shape[0] // 2
    rows, columns = np.meshgrid(at, at, indexing="ij")
    sampled = ndimage.map_coordinates(kernel.values.astype(np.float64), [rows, columns], order=1, cval=0.0)
    sampled *= oversampling**2 / sampled.sum()
    return np.asarray(fft.rfft2(fft.ifftshift(sampled)), np.complex64)


def seen(view: View, light: NDArray[np.float32]) -> NDArray[np.float32]:
    """The light ``[points, points]`` (electrons a point) through the optics: electrons a native pixel."""
    through = fft.irfft2(fft.rfft2(light) * view.transform, s=light.shape)
    first = view.oversampling // 2
    return np.asarray(through[first :: view.oversampling, first :: view.oversampling], np.float32)


def with_stars(view: View, image: NDArray[np.float32], stars: NDArray[np.float64]) -> NDArray[np.float32]:
    """The image ``[side, side]`` and stars ``[n, 3]`` (x, y in native pixels, electrons) with their wings."""
    if not len(stars):
        return image
    out = image.copy()
    points = np.column_stack([stars[:, :2], stars])
    points[:, 4] *= 1.0 - view.spread.wing_share
    add_trails(out, points, view.spread.core)
    points[:, 4] = stars[:, 2]
    add_trails(out, points, view.spread.wings)
    return out


def exposed(
    view: View, electrons: NDArray[np.float32], exposures: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A stack of ``exposures`` of the image (electrons of one, without its sky), in sigma of the stack's sky.

    Native pixels ``[side, side]``, NaN where masked. Cosmic rays are in single exposures only: stacking rejects them.
    """
    conditions = view.conditions
    noise = conditions.noise_e / math.sqrt(exposures)
    scatter = np.sqrt(1.0 + np.maximum(electrons, 0.0) / np.float32(conditions.noise_e**2))
    level = (np.minimum(electrons, conditions.saturation_e) / noise).astype(np.float32)
    level += (scatter * rng.standard_normal(electrons.shape, np.float32)).astype(np.float32)
    # What the mesh of the sky leaves.
    level += np.float32(0.05 * rng.standard_normal())
    charge = np.zeros_like(electrons)
    count = conditions.rays_per_mpx * electrons.size * 1e-6
    single = exposures == 1
    add_cosmic_rays(
        charge,
        count * (1.0 if single else SURVIVING_RAYS * exposures),
        int(rng.integers(1 << 31)),
        rays=conditions.rays,
    )
    level += charge / np.float32(noise * (1.0 if single else exposures))
    if not single and rng.random() < RESAMPLED_SHARE:
        level = _resampled(level, rng.uniform(*RESAMPLED))
    if single and rng.random() < FLAGGED_SHARE:
        level[charge > FLAGGED_SIGMA * conditions.noise_e] = np.nan
    return level


def _resampled(level: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The image with a share of each neighbour along either axis in every pixel, in units of its new noise."""
    kernel = np.array([share, 1.0 - 2.0 * share, share], np.float32)
    mixed = ndimage.convolve1d(
        ndimage.convolve1d(level, kernel, axis=0, mode="nearest"), kernel, axis=1, mode="nearest"
    )
    return np.asarray(mixed / np.float32((kernel**2).sum()), np.float32)


def binned(level: NDArray[np.float32], binning: int) -> NDArray[np.float32]:
    """Whitened pixels binned as ``whitening.binned`` does: the sum of the valid ones over the root of their number."""
    if binning == 1:
        return level
    side = level.shape[0] // binning
    blocks = level.reshape(side, binning, side, binning)
    valid = np.isfinite(blocks)
    count = valid.sum(axis=(1, 3), dtype=np.float32)
    total = np.where(valid, blocks, np.float32(0.0)).sum(axis=(1, 3), dtype=np.float32)
    enough = count >= 0.75 * binning**2
    return np.where(enough, total / np.sqrt(np.maximum(count, 1.0)), np.float32(np.nan)).astype(np.float32)


def stamp_of(canvas: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The stamp ``[64, 64]`` cut from a whitened canvas about the peak of its smoothed light, with a random offset."""
    middle = 0.5 * (canvas.shape[0] - 1)
    x, y = centred(canvas, middle + rng.uniform(-1.0, 1.0), middle + rng.uniform(-1.0, 1.0))
    dx, dy = rng.integers(-OFFSET_PX, OFFSET_PX + 1, 2)
    left, top = x + int(dx) - STAMP_PX // 2, y + int(dy) - STAMP_PX // 2
    return canvas[top : top + STAMP_PX, left : left + STAMP_PX]
