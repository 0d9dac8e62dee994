"""What is known of a candidate once it is fitted: the numbers from which its score is made.

The network sees shapes; the fit measures: how wide against the PSF (a cosmic ray is narrower, a galaxy wider), how well
a line describes it, how far it had to be moved. Together they decide better than either alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.fitting import Fits
    from detector.merging import Proposals
    from detector.psf import Psf

NAMES = (
    "logit",
    "snr",
    "length",
    "width",
    "width_sigma",
    "chi2",
    "brightness",
    "masked",
    "moved",
    "stretched",
    "members",
    "scale",
    "fwhm",
    "good",
)


def evidence(proposals: Proposals, fits: Fits, psf: Psf) -> NDArray[np.float64]:
    """The evidence on each candidate ``[n, len(NAMES)]``, in roughly even ranges; 0 where the fit did not converge."""
    before = np.hypot(proposals.ends[:, 2] - proposals.ends[:, 0], proposals.ends[:, 3] - proposals.ends[:, 1])
    length = np.hypot(fits.ends[:, 2] - fits.ends[:, 0], fits.ends[:, 3] - fits.ends[:, 1])
    shift = 0.5 * (fits.ends[:, :2] + fits.ends[:, 2:] - proposals.ends[:, :2] - proposals.ends[:, 2:])
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (
            proposals.logit,
            np.log(np.clip(fits.snr, 0.1, 1e5)),
            np.log(np.clip(length / psf.fwhm_px, 0.1, 1e3)),
            np.clip(fits.width[:, 0], -2.0, 2.0),
            np.arcsinh(fits.width[:, 0] / fits.width[:, 1]),
            np.log(np.clip(fits.chi2, 0.1, 1e4)),
            np.log(np.clip(fits.flux / (length + psf.fwhm_px) / psf.fwhm_px, 1e-2, 1e4)),
            fits.masked,
            np.hypot(shift[:, 0], shift[:, 1]) / proposals.scale,
            np.log((length + psf.fwhm_px) / (before + psf.fwhm_px)),
            np.log(proposals.members),
            np.log2(proposals.scale),
            np.full(len(length), psf.fwhm_px),
            fits.good.astype(float),
        )
    table = np.nan_to_num(np.stack(columns, axis=1), nan=0.0, posinf=0.0, neginf=0.0)
    return np.where(fits.good[:, None] | (np.arange(len(NAMES)) == 0), table, 0.0)
