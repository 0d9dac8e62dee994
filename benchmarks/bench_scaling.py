"""Frames a second with one worker and with two, what a frame costs, and what a survey needs by that.

``python benchmarks/bench_scaling.py`` (``--size 4132x4096 --frames 3`` for whole Euclid CCDs). Real workers, as an
operator starts them, on one embedded broker; each with one thread, so that two of them are two processors. Frames are
sent when all workers have examined one each, so that neither start nor compiling counts. Processor time is the
workers' own, and hardly depends on who else uses the machine; frames a second do.
"""

import argparse
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from stream.embedded import broker_command  # noqa: E402
from stream.messages import FRAMES, Output  # noqa: E402
from stream.producer import Feed  # noqa: E402
from stream.topics import create_missing_topics  # noqa: E402
from tests.conftest import settings_for  # noqa: E402
from tests.kafka_broker import free_port, wait_for_port  # noqa: E402

PROGRAM = (sys.executable, "-c", "from stream.cli import app; app()")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Frames, pixels of each, and the time they come in. Euclid VIS: 36 CCDs of 4132 x 4096, 80 exposures a day. KiDS: 1,350
# tiles, 4 exposures in u and 5 in g, r, i each, 32 CCDs of 2048 x 4100. Rubin: 189 CCDs of 4072 x 4000 in 40 s.
SURVEYS = {
    "Euclid VIS, as it comes": (2_880, 4132 * 4096, 86_400.0),
    "KiDS, the archive in a week": (1_350 * 19 * 32, 2048 * 4100, 7 * 86_400.0),
    "Rubin-like, as it comes": (189, 4072 * 4000, 40.0),
}


def simulated(size, number, folder):
    """The bytes of so many exposures of one drawn field."""
    words = ("simulate", "--seed", "900301", "--size", size, "--dithers", str(number), "--out", str(folder))
    subprocess.run([*PROGRAM, *words], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
    return [path.read_bytes() for path in sorted(folder.glob("*.fits"))]


def start(settings, port, log):
    names = ("bootstrap_servers", "topic_prefix", "group_id", "partitions", "session_timeout_s", "delivery")
    told = {f"NEEDLESTREAM_{name.upper()}": str(getattr(settings, name)) for name in names}
    words = ("run", "--metrics-port", str(port), "--sensitivity-share", "0", "--log-format", "json")
    with log.open("wb") as output:
        environment = {**os.environ, **ONE_THREAD, **told}
        return subprocess.Popen([*PROGRAM, *words], cwd=CHECKOUT, env=environment, stdout=output, stderr=output)


def partitions_of(log):
    """How many partitions a worker has, as its log says."""
    told = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    given = [one["partitions"] for one in told if one["event"] == "partitions assigned"]
    return len(given[-1]) if given else 0


def metric(port, name):
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1])
    return 0.0


def wait_for(ports, messages):
    while any(metric(port, "needlestream_messages_total") < messages for port in ports):
        time.sleep(0.2)


def measure(address, frames, workers, count, folder):
    """Frames a second, processor seconds a frame, and the largest memory of a worker in GB."""
    settings = settings_for(address, delivery="at-least-once", partitions=workers)
    create_missing_topics(settings)
    ports, logs = [free_port() for _ in range(workers)], [folder / f"worker{number}" for number in range(workers)]
    processes = [start(settings, port, log) for port, log in zip(ports, logs, strict=True)]
    feed = Feed(settings)
    try:
        # Each has its partition before the first frame is there.
        while any(partitions_of(log) != 1 for log in logs):
            time.sleep(0.2)
        send(feed, frames, workers, 1)
        wait_for(ports, 1)
        before = [metric(port, "process_cpu_seconds_total") for port in ports]
        begun = time.monotonic()
        send(feed, frames, workers, count)
        wait_for(ports, 1 + count)
        took_s = time.monotonic() - begun
        spent_s = sum(metric(port, "process_cpu_seconds_total") for port in ports) - sum(before)
        peaks = [int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{one.pid}/status").read_text())[1]) for one in processes]
    finally:
        feed.close()
        for process in processes:
            process.terminate()
            process.wait()
    return workers * count / took_s, spent_s / (workers * count), max(peaks) / 1e6


def send(feed, frames, workers, count):
    for number in range(count):
        for partition in range(workers):
            content = frames[number % len(frames)]
            feed.send(Output(FRAMES, b"%d/%d" % (number, partition), content, partition=partition))


def plan(pixels, cost_s):
    print("\n| survey | frames | processors by this cost | machines of 16 |\n|---|---|---|---|")
    for name, (frames, each, within_s) in SURVEYS.items():
        cores = frames * cost_s * each / pixels / within_s
        print(f"| {name} | {frames:,} in {within_s:,.0f} s | {cores:,.1f} | {math.ceil(cores / 16)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1024x1024", help="rows x columns of a frame")
    parser.add_argument("--frames", type=int, default=8, help="for each worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        frames = simulated(given.size, min(4, given.frames), Path(folder) / "frames")
        port, log = free_port(), Path(folder) / "log"
        with log.open("wb") as output:
            broker = subprocess.Popen(broker_command(port), stdout=output, stderr=output)
        wait_for_port(port, broker, log)
        print(f"{given.size} px, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before")
        print(
            "| workers | frames a second | processor seconds a frame | peak memory of a worker, GB |\n|---|---|---|---|"
        )
        costs = []
        try:
            for workers in given.workers:
                rate, cost_s, peak_gb = measure(f"127.0.0.1:{port}", frames, workers, given.frames, Path(folder))
                costs.append(cost_s)
                print(f"| {workers} | {rate:.3f} | {cost_s:.2f} | {peak_gb:.2f} |", flush=True)
        finally:
            broker.terminate()
    plan(height * width, costs[0])


if __name__ == "__main__":
    main()
