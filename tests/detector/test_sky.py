"""The sky is measured right whatever stands in front of it, and the kernels are what plain numpy makes of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BarycentricInterpolator, CubicHermiteSpline, interp1d

from detector import skylevel as module
from detector.sky import Sky, measure_sky
from detector.skylevel import BIN, CORE_HIGH, CORE_LOW
from detector.tiling import Tiling, unpadded
from detector.whitening import binned, whiten

GAIN = 3.48


def good(shape):
    return np.zeros(shape, np.uint8)


def white(pixels, sky, mask=None):
    mask = good(pixels.shape) if mask is None else mask
    return unpadded(whiten(pixels, mask, sky, window=24, step=8), pixels.shape, Tiling(24, 8))


def euclid_field(seed, side=768, sky_e=103.0, read_noise_e=4.4):
    """Noise with 30 galaxies a square arcminute and 10,000 cosmic rays a CCD, in whole counts; electrons."""
    rng = np.random.default_rng(seed)
    light = np.full((side, side), sky_e)
    y, x = np.mgrid[-20:21, -20:21]
    for _ in range(int(30 * (side / 600) ** 2)):
        size, flux = rng.uniform(1.5, 5.0), 10 ** rng.uniform(2.5, 4.5)
        row, col = rng.integers(20, side - 21, 2)
        light[row - 20 : row + 21, col - 20 : col + 21] += flux * np.exp(-np.hypot(x, y) / size) / (2 * np.pi * size**2)
    electrons = rng.poisson(light) + rng.normal(0.0, read_noise_e, light.shape)
    for _ in range(int(10_000 * side**2 / (4132 * 4096))):
        row, col = rng.uniform(30, side - 30, 2)
        along = np.arange(rng.integers(2, 28))
        angle = rng.uniform(0, 2 * np.pi)
        at = (row + along * np.sin(angle)).astype(int), (col + along * np.cos(angle)).astype(int)
        electrons[at] += rng.exponential(600.0, along.size)
    return (np.round(electrons / GAIN) * GAIN).astype(np.float32)


def core_by_numpy(values, step):
    """The level and width that ``skylevel.core`` fits, with numpy's histogram and its least squares."""
    sample = np.sort(values[:: max(1, values.size // 1024)])
    quarter = max(2, sample.size // 4)
    widths = sample[quarter:] - sample[:-quarter]
    best = int(np.argmin(widths))
    level, sigma = 0.5 * (sample[best] + sample[best + quarter]), widths[best] / 0.6373
    edges = np.arange(CORE_LOW, CORE_HIGH + BIN / 2, BIN)
    x = 0.5 * (edges[1:] + edges[:-1])
    terms = np.stack([np.ones_like(x), x, x**2], axis=1)
    for _ in range(6):
        counts, _ = np.histogram((values - level) / sigma, edges)
        weight, target = counts + 0.5, np.log(counts + 0.5)
        for _ in range(8):
            root = np.sqrt(weight)[:, None]
            a = np.linalg.lstsq(terms * root, target * root[:, 0], rcond=None)[0]
            weight = np.exp(terms @ a)
            target = terms @ a + (counts - weight) / weight
        variance = -0.5 / a[2]
        shift, width = a[1] * variance, np.sqrt(variance - BIN**2 / 12)
        level, sigma = level + shift * sigma, sigma * width
        if abs(shift) < 0.02 and abs(width - 1.0) < 0.02:
            break
    return level, np.sqrt(sigma**2 - step**2 / 6)


def along_axis(mesh, length, *, curved):
    """One axis (the first) of the mesh interpolated to ``length`` pixels, by scipy's own polynomials."""
    n = len(mesh)
    edges = np.arange(n + 1) * length // n
    centres, at = 0.5 * (edges[1:] + edges[:-1]) - 0.5, np.arange(length)
    if n == 1:
        return np.repeat(mesh, length, axis=0)
    if not curved:
        return interp1d(centres, mesh, axis=0, bounds_error=False, fill_value=(mesh[0], mesh[-1]))(at)
    if n == 2:
        return interp1d(centres, mesh, axis=0, fill_value="extrapolate")(at)
    ends = [BarycentricInterpolator(centres[part], mesh[part]) for part in (np.s_[:3], np.s_[-3:])]
    inner = (mesh[2:] - mesh[:-2]) / (centres[2:] - centres[:-2])[:, None]
    slopes = np.concatenate([ends[0].derivative(centres[:1]), inner, ends[1].derivative(centres[-1:])])
    out = CubicHermiteSpline(centres, mesh, slopes)(at)
    out[at < centres[0]] = ends[0](at[at < centres[0]])
    out[at > centres[-1]] = ends[1](at[at > centres[-1]])
    return out


def mesh_by_scipy(mesh, shape, *, curved):
    rows = along_axis(np.asarray(mesh, np.float64), shape[0], curved=curved)
    return along_axis(rows.T, shape[1], curved=curved).T


def plain_sky(background, noise):
    rows, cols = background.shape
    return Sky(
        background=background.astype(np.float32),
        noise=noise.astype(np.float32),
        box=32,
        row_seams=np.zeros(rows - 1, bool),
        column_seams=np.zeros(cols - 1, bool),
        pattern=np.zeros((2, 2), np.float32),
        pattern_noise=np.ones((2, 2), np.float32),
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(30, 90), st.integers(30, 90), st.integers(0, 1000))
def test_whitening_is_that_of_scipys_polynomials(rows, cols, height, width, seed):
    rng = np.random.default_rng(seed)
    sky = plain_sky(rng.normal(100.0, 20.0, (rows, cols)), rng.uniform(3.0, 9.0, (rows, cols)))
    pixels = rng.normal(100.0, 30.0, (height, width)).astype(np.float32)
    mask = (rng.random((height, width)) < 0.1).astype(np.uint8)
    level = mesh_by_scipy(sky.background, pixels.shape, curved=True)
    sigma = mesh_by_scipy(sky.noise, pixels.shape, curved=False)
    expected = np.where(mask == 0, (pixels - level) / sigma, np.nan)
    assert np.allclose(white(pixels, sky, mask), expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_the_fit_of_a_box_is_that_of_plain_numpy():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(50.0, 4.0, 9000), 50.0 + rng.exponential(30.0, 1500)]).astype(np.float32)
    level, sigma = module.core(values, 0.0)
    expected = core_by_numpy(values.astype(np.float64), 0.0)
    assert level == pytest.approx(expected[0], abs=0.02)
    assert sigma == pytest.approx(expected[1], rel=0.01)


def test_binning_is_that_of_plain_numpy():
    rng = np.random.default_rng(4)
    whitened = rng.normal(size=(61, 84)).astype(np.float32)
    whitened[rng.random(whitened.shape) < 0.1] = np.nan
    quads = whitened[:60].reshape(30, 2, 42, 2).transpose(0, 2, 1, 3).reshape(30, 42, 4)
    count = np.isfinite(quads).sum(axis=2)
    expected = np.where(count >= 3, np.nansum(quads, axis=2) / np.sqrt(np.maximum(count, 1)), np.nan)
    found = binned(whitened)
    scale = np.nanmedian(expected / found)  # 1, or the measured scatter where that is larger
    assert 1.0 <= scale < 1.1
    assert np.allclose(found * scale, expected, atol=1e-5, equal_nan=True)


def test_galaxies_and_ten_thousand_cosmic_rays_do_not_move_the_sky():
    pixels = euclid_field(seed=5)
    sky = measure_sky(pixels, good(pixels.shape))
    noise = np.hypot(np.sqrt(103.0), 4.4)
    assert abs(np.median(sky.background) - 103.0) < 0.1 * noise
    assert np.abs(sky.background - 103.0).max() < 0.25 * noise
    assert np.median(sky.noise) == pytest.approx(np.hypot(noise, GAIN / np.sqrt(12)), rel=0.03)


def test_a_field_in_which_half_the_pixels_belong_to_stars_keeps_its_sky():
    rng = np.random.default_rng(6)
    pixels = rng.normal(200.0, 10.0, (256, 256))
    y, x = np.mgrid[:256, :256]
    for _ in range(450):
        cx, cy, flux = *rng.uniform(0, 256, 2), 10 ** rng.uniform(1.5, 4.0)
        pixels += flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18.0)
    sky = measure_sky(pixels.astype(np.float32), good(pixels.shape))
    assert np.mean(pixels > 220) > 0.4
    assert np.median(pixels) > 218.0
    assert abs(np.median(sky.background) - 200.0) < 10.0
    assert np.median(sky.noise) == pytest.approx(10.0, rel=0.25)


def test_the_halo_of_a_bright_star_does_not_reach_its_neighbours_boxes():
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:512, :512]
    pixels = rng.normal(100.0, 10.0, (512, 512)) + 2e4 / (1.0 + ((x - 190) ** 2 + (y - 190) ** 2) / 30.0) ** 1.5
    sky = measure_sky(pixels.astype(np.float32), good(pixels.shape), box=64)
    far = np.hypot(*(np.mgrid[:8, :8] * 64 + 32 - 190)) > 200
    assert np.abs(sky.background[far] - 100.0).max() < 3.0


def test_an_empty_frame_becomes_white_noise():
    pixels = np.random.default_rng(8).normal(1000.0, 20.0, (512, 300)).astype(np.float32)
    whitened = white(pixels, measure_sky(pixels, good(pixels.shape)))
    assert abs(whitened.mean()) < 0.03
    assert whitened.std() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 3.0])
def test_integers_with_less_noise_than_a_count_have_the_noise_of_their_rounding(sigma):
    exact = np.random.default_rng(9).normal(1000.3, sigma, (256, 256))
    sky = measure_sky(np.round(exact).astype(np.float32), good(exact.shape))
    rounded = np.round(exact).std()
    assert np.median(sky.noise) == pytest.approx(max(rounded, 12**-0.5), rel=0.05)
    assert abs(np.median(sky.background) - np.round(exact).mean()) < 0.15


def test_a_uint16_frame_gives_the_same_sky_as_its_floats():
    counts = np.random.default_rng(10).poisson(300.0, (200, 260)).astype(np.uint16)
    sky, floats = (measure_sky(array, good(array.shape)) for array in (counts, counts.astype(np.float32)))
    assert np.array_equal(sky.background, floats.background)
    assert np.array_equal(white(counts, sky), white(counts.astype(np.float32), floats))


def test_a_gradient_is_followed_to_the_border_and_is_no_noise():
    y, x = np.mgrid[:600, :600]
    truth = 1000.0 + 0.9 * x - 0.5 * y
    pixels = (truth + np.random.default_rng(11).normal(0.0, 15.0, truth.shape)).astype(np.float32)
    sky = measure_sky(pixels, good(pixels.shape))
    left = mesh_by_scipy(sky.background, truth.shape, curved=True) - truth
    assert np.abs(left).max() < 3.0
    assert np.median(sky.noise) == pytest.approx(15.0, rel=0.03)


def test_vignetting_makes_the_mesh_finer_instead_of_noisier():
    y, x = np.mgrid[:768, :768]
    truth = 5000.0 * (1.0 - 0.3 * ((x - 384) ** 2 + (y - 384) ** 2) / 384**2 / 2)
    pixels = (truth + np.random.default_rng(12).normal(0.0, 12.0, truth.shape)).astype(np.float32)
    sky = measure_sky(pixels, good(pixels.shape))
    assert sky.box < 128
    assert np.median(sky.noise) == pytest.approx(12.0, rel=0.05)
    assert abs(np.median(white(pixels, sky))) < 0.2


def test_the_step_between_two_amplifiers_is_kept_sharp():
    rng = np.random.default_rng(13)
    pixels = rng.normal(100.0, 10.0, (512, 512)).astype(np.float32)
    pixels[:, 256:] += 8.0
    pixels[256:, :256] -= 6.0
    sky = measure_sky(pixels, good(pixels.shape))
    assert sky.column_seams.tolist() == [k == len(sky.column_seams) // 2 for k in range(len(sky.column_seams))]
    whitened = white(pixels, sky)
    for columns in (np.s_[240:256], np.s_[256:272]):
        assert abs(whitened[:200, columns].mean()) < 0.08


def test_an_even_frame_has_no_seam():
    pixels = euclid_field(seed=14)
    sky = measure_sky(pixels, good(pixels.shape))
    assert not sky.row_seams.any()
    assert not sky.column_seams.any()
    assert not sky.pattern.any()


def test_a_bayer_mosaic_is_flattened():
    rng = np.random.default_rng(15)
    pixels = rng.normal(500.0, 10.0, (300, 400))
    pixels[0::2, 1::2] += 60.0 + rng.normal(0.0, 12.0, (150, 200))
    whitened = white(pixels.astype(np.float32), measure_sky(pixels.astype(np.float32), good(pixels.shape)))
    for i, j in np.ndindex(2, 2):
        assert abs(whitened[i::2, j::2].mean()) < 0.1
        assert whitened[i::2, j::2].std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (100, 100), (70, 400), (33, 33)])
def test_small_frames_have_a_sky(shape):
    pixels = np.random.default_rng(16).normal(50.0, 3.0, shape).astype(np.float32)
    sky = measure_sky(pixels, good(shape))
    assert sky.noise.min() > 0.0
    assert np.isfinite(white(pixels, sky)).all()
    if min(shape) >= 33:
        assert abs(np.median(sky.background) - 50.0) < 0.6


def test_a_box_without_good_pixels_takes_its_neighbours_sky():
    pixels = np.random.default_rng(17).normal(100.0, 5.0, (512, 512)).astype(np.float32)
    pixels[0:128, 0:128] = 5e4
    mask = good(pixels.shape)
    mask[0:128, 0:128] = 1
    pixels[300, 300] = np.nan
    sky = measure_sky(pixels, mask)
    assert sky.background[0, 0] == pytest.approx(100.0, abs=1.0)
    whitened = white(pixels, sky, mask)
    assert np.isnan(whitened[:128, :128]).all()
    assert np.isnan(whitened[300, 300])
    assert np.isfinite(whitened).sum() == 512 * 512 - 128 * 128 - 1


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_frame_that_says_nothing_gives_no_infinities(value):
    pixels = np.full((128, 128), value, np.float32)
    sky = measure_sky(pixels, good(pixels.shape))
    assert np.isfinite(sky.background).all()
    assert (sky.noise > 0.0).all()
    assert not np.isinf(white(pixels, sky)).any()


def test_binning_correlated_noise_does_not_raise_its_sigma():
    noise = np.random.default_rng(18).normal(size=(513, 513))
    smooth = noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]
    assert binned((smooth / 2.0).astype(np.float32)).std() == pytest.approx(1.0, abs=0.03)
    assert binned(noise.astype(np.float32)).std() == pytest.approx(1.0, abs=0.03)


def test_whitening_leaves_its_input_alone_and_pads_with_nan():
    pixels = np.random.default_rng(19).normal(10.0, 1.0, (50, 60)).astype(np.float32)
    before = pixels.copy()
    sky = measure_sky(pixels, good(pixels.shape))
    padded = whiten(pixels, good(pixels.shape), replace(sky), window=24, step=8)
    assert np.array_equal(pixels, before)
    assert padded.shape == Tiling(24, 8).padded_shape(pixels.shape)
    assert np.isfinite(padded).sum() == 50 * 60


def test_boxes_smaller_than_a_star_are_refused():
    with pytest.raises(ValueError, match="at least 32 px"):
        measure_sky(np.zeros((64, 64), np.float32), good((64, 64)), box=16)
