"""The alert rules and the dashboard: promtool's own tests, and no name that the programs do not export."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from stream.metrics import LinkerMetrics, Metrics
from tests.deploy.debian import program

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = DEPLOY / "grafana/dashboards/needlestream.json"


@pytest.mark.parametrize("words", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_each_rule_fires_when_it_should_and_is_silent_when_it_should_be(words):
    done = subprocess.run(
        [program("promtool"), *words], cwd=RULES.parent, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration():
    done = subprocess.run(
        [program("promtool"), "check", "config", "prometheus.yml"],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def exported():
    """Every name that a worker or a linker exports."""
    names = set()
    for metrics in (Metrics(), LinkerMetrics()):
        for family in metrics.registry.collector.collect():
            names.add(family.name)
            names |= {family.name + end for end in ("_total", "_bucket", "_sum", "_count") if family.type != "gauge"}
    return names


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [*asked, RULES.read_text()]


def test_rules_and_dashboard_ask_for_nothing_that_is_not_exported():
    asked = {name for text in expressions() for name in re.findall(r"\bneedlestream_\w+", text)}
    assert len(asked) > 25
    assert asked - exported() == set()
