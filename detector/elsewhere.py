"""The same place in other exposures of the field: what stands still is told from what moves.

Two thirds of the impostors in a single frame are stars and galaxies, and they stand where they are. Each candidate's
line is laid on the same place of the sky in the other exposures, and its flux there is measured at that very place
(``detector.forcing.forced_flux``): what stands still has it again, what moves has gone. Only photometry is asked for,
no subtraction of images: an undersampled PSF and a half-known WCS do not hurt it much. What it means is judged by trees
that were trained on whole fields (``detector.fieldevidence``); without them the two hypotheses give a ratio of
likelihoods, and the ratio moves the candidate's odds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import poisson

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
# Two frames whose headers point at one place show it if more of the bright sources of the one are in the other, within
# so many pixels, than comes by chance once in a thousand frames; and this share at least, for sources crowd together.
# Most of the sources of a space telescope's frame may be cosmic rays. Fewer than so many prove nothing against it.
SHARED_PX, SHARED_BY_CHANCE, SHARED_SOURCES, FEWEST_SOURCES = 4.0, 1e-3, 0.1, 5


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
    shared, count = int((apart < SHARED_PX).sum()), int(shown.sum())
    by_chance = count * len(others) * np.pi * SHARED_PX**2 / (height * width)
    return shared >= SHARED_SOURCES * count and bool(poisson.sf(shared - 1, by_chance) < SHARED_BY_CHANCE)


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """Candidates' light, and what is at their places in ``m`` other exposures; electrons of the candidates' frame.

    ``flux_e``, ``sigma_e`` ``[n]`` are those of the candidates' own fits; ``there_e`` ``[n, m]`` the flux of the same
    line at the same place of the sky, ``there_sigma_e`` its sigma, infinite where an exposure does not show the place.
    """

    flux_e: NDArray[np.float64]
    sigma_e: NDArray[np.float64]
    there_e: NDArray[np.float64]
    there_sigma_e: NDArray[np.float64]

    @property
    def seen(self) -> NDArray[np.int64]:
        """How many other exposures show the place of each candidate ``[n]``."""
        return np.asarray(np.isfinite(self.there_sigma_e).sum(axis=1))

    def combined(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Flux at the place in all other exposures and its sigma, each ``[n]``: 0 and infinite where none shows it."""
        weights = self.there_sigma_e**-2.0
        weight = weights.sum(axis=1)
        shown = weight > 0
        sums = (self.there_e * weights).sum(axis=1)
        flux = np.divide(sums, weight, out=np.zeros(len(weight)), where=shown)
        return flux, np.divide(1.0, np.sqrt(weight), out=np.full(len(weight), np.inf), where=shown)

    def moves(self) -> NDArray[np.float64]:
        """Give the natural logarithm of the likelihood of "moves" over "stands still" of each candidate ``[n]``.

        0 where no other exposure shows the place.
        """
        there, sigma = self.combined()
        shift = np.zeros(len(there))
        known = np.isfinite(sigma) & np.isfinite(self.flux_e) & (self.flux_e > 0)
        there_e, sigma_there, flux_e = there[known], sigma[known], self.flux_e[known]
        standing_sigma = np.sqrt(sigma_there**2 + self.sigma_e[known] ** 2 + (FLUX_AGREEMENT * flux_e) ** 2)
        still = -0.5 * ((there_e - flux_e) / standing_sigma) ** 2 - np.log(standing_sigma)
        # Something else may lie where a moving object was: brighter than the candidate is not against motion.
        gone = -0.5 * (np.minimum(there_e, 3.0 * flux_e) / sigma_there) ** 2 - np.log(sigma_there)
        shift[known] = np.clip(gone - still, -SUREST, SUREST)
        return shift


def looked_up(found: Candidates, header: FrameHeader, others: Sequence[Prepared]) -> Elsewhere:
    """Lay each candidate's line on the same place of the sky in ``others``; what has no WCS shows nothing."""
    ends = found.fits.ends
    wcs = header.wcs
    shown = [other for other in others if other.header.wcs is not None] if wcs is not None and len(ends) else []
    there_e = np.zeros((len(ends), len(shown)))
    there_sigma_e = np.full((len(ends), len(shown)), np.inf)
    if wcs is not None and shown:
        ra, dec = to_sky(wcs, np.concatenate([ends[:, 0], ends[:, 2]]), np.concatenate([ends[:, 1], ends[:, 3]]))
    for k, other in enumerate(shown):
        there = to_pixels(other.header.wcs, ra, dec)
        lines = np.column_stack([there[0].reshape(2, -1).T, there[1].reshape(2, -1).T])[:, [0, 2, 1, 3]]
        flux, sigma = forced_flux(other.padded, other.margin, lines, other.psf)
        to_e = other.noise_at(lines) * relative_response(header, other.header)
        seen = np.isfinite(flux) & np.isfinite(sigma) & (sigma > 0)
        there_e[seen, k] = (flux * to_e)[seen]
        there_sigma_e[seen, k] = (sigma * to_e)[seen]
    own_sigma = np.sqrt(np.maximum(found.fits.covariance[:, 4, 4], 0.0))
    return Elsewhere(found.fits.flux * found.noise_e, own_sigma * found.noise_e, there_e, there_sigma_e)


def with_others(probability: NDArray[np.float64], moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the probabilities that a single exposure gave, once ``moves`` is known: Bayes with a share of standing ones.

    The impostors are of two kinds, standing (``STANDING_SHARE``) and not; the evidence of other exposures speaks of the
    first kind alone.
    """
    return np.asarray(probability / (probability + (1.0 - probability) * standing_odds(moves)))


def standing_odds(moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the odds against a candidate go up, where ``moves`` is known."""
    return np.asarray(STANDING_SHARE * np.exp(-moves) + (1.0 - STANDING_SHARE))


def relative_response(header: FrameHeader, other: FrameHeader) -> float:
    """Electrons in the frame of ``header`` for each electron that the same source gives in ``other``."""
    factor = (header.exposure_s or 1.0) / (other.exposure_s or header.exposure_s or 1.0)
    if header.zero_point is not None and other.zero_point is not None:
        factor *= 10.0 ** (0.4 * (header.zero_point - other.zero_point))
    return factor
