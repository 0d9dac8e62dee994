"""The same place in other exposures of the field: what stands still is told from what moves.

Two thirds of the impostors in a single frame are stars and galaxies, and they stand where they are. Each candidate's
line is laid on the same place of the sky in the other exposures, and its flux there is measured at that very place
(``detector.forcing.forced_flux``): what stands still has it again, what moves has gone. The two hypotheses give a
ratio of likelihoods, and the ratio moves the candidate's odds. Only photometry is asked for, no subtraction of images:
an undersampled PSF and a half-known WCS do not hurt it much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from detector.astrometry import to_pixels, to_sky
from detector.forcing import forced_flux

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from detector.frame import FrameHeader
    from detector.preparation import Prepared
    from detector.streakcandidates import Candidates

# The share of impostors that stand still (facts of simulated Euclid frames: two thirds of the first hundred a frame).
STANDING_SHARE = 0.67
# What the WCS, the PSF and a resampled place cost: the fluxes of two exposures agree to this part of the flux.
FLUX_AGREEMENT = 0.25
# Nothing is surer than this, in natural logarithms of odds.
SUREST = 12.0
# Two frames whose headers point at one place show it only if this share of the bright sources of the one is in the
# other, within so many pixels; fewer sources than so many prove nothing against it.
SHARED_SOURCES, SHARED_PX, FEWEST_SOURCES = 0.4, 4.0, 5


def same_sky(one: Prepared, other: Prepared) -> bool:
    """Whether two frames show one sky where their WCS say so: their bright sources are at the same places.

    A header may point anywhere: frames of a simulator, or of a telescope that lost its way, all at one place.
    """
    if one.header.wcs is None or other.header.wcs is None:
        return False
    sources, others = one.sources, other.sources
    if len(sources) < FEWEST_SOURCES:
        return True
    x, y = to_pixels(other.header.wcs, *to_sky(one.header.wcs, sources[:, 0], sources[:, 1]))
    height, width = other.header.shape
    shown = (x > 0) & (y > 0) & (x < width - 1) & (y < height - 1)
    if shown.sum() < FEWEST_SOURCES:
        return True
    if not len(others):
        return False
    apart, _ = cKDTree(others[:, :2]).query(np.column_stack([x, y])[shown])
    return float((apart < SHARED_PX).mean()) >= SHARED_SOURCES


def moved(found: Candidates, header: FrameHeader, others: Sequence[Prepared]) -> NDArray[np.float64]:
    """Give the natural logarithm of the likelihood of "moves" over "stands still" of each candidate ``[n]``.

    0 where no other exposure shows the place, or where a frame has no WCS.
    """
    ends = found.fits.ends
    shift = np.zeros(len(ends))
    if header.wcs is None or not len(ends):
        return shift
    x, y = np.concatenate([ends[:, 0], ends[:, 2]]), np.concatenate([ends[:, 1], ends[:, 3]])
    ra, dec = to_sky(header.wcs, x, y)
    flux_e = found.fits.flux * found.noise_e
    own_sigma = np.sqrt(np.maximum(found.fits.covariance[:, 4, 4], 0.0)) * found.noise_e
    weight, weighted = np.zeros(len(ends)), np.zeros(len(ends))
    for other in others:
        if other.header.wcs is None:
            continue
        there = to_pixels(other.header.wcs, ra, dec)
        lines = np.column_stack([there[0].reshape(2, -1).T, there[1].reshape(2, -1).T])[:, [0, 2, 1, 3]]
        noise_e = other.noise_at(lines)
        flux, sigma = forced_flux(other.padded, other.margin, lines, other.psf)
        brighter = relative_response(header, other.header)
        seen = np.isfinite(flux) & np.isfinite(sigma) & (sigma > 0)
        error = np.where(seen, sigma, np.inf) * noise_e * brighter
        weight += 1.0 / error**2
        weighted += np.where(seen, flux, 0.0) * noise_e * brighter / error**2
    known = (weight > 0) & np.isfinite(flux_e) & (flux_e > 0)
    there_e = weighted[known] / weight[known]
    sigma_there = 1.0 / np.sqrt(weight[known])
    standing_sigma = np.sqrt(sigma_there**2 + own_sigma[known] ** 2 + (FLUX_AGREEMENT * flux_e[known]) ** 2)
    still = -0.5 * ((there_e - flux_e[known]) / standing_sigma) ** 2 - np.log(standing_sigma)
    # Something else may lie where a moving object was: brighter than the candidate is not against motion.
    gone = -0.5 * (np.minimum(there_e, 3.0 * flux_e[known]) / sigma_there) ** 2 - np.log(sigma_there)
    shift[known] = np.clip(gone - still, -SUREST, SUREST)
    return shift


def with_others(probability: NDArray[np.float64], moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the probabilities that a single exposure gave, once ``moves`` is known: Bayes with a share of standing ones.

    The impostors are of two kinds, standing (``STANDING_SHARE``) and not; the evidence of other exposures speaks of the
    first kind alone.
    """
    against = STANDING_SHARE * np.exp(-moves) + (1.0 - STANDING_SHARE)
    return np.asarray(probability / (probability + (1.0 - probability) * against))


def relative_response(header: FrameHeader, other: FrameHeader) -> float:
    """Electrons in the frame of ``header`` for each electron that the same source gives in ``other``."""
    factor = (header.exposure_s or 1.0) / (other.exposure_s or header.exposure_s or 1.0)
    if header.zero_point is not None and other.zero_point is not None:
        factor *= 10.0 ** (0.4 * (header.zero_point - other.zero_point))
    return factor
