"""The metrics' port is this machine's own affair unless told otherwise."""

import socket
import urllib.request

import pytest

from stream.metrics import LinkerMetrics, Metrics
from stream.settings import load_settings

# All of 127/8 is this machine: who is bound to 127.0.0.1 alone does not answer at the others.
OTHER_ADDRESS = "127.0.0.2"


@pytest.mark.parametrize("kind", [Metrics, LinkerMetrics])
def test_the_metrics_are_served_on_the_loopback_address_unless_told_otherwise(kind):
    settings = load_settings(None, {"metrics_port": 0})
    port = kind().serve(settings.metrics_port, settings.metrics_address)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b"needlestream_" in answer.read()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((OTHER_ADDRESS, port), timeout=5)


@pytest.mark.parametrize("kind", [Metrics, LinkerMetrics])
def test_the_metrics_are_served_elsewhere_when_told_so(kind):
    settings = load_settings(None, {"metrics_port": 0, "metrics_address": "0.0.0.0"})
    port = kind().serve(settings.metrics_port, settings.metrics_address)
    socket.create_connection((OTHER_ADDRESS, port), timeout=5).close()


def test_no_metrics_are_served_unless_asked_for():
    assert load_settings(None, {}).metrics_port is None
