"""The real frames beside the checkout: what their headers say, by hand, against what we read."""

import csv
from pathlib import Path

import numpy as np
import pytest
from astropy.time import Time

from detector.astrometry import to_sky
from detector.fits import read_frames
from detector.frame import BadFrame

FOLDER = Path(__file__).parents[3] / "shared" / "realdata"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the real frames are not at {FOLDER}"),
]


def first(name):
    """The first frame of a file."""
    return next(iter(read_frames(FOLDER / name, name=name)))


def minutes_off(header, utc):
    """How far the mid-time is from this one, in minutes."""
    return abs(header.mid_time_mjd_tai - Time(utc, scale="utc").tai.mjd) * 1440


def test_every_file_is_read_or_refused_by_name():
    files = [path for path in sorted(FOLDER.rglob("*")) if path.is_file() and path.suffix not in {".csv", ".md"}]
    assert len(files) > 30
    for path in files:
        try:
            frames = list(read_frames(path, name=path.name))
        except BadFrame as bad:
            assert (path.suffix, bad.reason) == (".h5", "not-fits")  # noqa: PT017 - the loop goes on
            continue
        for frame in frames:
            assert not isinstance(frame, BadFrame), frame
            assert np.isfinite(frame.pixels).all()


def test_lowells_wcs_of_strings_is_where_the_telescope_pointed():
    header = first("frames/lowell_20190326.0149.fits").header
    assert "wcs-from-strings" in header.flags
    ra, dec = to_sky(header.wcs, np.array([715.0]), np.array([684.0]))
    assert (ra[0], dec[0]) == pytest.approx((124.62, 25.33), abs=0.05)
    assert header.pixel_scale_arcsec == pytest.approx(1.107, abs=0.002)
    assert (header.gain_e_adu, header.read_noise_e, header.filter_name) == (4.95, 9.3, "VR")
    assert minutes_off(first("frames/lowell_20190326.0131.fits").header, "2019-03-26T02:55:46.35") < 1e-3


def test_lowells_coadd_is_in_the_middle_of_its_exposures():
    header = first("trails_asteroid/lowell5945_coadd_132-148.fits.fz").header
    assert "coadd" in header.flags
    assert minutes_off(header, "2019-03-26T03:42:08.2") < 0.01
    assert header.wcs is None


def test_decams_seventy_corners_have_their_own_places_on_the_sky():
    reading = read_frames(FOLDER / "frames/decam_corners_70hdu.fits.fz", name="d")
    frames = list(reading)
    assert len(frames) == 70
    assert reading.passed_over == {"empty": 1}
    assert {frame.header.exposure for frame in frames} == {"941420"}
    assert len({frame.header.ccd for frame in frames}) == 70
    places = np.array([np.ravel(to_sky(f.header.wcs, np.array([50.0]), np.array([50.0]))) for f in frames])
    assert np.ptp(places[:, 1]) > 1.5, "the field is two degrees wide"
    assert all(0.25 < frame.header.pixel_scale_arcsec < 0.28 for frame in frames)
    assert "amplifiers-averaged" in frames[0].header.flags


def test_calar_altos_pixel_coordinates_are_no_wcs():
    header = first("frames/cafos_0158.fits").header
    assert {"no-wcs", "wcs-not-celestial"} <= set(header.flags)
    assert (header.gain_e_adu, header.saturation_e, header.pixel_scale_arcsec) == (1.43, 180_000.0, 0.53)
    assert minutes_off(header, "2020-02-14T21:37:56") < 1e-3


def test_emmis_date_is_of_1992_and_its_mjd_is_half_a_day_off():
    header = first("frames/emmi_galaxies.fits").header
    assert {"two-digit-year", "times-disagree"} <= set(header.flags)
    assert minutes_off(header, "1992-10-26T03:14:08") < 1e-3


def test_ystars_year_102_is_2002_and_its_clock_was_read_at_the_end():
    header = first("trails_asteroid/ystar_long.fits").header
    assert minutes_off(header, "2002-07-26T19:36:07") < 1e-3
    assert header.pixel_scale_arcsec == pytest.approx(3.04, abs=0.01)


def test_lcos_wide_camera_has_a_distorted_wcs_and_no_filter_in_filter():
    header = first("frames/lco_bi327715_cutout.fits").header
    assert header.pixel_scale_arcsec == pytest.approx(7.84, abs=0.1)
    assert (header.filter_name, header.saturation_e, header.read_noise_e) == ("gp", 59_000.0, 8.0)
    assert minutes_off(header, "2020-11-20T01:05:14.222") < 1e-3


def test_tess_counts_per_second_are_electrons_and_its_holes_are_masked():
    frame = first("frames/tess_diff.fits.fz")
    assert frame.header.exposure_s == pytest.approx(1425.6)
    assert (frame.mask & 1).mean() == pytest.approx(0.0186, abs=0.001)
    assert minutes_off(frame.header, "2018-09-15T23:21:58.75") < 1e-3


def test_drizzled_hubble_keeps_its_dead_sip_out():
    header = first("lenses/slacsJ1430_Gold_piece.fits").header
    assert "sip-ignored" in header.flags
    assert header.pixel_scale_arcsec == pytest.approx(0.05, rel=1e-4)


def test_the_trails_of_the_truth_table_lie_in_their_frames():
    with (FOLDER / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        name = next((value for value in row.values() if value and ".fit" in value), None)
        assert name, row
        assert list(FOLDER.glob(f"**/{Path(name).name}*")), name
