"""Somebody's stamp of an object, made what the networks of lenses and mergers look at.

A stamp has no sky around it to speak of: its level and noise are those of its border, clipped, so that the object in
the middle does not count. Pixels of another size than the networks know are interpolated first, and the noise is
measured after that, for interpolation changes it. What fails: a stamp that its object fills has no border of sky, and
its noise comes out too large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from detector.candidates import cut_stamps
from detector.centring import centred

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The pixels that each class's networks have seen (smallest, largest, arcsec), and those that others are brought to.
KNOWN_ARCSEC = {"lenses": (0.085, 0.26), "mergers": (0.125, 0.32)}
# The narrowest PSF that the networks have seen (Euclid VIS), full width at half maximum.
NARROWEST_ARCSEC = 0.17
# The share of a side that is border.
BORDER = 0.12
CLIPS, CLIP_SIGMA = 8, 2.5


def prepared_stamp(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    pixel_scale_arcsec: float,
    name: str,
    *,
    fwhm_arcsec: float | None = None,
) -> tuple[NDArray[np.float32], float, float]:
    """The stamp ``[64, 64]`` in sigmas of its sky for the class ``name``, and x, y of its middle in the pixels given.

    ``fwhm_arcsec`` is the PSF's width where it is known: one narrower than any that was trained with is widened. No
    noise is added. ``pixels`` ``[h, w]`` in any unit; those with a ``mask`` are NaN in what is given back.
    """
    smallest, largest = KNOWN_ARCSEC[name]
    if fwhm_arcsec is not None and fwhm_arcsec < NARROWEST_ARCSEC:
        sigma = np.sqrt(NARROWEST_ARCSEC**2 - fwhm_arcsec**2) / 2.355
        pixels = widened(pixels, sigma / pixel_scale_arcsec)
    wanted = min(max(pixel_scale_arcsec, smallest), largest)
    clean = np.where(mask == 0, pixels, np.float32(np.nan)).astype(np.float32)
    factor = wanted / pixel_scale_arcsec
    image = whitened(clean if abs(factor - 1.0) < 1e-6 else resampled(clean, factor))
    height, width = image.shape
    place = centred(image, 0.5 * (width - 1), 0.5 * (height - 1))
    x, y = ((index + 0.5) * factor - 0.5 for index in place)
    return cut_stamps(image, [place])[0], x, y


def whitened(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image less the level of its border, in units of the border's scatter; both clipped."""
    level, sigma = border_level(image)
    if np.isnan(level):
        return np.full(image.shape, np.nan, np.float32)
    return ((image - level) / (sigma if sigma > 0 else 1.0)).astype(np.float32)


def border_level(image: NDArray[np.float32]) -> tuple[float, float]:
    """The level of an image's border and its scatter, both clipped; NaN and 0 where all of it is masked."""
    height, width = image.shape
    rim = max(1, round(BORDER * min(height, width)))
    border = np.ones(image.shape, np.bool_)
    border[rim : height - rim, rim : width - rim] = False
    values = image[border & np.isfinite(image)].astype(np.float64)
    if values.size == 0:
        return float("nan"), 0.0
    level, sigma = float(np.median(values)), 0.0
    for _ in range(CLIPS):
        sigma = 1.4826 * float(np.median(np.abs(values - level)))
        kept = values[np.abs(values - level) <= CLIP_SIGMA * sigma] if sigma > 0 else values
        if len(kept) == len(values):
            break
        values, level = kept, float(np.median(kept))
    return level, sigma


def widened(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """The image through a Gaussian; pixels that are NaN lend nothing to their neighbours and stay NaN."""
    seen = np.isfinite(image)
    value = ndimage.gaussian_filter(np.where(seen, image, 0.0).astype(np.float64), sigma_px, mode="nearest")
    weight = ndimage.gaussian_filter(seen.astype(np.float64), sigma_px, mode="nearest")
    return np.where(seen, value / np.maximum(weight, 1e-12), np.nan).astype(np.float32)


def resampled(image: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """The image with pixels ``factor`` times as large: smoothed to them where they are larger, then interpolated."""
    masked = ~np.isfinite(image)
    value = np.where(masked, np.nanmedian(image) if not masked.all() else 0.0, image).astype(np.float64)
    if factor > 1.0:
        # A square pixel's spread: a twelfth of its side squared.
        value = ndimage.gaussian_filter(value, np.sqrt((factor**2 - 1.0) / 12.0))
    height, width = (max(1, round(side / factor)) for side in image.shape)
    rows, columns = ((np.arange(side) + 0.5) * factor - 0.5 for side in (height, width))
    at = np.meshgrid(rows, columns, indexing="ij")
    out = ndimage.map_coordinates(value, at, order=1, mode="nearest")
    gone = ndimage.map_coordinates(masked.astype(np.float64), at, order=1, mode="nearest") > 0.5
    return np.where(gone, np.nan, out).astype(np.float32)
