"""How likely a line of light is a streak, by what is measured on it: the classical detector's rank.

SNR alone ranks stars, galaxies and what is left of cosmic rays first. A streak is longer than a point, even along its
line, exactly as wide as the PSF, and nothing goes on beyond its ends. Each is a number in sigma, softened by a few per
cent of the light, for the PSF of a frame is not known better than that; the weights are a logistic regression on
eight simulated Euclid frames with 10,000 cosmic rays a CCD (seeds 500010 and 500011), 23,000 lines, 400 streaks.
They are log-odds for those frames and an order for others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from detector.linepower import correlation, line_power, point_power
from detector.linerefinement import BEYOND, FAR, NEAR, POINT, SIDE, SNR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.linepower import Core

OFFSET = -15.5
PER_LOG_SNR, BRIGHT_SNR, PER_LOG_BRIGHT = 3.00, 20.0, 0.64  # beyond SNR 20 more of it says little
PER_LOG_LENGTH, LONG_PX, PER_LOG_LONG = 2.20, 20.0, -1.75
PER_PEAK, PER_LONGER = -0.91, 0.88
PER_NEAR, PER_SIDE, PER_FAR, PER_BEYOND = -3.33, -0.52, -0.08, -0.73
# Relative errors that the PSF is allowed, in what lies beside a line, beyond it, and in its highest point.
BESIDE_ERROR, FAR_ERROR, POINT_ERROR = 0.04, 0.03, 0.1


def log_odds(measured: NDArray[np.float64], core: Core) -> NDArray[np.float64]:
    """Log-odds ``[n]`` of lines as ``refine`` has measured them, with the Gaussians of the PSF's core."""
    snr = np.maximum(measured[:, SNR], 0.1)
    length = np.maximum(np.hypot(measured[:, 2] - measured[:, 0], measured[:, 3] - measured[:, 1]), 0.5)
    peak = np.maximum(measured[:, POINT] - point_share(core, length) * snr - 0.5, 0.0)
    longer = np.maximum(snr**2 - measured[:, POINT] ** 2, 0.0) / (1.0 + (POINT_ERROR * snr) ** 2)
    beside = np.hypot(1.0, BESIDE_ERROR * snr)
    return np.asarray(
        OFFSET
        + PER_LOG_SNR * np.log(np.minimum(snr, BRIGHT_SNR))
        + PER_LOG_BRIGHT * np.log(np.maximum(snr / BRIGHT_SNR, 1.0))
        + PER_LOG_LENGTH * np.log(length)
        + PER_LOG_LONG * np.log(np.maximum(length / LONG_PX, 1.0))
        + PER_PEAK * np.arcsinh(peak / np.hypot(1.0, POINT_ERROR * snr))
        + PER_LONGER * np.log1p(longer)
        + PER_NEAR * np.arcsinh(np.abs(measured[:, NEAR]) / beside)
        + PER_SIDE * np.arcsinh(np.maximum(measured[:, SIDE], 0.0) / beside)
        + PER_FAR * np.arcsinh(np.maximum(measured[:, FAR], 0.0) / np.hypot(1.0, FAR_ERROR * snr))
        + PER_BEYOND * np.arcsinh(np.maximum(measured[:, BEYOND], 0.0) / beside),
    )


def point_share(core: Core, length: NDArray[np.float64]) -> NDArray[np.float64]:
    """The SNR of a point in the middle of an even line ``[n]``, over that of the line."""
    sigma, weight = correlation(core)
    middle = np.sum(weight / (np.sqrt(2.0 * np.pi) * sigma) * (2.0 * ndtr(0.5 * length[:, None] / sigma) - 1.0), axis=1)
    return np.asarray(middle / np.sqrt(point_power(core) * line_power(core, length)))
