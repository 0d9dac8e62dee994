"""Memory of a worker against how far it lags, and how it catches up: on Apache Kafka, with frames of several MB.

``python benchmarks/bench_backpressure.py``. The worker is the real loop with an examination that only takes time, so
that what is measured is the stream. First the peak memory of one that finds more and more frames waiting; then a worker
that is busy for 90 % of the time between two frames and begins an hour of frames behind (120, at one in 30 s): it gains
a ninth of a frame with each, so that nine hours are what arithmetic allows.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from detector.frame import Frame, FrameHeader  # noqa: E402
from detector.survey import GENERIC  # noqa: E402
from stream.logs import configure_logs  # noqa: E402
from stream.messages import FRAMES, Output  # noqa: E402
from stream.producer import Feed  # noqa: E402
from stream.service import Examiner, Limits, run_worker  # noqa: E402
from stream.topics import create_missing_topics, topic_states  # noqa: E402
from tests.conftest import settings_for  # noqa: E402
from tests.kafka_broker import KafkaBroker  # noqa: E402
from tests.stream.stand_in import findings, streaks  # noqa: E402

HOUR = 120  # frames of Euclid VIS in an hour: one in 30 s
LOAD = 0.9


def work(address, prefix, group, count, busy_s):
    """Be the worker; its last line is its peak memory in MB."""
    settings = settings_for(address, topic_prefix=prefix, group_id=group, partitions=8)
    configure_logs("json")

    def read(*_, name, **__):
        header = FrameHeader(name=name, extension=0, shape=(1, 1), survey=GENERIC, exposure=name, ccd="1")
        yield Frame(header, np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint8))

    def examine(frame):
        time.sleep(busy_s)
        return findings(frame.header, streaks(1, seed=3))

    run_worker(settings, Examiner(read=read, examine=examine), Limits(count=count))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def start(settings, count, busy_s):
    words = [settings.bootstrap_servers, settings.topic_prefix, settings.group_id, str(count), str(busy_s)]
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def peak_mb(worker):
    said, _ = worker.communicate()
    return float(said.split()[-1])


def send(settings, count, size_bytes, *, interval_s=0.0):
    value = b"x" * size_bytes
    feed = Feed(settings)
    begin = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begin + number * interval_s - time.monotonic()))
        feed.send(Output(FRAMES, b"%d" % number, value))
    feed.close()


def lag(settings):
    return next(state.lag for state in topic_states(settings) if state.name == settings.topic(FRAMES))


def memory(address, size_bytes):
    for behind in (1, 8, 40, 160):
        settings = settings_for(address, partitions=8)
        create_missing_topics(settings)
        send(settings, behind, size_bytes)
        print(f"{behind:>6} frames of {size_bytes / 1e6:.0f} MB waiting: {peak_mb(start(settings, behind, 0)):7.0f} MB")


def catch_up(address, size_bytes, busy_s):
    """Measure what a frame takes in all, let frames come at 1 / LOAD of that, and begin an hour behind."""
    settings = settings_for(address, partitions=8)
    create_missing_topics(settings)
    send(settings, 50, size_bytes)
    begin = time.monotonic()
    start(settings, 10, busy_s).wait()
    first = time.monotonic() - begin
    begin = time.monotonic()
    start(settings, 40, busy_s).wait()
    frame_s = (time.monotonic() - begin - first) / 30
    interval_s = frame_s / LOAD
    send(settings, HOUR, size_bytes)
    sending = threading.Thread(target=send, args=(settings, 20 * HOUR, size_bytes), kwargs={"interval_s": interval_s})
    sending.daemon = True
    worker = start(settings, 100 * HOUR, busy_s)
    sending.start()
    begin = time.monotonic()
    print(f"a frame takes {frame_s:.3f} s, one comes every {interval_s:.3f} s; {HOUR} behind")
    while (behind := lag(settings)) > 1 and sending.is_alive():
        frames = (time.monotonic() - begin) / interval_s
        print(f"  after {frames:5.0f} frames' time (of an hour: {HOUR}): {behind:4d} behind", flush=True)
        time.sleep(15)
    print(f"caught up after {(time.monotonic() - begin) / interval_s / HOUR:.1f} hours of scaled time, {behind} behind")
    status = Path(f"/proc/{worker.pid}/status").read_text()
    print("peak memory:", next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1], "kB")
    worker.terminate()
    worker.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=8)
    parser.add_argument("--busy-s", type=float, default=0.05)
    parser.add_argument("--worker", nargs=5)
    given = parser.parse_args()
    if given.worker:
        address, prefix, group, count, busy_s = given.worker
        work(address, prefix, group, int(count), float(busy_s))
        return
    with tempfile.TemporaryDirectory() as folder:
        broker = KafkaBroker(Path(folder) / "kafka")
        broker.start()
        try:
            memory(broker.address, given.megabytes * 1_000_000)
            catch_up(broker.address, 1_000_000, given.busy_s)
        finally:
            sys.stdout.flush()
            broker.stop()
            os._exit(0)


if __name__ == "__main__":
    main()
