"""The point spread function of a frame, from its own stars.

The fit of a streak needs the width of the line, and a profile's seeing is a guess. Stars have to be told from what
looks like them: an undersampled frame holds ten thousand cosmic rays, sharper than any star, and galaxies wider than
all. Stars are what has one size at every brightness. At night a frame may show too few (a dark cloud, a small cut-out,
stars trailed by the telescope itself): then ``n_stars`` is 0 and the profile's width stands, and the rows of the frame
are flagged so.

Method: adaptive Gaussian-weighted second moments (Bernstein & Jarvis 2002, AJ 123, 583, section 3) of each isolated
maximum; the densest place of the distribution of sizes; the chosen stars' pixels stacked in radius about sub-pixel
centres; circular Gaussians through the stack by non-negative least squares. What these miss (rings, ellipticity, coma,
spikes, faint wings with several per cent of the light) comes from a second fit to all pixels of the stars: Gaussians
times the polynomials of the first angular orders, their coefficients held small where the stars do not say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAUSSIAN_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # of one sigma
SAMPLES_PER_FWHM = 8.0  # of the image: a cubic spline through a Gaussian is then good to 1e-4 of its peak


@dataclass(frozen=True, eq=False)
class Psf:
    """The effective PSF, the pixel included, as a sum of circular Gaussians.

    ``sigmas`` [k] in pixels and ``weights`` [k], which add up to 1: a star of flux 1 has
    ``sum(weights / (2 pi sigmas**2) * exp(-r**2 / (2 sigmas**2)))`` in the pixel at distance ``r``, nearly.
    ``fwhm_px`` is its width; ``n_stars`` the number of stars measured, 0 when the width is somebody's guess.

    Stars are not round: where there were enough of them, ``image`` ``[n, n]`` (n odd, the source in the middle, y up
    the rows) is what they really look like: the light in a pixel whose centre is so far from the source, every
    ``image_step_px`` pixels. ``model_error`` is what a star's pixel scatters about it beyond the noise, relative.
    """

    sigmas: NDArray[np.float64]
    weights: NDArray[np.float64]
    fwhm_px: float
    n_stars: int
    image: NDArray[np.float64] | None = None
    image_step_px: float = 1.0
    model_error: float = 0.0

    def sampled(self) -> tuple[NDArray[np.float64], float]:
        """The PSF on a square grid about the source, ``[n, n]`` of odd n, and the pixels from one sample to the next.

        Where there is no ``image`` it is drawn from the Gaussians, eight samples a FWHM out to five.
        """
        if self.image is not None:
            return self.image, self.image_step_px
        step = self.fwhm_px / SAMPLES_PER_FWHM
        axis = step * np.arange(-5 * int(SAMPLES_PER_FWHM), 5 * int(SAMPLES_PER_FWHM) + 1)
        square = (axis[:, None] ** 2 + axis[None, :] ** 2)[..., None] / self.sigmas**2
        drawn: NDArray[np.float64] = np.exp(-0.5 * square) @ (self.weights / (2.0 * np.pi * self.sigmas**2))
        return drawn, step

    @classmethod
    def gaussian(cls, fwhm_px: float) -> Psf:
        """A single Gaussian of that width, measured on no star."""
        return cls(np.array([fwhm_px / GAUSSIAN_FWHM]), np.ones(1), fwhm_px, 0)


def fwhm_of(sigmas: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Full width in pixels at half the maximum of the sum of Gaussians, by bisection."""
    heights = weights / sigmas**2
    low, high = 0.0, 3.0 * float(sigmas.max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = float(np.sum(heights * np.exp(-0.5 * (middle / sigmas) ** 2))) > 0.5 * float(heights.sum())
        low, high = (middle, high) if above else (low, middle)
    return 2.0 * low
