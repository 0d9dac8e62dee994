"""Fitted candidates as rows of the table of streaks: pixels, flux, shape, flags. What was not measured is NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from detector.streaks import StreakFlag, empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.fitting import Fits
    from detector.frame import FrameHeader
    from detector.proposals import Proposals
    from detector.psf import Psf
    from detector.streakcandidates import Candidates

# An end whose continuation by this much is outside or masked may go on there.
EDGE_PX = 10.0


def tabulated(
    found: Candidates,
    score: NDArray[np.float64],
    header: FrameHeader,
    mask: NDArray[np.uint8],
    psf: Psf,
) -> NDArray[np.void]:
    """The table of streaks without the sky: pixels, flux, shape, flags."""
    fits, proposals, noise_e = found.fits, found.proposals, found.noise_e
    rows = empty(len(score))
    swap = fits.ends[:, 0] > fits.ends[:, 2]
    ends = np.where(swap[:, None], fits.ends[:, [2, 3, 0, 1]], fits.ends)
    errors = np.sqrt(np.einsum("nii->ni", fits.covariance))
    errors = np.where(swap[:, None], errors[:, [2, 3, 0, 1, 4]], errors)
    for k, name in enumerate(("x0", "y0", "x1", "y1")):
        rows[name] = ends[:, k]
        rows[f"{name}_err"] = errors[:, k]
    dx, dy = ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]
    length = np.hypot(dx, dy)
    rows["score"] = score
    rows["snr"] = fits.snr
    rows["flux"] = fits.flux * noise_e
    rows["flux_err"] = errors[:, 4] * noise_e
    if header.zero_point is not None and header.exposure_s:
        with np.errstate(invalid="ignore", divide="ignore"):
            rows["mag"] = header.zero_point - 2.5 * np.log10(rows["flux"] / header.exposure_s)
            rows["mag_err"] = 2.5 / np.log(10.0) * rows["flux_err"] / rows["flux"]
    rows["chi2"] = fits.chi2
    rows["length_px"] = length
    rows["angle_deg"] = np.degrees(np.arctan2(dy, dx)) % 180.0
    rows["length_px_err"], across = length_and_turn_errors(fits)
    rows["angle_deg_err"] = np.degrees(across)
    rows["flags"] = flagged(ends, length, fits, proposals, mask, psf)
    return rows


def length_and_turn_errors(fits: Fits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One sigma of the length (px) and of the direction (radians), from the ends' covariance."""
    along = fits.ends[:, 2:] - fits.ends[:, :2]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)
    unit = along / length[:, None]
    for_length = np.concatenate([-unit, unit], axis=1)
    normal = np.stack([-unit[:, 1], unit[:, 0]], axis=1) / length[:, None]
    for_turn = np.concatenate([-normal, normal], axis=1)
    ends = fits.covariance[:, :4, :4]
    return (
        np.sqrt(np.einsum("ni,nij,nj->n", for_length, ends, for_length)),
        np.sqrt(np.einsum("ni,nij,nj->n", for_turn, ends, for_turn)),
    )


def flagged(
    ends: NDArray[np.float64],
    length: NDArray[np.float64],
    fits: Fits,
    proposals: Proposals,
    mask: NDArray[np.uint8],
    psf: Psf,
) -> NDArray[np.uint32]:
    """The flags of each row."""
    first, last = at_border(ends, mask)
    flags = np.zeros(len(ends), np.uint32)
    for condition, flag in (
        (first | last, StreakFlag.EDGE),
        (first & last, StreakFlag.CROSSES),
        (length > 96.0 * proposals.scale, StreakFlag.JOINED),
        (fits.masked > 0.25, StreakFlag.MASKED),
        (~fits.good, StreakFlag.NO_FIT),
        (length < psf.fwhm_px, StreakFlag.SHORT),
        (np.full(len(ends), psf.n_stars == 0), StreakFlag.PSF_FROM_PROFILE),
    ):
        flags[condition] |= np.uint32(flag)
    return flags


def at_border(ends: NDArray[np.float64], mask: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each line ``[n, 4]`` may go on beyond its first end, and beyond its last, where nothing is seen."""
    along = ends[:, 2:] - ends[:, :2]
    unit = along / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)[:, None]
    return unusable(ends[:, :2] - EDGE_PX * unit, mask), unusable(ends[:, 2:] + EDGE_PX * unit, mask)


def unusable(xy: NDArray[np.float64], mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether positions ``[n, 2]`` are outside the frame or masked."""
    height, width = mask.shape
    x, y = np.round(xy[:, 0]).astype(np.int64), np.round(xy[:, 1]).astype(np.int64)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    masked = mask[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] != 0
    return ~inside | masked
