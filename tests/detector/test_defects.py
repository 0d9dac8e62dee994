"""What the detector did is masked; what the sky did is not, however straight it is."""

import numpy as np
import pytest
from scipy import ndimage

from detector import badlines as module
from detector.defects import find_defects
from detector.frame import MaskBit

BAD, SATURATED, BORDER = (int(bit) for bit in (MaskBit.BAD, MaskBit.SATURATED, MaskBit.BORDER))


def noise(shape=(512, 512), level=1000.0, sigma=10.0, seed=1):
    return np.random.default_rng(seed).normal(level, sigma, shape).astype(np.float32)


def found(pixels, saturation_e=None):
    return find_defects(pixels, np.zeros(pixels.shape, np.uint8), saturation_e=saturation_e)


def with_trail(pixels, *, peak, degrees_from_column, sigma_px, x0=250.3):
    """A bright line through the frame, ``degrees_from_column`` off the columns, with a Gaussian profile."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    tilt = np.deg2rad(degrees_from_column)
    distance = (x - x0) * np.cos(tilt) - (y - pixels.shape[0] / 2) * np.sin(tilt)
    return (pixels + peak * np.exp(-0.5 * (distance / sigma_px) ** 2)).astype(np.float32)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("excess", [400.0, 12.0, -12.0])
def test_a_bad_column_or_row_is_masked_and_nothing_beside_it(turned, excess):
    pixels = noise()
    pixels[:, 200] += excess
    mask = found(pixels.T.copy() if turned else pixels)
    mask = mask.T if turned else mask
    assert (mask[:, 200] & BAD).all()
    assert np.delete(mask, 200, axis=1).sum() == 0


def test_a_column_that_is_bad_from_a_trap_upwards_is_masked_from_there():
    pixels = noise()
    pixels[256:, 100] -= 15.0
    bad = (found(pixels)[:, 100] & BAD) > 0
    assert bad[256:].all()
    assert not bad[:150].any()


def test_a_double_column_is_masked():
    pixels = noise()
    pixels[:, 300:302] += 30.0
    bad = (found(pixels) & BAD) > 0
    assert bad[:, 300:302].all()
    assert bad.sum() == 2 * 512


@pytest.mark.parametrize("sigma_px", [0.68, 1.0, 2.5])
@pytest.mark.parametrize("degrees", [0.0, 0.02, 0.1, 0.5, 3.0, 90.0])
@pytest.mark.parametrize("peak", [10.0, 200.0, 20_000.0])
def test_a_satellite_trail_is_never_a_bad_column(peak, degrees, sigma_px):
    pixels = with_trail(noise((320, 320)), peak=peak, degrees_from_column=degrees, sigma_px=sigma_px, x0=160.3)
    assert not (found(pixels) & BAD).any()


def test_stars_galaxies_and_cosmic_rays_are_no_defects():
    rng = np.random.default_rng(2)
    pixels = noise()
    y, x = np.mgrid[:512, :512]
    for _ in range(60):
        cx, cy, size = rng.uniform(0, 512), rng.uniform(0, 512), rng.uniform(0.7, 6.0)
        pixels += (10 ** rng.uniform(1, 4) * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / size**2)).astype(
            np.float32
        )
    for _ in range(300):
        row, col, length = rng.integers(0, 450), rng.integers(0, 512), rng.integers(1, 40)
        pixels[row : row + length, col] += 500.0
    assert not found(pixels).any()


def test_a_vignetted_sky_has_no_bad_columns():
    y, x = np.mgrid[:512, :512]
    shade = 1.0 - 0.4 * ((x - 256) ** 2 + (y - 256) ** 2) / 256**2 / 2
    assert not found((noise(sigma=5.0) + 5000.0 * shade).astype(np.float32)).any()


def test_overscan_and_the_unlit_corners_that_it_betrays_are_border():
    y, x = np.mgrid[:400, :400]
    light = 900.0 * (np.hypot(x - 200, y - 200) < 240)
    pixels = noise((400, 400), level=100.0, sigma=3.0) + np.random.default_rng(3).poisson(light)
    pixels[:, :24] = noise((400, 24), level=100.0, sigma=3.0, seed=4)
    border = (found(pixels.astype(np.float32)) & BORDER) > 0
    assert border[:, :24].all()
    assert border[:20, -20:].all()
    assert border[-20:, -20:].all()
    assert not border[100:300, 40:360].any()


def test_a_frame_without_overscan_has_no_border():
    assert not (found(noise()) & BORDER).any()


def test_saturated_pixels_their_bleeding_and_their_surroundings_are_masked():
    pixels = noise()
    pixels[200:230, 100:103] = 60_000.0
    pixels[230:250, 101] = 5_000.0  # the tail of the bleeding, not saturated itself
    mask = (found(pixels, saturation_e=50_000.0) & SATURATED) > 0
    assert mask[198:232, 98:105].all()
    assert mask[232:250, 101].all()
    assert mask.sum() < 400


def test_a_plateau_of_equal_maxima_is_saturation_when_the_header_is_silent():
    pixels = noise()
    pixels[50:54, 50:54] = 65_535.0
    pixels[300, 300] = 30_000.0
    mask = found(pixels)
    assert (mask[50:54, 50:54] & SATURATED).all()
    assert not mask[300, 300]


def test_a_saturation_level_in_other_units_is_not_believed():
    assert not found(noise(), saturation_e=900.0).any()


def test_saturation_without_bleeding_is_plain_dilation():
    rng = np.random.default_rng(5)
    pixels = np.where(rng.random((120, 130)) < 0.002, 9e4, noise((120, 130))).astype(np.float32)
    expected = ndimage.binary_dilation(pixels >= 5e4, np.ones((5, 5)))
    assert np.array_equal((found(pixels, saturation_e=5e4) & SATURATED) > 0, expected)


def test_pixels_filled_with_one_value_are_masked_and_counted_ones_are_not():
    pixels = noise()
    pixels[:60, :70] = 0.0
    pixels[400, 400] = np.nan
    mask = found(pixels)
    assert (mask[:60, :70] & (BAD | BORDER)).all()
    assert mask[400, 400] & BAD
    counts = np.random.default_rng(6).poisson(0.5, (256, 256)).astype(np.float32)
    assert (found(counts) & BAD).mean() < 0.01


def test_what_the_instrument_masked_stays_masked_and_the_input_is_left_alone():
    pixels, mask = noise(), np.zeros((512, 512), np.uint8)
    mask[10:20, 10:20] = int(MaskBit.COSMIC_RAY)
    before = mask.copy()
    pixels[:, 77] += 100.0
    result = find_defects(pixels, mask, saturation_e=None)
    assert (result[10:20, 10:20] & int(MaskBit.COSMIC_RAY)).all()
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (47, 300), (100, 100)])
def test_small_frames_are_survived(shape):
    assert not found(noise(shape)).any()


def test_no_finder_takes_the_greater_part_of_a_frame():
    halves = np.where(np.arange(512) < 256, 100.0, 60_000.0) + noise()
    assert found(halves.astype(np.float32), saturation_e=30_000.0).mean() < 0.5


def test_segment_means_are_those_of_plain_numpy():
    pixels = noise((130, 200))
    pixels[:, 20] += 15.0
    columns = np.full((2, 200), np.nan, np.float32)
    rows = np.full((3, 130), np.nan, np.float32)
    module._segment_means(pixels, np.zeros(pixels.shape, np.uint8), 64, columns, rows)
    clamped = np.clip(pixels, 980.0, 1020.0)
    assert np.allclose(columns, clamped[:128].reshape(2, 64, 200).mean(axis=1), atol=0.6)
    assert np.allclose(rows, clamped[:, :192].reshape(130, 3, 64).mean(axis=2).T, atol=0.6)
