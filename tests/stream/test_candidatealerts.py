"""Lenses and mergers on the stream: what an alert says, and that the audit counts them."""

import gzip
import io
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from detector.classtable import CandidateFlag, empty_candidates
from stream.candidatealerts import candidate_alerts, candidate_cutouts, candidate_rows
from stream.candidatetable import COLUMNS
from stream.export import Format, streak_output
from stream.framing import decode
from stream.messages import EXAMINED, LENSES, MERGERS
from stream.service import Limits, answer_to, run_worker
from stream.tables import read_columns
from tests.conftest import settings_for
from tests.stream.stand_in import EXAMINER, examine, findings, frame_bytes
from tests.stream.test_alerts import HEADER, MESSAGE
from tests.stream.test_audit import audit
from tests.stream.test_streak_cutouts import ENDS, frame_with
from tests.stream.topics import read_avro, send


def some(count, seed=1):
    """Candidates of which everything is known, but the place of the last one."""
    rng = np.random.default_rng(seed)
    rows = empty_candidates(count)
    for name in ("x", "y", "ra", "dec", "ic", "ic_err"):
        rows[name] = rng.uniform(1.0, 80.0, count)
    rows["probability"], rows["probability_err"] = np.sort(rng.uniform(0, 1, count))[::-1], 0.1
    rows["rank"] = 1 + np.arange(count)
    if count:
        rows["flags"][0] = int(CandidateFlag.EDGE)
        rows["ra"][-1] = rows["dec"][-1] = np.nan
    return rows


def with_candidates(found, lenses, mergers):
    return replace(
        found,
        lenses=some(lenses),
        mergers=some(mergers, seed=2),
        models={"lenses": "denselens@0123", "mergers": "merger@4567"},
    )


EXAMINER_OF_ALL = replace(EXAMINER, examine=lambda frame: with_candidates(examine(frame), 3, 2))


def test_a_lens_and_a_merger_are_told_with_their_place_their_probability_and_their_network():
    found = with_candidates(findings(HEADER, empty_streaks()), 3, 2)
    outputs = candidate_alerts(found, MESSAGE, b"SIMPLE", 60_002.0)
    assert [output.topic for output in outputs] == [LENSES] * 3 + [MERGERS] * 2
    lens, merger = (decode(outputs[k].value)[0] for k in (0, 3))
    assert (lens["probability"], lens["x"]) == (found.lenses["probability"][0], found.lenses["x"][0])
    assert (lens["rank"], lens["informationContent"]) == (1, found.lenses["ic"][0])
    assert "rank" not in merger
    assert (lens["model"], merger["model"]) == ("denselens@0123", "merger@4567")
    assert lens["flags"] == ["edge"]
    assert (lens["inputTopic"], lens["inputOffset"], lens["replayed"]) == ("frames", 2, None)
    assert outputs[0].key == lens["objectId"].encode()
    nowhere = decode(outputs[2].value)[0]
    assert (nowhere["objectId"], nowhere["objectIdsNear"], nowhere["ra"]) == (None, [], None)


def empty_streaks():
    return examine(
        next(EXAMINER.read(frame_bytes(hdus=[{"streaks": 0}]), name="a", survey=None, extension=None))
    ).streaks


def test_the_same_object_in_another_exposure_has_the_same_name_and_another_id():
    found = with_candidates(findings(HEADER, empty_streaks()), 2, 0)
    again = replace(found, header=replace(HEADER, exposure="E2"))
    first, second = (decode(candidate_alerts(one, MESSAGE, b"", 60_002.0)[0].value)[0] for one in (found, again))
    assert first["objectId"] == second["objectId"]
    assert first["alertId"] != second["alertId"]
    assert candidate_alerts(found, MESSAGE, b"", 60_002.0) == candidate_alerts(found, MESSAGE, b"", 60_002.0)


def test_the_table_comes_back_from_the_alerts():
    found = with_candidates(findings(HEADER, empty_streaks()), 3, 2)
    records = [decode(output.value)[0] for output in candidate_alerts(found, MESSAGE, b"", 60_002.0)]
    for name in found.lenses.dtype.names:
        np.testing.assert_array_equal(candidate_rows(records[:3])[name], found.lenses[name])
    assert candidate_rows(records[3:])["probability"].tolist() == found.mergers["probability"].tolist()
    assert (candidate_rows(records[3:])["rank"] == 0).all()


@pytest.mark.parametrize(("name", "side"), [("lenses", 64), ("mergers", 128)])
def test_a_cut_out_shows_what_the_network_saw_with_the_candidate_in_its_middle(name, side):
    frame, _ = frame_with(ENDS[0], pixel_scale_arcsec=0.1)
    found = replace(findings(frame.header, empty_streaks()), **{name: some(2)}, models={name: "x@1"})
    getattr(found, name)["x"], getattr(found, name)["y"] = [120.0, 2.0], [140.0, 150.0]
    cutouts = candidate_cutouts(frame, found, 512)
    alerts = [decode(output.value)[0] for output in candidate_alerts(found, MESSAGE, b"", 1.0, cutouts=cutouts)]
    (image,) = fits.open(io.BytesIO(gzip.decompress(alerts[0]["cutoutScience"])))
    assert image.data.shape == (side, side)
    x0, y0 = image.header["X0FRAME"], image.header["Y0FRAME"]
    assert (alerts[0]["x"] - x0, alerts[0]["y"] - y0) == (side / 2, side / 2)
    assert np.array_equal(image.data, frame.pixels[y0 : y0 + side, x0 : x0 + side])
    (image,) = fits.open(io.BytesIO(gzip.decompress(alerts[1]["cutoutScience"])))
    assert image.data.shape == (side, side / 2 + 2)  # cut off at the border
    assert candidate_cutouts(frame, found, 0) == {}
    (image,) = fits.open(io.BytesIO(gzip.decompress(candidate_cutouts(frame, found, 48)[name][0])))
    assert image.data.shape == (48, 48)


def test_a_worker_that_is_told_to_sends_their_pixels():
    for cutout_px in (0, 64):
        told = replace(EXAMINER_OF_ALL, cutout_px=cutout_px)
        outputs = answer_to(replace(MESSAGE, value=frame_bytes()), told).outputs
        alerts = [decode(output.value)[0] for output in outputs if output.topic in {LENSES, MERGERS}]
        assert any(alert["cutoutScience"] for alert in alerts) == (cutout_px > 0)


def test_a_summary_counts_them():
    outputs = answer_to(replace(MESSAGE, value=frame_bytes()), EXAMINER_OF_ALL).outputs
    (summary,) = (decode(output.value)[0] for output in outputs if output.topic == EXAMINED)
    assert (summary["nStreaks"], summary["nLenses"], summary["nMergers"]) == (1, 3, 2)


@pytest.mark.parametrize("kind", [Format.CSV, Format.ECSV, Format.PARQUET])
def test_their_tables_come_back_as_they_went(tmp_path, kind):
    found = with_candidates(findings(HEADER, empty_streaks()), 3, 2)
    with streak_output(tmp_path, kind, tmp_path, ("lenses", "mergers")) as add:
        add(found)
    numbers = {"x", "y", "ra", "dec", "probability", "rank", "ic"}
    lenses = read_columns(tmp_path / f"lenses.{kind.value}", numbers)
    assert list(lenses) == [column.name for column in COLUMNS["lenses"]]
    np.testing.assert_allclose(lenses["probability"], found.lenses["probability"], rtol=1e-5)
    assert lenses["rank"].tolist() == [1, 2, 3]
    assert np.isnan(lenses["ra"][2])
    assert lenses["object"][2] == ""
    assert lenses["flags"].tolist()[0].startswith("edge")
    mergers = read_columns(tmp_path / f"mergers.{kind.value}", numbers)
    assert list(mergers) == [column.name for column in COLUMNS["mergers"]]
    assert set(mergers["model"]) == {"merger@4567"}


@pytest.mark.kafka
def test_each_is_on_its_topic_once_and_the_audit_misses_none(kafka_broker):
    settings = settings_for(kafka_broker, partitions=1)
    send(settings, [frame_bytes("E1"), frame_bytes("E2")])
    run_worker(settings, EXAMINER_OF_ALL, Limits(count=2))
    assert len(read_avro(settings, LENSES)) == 6
    assert len({record["alertId"] for record in read_avro(settings, MERGERS)}) == 4
    status, output = audit(settings)
    assert status == 0, output
