"""Which known object a track is: places in between, beyond, anywhere; ambiguity; the search against all pairs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.astrometry import ARCSEC, separation_deg, unit_vectors
from detector.known import GAP_DAYS, REACH_DAYS, Seen, known_objects, matches
from detector.motion import Motion

DAY = 61_000.0
HOUR = 1.0 / 24.0


def motion(ra=150.0, dec=2.0, rate=40.0, angle=110.0):
    return Motion(ra, dec, DAY, rate, angle)


def rows_of(path, times):
    return [(when, *path.at(when)[:2]) for when in times]


def objects(named, *, moving=None):
    """Known objects of {name: rows}; ``moving`` name -> rate and position angle of each of its rows."""
    table = [(name, *row, *(moving or {}).get(name, (np.nan, np.nan))) for name, rows in named.items() for row in rows]
    shuffled = np.random.default_rng(1).permutation(len(table))
    names, *columns = zip(*[table[k] for k in shuffled], strict=True)
    return known_objects(np.array(names), *(np.array(column, float) for column in columns))


def seen(path, times, *, off_arcsec=0.0, sigma=0.1):
    ra, dec = (np.array([path.at(when)[k] for when in times]) for k in (0, 1))
    return Seen(np.array(times), unit_vectors(ra, dec + off_arcsec / ARCSEC), np.full(len(times), sigma))


NIGHT = DAY + np.array([0.3, 0.6, 1.1, 1.4]) * HOUR


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 360), st.floats(-90, 90), st.floats(0, 2000), st.floats(0, 360), st.sampled_from([1, 2, 5]))
def test_an_object_is_found_between_its_rows_anywhere_on_the_sky(ra, dec, rate, angle, rows):
    path = motion(ra, dec, rate, angle)
    known = objects({"A1": rows_of(path, DAY + np.linspace(0, 2 * HOUR, rows + 1))})
    ((match,),) = matches(known, [seen(path, NIGHT)], 0.5)
    assert match.name == "A1"
    assert max(match.separations_arcsec) < 0.02
    assert matches(known, [seen(path, NIGHT, off_arcsec=0.9)], 0.5) == [()]


def test_a_path_that_bends_by_parallax_is_followed_between_hourly_rows():
    hours = np.arange(-3, 6)

    def bent(when):
        ra, dec = motion().at(when)[:2]
        return when, ra, dec + 8.0 / ARCSEC * np.sin(2 * np.pi * (when - DAY))

    known = objects({"A1": [bent(DAY + hour * HOUR) for hour in hours]})
    ra, dec = (np.array([bent(when)[k] for when in NIGHT]) for k in (1, 2))
    ((match,),) = matches(known, [Seen(NIGHT, unit_vectors(ra, dec), np.full(4, np.nan))], 0.1)
    assert max(match.separations_arcsec) < 0.001


def test_the_radius_grows_with_the_uncertainty_of_the_sighting():
    known = objects({"A1": rows_of(motion(), DAY + np.arange(3) * HOUR)})
    assert matches(known, [seen(motion(), NIGHT, off_arcsec=1.2, sigma=0.1)], 1.0) != [()]
    assert matches(known, [seen(motion(), NIGHT, off_arcsec=1.4, sigma=0.1)], 1.0) == [()]


def test_one_row_with_rate_and_direction_is_followed_for_half_a_day_and_without_for_a_moment():
    path = motion()
    rows = {"A1": rows_of(path, [DAY])}
    moving = objects(rows, moving={"A1": (40.0, 110.0)})
    later = NIGHT + REACH_DAYS - 2 * HOUR
    assert matches(moving, [seen(path, later)], 1.0)[0][0].name == "A1"
    assert matches(moving, [seen(path, NIGHT + REACH_DAYS)], 1.0) == [()]
    assert matches(objects(rows), [seen(path, NIGHT)], 60.0) == [()]
    assert matches(objects(rows, moving={"A1": (40.0, np.nan)}), [seen(path, NIGHT)], 60.0) == [()]


def test_rows_that_are_days_apart_say_nothing_of_the_time_between():
    path = motion()
    known = objects({"A1": rows_of(path, [DAY - GAP_DAYS, DAY + GAP_DAYS])})
    assert matches(known, [seen(path, NIGHT)], 5.0) == [()]


def test_two_objects_at_one_place_are_both_told_the_nearer_first():
    other = motion(dec=2.0 + 1.0 / ARCSEC)
    rows = DAY + np.arange(4) * HOUR
    known = objects({"near": rows_of(motion(), rows), "by": rows_of(other, rows)})
    (several,) = matches(known, [seen(motion(), NIGHT, off_arcsec=0.2)], 2.0)
    assert [match.name for match in several] == ["near", "by"]


def test_an_object_that_was_elsewhere_is_none_but_one_sighting_of_four_may_be_measured_badly():
    known = objects({"A1": rows_of(motion(rate=4000.0), DAY + np.arange(4) * HOUR)})
    badly = seen(motion(rate=4000.0), NIGHT)
    badly.place[3] = badly.place[2]
    ((match,),) = matches(known, [badly], 2.0)
    assert [apart > 100 for apart in match.separations_arcsec] == [False, False, False, True]
    badly.place[0] = badly.place[1]
    assert matches(known, [badly], 2.0) == [()]


def test_a_place_without_a_motion_is_no_match():
    known = objects({"A1": rows_of(motion(), [DAY, DAY + 0.5 * HOUR])})
    assert matches(known, [seen(motion(), NIGHT)], 2.0) == [()]
    assert matches(known, [Seen(np.empty(0), np.empty((0, 3)), np.empty(0))], 2.0) == [()]
    assert matches(known, [], 2.0) == []


def test_the_search_finds_what_a_look_at_all_pairs_finds():
    rng = np.random.default_rng(3)
    wide = 0.02
    paths = {
        f"A{n}": motion(360 + rng.uniform(-wide, wide), rng.uniform(-wide, wide), *rng.uniform(0, [30, 360]))
        for n in range(60)
    }
    known = objects({name: rows_of(path, DAY + np.arange(4) * HOUR) for name, path in paths.items()})
    places = {name: seen(path, NIGHT).place for name, path in paths.items()}
    tracks = [seen(path, NIGHT, off_arcsec=rng.uniform(0, 3)) for path in list(paths.values())[:20]]
    found = [{match.name for match in several} for several in matches(known, tracks, 25.0)]
    for track, names in zip(tracks, found, strict=True):
        apart = {name: separation_deg(place, track.place) * ARCSEC for name, place in places.items()}
        assert names == {name for name, one in apart.items() if np.sort(one)[2] <= 25.0 + 0.3}
    assert sum(len(names) > 1 for names in found) > 0
