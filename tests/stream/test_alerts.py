"""The records that subscribers get."""

import io
from dataclasses import replace

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.frame import FrameHeader
from detector.streaks import STREAK, StreakFlag
from detector.survey import EUCLID_VIS
from stream.alerts import (
    ALERT_FIELDS,
    alert_ids,
    candidate_lists,
    examined_summary,
    field_keys,
    streak_alerts,
    streak_rows,
)
from stream.framing import FORMAT_HEADER, decode
from stream.messages import Message
from tests.stream.stand_in import findings, streaks
from tests.stream.test_skycells import header_at

HEADER = FrameHeader("frames/1/2", 3, (4132, 4096), EUCLID_VIS, exposure="E1", ccd="3-4", mid_time_mjd_tai=60_001.25)
MESSAGE = Message("frames", 1, 2, b"k", b"SIMPLE", (("name", b"night/a.fits"),), 1_700_000_000_000)


def alerts_of(rows, header=HEADER, message=MESSAGE):
    return streak_alerts(findings(header, rows), message, b"SIMPLE", 60_002.0)


def same(a, b):
    return a.tobytes() == b.tobytes() or all(np.array_equal(a[n], b[n], equal_nan=n != "flags") for n in STREAK.names)


def test_every_column_of_the_table_of_streaks_has_a_field_in_the_alert():
    assert {*ALERT_FIELDS, "flags"} == set(STREAK.names)
    assert len(set(ALERT_FIELDS.values())) == len(ALERT_FIELDS)


@given(st.integers(0, 30), st.integers(0, 2**32 - 1), st.data())
def test_the_table_can_be_made_again_from_the_alerts_number_for_number(count, seed, data):
    rows = streaks(count, seed)
    for row in rows:
        row["flags"] = sum(data.draw(st.sets(st.sampled_from(list(StreakFlag)))))
        row[data.draw(st.sampled_from([n for n in STREAK.names if n[0] not in "xyf"]))] = np.nan
    again = streak_rows(decode(output.value)[0] for output in alerts_of(rows))
    assert same(rows, again)


def test_the_bytes_are_the_same_each_time():
    rows = streaks(5, seed=1)
    assert [output.value for output in alerts_of(rows)] == [output.value for output in alerts_of(rows)]


def test_an_alert_is_read_by_fastavro_alone_and_says_where_it_comes_from():
    (output,) = alerts_of(streaks(1, seed=1))
    (alert,) = fastavro.reader(io.BytesIO(output.value))
    origin = alert["inputTopic"], alert["inputPartition"], alert["inputOffset"], alert["extension"]
    assert origin == ("frames", 1, 2, 3)
    said = alert["exposure"], alert["ccd"], alert["survey"], alert["source"], alert["midpointMjdTai"]
    assert said == ("E1", "3-4", "euclid-vis", "night/a.fits", 60_001.25)


def test_an_alert_says_which_replay_its_frame_is_from():
    replayed = replace(MESSAGE, headers=(*MESSAGE.headers, ("replayed", b"2019 again")))
    told = [decode(alerts_of(streaks(1, seed=1), message=one)[0].value)[0]["replayed"] for one in (MESSAGE, replayed)]
    assert told == [None, "2019 again"]


def test_the_flux_in_njy_follows_the_magnitude():
    rows = streaks(2, seed=1)
    rows["mag"][0], rows["mag_err"][0] = 23.9, 0.1
    alert = decode(alerts_of(rows)[0].value)[0]
    assert alert["trailFlux"] == pytest.approx(1000, rel=1e-9)  # 23.9 mag is 1 uJy
    assert alert["trailFluxErr"] == pytest.approx(92.1, abs=0.1)


def test_an_alert_id_depends_on_exposure_ccd_extension_and_whole_pixel_alone():
    rows = streaks(1, seed=1)
    moved = rows.copy()
    moved["x0"] += 2
    nudged = rows.copy()
    nudged["flux"] += 1
    (first,) = alert_ids(rows, HEADER, b"bytes")
    assert alert_ids(nudged, HEADER, b"other bytes") == [first]
    others = [
        *alert_ids(moved, HEADER, b"bytes"),
        *alert_ids(rows, replace(HEADER, exposure="E2"), b"bytes"),
        *alert_ids(rows, replace(HEADER, ccd="3-5"), b"bytes"),
        *alert_ids(rows, replace(HEADER, extension=4), b"bytes"),
    ]
    assert len({first, *others}) == 5


def test_without_exposure_or_ccd_the_bytes_stand_for_them(tmp_path):
    rows, nameless = streaks(1, seed=1), replace(HEADER, ccd=None)
    (tmp_path / "frame").write_bytes(b"bytes")
    with (tmp_path / "frame").open("rb") as file:
        file.read()
        assert alert_ids(rows, nameless, b"bytes") == alert_ids(rows, nameless, file)
    assert alert_ids(rows, nameless, b"bytes") != alert_ids(rows, nameless, b"others")


def test_two_streaks_at_one_pixel_have_two_ids():
    rows = np.repeat(streaks(1, seed=1), 3)
    assert len(set(alert_ids(rows, HEADER, b""))) == 3


def test_alerts_are_keyed_by_field_so_that_one_linker_sees_what_it_must_link():
    rows = streaks(2, seed=1)
    assert {output.key for output in alerts_of(rows, replace(HEADER, field="F7"))} == {b"F7"}


def test_the_summary_counts_and_times_and_names_versions():
    output = examined_summary(
        findings(HEADER, streaks(4, seed=1)),
        MESSAGE,
        seconds={"read": 0.5},
        now_mjd_tai=60_002.0,
        program_version="1.2",
        weights_versions={"streaknet": "abc"},
    )
    (summary,) = decode(output.value)
    assert output.key == b"E1/3-4"
    assert (summary["nStreaks"], summary["nLenses"], summary["nMergers"]) == (4, 0, 0)
    assert summary["seconds"] == {"fit": 0.25, "read": 0.5}
    assert (summary["dropped"], summary["flags"]) == ({"edge": 2}, ["no-wcs"])
    assert (summary["programVersion"], summary["weightsVersions"]) == ("1.2", {"streaknet": "abc"})
    assert summary["timeArrivedMjdTai"] == pytest.approx(60_262.926_354, abs=1e-5)  # 2023-11-14T22:13:57 TAI


def test_candidates_of_a_frame_are_one_message_with_ids_of_their_own():
    found = replace(findings(HEADER, streaks(2, seed=1)), candidates=streaks(30, seed=2))
    (candidates,) = candidate_lists(found, MESSAGE, b"SIMPLE", 1.0)
    alerts = [decode(output.value)[0] for output in streak_alerts(found, MESSAGE, b"SIMPLE", 1.0)]
    records = decode(candidates.value)
    assert (candidates.topic, candidates.key) == ("candidates", alerts_of(streaks(1, 1))[0].key)
    assert same(streak_rows(records), found.candidates)
    assert same(streak_rows(alerts), found.streaks)
    assert len({record["alertId"] for record in [*records, *alerts]}) == 32
    assert [a["alertId"] for a in alerts] == [decode(o.value)[0]["alertId"] for o in alerts_of(streaks(2, seed=1))]
    assert candidate_lists(replace(found, candidates=streaks(0, 1)), MESSAGE, b"SIMPLE", 1.0) == []


SHAPE_HEADER = ("frame-shape", b"4100,2048")


def test_a_frame_without_a_field_goes_to_its_cell_and_its_candidates_to_the_cells_that_it_touches():
    header = replace(header_at(0.01, 2.5), exposure="E1", ccd="1")
    found = replace(findings(header, streaks(2, seed=1)), candidates=streaks(3, seed=2))
    home, other = field_keys(header)
    assert {output.key for output in streak_alerts(found, MESSAGE, b"x", 1.0)} == {home.encode()}
    own, copy = candidate_lists(found, MESSAGE, b"x", 1.0)
    assert (own.key, own.headers, len(decode(own.value))) == (home.encode(), (FORMAT_HEADER, SHAPE_HEADER), 3)
    assert (copy.key, len(decode(copy.value))) == (other.encode(), 5)
    assert copy.headers == (FORMAT_HEADER, SHAPE_HEADER, ("copy-of", home.encode()))


def test_the_key_is_the_field_then_the_cell_then_the_exposure():
    here = header_at(2.5, 2.5)
    assert field_keys(replace(here, field="F", exposure="E")) == ("F",)
    assert field_keys(replace(here, exposure="E"))[0].startswith("cell-")
    assert field_keys(replace(here, wcs=None, exposure="E")) == ("E",)
    assert field_keys(replace(here, wcs=None)) == (here.name,)
