"""FITS cut-outs in alerts: astropy opens them, and the streak is where the alert says."""

import gzip
import io
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, Sip
from hypothesis import given
from hypothesis import strategies as st

from detector.fitscutout import MARGIN_PX, box_around, fits_cutout
from detector.frame import Frame, MaskBit
from detector.streaks import empty
from stream.alerts import MOST_CUTOUTS, streak_alerts, streak_cutouts
from stream.framing import decode
from stream.service import Examiner, answer_to
from tests.stream.stand_in import EXAMINER, findings
from tests.stream.test_alerts import MESSAGE
from tests.stream.test_skycells import header_at

SHAPE = (300, 400)


def frame_with(ends, **known):
    """A frame of noise with one bright line in it, and the table of streaks that says where."""
    header = replace(header_at(150.0, 2.0, shape=SHAPE), **known)
    pixels = np.random.default_rng(5).normal(100, 3, SHAPE).astype(np.float32)
    for along in np.linspace(0, 1, 400):
        x, y = (ends[0] + along * (ends[2] - ends[0]), ends[1] + along * (ends[3] - ends[1]))
        if 0 <= round(y) < SHAPE[0] and 0 <= round(x) < SHAPE[1]:
            pixels[round(y), round(x)] = 1000.0
    row = empty(1)
    for name, value in zip(("x0", "y0", "x1", "y1"), ends, strict=True):
        row[name] = value
    if header.wcs is not None:
        row["ra0"], row["dec0"] = header.wcs.all_pix2world(ends[0], ends[1], 0)
        row["ra1"], row["dec1"] = header.wcs.all_pix2world(ends[2], ends[3], 0)
    return Frame(header, pixels, np.zeros(SHAPE, np.uint8)), row


def alert_of(frame, rows, largest_px=128):
    found = findings(frame.header, rows)
    cutouts = streak_cutouts(frame, rows, largest_px)
    return decode(streak_alerts(found, MESSAGE, b"x", 1.0, cutouts=cutouts)[0].value)[0]


def opened(content):
    (image,) = fits.open(io.BytesIO(gzip.decompress(content)))
    image.verify("exception")
    return image.header, image.data


ENDS = [(100.3, 80.2, 140.1, 60.4), (2.0, 290.0, 40.0, 299.0)]


@pytest.mark.parametrize("ends", ENDS)
def test_astropy_opens_the_image_and_the_streak_is_where_the_alert_says(ends):
    frame, rows = frame_with(ends)
    alert = alert_of(frame, rows)
    header, data = opened(alert["cutoutScience"])
    assert data.dtype.kind == "f"
    bright_y, bright_x = np.nonzero(data > 500)
    x, y = WCS(header).all_world2pix([alert["ra0"], alert["ra1"]], [alert["dec0"], alert["dec1"]], 0)
    assert np.hypot(x[0] - bright_x, y[0] - bright_y).min() < 1
    assert np.hypot(x[1] - bright_x, y[1] - bright_y).min() < 1
    assert x == pytest.approx([alert["x0"] - header["X0FRAME"], alert["x1"] - header["X0FRAME"]], abs=1e-4)
    assert y == pytest.approx([alert["y0"] - header["Y0FRAME"], alert["y1"] - header["Y0FRAME"]], abs=1e-4)
    rows_of, cols_of = slice(header["Y0FRAME"], None), slice(header["X0FRAME"], None)
    assert np.array_equal(data, frame.pixels[rows_of, cols_of][: data.shape[0], : data.shape[1]])


def test_the_header_says_which_frame_it_is_whatever_its_names_hold():
    known = {"exposure": "E'1", "ccd": "3-4\n\x00", "field": "Feld \u00e4" * 90, "mid_time_mjd_tai": 60_000.125}
    frame, rows = frame_with(ENDS[0], exposure_s=566.0, zero_point=25.5, filter_name=None, **known)
    header, _ = opened(alert_of(frame, rows)["cutoutScience"])
    assert (header["EXPOSURE"], header["CCD"], header["HDU"], header["BUNIT"]) == ("E'1", "3-4", 0, "electron")
    assert (header["MJD-AVG"], header["TIMESYS"], header["EXPTIME"]) == (60_000.125, "TAI", 566.0)
    assert header["MAGZERO"] == 25.5
    assert header["FIELD"].startswith("Feld Feld")
    assert "FILTER" not in header


def test_a_distorted_sky_comes_along():
    frame, rows = frame_with(ENDS[0])
    bend = np.zeros((3, 3))
    bend[2, 0] = 2e-4
    wcs = frame.header.wcs.deepcopy()
    wcs.wcs.ctype = "RA---TAN-SIP", "DEC--TAN-SIP"
    wcs.sip = Sip(bend, bend, None, None, wcs.wcs.crpix)
    bent, rows = frame_with(ENDS[0], wcs=wcs)
    header, _ = opened(alert_of(bent, rows)["cutoutScience"])
    x, y = WCS(header).all_world2pix(rows["ra0"], rows["dec0"], 0)
    assert (x[0] + header["X0FRAME"], y[0] + header["Y0FRAME"]) == pytest.approx(ENDS[0][:2], abs=1e-3)


def test_bad_pixels_are_nan_and_a_frame_without_a_sky_has_an_image_all_the_same():
    frame, rows = frame_with(ENDS[0], wcs=None)
    frame.mask[70, 120] = MaskBit.BAD
    frame.mask[71, 121] = MaskBit.SATURATED
    header, data = opened(alert_of(frame, rows)["cutoutScience"])
    assert np.argwhere(np.isnan(data)).tolist() == [[70 - header["Y0FRAME"], 120 - header["X0FRAME"]]]
    assert "CRVAL1" not in header


def test_the_bytes_are_the_same_each_time_and_none_are_sent_unless_wanted():
    frame, rows = frame_with(ENDS[0])
    assert streak_cutouts(frame, rows, 64) == streak_cutouts(frame, rows, 64)
    assert streak_cutouts(frame, rows, 0) == []
    assert alert_of(frame, rows, 0)["cutoutScience"] is None
    assert EXAMINER.cutout_px == 0
    many = streak_cutouts(frame, np.repeat(rows, MOST_CUTOUTS + 1), 8)
    assert len(many) == MOST_CUTOUTS


def test_a_worker_that_is_told_to_sends_them():
    frame, rows = frame_with(ENDS[0])
    told = Examiner(lambda *_, **__: [frame], lambda one: findings(one.header, rows))
    for cutout_px in (0, 64):
        alert, *_ = answer_to(MESSAGE, replace(told, cutout_px=cutout_px)).outputs
        assert (decode(alert.value)[0]["cutoutScience"] is None) == (cutout_px == 0)


coordinates = st.floats(-1e5, 1e5)


@given(st.tuples(*[coordinates] * 4), st.integers(1, 512))
def test_an_image_is_no_larger_than_said_and_lies_in_the_frame(ends, largest):
    box = box_around(np.array(ends), SHAPE, largest)
    if box is None:
        return
    assert 0 <= box.x0 < box.x1 <= SHAPE[1]
    assert 0 <= box.y0 < box.y1 <= SHAPE[0]
    assert max(box.x1 - box.x0, box.y1 - box.y0) <= largest


def test_both_ends_are_shown_with_a_margin_and_what_is_unknown_has_no_image():
    box = box_around(np.array([100.0, 80.0, 160.0, 90.0]), SHAPE, 256)
    assert (box.x0, box.x1) == (130 - 46, 130 + 46)
    assert box.y0 <= 80 - MARGIN_PX
    assert box_around(np.array([np.nan, 1, 2, 3]), SHAPE, 64) is None
    assert box_around(np.array([900.0, 1, 900, 3]), SHAPE, 64) is None
    frame, _ = frame_with(ENDS[0])
    assert len(fits_cutout(frame, box)) < 92 * 92 * 4
