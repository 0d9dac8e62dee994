"""What a container engine hears: whether the loop turns, whatever the process does besides."""

import urllib.error
import urllib.request

import pytest

from stream.health import Pulse
from stream.registry import Registry


def test_a_loop_that_hangs_is_told_though_the_process_still_serves_its_metrics():
    now = [100.0]
    pulse = Pulse(clock=lambda: now[0])
    port = Registry().serve(0, "127.0.0.1", pulse, 30.0)

    def ask(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()

    now[0] = 129.0
    assert ask("/healthz") == "the loop turned 29.0 s ago\n"
    now[0] = 131.0
    with pytest.raises(urllib.error.HTTPError, match="503"):
        ask("/healthz")
    assert "process_start_time_seconds" in ask("/metrics")
    pulse.beat()
    assert ask("/healthz") == "the loop turned 0.0 s ago\n"
