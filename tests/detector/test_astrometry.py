import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.astrometry import on_the_sky, pixel_scale_arcsec, to_pixels, to_sky
from detector.frame import FrameHeader
from detector.streaks import empty
from detector.survey import GENERIC

SCALE = 0.2 / 3600


def tan(ra=150.0, dec=2.0, rotation_deg=0.0, flip=-1.0):
    """A gnomonic WCS of 0.2 arcsec whose reference pixel is (50, 50)."""
    wcs = WCS(naxis=2)
    turn = np.radians(rotation_deg)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([flip, 1.0]) * SCALE
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = ["RA---TAN", "DEC--TAN"], [ra, dec], [51, 51], matrix
    wcs.wcs.set()
    return wcs


def header(wcs, exposure_s=100.0):
    return FrameHeader("f", 0, (100, 100), GENERIC, wcs=wcs, exposure_s=exposure_s)


def streaks(*ends):
    """Streaks with these ends (x0, y0, x1, y1)."""
    table = empty(len(ends))
    for name, values in zip(("x0", "y0", "x1", "y1"), np.array(ends, float).T, strict=True):
        table[name] = values
    return table


places = st.tuples(st.floats(0, 360), st.floats(-90, 90), st.floats(0, 360), st.sampled_from([-1.0, 1.0]))
pixels = st.floats(0, 100)


@given(places, st.tuples(pixels, pixels, pixels, pixels))
@settings(deadline=None, max_examples=150)
def test_ends_length_and_direction_agree_with_astropy_everywhere(place, ends):
    wcs = tan(*place)
    (row,) = on_the_sky(streaks(ends), None, header(wcs))
    one, other = wcs.pixel_to_world(ends[0], ends[1]), wcs.pixel_to_world(ends[2], ends[3])
    middle = wcs.pixel_to_world((ends[0] + ends[2]) / 2, (ends[1] + ends[3]) / 2)
    for coordinate, suffix in ((one, "0"), (other, "1"), (middle, "")):
        found = SkyCoord(row[f"ra{suffix}"], row[f"dec{suffix}"], unit="deg")
        assert found.separation(coordinate).arcsec < 1e-6
        assert 0.0 <= row[f"ra{suffix}"] < 360.0
    length = one.separation(other).arcsec
    assert row["trail_length_arcsec"] == pytest.approx(length, abs=1e-6)
    assert row["rate_arcsec_h"] == pytest.approx(length * 36.0, abs=1e-4)
    if length > 0.1:
        angle = middle.position_angle(other).deg
        assert 0.0 <= row["trail_angle_deg"] < 180.0
        assert abs((row["trail_angle_deg"] - angle + 90.0) % 180.0 - 90.0) < 1e-3


@given(places, st.tuples(pixels, pixels, pixels, pixels), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_errors_agree_with_a_cloud_of_shifted_ends(place, ends, seed):
    if np.hypot(ends[2] - ends[0], ends[3] - ends[1]) < 20.0:
        return
    rng = np.random.default_rng(seed)
    root = rng.normal(0, 0.1, (4, 4))
    covariance = root @ root.T + np.eye(4) * 1e-3
    wcs = tan(*place)
    (row,) = on_the_sky(streaks(ends), covariance[None], header(wcs))
    cloud = on_the_sky(streaks(*rng.multivariate_normal(ends, covariance, 4000)), None, header(wcs))
    here = SkyCoord(row["ra"], row["dec"], unit="deg")
    east, north = here.spherical_offsets_to(SkyCoord(cloud["ra"], cloud["dec"], unit="deg"))
    assert row["ra_err"] == pytest.approx(east.deg.std(), rel=0.06)
    assert row["dec_err"] == pytest.approx(north.deg.std(), rel=0.06)
    assert row["ra_dec_corr"] == pytest.approx(np.corrcoef(east.deg, north.deg)[0, 1], abs=0.06)
    assert row["trail_length_arcsec_err"] == pytest.approx(cloud["trail_length_arcsec"].std(), rel=0.06)
    assert row["rate_arcsec_h_err"] == pytest.approx(36 * row["trail_length_arcsec_err"])
    turns = (cloud["trail_angle_deg"] - row["trail_angle_deg"] + 90.0) % 180.0 - 90.0
    # Within 10 arcsec of a pole the direction of North itself is uncertain, which the error of the angle leaves out.
    if abs(row["dec"]) < 89.9:
        assert row["trail_angle_deg_err"] == pytest.approx(turns.std(), rel=0.06)


@given(places, pixels, pixels)
@settings(deadline=None, max_examples=60)
def test_sky_and_back_is_the_same_pixel(place, x, y):
    wcs = tan(*place)
    back = to_pixels(wcs, *to_sky(wcs, np.array([x]), np.array([y])))
    assert np.hypot(back[0] - x, back[1] - y)[0] < 1e-4


def test_a_streak_across_ra_zero_has_a_middle_between_its_ends():
    (row,) = on_the_sky(streaks((30, 50, 70, 50)), None, header(tan(ra=0.0, dec=0.0)))
    assert row["ra0"] < 1.0
    assert row["ra1"] > 359.0
    assert min(row["ra"], 360.0 - row["ra"]) < 1e-9
    assert row["trail_length_arcsec"] == pytest.approx(8.0, rel=1e-6)
    assert row["trail_angle_deg"] == pytest.approx(90.0)


def test_known_directions():
    north_up = header(tan())
    ends = [(50, 40, 50, 60), (40, 50, 60, 50), (40, 40, 60, 60), (40, 60, 60, 40)]
    angles = on_the_sky(streaks(*ends), None, north_up)["trail_angle_deg"]
    # East is to the left: up and to the right is North to West.
    np.testing.assert_allclose(angles, [0.0, 90.0, 135.0, 45.0], atol=1e-3)


def test_a_frame_without_a_wcs_keeps_its_pixels_and_nothing_else():
    table = streaks((1, 2, 3, 4))
    (row,) = on_the_sky(table, np.eye(4)[None], header(None))
    assert row["x1"] == 3
    assert np.isnan([row["ra"], row["trail_length_arcsec"], row["rate_arcsec_h"], row["ra_err"]]).all()


def test_the_given_table_is_left_alone():
    table = streaks((1, 2, 30, 4))
    on_the_sky(table, None, header(tan()))
    assert np.isnan(table["ra"]).all()


def test_a_point_has_a_place_and_no_direction():
    (row,) = on_the_sky(streaks((10, 10, 10, 10)), np.eye(4)[None] * 0.01, header(tan()))
    assert row["trail_length_arcsec"] == 0.0
    assert np.isnan([row["trail_angle_deg"], row["trail_angle_deg_err"]]).all()
    assert row["ra_err"] == pytest.approx(0.1 / np.sqrt(2) * SCALE, rel=1e-3)


def test_without_an_exposure_time_there_is_no_rate():
    (row,) = on_the_sky(streaks((10, 10, 30, 10)), None, header(tan(), exposure_s=None))
    assert np.isnan(row["rate_arcsec_h"])
    assert row["trail_length_arcsec"] == pytest.approx(4.0, rel=1e-4)


def test_a_pixel_behind_the_projection_is_nan_alone():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = ["RA---SIN", "DEC--SIN"], [0, 0], [51, 51], [-0.1, 0.1]
    found = on_the_sky(streaks((40, 50, 60, 50), (40, 50, 9000, 50)), None, header(wcs))
    assert np.isfinite(found["trail_length_arcsec"][0])
    assert np.isnan(found["trail_length_arcsec"][1])


def test_positions_are_icrs_whatever_the_frame_says():
    wcs = tan()
    wcs.wcs.radesys, wcs.wcs.equinox = "FK4", 1950.0
    ra, dec = to_sky(wcs, np.array([50.0]), np.array([50.0]))
    expected = SkyCoord(150 * units.deg, 2 * units.deg, frame="fk4", equinox="B1950").icrs
    assert SkyCoord(ra[0], dec[0], unit="deg").separation(expected).arcsec < 0.5


def test_the_scale_is_that_of_the_place():
    assert pixel_scale_arcsec(tan(), 50.0, 50.0) == pytest.approx(0.2, rel=1e-7)
