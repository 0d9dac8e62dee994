"""link as a person types it: tables of streaks in, tables of tracks and of streaks out."""

import csv
import json

import pytest
from typer.testing import CliRunner

from detector import fits
from models.simulate.exposure import Plan, write_fields
from stream.cli import app
from stream.commands import linking
from stream.tables import NAMES
from stream.tracktable import TRACK_NAMES
from tests.detector.test_linking import crowd, mover, streaks


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def write_streaks(path, table):
    """A table as ``detect`` writes it, columns that are not known empty."""
    count = len(table["frame"])
    with path.open("w", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(NAMES)
        lines.writerows([table[name][row] if name in table else "" for name in NAMES] for row in range(count))
    return path


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def linked(tmp_path):
    still = [(k, 800, 900, 9, 3, 23.0, 0.3) for k in range(4)]
    rows = [*mover(500, 700, (12, -7), score=0.9), *still, *crowd(30, 2)]
    table = write_streaks(tmp_path / "streaks.csv", streaks(rows))
    done = invoke("link", table, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    return tmp_path / "out"


def test_the_table_of_tracks_has_the_published_columns_one_row_a_sighting(linked):
    rows = read(linked / "tracks.csv")
    assert list(rows[0]) == list(TRACK_NAMES)
    assert len(rows) == 4
    assert len({row["track"] for row in rows}) == 1
    assert {row["n_sightings"] for row in rows} == {"4"}
    assert all(len(row["trk_sub"]) <= 8 and row["trk_sub"].isalnum() for row in rows)
    times = [row["mid_time_utc"] for row in rows]
    assert times == sorted(times)
    assert 0 <= float(rows[0]["position_angle_deg"]) < 360
    assert float(rows[0]["track_score"]) > 0.5


def test_the_columns_of_tracks_are_the_contract():
    assert ", ".join(TRACK_NAMES) == (
        "track, track_score, n_sightings, frame, extension, exposure, ccd, x0, y0, x1, y1, ra, dec, ra_err, dec_err, "
        "ra_dec_corr, mid_time_utc, mag, rate_arcsec_h, position_angle_deg, trk_sub, mag_err, snr, "
        "known_as, known_also, known_sep_arcsec"
    )


def test_streaks_come_back_as_they_were_but_for_what_stands_still(linked, tmp_path):
    before, after = read(tmp_path / "streaks.csv"), read(linked / "streaks.csv")
    assert [dict(row, flags="") for row in before] == [dict(row, flags="") for row in after]
    static = [number for number, row in enumerate(after) if "static" in row["flags"].split()]
    assert static == [4, 5, 6, 7]


def test_linking_twice_gives_the_same_tables(linked, tmp_path):
    invoke("link", tmp_path / "streaks.csv", tmp_path / "streaks.csv", "--out", tmp_path / "again")
    for name in ("tracks.csv", "streaks.csv"):
        assert (linked / name).read_text() == (tmp_path / "again" / name).read_text()


def test_streaks_of_one_exposure_give_an_empty_table(tmp_path):
    table = write_streaks(tmp_path / "streaks.csv", streaks(mover(500, 700, (12, -7), exposures=(0,))))
    assert invoke("link", table, "--out", tmp_path / "out").exit_code == 0
    assert read(tmp_path / "out" / "tracks.csv") == []


def test_an_empty_table_is_linked_to_an_empty_table(tmp_path):
    table = tmp_path / "streaks.csv"
    table.write_text(",".join(NAMES) + "\n")
    assert invoke("link", table, "--out", tmp_path / "out").exit_code == 0
    assert read(tmp_path / "out" / "tracks.csv") == []


def test_a_table_that_is_none_of_streaks_is_refused_by_name(tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("frame,x0\na.fits,1\n")
    done = invoke("link", table, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "other.csv" in done.output
    assert "docs/streaks.md" in done.output.replace("\n", "")


def write_truth(path, rows):
    """The truth of rows as ``streaks`` takes them."""
    drawn = streaks(rows, noise_px=0.0, err_px=0.1)
    names = ("frame", "extension", "x0", "y0", "x1", "y1", "mag")
    with path.open("w", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow([*names, "object", "snr_limit", "inside", "field", "ccd"])
        for row in range(len(rows)):
            lines.writerow([*(drawn[name][row] for name in names), "o1", 50.0, 1, "f", "1"])
    return path


def test_tracks_are_judged_and_what_chance_links_is_counted(linked, tmp_path):
    truth = write_truth(tmp_path / "truth.csv", mover(500, 700, (12, -7)))
    done = invoke(
        "evaluate", "tracks", "--tracks", linked / "tracks.csv", "--truth", truth,
        "--streaks", tmp_path / "streaks.csv", "--scrambled", 3, "--out", tmp_path / "judged",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "judged" / "report.json").read_text())
    ours = report["tracks"]["needlestream"]
    assert (ours["objects"], ours["found"], ours["classes"][0]["false"]) == (1, 1, 0)
    assert report["scrambled"]["needlestream"]["fields"] == 3
    assert "1 / 1" in (tmp_path / "judged" / "report.md").read_text()


def test_a_judgement_without_tables_is_a_wrong_usage(tmp_path):
    done = invoke("evaluate", "tracks", "--out", tmp_path)
    assert done.exit_code == 2
    assert "--tracks" in done.output


def test_the_classical_route_stands_beside_ours_on_simulated_frames(tmp_path, monkeypatch):
    pytest.importorskip("sep")
    plan = Plan("euclid-reference", asteroids=40.0, shape=(256, 256), dithers=3)
    write_fields(tmp_path / "simulated", plan, 31)

    def detect(*_, **__):
        write_streaks(tmp_path / "out" / "streaks.csv", streaks(crowd(9, 1)))

    def read(file):
        return fits.read_frames(file, name=str(file))

    monkeypatch.setattr(linking, "detect_files", detect)
    monkeypatch.setattr(linking, "examination", lambda *_: (read, None))
    done = invoke("evaluate", "tracks", "--simulated", tmp_path / "simulated", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())["tracks"]
    assert list(report) == ["needlestream", "multi-epoch (sep)"]
    assert report["multi-epoch (sep)"]["fields"] == 1
