"""Reports for the Minor Planet Center."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stream.ades import NUMBERS, Report, observations, psv
from stream.cli import app
from stream.ephemeris import read_ephemeris
from stream.stations import check_station
from stream.tables import read_columns

ROW = {
    "track": "AB12CD34",
    "trk_sub": "AB12CD34",
    "mid_time_utc": "2026-03-01T04:05:06.789Z",
    "ra": "359.99999999",
    "dec": "-0.12345678",
    "ra_err": "2.5e-06",
    "dec_err": "5e-06",
    "ra_dec_corr": "-0.8",
    "mag": "22.512",
    "mag_err": "0.12",
    "snr": "10",
}
REPORT = Report("268", "Gaia3", "J. Doe", (), 2.6)
TOLD = ("--astcat", "Gaia3", "--submitter", "J. Doe", "--aperture", "1.2")


def table(tmp_path, *rows):
    path = tmp_path / "tracks.csv"
    with path.open("w", newline="") as stream:
        lines = csv.DictWriter(stream, ROW, restval="")
        lines.writeheader()
        lines.writerows(rows)
    return path


def observed(tmp_path, *rows, report=REPORT, ephemeris=None):
    return observations(read_columns(table(tmp_path, *rows), NUMBERS), report, ephemeris)


def orbit(tmp_path, begin=0, end=12):
    """A circle of a day at 1.5 million km, each two hours."""
    path = tmp_path / "orbit.csv"
    lines = ["time_utc,x_km,y_km,z_km"]
    for hour in range(begin, end + 1, 2):
        angle = 2 * np.pi * hour / 24
        lines.append(f"2026-03-01T{hour:02d}:00:00,{1.5e6 * np.cos(angle):.6f},{1.5e6 * np.sin(angle):.6f},1000")
    path.write_text("\n".join(lines) + "\n")
    return path


def problems(path):
    """What the MPC's own validator says against a file; a PSV file is made XML by its converter first."""
    script = (
        "import sys; from ades import adesutility, valutility, psvtoxml; p = sys.argv[1]\n"
        "if p.endswith('.psv'): psvtoxml.psvtoxml(p, p + '.xml'); p += '.xml'\n"
        "candidate = adesutility.readXML(p)\n"
        "valutility.validate_xslt('submit', adesutility.schemaxslts['submit'], candidate, sys.stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path.name], capture_output=True, text=True, cwd=path.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["psv", "xml"])
def test_the_validator_of_the_mpc_accepts_what_a_space_telescope_reports(tmp_path, form):
    pytest.importorskip("ades", reason="iau-ades is not installed (extra dev)")
    other = ROW | {"track": "ZZ", "trk_sub": "ZZ", "ra_err": "", "mag": "", "snr": "", "ra_dec_corr": ""}
    path = tmp_path / f"report.{form}"
    told = ("--stn", "273", "--ephemeris", str(orbit(tmp_path)), "--band", "G", "--format", form, "--out", str(path))
    done = CliRunner().invoke(app, ["export", "ades", str(table(tmp_path, ROW, other)), *TOLD, *told])
    assert done.exit_code == 0, done.output
    assert "is OK" in problems(path)
    path.write_text(path.read_text().replace("22.51", "99.99"))
    assert "is OK" not in problems(path)


def test_an_observation_has_the_time_the_place_its_errors_and_their_correlation(tmp_path):
    (one,) = observed(tmp_path, ROW, report=Report("268", "Gaia3", "J. Doe", (), 2.6, band="G"))
    assert one["obsTime"] == "2026-03-01T04:05:06.789Z"
    assert (one["ra"], one["dec"]) == ("0.0000000", "-0.1234568")  # a tenth of the error, and never 360
    assert (one["rmsRA"], one["rmsDec"], one["rmsCorr"]) == ("0.00900", "0.01800", "-0.8000")
    assert (one["mag"], one["rmsMag"], one["band"], one["logSNR"]) == ("22.51", "0.1200", "G", "1.00")


def test_what_the_table_does_not_say_stays_away(tmp_path):
    bare = {name: ROW[name] for name in ("track", "trk_sub", "mid_time_utc", "ra", "dec", "mag")}
    (one,) = observed(tmp_path, bare)
    assert not {"rmsRA", "rmsDec", "rmsCorr", "mag", "band", "logSNR", "pos1"} & one.keys()
    assert psv([one], REPORT).splitlines()[-2] == "trkSub|mode|stn|obsTime|ra|dec|astCat"


def test_the_place_of_the_telescope_is_that_of_the_exposure(tmp_path):
    ephemeris = read_ephemeris(orbit(tmp_path))
    (one,) = observed(tmp_path, ROW, ephemeris=ephemeris)
    angle = 2 * np.pi * (4 + 5 / 60 + 6.789 / 3600) / 24
    place = [float(one[name]) for name in ("pos1", "pos2", "pos3")]
    assert place == pytest.approx([1.5e6 * np.cos(angle), 1.5e6 * np.sin(angle), 1000], abs=600)
    assert (one["sys"], one["ctr"]) == ("ICRF_KM", "399")


def test_a_telescope_in_space_without_positions_is_refused_with_what_to_give(tmp_path):
    done = CliRunner().invoke(app, ["export", "ades", str(table(tmp_path, ROW)), "--stn", "273", *TOLD])
    assert done.exit_code == 2
    assert "Euclid" in done.output
    assert "--ephemeris" in done.output
    assert "x_km" in done.output


@pytest.mark.parametrize("code", ["26", "2688", "x05", "", "268|", "247"])
def test_what_is_no_code_of_a_fixed_station_is_refused(code):
    with pytest.raises(ValueError, match="station"):
        check_station(code, positions=True)


def test_a_time_outside_the_ephemeris_is_not_extrapolated(tmp_path):
    with pytest.raises(ValueError, match="2026-03-01T06:00:00Z to 2026-03-01T12:00:00Z"):
        observed(tmp_path, ROW, ephemeris=read_ephemeris(orbit(tmp_path, 6)))


def test_positions_in_another_unit_are_noticed(tmp_path):
    path = orbit(tmp_path)
    Path(path).write_text(path.read_text().replace("e6", "").replace("0000.", ".").replace("1500", "0.01"))
    with pytest.raises(ValueError, match="in km"):
        read_ephemeris(path)


def test_a_name_that_stands_for_two_tracks_or_is_too_long_is_refused(tmp_path):
    with pytest.raises(ValueError, match="two tracks"):
        observed(tmp_path, ROW, ROW | {"track": "other"})
    with pytest.raises(ValueError, match="eight"):
        observed(tmp_path, ROW | {"trk_sub": "123456789"})
