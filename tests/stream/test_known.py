"""Tracks of known objects are marked: in files, on the stream, and in what goes to the Minor Planet Center."""

import numpy as np
import pytest

from detector.linking import link
from detector.sightings import catalogue
from stream.ades import NUMBERS, Report, observations
from stream.fields import Fields
from stream.framing import decode, encode
from stream.known import read_known
from stream.tables import read_columns
from tests.detector.test_linking import SHAPES, Fits, crowd, mover, streaks
from tests.stream.nights import exposures_of, night, outputs_of
from tests.stream.test_fields import fed, published_by
from tests.stream.test_link import invoke, read, write_streaks


def known_rows(table, rows):
    """Lines of a table of known objects: where some streaks were."""
    return [f"{table['mid_time_utc'][row]},{table['ra'][row]:.8f},{table['dec'][row]:.8f}" for row in rows]


@pytest.fixture
def table():
    rows = [*mover(500, 700, (12, -7), score=0.9), *mover(1200, 300, (3, 14), score=0.9), *crowd(20, 2)]
    return streaks(rows, err_px=0.1) | {"snr": np.linspace(10, 20, len(rows)), "mag_err": np.full(len(rows), 0.123)}


def given(tmp_path, table, names):
    """Known objects at the places of the first track's sightings, first and last row alone."""
    lines = ["name,time_utc,ra,dec", *(f"{name},{row}" for name in names for row in known_rows(table, (0, 3)))]
    path = tmp_path / "known.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def linked(tmp_path, table, *words):
    done = invoke("link", write_streaks(tmp_path / "streaks.csv", table), "--out", tmp_path / "out", *words)
    assert done.exit_code == 0, done.output
    return read(tmp_path / "out" / "tracks.csv"), done.output


def test_the_track_of_a_known_object_has_its_name_and_the_distance_of_each_sighting(tmp_path, table):
    rows, said = linked(tmp_path, table, "--known", given(tmp_path, table, ["2024 AB12"]))
    assert len(rows) == 8
    marked = [row for row in rows if row["known_as"]]
    assert {row["known_as"] for row in marked} == {"2024 AB12"}
    assert {row["known_also"] for row in marked} == {""}
    assert [row["exposure"] for row in marked] == ["e0", "e1", "e2", "e3"]
    assert all(float(row["known_sep_arcsec"]) < 0.2 for row in marked)
    assert "tracks of known objects: 1, ambiguous: 0" in said


def test_an_ambiguous_match_says_so_and_is_not_reported_by_name(tmp_path, table):
    rows, said = linked(tmp_path, table, "--known", given(tmp_path, table, ["2024 AB12", "2024 AB13"]))
    marked = [row for row in rows if row["known_as"]]
    assert {(row["known_as"], row["known_also"]) for row in marked} == {("2024 AB12", "2024 AB13")}
    assert "ambiguous: 1" in said


def test_errors_of_magnitudes_snr_and_names_go_on_into_the_report(tmp_path, table):
    linked(tmp_path, table, "--known", given(tmp_path, table, ["2024 AB12"]))
    told = read_columns(tmp_path / "out" / "tracks.csv", NUMBERS)
    found = observations(told, Report("268", "Gaia3", "J. Doe", (), 2.6, band="G"), None)
    named = [one for one in found if "provID" in one]
    assert [one["provID"] for one in named] == ["2024 AB12"] * 4
    assert {one["rmsMag"] for one in found} == {"0.1230"}
    assert named[0]["logSNR"] == "1.00"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,time_utc,ra\nA,60000,1\n", "no column dec; give name, time_utc"),
        ("name,time_utc,ra,dec\nA,yesterday,1,2\n", "column time_utc"),
        ("name,time_utc,ra,dec\nA,60000,1,2\nB,60000,1,200\n", "row 2 has no name, time, or place"),
        ("name,time_utc,ra,dec\nA,60000,one,2\n", "column ra"),
    ],
)
def test_a_table_that_is_none_is_refused_with_what_to_give(tmp_path, text, says):
    path = tmp_path / "known.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_known(path, 2.0)


def test_an_empty_table_marks_nothing(tmp_path, table):
    rows, said = linked(tmp_path, table, "--known", given(tmp_path, table, []))
    assert {row["known_as"] for row in rows} == {""}
    assert "tracks of known objects: 0" in said


def test_published_tracks_are_marked_with_the_offset_of_each_sighting(tmp_path):
    drawn = night(movers=2, background=5)
    fields = fed([out for exposure in exposures_of(drawn) for out in outputs_of(drawn, exposure)], Fields(3600.0))
    records = published_by(fields)
    track = link(catalogue(drawn, SHAPES), Fits()).tracks[0]
    lines = [f"(1) Ceres,{row}" for row in known_rows(drawn, track.rows)]
    (tmp_path / "known.csv").write_text("\n".join(["name,time_utc,ra,dec", *lines]) + "\n")
    withdrawn = records[0] | {"withdrawn": True, "nSightings": 0, "sightings": []}
    marked = read_known(tmp_path / "known.csv", 2.0).marked([*records, withdrawn])
    told = [decode(encode("track", record))[0] for record in marked]
    assert sorted(str(record["knownAs"]) for record in told) == ["(1) Ceres", "None", "None"]
    (ours,) = (record for record in told if record["knownAs"])
    assert ours["knownAlso"] == []
    assert all(0 <= one["ephOffset"] < 0.5 for one in ours["sightings"])
