"""The judge of candidates whose field has other exposures: its evidence, its weights, what it learns from."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, logit

from detector.elsewhere import SUREST, Elsewhere, standing_odds
from detector.fieldevidence import NAMES, field_evidence
from models.boosted import tensors_of
from models.fieldjudge import FieldJudge, judge_of, load_fieldjudge
from models.predictor import load_streak_network
from models.simulate.exposure import Plan
from models.training import fieldjudge as training
from models.training.boosting import Boosting
from models.weights import BadWeights, Weights, load, shipped
from stream.commands.science import load_judge
from tests.models.test_linker import stump

# One that moves, one that stands still, one that no other exposure shows, one that a single one shows.
FLUX = np.array([100.0, 100.0, 100.0, 100.0])
ELSEWHERE = Elsewhere(
    flux_e=FLUX,
    sigma_e=np.full(4, 5.0),
    there_e=np.array([[1.0, -2.0], [98.0, 104.0], [0.0, 0.0], [0.0, 3.0]]),
    there_sigma_e=np.array([[5.0, 5.0], [5.0, 5.0], [np.inf, np.inf], [np.inf, 5.0]]),
)


def candidates_with(table):
    """Candidates with just this evidence of their own."""
    return SimpleNamespace(evidence=lambda: table)


def test_what_moves_is_told_from_what_stands_still_and_nothing_is_said_of_what_nobody_saw():
    assert ELSEWHERE.seen.tolist() == [2, 2, 0, 1]
    flux, sigma = ELSEWHERE.combined()
    np.testing.assert_allclose(flux, [-0.5, 101.0, 0.0, 3.0])
    np.testing.assert_allclose(sigma, [5 / 2**0.5, 5 / 2**0.5, np.inf, 5.0])
    moves = ELSEWHERE.moves()
    assert moves[0] > 5.0
    assert moves[1] == -SUREST
    assert moves[2] == 0.0
    assert 0.0 < moves[3] < moves[0]
    assert (standing_odds(moves)[[0, 3]] < 1.0).all()
    assert standing_odds(moves)[2] == pytest.approx(1.0)


def test_the_evidence_has_a_number_for_every_name_and_none_that_is_alike_in_a_frame():
    own = np.arange(4 * 19, dtype=float).reshape(4, 19)
    own[1, 3] = np.nan
    table = field_evidence(np.array([1.0, 2.0, 3.0, 4.0]), candidates_with(own), ELSEWHERE)
    assert table.shape == (4, len(NAMES))
    assert np.isfinite(table).all()
    assert "fwhm" not in NAMES
    column = {name: table[:, k] for k, name in enumerate(NAMES)}
    np.testing.assert_allclose(column["seen"], [2, 2, 0, 1])
    np.testing.assert_allclose(column["part"], [-0.005, 1.01, 0.0, 0.03])
    np.testing.assert_allclose(column["most_part"], [0.01, 1.04, 0.0, 0.03])
    np.testing.assert_allclose(column["least_part"], [-0.02, 0.98, 0.0, 0.03])
    np.testing.assert_allclose(column["most_there"], np.arcsinh([0.2, 20.8, 0.0, 0.6]))
    np.testing.assert_allclose(column["weighed"], column["judged"] - np.log(standing_odds(ELSEWHERE.moves())))


def test_the_probability_follows_the_number_of_streaks_that_are_expected():
    judge = FieldJudge(stump(0, 0.0, -2.0, 2.0), 1.1, -0.3, 400.0, "", {})
    table = np.zeros((2, len(NAMES)))
    table[:, 0] = [-1.0, 1.0]
    np.testing.assert_allclose(judge(table, 400.0), expit(1.1 * np.array([-2.0, 2.0]) - 0.3))
    np.testing.assert_allclose(logit(judge(table, 40.0)) - logit(judge(table, 400.0)), np.log(0.1))


def test_weights_of_something_else_are_refused():
    arrays = tensors_of(stump(0, 0.0, 0.0, 1.0))
    with pytest.raises(BadWeights, match="streaknet"):
        judge_of(Weights(arrays, {"network": "streaknet"}, ""), "mine")
    with pytest.raises(BadWeights, match="other evidence"):
        judge_of(Weights(arrays, {"network": "fieldjudge", "evidence": ["one"]}, ""), "mine")


def test_the_shipped_judge_knows_the_shipped_network_and_is_not_asked_about_another(tmp_path):
    network = load_streak_network("streaknet", "cpu")
    assert load_fieldjudge().network == network.weights.sha256
    judge = load_judge(network)
    assert judge is not None
    # All else alike, what has no light elsewhere is likelier than what has as much.
    table = np.zeros((2, len(NAMES)))
    moves = np.array([SUREST, -SUREST])
    told = {"seen": (3, 3), "moves": moves, "weighed": -np.log(standing_odds(moves)), "part": (0, 1), "there": (0, 3)}
    for name, values in told.items():
        table[:, NAMES.index(name)] = values
    moving, standing = judge(table, 100.0)
    assert moving > 5.0 * standing
    another = replace(network, weights=replace(network.weights, sha256="another"))
    assert load_judge(another) is None
    # One that was asked for by name is not left out in silence.
    mine = tmp_path / "mine.safetensors"
    shutil.copy(shipped("fieldjudge"), mine)
    assert load_judge(network, str(mine)) is not None
    with pytest.raises(BadWeights, match="another network"):
        load_judge(another, str(mine))


def test_seeds_of_evaluation_and_too_few_fields_are_refused(tmp_path):
    with pytest.raises(ValueError, match="belong to evaluation"):
        training.train_fieldjudge(tmp_path, seed=899_999, count=5)
    with pytest.raises(ValueError, match="at least 5"):
        training.train_fieldjudge(tmp_path, seed=1, count=4)


def test_plans_are_of_every_camera_and_within_what_is_said():
    plans = [training.draw_plan(np.random.default_rng(seed)) for seed in range(60)]
    assert {plan.kind for plan in plans} == {kind for kind, *_ in training.KINDS}
    for plan in plans:
        megapixels = plan.shape[0] * plan.shape[1] / 1e6
        assert training.DENSITY[0] <= plan.asteroids / megapixels <= training.DENSITY[1]
        assert training.DITHERS[0] <= plan.dithers <= training.DITHERS[1]


def test_a_field_is_drawn_searched_and_held_against_its_truth(tmp_path, monkeypatch):
    plan = Plan("kids-omegacam", asteroids=12, magnitudes=(17.5, 20.0), shape=(640, 600), dithers=2)
    monkeypatch.setattr(training, "draw_plan", lambda _: replace(plan, rates_arcsec_h=(20.0, 60.0)))
    field = training.judge_field(tmp_path, 11, "streaknet", "cpu")
    assert field.evidence.shape == (len(field.true), len(NAMES))
    assert field.pixels == 2 * 640 * 600
    assert 0 < field.true.sum() <= field.streaks
    assert (field.evidence[:, NAMES.index("seen")] == 1).all()
    moves = field.evidence[:, NAMES.index("moves")]
    assert np.median(moves[field.true]) > 0.0
    assert np.median(moves[field.true]) > np.median(moves[~field.true])


def test_what_is_found_at_a_price_counts_what_lies_above_the_false_ones_that_may_not_pass():
    score = np.array([9.0, 7.0, 5.0, 3.0, 8.0, 6.0, 4.0])
    true = np.array([True, True, True, True, False, False, False])
    assert [training.found_at(score, true, allowed) for allowed in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_training_learns_from_the_fields_that_are_there_and_calibrates_on_others(tmp_path, monkeypatch):
    pytest.importorskip("lightgbm")
    monkeypatch.setattr(training, "BOOSTING", Boosting(rounds=20, leaves=4, rate=0.2))
    fields = training.Fields(tmp_path / "fields", "streaknet", load("streaknet").sha256, "cpu", 3, 10)
    fields.folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(10):
        evidence = rng.normal(size=(300, len(NAMES)))
        true = rng.uniform(size=300) < expit(2.0 * evidence[:, 0] + 2.0 * evidence[:, 1] - 1.0)
        np.savez(fields.path(number), evidence=evidence, true=true, counts=np.array([10**6, true.sum()]))
    # What is there is not drawn again: nothing here could be.
    monkeypatch.setattr(training, "judge_field", None)
    curve, found = training.train_fieldjudge(tmp_path, seed=3, count=10)
    # Either number tells a part of what the trees know.
    assert 0.0 < found["judged"] < found["trees"] <= 1.0
    assert 0.0 < found["weighed"] < found["trees"]
    judge = load_fieldjudge(str(tmp_path / "fieldjudge.safetensors"))
    assert judge.facts["recipe"]["candidates"] == 8 * 300
    assert judge.density == pytest.approx(curve.density)
    fresh = np.zeros((3, len(NAMES)))
    fresh[:, 0] = fresh[:, 1] = [-1.5, 0.0, 1.5]
    probability = judge(fresh, judge.density)
    assert probability[0] < 0.1
    assert probability[2] > 0.9
    assert (np.diff(probability) > 0).all()
