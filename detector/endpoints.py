"""The ends of faint streaks, looked for along their line.

A proposal that saw two thirds of a faint streak starts a fit that stays there: every pixel beyond its end is noise by
itself, and only all of them together are not. So each fitted line is also stretched, shortened and turned to where the
matched filter's SNR is highest (``detector.linerefinement``); where the pixels give that line clearly more signal
(``detector.forcing.forced_flux``), the fit is made again from there, and kept if it is better. Seldom is a star at the
end taken for more of the streak: the weights are robust, and the fit must not become worse.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from detector.fitting import Fits, fit_lines
from detector.forcing import forced_flux
from detector.linerefinement import refine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.matched import Filtered
    from detector.psf import Psf

# Only where an end can be lost: long enough to have pieces, faint enough that a piece is hard to see.
LEAST_LENGTH_FWHM = 6.0
BRIGHTEST_SNR = 60.0
# In squares of the SNR: what another length must promise, and what its fit must give.
PROMISED, GIVEN = 4.0, 2.0
WORSE_CHI2 = 1.1
UNCERTAINTY_PX = 1.5


def settled(
    padded: NDArray[np.float32],
    margin: int,
    fits: Fits,
    noise_e: NDArray[np.float64],
    psf: Psf,
    filtered: Filtered,
) -> Fits:
    """Give the fits ``[n]`` with those replaced that are better when longer, shorter or turned.

    ``padded``, ``margin``, ``noise_e`` and ``psf`` as in ``fit_lines``; ``filtered`` is the same frame, filtered.
    """
    along = fits.ends[:, 2:] - fits.ends[:, :2]
    length = np.hypot(along[:, 0], along[:, 1])
    rows = np.flatnonzero(fits.good & (length > LEAST_LENGTH_FWHM * psf.fwhm_px) & (fits.snr < BRIGHTEST_SNR))
    if not len(rows):
        return fits
    start = refine(filtered.smooth, filtered.coverage, fits.ends[rows], filtered.core)[:, :4]
    flux, sigma = forced_flux(padded, margin, np.concatenate([fits.ends[rows], start]), psf)
    with np.errstate(invalid="ignore"):
        power = np.where(np.isfinite(flux) & (flux > 0), (flux / sigma) ** 2, 0.0)
    promising = power[len(rows) :] > power[: len(rows)] + PROMISED
    again, start = rows[promising], start[promising]
    if not len(again):
        return fits
    new = fit_lines(padded, margin, start, np.full(len(again), UNCERTAINTY_PX), noise_e[again], psf)
    old = fits.take(again)
    with np.errstate(invalid="ignore"):
        better = new.good & (new.snr**2 > old.snr**2 + GIVEN) & (new.chi2 < WORSE_CHI2 * old.chi2)
    return replaced(fits, again[better], new.take(np.flatnonzero(better)))


def replaced(fits: Fits, rows: NDArray[np.intp], new: Fits) -> Fits:
    """The same table with ``rows`` from another one."""
    columns = {}
    for field in fields(Fits):
        columns[field.name] = getattr(fits, field.name).copy()
        columns[field.name][rows] = getattr(new, field.name)
    return Fits(**columns)
