"""Cells of the sky: every frame has one, and frames that overlap meet in the home cell of either."""

import math

import pytest
from astropy.wcs import WCS
from hypothesis import example, given
from hypothesis import strategies as st

from detector.astrometry import separation_deg, unit_vectors
from detector.frame import FrameHeader
from detector.survey import GENERIC
from stream.skycells import CELL_DEG, NEIGHBOURS_DEG, _around, cell, touched

SCALE, SHAPE = 0.2, (4100, 2048)


def header_at(ra, dec, *, shape=SHAPE):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = ra, dec
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    wcs.wcs.cdelt = -SCALE / 3600, SCALE / 3600
    wcs.wcs.set()
    return FrameHeader("f", 0, shape, GENERIC, pixel_scale_arcsec=SCALE, wcs=wcs)


ra_s = st.floats(0, 360, exclude_max=True)
dec_s = st.floats(-90, 90)


@given(ra_s, dec_s)
def test_every_place_has_a_cell_whatever_turns_its_right_ascension_made(ra, dec):
    assert cell(ra, dec).startswith("cell-")
    if abs(ra / 360 * 72 - round(ra / 360 * 72)) > 1e-6:
        assert cell(ra, dec) == cell(ra + 360, dec) == cell(ra - 360, dec)


def test_cells_are_about_as_large_as_they_say():
    names = {cell(ra / 2, dec / 2) for ra in range(720) for dec in range(-180, 181)}
    whole_sky = 4 * math.pi * math.degrees(1) ** 2
    assert len(names) == pytest.approx(whole_sky / CELL_DEG**2, rel=0.05)


@example(0.0, 89.99999999999999, 0.0, 0.0)
@given(ra_s, dec_s, st.floats(0.0, 0.999), st.floats(0, 360))
def test_a_frame_is_sent_to_the_home_of_every_frame_that_overlaps_it(ra, dec, share, turn):
    reach = math.hypot(*SHAPE) * SCALE / 3600 + NEIGHBOURS_DEG
    d, r, t = math.radians(dec), math.radians(share * reach), math.radians(turn)
    there = math.asin(max(-1.0, min(1.0, math.sin(d) * math.cos(r) + math.cos(d) * math.sin(r) * math.cos(t))))
    east = math.atan2(math.sin(t) * math.sin(r) * math.cos(d), math.cos(r) - math.sin(d) * math.sin(there))
    other = header_at((ra + math.degrees(east)) % 360, math.degrees(there))
    assert touched(other)[0] in touched(header_at(ra, dec))


@given(ra_s, dec_s, st.floats(0.01, 3))
def test_the_circle_about_a_place_has_its_radius(ra, dec, reach):
    for place in _around(ra, dec, reach):
        apart = separation_deg(unit_vectors(*place), unit_vectors(ra, dec))
        assert float(apart) == pytest.approx(reach, abs=1e-6)


def test_a_frame_in_the_middle_of_its_cell_is_sent_nowhere_else():
    assert len(touched(header_at(2.5, 2.5))) == 1
    assert len(touched(header_at(0.01, 2.5))) == 2
    assert len(touched(header_at(0.01, 0.01))) >= 3


def test_a_frame_without_a_place_has_no_cell():
    assert touched(FrameHeader("f", 0, SHAPE, GENERIC)) == ()
