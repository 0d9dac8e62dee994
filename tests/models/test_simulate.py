"""Trails, cosmic rays, optics, skies and detectors: what training and evaluation take for nature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from models.simulate.asteroids import SOURCES_PER_PX, Kernel, add_trails
from models.simulate.conditions import KINDS, Backdrop, Defects, draw_conditions
from models.simulate.cosmicrays import Rays, add_cosmic_rays
from models.simulate.defects import _bleed, add_ghosts, add_long_spikes, expose, expose_again
from models.simulate.psf import Optics, draw_optics, point_spread
from models.simulate.sky import Sources, draw_scene, paint_sources


def gaussian_kernel(fwhm_px=1.7, oversampling=5, radius_px=10):
    axis = np.arange(-radius_px * oversampling, radius_px * oversampling + 1) / oversampling
    profile = np.exp(-0.5 * (axis / (fwhm_px / 2.3548)) ** 2)
    values = np.outer(profile, profile)
    return Kernel((values * oversampling**2 / values.sum()).astype(np.float32), oversampling, fwhm_px)


def add_trails_slowly(shape, trails, kernel):
    """The twin: every pixel looks up every sub-source's kernel, linearly interpolated."""
    image = np.zeros(shape)
    y, x = np.indices(shape)
    half = kernel.values.shape[0] // 2
    for x0, y0, x1, y1, flux in trails:
        n = max(1, int(np.ceil(np.hypot(x1 - x0, y1 - y0) * SOURCES_PER_PX)))
        for t in (np.arange(n) + 0.5) / n:
            at = [(y - y0 - t * (y1 - y0)) * kernel.oversampling + half]
            at.append((x - x0 - t * (x1 - x0)) * kernel.oversampling + half)
            image += flux / n * ndimage.map_coordinates(kernel.values.astype(float), at, order=1, cval=0.0)
    return image


def trails_of(rng, n, size):
    ends = rng.uniform(-10.0, size + 10.0, (n, 2))
    return np.column_stack([ends, ends + rng.normal(0.0, 15.0, (n, 2)), rng.uniform(100.0, 1e5, n)])


@pytest.mark.parametrize("oversampling", [1, 3, 4, 5])
def test_trails_equal_those_of_the_slow_twin(oversampling):
    rng = np.random.default_rng(1)
    kernel = gaussian_kernel(fwhm_px=2.5, oversampling=oversampling)
    trails = trails_of(rng, 12, 64)
    trails[0, 2:4] = trails[0, :2] = 20.3, 30.8
    trails[1, :4] = 10.0, 20.0, 30.0, 20.0
    image = np.zeros((64, 64), np.float32)
    add_trails(image, trails, kernel)
    np.testing.assert_allclose(image, add_trails_slowly(image.shape, trails, kernel), rtol=1e-4, atol=0.1)


@given(
    st.floats(40.0, 60.0), st.floats(40.0, 60.0), st.floats(-30.0, 30.0), st.floats(-30.0, 30.0), st.floats(1e3, 1e6)
)
@settings(max_examples=40, deadline=None)
def test_a_trail_within_the_image_keeps_its_light_and_its_middle(x, y, dx, dy, flux):
    image = np.zeros((101, 101), np.float32)
    add_trails(image, np.array([[x - 0.5 * dx, y - 0.5 * dy, x + 0.5 * dx, y + 0.5 * dy, flux]]), gaussian_kernel())
    total = image.sum(dtype=float)
    assert total == pytest.approx(flux, rel=2e-3)
    middle = ndimage.center_of_mass(image.astype(float))
    assert middle == pytest.approx((y, x), abs=0.005)


def test_a_trail_beyond_the_image_changes_nothing_and_one_across_the_edge_is_cut():
    image = np.zeros((50, 50), np.float32)
    add_trails(
        image, np.array([[-200.0, -200.0, -100.0, -150.0, 1e6], [90.0, 10.0, 95.0, 12.0, 1e6]]), gaussian_kernel()
    )
    assert not image.any()
    add_trails(image, np.array([[40.0, 25.0, 59.0, 25.0, 1e4]]), gaussian_kernel())
    assert image.sum() == pytest.approx(1e4 * 9.5 / 19.0, rel=0.01)


def test_a_negative_trail_takes_a_trail_away():
    image = np.zeros((50, 50), np.float32)
    trail = np.array([[10.0, 10.0, 30.0, 35.0, 5e4]])
    add_trails(image, np.vstack([trail, trail * [1, 1, 1, 1, -1]]), gaussian_kernel())
    assert np.abs(image).max() < 0.01


def test_cosmic_rays_are_as_many_and_as_long_as_asked_for():
    rays = Rays(median_length_px=10.0, worm_share=0.0, hit_share=0.0, diffusion_px=0.0, fixed_charge_share=0.0)
    image = np.zeros((3000, 3000), np.float32)
    add_cosmic_rays(image, 800, 3, rays=rays)
    labels, n = ndimage.label(image > 1.0, np.ones((3, 3)))
    assert n == pytest.approx(800, abs=4 * np.sqrt(800))
    lengths = [np.hypot(*(side.stop - side.start for side in box)) for box in ndimage.find_objects(labels)]
    assert np.median(lengths) == pytest.approx(11.0, abs=2.0)  # and a pixel for the width
    assert np.percentile(lengths, 95) > 35.0


def test_euclid_cosmic_rays_touch_about_one_pixel_in_seventy():
    image = np.zeros((2000, 2000), np.float32)
    conditions = draw_conditions(np.random.default_rng(2), "euclid-reference")
    add_cosmic_rays(image, conditions.rays_per_mpx * 4.0, 5)
    assert 0.008 < (image > conditions.noise_e).mean() < 0.02


def across(image):
    """Root-mean-square width of the light of one track across its length, pixels."""
    y, x = np.nonzero(image > 0)
    return np.sqrt(np.linalg.eigvalsh(np.cov(np.vstack([x, y]), aweights=image[y, x].astype(float)))[0])


def test_cosmic_rays_are_sharper_than_the_sharpest_psf():
    rays = Rays(median_length_px=10.0, worm_share=0.0, hit_share=0.0, diffusion_px=0.3, electrons_per_px=1e4)
    image = np.zeros((1500, 1500), np.float32)
    add_cosmic_rays(image, 60, 4, rays=rays)
    labels, n = ndimage.label(image > 1.0, np.ones((3, 3)))
    widths = [across(np.where(labels == k, image, 0)[box]) for k, box in enumerate(ndimage.find_objects(labels), 1)]
    trail = np.zeros((60, 60), np.float32)
    kernel = point_spread(draw_optics(np.random.default_rng(0), "euclid-vis"), extent_px=40).core
    add_trails(trail, np.array([[20.0, 20.0, 33.0, 27.0, 1e5]]), kernel)
    assert n > 40
    assert np.median(widths) < 0.6 * across(trail)


@pytest.mark.parametrize("kind", ["euclid-vis", "kids-omegacam", "subaru-hsc", "generic"])
def test_every_psf_keeps_its_light_and_its_place(kind):
    for seed in range(6):
        optics = draw_optics(np.random.default_rng(seed), kind)
        spread = point_spread(optics, extent_px=60)
        image = np.zeros((151, 151), np.float32)
        star = np.array([[75.2, 74.6, 75.2, 74.6, 1e7]])
        add_trails(image, star * [1, 1, 1, 1, 1.0 - spread.wing_share], spread.core)
        y, x = np.indices(image.shape)
        near = np.hypot(x - 75.2, y - 74.6) < 3.0 * optics.size_px + 0.5
        assert ndimage.center_of_mass(np.where(near, image, 0.0)) == pytest.approx((74.6, 75.2), abs=0.05)
        add_trails(image, star, spread.wings)
        assert image.sum(dtype=float) == pytest.approx(1e7, rel=5e-3)
        assert spread.core.values.min() >= 0.0
        assert 1.2 < spread.core.fwhm_px < 7.0


def test_euclids_psf_is_as_wide_as_euclids():
    widths = [
        point_spread(draw_optics(np.random.default_rng(seed), "euclid-vis"), extent_px=40).core.fwhm_px
        for seed in range(12)
    ]
    assert min(widths) > 1.35
    assert max(widths) < 2.0
    assert 1.5 < np.median(widths) < 1.8


def test_a_psf_without_a_name_is_refused():
    with pytest.raises(ValueError, match="triangle"):
        point_spread(Optics(kind="triangle", size_px=2.0), extent_px=40)
    with pytest.raises(ValueError, match="jwst"):
        draw_optics(np.random.default_rng(0), "jwst")


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_follows_from_its_seed(kind):
    conditions = draw_conditions(np.random.default_rng(8), kind)
    one, same = draw_scene(conditions, (200, 240), 5), draw_scene(conditions, (200, 240), 5)
    other = draw_scene(conditions, (200, 240), 6)
    np.testing.assert_array_equal(one.electrons, same.electrons)
    assert not np.array_equal(one.electrons, other.electrons)
    assert one.electrons.dtype == np.float32
    assert one.electrons.shape == (200, 240)
    assert np.isfinite(one.electrons).all()
    assert one.electrons.min() >= 0.05 * conditions.sky_e
    exposed = expose(one.electrons, conditions, 1)
    np.testing.assert_array_equal(exposed, expose(one.electrons, conditions, 1))
    assert np.isfinite(exposed).all()


def test_galaxies_keep_their_light_whatever_their_shape():
    conditions = draw_conditions(np.random.default_rng(8), "euclid-vis")
    conditions = replace(conditions, backdrop=Backdrop())
    spread = point_spread(conditions.optics, extent_px=60)
    for row, ratio, radius, arms in [(2, 0.12, 6.0, 0.7), (6, 0.8, 4.0, 0.0), (0, 1.0, 0.4, 0.0), (2, 0.5, 20.0, 0.5)]:
        image = np.zeros((801, 801), np.float32)
        galaxies = np.array([[400.3, 399.6, 1e6, radius, row, ratio, 0.6, arms, 1.0]])
        paint_sources(image, Sources(np.empty((0, 3)), galaxies), spread, conditions)
        assert image.sum(dtype=float) == pytest.approx(1e6, rel=0.03)
        assert ndimage.center_of_mass(image.astype(float)) == pytest.approx((399.6, 400.3), abs=0.3)


def quiet(kind="euclid-vis", **changes):
    """Conditions without any defect or cosmic ray."""
    clean = Defects(hot_pixels=0, hot_columns=0, dead_columns=0, gain_spread=0, step_e=0)
    conditions = draw_conditions(np.random.default_rng(1), kind)
    return replace(conditions, rays_per_mpx=0.0, defects=replace(clean, **changes))


@pytest.mark.parametrize("sky_e", [3.0, 20.0, 100.0, 20_000.0])
def test_the_noise_of_an_empty_sky_is_that_of_photons_read_out_and_rounding(sky_e):
    conditions = replace(quiet(), sky_e=sky_e)
    image = expose(np.full((600, 600), sky_e, np.float32), conditions, 2)
    expected = np.sqrt(sky_e + conditions.read_noise_e**2 + conditions.gain_e_adu**2 / 12.0)
    assert image.std() == pytest.approx(expected, rel=0.01)
    assert image.mean() == pytest.approx(sky_e, abs=4 * expected / 600)
    assert np.allclose(image / conditions.gain_e_adu, np.rint(image / conditions.gain_e_adu), atol=1e-2)


def test_bleeding_moves_charge_along_columns_and_loses_none():
    image = np.full((300, 50), 100.0, np.float32)
    image[150, 20] = 100_000.0
    before = image.sum(dtype=float)
    _bleed(image, 10_000.0)
    assert image.sum(dtype=float) == pytest.approx(before, rel=1e-5)
    assert image.max() <= 10_000.0
    assert (image[:, 20] >= 9_999.0).sum() == 1 + 2 * 4  # 45,000 e- either way into wells with room for 9,900
    assert (np.delete(image, 20, axis=1) == 100.0).all()


def test_a_saturated_star_reaches_the_saturation_level_and_no_further():
    conditions = quiet(full_well_e=50_000.0)
    electrons = np.full((100, 100), 100.0, np.float32)
    add_trails(electrons, np.array([[50.0, 50.0, 50.0, 50.0, 5e6]]), gaussian_kernel())
    image = expose(electrons, conditions, 3)
    assert (image >= conditions.saturation_e).sum() > 50
    assert image.max() < 50_000.0 + 6.0 * conditions.read_noise_e


def test_a_detector_keeps_its_defects_while_noise_and_cosmic_rays_change():
    conditions = replace(quiet(hot_pixels=500.0, hot_columns=10.0, column_e=5e4), rays_per_mpx=300.0)
    sky = np.full((300, 300), 100.0, np.float32)
    one, rays = expose_again(sky, conditions, 1, detector_seed=9)
    two, others = expose_again(sky, conditions, 2, detector_seed=9)
    assert not np.array_equal(rays, others)
    hot = (one - rays > 1e4) & (rays == 0) & (others == 0)
    assert hot.sum() > 20
    assert (two[hot] > 5e3).all()


@pytest.mark.parametrize(
    ("changes", "dark"),
    [({"overscan_px": 20, "ccd_shape": (300, 300)}, 0.249), ({"lit_radius": 0.7, "ccd_shape": (300, 300)}, 0.23)],
)
def test_what_saw_no_light_holds_read_noise_only(changes, dark):
    image = expose(np.full((300, 300), 5_000.0, np.float32), quiet(**changes), 4)
    assert (image < 500.0).mean() == pytest.approx(dark, abs=0.04)


def test_amplifiers_and_bayer_filters_show_as_steps_and_chequers():
    sky = np.full((200, 200), 10_000.0, np.float32)
    image = expose(sky, quiet(gain_spread=0.05, ccd_shape=(200, 200)), 5)
    quarters = [image[:100, :100].mean(), image[:100, 100:].mean(), image[100:, :100].mean(), image[100:, 100:].mean()]
    assert np.ptp(quarters) > 200.0
    image = expose(sky, quiet(bayer=0.3), 6)
    assert np.ptp([image[i::2, j::2].mean() for i in range(2) for j in range(2)]) > 500.0


def test_resampling_correlates_neighbours_and_residuals_go_below_the_sky():
    sky = np.full((300, 300), 1_000.0, np.float32)
    image = expose(sky, quiet(resampling=0.12), 7) - 1_000.0
    assert np.mean(image[:, 1:] * image[:, :-1]) / image.var() > 0.2
    image = expose(sky, replace(quiet(residuals=500.0), sky_e=1_000.0), 8) - 1_000.0
    assert image.min() < -300.0
    assert image.max() > 300.0


def test_a_ghost_holds_its_share_of_the_stars_light_beside_the_star():
    image = np.zeros((300, 300), np.float32)
    add_ghosts(image, np.array([[100.0, 100.0, 1e7], [20.0, 20.0, 1e3]]), 1e6, 1e-3, (60.0, 20.0), (10.0, 30.0))
    assert image.sum(dtype=float) == pytest.approx(1e4, rel=0.05)
    assert ndimage.center_of_mass(image.astype(float)) == pytest.approx((120.0, 160.0), abs=0.5)
    assert image[120, 160] == 0.0


def test_long_spikes_lie_on_their_lines_and_begin_where_the_kernel_ends():
    image = np.zeros((800, 800), np.float32)
    add_long_spikes(image, np.array([[400.0, 400.0, 1e9]]), np.array([30.0]), 1e-4, 1.0, 100.0)
    y, x = np.nonzero(image > 0.05)
    line = (x - 400.0) * np.sin(np.radians(30.0)) - (y - 400.0) * np.cos(np.radians(30.0))
    assert np.abs(line).max() < 6.0
    assert np.hypot(x - 400.0, y - 400.0).min() > 75.0
    assert (x > 600).any()
    assert (x < 200).any()
