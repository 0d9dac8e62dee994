"""Cut-outs: they show the trail where it is, at the binning where it fits, and never reach outside."""

import numpy as np
import pytest

from detector.cutouts import SIDE, cut_out, depth, pyramid
from detector.psf import Psf

PSF = Psf.gaussian(2.4)


def trail(shape: tuple[int, int], ends: list[float], flux: float) -> np.ndarray:
    """A line of ``flux`` through the PSF, summed from many points."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    out = np.zeros(shape)
    sigma = PSF.sigmas[0]
    steps = np.linspace(0.0, 1.0, 400)
    for px, py in zip(ends[0] + steps * (ends[2] - ends[0]), ends[1] + steps * (ends[3] - ends[1]), strict=True):
        out += np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / sigma**2) / (2 * np.pi * sigma**2)
    return (out * flux / len(steps)).astype(np.float32)


@pytest.mark.parametrize(("ends", "level"), [([40.2, 60.7, 60.0, 70.0], 0), ([130.0, 150.0, 250.0, 210.0], 2)])
def test_what_is_left_without_the_fitted_trail_is_small_at_every_binning(ends: list[float], level: int) -> None:
    flux = 4000.0
    frame = pyramid(trail((360, 380), ends, flux))
    # A frame without noise is not rescaled: its levels are sums over the root of their number.
    assert depth(np.array([np.hypot(ends[2] - ends[0], ends[3] - ends[1])]), PSF.fwhm_px)[0] == level
    pixels, residual, fitted, masked, _ = np.sinh(cut_out(frame, np.array([ends]), np.array([flux]), PSF)[0])
    assert pixels.max() > 20.0
    assert np.abs(residual).max() < 0.12 * pixels.max()
    np.testing.assert_allclose(fitted.sum(), pixels.sum(), rtol=0.03)
    assert not masked.any()


def test_what_is_masked_or_outside_is_said_to_be() -> None:
    whitened = np.zeros((100, 120), np.float32)
    whitened[50:, :] = np.nan
    stamps = cut_out(pyramid(whitened), np.array([[2.0, 48.0, 8.0, 48.0]]), np.array([10.0]), PSF)
    masked = stamps[0, 3]
    assert masked[: SIDE // 2, SIDE // 2 :].sum() == 0
    assert masked[SIDE // 2 + 3 :].all()
    assert masked[:, : SIDE // 2 - 6].all()
    assert np.isfinite(stamps).all()


@pytest.mark.parametrize("shape", [(3, 5), (60, 2000)])
def test_small_frames_and_lines_longer_than_any_frame(shape: tuple[int, int]) -> None:
    frame = pyramid(np.ones(shape, np.float32))
    stamps = cut_out(frame, np.array([[-5000.0, 1.0, 9000.0, 1.0], [1.0, 1.0, 1.0, 1.0]]), np.array([5.0, 1e30]), PSF)
    assert stamps.shape[0] == 2
    assert np.isfinite(stamps.astype(np.float16)).all()
