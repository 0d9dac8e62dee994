"""Topics as a subscriber reads them, and workers as processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from stream.broker import UNLIMITED_BYTES
from stream.framing import decode
from stream.messages import FRAMES, Output
from stream.producer import Feed
from stream.topics import create_missing_topics


def send(settings, frames):
    """Create the topics and send frames: bytes, or `Output`s as they shall go out."""
    create_missing_topics(settings)
    feed = Feed(settings)
    for number, frame in enumerate(frames):
        feed.send(frame if isinstance(frame, Output) else Output(FRAMES, f"k{number}".encode(), frame))
    feed.close()


def read_all(settings, topic, timeout_s=90):
    """Every committed record of a topic, in the order of partitions and offsets.

    What lies behind the open transaction of a worker that was killed is waited for.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        receive_message_max_bytes=UNLIMITED_BYTES,
    )
    name = settings.topic(topic)
    partitions = [TopicPartition(name, number) for number in sorted(consumer.partitions_for_topic(name))]
    consumer.assign(partitions)
    uncommitted = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False)
    ends = uncommitted.end_offsets(partitions)
    uncommitted.close()
    deadline = time.monotonic() + timeout_s
    records = []
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        assert time.monotonic() < deadline, f"{name} could not be read to its end"
        for batch in consumer.poll(200).values():
            records += batch
    consumer.close()
    return sorted(records, key=lambda record: (record.partition, record.offset))


def read_avro(settings, topic):
    return [record for message in read_all(settings, topic) for record in decode(message.value)]


def committed(settings):
    """The committed offsets of the workers' group, summed over the partitions of the frames topic."""
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, group_id=settings.group_id)
    name = settings.topic(FRAMES)
    numbers = [consumer.committed(TopicPartition(name, n)) or 0 for n in consumer.partitions_for_topic(name)]
    consumer.close(autocommit=False)
    return sum(numbers)


def start_worker(settings, *arguments):
    """A worker process with the stand-in for the networks."""
    names = ("bootstrap_servers", "topic_prefix", "group_id", "partitions", "session_timeout_s", "delivery")
    names += ("max_message_bytes", "max_poll_interval_s", "transaction_timeout_s")
    told = {f"NEEDLESTREAM_{name.upper()}": str(getattr(settings, name)) for name in names}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stream.stand_in", *arguments],
        env={**os.environ, **told},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_event(worker, event):
    """Read what a worker says until it says this."""
    said = ""
    while f'"event": "{event}"' not in said:
        line = worker.stdout.readline()
        assert line, f"the worker ended before {event!r}: {said}"
        said += line


def finish(worker, timeout_s=150):
    """Wait for a worker's end; gives its exit status and what it said."""
    try:
        said, _ = worker.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        worker.kill()
        said, _ = worker.communicate()
        raise AssertionError(f"the worker did not end: {said[-3000:]}") from None
    return worker.returncode, said


def wait_until(condition, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
