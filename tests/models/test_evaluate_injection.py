"""Streaks drawn into frames: their light, their noise, their room, and what the frame's own candidates may claim."""

import numpy as np
import pytest

from detector.frame import Frame, FrameHeader
from detector.psf import Psf
from detector.survey import GENERIC
from models.evaluate.injection import (
    INJECTED,
    canvas,
    depths,
    draw_streaks,
    magnitudes,
    outranking,
    unit_streak,
    with_streaks,
)
from models.evaluate.matching import ends_of, lengths
from models.evaluate.sample import DETECTION, build_sample

SKY_E, NOISE_E = 400.0, 20.0


def noise_frame(shape=(300, 400), seed=1):
    pixels = np.random.default_rng(seed).normal(SKY_E, NOISE_E, shape).astype(np.float32)
    return Frame(FrameHeader("a.fits", 0, shape, GENERIC), pixels, np.zeros(shape, np.uint8))


def test_a_unit_streak_holds_all_its_light_about_its_line():
    psf = Psf(np.array([0.8, 2.5]), np.array([0.8, 0.2]), 2.0, 30)
    ends = np.array([[20.3, 31.7], [50.9, 44.1]])
    (top, left), light = unit_streak(ends, psf)
    assert light.sum() == pytest.approx(1, abs=1e-4)
    y, x = np.mgrid[top : top + light.shape[0], left : left + light.shape[1]]
    centre = (light * x).sum(), (light * y).sum()
    assert centre == pytest.approx(ends.mean(axis=0), abs=1e-3)
    variance = (light * (x - centre[0]) ** 2).sum() + (light * (y - centre[1]) ** 2).sum()
    assert variance == pytest.approx(lengths(ends[None])[0] ** 2 / 12 + 2 * (0.8 * 0.64 + 0.2 * 6.25), rel=1e-3)


def test_a_unit_streak_is_many_point_sources_in_a_row():
    psf = Psf(np.array([1.1]), np.ones(1), 2.6, 30)
    ends = np.array([[10.0, 10.0], [22.0, 15.0]])
    (top, left), light = unit_streak(ends, psf)
    y, x = np.mgrid[top : top + light.shape[0], left : left + light.shape[1]]
    dots = ends[0] + (np.arange(4000) + 0.5)[:, None] / 4000 * (ends[1] - ends[0])
    r2 = (x[..., None] - dots[:, 0]) ** 2 + (y[..., None] - dots[:, 1]) ** 2
    points = np.exp(-0.5 * r2 / 1.1**2).mean(axis=-1) / (2 * np.pi * 1.1**2)
    np.testing.assert_allclose(light, points, atol=1e-7)


def test_streaks_keep_apart_inside_the_frame_and_off_the_mask():
    frame = noise_frame()
    frame.mask[:, 200:] = 1
    rows = draw_streaks(np.random.default_rng(3), canvas(frame), per_ccd=2000.0)
    ends = ends_of(rows)
    assert 8 <= len(rows) <= 14
    assert (ends >= 10).all()
    assert (ends[:, :, 0].mean(axis=1) < 200).all()
    apart = np.linalg.norm(ends.mean(axis=1)[:, None] - ends.mean(axis=1)[None], axis=-1)
    room = 0.5 * (rows["length_px"][:, None] + rows["length_px"][None]) + 20
    assert (apart + 1e9 * np.eye(len(rows)) > room).all()
    np.testing.assert_allclose(lengths(ends), rows["length_px"])


def test_a_streaks_snr_is_that_of_a_matched_filter_and_its_light_has_its_own_noise():
    frame = noise_frame()
    on = canvas(frame)
    rows = np.zeros(1, INJECTED)
    rows[["x0", "y0", "x1", "y1"]] = (100, 100, 130, 110)
    _, light = unit_streak(ends_of(rows)[0], on.psf)
    rows["flux_e"] = 300 * NOISE_E / np.sqrt((light**2).sum())
    rng = np.random.default_rng(5)
    added = np.array([with_streaks(rng, on, rows).pixels - frame.pixels for _ in range(200)])
    total = added.sum(axis=(1, 2))
    assert total.mean() == pytest.approx(rows["flux_e"][0], rel=0.01)
    assert total.std() == pytest.approx(np.sqrt(rows["flux_e"][0]), rel=0.2)
    drawn = draw_streaks(np.random.default_rng(1), on, per_ccd=80.0)
    (_, first) = unit_streak(ends_of(drawn)[0], on.psf)
    assert drawn["flux_e"][0] * np.sqrt((first**2).sum()) / NOISE_E == pytest.approx(drawn["snr_limit"][0], rel=0.05)


def test_a_frame_without_room_gets_no_streak():
    assert len(draw_streaks(np.random.default_rng(1), canvas(noise_frame((40, 40))), per_ccd=80.0)) < 4
    assert len(draw_streaks(np.random.default_rng(1), canvas(noise_frame((20, 20))), per_ccd=80.0)) == 0


def detection(*rows):
    table = np.zeros(len(rows), DETECTION)
    for row, (x, y, score) in zip(table, rows, strict=True):
        row["x0"], row["y0"], row["x1"], row["y1"], row["score"] = x - 10, y, x + 10, y, score
    return table


def test_what_the_frame_showed_before_finds_no_streak_unless_it_is_outranked():
    truth = np.zeros(2, INJECTED)
    truth["x0"], truth["x1"], truth["y0"], truth["y1"] = [90, 190], [110, 210], 100, 100
    baseline = detection((100, 101, 0.4), (200, 99, 0.4))
    found = detection((100, 101, 0.4), (200, 100, 0.9), (300, 100, 0.2))
    assert outranking(truth, found, baseline).tolist() == [False, True, True]


def test_magnitudes_are_instrumental_without_a_zero_point():
    assert magnitudes(np.array([1000.0]), 25.5, 100.0) == pytest.approx(23.0)
    assert magnitudes(np.array([1000.0]), None, 100.0) == magnitudes(np.array([1000.0]), 25.5, None)
    assert magnitudes(np.array([1000.0]), None, None) == pytest.approx(17.5)


def test_the_depth_of_a_frame_is_the_snr_at_which_half_are_found():
    rng = np.random.default_rng(2)
    n = 400
    snr = np.exp(rng.uniform(np.log(3), np.log(60), n))
    truth = {name: np.full(n, 100.0) for name in ("y0", "y1")}
    truth |= {"x0": 40.0 * np.arange(n), "x1": 40.0 * np.arange(n) + 20, "mag": -2.5 * np.log10(snr), "snr_limit": snr}
    truth |= {"frame": np.full(n, "a.fits#1"), "inside": np.ones(n)}
    seen = snr > 12
    found = {name: truth[name][seen] for name in ("frame", "x0", "y0", "x1", "y1")} | {"score": np.ones(seen.sum())}
    frames = {"frame": np.array(["a.fits", "a.fits#1"]), "height": np.full(2, 4132.0), "width": np.full(2, 4096.0)}
    frames |= {"psf_fwhm_px": np.full(2, 2.0), "width": np.full(2, 40.0 * n + 100)}
    sample = build_sample(truth, found, frames=frames, n_frames=None)
    rows = depths(sample, frames, [("a.fits", 0)] * 2)
    assert [(row.frame, row.false_per_frame) for row in rows] == [(a, b) for a in ("a.fits", "all") for b in (1, 10)]
    assert all(row.snr_half == pytest.approx(12, rel=0.05) for row in rows)
    assert rows[1].behind_mag == pytest.approx(2.5 * np.log10(rows[1].snr_half / rows[1].snr_noise))
