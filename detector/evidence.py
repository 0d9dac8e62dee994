"""What is known of a candidate once it is fitted: the numbers from which its score is made.

The network sees shapes; the fit measures: how wide against the PSF (a cosmic ray is narrower, a galaxy wider), how well
a line describes it, how far it had to be moved. Together they decide better than either alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.fitting import Fits
    from detector.matched import Matched
    from detector.proposals import Proposals
    from detector.psf import Psf

# A line of the filter is on a candidate whose middle is so near, and whose length differs by less than a factor of two.
NEAR_PX = 4.0
NEIGHBOURS = 6
ALIKE = 2.0
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
    "filtered",
    "filter_logit",
    "filter_point",
    "near_star",
    "at_star",
)


# What the matched filter says of a candidate: whether it was asked, its log-odds (of what it did not list: the least),
# and the SNR of a point over that of the line.
FILTER_NAMES = NAMES[14:17]
UNLISTED_LOGIT = -10.0


def evidence(
    proposals: Proposals,
    fits: Fits,
    psf: Psf,
    filtered: NDArray[np.float64],
    beside: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The evidence on each candidate ``[n, len(NAMES)]``, in roughly even ranges; 0 where the fit did not converge.

    ``filtered`` ``[n, 3]`` is the matched filter's word on it, as ``heard`` gives it, or zeros where it was not asked;
    ``beside`` ``[n, 2]`` is where the bright stars are (``detector.spikes.beside_stars``).
    """
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
    table = np.where(fits.good[:, None] | (np.arange(table.shape[1]) == 0), table, 0.0)
    return np.column_stack([table, filtered, beside])


def heard(ends: NDArray[np.float64], matched: Matched) -> NDArray[np.float64]:
    """What the matched filter says of candidates with ``ends`` ``[n, 4]``: ``FILTER_NAMES`` ``[n, 3]``.

    Its best line whose middle lies within a third of the candidate's length and 4 px, and which is about as long.
    """
    said = np.tile([1.0, UNLISTED_LOGIT, 0.0], (len(ends), 1))
    lines = matched.proposals
    if not len(lines) or not len(ends):
        return said
    tree = cKDTree(0.5 * (lines.ends[:, :2] + lines.ends[:, 2:]))
    length = np.hypot(ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1])
    middle = 0.5 * (ends[:, :2] + ends[:, 2:])
    finite = np.flatnonzero(np.isfinite(middle).all(axis=1))
    apart, nearest = tree.query(middle[finite], k=min(NEIGHBOURS, len(lines)))
    apart, nearest = apart.reshape(len(finite), -1), nearest.reshape(len(finite), -1)
    reach = np.hypot(lines.ends[:, 2] - lines.ends[:, 0], lines.ends[:, 3] - lines.ends[:, 1])[nearest]
    ratio = (reach + NEAR_PX) / (length[finite, None] + NEAR_PX)
    alike = (apart <= NEAR_PX + length[finite, None] / 3.0) & (ratio > 1.0 / ALIKE) & (ratio < ALIKE)
    logit = np.where(alike, lines.logit[nearest], -np.inf)
    best = logit.argmax(axis=1)
    there = logit.max(axis=1) > -np.inf
    chosen = nearest[np.arange(len(finite)), best][there]
    rows = finite[there]
    said[rows, 1] = np.clip(lines.logit[chosen], UNLISTED_LOGIT, -UNLISTED_LOGIT)
    said[rows, 2] = np.clip(matched.snr_point[chosen] / np.maximum(matched.snr[chosen], 1e-3), 0.0, 2.0)
    return said
