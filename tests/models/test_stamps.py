import numpy as np
import pytest

from detector.whitening import binned as bin_frame
from models.simulate.lensing import Deflector, unlensed, unlensed_plainly
from models.simulate.profiles import add_disc, add_sersic, add_spot
from models.simulate.stamps import LABELS, STAMP_PX, TRUTH, binning, draw_stamps
from models.simulate.viewing import binned


@pytest.fixture(scope="module")
def lenses():
    return draw_stamps("lenses", 24, survey="kids-omegacam", seed=41, exposures=1)


def test_half_of_the_lens_stamps_are_lenses_and_only_they_have_an_information_content(lenses):
    assert lenses.pixels.shape == (24, STAMP_PX, STAMP_PX)
    assert lenses.pixels.dtype == np.float32
    assert (lenses.label == LABELS["lens"]).sum() == 12
    np.testing.assert_array_equal(np.isfinite(lenses.ic), lenses.label == LABELS["lens"])
    assert (lenses.ic[lenses.label == LABELS["lens"]] > 0.0).all()
    assert set(lenses.truth) == set(TRUTH)
    assert len(lenses.kind) == len(lenses.survey) == 24


def test_the_same_seed_gives_the_same_stamps_whatever_the_count(lenses):
    some = draw_stamps("lenses", 3, survey="kids-omegacam", seed=41, exposures=1, first=7)
    np.testing.assert_array_equal(some.pixels, lenses.pixels[7:10])
    other = draw_stamps("lenses", 3, survey="kids-omegacam", seed=42, exposures=1, first=7)
    assert not np.array_equal(other.pixels, some.pixels)


def test_an_empty_sky_has_a_sigma_of_one():
    stamps = draw_stamps("discriminator", 40, survey="subaru-hsc", seed=3, exposures=1, shares=(0, 0, 0, 1))
    assert set(stamps.kind) == {"asteroid"}
    quiet = np.nan_to_num(stamps.pixels[:, 4:-4, 4:-4], nan=0.0)
    low = np.quantile(quiet, [0.159, 0.5])
    assert low[1] - low[0] == pytest.approx(1.0, abs=0.05)


def test_euclids_frames_are_binned_for_mergers_and_not_for_lenses():
    assert [binning(task, "euclid-vis") for task in ("lenses", "mergers", "discriminator")] == [1, 2, 2]
    assert binning("mergers", "kids-omegacam") == 1
    stamps = draw_stamps("mergers", 2, survey="euclid-vis", seed=5)
    assert stamps.pixel_scale_arcsec == pytest.approx(0.2)
    assert stamps.label.tolist() == [0, LABELS["merger"]]


def test_stamps_are_binned_as_the_frames_are():
    level = np.random.default_rng(1).normal(0.0, 1.0, (64, 64)).astype(np.float32)
    level[3:5, 7] = np.nan
    level[10:12, 20:22] = np.nan
    np.testing.assert_allclose(binned(level, 2), bin_frame(level), atol=0.03)


def test_unknown_tasks_and_surveys_are_named():
    with pytest.raises(ValueError, match="quasars"):
        binning("quasars", "euclid-vis")
    with pytest.raises(ValueError, match="sdss"):
        draw_stamps("lenses", 1, survey="sdss", seed=1)


def test_rays_end_where_the_plain_twin_says():
    rng = np.random.default_rng(2)
    lens = Deflector(x=3.0, y=-1.0, einstein=10.0, ratio=0.7, angle=0.6, shear=0.08, shear_angle=1.1)
    x, y = rng.uniform(-30.0, 30.0, (2, 50))
    plain = np.column_stack(unlensed_plainly(lens, x, y))
    fast = np.array([unlensed(lens.array(), px, py) for px, py in zip(x, y, strict=True)])
    np.testing.assert_allclose(fast, plain, atol=1e-6)


def test_the_mean_convergence_within_the_einstein_radius_is_one():
    lens = Deflector(x=0.0, y=0.0, einstein=5.0, ratio=0.6, angle=0.3, shear=0.0, shear_angle=0.0)
    turn = np.linspace(0.0, 2.0 * np.pi, 2000, endpoint=False)
    # Gauss: the flux of the deflection through a curve is twice the convergence inside. The ellipse of this area:
    u, v = 5.0 / np.sqrt(0.6) * np.cos(turn), 5.0 * np.sqrt(0.6) * np.sin(turn)
    x, y = u * np.cos(0.3) - v * np.sin(0.3), u * np.sin(0.3) + v * np.cos(0.3)
    bx, by = unlensed_plainly(lens, x, y)
    ax, ay = x - bx, y - by
    flow = np.sum(ax * np.gradient(y) - ay * np.gradient(x))
    assert flow / (2.0 * np.pi * 25.0) == pytest.approx(1.0, rel=5e-3)


def test_profiles_hold_the_light_they_are_given():
    for index, tolerance in ((1.0, 0.01), (4.0, 0.08)):
        image = np.zeros((401, 401), np.float32)
        add_sersic(image, 200.3, 199.8, 1000.0, 9.0, index, 0.6, 0.4)
        assert image.sum() == pytest.approx(1000.0, rel=tolerance)
    image = np.zeros((201, 201), np.float32)
    add_disc(
        image, np.array([100.0, 100.0, 8.0, 0.5, 1.0]), 500.0, np.array([2.0, 0.8, 2.0, 0.3, 0.0]),
        np.array([1.0, 0.2, 0.3, 0.5, 0.0]),
    )  # fmt: skip
    assert image.sum() == pytest.approx(500.0, rel=0.02)
    add_spot(image, 50.2, 60.7, 70.0, 0.8)
    assert image.sum() == pytest.approx(570.0, rel=0.02)
