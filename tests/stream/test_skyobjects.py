"""Names of objects by their place on the sky."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.skyobjects import NEAR_ARCSEC, object_names


def moved(ra, dec, arcsec, angle):
    """The place so far from a place, in three dimensions."""
    a, d, r = math.radians(ra), math.radians(dec), math.radians(arcsec / 3600.0)
    middle = np.array([math.cos(d) * math.cos(a), math.cos(d) * math.sin(a), math.sin(d)])
    east = np.array([-math.sin(a), math.cos(a), 0.0])
    north = np.array([-math.sin(d) * math.cos(a), -math.sin(d) * math.sin(a), math.cos(d)])
    x, y, z = math.cos(r) * middle + math.sin(r) * (math.cos(angle) * north + math.sin(angle) * east)
    return math.degrees(math.atan2(y, x)) % 360.0, math.degrees(math.atan2(z, math.hypot(x, y)))


@given(
    st.floats(0.0, 360.0),
    st.floats(-90.0, 90.0),
    st.floats(0.0, 0.99 * NEAR_ARCSEC),
    st.floats(0.0, 2 * math.pi),
)
def test_an_object_measured_twice_is_known_by_one_of_its_names(ra, dec, arcsec, angle):
    first, again = object_names("lens", ra, dec), object_names("lens", *moved(ra, dec, arcsec, angle))
    assert first[0] in again
    assert again[0] in first


def test_most_positions_have_one_name_and_it_does_not_change_with_the_last_digits():
    rng = np.random.default_rng(3)
    places = np.column_stack([rng.uniform(0, 360, 400), rng.uniform(-80, 80, 400)])
    names = [object_names("lens", ra, dec) for ra, dec in places]
    assert np.mean([len(each) == 1 for each in names]) > 0.5
    assert [object_names("lens", ra + 1e-9, dec - 1e-9)[0] for ra, dec in places] == [each[0] for each in names]


def test_a_lens_and_a_merger_at_one_place_and_two_lenses_apart_have_names_of_their_own():
    assert object_names("lens", 10.0, 20.0)[0] != object_names("merger", 10.0, 20.0)[0]
    assert not set(object_names("lens", 10.0, 20.0)) & set(object_names("lens", 10.0, 20.01))
    assert object_names("lens", math.nan, 20.0) == ()
