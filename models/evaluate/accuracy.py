"""How well a found streak is measured: residuals beside what the data can say, pulls, and what a score is worth.

The bound is Cramer and Rao's for a line of uniform brightness in the noise of the sky and of the streak's own photons,
with flux and both ends unknown: no unbiased fit does better. Where the truth brings it, it is that of the PSF as it was
drawn; else a Gaussian's of the same width, which is lower by a tenth or so, from the length, SNR and PSF of each found
truth (without the streak's photons where nobody knows the sky's sigma in electrons). It is drawn from at random, so
that medians stand beside medians.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from models.evaluate.matching import end_distances, ends_of, lengths, strict
from models.evaluate.sample import BOUNDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SNR_EDGES = (5.0, 8.0, 12.0, 20.0, 50.0, np.inf)
SCORE_EDGES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
FWHM_PER_SIGMA = 2.3548
_DRAWS = 20
# Half of a normal distribution lies within 0.6745 sigma of its middle: the width that outliers do not move.
_QUARTILE = 0.6745
_COORDINATES = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Residuals:
    """Of the found truths of one SNR bin, medians in pixels; bounds are None where the PSF is not known.

    ``along_px`` and ``across_px`` are those of the mid-point, with respect to the true line.
    """

    snr_from: float
    snr_to: float
    count: int
    end_px: float | None
    end_bound_px: float | None
    mid_px: float | None
    mid_bound_px: float | None
    along_px: float | None
    across_px: float | None
    strict: int


@dataclass(frozen=True)
class Pull:
    """Residual over claimed sigma of one quantity: a unit normal has width 1, middle 0 and 0.3 % beyond 3.

    ``count`` is of streaks, or of coordinates (four a streak) where these are taken together.
    """

    quantity: str
    count: int
    middle: float | None
    width: float | None
    beyond_3: float | None


@dataclass(frozen=True)
class Reliability:
    """Of the detections with a score in one bin: how many are true, in the sample and at the expected density."""

    score_from: float
    score_to: float
    count: int
    mean_score: float
    true_fraction: float
    true_fraction_expected: float


def cramer_rao(
    length_px: NDArray[np.float64],
    snr: NDArray[np.float64],
    sigma_px: NDArray[np.float64],
    noise_e: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest possible sigma of an end ``[n]`` along and across the line, in pixels."""
    along, across = bounds(length_px, snr, sigma_px, noise_e)
    return np.sqrt(along[:, 0, 0]), np.sqrt(across[:, 0, 0])


def bounds(
    length_px: NDArray[np.float64],
    snr: NDArray[np.float64],
    sigma_px: NDArray[np.float64],
    noise_e: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest possible covariance ``[n, 2, 2]`` of the two ends along and across the line, in square pixels.

    ``snr`` is the flux over its error when only the flux is unknown and the sky alone is noisy; ``noise_e`` the sky's
    sigma in electrons, with which the streak's own photons add to the variance (None, NaN: they do not). The light
    along the line is F/L (Phi((u - a)/s) - Phi((u - b)/s)); its derivatives by F, a and b give the 3 x 3 information of
    the first, and shifting its sources across by an amount linear in their place the 2 x 2 of the second, each pixel
    weighing as its variance lets it. Both are inverted for each streak.
    """
    length = np.maximum(length_px, 0.3 * sigma_px)[:, None]
    s = sigma_px[:, None]
    u = np.linspace(-0.5, 0.5, 801) * (length + 10 * s)  # n u
    a, b = -length / 2, length / 2
    light = (ndtr((u - a) / s) - ndtr((u - b) / s)) / length
    density_a, density_b = (np.exp(-0.5 * ((u - end) / s) ** 2) / (s * np.sqrt(2 * np.pi)) for end in (a, b))
    by_a = (light - density_a) / length
    by_b = (density_b - light) / length
    step = u[:, 1] - u[:, 0]
    # The integral of a Gaussian's square across is 1 / (2 sqrt(pi) s): sum(model^2) of unit flux, and the flux itself.
    power = (light**2).sum(axis=1) * step / (2.0 * np.sqrt(np.pi) * sigma_px)
    flux = snr / np.sqrt(power)
    brightness = np.zeros(len(flux)) if noise_e is None else np.nan_to_num(flux / noise_e)
    weight, turned = _weights_across(light * brightness[:, None], sigma_px)  # n u, n u
    shapes = np.stack([light, by_a, by_b], axis=1)  # n 3 u
    scale = (step * flux**2)[:, None, None]
    information = np.einsum("niu,nju,nu->nij", shapes, shapes, weight) * scale
    along = np.linalg.inv(information)[:, 1:, 1:]
    # What reaches u comes from within the ends: beyond them the lever is no longer than at them.
    inward = s**2 * (density_b - density_a) / length
    leverage = np.stack([light * (b - u) + inward, light * (u - a) - inward], axis=1) / length[:, None]  # n 2 u
    information = np.einsum("niu,nju,nu->nij", leverage, leverage, turned) * scale
    return along, np.linalg.inv(information)


def _weights_across(
    brightness: NDArray[np.float64], sigma_px: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Integrals across the line ``[n, u]`` of g^2 and g'^2 over the variance, g the Gaussian PSF's profile.

    ``brightness`` ``[n, u]`` is the light a pixel along the line over the sky's variance.
    """
    v = np.linspace(-5.0, 5.0, 61)
    unit = np.exp(-0.5 * v**2) / np.sqrt(2.0 * np.pi)
    squares, slopes = np.empty(brightness.shape), np.empty(brightness.shape)
    for n, s in enumerate(sigma_px):
        g = unit / s
        inverse = 1.0 / (1.0 + brightness[n, :, None] * g)  # u v
        squares[n] = inverse @ (g**2) * (v[1] - v[0]) * s
        slopes[n] = inverse @ ((v * g / s) ** 2) * (v[1] - v[0]) * s
    return squares, slopes


def residuals(truths: NDArray[np.void], detections: NDArray[np.void], *, seed: int) -> list[Residuals]:
    """Residuals of pairs of truths (``TRUTH``) and their detections (``DETECTION``), row by row, in bins of true SNR.

    Where the truth does not know its SNR, the detection's is taken.
    """
    true_ends, ends = ends_of(truths), ends_of(detections)
    snr = _true_snr(truths, detections)
    distance = end_distances(true_ends, ends)
    offset = ends.mean(axis=1) - true_ends.mean(axis=1)
    line = true_ends[:, 1] - true_ends[:, 0]
    unit = line / np.maximum(np.hypot(line[:, 0], line[:, 1]), 1e-9)[:, None]
    along = np.abs((offset * unit).sum(axis=1))
    across = np.abs(offset[:, 0] * unit[:, 1] - offset[:, 1] * unit[:, 0])
    agrees = strict(true_ends, ends)
    end_bound, mid_bound = _drawn_bounds(truths, snr, np.random.default_rng(seed))
    table = []
    for low, high in pairwise(SNR_EDGES):
        here = (snr >= low) & (snr < high)
        table.append(
            Residuals(
                snr_from=low,
                snr_to=high,
                count=int(here.sum()),
                end_px=_median(distance[here]),
                end_bound_px=_median(end_bound[here]),
                mid_px=_median(np.hypot(offset[here, 0], offset[here, 1])),
                mid_bound_px=_median(mid_bound[here]),
                along_px=_median(along[here]),
                across_px=_median(across[here]),
                strict=int(agrees[here].sum()),
            ),
        )
    return table


def _true_snr(truths: NDArray[np.void], detections: NDArray[np.void]) -> NDArray[np.float64]:
    """The truth's own SNR, the detection's where it is not known."""
    return np.asarray(np.where(np.isfinite(truths["snr_limit"]), truths["snr_limit"], detections["snr"]))


def _drawn_bounds(
    truths: NDArray[np.void], snr: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors of ends and of mid-points ``[n, draws]`` as they scatter at the bound; NaN where PSF or SNR is unknown."""
    sigmas = np.stack([truths[name] for name in BOUNDS], axis=-1)
    gaussian = np.isfinite(truths["fwhm_px"]) & (snr > 0) & ~np.isfinite(sigmas).all(axis=1)
    if gaussian.any():
        width = truths["fwhm_px"][gaussian] / FWHM_PER_SIGMA
        both = bounds(lengths(ends_of(truths[gaussian])), snr[gaussian], width, truths["noise_e"][gaussian])
        of_ends, of_mids = ([one[:, 0, 0] for one in both], [one.sum(axis=(1, 2)) / 4 for one in both])
        sigmas[gaussian] = np.sqrt(np.stack([*of_ends, *of_mids], axis=-1))
    ends, mids = (
        np.hypot(*(sigmas[:, [k]] * rng.standard_normal((len(truths), _DRAWS)) for k in pair))
        for pair in ((0, 1), (2, 3))
    )
    return ends, mids


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def pulls(truths: NDArray[np.void], detections: NDArray[np.void]) -> list[Pull]:
    """Residual over claimed sigma: each coordinate of the ends, the magnitude; the four, and it, by true SNR."""
    true_ends, ends = ends_of(truths), ends_of(detections)
    straight = np.linalg.norm(true_ends - ends, axis=2).sum(axis=1)
    crossed = np.linalg.norm(true_ends[:, ::-1] - ends, axis=2).sum(axis=1)
    paired = np.where((straight <= crossed)[:, None, None], true_ends, true_ends[:, ::-1])
    residual = (ends - paired).reshape(-1, 4)
    claimed = np.stack([detections[f"{name}_err"] for name in _COORDINATES], axis=-1)
    table = [_pull(name, residual[:, k], claimed[:, k]) for k, name in enumerate(_COORDINATES)]
    brightness = detections["mag"] - truths["mag"]
    table.append(_pull("mag", brightness, detections["mag_err"]))
    snr = _true_snr(truths, detections)
    for low, high in pairwise(SNR_EDGES):
        here = (snr >= low) & (snr < high)
        table.append(_pull(f"ends, SNR {snr_range(low, high)}", residual[here].ravel(), claimed[here].ravel()))
    for low, high in pairwise(SNR_EDGES):
        here = (snr >= low) & (snr < high)
        table.append(_pull(f"mag, SNR {snr_range(low, high)}", brightness[here], detections["mag_err"][here]))
    return table


def snr_range(low: float, high: float) -> str:
    """A bin of SNR in words."""
    return f"{low:g}-{high:g}" if np.isfinite(high) else f"{low:g} and more"


def _pull(quantity: str, residual: NDArray[np.float64], claimed: NDArray[np.float64]) -> Pull:
    usable = np.isfinite(residual) & (claimed > 0)
    pull = residual[usable] / claimed[usable]
    if not len(pull):
        return Pull(quantity, 0, None, None, None)
    low, middle, high = np.percentile(pull, [25, 50, 75])
    return Pull(
        quantity,
        len(pull),
        float(middle),
        float((high - low) / (2 * _QUARTILE)),
        float((np.abs(pull - middle) > 3).mean()),
    )


def reliability(
    score: NDArray[np.float64], true: NDArray[np.bool_], *, density: float, expected: float
) -> list[Reliability]:
    """What a score is worth: ``score`` and whether ``true`` of detections that are either true or false.

    ``density`` is the truths per frame of the sample and ``expected`` that for which scores are calibrated: a true one
    counts ``expected / density`` times at the expected density.
    """
    weight = np.where(true, expected / density if density > 0 else 0.0, 1.0)
    table = []
    for low, high in pairwise(SCORE_EDGES):
        here = (score >= low) & ((score < high) | (high == SCORE_EDGES[-1]))
        if here.any():
            weighted = float((weight[here] * true[here]).sum() / weight[here].sum()) if weight[here].any() else 0.0
            table.append(
                Reliability(low, high, int(here.sum()), float(score[here].mean()), float(true[here].mean()), weighted)
            )
    return table
