"""A process that was told to stop ends: by itself, or because it is seen to."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from stream.signals import Departure, stop_signals

STUCK = """
import os, signal, threading
from stream.logs import configure_logs
from stream.signals import Departure, stop_signals
configure_logs("json")
with stop_signals() as signals, Departure(signals, patience_s=0.3):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
"""


def test_who_is_kept_by_a_silent_broker_ends_with_status_1_and_says_so():
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "kept by a broker that does not answer" in done.stdout + done.stderr


@pytest.mark.parametrize(("told", "busy"), [(True, True), (False, False)])
def test_a_frame_in_hand_is_finished_however_long_it_takes(told, busy):
    left = threading.Event()
    with stop_signals() as signals, Departure(signals, patience_s=0.2, leave=left.set) as departure:
        if told:
            os.kill(os.getpid(), signal.SIGTERM)
        with departure.working() if busy else contextlib.nullcontext():
            assert not left.wait(0.6)
        assert left.wait(5 if told else 0.1) == told


def test_who_ends_in_time_is_left_alone():
    left = threading.Event()
    with Departure([signal.SIGTERM], patience_s=0.3, leave=left.set):
        pass
    assert not left.wait(0.6)
