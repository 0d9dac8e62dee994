"""PSF-trail least squares: the line source behind a proposal, with its covariance.

The model is a line of even brightness convolved with the frame's PSF (a sum of circular Gaussians, ``detector.psf``),
which has a closed form: across the line a Gaussian, along it the difference of two error functions (Veres et al. 2012,
PASP 124, 1197). It is fitted to the whitened frame, so the variance of a pixel is 1 for the sky plus the source's own
photons. Robust weights (Huber) keep a star or a cosmic ray on the trail from dragging the ends. What does not converge
keeps the proposal's ends and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numba import njit, prange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.psf import Psf

# Two sets of normal matrix, gradient and totals: where the line stands, and where it is tried.
Work: TypeAlias = "tuple[NDArray[np.float64], ...]"
PARAMETERS = 6  # x0, y0, x1, y1, flux, background
# Forced fluxes have no shape to lose: a harder limit, 2 % of the efficiency, keeps more of a cosmic ray out.
FORCED_HUBER_SIGMA = 2.0
FORCED_ROUNDS = 4
# With more than this share of a line's light on pixels that cannot be used there is no flux to speak of.
MOST_MASKED = 0.5
# Huber's constant in sigma: 3 costs 1 % of the efficiency on pure Gaussian noise.
HUBER_SIGMA = 3.0
# The local background is already subtracted by the mesh: what is left is small beside the sky's sigma.
BACKGROUND_PRIOR_SIGMA = 0.5
MAX_ITERATIONS = 8
# Ends that move by less are where they belong: a tenth of the best errors.
TOLERANCE_PX = 0.02
MIN_LENGTH_PX = 0.5
# A proposal shorter than this is also turned by 45, 90 and 135 degrees when the line describes it worse than this.
TURNED_BELOW_PX = 40.0
TURNED_ABOVE_CHI2 = 3.0
# Beyond this the normal law is zero for our purposes: 3e-7.
FAR_SIGMA = 5.0
# Widths that differ by less than this factor are one for the fit.
SAME_WIDTH = 1.4
ROOT_TWO = math.sqrt(2.0)
ROOT_TWO_PI = math.sqrt(2.0 * math.pi)


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
    sigmas, weights = compact(psf)
    fit_all(padded, margin, ends, uncertainty_px, noise_e, sigmas, weights, parameters, covariance, statistics)
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


def compact(psf: Psf) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The PSF with Gaussians of nearly one width made one (same second moment): the fit takes time for each."""
    order = np.argsort(psf.sigmas)
    merged: list[tuple[float, float]] = []
    for sigma, weight in zip(psf.sigmas[order], psf.weights[order], strict=True):
        if merged and sigma < SAME_WIDTH * merged[-1][0]:
            before, sum_before = merged.pop()
            total = sum_before + weight
            merged.append((math.sqrt((sum_before * before**2 + weight * sigma**2) / total), total))
        else:
            merged.append((float(sigma), float(weight)))
    return np.array([sigma for sigma, _ in merged]), np.array([weight for _, weight in merged])


@njit(cache=True)
def line_profile(
    px: float,
    py: float,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Value of a line of unit flux at a pixel, and its derivatives: out = m, dm/dx0, dy0, dx1, dy1, dlnwidth."""
    dx = x1 - x0
    dy = y1 - y0
    length = math.sqrt(dx * dx + dy * dy)
    if length < MIN_LENGTH_PX:
        # A point: the direction is kept where there is one, the length is not allowed to vanish.
        if length > 1e-9:
            dx, dy = dx / length * MIN_LENGTH_PX, dy / length * MIN_LENGTH_PX
        else:
            dx, dy = MIN_LENGTH_PX, 0.0
        length = MIN_LENGTH_PX
    ux, uy = dx / length, dy / length
    rx, ry = px - x0, py - y0
    t = rx * ux + ry * uy
    d = -rx * uy + ry * ux
    value = 0.0
    by_t = 0.0
    by_d = 0.0
    by_length = 0.0
    by_width = 0.0
    for k in range(len(sigmas)):
        s = sigmas[k]
        a = t / s
        b = (t - length) / s
        if abs(d) > FAR_SIGMA * s or a < -FAR_SIGMA or b > FAR_SIGMA:
            continue
        across = weights[k] * math.exp(-0.5 * d * d / (s * s)) / (ROOT_TWO_PI * s) / length
        # Away from the ends nothing changes along the line: most pixels of a long streak need no error function.
        along, head, tail = 1.0, 0.0, 0.0
        if a < FAR_SIGMA:
            along -= 0.5 * math.erfc(a / ROOT_TWO)
            head = math.exp(-0.5 * a * a) / (ROOT_TWO_PI * s)
        if b > -FAR_SIGMA:
            along -= 0.5 * math.erfc(-b / ROOT_TWO)
            tail = math.exp(-0.5 * b * b) / (ROOT_TWO_PI * s)
        value += across * along
        by_t += across * (head - tail)
        by_d -= d / (s * s) * across * along
        by_length += across * (tail - along / length)
        by_width += across * ((d * d / (s * s) - 1.0) * along - t * head + (t - length) * tail)
    turn_x0, turn_y0 = uy / length, -ux / length
    out[0] = value
    out[1] = by_t * (-ux + d * turn_x0) + by_d * (uy - t * turn_x0) - by_length * ux
    out[2] = by_t * (-uy + d * turn_y0) + by_d * (-ux - t * turn_y0) - by_length * uy
    out[3] = -by_t * d * turn_x0 + by_d * t * turn_x0 + by_length * ux
    out[4] = -by_t * d * turn_y0 + by_d * t * turn_y0 + by_length * uy
    out[5] = by_width


@njit(cache=True)
def accumulate(
    padded: NDArray[np.float32],
    margin: int,
    p: NDArray[np.float64],
    region: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    stride: int,
    half_width: float,
    noise: float,
    normal: NDArray[np.float64],
    gradient: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Normal equations of the pixels near the line ``region``: 7 parameters (the six and the logarithm of the width).

    The region stands still while the line ``p`` moves in it, so that costs can be compared. With a ``stride`` only
    every so-manieth pixel of every so-manieth row is looked at: enough where the model is broad.
    totals = robust cost, chi2, pixels used, pixels masked, sum(m^2) of unit flux.
    """
    normal[:] = 0.0
    gradient[:] = 0.0
    totals[:] = 0.0
    h, w = padded.shape
    x0, y0, x1, y1 = region[0], region[1], region[2], region[3]
    dx, dy = x1 - x0, y1 - y0
    length = max(math.sqrt(dx * dx + dy * dy), 1e-6)
    ux, uy = dx / length, dy / length
    derivative = np.zeros(7)
    profile = np.zeros(6)
    row_begin = int(math.ceil(min(y0, y1) - half_width))
    row_end = int(math.floor(max(y0, y1) + half_width))
    for y in range(row_begin, row_end + 1, stride):
        # The columns of this row within half_width of the line: |(x - x0) uy - (y - y0) ux| <= half_width.
        left = min(x0, x1) - half_width
        right = max(x0, x1) + half_width
        if abs(uy) > 1e-6:
            centre = x0 + (y - y0) * ux / uy
            reach = half_width / abs(uy)
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
            line_profile(float(x), float(y), p[0], p[1], p[2], p[3], sigmas, weights, profile)
            model = p[4] * profile[0]
            variance = 1.0 + max(model, 0.0) / noise
            for k in range(4):
                derivative[k] = p[4] * profile[1 + k]
            derivative[4] = profile[0]
            derivative[5] = 1.0
            derivative[6] = p[4] * profile[5]
            residual = z - model - p[5]
            pull = abs(residual) / math.sqrt(variance)
            robust = 1.0 if pull <= HUBER_SIGMA else HUBER_SIGMA / pull
            weight = robust / variance
            totals[0] += pull * pull if pull <= HUBER_SIGMA else 2.0 * HUBER_SIGMA * pull - HUBER_SIGMA * HUBER_SIGMA
            totals[1] += pull * pull
            totals[2] += 1.0
            totals[4] += profile[0] * profile[0]
            for i in range(7):
                gradient[i] += weight * derivative[i] * residual
                for j in range(i + 1):
                    normal[i, j] += weight * derivative[i] * derivative[j]
    prior = 1.0 / (BACKGROUND_PRIOR_SIGMA * BACKGROUND_PRIOR_SIGMA)
    normal[5, 5] += prior
    gradient[5] -= p[5] * prior
    totals[0] += p[5] * p[5] * prior
    for i in range(7):
        for j in range(i):
            normal[j, i] = normal[i, j]


@njit(cache=True)
def brighten(
    padded: NDArray[np.float32],
    margin: int,
    p: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    stride: int,
    half_width: float,
    work: Work,
) -> None:
    """Give ``p`` the flux that fits best where its line stands, without a background: that is linear."""
    normal, gradient, totals = work[0], work[1], work[2]
    p[4] = 1.0
    p[5] = 0.0
    accumulate(padded, margin, p, p[:4].copy(), sigmas, weights, stride, half_width, 1e9, normal, gradient, totals)
    p[4] = max(1.0 + gradient[4] / max(normal[4, 4], 1e-12), 1.0)


@njit(cache=True)
def descend(
    padded: NDArray[np.float32],
    margin: int,
    p: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    stride: int,
    half_width: float,
    noise: float,
    iterations: int,
    tolerance: float,
    work: Work,
) -> bool:
    """Levenberg-Marquardt from ``p``, which is changed, until no end moves by ``tolerance`` px; False for no pixels."""
    normal, gradient, totals, trial_normal, trial_gradient, trial_totals = work
    region = p[:4].copy()
    accumulate(padded, margin, p, region, sigmas, weights, stride, half_width, noise, normal, gradient, totals)
    damping = 1e-2
    trial = p.copy()
    matrix = np.zeros((PARAMETERS, PARAMETERS))
    for _ in range(iterations):
        if totals[2] < PARAMETERS + 2:
            return False
        matrix[:] = normal[:PARAMETERS, :PARAMETERS]
        for i in range(PARAMETERS):
            matrix[i, i] += damping * matrix[i, i] + 1e-12
        step = np.linalg.solve(matrix, gradient[:PARAMETERS].copy())
        for i in range(4):
            # No end may jump further than the region it was looked for in.
            step[i] = min(max(step[i], -half_width), half_width)
        trial[:] = p + step
        accumulate(
            padded, margin, trial, region, sigmas, weights, stride, half_width, noise,
            trial_normal, trial_gradient, trial_totals,
        )  # fmt: skip
        if trial_totals[0] <= totals[0] * (1.0 + 1e-9):
            moved = 0.0
            for i in range(4):
                moved = max(moved, abs(step[i]))
            p[:] = trial
            normal[:] = trial_normal
            gradient[:] = trial_gradient
            totals[:] = trial_totals
            damping = max(damping * 0.3, 1e-6)
            if moved < tolerance:
                break
        else:
            damping *= 10.0
            if damping > 1e5:
                break
    return True


@njit(cache=True)
def approach(
    padded: NDArray[np.float32],
    margin: int,
    start: NDArray[np.float64],
    uncertainty: float,
    noise: float,
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    p: NDArray[np.float64],
    work: Work,
) -> float:
    """Bring ``p`` from ``start`` to the nearest best line; gives its reduced chi2 (in ``work`` its matrices), or -1."""
    normal, gradient, totals = work[0], work[1], work[2]
    core = np.sum(weights * sigmas)
    p[:4] = start
    # First one broad Gaussian, coarsely sampled, that sees the line from where the proposal may be off.
    broad, one = np.empty(1), np.ones(1)
    broad[0] = math.sqrt(core * core + uncertainty * uncertainty)
    stride = max(1, int(0.8 * broad[0]))
    brighten(padded, margin, p, broad, one, stride, 2.5 * broad[0] + 1.0, work)
    ok = descend(padded, margin, p, broad, one, stride, 2.5 * broad[0] + 1.0, noise, 6, 0.1 * broad[0], work)
    half_width = 3.5 * core + 2.0
    for _ in range(2):
        # Then the PSF, again with the pixels that belong to where the line has come to, until it stays there.
        before = p[:4].copy()
        brighten(padded, margin, p, sigmas, weights, 1, half_width, work)
        ok = ok and descend(
            padded, margin, p, sigmas, weights, 1, half_width, noise, MAX_ITERATIONS, TOLERANCE_PX, work
        )  # fmt: skip
        if not ok or np.max(np.abs(p[:4] - before)) < 0.5:
            break
    accumulate(padded, margin, p, p[:4].copy(), sigmas, weights, 1, half_width, noise, normal, gradient, totals)
    length = math.hypot(p[2] - p[0], p[3] - p[1])
    start_length = math.hypot(start[2] - start[0], start[3] - start[1])
    moved = 0.5 * math.hypot(p[0] + p[2] - start[0] - start[2], p[1] + p[3] - start[1] - start[3])
    reach = 4.0 * uncertainty + 0.5 * start_length + 3.0
    ok = ok and p[4] > 0.0 and moved < reach and length < 2.0 * start_length + 4.0 * uncertainty + 6.0
    if not ok or totals[2] < PARAMETERS + 2:
        return -1.0
    return totals[1] / max(totals[2] - PARAMETERS, 1.0)


@njit(cache=True, parallel=True)
def fit_all(
    padded: NDArray[np.float32],
    margin: int,
    ends: NDArray[np.float64],
    uncertainty: NDArray[np.float64],
    noise: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    parameters: NDArray[np.float64],
    covariance: NDArray[np.float64],
    statistics: NDArray[np.float64],
) -> None:
    """Fit every row; results go into the last three arrays."""
    for n in prange(len(ends)):
        work = (np.zeros((7, 7)), np.zeros(7), np.zeros(5), np.zeros((7, 7)), np.zeros(7), np.zeros(5))
        normal, gradient, totals = work[0], work[1], work[2]
        p, best = np.zeros(PARAMETERS), np.zeros(PARAMETERS)
        chi2, turn = -1.0, 0
        cx, cy = 0.5 * (ends[n, 0] + ends[n, 2]), 0.5 * (ends[n, 1] + ends[n, 3])
        hx, hy = 0.5 * (ends[n, 2] - ends[n, 0]), 0.5 * (ends[n, 3] - ends[n, 1])
        # A short bright streak whose proposal lies across it holds the fit in a false direction: others are tried.
        for attempt in range(4 if math.hypot(hx, hy) < 0.5 * TURNED_BELOW_PX else 1):
            c, s = math.cos(attempt * math.pi / 4.0), math.sin(attempt * math.pi / 4.0)
            dx, dy = c * hx - s * hy, s * hx + c * hy
            start = np.array([cx - dx, cy - dy, cx + dx, cy + dy])
            reached = approach(padded, margin, start, uncertainty[n], noise[n], sigmas, weights, p, work)
            if reached >= 0.0 and (chi2 < 0.0 or reached < chi2):
                chi2, turn = reached, attempt
                best[:] = p
            if 0.0 <= chi2 < TURNED_ABOVE_CHI2:
                break
        if chi2 >= 0.0 and turn < attempt:
            # The matrices belong to the last line that was tried: bring back those of the best.
            p[:] = best
            half_width = 3.5 * np.sum(weights * sigmas) + 2.0
            region = p[:4].copy()
            accumulate(padded, margin, p, region, sigmas, weights, 1, half_width, noise[n], normal, gradient, totals)
        statistics[n, 4] = totals[3] / max(totals[2] + totals[3], 1.0)
        if chi2 < 0.0:
            parameters[n, :4] = ends[n]
            parameters[n, 4] = np.nan
            statistics[n, :4] = np.nan
            statistics[n, 5] = 0.0
            continue
        parameters[n] = p
        for i in range(7):
            normal[i, i] += 1e-12 + 1e-9 * normal[i, i]
        six = np.linalg.inv(normal[:PARAMETERS, :PARAMETERS].copy())
        covariance[n] = six[:5, :5]
        seven = np.linalg.inv(normal)
        statistics[n, 0] = chi2
        statistics[n, 1] = p[4] * math.sqrt(totals[4])
        # One Newton step in the width from the optimum of the rest.
        statistics[n, 2] = np.sum(seven[6] * gradient)
        statistics[n, 3] = math.sqrt(seven[6, 6])
        statistics[n, 5] = 1.0


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
    sigmas, weights = compact(psf)
    noise = np.full(len(ends), np.inf) if noise_e is None else noise_e
    force_all(padded, margin, np.ascontiguousarray(ends, np.float64), noise, sigmas, weights, flux, sigma)
    return flux, sigma


@njit(cache=True, parallel=True)
def force_all(
    padded: NDArray[np.float32],
    margin: int,
    ends: NDArray[np.float64],
    noise: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
    flux: NDArray[np.float64],
    sigma: NDArray[np.float64],
) -> None:
    """Forced flux of every row into ``flux`` and ``sigma``, which are left alone where there is none."""
    half_width = 3.5 * np.sum(weights * sigmas) + 2.0
    h, w = padded.shape
    for n in prange(len(ends)):
        x0, y0, x1, y1 = ends[n, 0], ends[n, 1], ends[n, 2], ends[n, 3]
        if not math.isfinite(x0 + y0 + x1 + y1):
            continue
        dx, dy = x1 - x0, y1 - y0
        length = max(math.sqrt(dx * dx + dy * dy), 1e-6)
        ux, uy = dx / length, dy / length
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
                    light[used] = line_value(float(x), float(y), x0, y0, x1, y1, sigmas, weights)
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


@njit(cache=True)
def line_value(
    px: float,
    py: float,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    sigmas: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> float:
    """Value of a line of unit flux at a pixel: what ``line_profile`` gives first."""
    dx, dy = x1 - x0, y1 - y0
    length = math.sqrt(dx * dx + dy * dy)
    if length < MIN_LENGTH_PX:
        dx, dy = (dx / length, dy / length) if length > 1e-9 else (1.0, 0.0)
        dx, dy, length = dx * MIN_LENGTH_PX, dy * MIN_LENGTH_PX, MIN_LENGTH_PX
    ux, uy = dx / length, dy / length
    t, d = (px - x0) * ux + (py - y0) * uy, -(px - x0) * uy + (py - y0) * ux
    value = 0.0
    for k in range(len(sigmas)):
        s = sigmas[k]
        a, b = t / s, (t - length) / s
        if abs(d) > FAR_SIGMA * s or a < -FAR_SIGMA or b > FAR_SIGMA:
            continue
        along = 1.0
        if a < FAR_SIGMA:
            along -= 0.5 * math.erfc(a / ROOT_TWO)
        if b > -FAR_SIGMA:
            along -= 0.5 * math.erfc(-b / ROOT_TWO)
        value += weights[k] * math.exp(-0.5 * d * d / (s * s)) / (ROOT_TWO_PI * s) / length * along
    return value
