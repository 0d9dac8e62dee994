"""The flux of a line whose place is known: nothing is moved, flux and local background are linear.

For the same place in another exposure, and to compare two guesses of one line. A cosmic ray across the line is held
back by robust weights; where most of the light would fall on masked pixels there is no flux to speak of.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.descent import BACKGROUND_PRIOR_SIGMA
from detector.lineprofile import half_width_px, line_frame, line_profile, line_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.lineprofile import Tables
    from detector.psf import Psf

# Forced fluxes have no shape to lose: a harder limit, 2 % of the efficiency, keeps more of a cosmic ray out.
FORCED_HUBER_SIGMA = 2.0
FORCED_ROUNDS = 4
# With more than this share of a line's light on pixels that cannot be used there is no flux to speak of.
MOST_MASKED = 0.5


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
