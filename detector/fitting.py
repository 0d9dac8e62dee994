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
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numba import njit, prange

from detector.lineprofile import half_width_px, line_frame, line_profile, line_tables
from detector.psf import GAUSSIAN_FWHM, Psf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.lineprofile import LineTables, Tables

# Two sets of normal matrix, gradient and totals: where the line stands, and where it is tried.
Work: TypeAlias = "tuple[NDArray[np.float64], ...]"
PARAMETERS = 6  # x0, y0, x1, y1, flux, background
# Floats, for numba compiles a copy of a function for each integer constant that it is called with.
# Robust laws and their constants in sigma: they cost 1 and 3 % of the efficiency on pure Gaussian noise.
HUBER, TUKEY = 0.0, 1.0
HUBER_SIGMA = 3.0
TUKEY_SIGMA = 5.0
# Redescending weights that leave less than this of a line's power have thrown out the line.
LEAST_KEPT = 0.6
# Forced fluxes have no shape to lose: a harder limit, 2 % of the efficiency, keeps more of a cosmic ray out.
FORCED_HUBER_SIGMA = 2.0
FORCED_ROUNDS = 4
# With more than this share of a line's light on pixels that cannot be used there is no flux to speak of.
MOST_MASKED = 0.5
# The local background is already subtracted by the mesh: what is left is small beside the sky's sigma.
BACKGROUND_PRIOR_SIGMA = 0.5
# A PSF that nobody measured is wrong by so much a pixel.
UNMEASURED_ERROR = 0.1
MAX_ITERATIONS = 10
# Where a step promises less than this of chi2 the rest of the way is a tenth of the errors.
ENOUGH = 0.01
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
# While a line is still being looked for, what it does not fit by this share of its light is no outlier.
SEARCH_ERROR = 0.3


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


def forced_flux(
    padded: NDArray[np.float32],
    margin: int,
    ends: NDArray[np.float64],
    psf: Psf,
    *,
    noise_e: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Flux and its sigma, each ``[n]`` in units of the sky's sigma, of lines whose ends ``[n, 4]`` are known.

    To look at the same place in another exposure: nothing is moved. Linear: flux and local background by robust
    weights (Huber), masked pixels left out. ``noise_e`` ``[n]`` as in ``fit_lines`` adds the source's own photons to
    the variance. A line most of whose light would fall on masked pixels or outside has flux NaN and sigma infinite.
    """
    flux, sigma = np.full(len(ends), np.nan), np.full(len(ends), np.inf)
    if len(ends):
        noise = np.full(len(ends), np.inf) if noise_e is None else noise_e
        lines = np.ascontiguousarray(ends, np.float64)
        force_all(padded, margin, lines, noise, half_width_px(psf.fwhm_px), line_tables(psf).arrays, flux, sigma)
    return flux, sigma


@lru_cache(maxsize=1)
def unit_gaussian() -> LineTables:
    """The tables of a Gaussian of sigma 1 px, with which lines are looked for: any other is one of them, scaled."""
    return line_tables(Psf.gaussian(GAUSSIAN_FWHM))


@njit(cache=True)
def accumulate(
    padded: NDArray[np.float32],
    margin: int,
    p: NDArray[np.float64],
    region: NDArray[np.float64],
    direction: int,
    tables: Tables,
    scale: float,
    half_width: float,
    noise: float,
    error: float,
    law: float,
    normal: NDArray[np.float64],
    gradient: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Normal equations of the pixels near the line ``region``: 7 parameters (the six and the logarithm of the width).

    The region stands still while the line ``p`` moves in it, so that costs can be compared. ``scale`` widens the PSF
    of the tables; where that makes it broad only every so-manieth pixel of every so-manieth row is looked at.
    ``error`` is how wrong the model may be, relative; ``law`` the robust one.
    totals = robust cost (-2 ln likelihood), chi2, pixels used, pixels masked, sum(m^2) of unit flux, the part of it
    that the weights leave, robust cost without a line, what the variances add to the cost.
    """
    normal[:] = 0.0
    gradient[:] = 0.0
    totals[:] = 0.0
    h, w = padded.shape
    stride = max(1, int(0.8 * scale))
    x0, y0, x1, y1 = region[0], region[1], region[2], region[3]
    dx, dy = x1 - x0, y1 - y0
    region_length = max(math.sqrt(dx * dx + dy * dy), 1e-6)
    sx, sy = dx / region_length, dy / region_length
    ux, uy, length, _ = line_frame(p)
    narrow = 1.0 / scale
    length = length * narrow
    flux, background = p[4], p[5]
    row_begin = int(math.ceil(min(y0, y1) - half_width))
    row_end = int(math.floor(max(y0, y1) + half_width))
    for y in range(row_begin, row_end + 1, stride):
        # The columns of this row within half_width of the line: |(x - x0) sy - (y - y0) sx| <= half_width.
        left = min(x0, x1) - half_width
        right = max(x0, x1) + half_width
        if abs(sy) > 1e-6:
            centre = x0 + (y - y0) * sx / sy
            reach = half_width / abs(sy)
            left = max(left, centre - reach)
            right = min(right, centre + reach)
        for x in range(int(math.ceil(left)), int(math.floor(right)) + 1, stride):
            yy, xx = y + margin, x + margin
            if yy < 0 or xx < 0 or yy >= h or xx >= w:
                totals[3] += 1.0
                continue
            z = padded[yy, xx]
            if not math.isfinite(z):
                totals[3] += 1.0
                continue
            light, by_x0, by_y0, by_x1, by_y1, by_width = line_profile(
                (x - p[0]) * narrow, (y - p[1]) * narrow, ux, uy, length, direction, tables
            )
            light *= narrow * narrow
            model = flux * light
            variance = 1.0 + max(model, 0.0) / noise + error * error * model * model
            residual = z - model - background
            square = residual * residual / variance
            robust, cost, alone = 1.0, square, (z - background) ** 2
            if law == HUBER:
                if square > HUBER_SIGMA * HUBER_SIGMA:
                    pull = math.sqrt(square)
                    robust = HUBER_SIGMA / pull
                    cost = 2.0 * HUBER_SIGMA * pull - HUBER_SIGMA * HUBER_SIGMA
                if alone > HUBER_SIGMA * HUBER_SIGMA:
                    alone = 2.0 * HUBER_SIGMA * math.sqrt(alone) - HUBER_SIGMA * HUBER_SIGMA
            else:
                limit = TUKEY_SIGMA * TUKEY_SIGMA
                left_over = max(1.0 - square / limit, 0.0)
                robust = left_over * left_over
                cost = limit / 3.0 * (1.0 - robust * left_over)
                left_over = max(1.0 - alone / limit, 0.0)
                alone = limit / 3.0 * (1.0 - left_over * left_over * left_over)
            if variance > 1.001:
                broader = math.log(variance)
                cost += broader
                totals[7] += broader
            totals[0] += cost
            totals[1] += square
            totals[2] += 1.0
            totals[4] += light * light
            totals[5] += robust * light * light
            totals[6] += alone
            weight = robust / variance
            if weight == 0.0:
                continue
            step = flux * narrow * narrow * narrow
            d0, d1, d2, d3 = step * by_x0, step * by_y0, step * by_x1, step * by_y1
            d6 = flux * narrow * narrow * by_width
            pulling = weight * residual
            gradient[5] += pulling
            normal[5, 5] += weight
            if light == 0.0 and d0 == 0.0 and d2 == 0.0:
                continue
            gradient[0] += pulling * d0
            gradient[1] += pulling * d1
            gradient[2] += pulling * d2
            gradient[3] += pulling * d3
            gradient[4] += pulling * light
            gradient[6] += pulling * d6
            w0, w1, w2, w3, w4, w6 = weight * d0, weight * d1, weight * d2, weight * d3, weight * light, weight * d6
            normal[0, 0] += w0 * d0
            normal[1, 0] += w1 * d0
            normal[1, 1] += w1 * d1
            normal[2, 0] += w2 * d0
            normal[2, 1] += w2 * d1
            normal[2, 2] += w2 * d2
            normal[3, 0] += w3 * d0
            normal[3, 1] += w3 * d1
            normal[3, 2] += w3 * d2
            normal[3, 3] += w3 * d3
            normal[4, 0] += w4 * d0
            normal[4, 1] += w4 * d1
            normal[4, 2] += w4 * d2
            normal[4, 3] += w4 * d3
            normal[4, 4] += w4 * light
            normal[5, 0] += w0
            normal[5, 1] += w1
            normal[5, 2] += w2
            normal[5, 3] += w3
            normal[5, 4] += w4
            normal[6, 0] += w6 * d0
            normal[6, 1] += w6 * d1
            normal[6, 2] += w6 * d2
            normal[6, 3] += w6 * d3
            normal[6, 4] += w6 * light
            normal[6, 5] += w6
            normal[6, 6] += w6 * d6
    prior = 1.0 / (BACKGROUND_PRIOR_SIGMA * BACKGROUND_PRIOR_SIGMA)
    normal[5, 5] += prior
    gradient[5] -= background * prior
    totals[0] += background * background * prior
    for i in range(7):
        for j in range(i):
            normal[j, i] = normal[i, j]


@njit(cache=True)
def solved(
    matrix: NDArray[np.float64], right: NDArray[np.float64], damping: float, step: NDArray[np.float64], n: int
) -> bool:
    """Solve the first ``n`` rows of ``matrix``, its diagonal raised by ``damping`` (Cholesky); False: singular."""
    lower = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j] + (damping * matrix[i, i] + 1e-12 if i == j else 0.0)
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                lower[i, i] = math.sqrt(total)
            else:
                lower[i, j] = total / lower[j, j]
    for i in range(n):
        total = right[i]
        for k in range(i):
            total -= lower[i, k] * step[k]
        step[i] = total / lower[i, i]
    for i in range(n - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, n):
            total -= lower[k, i] * step[k]
        step[i] = total / lower[i, i]
    return True


@njit(cache=True)
def brighten(
    padded: NDArray[np.float32],
    margin: int,
    p: NDArray[np.float64],
    tables: Tables,
    scale: float,
    half_width: float,
    work: Work,
) -> None:
    """Give ``p`` the flux that fits best where its line stands, without a background: that is linear."""
    normal, gradient, totals = work[0], work[1], work[2]
    p[4] = 1.0
    p[5] = 0.0
    direction = line_frame(p)[3] % len(tables[0])
    accumulate(
        padded, margin, p, p[:4].copy(), direction, tables, scale, half_width, 1e9, 0.0, HUBER,
        normal, gradient, totals,
    )  # fmt: skip
    p[4] = max(1.0 + gradient[4] / max(normal[4, 4], 1e-12), 1.0)


@njit(cache=True)
def descend(
    padded: NDArray[np.float32],
    margin: int,
    p: NDArray[np.float64],
    tables: Tables,
    scale: float,
    half_width: float,
    noise: float,
    error: float,
    law: float,
    work: Work,
) -> bool:
    """Levenberg-Marquardt from ``p``, which is changed, until it is at the best line; False for too few pixels.

    The matrices of where it ends are left in ``work``.
    """
    normal, gradient, totals, trial_normal, trial_gradient, trial_totals = work
    region = p[:4].copy()
    direction = line_frame(p)[3] % len(tables[0])
    accumulate(
        padded, margin, p, region, direction, tables, scale, half_width, noise, error, law,
        normal, gradient, totals,
    )  # fmt: skip
    damping = 1e-3
    trial = p.copy()
    step = np.zeros(PARAMETERS)
    for _ in range(MAX_ITERATIONS):
        if totals[2] < PARAMETERS + 2:
            return False
        if not solved(normal, gradient, damping, step, PARAMETERS):
            return False
        promised = 0.0
        for i in range(PARAMETERS):
            promised += step[i] * gradient[i]
        if promised < ENOUGH * 0.1:
            break
        for i in range(4):
            # No end may jump further than the region it was looked for in.
            step[i] = min(max(step[i], -half_width), half_width)
        trial[:] = p + step
        accumulate(
            padded, margin, trial, region, direction, tables, scale, half_width, noise, error, law,
            trial_normal, trial_gradient, trial_totals,
        )  # fmt: skip
        if trial_totals[0] <= totals[0] + 1e-6:
            p[:] = trial
            normal[:] = trial_normal
            gradient[:] = trial_gradient
            totals[:] = trial_totals
            damping = max(damping * 0.2, 1e-6)
            if promised < ENOUGH:
                break
        else:
            damping *= 10.0
            if promised < ENOUGH or damping > 1e5:
                break
    return True


@njit(cache=True)
def approach(
    padded: NDArray[np.float32],
    margin: int,
    start: NDArray[np.float64],
    uncertainty: float,
    noise: float,
    error: float,
    fwhm: float,
    half_width: float,
    tables: Tables,
    gaussian: Tables,
    law: float,
    p: NDArray[np.float64],
    work: Work,
) -> bool:
    """Bring ``p`` from ``start`` to the nearest best line under a robust law (its matrices in ``work``)."""
    totals = work[2]
    p[:4] = start
    ok = True
    if law == HUBER:
        # First a broad Gaussian, coarsely sampled, that sees the line from where the proposal may be off.
        core = fwhm / GAUSSIAN_FWHM
        broad = math.sqrt(core * core + uncertainty * uncertainty)
        reach = 2.5 * broad + 1.0
        brighten(padded, margin, p, gaussian, broad, reach, work)
        ok = descend(padded, margin, p, gaussian, broad, reach, noise, 0.0, law, work)
    else:
        # What redescends sees only what is near: the line as it was proposed, forgiven what it misses by.
        brighten(padded, margin, p, tables, 1.0, half_width, work)
        ok = descend(padded, margin, p, tables, 1.0, half_width, noise, SEARCH_ERROR, law, work)
    for _ in range(2):
        # Then the PSF, again with the pixels that belong to where the line has come to, until it stays there.
        before = p[:4].copy()
        if law == HUBER:
            brighten(padded, margin, p, tables, 1.0, half_width, work)
        ok = ok and descend(padded, margin, p, tables, 1.0, half_width, noise, error, law, work)
        if not ok or np.max(np.abs(p[:4] - before)) < 0.5:
            break
    length = math.hypot(p[2] - p[0], p[3] - p[1])
    start_length = math.hypot(start[2] - start[0], start[3] - start[1])
    moved = 0.5 * math.hypot(p[0] + p[2] - start[0] - start[2], p[1] + p[3] - start[1] - start[3])
    reach = 4.0 * uncertainty + 0.5 * start_length + 3.0
    ok = ok and p[4] > 0.0 and moved < reach and length < 2.0 * start_length + 4.0 * uncertainty + 6.0
    return ok and totals[2] >= PARAMETERS + 2


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


@njit(cache=True, parallel=True)
def force_all(
    padded: NDArray[np.float32],
    margin: int,
    ends: NDArray[np.float64],
    noise: NDArray[np.float64],
    half_width: float,
    tables: Tables,
    flux: NDArray[np.float64],
    sigma: NDArray[np.float64],
) -> None:
    """Forced flux of every row into ``flux`` and ``sigma``, which are left alone where there is none."""
    h, w = padded.shape
    for n in prange(len(ends)):
        x0, y0, x1, y1 = ends[n, 0], ends[n, 1], ends[n, 2], ends[n, 3]
        if not math.isfinite(x0 + y0 + x1 + y1):
            continue
        ux, uy, length, direction = line_frame(ends[n])
        row_begin = max(int(math.ceil(min(y0, y1) - half_width)), -margin)
        row_end = min(int(math.floor(max(y0, y1) + half_width)), h - margin - 1)
        columns = int(max(x0, x1) - min(x0, x1) + 2.0 * half_width) + 2
        if abs(uy) > 1e-6:
            columns = min(columns, int(2.0 * half_width / abs(uy)) + 2)
        room = min(max(row_end - row_begin + 1, 0) * columns, h * w)
        data, light = np.empty(room), np.empty(room)
        used = 0
        inside = 0.0
        for y in range(row_begin, row_end + 1):
            left, right = min(x0, x1) - half_width, max(x0, x1) + half_width
            if abs(uy) > 1e-6:
                centre, reach = x0 + (y - y0) * ux / uy, half_width / abs(uy)
                left, right = max(left, centre - reach), min(right, centre + reach)
            for x in range(max(int(math.ceil(left)), -margin), min(int(math.floor(right)), w - margin - 1) + 1):
                z = padded[y + margin, x + margin]
                if math.isfinite(z):
                    data[used] = z
                    light[used] = line_profile(x - x0, y - y0, ux, uy, length, direction, tables)[0]
                    inside += light[used]
                    used += 1
        # The light within half_width of the line is nearly all there is; what is missing fell where nobody looks.
        if inside < 1.0 - MOST_MASKED:
            continue
        f, background = 0.0, 0.0
        prior = 1.0 / (BACKGROUND_PRIOR_SIGMA * BACKGROUND_PRIOR_SIGMA)
        for step in range(FORCED_ROUNDS):
            ll, l1, lz, z1, ones = 0.0, 0.0, 0.0, 0.0, prior
            for k in range(used):
                variance = 1.0 + max(f * light[k], 0.0) / noise[n]
                weight = 1.0 / variance
                if step > 0:
                    pull = abs(data[k] - f * light[k] - background) / math.sqrt(variance)
                    if pull > FORCED_HUBER_SIGMA:
                        weight *= FORCED_HUBER_SIGMA / pull
                ll += weight * light[k] * light[k]
                l1 += weight * light[k]
                ones += weight
                lz += weight * light[k] * data[k]
                z1 += weight * data[k]
            determinant = ll * ones - l1 * l1
            f = (lz * ones - z1 * l1) / determinant
            background = (z1 * ll - lz * l1) / determinant
            flux[n] = f
            sigma[n] = math.sqrt(ones / determinant)
