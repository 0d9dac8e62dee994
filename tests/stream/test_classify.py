"""Stamps of lenses and mergers: judged, evaluated, calibrated, with networks that hardly learned."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.io import fits
from typer.testing import CliRunner

from detector.stamps import prepared_stamp, resampled, whitened
from models.classpredictor import load_class_network, load_discriminator, log_odds_against_others
from models.evaluate.classes import Judgement, class_markdown, found_at, judged, purity_of_top, roc, top_markdown
from models.evaluate.classplots import stamp_page
from models.networks.denselens import DenseShape, Ensemble
from models.training.stampbank import StampBank, make_parts
from models.weights import BadWeights, load, save
from stream.cli import app
from stream.tables import read_columns


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """DenseLens of few channels that nobody trained."""
    torch.manual_seed(1)
    shape = DenseShape(8, 4, (1, 1))
    tensors = {f"classifiers.{k}": v for k, v in Ensemble(2, shape).state_dict().items()}
    tensors |= {f"regressors.{k}": v for k, v in Ensemble(2, shape).state_dict().items()}
    told = {"entry": 8, "growth": 4, "blocks": [1, 1], "classifiers": 2, "regressors": 2}
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    curve = {"slope": 1.0, "intercept": 0.0, "rate": 0.5}
    save(path, tensors, {"network": "denselens", "shape": told, "calibration": curve, "threshold": 0.9})
    return path


def galaxy(seed, side=70, height=500.0, offset=(0, 0)):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    light = height * np.exp(-np.hypot(x - offset[0], y - offset[1]) / 3.0)
    return (1000.0 + light + rng.normal(0, 7.0, (side, side))).astype(np.float32)


def written(folder, count=3):
    for number in range(count):
        fits.writeto(folder / f"{number}.fits", galaxy(number, offset=(2, -1)))
    return folder


def test_a_stamp_is_in_units_of_its_borders_noise_with_its_object_in_the_middle():
    pixels = galaxy(1, side=101, offset=(3, -2))
    stamp, x, y = prepared_stamp(pixels, np.zeros(pixels.shape, np.uint8), 0.1, "lenses")
    assert (x, y) == (53, 48)
    assert stamp.shape == (64, 64)
    assert stamp[32, 32] > 40
    assert whitened(pixels)[:10].std() == pytest.approx(1.0, abs=0.15)


def test_finer_pixels_are_brought_to_those_that_the_network_knows():
    image = galaxy(2, side=200, offset=(10.0, 6.0))
    stamp, x, y = prepared_stamp(image, np.zeros(image.shape, np.uint8), 0.05, "mergers")
    assert (x, y) == pytest.approx((109.5, 105.5), abs=1.5)
    assert stamp[32, 32] > 0.9 * np.nanmax(stamp)
    assert resampled(image, 2.5).shape == (80, 80)


def test_a_psf_narrower_than_was_trained_with_is_widened_and_a_wider_one_left():
    pixels = galaxy(2, side=200)
    nothing = np.zeros(pixels.shape, np.uint8)
    as_is, sharp, wide = (
        prepared_stamp(pixels, nothing, 0.05, "lenses", fwhm_arcsec=fwhm)[0] for fwhm in (None, 0.05, 0.3)
    )
    np.testing.assert_array_equal(wide, as_is)
    # Less of its light is in its middle; the noise, measured again, is less too.
    shares = [stamp[32, 32] / np.nansum(stamp[24:40, 24:40]) for stamp in (as_is, sharp)]
    assert shares[1] < 0.9 * shares[0]


def test_classify_judges_every_stamp_and_ranks_them_together(tmp_path, weights):
    out = tmp_path / "lenses.csv"
    words = ["classify", "lenses", str(written(tmp_path)), "--pixel-scale", "0.1", "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--lens-weights", str(weights), "--out", str(out)])
    assert done.exit_code == 0, done.output
    table = read_columns(out, {"x", "y", "probability", "rank", "ic"})
    assert table["x"].tolist() == pytest.approx([36.5] * 3, abs=1.0)
    assert sorted(table["rank"].tolist()) == [1, 2, 3]
    assert table["ic"][np.argmin(table["rank"])] == table["ic"].max()
    assert table["model"][0].startswith("denselens@")


def test_classify_asks_for_the_pixel_scale_where_the_file_does_not_say(tmp_path, weights):
    words = ["classify", "lenses", str(written(tmp_path, 1)), "--lens-weights", str(weights), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "t.csv")])
    assert done.exit_code == 1
    assert "give --pixel-scale" in done.output


def test_weights_of_another_class_are_refused_by_name(weights):
    with pytest.raises(BadWeights, match="'denselens', not one of merger, vgg19"):
        load_class_network(str(weights), "cpu", task="mergers")
    with pytest.raises(BadWeights, match="not a discriminator"):
        load_discriminator(str(weights), "cpu")


def test_another_base_rate_lowers_the_probability_and_takes_the_threshold_along(tmp_path, weights):
    out = tmp_path / "rare.safetensors"
    done = CliRunner().invoke(app, ["calibrate", str(weights), "--rate", "0.001", "--out", str(out)])
    assert done.exit_code == 0, done.output
    common, rare = (load_class_network(str(path), "cpu", task="lenses") for path in (weights, out))
    stamps = np.random.default_rng(1).normal(size=(8, 64, 64)).astype(np.float32)
    before, after = common.judge(stamps)[0], rare.judge(stamps)[0]
    np.testing.assert_allclose(after / (1 - after), before / (1 - before) / 999.0, rtol=1e-6)
    np.testing.assert_array_equal(before >= common.threshold, after >= rare.threshold)
    assert rare.threshold / (1 - rare.threshold) == pytest.approx(9.0 / 999.0)
    assert load(str(out)).facts["calibration"]["rate"] == 0.001


def test_too_few_labels_calibrate_nothing(tmp_path, weights):
    written(tmp_path, 4)
    (tmp_path / "labels.csv").write_text("stamp,label\n" + "".join(f"{k}.fits,{k % 2}\n" for k in range(4)))
    words = ["calibrate", str(weights), "--labels", str(tmp_path / "labels.csv"), "--pixel-scale", "0.1"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu", "--out", str(tmp_path / "w.safetensors")])
    assert done.exit_code == 2
    assert "at least 10 of each" in " ".join(done.output.split())


def test_a_rate_of_false_ones_is_given_only_where_it_can_be_seen():
    rng = np.random.default_rng(4)
    true = np.arange(4000) % 2 == 1
    score = rng.normal(size=4000) + 2.0 * true
    # Twenty false ones fix the cut to 0.08 of its scatter, and the share above it to 0.03.
    assert found_at(score, true, 0.01) == pytest.approx(0.37, abs=0.09)
    assert np.isnan(found_at(score, true, 1e-3))
    curve = roc(score, true)
    assert curve[-1].tolist() == [1.0, 1.0]
    assert (np.diff(curve, axis=0) >= 0).all()


def test_a_report_says_what_a_judge_is_worth():
    rng = np.random.default_rng(5)
    true = np.arange(2000) % 2 == 1
    logit = rng.normal(size=2000) + np.where(true, 1.0, -1.0)
    honest = Judgement(logit, 1.0 / (1.0 + np.exp(-2.0 * logit)), 0.9)
    report = judged(honest, true)
    assert report.area == pytest.approx(0.92, abs=0.02)
    assert report.accuracy == pytest.approx(0.84, abs=0.03)
    assert report.calibration_error < 0.03
    assert report.found_at_threshold > 10 * report.false_at_threshold
    page = class_markdown("Lenses", {"denselens": report}, ("A remark.",))
    assert "| denselens | 0.9" in page
    assert page.endswith("A remark.\n")


def test_the_purity_of_the_best_falls_with_the_rarity_of_lenses():
    rng = np.random.default_rng(6)
    true = np.arange(4000) % 2 == 1
    score = rng.normal(size=4000) + 2.5 * true
    common, rare = (purity_of_top(score, true, 1500, rate=rate, galaxies=4000) for rate in (0.5, 0.05))
    assert common > 0.95
    assert rare < 0.9 * common


def test_the_purity_of_the_best_is_that_of_the_cut_that_takes_so_many_of_the_sky():
    # Of a sky of 10,000 galaxies 100 are lenses: each lens of the sample stands for half a one, each other for 50.
    true = np.array([True] * 100 + [False] * 20 + [True] * 100 + [False] * 178)
    score = -np.arange(len(true), dtype=float)
    purity = [purity_of_top(score, true, count, rate=0.01, galaxies=10_000) for count in (600, 1050, 1075, 2000)]
    np.testing.assert_allclose(purity, [50 / 600, 50 / 1050, 75 / 1075, 100 / 2000], rtol=1e-9)


def test_the_purity_of_the_best_is_told_only_where_false_stamps_could_spoil_it_and_sooner_with_more_of_them():
    rng = np.random.default_rng(6)
    for count, seen in ((4_000, [False, False, True]), (20_000, [False, True, True]), (80_000, [True, True, True])):
        true = np.arange(count) % 2 == 1
        score = rng.normal(size=count) + 3.0 * true
        tops = [purity_of_top(score, true, top, rate=0.001) for top in (30, 100, 1000)]
        assert np.isfinite(tops).tolist() == seen
    assert tops[0] > tops[1] > tops[2] > 0.05
    page = top_markdown({"denselens": Judgement(score)}, true, rate=0.001)
    assert f"| denselens | - | {tops[0]:.3f} | {tops[1]:.3f} |" in page


def test_evaluate_keeps_its_stamps_and_draws_none_twice(tmp_path, weights, monkeypatch):
    words = ["evaluate", "lenses", "--survey", "kids-omegacam", "--stamps", "100", "--baseline", "", "--no-plots"]
    words += ["--lens-weights", str(weights), "--device", "cpu", "--out", str(tmp_path)]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert [path.suffix for path in (tmp_path / "bank").iterdir()] == [".npz"]
    before = (tmp_path / "report.json").read_bytes()
    monkeypatch.setattr("models.simulate.stamps.draw_stamps", None)
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "report.json").read_bytes() == before
    assert "Purity of the best of 100,000 galaxies of which 100 are true" in again.output


def test_a_bank_of_fewer_stamps_is_not_taken_for_one_of_more_nor_the_other_way(tmp_path, monkeypatch):
    drawn = []

    def stamps(_task, count, *, first, **_):
        drawn.append((first, count))
        label = np.arange(first, first + count) % 2
        pixels = np.full((count, 64, 64), 1.0, np.float32)
        return SimpleNamespace(pixels=pixels, label=label, ic=np.ones(count), kind=["a"] * count)

    monkeypatch.setattr("models.simulate.stamps.draw_stamps", stamps)
    monkeypatch.setattr("numba.set_num_threads", lambda _: None)
    for count, more in ((1004, [(0, 1000), (1000, 4)]), (1006, [(1000, 6)]), (600, []), (1006, [])):
        drawn.clear()
        bank = StampBank(tmp_path, "lenses", "all", 900_001, count)
        assert list(make_parts(bank, 1)) == list(range(bank.parts))
        assert (len(bank.stamps().label), drawn) == (count, more)


def test_evaluate_says_what_surveys_stamps_are_drawn_for(tmp_path):
    done = CliRunner().invoke(app, ["evaluate", "mergers", "--survey", "gaia", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "kids-omegacam" in done.output


def test_the_page_of_stamps_has_the_best_true_above_the_worst_false():
    pixels = np.zeros((60, 64, 64), np.float32)
    true = np.arange(60) % 2 == 1
    pixels[true] = 40.0
    page = np.asarray(stamp_page(pixels, np.arange(60.0), true))
    assert (page[30, 10], page[30 + 2 * 68 + 4, 10]) == (255, page[30 + 2 * 68 + 4, 300])
    assert page[30 + 2 * 68 + 4, 10] < 128


def test_log_odds_of_classes_are_against_all_others_together():
    odds = log_odds_against_others(np.log(np.array([[0.1, 0.2, 0.3, 0.4]])))
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), [[0.1, 0.2, 0.3, 0.4]])
