"""Debian's Prometheus before a worker and a linker at work: no expression of the dashboard or the rules is empty.

The sky grows bright in the middle of the night, as the Moon rises: the measure of what is missed has to see it.
"""

import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits

from stream.messages import EXAMINED, FRAMES, STREAKS, Output
from tests.conftest import settings_for
from tests.deploy.prometheus_server import DEPLOYED, prometheus
from tests.deploy.promql import operands
from tests.kafka_broker import free_port
from tests.stream.topics import read_avro, send, wait_until

pytestmark = pytest.mark.embedded

DASHBOARD = DEPLOYED.parent / "grafana/dashboards/needlestream.json"
RULES = {
    rule["alert"]: rule["expr"] for rule in yaml.safe_load((DEPLOYED / "alerts.yml").read_text())["groups"][0]["rules"]
}
SHAPE = (256, 320)
DARK, BRIGHT = 3, 4
MINUTE_S, HOUR_S = 60, 3600
# In a fresh checkout the worker compiles its kernels before the first frame is examined: minutes of a slow machine.
COMPILED_S = 540


def frame(number, sky_e):
    """Eight stars, one bright trail, and the sky."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    light = np.full(SHAPE, sky_e)
    for star_x, star_y, flux_e in np.random.default_rng(7).uniform((10, 10, 3e3), (310, 246, 3e4), (8, 3)):
        light += flux_e / 7.6 * np.exp(-((x - star_x) ** 2 + (y - star_y) ** 2) / 2.42)
    along = np.clip(x - 150.0, 0.0, 40.0)
    light += 1500.0 * np.exp(-((x - 150.0 - along) ** 2 + (y - 20.0 * (number % 4) - 90.0) ** 2) / 2.42)
    image = fits.PrimaryHDU(rng.poisson(light).astype(np.float32))
    image.header.update({"EXPTIME": 300.0, "DATE-OBS": f"2024-05-06T01:{10 * (number % 6):02d}:00", "GAIN": 1.0})
    content = io.BytesIO()
    image.writeto(content)
    names = (("exposure", f"E{number}".encode()), ("ccd", b"1"))
    return Output(FRAMES, f"E{number}/1".encode(), content.getvalue(), names)


def start(settings, log, *words):
    """A command of the program itself, as an operator starts it."""
    names = ("bootstrap_servers", "topic_prefix", "group_id", "partitions", "session_timeout_s", "delivery")
    told = {f"NEEDLESTREAM_{name.upper()}": str(getattr(settings, name)) for name in names}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", "from stream.cli import app; app()", *words],
            env={**os.environ, **told},
            cwd=Path(__file__).parents[2],
            stdout=output,
            stderr=output,
        )


@pytest.fixture(scope="module")
def night(embedded_broker, tmp_path_factory):
    """Prometheus, the settings, and when the dark part of the night was over (Unix time)."""
    folder = tmp_path_factory.mktemp("prometheus")
    settings = settings_for(embedded_broker, delivery="at-least-once", partitions=1)
    send(settings, [])
    ports = {"needlestream-worker": free_port(), "needlestream-linker": free_port()}
    measure = ("--sensitivity-share", "1", "--sensitivity-window", "30", "--sensitivity-lag", "99")
    search = ("--method", "matched", "--threshold", "0.02")
    with prometheus(folder, ports) as server:
        serving = "--metrics-port", str(ports["needlestream-worker"])
        worker = start(settings, folder / "worker", "run", *search, *measure, *serving)
        linker = start(settings, folder / "linker", "track", "--metrics-port", str(ports["needlestream-linker"]))
        try:
            wait_until(lambda: server.sum("up") == 2)
            send(settings, [Output(FRAMES, b"no/1", b"rubbish"), *(frame(number, 200.0) for number in range(DARK))])
            wait_until(lambda: server.sum("needlestream_sensitivity_frames_total") == DARK, COMPILED_S)
            wait_until(lambda: server.ask("needlestream_half_magnitude"))
            dark_until_s = time.time()
            send(settings, [frame(number, 3200.0) for number in range(DARK, DARK + BRIGHT)])
            wait_until(lambda: server.sum("needlestream_sensitivity_frames_total") == DARK + BRIGHT)
            yield server, settings, dark_until_s
        finally:
            for process in (worker, linker):
                process.terminate()
            for process in (worker, linker):
                process.wait(COMPILED_S)


def look(server, expression):
    """What an expression gives in a Prometheus that is a minute old: what looks further back is asked for later."""
    later_s = HOUR_S if "offset 1h" in expression else 3 * MINUTE_S if "[15m:1m]" in expression else 0
    return server.ask(expression.replace("$__rate_interval", "1m"), time.time() + later_s)


def test_every_panel_of_the_dashboard_has_data(night):
    server, _, _ = night
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert len(asked) > 20
    assert [expression for expression in asked if not look(server, expression)] == []


def test_what_every_rule_compares_has_data(night):
    server, _, _ = night
    asked = {name: operands(expression) for name, expression in RULES.items()}
    assert all(asked.values())
    assert [(name, part) for name, parts in asked.items() for part in parts if not look(server, part)] == []


def test_a_bright_sky_takes_from_the_measure_what_it_should_and_the_rule_sees_it(night):
    server, _, dark_until_s = night
    ((_, dark),) = server.ask("needlestream_half_magnitude", dark_until_s)
    ((labels, bright),) = server.ask("needlestream_half_magnitude")
    assert dark - bright == pytest.approx(2.5 * np.log10(4.0), abs=0.4)  # 16 times the sky, four times the noise
    assert labels["system"] == "instrumental"
    # The hour of the rule, made as short as this night.
    rule = RULES["NeedlestreamShallower"]
    short = rule.replace("offset 1h", f"offset {1000 * (time.time() - dark_until_s):.0f}ms")
    assert server.ask(short)
    assert server.ask(rule.replace("offset 1h", ""), dark_until_s) == []


def test_a_refused_frame_shows_in_what_the_rule_of_refusals_compares(night):
    server, _, _ = night
    (share, *_) = operands(RULES["NeedlestreamRejects"])
    assert server.sum(share) == pytest.approx(1 / (DARK + BRIGHT + 1), rel=0.1)
    assert server.sum('increase(needlestream_frames_rejected_total{reason="not-fits"}[5m])') == pytest.approx(
        1, rel=0.1
    )


def test_a_worker_and_a_linker_at_work_are_healthy(night):
    server, _, _ = night
    for target in (labels["instance"] for labels, _ in server.ask("up")):
        with urllib.request.urlopen(f"http://{target}/healthz", timeout=5) as answer:
            assert "the loop turned" in answer.read().decode()


def test_nothing_of_the_measure_is_published(night):
    server, settings, _ = night
    summaries, alerts = read_avro(settings, EXAMINED), read_avro(settings, STREAKS)
    assert len(summaries) == server.sum("needlestream_frames_examined_total") == DARK + BRIGHT
    assert len(alerts) == server.sum("needlestream_streaks_total") == sum(one["nStreaks"] for one in summaries)
    assert server.sum("needlestream_injected_found_total") > 8
    assert len(alerts) < 3 * (DARK + BRIGHT)
