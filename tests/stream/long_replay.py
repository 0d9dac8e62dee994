"""A long replay killed twice: ``python -m tests.stream.long_replay --files 2000``, on an Apache Kafka of its own."""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from stream.manifest import SENT, sent_before
from stream.messages import FRAMES
from stream.topics import topic_states
from tests.conftest import settings_for
from tests.kafka_broker import KafkaBroker
from tests.stream.archives import image
from tests.stream.topics import read_all, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
RUN = "long"


def archive(folder, files, *, size, seed=7):
    """Files whose names say nothing of their times; gives the names in the order of time."""
    numbers = np.random.default_rng(seed).permutation(files)
    begin = datetime(2024, 5, 6, tzinfo=UTC)
    names = {}
    for name, number in enumerate(numbers.tolist()):
        date = (begin + timedelta(seconds=20 * number)).strftime("%Y-%m-%dT%H:%M:%S")
        path = folder / f"{name % 10}" / f"{name:06}.fits"
        image(path, date=date, exposure=number, ccd=1, size=size, seed=number)
        names[number] = str(path)
    return [names[number] for number in range(files)]


def start(settings, folder, *more):
    where = ["--bootstrap-servers", settings.bootstrap_servers, "--topic-prefix", settings.topic_prefix]
    words = ["replay", str(folder / "archive"), "--run", RUN, "--state", str(folder / "state"), *where, *more]
    program = "import resource, atexit, sys; from stream.cli import app; sys.argv[0] = 'needlestream'\n"
    program += "atexit.register(lambda: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))\napp()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *words, "--partitions", "1"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def sent_so_far(settings):
    states = {state.name: state for state in topic_states(settings)}
    return states[settings.topic(FRAMES)].messages or 0


def killed_twice(settings, folder, *, files, size=24):
    """Replay with ``kill -9`` after a third and after two thirds; gives what is in the topic, and the peak memory."""
    order = archive(folder / "archive", files, size=size)
    for share in (1 / 3, 2 / 3):
        replay = start(settings, folder)
        # A frame and the mark of its transaction take an offset each.
        wait_until(lambda share=share: sent_so_far(settings) >= 2 * share * files)
        replay.kill()
        replay.communicate()
    replay = start(settings, folder, "--manifest", str(folder / "sent.csv"))
    said, _ = replay.communicate(timeout=3600)
    assert replay.returncode == 0, said
    names = [dict(record.headers)["name"].decode() for record in read_all(settings, FRAMES)]
    peak_kb = int(said.split("peak ")[1].split()[0])
    return order, names, peak_kb, said


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64, help="side of a frame, pixels")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = KafkaBroker(folder / "kafka")
        broker.start()
        try:
            settings = settings_for(broker.address, partitions=1)
            begin = time.monotonic()
            order, names, peak_kb, said = killed_twice(settings, folder, files=given.files, size=given.size)
            print(said.strip())
            print(f"{given.files} files, two kill -9, {time.monotonic() - begin:.0f} s with making the files")
            print(f"sent {len(names)}, lost {len(set(order) - set(names))}, doubled {len(names) - len(set(names))}, "
                  f"in order: {names == order}; entries in {SENT}: {len(sent_before(settings, RUN))}")  # fmt: skip
            print(f"peak memory of the last replay {peak_kb / 1024:.0f} MB (of this program: "
                  f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB)")  # fmt: skip
        finally:
            sys.stdout.flush()
            broker.stop()
            os._exit(0 if names == order else 1)


if __name__ == "__main__":
    main()
