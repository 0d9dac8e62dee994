"""Linking on streaks that are drawn here: what moves on a path becomes a track, what stands still does not."""

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.astrometry import east_north, unit_vectors
from detector.footprints import covered, footprints_of
from detector.linking import Sets, identifier, link, pieces, recovered, resolved
from detector.motion import FEATURES, motion_on, paths, predicted_ends
from detector.sightings import catalogue, fields, off, onto, project
from detector.standing import standing_pairs
from detector.tracklets import fit_motion, tracklets

EXPOSURE_S, CYCLE_S, SCALE = 565.0, 1070.0, 0.1


class Fits:
    """A score without training: what agrees in place and trail, and cannot well be chance, is a track."""

    def __call__(self, table):
        column = {name: table[:, number] for number, name in enumerate(FEATURES)}
        good = (column["chi2_place"] < 6) & (column["chi2_rate"] + column["chi2_direction"] < 8)
        good &= (column["standing"] < 0.5) & (column["log_chance"] < -2)
        return np.where(good, 0.5 + 0.1 * np.minimum(column["sightings"], 4), 0.01)

    def accepts(self, table, score):
        return (score >= 0.5) & (table[:, 0] > 1)


def axes_at(ra, dec):
    return np.stack([*east_north(np.array(ra), np.array(dec)), unit_vectors(np.array(ra), np.array(dec))])


def streaks(rows, *, centre=(150.0, 2.0), noise_px=0.1, seed=0, err_px=None):
    """The table of rows (exposure, x, y, trail x, trail y, magnitude, score) in pixels of a plane of 0.1 arcsec.

    The middle of the plane is pixel (1000, 1000) of every frame.
    """
    rng = np.random.default_rng(seed)
    rows = np.asarray(rows, float)
    half = rows[:, 3:5] / 2
    ends = np.stack([rows[:, 1:3] - half, rows[:, 1:3] + half], axis=1) + rng.normal(0, noise_px, (len(rows), 2, 2))
    ends = np.where((ends[:, 0, 0] > ends[:, 1, 0])[:, None, None], ends[:, ::-1], ends)
    axes = axes_at(*centre)
    table = {"score": rows[:, 6], "mag": rows[:, 5], "extension": np.zeros(len(rows))}
    places = {"0": ends[:, 0], "1": ends[:, 1], "": ends.mean(axis=1)}
    for name, place in places.items():
        vectors = off(axes, (place - 1000.0) * SCALE)
        table[f"ra{name}"] = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 360.0
        table[f"dec{name}"] = np.degrees(np.arcsin(vectors[:, 2]))
    for number in (0, 1):
        table[f"x{number}"], table[f"y{number}"] = ends[:, number, 0], ends[:, number, 1]
    err = noise_px if err_px is None else err_px
    length = np.hypot(*(ends[:, 1] - ends[:, 0]).T) * SCALE
    count = len(rows)
    seconds = rows[:, 0] * CYCLE_S + 3600.0
    return table | {
        "frame": np.array([f"e{int(k)}.fits" for k in rows[:, 0]]),
        "exposure": np.array([f"e{int(k)}" for k in rows[:, 0]]),
        "ccd": np.full(count, "1"),
        "mid_time_utc": np.array([str(np.datetime64("2020-01-01T00:00:00.000") + int(s * 1e3)) + "Z" for s in seconds]),
        "ra_err": np.full(count, err * SCALE / 3600.0),
        "dec_err": np.full(count, err * SCALE / 3600.0),
        "ra_dec_corr": np.zeros(count),
        "trail_length_arcsec": length,
        "trail_length_arcsec_err": np.full(count, 1.5 * err * SCALE),
        "trail_angle_deg_err": np.degrees(1.5 * err * SCALE / length),
        "rate_arcsec_h": length * 3600.0 / EXPOSURE_S,
        "flags": np.where(length < 0.17, "short", ""),
    }


def mover(x, y, trail, *, exposures=range(4), mag=22.0, score=0.5):
    """Rows of an object that is at (x, y) in exposure 0."""
    moved = np.array(trail) * CYCLE_S / EXPOSURE_S
    return [(k, x + k * moved[0], y + k * moved[1], *trail, mag, score) for k in exposures]


def crowd(count, seed, exposures=4):
    """Unrelated candidates all over the frames."""
    rng = np.random.default_rng(seed)
    length, turn = rng.exponential(8.0, (exposures, count)) + 2.0, rng.uniform(0, np.pi, (exposures, count))
    return [
        (k, *rng.uniform(0, 2000, 2), length[k, i] * np.cos(turn[k, i]), length[k, i] * np.sin(turn[k, i]), 23.0, 0.01)
        for k in range(exposures)
        for i in range(count)
    ]


SHAPES = {(f"e{k}.fits", 0): (2000.0, 2000.0) for k in range(10)}


def linked(table):
    return link(catalogue(table, SHAPES), Fits())


@pytest.mark.parametrize("centre", [(150.0, 2.0), (0.0, -30.0), (77.0, 89.99), (200.0, -90.0)])
def test_an_object_that_moves_is_one_track_anywhere_on_the_sky(centre):
    found = linked(streaks([*mover(500, 700, (12, -7)), *crowd(50, 1)], centre=centre))
    assert [track.rows for track in found.tracks] == [(0, 1, 2, 3)]
    speed = np.hypot(12, 7) * SCALE * 3600 / EXPOSURE_S
    assert found.tracks[0].motion.rate_arcsec_h == pytest.approx(speed, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    turn=st.floats(0, 2 * np.pi),
    length=st.floats(3, 60),
    ra=st.floats(0, 360),
    dec=st.floats(-90, 90),
    exposures=st.sets(st.integers(0, 9), min_size=3, max_size=6),
)
def test_direction_rate_and_gaps_do_not_matter(turn, length, ra, dec, exposures):
    trail = (length * np.cos(turn), length * np.sin(turn))
    rows = mover(1000, 1000, trail, exposures=sorted(exposures))
    found = linked(streaks(rows, centre=(ra, dec), noise_px=0.05))
    assert [track.rows for track in found.tracks] == [tuple(range(len(rows)))]


def test_a_trail_shorter_than_the_psf_is_linked_as_a_moving_point():
    found = linked(streaks(mover(500, 700, (1.2, 0.5)), noise_px=0.15))
    assert [len(track.rows) for track in found.tracks] == [4]


def test_what_stands_still_is_static_and_no_track():
    rows = [(k, 800, 900, 9, 3, 23.0, 0.3) for k in range(4)]
    found = linked(streaks([*rows, *mover(300, 300, (10, 10))]))
    assert sorted(found.static.tolist()) == [0, 1, 2, 3]
    assert [track.rows for track in found.tracks] == [(4, 5, 6, 7)]


def test_an_object_that_moves_is_not_static():
    assert len(linked(streaks(mover(300, 300, (3, 3)))).static) == 0


def test_a_short_thing_at_the_very_same_place_is_static():
    rows = [(k, 800, 900, 0.5, 0.3, 23.0, 0.3) for k in range(3)]
    assert len(linked(streaks(rows, noise_px=0.05)).static) == 3


def test_crossing_objects_keep_their_own_sightings():
    one, other = mover(600, 600, (10, 10)), mover(600, 680, (10, -4))
    found = linked(streaks([*one, *other]))
    assert sorted(track.rows for track in found.tracks) == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_every_streak_is_in_one_track_at_most():
    rng = np.random.default_rng(5)
    rows = [row for _ in range(60) for row in mover(*rng.uniform(200, 1700, 2), rng.uniform(-15, 15, 2))]
    found = linked(streaks(rows, noise_px=0.4))
    taken = [row for track in found.tracks for row in track.rows]
    assert len(taken) == len(set(taken))
    assert len(found.tracks) > 50


def test_a_magnitude_that_does_not_fit_is_another_thing():
    rows = mover(500, 500, (10, 3))
    rows[2] = (*rows[2][:5], 26.5, 0.5)
    assert [track.rows for track in linked(streaks(rows)).tracks] == [(0, 1, 3)]


def test_an_object_that_leaves_one_ccd_goes_on_in_the_next():
    table = streaks(mover(900, 1000, (40, 0)))
    for row in (2, 3):
        table["frame"][row] = table["frame"][row].replace("fits", "fts")
        table["ccd"][row] = "2"
        for name in ("x0", "x1"):
            table[name][row] -= 2000
    assert [len(track.rows) for track in linked(table).tracks] == [4]


def test_fields_far_apart_or_nights_apart_are_linked_apart():
    one = streaks(mover(500, 500, (10, 3)))
    far = streaks(mover(500, 500, (10, 3)), centre=(152.0, 2.0))
    later = streaks(mover(500, 500, (10, 3)))
    far["frame"] = np.array([f"far-{name}" for name in far["frame"]])
    later["frame"] = np.array([f"later-{name}" for name in later["frame"]])
    later["mid_time_utc"] = np.array([time.replace("01-01T", "01-03T") for time in later["mid_time_utc"]])
    table = {name: np.concatenate([one[name], far[name], later[name]]) for name in one}
    assert len(fields(catalogue(table))) == 3
    assert sorted(track.rows for track in linked(table).tracks) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]


def test_a_wide_field_is_linked_in_pieces_without_losing_or_doubling_a_track():
    tables = []
    for number, ra in enumerate(np.arange(150.0, 153.0, 0.05)):
        table = streaks(mover(900, 1000, (20, 5)), centre=(ra, 2.0), seed=number)
        table["frame"] = np.array([f"{number}-{name}" for name in table["frame"]])
        tables.append(table)
    table = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
    found = catalogue(table, {(name, 0): (2000.0, 2000.0) for name in table["frame"].tolist()})
    assert [len(index) for index in fields(found)] == [240]
    assert len(list(pieces(found, fields(found)[0]))) > 1
    assert sorted(track.rows for track in link(found, Fits()).tracks) == [
        tuple(range(k, k + 4)) for k in range(0, 240, 4)
    ]


def test_rows_without_place_or_time_are_counted_and_the_rest_is_linked():
    table = streaks([*mover(500, 500, (10, 3)), *mover(900, 500, (10, 3), exposures=(0, 1))])
    table["ra"][4], table["mid_time_utc"][5] = np.nan, ""
    found = linked(table)
    assert found.counts["no-position"] == found.counts["no-time"] == 1
    assert [track.rows for track in found.tracks] == [(0, 1, 2, 3)]


def test_a_row_whose_fit_held_on_to_nothing_joins_no_track():
    table = streaks([*mover(500, 500, (30, 3)), (1, 700, 700, 300, 200, 22.0, 0.9)])
    table["ra_err"][4] = table["dec_err"][4] = 0.1
    found = linked(table)
    assert found.counts["unmeasured"] == 1
    assert [track.rows for track in found.tracks] == [(0, 1, 2, 3)]


def test_streaks_of_unknown_exposure_time_are_counted_and_not_linked():
    table = streaks(mover(500, 500, (10, 3)))
    table["rate_arcsec_h"][:] = np.nan
    found = linked(table)
    assert found.counts["no-rate"] == 4
    assert found.tracks == ()


def test_a_missing_column_is_named():
    table = streaks(mover(500, 500, (10, 3)))
    del table["ra0"]
    with pytest.raises(ValueError, match="no column ra0"):
        catalogue(table)


def test_streaks_without_errors_are_linked_with_those_of_a_network():
    table = streaks(mover(500, 500, (14, 3)), noise_px=0.5)
    for name in ("ra_err", "dec_err", "trail_length_arcsec_err", "trail_angle_deg_err"):
        table[name][:] = np.nan
    assert [len(track.rows) for track in linked(table).tracks] == [4]


def test_a_piece_of_a_trail_at_the_predicted_place_is_the_missing_sighting():
    rows = mover(300, 1000, (60, 0))
    moved = rows[3][1]
    rows[3] = (3, moved + 12, 1000, 30, 0, 22.5, 0.2)
    table = streaks(rows)
    found = catalogue(table, SHAPES)
    plane = project(found, np.arange(4))
    sets = Sets.of(plane)
    three = np.array([0, 1, 2, -1])
    whole = recovered(sets, three, np.array([True, True, True, False]))
    assert whole.tolist() == [0, 1, 2, 3]
    assert [track.rows for track in resolved(sets, Fits(), set(), np.ones(4, bool))] == [(0, 1, 2, 3)]


def test_a_place_off_the_frame_is_not_counted_as_missed():
    rows = [*mover(500, 500, (20, 0)), *mover(1800, 500, (60, 0), exposures=(0, 1)), *crowd(40, 3)]
    plane = project(catalogue(streaks(rows), SHAPES), np.arange(len(rows)))
    at = {row: place for place, row in enumerate(plane.catalogue.row[plane.index].tolist())}
    members = np.array([[at[k] for k in range(4)], [at[4], at[5], -1, -1]])
    shown = covered(plane, footprints_of(plane), paths(plane, members))
    assert shown.tolist() == [[True] * 4, [True, True, False, False]]


def test_the_fit_of_a_path_is_the_least_squares_solution():
    rng = np.random.default_rng(3)
    time_s = np.array([0.0, 1000.0, 2500.0, 4000.0])
    place = np.column_stack([0.01 * time_s, -0.02 * time_s]) + rng.normal(0, 0.1, (4, 2))
    spread = np.column_stack([rng.uniform(0.01, 0.04, 4), rng.uniform(-0.005, 0.005, 4), rng.uniform(0.01, 0.04, 4)])
    path, covariance = fit_motion(np.arange(4), 1500.0, time_s, place, spread)
    design = np.concatenate([np.kron([[1.0, t - 1500.0]], np.eye(2)) for t in time_s])
    weight = np.zeros((8, 8))
    for k, (xx, xy, yy) in enumerate(spread):
        weight[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = np.linalg.inv([[xx, xy], [xy, yy]])
    wanted = np.linalg.inv(design.T @ weight @ design)
    np.testing.assert_allclose(covariance, wanted, rtol=1e-6)
    np.testing.assert_allclose(path, wanted @ design.T @ weight @ place.reshape(-1), rtol=1e-6)


def test_sets_hold_what_a_search_of_all_pairs_finds():
    rows = [row for seed in range(15) for row in mover(*np.random.default_rng(seed).uniform(300, 1500, 2), (9, 4))]
    plane = project(catalogue(streaks([*rows, *crowd(100, 8)]), SHAPES), np.arange(len(rows) + 400))
    sets = {
        tuple(sorted(plane.catalogue.row[plane.index[one[one >= 0]]])) for one in tracklets(plane, longest_gap_s=1e5)
    }
    assert {tuple(range(k, k + 4)) for k in range(0, 60, 4)} <= sets


def test_standing_pairs_are_of_different_exposures():
    rows = [(0, 500, 500, 8, 0, 22, 0.5), (0, 501, 500, 8, 0, 22, 0.5), (1, 500, 500, 8, 0, 22, 0.5)]
    plane = project(catalogue(streaks(rows)), np.arange(3))
    pairs = {tuple(sorted(pair)) for pair in standing_pairs(plane).tolist()}
    assert pairs == {(0, 2), (1, 2)}


def test_the_plane_and_back():
    axes = axes_at(12.0, 85.0)
    places = np.random.default_rng(1).uniform(-500, 500, (20, 2))
    np.testing.assert_allclose(onto(axes, off(axes, places)), places, atol=1e-7)


def tangent_plane(ra, dec):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, dec]
    wcs.wcs.crpix, wcs.wcs.cdelt = [1001, 1001], [SCALE / 3600.0] * 2
    wcs.wcs.set()
    return wcs


def test_the_ends_of_a_missing_sighting_are_predicted_to_a_tenth_of_a_pixel():
    table = streaks(mover(500, 700, (20, -9), exposures=(0, 1, 3)), noise_px=0.01)
    plane = project(catalogue(table), np.arange(3))
    motion = motion_on(plane, np.arange(3))
    moved = np.array([20, -9]) * CYCLE_S / EXPOSURE_S * 2 + [500, 700]
    days = 58849.0 + (2 * CYCLE_S + 3600.0 + 37.0) / 86400.0
    ends = predicted_ends(motion, days, EXPOSURE_S, tangent_plane(150.0, 2.0))
    half = np.array([10, -4.5])
    np.testing.assert_allclose(ends, [*(moved - half), *(moved + half)], atol=0.1)


def test_an_identifier_is_eight_letters_whatever_the_order():
    assert identifier(["a", "b"]) == identifier(["b", "a"]) != identifier(["a", "c"])
    assert len(identifier(["a"])) == 8
    assert identifier(["a"]).isalnum()
