"""Ends along the line: a fit that holds on to a piece of a faint streak gets the whole of it, and others stay."""

import numpy as np

from detector.endpoints import settled
from detector.fitting import fit_lines
from detector.matched import Filtered, filtered_frame
from detector.psf import Psf
from models.evaluate.injection import unit_streak

PSF = Psf.gaussian(2.2)
MARGIN = 44
NOISE_E = 15.0
WHOLE = np.array([[40.0, 60.0], [120.0, 75.0]])


def sky(snr: float, seed: int) -> np.ndarray:
    """A whitened frame with its margin and one streak of that matched-filter SNR."""
    frame = np.full((160 + 2 * MARGIN, 180 + 2 * MARGIN), np.nan, np.float32)
    inner = np.random.default_rng(seed).normal(size=(160, 180))
    (top, left), light = unit_streak(WHOLE, PSF)
    inner[top : top + light.shape[0], left : left + light.shape[1]] += snr / np.sqrt((light**2).sum()) * light
    frame[MARGIN:-MARGIN, MARGIN:-MARGIN] = inner
    return frame


def seen(frame: np.ndarray) -> Filtered:
    """The same frame, filtered."""
    return filtered_frame(frame[MARGIN:-MARGIN, MARGIN:-MARGIN], PSF)


def test_a_piece_of_a_faint_streak_grows_to_the_whole() -> None:
    piece = np.array([[*WHOLE[0], *(WHOLE[0] + 0.6 * (WHOLE[1] - WHOLE[0]))]])
    before, after = [], []
    for seed in range(12):
        frame = sky(16.0, seed)
        fits = fit_lines(frame, MARGIN, piece, np.array([1.5]), np.array([NOISE_E]), PSF)
        new = settled(frame, MARGIN, fits, np.array([NOISE_E]), PSF, seen(frame))
        before.append(np.abs(fits.ends[0].reshape(2, 2) - WHOLE).max())
        after.append(np.abs(new.ends[0].reshape(2, 2) - WHOLE).max())
    assert np.median(before) > 8.0  # the fit alone stays on the piece
    assert np.median(after) < 4.0
    assert np.mean(np.array(after) < 6.0) > 0.6


def test_what_is_bright_short_or_right_is_left_alone() -> None:
    frame = sky(100.0, 3)
    rows = np.array([WHOLE.ravel(), [150.0, 20.0, 154.0, 22.0]])
    noise_e = np.full(2, NOISE_E)
    fits = fit_lines(frame, MARGIN, rows, np.full(2, 1.5), noise_e, PSF)
    new = settled(frame, MARGIN, fits, noise_e, PSF, seen(frame))
    np.testing.assert_array_equal(new.ends, fits.ends)
    assert len(settled(frame, MARGIN, fits.take(np.zeros(0, np.intp)), noise_e[:0], PSF, seen(frame)).ends) == 0
