"""Whole exposures and their truth: what every published figure is measured against."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from detector.fits import read_frames
from detector.frame import Frame, MaskBit
from models.evaluate.accuracy import bounds
from models.simulate.asteroids import Kernel, add_trails
from models.simulate.exposure import Plan, draw_field, write_fields
from models.simulate.trails import trail_bounds, trail_snr

SMALL = Plan(kind="euclid-reference", shape=(300, 260), asteroids=6, dithers=2, magnitudes=(18.0, 18.5))


def frames_of(path):
    return [frame for frame in read_frames(path, name=path.name) if isinstance(frame, Frame)]


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_truth_lies_where_the_light_is():
    plan = Plan(shape=(600, 600), asteroids=9, dithers=1, magnitudes=(18.0, 18.2), rates_arcsec_h=(2.0, 12.0))
    empty = replace(plan, asteroids=0)
    checked = 0
    for with_asteroids, without in zip(draw_field(plan, 3), draw_field(empty, 3), strict=True):
        light = with_asteroids[0].adu.astype(float) - without[0].adu
        truths = with_asteroids[0].truths
        assert not without[0].truths
        for truth in truths:
            x, y = 0.5 * (truth.x0 + truth.x1), 0.5 * (truth.y0 + truth.y1)
            reach_x, reach_y = (0.5 * abs(truth.x1 - truth.x0) + 8, 0.5 * abs(truth.y1 - truth.y0) + 8)
            rows, columns = (slice(int(c - r), int(c + r) + 2) for c, r in ((y, reach_y), (x, reach_x)))
            alone = all(
                truth is other or np.hypot(0.5 * (other.x0 + other.x1) - x, 0.5 * (other.y0 + other.y1) - y) > 45
                for other in truths
            )
            if rows.start < 0 or columns.start < 0 or rows.stop > 600 or columns.stop > 600 or not alone:
                continue
            stamp = light[rows, columns]
            stamp[np.abs(stamp) < 8] = 0.0  # the noise's small changes
            middle = ndimage.center_of_mass(stamp)
            assert (middle[1] + columns.start, middle[0] + rows.start) == pytest.approx((x, y), abs=0.02)
            assert stamp.sum() * 3.48 == pytest.approx(truth.flux_e, rel=0.05)
            checked += 1
    assert checked >= 3


def test_an_asteroid_moves_on_the_sky_as_fast_and_where_its_trail_says():
    exposures = list(draw_field(Plan(kind="euclid-vis", shape=(900, 900), asteroids=20, dithers=2), 11))
    first = {truth.object: truth for truth in exposures[0][0].truths}
    pairs = [(first[t.object], t) for t in exposures[1][0].truths if t.object in first]
    assert pairs
    for one, two in pairs:
        east = (two.ra - one.ra) * np.cos(np.radians(one.dec)) * 3600.0
        north = (two.dec - one.dec) * 3600.0
        assert np.hypot(east, north) == pytest.approx(one.rate_arcsec_h * 1070.0 / 3600.0, rel=1e-3)
        assert np.degrees(np.arctan2(east, north)) % 360.0 == pytest.approx(one.position_angle_deg, abs=0.1)
        assert one.length_px == pytest.approx(one.rate_arcsec_h * 565.0 / 3600.0 / 0.1, rel=1e-3)


def test_the_same_sky_lies_under_the_dithers():
    """Stars of one exposure, carried over by the two WCS, are stars of the other."""
    plan = Plan(kind="kids-omegacam", shape=(900, 900), asteroids=0, dithers=2)
    one, two = (exposure[0] for exposure in draw_field(plan, 21))
    shift = np.array([two.cards["CRVAL1"][0] - one.cards["CRVAL1"][0], two.cards["CRVAL2"][0] - one.cards["CRVAL2"][0]])
    assert np.hypot(*shift) * 3600.0 > 20.0
    matrix = np.array([[one.cards[f"PC{i}_{j}"][0] for j in (1, 2)] for i in (1, 2)])
    declination = np.radians(one.cards["CRVAL2"][0])
    moved = -np.linalg.solve(matrix, shift * [np.cos(declination), 1.0])
    smooth = [ndimage.gaussian_filter(np.minimum(f.adu, np.median(f.adu) + 300).astype(float), 1.5) for f in (one, two)]

    def likeness(dx, dy):
        carried = ndimage.shift(smooth[0], moved[::-1] + np.array([dy, dx]), order=1, cval=np.nan)
        common = np.isfinite(carried)
        assert common.mean() > 0.2
        return np.corrcoef(carried[common], smooth[1][common])[0, 1]

    there = likeness(0.0, 0.0)
    assert there > 0.3
    assert all(likeness(*off) < there for off in [(2.0, 0.0), (-2.0, 0.0), (0.0, 2.0), (0.0, -2.0)])


def test_files_are_read_back_with_all_that_the_header_says(tmp_path):
    done = []
    truth = write_fields(tmp_path, SMALL, 900_001, fields=2, progress=lambda k, n: done.append((k, n)))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    listed = rows_of(tmp_path / "frames.csv")
    assert len(listed) == 4
    assert len({row["field"] for row in listed}) == 2
    for row in listed:
        (frame,) = frames_of(tmp_path / row["frame"])
        header = frame.header
        assert header.survey.name == "euclid-vis"
        assert (header.exposure, header.ccd, header.field) == (row["exposure"], row["ccd"], row["field"])
        assert header.zero_point == pytest.approx(25.50, abs=1e-4)
        assert (header.gain_e_adu, header.exposure_s, header.read_noise_e) == (3.48, 565.0, 4.4)
        assert frame.pixels.shape == (300, 260)
        assert not header.flags
        mine = [t for t in rows_of(truth) if t["frame"] == row["frame"]]
        for t in mine:
            sky = header.wcs.all_pix2world([[float(t["x0"]), float(t["y0"])], [float(t["x1"]), float(t["y1"])]], 0)
            expected = [[float(t["ra0"]), float(t["dec0"])], [float(t["ra1"]), float(t["dec1"])]]
            np.testing.assert_allclose(sky, expected, atol=0.002 * 0.1 / 3600.0 / 0.4)
    assert sum(int(t["inside"]) for t in rows_of(truth)) > 8


def test_a_compressed_mosaic_holds_the_same_pixels_as_a_plain_one(tmp_path):
    plan = Plan(kind="subaru-hsc", shape=(200, 150), asteroids=2, dithers=1, ccds=3)
    write_fields(tmp_path / "plain", plan, 5)
    write_fields(tmp_path / "packed", plan, 5, compressed=True)
    plain = frames_of(next((tmp_path / "plain").glob("*.fits")))
    packed = frames_of(next((tmp_path / "packed").glob("*.fits.fz")))
    assert [f.header.extension for f in plain] == [f.header.extension for f in packed] == [1, 2, 3]
    assert [f.header.ccd for f in packed] == ["1", "2", "3"]
    for one, other in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_cosmic_ray_flags_go_along_when_asked_for(tmp_path):
    write_fields(tmp_path, SMALL, 7, flags=True)
    (frame,) = frames_of(next(tmp_path.glob("*.fits")))
    flagged = (frame.mask & MaskBit.COSMIC_RAY) > 0
    assert 0.003 < flagged.mean() < 0.03
    assert np.median(frame.pixels[flagged]) > np.median(frame.pixels) + 50.0


def test_fields_without_asteroids_are_listed_though_the_truth_is_empty(tmp_path):
    truth = write_fields(tmp_path, Plan(shape=(128, 128), asteroids=0, dithers=2), 900_010)
    assert rows_of(truth) == []
    assert len(rows_of(tmp_path / "frames.csv")) == 2
    assert not list(tmp_path.glob("*.partial"))


def test_the_limit_of_the_photons_is_that_of_a_matched_filter():
    axis = np.arange(-60, 61) / 5.0
    profile = np.exp(-0.5 * (axis / 1.5) ** 2)
    values = np.outer(profile, profile)
    kernel = Kernel((values * 25.0 / values.sum()).astype(np.float32), 5, 1.5 * 2.3548)
    # A Gaussian point source: sum of squared pixels is 1 / (4 pi sigma^2).
    expected = 1000.0 / np.sqrt(4.0 * np.pi * 1.5**2 * 100.0)
    assert trail_snr(np.array([10.3, 12.1, 10.3, 12.1, 1000.0]), kernel, 100.0) == pytest.approx(expected, rel=0.01)
    trail = np.array([30.0, 40.0, 70.0, 40.0, 5000.0])
    rng = np.random.default_rng(1)
    template = np.zeros((80, 110), np.float32)
    add_trails(template, trail[None], kernel)
    template /= template.sum()
    sums = [np.vdot(template, rng.normal(0.0, 10.0, template.shape)) for _ in range(2000)]
    seen = 5000.0 * np.vdot(template, template) / np.std(sums)
    assert trail_snr(trail, kernel, 100.0) == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize(("length", "electrons"), [(8.0, 900.0), (30.0, 3e3), (30.0, 3e5), (90.0, 4e4)])
def test_the_bounds_of_a_gaussian_trail_are_those_that_evaluation_computes(length, electrons):
    axis = np.arange(-60, 61) / 5.0
    profile = np.exp(-0.5 * (axis / 1.5) ** 2)
    values = np.outer(profile, profile)
    kernel = Kernel((values * 25.0 / values.sum()).astype(np.float32), 5, 1.5 * 2.3548)
    cosine, sine = np.cos(0.7), np.sin(0.7)
    trail = np.array([20.3, 30.1, 20.3 + length * cosine, 30.1 + length * sine, electrons])
    seen = np.array(trail_bounds(trail, kernel, 144.0))
    snr = np.array([trail_snr(trail, kernel, 144.0)])
    along, across = bounds(np.array([length]), snr, np.array([1.5]), np.array([12.0]))
    expected = [along[0, 0, 0], across[0, 0, 0], along.sum() / 4, across.sum() / 4]
    np.testing.assert_allclose(seen, np.sqrt(expected), rtol=0.03)


def test_wider_wings_make_the_bounds_wider_and_a_point_has_some():
    axis = np.arange(-60, 61) / 5.0
    radius = np.hypot(axis, axis[:, None])
    core, wings = np.exp(-0.5 * (radius / 1.0) ** 2), np.exp(-0.5 * (radius / 4.0) ** 2)
    plain, winged = core / core.sum(), 0.7 * core / core.sum() + 0.3 * wings / wings.sum()
    kernels = [Kernel((values * 25.0).astype(np.float32), 5, 2.3548) for values in (plain, winged)]
    trail = np.array([20.0, 30.0, 45.0, 30.0, 5e3])
    narrow, wide = (np.array(trail_bounds(trail, kernel, 144.0)) for kernel in kernels)
    assert (narrow < wide).all()
    point = trail_bounds(np.array([20.0, 30.0, 20.0, 30.0, 5e3]), kernels[0], 144.0)
    assert all(0 < value < 100 for value in point)
    assert point.mid_across_bound_px < 0.2


def test_an_unknown_camera_is_refused_by_name():
    with pytest.raises(ValueError, match="jwst"):
        next(draw_field(Plan(kind="jwst"), 1))
