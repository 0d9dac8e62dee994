"""The metrics' port is this machine's own affair unless told otherwise."""

import re
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.frame import FrameHeader
from detector.survey import GENERIC
from models.evaluate.sensitivity import Trial
from stream.broker import BrokerError
from stream.metrics import REASONS, LinkerMetrics, Metrics, serve_metrics
from stream.registry import Bounded
from stream.settings import load_settings
from tests.stream.stand_in import findings, streaks

# All of 127/8 is this machine: who is bound to 127.0.0.1 alone does not answer at the others.
OTHER_ADDRESS = "127.0.0.2"


@pytest.mark.parametrize("kind", [Metrics, LinkerMetrics])
def test_the_metrics_are_served_on_the_loopback_address_unless_told_otherwise(kind):
    settings = load_settings(None, {"metrics_port": 0})
    port = kind().serve(settings.metrics_port, settings.metrics_address, stuck_after_s=9)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b"needlestream_" in answer.read()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((OTHER_ADDRESS, port), timeout=5)


@pytest.mark.parametrize("kind", [Metrics, LinkerMetrics])
def test_the_metrics_are_served_elsewhere_when_told_so(kind):
    settings = load_settings(None, {"metrics_port": 0, "metrics_address": "0.0.0.0"})
    port = kind().serve(settings.metrics_port, settings.metrics_address, stuck_after_s=9)
    socket.create_connection((OTHER_ADDRESS, port), timeout=5).close()


def test_no_metrics_are_served_unless_asked_for():
    assert load_settings(None, {}).metrics_port is None


def test_a_port_that_is_taken_is_named_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = load_settings(None, {"metrics_port": taken.getsockname()[1]})
        with pytest.raises(BrokerError, match="in use; is another worker or linker"):
            serve_metrics(Metrics(), settings)


def count(metrics, found, *, now_mjd_tai=60_000.0):
    metrics.count([found], [], seconds={}, latency_s=2.0, size_bytes=10, now_mjd_tai=now_mjd_tai)


def frame(**known):
    return FrameHeader("a.fits", 0, (9, 9), GENERIC, **known)


def test_the_time_since_the_shutter_closed_is_that_of_the_header_and_only_of_live_frames():
    metrics = Metrics()
    sample = metrics.registry.collector.get_sample_value
    ended = frame(mid_time_mjd_tai=60_000.0 - 300.0 / 86_400, exposure_s=565.0)
    count(metrics, findings(ended, streaks(0, seed=1)))
    assert sample("needlestream_shutter_latency_seconds_sum") == pytest.approx(17.5, abs=0.01)
    count(metrics, findings(replace(ended, mid_time_mjd_tai=59_000.0), streaks(0, seed=1)))
    count(metrics, findings(replace(ended, exposure_s=None), streaks(0, seed=1)))
    assert sample("needlestream_shutter_latency_seconds_count") == 1
    assert sample("needlestream_frames_archived_total") == 1


def test_scores_and_snr_of_what_was_published_are_histograms_that_no_nan_spoils():
    metrics = Metrics()
    rows = streaks(4, seed=2)
    rows["score"] = [0.95, 0.5, 0.25, np.nan]
    count(metrics, replace(findings(frame(ccd="3"), rows), candidates=rows[2:]))
    sample = metrics.registry.collector.get_sample_value
    assert sample("needlestream_score_sum", {"table": "streaks"}) == pytest.approx(1.7)
    assert sample("needlestream_score_bucket", {"table": "streaks", "le": "0.5"}) == 2
    assert sample("needlestream_score_count", {"table": "candidates"}) == 1
    assert sample("needlestream_candidates_total", {"kind": "track"}) == 2
    assert sample("needlestream_background_electrons", {"ccd": "3"}) == 100.0
    assert sample("needlestream_noise_electrons", {"ccd": "3"}) == 11.0


def test_labels_that_a_header_chooses_are_bounded():
    name = Bounded(2)
    assert [name(value) for value in ("a", None, "b", "a", "x" * 99)] == ["a", "unknown", "other", "a", "other"]
    metrics = Metrics()
    for number in range(300):
        count(metrics, findings(frame(ccd=f"CCD {number}"), streaks(0, seed=1)))
    family = next(one for one in metrics.registry.collector.collect() if one.name == "needlestream_noise_electrons")
    assert len(family.samples) == 257


def test_lag_is_zero_where_no_partition_is_ours():
    for metrics in (Metrics(), LinkerMetrics()):
        assert metrics.registry.collector.get_sample_value("needlestream_lag") == 0
    worker, linker = Metrics(), LinkerMetrics()
    worker.show_lag({0: 3, 1: 4})
    linker.show_lag("streaks", 0, 5)
    assert worker.registry.collector.get_sample_value("needlestream_lag") == 7
    assert linker.registry.collector.get_sample_value("needlestream_lag") == 5
    worker.show_lag({})
    linker.forget_lag()
    for metrics in (worker, linker):
        assert metrics.registry.collector.get_sample_value("needlestream_lag") == 0


def test_what_was_put_in_and_found_is_counted_by_magnitude():
    metrics = Metrics()
    mag, found = np.array([23.1, 23.4, 24.2]), np.array([True, False, True])
    metrics.sensitivity.count(Trial("euclid-vis", "VIS", "AB", mag, mag, found, 0.5, half_magnitude=24.0))
    sample = metrics.registry.collector.get_sample_value
    where = {"survey": "euclid-vis", "filter": "VIS", "system": "AB"}
    assert sample("needlestream_injected_streaks_total", where | {"magnitude": "23.25"}) == 2
    assert sample("needlestream_injected_found_total", where | {"magnitude": "23.25"}) == 1
    assert sample("needlestream_injected_found_total", where | {"magnitude": "24.25"}) == 1
    assert sample("needlestream_half_magnitude", where) == 24.0
    assert sample("needlestream_half_snr", where) is None


def test_a_half_that_is_not_there_any_more_does_not_stay_on_the_wall():
    metrics = Metrics()
    sample = metrics.registry.collector.get_sample_value
    nothing = np.zeros(0), np.zeros(0), np.zeros(0, np.bool_)
    where = {"survey": "generic", "filter": "r", "system": "AB"}
    for half, shown in ((None, None), (24.0, 24.0), (None, None), (None, None), (23.5, 23.5)):
        metrics.sensitivity.count(Trial("generic", "r", "AB", *nothing, 0.5, half_magnitude=half))
        assert sample("needlestream_half_magnitude", where) == shown


def test_every_reason_of_a_refusal_is_a_series_from_the_start():
    sources = [path for floor in ("detector", "stream") for path in (Path(__file__).parents[2] / floor).rglob("*.py")]
    said = {reason for path in sources for reason in re.findall(r'BadFrame\(\s*"([a-z-]+)"', path.read_text())}
    assert len(said) > 10
    assert said <= set(REASONS)
    family = next(one for one in Metrics().registry.collector.collect() if one.name == "needlestream_frames_rejected")
    assert {sample.labels["reason"] for sample in family.samples} == set(REASONS)
