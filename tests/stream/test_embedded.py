"""The embedded broker: what the demo rests on."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.messages import EXAMINED, FRAMES, REJECTED
from stream.topics import topic_states
from tests.kafka_broker import free_port, wait_for_port
from tests.stream.stand_in import frame_bytes
from tests.stream.topics import finish, read_all, read_avro, send, start_worker

pytestmark = pytest.mark.embedded


def test_a_34_mb_frame_travels_there_and_back(embedded_settings):
    content = frame_bytes(padding=34_000_000)
    send(embedded_settings, [content])
    (record,) = read_all(embedded_settings, FRAMES)
    assert record.value == content


def test_a_worker_joins_works_commits_and_the_next_goes_on_where_it_was(embedded_settings):
    send(embedded_settings, [frame_bytes(str(n)) for n in range(4)] + [b"rubbish"])
    for _ in range(2):
        status, said = finish(start_worker(embedded_settings, "--count", "2"))
        assert status == 0, said
    status, said = finish(start_worker(embedded_settings, "--idle-timeout", "2"))
    assert status == 0, said
    assert len(read_avro(embedded_settings, EXAMINED)) == 4
    assert len(read_all(embedded_settings, REJECTED)) == 1
    state = next(state for state in topic_states(embedded_settings) if state.name == embedded_settings.topic(FRAMES))
    assert (state.messages, state.lag) == (5, 0)


def test_the_broker_command_serves_on_the_loopback_address_alone_and_stops_on_sigterm(tmp_path):
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-c", "from stream.cli import app; app()", "broker", "--port", str(port)]
        broker = subprocess.Popen(command, stdout=log, stderr=log)
    wait_for_port(port, broker, tmp_path / "log")
    listening = open_ports(broker.pid)
    started = time.monotonic()
    broker.terminate()
    broker.wait(10)
    assert time.monotonic() - started < 5
    assert listening == {("127.0.0.1", port)}


def open_ports(pid):
    """Where a process listens, as the kernel says (state 0A)."""
    process = Path(f"/proc/{pid}")
    sockets = set()
    for link in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it comes and goes while we look
            sockets.add(str(link.readlink()))
    found = set()
    for family in ("tcp", "tcp6"):
        for line in (process / "net" / family).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                address, port = words[1].split(":")
                found.add((".".join(map(str, bytes.fromhex(address)[::-1])), int(port, 16)))
    return found
