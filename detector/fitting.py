"""PSF-trail least squares: the line source behind a proposal, with its covariance.

The model is a line of even brightness convolved with the frame's PSF as its stars show it (``detector.lineprofile``).
It is fitted to the whitened frame, so the variance of a pixel is 1 for the sky, plus the source's own photons, plus
what the PSF is not known better. Weights are Huber's until the line is found; then they redescend (Tukey's biweight),
for a cosmic ray across the trail or a star at its end must not drag it at all, unless most of the line itself would be
thrown out: then it is no line, and stays as it was for the verifier to see. What does not converge keeps the
proposal's ends and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.descent import HUBER, PARAMETERS, TUKEY, accumulate, approach, descend
from detector.lineprofile import half_width_px, line_frame, line_tables
from detector.psf import GAUSSIAN_FWHM, Psf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.lineprofile import LineTables, Tables

# Redescending weights that leave less than this of a line's power have thrown out the line.
LEAST_KEPT = 0.6
# A PSF that nobody measured is wrong by so much a pixel.
UNMEASURED_ERROR = 0.1
# A proposal shorter than this is also turned by 45, 90 and 135 degrees when the line describes it worse than this.
TURNED_BELOW_PX = 40.0
TURNED_ABOVE_COST = 1.6
# A fit whose robust cost is beyond this, or that has wandered off, is held against one that never let outliers in.
SUSPECT_COST = 1.15
# A brighter neighbour draws a line away: one whose ends stayed within so many uncertainties and pixels of the proposal
# goes before it, if it explains as much as a streak of SNR 4 does.
STAYED, STAYED_PX = 4.0, 2.0
LEAST_GAIN = 16.0
# Cosmic rays too faint to be seen under a bright streak and what is not known of a PSF's wings: a part of the flux.
FLUX_ERROR = 0.01
# Where a faint line ends is a step in noise, and its likelihood is no parabola: the errors of the ends by its curvature
# are too small by a factor of sqrt(1 + (FAINT_SNR / SNR)^2), measured on simulated frames (seeds 500100-1).
FAINT_SNR = 9.0


@dataclass(frozen=True, eq=False)
class Fits:
    """Fitted lines, one row a proposal.

    ``ends`` ``[n, 4]`` pixels; ``flux`` in units of the sky's sigma, summed over pixels; ``covariance`` ``[n, 5, 5]``
    of the ends and the flux; ``chi2`` reduced; ``snr`` against the sky's noise alone (matched filter); ``width`` the
    natural logarithm of the fitted width over the PSF's and its error ``[n, 2]``: a cosmic ray is narrower, a galaxy
    wider; ``masked`` the share of its pixels that could not be used; ``good`` False where the fit did not converge.
    """

    ends: NDArray[np.float64]
    flux: NDArray[np.float64]
    covariance: NDArray[np.float64]
    chi2: NDArray[np.float64]
    snr: NDArray[np.float64]
    width: NDArray[np.float64]
    masked: NDArray[np.float64]
    good: NDArray[np.bool_]

    def take(self, rows: NDArray[np.intp]) -> Fits:
        """The same table with these rows only."""
        return Fits(
            self.ends[rows],
            self.flux[rows],
            self.covariance[rows],
            self.chi2[rows],
            self.snr[rows],
            self.width[rows],
            self.masked[rows],
            self.good[rows],
        )


def fit_lines(
    padded: NDArray[np.float32],
    margin: int,
    ends: NDArray[np.float64],
    uncertainty_px: NDArray[np.float64],
    noise_e: NDArray[np.float64],
    psf: Psf,
) -> Fits:
    """Fit a line source to each proposal.

    ``padded`` is the whitened frame with its margin, NaN where masked; ``ends`` ``[n, 4]`` (x0, y0, x1, y1) in frame
    pixels; ``uncertainty_px`` ``[n]`` how far they may be off: the first steps use a PSF broadened by as much;
    ``noise_e`` ``[n]`` the sky's sigma there, in electrons.
    """
    n = len(ends)
    parameters = np.zeros((n, PARAMETERS))
    covariance = np.full((n, 5, 5), np.nan)
    statistics = np.zeros((n, 6))
    if n:
        error = psf.model_error if psf.n_stars else UNMEASURED_ERROR
        fit_all(
            padded, margin, np.ascontiguousarray(ends, np.float64), uncertainty_px, noise_e, error, psf.fwhm_px,
            half_width_px(psf.fwhm_px), line_tables(psf).arrays, unit_gaussian().arrays,
            parameters, covariance, statistics,
        )  # fmt: skip
    snr = statistics[:, 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        faint = np.minimum(np.sqrt(1.0 + (FAINT_SNR / snr) ** 2), FAINT_SNR)
    covariance[:, :4, :] *= faint[:, None, None]
    covariance[:, :, :4] *= faint[:, None, None]
    return Fits(
        ends=parameters[:, :4].copy(),
        flux=parameters[:, 4].copy(),
        covariance=covariance,
        chi2=statistics[:, 0].copy(),
        snr=statistics[:, 1].copy(),
        width=statistics[:, 2:4].copy(),
        masked=statistics[:, 4].copy(),
        good=statistics[:, 5] > 0.5,
    )


@lru_cache(maxsize=1)
def unit_gaussian() -> LineTables:
    """The tables of a Gaussian of sigma 1 px, with which lines are looked for: any other is one of them, scaled."""
    return line_tables(Psf.gaussian(GAUSSIAN_FWHM))


@njit(cache=True)
def has_stayed(p: NDArray[np.float64], start: NDArray[np.float64], uncertainty: float) -> bool:
    """Whether a line's ends are still where the proposal ``start`` had them."""
    reach = STAYED * uncertainty + STAYED_PX
    straight = max(math.hypot(p[0] - start[0], p[1] - start[1]), math.hypot(p[2] - start[2], p[3] - start[3]))
    crossed = max(math.hypot(p[0] - start[2], p[1] - start[3]), math.hypot(p[2] - start[0], p[3] - start[1]))
    return min(straight, crossed) < reach


@njit(cache=True, parallel=True)
def fit_all(
    padded: NDArray[np.float32],
    margin: int,
    ends: NDArray[np.float64],
    uncertainty: NDArray[np.float64],
    noise: NDArray[np.float64],
    error: float,
    fwhm: float,
    half_width: float,
    tables: Tables,
    gaussian: Tables,
    parameters: NDArray[np.float64],
    covariance: NDArray[np.float64],
    statistics: NDArray[np.float64],
) -> None:
    """Fit every row; results go into the last three arrays."""
    for n in prange(len(ends)):
        work = (np.zeros((7, 7)), np.zeros(7), np.zeros(8), np.zeros((7, 7)), np.zeros(7), np.zeros(8))
        normal, gradient, totals = work[0], work[1], work[2]
        p, best = np.zeros(PARAMETERS), np.zeros(PARAMETERS)
        found, suspect = False, False
        gain = -np.inf
        masked = 0.0
        cx, cy = 0.5 * (ends[n, 0] + ends[n, 2]), 0.5 * (ends[n, 1] + ends[n, 3])
        hx, hy = 0.5 * (ends[n, 2] - ends[n, 0]), 0.5 * (ends[n, 3] - ends[n, 1])
        # A short bright streak whose proposal lies across it holds the fit in a false direction: others are tried.
        for attempt in range(4 if math.hypot(hx, hy) < 0.5 * TURNED_BELOW_PX else 1):
            c, s = math.cos(attempt * math.pi / 4.0), math.sin(attempt * math.pi / 4.0)
            dx, dy = c * hx - s * hy, s * hx + c * hy
            start = np.array([cx - dx, cy - dy, cx + dx, cy + dy])
            ok = approach(
                padded, margin, start, uncertainty[n], noise[n], error, fwhm, half_width, tables, gaussian, HUBER,
                p, work,
            )  # fmt: skip
            masked = totals[3] / max(totals[2] + totals[3], 1.0)
            if ok and totals[6] - totals[0] > gain:
                found = True
                gain = totals[6] - totals[0]
                suspect = totals[0] - totals[7] > SUSPECT_COST * totals[2]
                best[:] = p
            if ok and totals[0] - totals[7] < TURNED_ABOVE_COST * totals[2]:
                break
        statistics[n, 4] = masked
        if not found:
            parameters[n, :4] = ends[n]
            parameters[n, 4] = np.nan
            statistics[n, :4] = np.nan
            statistics[n, 5] = 0.0
            continue
        # Redescending weights, from there and (where not all is well) from the proposal itself.
        law = HUBER
        gain = -np.inf
        stayed = has_stayed(best, ends[n], uncertainty[n])
        p[:] = best
        ok = descend(padded, margin, p, tables, 1.0, half_width, noise[n], error, TUKEY, work)
        if ok and totals[5] > LEAST_KEPT * totals[4] and p[4] > 0.0:
            law = TUKEY
            best[:] = p
            gain = totals[6] - totals[0]
            stayed = has_stayed(p, ends[n], uncertainty[n])
        if not stayed or law == HUBER or suspect:
            ok = approach(
                padded, margin, ends[n], uncertainty[n], noise[n], error, fwhm, half_width, tables, gaussian, TUKEY,
                p, work,
            )  # fmt: skip
            if ok and totals[5] > LEAST_KEPT * totals[4]:
                gained = totals[6] - totals[0]
                at_home = has_stayed(p, ends[n], uncertainty[n])
                nearer = at_home and not stayed and gained > LEAST_GAIN
                if nearer or (gained > gain and (at_home or not stayed) and law == TUKEY):
                    law = TUKEY
                    best[:] = p
        p[:] = best
        region = p[:4].copy()
        direction = line_frame(p)[3] % len(tables[0])
        accumulate(
            padded, margin, p, region, direction, tables, 1.0, half_width, noise[n], error, law,
            normal, gradient, totals,
        )  # fmt: skip
        parameters[n] = p
        for i in range(7):
            normal[i, i] += 1e-12 + 1e-9 * normal[i, i]
        six = np.linalg.inv(normal[:PARAMETERS, :PARAMETERS].copy())
        covariance[n] = six[:5, :5]
        covariance[n, 4, 4] += (FLUX_ERROR * p[4]) ** 2
        seven = np.linalg.inv(normal)
        statistics[n, 0] = totals[1] / max(totals[2] - PARAMETERS, 1.0)
        statistics[n, 1] = p[4] * math.sqrt(totals[4])
        # One Newton step in the width from the optimum of the rest.
        statistics[n, 2] = np.sum(seven[6] * gradient)
        statistics[n, 3] = math.sqrt(seven[6, 6])
        statistics[n, 4] = totals[3] / max(totals[2] + totals[3], 1.0)
        statistics[n, 5] = 1.0
