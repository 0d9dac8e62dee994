"""Noise and signal of a line through a PSF that is a sum of Gaussians: what makes a filtered sum an SNR.

All in closed form: white noise filtered with the PSF is correlated like the PSF with itself, a sum of Gaussians again,
and the integral of a Gaussian over a line twice is known (Veres et al. 2012, PASP 124, 1197, has the signal's side).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.psf import Psf

SAME_WIDTH = 1.3  # Gaussians whose widths differ by less are made one: each costs a convolution


Core = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


def core_of(psf: Psf) -> Core:
    """Sigmas and weights of the PSF without its far wings, which gather more of the neighbours' light than its own."""
    order = np.argsort(psf.sigmas)
    merged: list[tuple[float, float]] = []
    for sigma, weight in zip(psf.sigmas[order].tolist(), psf.weights[order].tolist(), strict=True):
        if merged and sigma < SAME_WIDTH * merged[-1][0]:
            before, sum_before = merged.pop()
            total = sum_before + weight
            merged.append((math.sqrt((sum_before * before**2 + weight * sigma**2) / total), total))
        else:
            merged.append((sigma, weight))
    sigmas, weights = np.array(merged).T
    near = sigmas <= max(1.2 * psf.fwhm_px, sigmas.min())
    return sigmas[near], weights[near] / weights[near].sum()


def correlation(core: Core) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The PSF's autocorrelation as a sum of Gaussians: sigmas and weights ``[k]``."""
    sigmas, weights = core
    return (
        np.sqrt(sigmas[:, None] ** 2 + sigmas[None, :] ** 2).ravel(),
        (weights[:, None] * weights[None, :]).ravel(),
    )


def point_power(core: Core) -> float:
    """Sum of the squared PSF: the variance of white noise filtered with it."""
    sigma, weight = correlation(core)
    return float(np.sum(weight / (2.0 * np.pi * sigma**2)))


def line_power(core: Core, length: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Variance of the filtered noise's integral over a line of ``length`` px; also the signal of a line of 1 a px."""
    sigma, weight = correlation(core)
    x = np.asarray(length, np.float64)[..., None] / sigma
    normal = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    along = 2.0 * sigma * (x * (ndtr(x) - 0.5) - (1.0 / math.sqrt(2.0 * math.pi) - normal))
    return np.asarray(np.sum(weight / (math.sqrt(2.0 * math.pi) * sigma) * along, axis=-1))
