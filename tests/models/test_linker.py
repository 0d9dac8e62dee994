"""The score of tracks: trees as arrays, what it learns from, and the figures of tracks."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.linking import link
from detector.motion import FEATURES
from detector.sightings import catalogue
from detector.trees import Trees
from models.boosted import tensors_of
from models.evaluate.multiepoch import _linear
from models.evaluate.trackreport import tracks_markdown
from models.evaluate.tracks import chance_rate, is_true, judge_tracks, owners, scrambled
from models.linker import CLASSES, Linker, classes_of, from_weights, load_linker
from models.simulate.streaklists import draw_circumstances, draw_lists, end_errors
from models.training import linking as training
from models.training.boosting import flattened
from models.weights import BadWeights, Weights
from tests.detector.test_linking import SHAPES, Fits, crowd, mover, streaks

ONE = len(CLASSES)


def stump(feature, threshold, low, high):
    return Trees(
        np.array([0], np.int32),
        np.array([feature, -1, -1], np.int32),
        np.array([threshold, 0.0, 0.0]),
        np.array([1, 0, 0], np.int32),
        np.array([2, 0, 0], np.int32),
        np.array([0.0, low, high]),
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_trees_walk_as_the_library_that_grew_them(seed):
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(300, 5))
    true = rows[:, 0] * rows[:, 1] + rng.normal(0, 0.3, 300) > 0
    quiet = {"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1, "seed": 1}
    booster = lightgbm.train(quiet, lightgbm.Dataset(rows, true.astype(float)), 12)
    trees = flattened(booster.dump_model()["tree_info"])
    fresh = rng.normal(size=(100, 5))
    np.testing.assert_allclose(trees(fresh), booster.predict(fresh, raw_score=True), atol=1e-9)


def test_trees_of_a_damaged_file_are_refused():
    with pytest.raises(ValueError, match="damaged"):
        Trees(*(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1), *(np.zeros(1, np.int32),) * 2, np.zeros(1)))


def test_the_probability_is_calibrated_by_class():
    linker = Linker(stump(2, 0.0, -1.0, 1.0), (1.0,) * ONE, (0.0, 1.0, 2.0, -1.0, -2.0, -3.0), (0.5,) * ONE, {})
    table = np.zeros((4, len(FEATURES)))
    table[:, 0] = [2, 3, 7, 3]
    table[:, FEATURES.index("log_shift_px")] = [5.0, 5.0, 5.0, 0.0]
    table[:, 2] = 1.0
    assert [CLASSES[k] for k in classes_of(table)] == ["2", "3", "4", "3-slow"]
    np.testing.assert_allclose(linker(table), 1 / (1 + np.exp(-np.array([1.0, 2.0, 3.0, -1.0]))))
    assert linker.accepts(table, linker(table)).tolist() == [True, True, True, False]


def test_the_shipped_score_is_for_the_features_that_are_computed():
    linker = load_linker()
    assert tuple(linker.facts["features"]) == FEATURES
    assert all(0.0 < threshold < 1.0 for threshold in linker.thresholds)


def test_weights_of_something_else_are_refused():
    arrays = tensors_of(stump(0, 0.0, 0.0, 1.0))
    with pytest.raises(BadWeights, match="streaknet"):
        from_weights(Weights(arrays, {"network": "streaknet"}, ""), "mine")
    with pytest.raises(BadWeights, match="other features"):
        from_weights(Weights(arrays, {"network": "linker", "features": ["one"]}, ""), "mine")


def test_lists_are_the_same_for_a_seed_and_their_asteroids_move_on_great_circles():
    night = draw_circumstances(np.random.default_rng(3))
    one, owner = draw_lists(np.random.default_rng(4), night)
    again, _ = draw_lists(np.random.default_rng(4), night)
    np.testing.assert_array_equal(one["ra"], again["ra"])
    assert (owner >= 0).any()
    assert (owner < 0).any()
    found = catalogue(one)
    assert len(found) == len(owner)
    assert sorted(set(found.frames.exposure.tolist())) == list(range(len(night.times_s)))


def test_errors_of_ends_shrink_with_snr():
    low, high = end_errors(np.array([20.0]), np.array([5.0]), 1.8), end_errors(np.array([20.0]), np.array([50.0]), 1.8)
    assert low[0] == pytest.approx(10 * high[0])
    assert low[1] == pytest.approx(10 * high[1])


def test_evaluation_seeds_are_refused():
    with pytest.raises(ValueError, match="belong to evaluation"):
        next(training.drawn(900_000, 1))


def test_training_learns_tracks_and_calibrates_them(tmp_path, monkeypatch):
    pytest.importorskip("lightgbm")
    monkeypatch.setattr(training, "ROUNDS", 30)
    monkeypatch.setattr(training, "HELD_BACK", 3)
    table = training.train_linker(tmp_path, seed=5, count=3, lists=[])
    assert set(table) == set(CLASSES)
    linker = load_linker(str(tmp_path / "linker.safetensors"))
    rows = [*mover(500, 700, (12, -7), score=0.9), *crowd(30, 2)]
    found = link(catalogue(streaks(rows), SHAPES), linker.accepting(0.3))
    assert (0, 1, 2, 3) in [track.rows for track in found.tracks]


def test_a_set_is_one_object_by_two_thirds():
    sets = np.array([[1, 1, 1, -2], [1, 1, 2, -2], [1, 2, -2, -2], [1, -1, -1, 1], [-1, -1, -2, -2], [3, 3, -1, 3]])
    assert is_true(sets).tolist() == [True, True, False, False, False, True]


def truth_of(rows):
    """The truth of rows as ``streaks`` takes them, all with a high SNR."""
    drawn = streaks(rows, noise_px=0.0, err_px=0.1)
    count = len(rows)
    return {name: drawn[name] for name in ("frame", "extension", "x0", "y0", "x1", "y1", "mag")} | {
        "object": np.array([f"o{int(row[1])}-{int(row[2])}" for row in rows]),
        "snr_limit": np.full(count, 50.0),
        "inside": np.ones(count),
        "field": np.full(count, "f"),
    }


def tracks_of(table, sets, scores):
    rows = np.concatenate([np.asarray(rows) for rows in sets]) if sets else np.empty(0, int)
    sizes = [len(rows) for rows in sets]
    return {name: table[name][rows] for name in ("frame", "extension", "x0", "y0", "x1", "y1", "ra", "dec")} | {
        "track": np.repeat([f"t{k}" for k in range(len(sets))], sizes).astype(str),
        "track_score": np.repeat(scores, sizes).astype(float),
        "n_sightings": np.repeat(sizes, sizes).astype(float),
    }


def test_found_false_and_duplicate_tracks_are_counted():
    rows = [*mover(300, 300, (12, 5)), *mover(300, 900, (12, 5)), *mover(1500, 600, (3, 40))]
    truth = truth_of(rows)
    truth["object"] = np.repeat(["a", "b", "c"], 4)
    table = streaks([*rows, *crowd(5, 3)], noise_px=0.05)
    false = [12, 18, 24]
    tracks = tracks_of(table, [[0, 1, 2], [4, 5, 6, 7], false, [2, 3]], [0.9, 0.8, 0.7, 0.6])
    report = judge_tracks(tracks, truth, None, streaks=table)
    assert (report.objects, report.found) == (3, 2)
    every, two, three, four = report.classes
    assert (every.found, every.false, every.duplicates) == (2, 1, 1)
    assert (two.duplicates, three.found, three.false, four.found) == (1, 1, 1, 1)
    assert report.missing == {"4": 1}
    assert report.mid_px < 0.2
    page = tracks_markdown("Tracks", {"ours": report}, {})
    assert "2 / 3" in page
    json.dumps(report.missing)


def test_a_sighting_is_of_the_nearest_streak():
    truth = truth_of([(0, 500, 500, 20, 0, 22, 0.5), (0, 500, 503, 20, 0, 22, 0.5)])
    table = streaks([(0, 500.2, 502.8, 20, 0, 22, 0.5), (1, 500, 500, 20, 0, 22, 0.5)], noise_px=0.0, err_px=0.1)
    assert owners(table, truth).tolist() == [1, -1]


def test_tables_without_what_is_needed_are_refused_by_name():
    with pytest.raises(ValueError, match="truth: no column object"):
        judge_tracks(tracks_of(streaks(crowd(2, 1)), [], []), {"frame": np.array(["a"])}, None)


def test_scrambling_moves_exposures_apart_and_keeps_trails():
    table = streaks([*mover(500, 700, (12, -7)), *mover(900, 700, (12, -7)), *crowd(20, 4)])
    moved = scrambled(table, np.random.default_rng(1), SHAPES)
    assert len(link(catalogue(table, SHAPES), Fits()).tracks) == 2
    assert len(link(catalogue(moved, SHAPES), Fits()).tracks) == 0
    before, after = catalogue(table), catalogue(moved)
    np.testing.assert_allclose(before.trail_err, after.trail_err, rtol=1e-3)
    middle = 0.5 * (moved["x0"] + moved["x1"])
    assert ((middle >= 0) & (middle <= 2000)).all()
    # What two rows of one exposure have between them stays, unless the border came between.
    first = np.flatnonzero(table["frame"] == "e0.fits")
    step = np.unique(np.round((moved["x0"] - table["x0"])[first], 3))
    assert len(step) <= 2


def test_chance_is_counted_per_field_of_one_ccd():
    table = streaks([*mover(500, 700, (12, -7)), *crowd(60, 4)])
    chance = chance_rate(table, Fits(), times=5, seed=1, shapes=SHAPES)
    assert chance.fields == 5
    assert chance.per_field == sum(chance.tracks.values()) / 5


def test_the_classical_route_keeps_what_moves_linearly():
    rng = np.random.default_rng(2)
    hours = np.array([0.0, 0.3, 0.6, 0.9])
    path = [np.array([[10.0, 20.0]]) + rate * np.array([[15.0, -8.0]]) for rate in hours]
    noise = [rng.uniform(0, 300, (30, 2)) for _ in hours]
    places = [np.concatenate([one, other]) for one, other in zip(path, noise, strict=True)]
    mags = [np.concatenate([[-8.0], rng.uniform(-12, -4, 30)]) for _ in hours]
    sets = _linear(places, mags, hours, 0.1)
    assert sets[0][1] == {0: 0, 1: 0, 2: 0, 3: 0}
