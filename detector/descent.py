"""From a guessed line to the best one nearby: robust least squares on the pixels about it (Levenberg-Marquardt).

Six parameters: two ends, flux, local background. The pixels looked at stay those near where the line began, so that
costs can be compared while it moves. What does not get better stops where it is and says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from detector.lineprofile import line_frame, line_profile
from detector.psf import GAUSSIAN_FWHM

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from detector.lineprofile import Tables

# Two sets of normal matrix, gradient and totals: where the line stands, and where it is tried.
Work: TypeAlias = "tuple[NDArray[np.float64], ...]"
PARAMETERS = 6  # x0, y0, x1, y1, flux, background
# Floats, for numba compiles a copy of a function for each integer constant that it is called with.
# Robust laws and their constants in sigma: they cost 1 and 3 % of the efficiency on pure Gaussian noise.
HUBER, TUKEY = 0.0, 1.0
HUBER_SIGMA = 3.0
TUKEY_SIGMA = 5.0
# The local background is already subtracted by the mesh: what is left is small beside the sky's sigma.
BACKGROUND_PRIOR_SIGMA = 0.5
MAX_ITERATIONS = 10
# Where a step promises less than this of chi2 the rest of the way is a tenth of the errors.
ENOUGH = 0.01
# While a line is still being looked for, what it does not fit by this share of its light is no outlier.
SEARCH_ERROR = 0.3


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
