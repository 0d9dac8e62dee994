"""Tables of candidates against true objects: who lies on what, and the figures that follow."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from models.evaluate.candidatetables import FALSE, NEITHER, TRUE, candidate_report, judge_tables
from stream.cli import app


def table(rows, *columns):
    """Columns of rows; ``frame`` is text, the rest numbers."""
    return {
        name: np.array([row[k] for row in rows], None if name == "frame" else np.float64)
        for k, name in enumerate(columns)
    }


def matched(truth, found, *, n_frames=None, places=("x", "y"), within_arcsec=1.0):
    return judge_tables(
        table(truth, "frame", *places),
        table(found, "frame", *places, "probability"),
        n_frames=n_frames,
        within_arcsec=within_arcsec,
        within_px=5.0,
    )


def test_the_most_probable_candidate_finds_an_object_and_a_further_one_is_neither():
    truth = [("a.fits", 100, 100), ("a.fits", 107, 100), ("b.fits", 100, 100)]
    found = [("a.fits", 101, 100, 0.7), ("a.fits", 99, 100, 0.9), ("a.fits", 108, 101, 0.6), ("a.fits", 300, 9, 0.8)]
    judged = matched(truth, [*found, ("c.fits", 100, 100, 0.99)])
    assert judged.verdict.tolist() == [NEITHER, TRUE, TRUE, FALSE, FALSE]
    assert judged.best.tolist() == [0.9, 0.6, -np.inf]
    assert judged.n_frames == 3
    # Between two objects a candidate takes the nearer one that is free.
    assert matched(truth, [("a.fits", 104, 100, 0.7), ("a.fits", 103, 100, 0.6)]).best[:2].tolist() == [0.6, 0.7]


def test_the_sky_tells_where_both_tables_have_it():
    arcsec = 1.0 / 3600.0
    truth = [("night/a.fits", 0.0, 60.0)]
    near, far = ("a.fits", 360.0 - 1.8 * arcsec, 60.0, 0.5), ("a.fits", 2.2 * arcsec, 60.0, 0.5)
    for place, verdict in ((near, TRUE), (far, FALSE)):
        judged = matched(truth, [place], places=("ra", "dec"))
        assert (judged.verdict.tolist(), judged.radius) == ([verdict], "1 arcsec")


def test_figures_follow_from_the_verdicts():
    truth = [("a.fits", 50 * k, 10) for k in range(1, 11)]
    found = [("a.fits", 50 * k, 10, 0.99 - 0.01 * k) for k in range(1, 10)]
    false = [("a.fits", 50 * k, 300, 0.995 - 0.1 * k) for k in range(6)]
    report = candidate_report(matched(truth, found + false, n_frames=4))
    assert (report.objects, report.candidates, report.frames) == (10, 15, 4)
    at = dict(report.at_completeness)
    assert sorted(at) == [0.5, 0.8, 0.9]
    assert (at[0.9].found, at[0.9].false, at[0.9].purity) == (9, 1, pytest.approx(0.9))
    half = report.at_probability[0]
    assert (half.completeness, half.false, half.false_per_frame) == (0.9, 5, 1.25)


@pytest.mark.parametrize(
    ("truth", "found", "more", "complaint"),
    [
        ([("a", 1, 2)], [("b", 1, 2, 0.5)], {}, "share no frame"),
        ([("a", 1, 2)], [("a", 1, np.nan, 0.5)], {}, "no number"),
        ([("a", 1, 2), ("b", 1, 2)], [("a", 1, 2, 0.5)], {"n_frames": 1}, "1 frames were announced"),
    ],
)
def test_tables_that_do_not_fit_are_refused(truth, found, more, complaint):
    with pytest.raises(ValueError, match=complaint):
        matched(truth, found, **more)


def test_the_command_judges_anybodys_table(tmp_path):
    (tmp_path / "truth.csv").write_text("frame,x,y\na.fits,10,20\na.fits,90,20\n")
    (tmp_path / "mine.csv").write_text("frame,x,y,probability\na.fits,11,20,0.9\na.fits,50,50,0.6\n")
    words = ["--detections", str(tmp_path / "mine.csv"), "--truth", str(tmp_path / "truth.csv"), "--frames", "2"]
    for what in ("lenses", "mergers"):
        done = CliRunner().invoke(app, ["evaluate", what, *words, "--out", str(tmp_path / what)])
        assert done.exit_code == 0, done.output
        report = json.loads((tmp_path / what / "report.json").read_text())["candidates"]
        assert report["at_probability"][0]["purity"] == 0.5
        assert "2 true objects in 2 frames, matched within 5 px" in (tmp_path / what / "report.md").read_text()
    alone = CliRunner().invoke(app, ["evaluate", "lenses", *words[:2]])
    assert alone.exit_code == 2
    (tmp_path / "mine.csv").write_text("frame,x\na.fits,11\n")
    assert CliRunner().invoke(app, ["evaluate", "lenses", *words]).exit_code == 2
