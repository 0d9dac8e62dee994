"""The matching rule case by case, m50 of known curves, and the figures of samples whose answer is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.special import ndtr

from models.evaluate.accuracy import cramer_rao, pulls, reliability, residuals
from models.evaluate.completeness import Curve, curve_fit, grid, half_magnitude, noise_limit_snr, score_at
from models.evaluate.matching import FALSE, NEITHER, TRUE, accepted_pairs, end_distances, inside, match_frame, strict
from models.evaluate.plots import draw
from models.evaluate.report import as_json, as_markdown
from models.evaluate.sample import build_sample
from models.evaluate.streaks import Judging, curve, judge
from models.evaluate.union import union

JUDGING = Judging(threshold=0.5, expected_streaks_per_frame=10.0, resamples=20, seed=1)


def line(x, y, length, angle_deg=0.0):
    half = length / 2 * np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    return np.array([x, y]) + np.array([-half, half])


def lines(*given):
    return np.array([line(*one) for one in given]).reshape(-1, 2, 2)


def fits(truth, detected):
    return len(accepted_pairs(lines(truth), lines(detected))) == 1


def verdicts(truths, detected, score, counts=None):
    counts = np.ones(len(truths), bool) if counts is None else np.array(counts)
    return match_frame(lines(*truths), counts, lines(*detected), np.array(score))


# The rule.


def test_midpoints_within_4_px_across_match_and_beyond_do_not():
    assert fits((100, 100, 30), (100, 103.9, 30))
    assert not fits((100, 100, 30), (100, 104.1, 30))


def test_midpoints_match_within_half_the_true_length_along_it():
    assert fits((100, 100, 30), (114.9, 100, 30))
    assert not fits((100, 100, 30), (115.1, 100, 30))
    assert not fits((100, 100, 30), (114.9, 100, 30, 90))


def test_a_short_truth_is_matched_within_5_px_along():
    assert fits((100, 100, 4), (104.9, 100, 4))
    assert not fits((100, 100, 4), (105.1, 100, 4))


def test_directions_differ_by_20_degrees_at_most_when_both_are_longer_than_8_px():
    assert fits((100, 100, 30, 170), (100, 100, 30, 9))
    assert not fits((100, 100, 30, 170), (100, 100, 30, 11))
    assert fits((100, 100, 30), (100, 100, 7.9, 90))
    assert fits((100, 100, 7.9), (100, 100, 30, 90))


def test_a_truth_without_length_is_a_point_that_can_be_found():
    assert fits((100, 100, 0), (103, 103, 2))
    assert not fits((100, 100, 0), (106, 100, 2))


def test_of_two_detections_on_one_truth_the_better_is_true_and_the_other_nothing():
    found = verdicts([(100, 100, 30)], [(100, 100, 30), (102, 101, 28)], [0.3, 0.9])
    assert found.verdict.tolist() == [NEITHER, TRUE]
    assert found.claimed.tolist() == [1]


def test_what_lies_on_no_truth_is_false():
    assert verdicts([(100, 100, 30)], [(300, 300, 30)], [0.9]).verdict.tolist() == [FALSE]
    assert verdicts([], [(300, 300, 30)], [0.9]).verdict.tolist() == [FALSE]


def test_a_detection_on_a_truth_that_does_not_count_is_not_false():
    found = verdicts([(5, 100, 30)], [(10, 100, 20)], [0.9], [False])
    assert found.verdict.tolist() == [NEITHER]


def test_two_truths_side_by_side_are_both_found_by_two_detections():
    found = verdicts([(100, 100, 30), (100, 106, 30)], [(100, 103.2, 30), (100, 102.9, 30)], [0.9, 0.8])
    assert found.claimed.tolist() == [1, 0]
    assert found.verdict.tolist() == [TRUE, TRUE]


def test_a_detection_prefers_the_truth_that_counts():
    found = verdicts([(100, 100, 4), (103, 100, 6)], [(100, 100, 4)], [0.9], [False, True])
    assert found.claimed.tolist() == [-1, 0]


def test_strict_asks_for_both_ends():
    truth = lines((100, 100, 10), (100, 100, 100))
    assert strict(truth, lines((102.9, 100, 10), (100, 100, 139))).all()
    assert not strict(truth, lines((103.1, 100, 10), (100, 100, 141))).any()


def test_ends_are_paired_whatever_their_order():
    truth = lines((100, 100, 50, 88))
    np.testing.assert_allclose(end_distances(truth, truth[:, ::-1]), 0)


def test_truths_count_with_both_ends_10_px_from_the_border():
    ends = np.array([[[10, 10], [50, 50]], [[9.9, 10], [50, 50]], [[100, 30], [189, 89]], [[100, 30], [189.1, 89]]])
    assert inside(ends, (100, 200)).tolist() == [True, False, True, False]


geometry = st.tuples(st.floats(50, 150), st.floats(50, 150), st.floats(0, 60), st.floats(0, 180))


@settings(max_examples=60, deadline=None)
@given(st.lists(geometry, min_size=1, max_size=8), st.lists(geometry, max_size=12))
def test_the_tree_finds_the_pairs_of_the_plain_rule(truths, detected):
    expected = {
        (i, j)
        for i, (x, y, length, angle) in enumerate(truths)
        for j, (u, v, other, turned) in enumerate(detected)
        if by_the_book((x, y, length, angle), (u, v, other, turned))
    }
    found = accepted_pairs(lines(*truths), lines(*detected))
    uncertain = {tuple(pair) for pair in found.tolist()} ^ expected
    assert all(on_an_edge(truths[i], detected[j]) for i, j in uncertain)


def offsets(truth, detected):
    angle = np.radians(truth[3]) if truth[2] > 0 else 0.0
    dx, dy = detected[0] - truth[0], detected[1] - truth[1]
    along = abs(dx * np.cos(angle) + dy * np.sin(angle))
    across = abs(dy * np.cos(angle) - dx * np.sin(angle))
    turn = abs(truth[3] - detected[3]) % 180
    return across, along, min(turn, 180 - turn)


def by_the_book(truth, detected):
    across, along, turn = offsets(truth, detected)
    both_long = truth[2] > 8 and detected[2] > 8
    return across <= 4 and along <= max(5, truth[2] / 2) and (turn <= 20 or not both_long)


def on_an_edge(truth, detected):
    across, along, turn = offsets(truth, detected)
    near = [across - 4, along - max(5, truth[2] / 2), turn - 20, truth[2] - 8, detected[2] - 8, truth[2]]
    return min(np.abs(near)) < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.lists(geometry, min_size=1, max_size=6), st.lists(st.tuples(geometry, st.floats(0, 1)), max_size=10))
def test_cutting_the_list_at_a_score_gives_the_same_matches_as_matching_the_cut_list(truths, scored):
    detected, score = lines(*(one for one, _ in scored)), np.array([score for _, score in scored])
    counts = np.ones(len(truths), bool)
    whole = match_frame(lines(*truths), counts, detected, score)
    kept = np.flatnonzero(score >= 0.5)
    cut = match_frame(lines(*truths), counts, detected[kept], score[kept])
    of_whole = [index if index >= 0 and score[index] >= 0.5 else -1 for index in whole.claimed]
    assert of_whole == [kept[index] if index >= 0 else -1 for index in cut.claimed]


# m50.


@pytest.mark.parametrize(("m50", "width", "plateau"), [(24.3, 0.3, 1.0), (23.0, 0.15, 0.9), (25.2, 0.5, 0.97)])
def test_m50_of_a_known_curve_comes_back(m50, width, plateau):
    rng = np.random.default_rng(5)
    mag = rng.uniform(20, 27, 20_000)
    middle = m50 - width * np.log(2 * plateau - 1) if plateau < 1 else m50
    found = rng.random(len(mag)) < plateau / (1 + np.exp((mag - middle) / width))
    assert half_magnitude(mag, found) == pytest.approx(m50, abs=0.05)


def test_a_detector_that_never_finds_half_has_no_m50():
    rng = np.random.default_rng(5)
    mag = rng.uniform(20, 26, 3000)
    found = (rng.random(3000) < 0.4) & (mag < 23)
    assert half_magnitude(mag, found) is None
    assert half_magnitude(mag, np.ones(3000, bool)) is None
    assert half_magnitude(mag[:0], found[:0]) is None


def test_weights_count_as_repetitions():
    rng = np.random.default_rng(6)
    mag = rng.uniform(20, 26, 2000)
    found = rng.random(2000) < 1 / (1 + np.exp((mag - 24) / 0.3))
    twice = rng.integers(0, 3, 2000)
    repeated = half_magnitude(np.repeat(mag, twice), np.repeat(found, twice))
    weighted = curve_fit(20.0, 26.0).fit(mag, found[None], twice[None].astype(float))[0]
    assert weighted == pytest.approx(repeated, abs=0.03)


def test_the_threshold_lets_exactly_so_many_false_ones_pass():
    scores = np.array([0.9, 0.8, 0.8, 0.3])
    assert (scores > score_at(scores, np.ones(4), 1)).sum() == 1
    assert (scores > score_at(scores, np.ones(4), 2)).sum() == 1  # equal scores pass together or not at all
    assert (scores > score_at(scores, np.ones(4), 3)).sum() == 3
    assert score_at(scores, np.ones(4), 4) == -np.inf
    assert score_at(scores, np.array([3.0, 0, 1, 1]), 3) == 0.8


def test_the_noise_limit_follows_from_one_number_of_trials():
    assert [round(noise_limit_snr(rate), 2) for rate in (1, 10, 100)] == [5.91, 5.52, 5.10]


def known_curve(n_frames=12, m50=24.0):
    rng = np.random.default_rng(7)
    n = 200 * n_frames
    mag = rng.uniform(20, 26, n)
    depth = mag + rng.normal(0, 0.2, n)
    false = np.sort(rng.random(500 * n_frames))[::-1]
    # A truth found above the tenth false one of a frame exactly when it is brighter than m50.
    level = false[10 * n_frames]
    score = np.clip(level + (m50 - depth) * 0.3, -1, 1.0)
    return Curve(
        mag,
        np.full(n, 20.0),
        10 ** (-0.4 * (mag - 24.5)) * 5.52,
        score,
        rng.integers(0, n_frames, n),
        false,
        rng.integers(0, n_frames, len(false)),
        n_frames,
        units=n_frames,
    )


def test_m50_at_a_price_and_the_noise_limit_beside_it_are_those_put_in():
    halves = {
        (half.lengths, half.false_per_frame): half for half in known_curve().half_magnitudes(resamples=40, seed=1)
    }
    at_ten = halves["15-40", 10.0]
    assert at_ten.m50 == pytest.approx(24.0, abs=0.05)
    assert at_ten.noise_limit == pytest.approx(24.5, abs=0.05)
    assert 0.005 < at_ten.m50_err < 0.1
    assert halves["5-15", 10.0].truths == 0
    assert halves["5-15", 10.0].m50 is None
    assert halves["all", 1.0].m50 < at_ten.m50 < halves["all", 100.0].m50


# Samples from tables.


def truth_table(rows, **more):
    table = {name: np.array([row[index] for row in rows]) for index, name in enumerate(("frame", "mag"))}
    ends = np.array([line(*row[2]) for row in rows]).reshape(-1, 4)
    table |= dict(zip(("x0", "y0", "x1", "y1"), ends.T, strict=True))
    return table | more


def detection_table(rows, **more):
    table = truth_table(rows)
    table["score"] = table.pop("mag")
    return table | more


TRUTHS = [("a.fits", 22.0, (100, 100, 30)), ("a.fits", 23.0, (200, 200, 20, 45)), ("b.fits", 22.0, (100, 100, 30))]


def test_frames_are_the_same_when_one_path_ends_with_the_other():
    detections = detection_table([("run/in/a.fits", 0.9, (100, 100, 30)), ("run/in/b.fits", 0.9, (300, 300, 30))])
    sample = build_sample(truth_table(TRUTHS), detections, frames=None, n_frames=None)
    assert sample.n_frames == 2
    assert sample.match().claimed.tolist() == [0, -1, -1]


def test_extensions_tell_frames_of_one_file_apart():
    truth = truth_table([("a.fits", 22.0, (100, 100, 30))] * 2, extension=np.array([1.0, 2.0]))
    detections = detection_table([("a.fits", 0.9, (100, 100, 30))], extension=np.array([2.0]))
    assert build_sample(truth, detections, frames=None, n_frames=None).match().claimed.tolist() == [-1, 0]


def test_a_name_that_fits_two_frames_is_refused():
    truth = truth_table([("x/a.fits", 22.0, (100, 100, 30)), ("y/a.fits", 22.0, (100, 100, 30))])
    with pytest.raises(ValueError, match="fits 2 frames"):
        build_sample(truth, detection_table([("a.fits", 0.9, (1, 1, 9))]), frames=None, n_frames=None)


def test_tables_of_different_runs_are_an_error_not_a_completeness_of_zero():
    with pytest.raises(ValueError, match="share no frame"):
        build_sample(truth_table(TRUTHS), detection_table([("z.fits", 0.9, (1, 1, 9))]), frames=None, n_frames=None)


def test_a_table_that_lacks_what_is_needed_is_refused_by_column():
    with pytest.raises(ValueError, match="no column score"):
        build_sample(truth_table(TRUTHS), truth_table(TRUTHS), frames=None, n_frames=None)
    broken = detection_table([("a.fits", np.nan, (1, 1, 9))])
    with pytest.raises(ValueError, match="score has no number in 1 rows, first in row 1"):
        build_sample(truth_table(TRUTHS), broken, frames=None, n_frames=None)


def test_the_list_of_frames_brings_borders_and_empty_ones_and_leaves_out_the_refused():
    frames = {
        "frame": np.array(["a.fits", "b.fits", "c.fits", "d.fits"]),
        "width": np.array([400.0, 120.0, 400.0, np.nan]),
        "height": np.array([400.0, 400.0, 400.0, np.nan]),
        "reason": np.array(["", "", "", "not-fits"]),
    }
    detections = detection_table([("a.fits", 0.9, (100, 100, 30)), ("c.fits", 0.7, (50, 50, 30))])
    truth = truth_table([*TRUTHS, ("d.fits", 22.0, (100, 100, 30))])
    sample = build_sample(truth, detections, frames=frames, n_frames=None)
    assert sample.n_frames == 3
    assert sample.left_out == 1
    assert sample.truths["counts"].tolist() == [True, True, False]  # 100 + 15 is within 10 px of 119
    at = judge(sample, JUDGING).at_threshold
    assert (at.empty_frames, at.false_per_empty_frame, at.clean_fraction) == (1, 1.0, 0.0)
    assert (at.found, at.truths, at.false_per_frame) == (1, 2, pytest.approx(1 / 3))


def test_announced_frames_without_any_row_are_empty_and_clean():
    sample = build_sample(
        truth_table(TRUTHS), detection_table([("a.fits", 0.9, (100, 100, 30))]), frames=None, n_frames=10
    )
    at = judge(sample, JUDGING).at_threshold
    assert (sample.n_frames, at.empty_frames, at.clean_fraction) == (10, 8, 1.0)
    with pytest.raises(ValueError, match="1 frames were announced"):
        build_sample(truth_table(TRUTHS), detection_table([]), frames=None, n_frames=1)


def test_truths_without_a_frame_size_count_by_their_inside_column():
    truth = truth_table(TRUTHS, inside=np.array([1.0, 0.0, 1.0]))
    sample = build_sample(truth, detection_table([]), frames=None, n_frames=None)
    assert sample.truths["counts"].tolist() == [True, False, True]


def big_sample(n_frames=8, seed=3, offset=0.0):
    """Truths on a lattice, found when bright; unit-normal errors of 0.2 px; false ones elsewhere."""
    rng = np.random.default_rng(seed)
    truths, found, false = [], [], []
    for frame in range(n_frames):
        name = f"f{frame}.fits"
        for x in range(100, 1900, 200):
            for y in range(100, 1900, 100):
                shape = (float(x), float(y), rng.uniform(6, 60), rng.uniform(0, 180))
                mag = rng.uniform(20, 26)
                truths.append((name, mag, shape))
                if mag < 23.5:
                    found.append((name, rng.uniform(0.6, 1.0), shape))
        false += [(name, rng.uniform(0, 0.7), (2500 + rng.uniform(0, 900), rng.uniform(0, 900), 20)) for _ in range(40)]
    rows = found + false
    detections = detection_table(rows)
    for column in ("x0", "y0", "x1", "y1"):
        detections[column] = detections[column] + rng.normal(0, 0.2, len(rows)) + offset
        detections[column + "_err"] = np.full(len(rows), 0.2)
    mag = np.array([row[1] for row in truths])
    more = {"snr_limit": 10 ** (-0.4 * (mag - 24.0)) * 5.52, "rate_arcsec_h": np.full(len(truths), 12.0)}
    return build_sample(truth_table(truths, **more), detections, frames=None, n_frames=None)


def test_a_whole_report_gives_back_what_the_sample_was_made_of():
    report = judge(big_sample(), JUDGING)
    half = next(h for h in report.half_magnitudes if (h.lengths, h.false_per_frame) == ("all", 100.0))
    assert half.m50 == pytest.approx(23.5, abs=0.05)
    assert half.noise_limit == pytest.approx(24.0 + 2.5 * np.log10(5.52 / 5.10), abs=0.05)
    bright = report.residuals[-1]
    assert bright.end_px == pytest.approx(0.2 * 1.177, rel=0.1)
    assert bright.strict == bright.count
    assert [pull.width for pull in report.pulls[:4]] == pytest.approx([1, 1, 1, 1], abs=0.15)
    assert report.pulls[4].width is None  # nobody measured a magnitude
    whole = report.by_length["at the threshold"]
    assert whole.total.sum() == report.truths == 8 * 9 * 18
    assert whole.found[:, :3].sum() == whole.total[:, :3].sum()
    assert whole.found[:, 4:].sum() == 0


def test_the_report_is_reproducible_and_written_as_json_and_markdown():
    report = judge(big_sample(), JUDGING)
    text = as_json({"ours": report})
    assert text == as_json({"ours": judge(big_sample(), JUDGING)})
    assert json.loads(text)["ours"]["residuals"][-1]["snr_to"] is None  # infinity is not JSON
    page = as_markdown("Night", {"ours": report, "another": report})
    assert "| noise alone (analytic, the same truths) | 5 and longer |" in page
    assert page.count("| another |") == 6  # side by side, four classes of length, and the strict one
    assert "nan" not in page


def test_a_sample_without_a_single_detection_is_judged_too():
    sample = build_sample(truth_table(TRUTHS), detection_table([]), frames=None, n_frames=None)
    report = judge(sample, JUDGING)
    assert all(half.found == 0 for half in report.half_magnitudes)
    assert report.at_threshold.purity is None
    assert "Fewer than 8 frames" in as_markdown("Empty", {"ours": report})


def test_plots_are_drawn_without_a_screen(tmp_path):
    pytest.importorskip("matplotlib")
    sample = big_sample(2)
    draw(tmp_path, {"ours": curve(sample, sample.match())}, judge(sample, JUDGING))
    assert {path.stem for path in tmp_path.glob("*.png")} == {"completeness", "m50", "residuals", "reliability"}


# Accuracy.


def test_the_bound_of_a_point_across_is_sqrt_2_sigma_over_snr_shared_by_two_ends():
    along, across = cramer_rao(np.array([40.0, 40.0]), np.array([10.0, 20.0]), np.array([1.0, 1.0]))
    # Mid-point of a line across: sqrt(2) sigma / SNR; an end of it, tilt being free: twice that.
    np.testing.assert_allclose(across, 2 * np.sqrt(2) / np.array([10, 20]), rtol=0.03)
    assert along[0] == pytest.approx(2 * along[1])
    assert along[0] > 0


def test_where_its_own_photons_are_the_noise_a_streak_is_placed_by_their_number():
    length, sigma, photons, noise_e = 40.0, 1.0, 1e4, 0.5
    snr = photons / noise_e * np.sqrt(1.0 / length / (2.0 * np.sqrt(np.pi) * sigma))
    arguments = np.array([length]), np.array([snr]), np.array([sigma])
    along, across = cramer_rao(*arguments, np.array([noise_e]))
    # A mid-point of N photons is good to sigma / sqrt(N) across, and an end to twice that.
    np.testing.assert_allclose(across, 2.0 * sigma / np.sqrt(photons), rtol=0.06)
    assert along > cramer_rao(*arguments)[0]
    np.testing.assert_allclose(cramer_rao(*arguments, np.array([np.nan]))[0], cramer_rao(*arguments)[0])


def test_no_fit_of_pixels_beats_the_bound_and_a_good_one_reaches_it():
    """Fit the ends of one noisy line in one dimension many times: the scatter is the bound along."""
    u, sigma, flux, noise = np.arange(-30.0, 30.0, 0.5), 1.5, 100.0, 0.35
    model = lambda p: p[0] / (p[2] - p[1]) * (ndtr((u - p[1]) / sigma) - ndtr((u - p[2]) / sigma))  # noqa: E731
    truth = np.array([flux, -8.0, 8.0])
    snr = np.sqrt((model(truth) ** 2).sum()) / noise
    rng = np.random.default_rng(2)
    noisy = model(truth) + rng.normal(0, noise, (300, len(u)))
    ends = [least_squares(lambda p, y=y: model(p) - y, truth).x[1] for y in noisy]
    along, _ = cramer_rao(np.array([16.0]), np.array([snr]), np.array([sigma]))
    assert np.std(ends) == pytest.approx(along[0], rel=0.15)


def test_a_pull_of_wrongly_claimed_errors_has_the_width_of_the_mistake():
    sample = big_sample()
    matches = sample.match()
    truths, found = sample.truths[matches.claimed >= 0], sample.detections[matches.claimed[matches.claimed >= 0]]
    found["x0_err"] = 0.1
    assert pulls(truths, found)[0].width == pytest.approx(2.0, rel=0.15)
    assert sum(row.count for row in residuals(truths, found, seed=1)) == len(truths)


def test_a_calibrated_score_lies_on_the_diagonal_at_its_density():
    rng = np.random.default_rng(4)
    score = rng.random(200_000)
    true = rng.random(200_000) < score
    for row in reliability(score, true, density=10.0, expected=10.0):
        assert row.true_fraction == pytest.approx(row.mean_score, abs=0.02)
        assert row.true_fraction_expected == pytest.approx(row.true_fraction)
    sparse = reliability(score, true, density=100.0, expected=10.0)
    assert all(row.true_fraction_expected < row.true_fraction for row in sparse)


def test_the_grid_counts_each_truth_once():
    table = grid(
        np.array([20.5, 20.7, 22.0]), np.array([6.0, 20.0, 20.0]), np.array([5.0, 15, 40]), np.array([1, 0, 1], bool)
    )
    assert table.total.tolist() == [[1, 0, 0], [1, 0, 1]]
    assert table.found.tolist() == [[1, 0, 0], [0, 0, 1]]


# Units and several detectors.


def test_a_quarter_of_a_ccd_has_a_quarter_of_the_templates():
    assert noise_limit_snr(10, 0.25) == pytest.approx(noise_limit_snr(40))
    assert noise_limit_snr(1, 0.25) < noise_limit_snr(1)


def test_false_ones_per_ccd_are_counted_by_area_whatever_the_frames():
    truth = truth_table([("a.fits", 20.0 + k / 10, (100, 60 + 30 * k, 20)) for k in range(30)])
    found = [("a.fits", 0.9 - k / 100, (100, 60 + 30 * k, 20)) for k in range(20)]
    false = [("a.fits", 0.805 - k / 100, (700, 60 + 30 * k, 20)) for k in range(15)]
    frames = {name: np.array([value]) for name, value in {"frame": "a.fits", "height": 2066.0, "width": 2048.0}.items()}
    sample = build_sample(truth, detection_table(found + false), frames=frames, n_frames=None)
    by_frame = [half.found for half in judge(sample, JUDGING).half_magnitudes if half.lengths == "all"]
    report = judge(sample, replace(JUDGING, unit="ccd"))
    by_ccd = [half.found for half in report.half_magnitudes if half.lengths == "all"]
    # One per frame: found before the second false one. Ten per CCD are two and a half here: before the third.
    assert by_frame[:2] == [11, 20]
    assert by_ccd[:2] == [10, 12]
    assert "10 false per CCD of 17 Mpx" in as_markdown("Quarter", {"ours": report})


def test_false_ones_per_ccd_need_the_size_of_the_frames():
    sample = build_sample(truth_table(TRUTHS), detection_table([]), frames=None, n_frames=None)
    with pytest.raises(ValueError, match="height and width"):
        judge(sample, replace(JUDGING, unit="ccd"))


def test_a_union_takes_each_ones_best_in_turn_and_each_place_once():
    truth = truth_table(TRUTHS)
    network = detection_table([("a.fits", 0.9, (100, 100, 30)), ("a.fits", 0.1, (400, 400, 9))])
    matched = detection_table([("a.fits", 50.0, (200, 200, 20, 45)), ("a.fits", 40.0, (100, 101, 30))])
    samples = [build_sample(truth, found, frames=None, n_frames=None) for found in (network, matched)]
    both = union(samples)
    assert sorted(both.detections["score"].tolist(), reverse=True) == [1.0, 1.0, 0.5]
    assert (both.match().claimed >= 0).tolist() == [True, True, False]
    assert set(both.detections["x0"]) == {*network["x0"], matched["x0"][0]}


def test_strict_m50_is_no_fainter_and_its_loss_is_no_false_one():
    truth = truth_table([("a.fits", 20.0 + k / 10, (100, 60 + 30 * k, 20)) for k in range(30)])
    loose = detection_table([("a.fits", 0.9 - k / 100, (107 if k > 9 else 100, 60 + 30 * k, 20)) for k in range(20)])
    report = judge(build_sample(truth, loose, frames=None, n_frames=None), JUDGING)
    assert (report.half_magnitudes[0].found, report.strict_half_magnitudes[0].found) == (20, 10)
    assert report.at_threshold.false_per_frame == 0
    assert report.at_price.strict_fraction == 0.5


def test_the_bound_of_the_midpoint_is_below_that_of_an_end_and_pulls_come_by_snr():
    sample = big_sample()
    matches = sample.match()
    truths, found = sample.truths[matches.claimed >= 0], sample.detections[matches.claimed[matches.claimed >= 0]]
    truths["fwhm_px"], truths["snr_limit"] = 2.0, 20.0
    known = [row for row in residuals(truths, found, seed=1) if row.end_bound_px]
    assert [row.snr_from for row in known] == [20.0]
    assert all(row.mid_bound_px < row.end_bound_px for row in known)
    binned = [pull for pull in pulls(truths, found) if pull.quantity.startswith("ends, SNR")]
    assert sum(pull.count for pull in binned) == 4 * len(truths)
    assert all(pull.width == pytest.approx(1, abs=0.25) for pull in binned if pull.count > 400)
