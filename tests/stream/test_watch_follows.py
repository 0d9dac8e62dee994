"""The live page and a broker that hangs, dies and comes back with nothing: the page stays up and goes on by itself."""

import contextlib
import json
import signal
import subprocess
import threading
import urllib.request

import pytest

from detector.fitsheader import Limits
from stream import handshake
from stream.embedded import broker_command
from stream.messages import Output
from stream.producer import Feed
from stream.topics import create_missing_topics
from stream.watch import Watch
from stream.watching import follower
from tests.conftest import settings_for
from tests.kafka_broker import free_port, wait_for_port
from tests.stream.test_watch import messages
from tests.stream.topics import wait_until

pytestmark = pytest.mark.embedded


@contextlib.contextmanager
def broker(port, folder):
    log = folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(broker_command(port), stdout=output, stderr=output)
    try:
        wait_for_port(port, process, log)
        yield process
    finally:
        process.kill()
        process.wait(10)


def publish(settings, offsets):
    """What a worker says about some frames: two streaks each."""
    create_missing_topics(settings)
    feed = Feed(settings)
    for offset in offsets:
        for one in messages(offset):
            feed.send(Output(one.topic, one.key, one.value, one.headers))
    feed.close()


def test_the_page_outlives_its_broker_and_follows_again(tmp_path, monkeypatch):
    monkeypatch.setattr(follower, "LOOK_S", 0.3)
    monkeypatch.setattr(follower, "NEW_TOPICS_S", 0.5)
    monkeypatch.setattr(handshake, "PATIENCE_S", 1.0)
    port = free_port()
    settings = settings_for(f"127.0.0.1:{port}", partitions=2, watch_port=0, watch_past_s=1e9, request_timeout_s=3)
    watch = Watch(settings, Limits())
    page = threading.Thread(target=watch.serve, daemon=True)
    page.start()

    def state():
        with urllib.request.urlopen(f"{watch.url}state", timeout=2) as answer:
            return json.load(answer)

    def totals():
        now = state()
        return now["link"]["up"], now["totals"]["examined"], now["totals"]["streaks"]

    try:
        wait_until(lambda: "does not answer" in (why := state()["link"]["why"]) or "no Kafka broker answers" in why, 20)
        with broker(port, tmp_path) as hanging:
            publish(settings, range(3))
            wait_until(lambda: totals() == (True, 3, 6), 30)
            hanging.send_signal(signal.SIGSTOP)
            wait_until(lambda: not state()["link"]["up"], 30)
            hanging.send_signal(signal.SIGCONT)
            publish(settings, range(3, 5))
            wait_until(lambda: totals() == (True, 5, 10), 30)
        wait_until(lambda: not state()["link"]["up"], 30)
        assert totals()[1:] == (5, 10)
        # It kept nothing: the topics begin anew, and so does the night.
        with broker(port, tmp_path):
            wait_until(lambda: state()["link"]["up"], 30)
            publish(settings, [7])
            wait_until(lambda: totals() == (True, 1, 2), 30)
            assert [frame["summary"]["frame"] for frame in state()["frames"]] == ["0/7/0"]
            watch.close()  # while there is a broker to take leave of
    finally:
        watch.close()
        page.join(10)
