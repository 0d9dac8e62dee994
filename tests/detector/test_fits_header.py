import math

import numpy as np
import pytest
from astropy.time import Time
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from detector.astrometry import to_sky
from detector.fits import read_frames
from detector.fitsheader import Card, number, parse_cards, text
from detector.times import mid_time, parse_date
from tests.detector.fitsmaker import TAN, header, image, sky


def read(**changes):
    """The header of a frame of which some keywords were changed."""
    (frame,) = read_frames(image(cards=header(**changes)), name="f")
    return frame.header


def cards_of(**values):
    """Cards as a header has them; two underscores stand for a hyphen."""
    return {name.replace("__", "-"): Card(value, "") for name, value in values.items()}


def tai(utc):
    """MJD in TAI of a time in UTC."""
    return Time(utc, scale="utc").tai.mjd


def test_a_good_header_is_read_without_a_flag():
    found = read()
    assert found.flags == ()
    assert (found.exposure, found.ccd, found.field) == ("12", "3", "F1")
    assert found.exposure_s == 100.0
    assert found.gain_e_adu == 2.0
    assert found.read_noise_e == 5.0
    assert found.saturation_e == 100_000.0
    assert found.filter_name == "r"
    assert found.zero_point == pytest.approx(25.0 + 2.5 * math.log10(2.0))
    assert found.pixel_scale_arcsec == pytest.approx(0.36, rel=1e-4)
    assert found.mid_time_mjd_tai == pytest.approx(tai("2020-01-02T03:04:55.5"), abs=1e-9)


def test_everything_absent_is_named():
    absent = dict.fromkeys([*header()])
    (frame,) = read_frames(image(cards=header(**absent)), name="f")
    words = {"wcs", "time", "exposure-time", "gain", "read-noise", "saturation", "zero-point", "filter"}
    words |= {"exposure-id", "ccd-id", "field", "pixel-scale"}
    assert {f"no-{word}" for word in words} == set(frame.header.flags)
    assert frame.header.gain_e_adu == 1.0


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        ({"DATE__OBS": "2020-01-02T03:04:05"}, "2020-01-02T03:04:35"),
        ({"DATE__OBS": "2020-01-02T03:04:05Z", "TIMESYS": "TT"}, "2020-01-02T03:04:35"),
        ({"DATE__OBS": "2020-01-02 03:04:05"}, "2020-01-02T03:04:35"),
        ({"DATE__OBS": "2020-01-02", "UTCSTART": "03:04:05.0"}, "2020-01-02T03:04:35"),
        ({"DATE__OBS": "2020-01-02", "TIME__OBS": " 3:04:05"}, "2020-01-02T03:04:35"),
        ({"DATE__OBS": "2020-01-02", "UT": "23:59:50"}, "2020-01-03T00:00:20"),
        ({"DATE__OBS": "2020-01-02", "UT_START": 11045.0}, "2020-01-02T03:04:35"),
        ({"DATE__OBS": "26/10/92", "TM__START": 11048.0}, "1992-10-26T03:04:38"),
        ({"DATE__OBS": "26/07/102", "TIME__OBS": "19:36:37"}, "2002-07-26T19:37:07"),
        ({"DATE__OBS": "05/04/07", "UT": "9:27:27.00"}, "2007-04-05T09:27:57"),
        ({"DATE__BEG": "2020-01-02T03:04:05", "DATE__END": "2020-01-02T03:05:15"}, "2020-01-02T03:04:40"),
        ({"DATE__AVG": "2020-01-02T03:04:05", "DATE__OBS": "2020-01-02T03:00:00"}, "2020-01-02T03:04:05"),
        ({"MJD__OBS": 58850.5}, "2020-01-02T12:00:30"),
        ({"MJD__BEG": 58850.5, "MJD__END": 58850.501}, "2020-01-02T12:00:43.2"),
        ({"MIDTIMJD": 2458851.0}, "2020-01-02T12:00:00"),
        (
            {"DATE__OBS": "2020-01-02", "UTCSTART": "23:50:00", "UTCEND": "00:10:00", "NCOMBINE": 9},
            "2020-01-03T00:00:00",
        ),
    ],
)
def test_the_spellings_of_time(values, middle):
    assert mid_time(cards_of(**values), 60.0).mjd_tai == pytest.approx(tai(middle), abs=2e-9)


@pytest.mark.parametrize(
    ("timesys", "behind_tai_s"), [("UTC", 37.0), ("TAI", 0.0), ("TT", -32.184), ("GPS", 19.0), ("TDB", -32.184)]
)
def test_the_time_scale_is_honoured(timesys, behind_tai_s):
    found = mid_time(cards_of(DATE__OBS="2020-01-02T00:00:00", TIMESYS=timesys), 0.0).mjd_tai
    assert (found - 58850.0) * 86400 == pytest.approx(behind_tai_s, abs=3e-3)


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"DATE__OBS": "2020-01-02"}, "no-time"),
        ({"DATE__OBS": "yesterday"}, "no-time"),
        ({"DATE__OBS": "2020-13-02T00:00:00"}, "no-time"),
        ({"MJD__OBS": 1e9}, "no-time"),
        ({"DATE__OBS": "2020-01-02T03:04:05", "TIMESYS": "LOCAL"}, "time-scale-unknown"),
        ({"DATE__OBS": "2020-01-02T03:04:05", "MJD__OBS": 58850.6}, "times-disagree"),
        ({"DATE__OBS": "26/10/92", "UT": "03:04:05"}, "two-digit-year"),
        ({"DATE__OBS": "2020-01-02T03:04:05", "NCOMBINE": 4}, "coadd"),
    ],
)
def test_a_doubtful_time_is_named(values, flag):
    found = mid_time(cards_of(**values), 60.0)
    assert flag in found.flags
    assert (found.mjd_tai is None) == (flag in {"no-time", "time-scale-unknown"})


def test_a_start_without_an_exposure_is_said_to_be_a_start():
    assert "time-is-start" in mid_time(cards_of(DATE__OBS="2020-01-02T03:04:05"), None).flags


def test_a_clock_read_when_the_shutter_closed_is_counted_back_from():
    cards = cards_of(DATE__OBS="26/07/102", TIME__OBS="19:36:37")
    cards["JD"] = Card(2452482.31709, "Time at end of exposure")
    assert mid_time(cards, 60.0).mjd_tai == pytest.approx(tai("2002-07-26T19:36:07"), abs=1e-9)


@given(st.text(max_size=40))
def test_no_text_is_too_odd_for_a_date(words):
    parse_date(words)


@given(st.binary(max_size=400))
def test_no_bytes_are_too_odd_for_a_header(data):
    cards = parse_cards(data)
    for name in cards:
        number(cards, name)
        text(cards, name)


def test_long_strings_hierarch_names_and_fortran_numbers_are_read():
    lines = [
        "LONG    = 'abc&' / one",
        "CONTINUE  'def''s'",
        "HIERARCH ESO DET OUT1 CONAD = 2.5D-1 / gain",
        "NUMBER  = -7 / x",
    ]
    cards = parse_cards("".join(f"{line:<80}" for line in lines).encode())
    assert text(cards, "LONG") == "abcdef's"
    assert number(cards, "ESO DET OUT1 CONAD") == 0.25
    assert cards["NUMBER"] == Card(-7, "x")


@pytest.mark.parametrize(
    ("changes", "electrons_per_count"),
    [
        ({}, 2.0),
        ({"BUNIT": None}, 2.0),
        ({"BUNIT": "ADU/s"}, 200.0),
        ({"BUNIT": "DN"}, 2.0),
        ({"BUNIT": "ELECTRONS"}, 1.0),
        ({"BUNIT": "ELECTRONS/SEC"}, 100.0),
        ({"BUNIT": "e- s-1"}, 100.0),
        ({"BUNIT": "MJy/sr"}, 1.0),
        ({"BUNIT": "nJy"}, 1.0),
        ({"GAIN": 400.0, "EGAIN": 0.5}, 0.5),
        ({"GAIN": None, "GAINA": 3.0, "GAINB": 5.0}, 4.0),
        ({"GAIN": 0.0}, 1.0),
    ],
)
def test_units_and_gains_become_electrons(changes, electrons_per_count):
    (frame,) = read_frames(image(cards=header(**changes, SATURATE=None)), name="f")
    np.testing.assert_allclose(frame.pixels, sky() * electrons_per_count, rtol=1e-6)
    assert ("not-electrons" in frame.header.flags) == (changes.get("BUNIT") in {"MJy/sr", "nJy"})


@pytest.mark.parametrize(
    ("changes", "zero_point"),
    [
        ({"BUNIT": "electrons"}, 25.0),
        ({"BUNIT": "ADU/s"}, 25.0 + 2.5 * math.log10(2)),
        ({"MAGZERO": None, "PHOTZP": 30.0}, 30.0 - 2.5 * math.log10(100 / 2)),
        ({"MAGZERO": None, "PHOTZP": 30.0, "BUNIT": "electron"}, 25.0),
        ({"MAGZERO": 0.0}, None),
        ({"BUNIT": "nJy"}, None),
    ],
)
def test_zero_points_are_those_of_one_electron_a_second(changes, zero_point):
    assert read(**changes).zero_point == (None if zero_point is None else pytest.approx(zero_point))


def test_exposure_may_be_a_number_or_a_length():
    assert read(EXPNUM=None, EXPOSURE=941420).exposure == "941420"
    assert read(EXPNUM=None, EXPOSURE=100.0).exposure is None
    assert read(EXPTIME=None, EXPOSURE=33.0).exposure_s == 33.0


def test_an_empty_slot_of_a_filter_wheel_is_no_filter():
    assert read(FILTER=None, FILTER1="CLEAR1L", FILTER2="F814W").filter_name == "F814W"


def test_a_wcs_of_strings_is_read_as_numbers_never_as_the_identity():
    plain = read()
    strings = read(**{name: str(value) for name, value in TAN.items()})
    assert strings.flags == ("wcs-from-strings",)
    place = np.array([3.0]), np.array([40.0])
    np.testing.assert_allclose(to_sky(strings.wcs, *place), to_sky(plain.wcs, *place), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"CRVAL1": "about 150"}, "wcs-unreadable"),
        ({"CD1_1": True}, "wcs-unreadable"),
        ({"CRPIX2": None}, "wcs-unreadable"),
        ({"CD1_1": 0.0, "CD2_2": 0.0}, "wcs-unreadable"),
        ({"CTYPE1": "PIXEL", "CTYPE2": "PIXEL"}, "wcs-not-celestial"),
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "wcs-not-celestial"),
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "wcs-not-celestial"),
        ({name: None for name in TAN if name.startswith("CD")}, "wcs-implausible"),
        ({"CD1_1": 1.0, "CD2_2": 1.0}, "wcs-implausible"),
        ({"CD1_1": 1e-9, "CD2_2": 1e-9}, "wcs-implausible"),
        ({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 900_000, "B_ORDER": 2}, "wcs-unreadable"),
    ],
)
def test_a_wcs_that_cannot_be_right_is_refused_with_its_cause(changes, flag):
    found = read(**changes)
    assert found.wcs is None
    assert {"no-wcs", flag} <= set(found.flags)


def test_sip_counts_where_ctype_says_so_and_nowhere_else():
    terms = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_0_2": 1e-4}
    place = np.array([0.0]), np.array([0.0])
    bent = read(CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", **terms)
    dead = read(**terms)
    assert dead.flags == ("sip-ignored",)
    np.testing.assert_allclose(to_sky(dead.wcs, *place), to_sky(read().wcs, *place), atol=1e-12)
    assert abs(to_sky(bent.wcs, *place)[1][0] - to_sky(dead.wcs, *place)[1][0]) > 1e-6


def test_scamps_tan_with_pv_is_tpv():
    terms = {"PV1_0": 0.0, "PV1_1": 1.0, "PV1_2": 0.0, "PV1_7": 50.0, "PV2_0": 0.0, "PV2_1": 1.0, "PV2_2": 0.0}
    place = np.array([0.0, 60.0]), np.array([0.0, 40.0])
    expected = WCS(header(CTYPE1="RA---TPV", CTYPE2="DEC--TPV", **terms)).all_pix2world(*place, 0)
    for kind in ("TAN", "TPV"):
        found = read(CTYPE1=f"RA---{kind}", CTYPE2=f"DEC--{kind}", **terms)
        np.testing.assert_allclose(to_sky(found.wcs, *place), expected, atol=1e-10)


def test_axes_in_the_other_order_and_other_frames_are_right():
    swapped = {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 2.0, "CRVAL2": 150.0}
    ra, dec = to_sky(read(**swapped).wcs, np.array([31.5]), np.array([23.5]))
    assert (ra[0], dec[0]) == pytest.approx((150.0, 2.0))
    galactic = read(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN", CRVAL1=0.0, CRVAL2=0.0).wcs
    ra, dec = to_sky(galactic, np.array([31.5]), np.array([23.5]))
    assert (ra[0], dec[0]) == pytest.approx((266.405, -28.936), abs=1e-3)
