"""A night of faults: frames come in without a pause, three workers examine them, and one fault follows another.

Kinds and moments are drawn from a seed. At the end everything is left in peace until the workers are done; then the
topics are judged by the audit, and by a count of our own against what was sent.
"""

import math
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from kafka import KafkaConsumer, TopicPartition

from stream.audit import audit
from stream.framing import decode
from stream.messages import EXAMINED, FRAMES, REJECTED, STREAKS
from stream.producer import Feed
from stream.settings import load_settings
from stream.topics import committed_offsets, create_missing_topics
from tests.stream.faults.broker import SESSION_S as BROKER_SESSION_S
from tests.stream.faults.broker import ProxiedBroker
from tests.stream.faults.crew import Crew, stand_in_command
from tests.stream.faults.proxy import Proxy
from tests.stream.faults.worker import make_frame
from tests.stream.topics import read_all

WORKERS = 3
PARTITIONS = 8
BACKLOG = 60  # frames that are there and not answered: there is always something in hand when a fault comes
SESSION_S = 4
QUIET_S = 300


class Night:
    """Broker, proxy, workers, a sender and an observer; faults are its methods, one a kind."""

    def __init__(self, folder: Path, seed: int, *, busy_s: float):
        self.rng = random.Random(seed)
        self.frames_rng = np.random.default_rng(seed)
        self.busy_s = busy_s
        self.broker = ProxiedBroker(folder)
        self.broker.create()
        self.proxy = Proxy(self.broker.proxy, self.broker.proxied)
        given = {"topic_prefix": "night.", "group_id": "night", "partitions": PARTITIONS}
        given |= {"session_timeout_s": SESSION_S, "request_timeout_s": 3, "transaction_timeout_s": 8}
        self.settings = load_settings(None, {"bootstrap_servers": self.broker.address, **given})
        create_missing_topics(self.settings)
        self.sent = {}
        self.arrivals = []
        self.stopping = threading.Event()
        self.quiet = threading.Event()
        self.failures = []
        self.threads = [threading.Thread(target=self._noting, args=(work,)) for work in (self._send, self._observe)]
        for thread in self.threads:
            thread.start()
        through_proxy = self.settings.model_copy(update={"bootstrap_servers": f"127.0.0.1:{self.broker.proxy}"})
        workers = folder / "workers"
        workers.mkdir()
        self.crew = Crew(workers, through_proxy, stand_in_command(), WORKERS)

    # --- faults: each returns when it has struck -----------------------------------------------------------------

    def kill(self):
        self.crew.kill(self._worker())

    def kill_two(self):
        for life in self.rng.sample(self._workers(2), 2):
            self.crew.kill(life)

    def stop_longer_than_the_session(self):
        self.crew.freeze(self._worker(), SESSION_S * self.rng.uniform(1.2, 2.5))

    def kill_one_and_stop_another_in_the_rebalance(self):
        first, second = self.rng.sample(self._workers(2), 2)
        self.crew.kill(first)
        time.sleep(self.rng.uniform(0, 1.5 * SESSION_S))
        if second in self.crew.running():
            self.crew.freeze(second, SESSION_S * self.rng.uniform(1.2, 2.5))

    def stop_for_a_moment(self):
        self.crew.freeze(self._worker(), self.rng.uniform(0.1, 1.0) * SESSION_S)

    def sigterm(self):
        self.crew.end(self._worker())

    def broker_killed(self):
        self.proxy.refuse()
        self.broker.kill()
        time.sleep(BROKER_SESSION_S + self.rng.uniform(1, 4))
        self.broker.start()
        self.proxy.listen()

    def broker_paused(self):
        self.broker.pause(self.rng.uniform(0.5, BROKER_SESSION_S - 1))

    def connections_cut(self):
        self.proxy.cut(self.rng)

    def connections_silent(self):
        self.proxy.silence(self.rng)

    # --- the end -------------------------------------------------------------------------------------------------

    def wait_until_done(self):
        """Send no more, and return when the workers are done with all of it."""
        self.quiet.set()
        self.threads[0].join()
        consumer = KafkaConsumer(bootstrap_servers=self.settings.bootstrap_servers)
        partitions = [TopicPartition(self.settings.topic(FRAMES), number) for number in range(PARTITIONS)]
        ends = {partition.partition: end for partition, end in consumer.end_offsets(partitions).items() if end}
        consumer.close()
        deadline = time.monotonic() + QUIET_S
        while any(committed_offsets(self.settings).get(number, 0) < end for number, end in ends.items()):
            assert time.monotonic() < deadline, (
                f"the workers are not done: {committed_offsets(self.settings)} of {ends}"
            )
            time.sleep(0.5)

    def close(self):
        self.stopping.set()
        self.quiet.set()
        late = self.crew.close(60)
        for thread in self.threads:
            thread.join()
        return late

    def destroy(self):
        self.proxy.close()
        self.broker.destroy()

    def _worker(self):
        return self.rng.choice(self._workers(1))

    def _workers(self, count):
        while len(running := self.crew.running()) < count:
            time.sleep(0.1)
        return running

    def _send(self):
        feed = Feed(self.settings)
        while not self.quiet.is_set():
            if len(self.sent) - len(self.arrivals) < BACKLOG:
                frame = make_frame(len(self.sent), self.frames_rng, self.busy_s)
                feed.send(frame.output)
                self.sent[str(len(self.sent))] = frame
            else:
                time.sleep(0.02)
        feed.close()

    def _observe(self):
        """Note when a committed answer is there for a subscriber to see."""
        consumer = KafkaConsumer(
            *(self.settings.topic(topic) for topic in (EXAMINED, REJECTED)),
            bootstrap_servers=self.settings.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=50,
            request_timeout_ms=6000,
        )
        while not self.stopping.is_set():
            for records in consumer.poll(100).values():
                self.arrivals += [time.monotonic()] * len(records)
        consumer.close()

    def _noting(self, work):
        try:
            work()
        except BaseException as error:
            self.failures.append(error)
            raise


KINDS = (
    Night.kill,
    Night.kill_two,
    Night.stop_longer_than_the_session,
    Night.kill_one_and_stop_another_in_the_rebalance,
    Night.stop_for_a_moment,
    Night.sigterm,
    Night.broker_killed,
    Night.broker_paused,
    Night.connections_cut,
    Night.connections_silent,
)


@dataclass
class Verdict:
    """What a night came to; times in seconds from the beginning of a fault to the next committed answer."""

    frames: int
    hdus: int
    recovery_s: dict[str, list[float]]
    lost: list[str]
    doubled: list[str]
    killed_worker: int
    complaints: list[str]
    audit: object
    sigterm_s: list[float] = field(default_factory=list)

    def table(self):
        """Lines for people."""
        lines = [f"{'fault':<44}{'count':>6}{'median s':>10}{'worst s':>10}"]
        everything = [time_s for times in self.recovery_s.values() for time_s in times]
        for kind, times in [*sorted(self.recovery_s.items()), ("all", everything)]:
            lines.append(f"{kind:<44}{len(times):>6}{statistics.median(times):>10.2f}{max(times):>10.2f}")
        lines += [
            f"{self.frames} messages, {self.hdus} HDUs; lost {len(self.lost)}, doubled {len(self.doubled)}",
            f"audit: {self.audit.messages} messages done, {self.audit.pending} pending",
            f"audit: {self.audit.examined} HDUs examined, rejected {dict(self.audit.rejected)}",
            f"audit: {self.audit.alerts} alerts, {len(self.audit.problems)} problems",
            f"rejected as killed-worker: {self.killed_worker}",
        ]
        return "\n".join(lines)


def run(
    folder: Path, *, faults: int, seed: int, busy_s: float = 0.15, pause_s: float = 4.0, kinds=KINDS, say=print
) -> Verdict:
    """Let so many faults happen, kinds evenly, in random order at random moments; then judge."""
    say(f"seed {seed}, {faults} faults of {len(kinds)} kinds, {WORKERS} workers, {PARTITIONS} partitions")
    night = Night(folder, seed, busy_s=busy_s)
    try:
        while len(night.arrivals) < 10:
            assert not night.failures, night.failures
            time.sleep(0.1)
        order = [kinds[number % len(kinds)] for number in range(faults)]
        night.rng.shuffle(order)
        struck = []
        for number, kind in enumerate(order):
            time.sleep(night.rng.expovariate(1 / pause_s))
            assert not night.failures, night.failures
            struck.append((kind.__name__, time.monotonic()))
            kind(night)
            say(f"{number + 1:>4} {kind.__name__:<44} answers so far {len(night.arrivals)}")
        time.sleep(SESSION_S * 2.5)
        night.wait_until_done()
        time.sleep(1)
        late = night.close()
        return _judge(night, struck, late)
    finally:
        night.stopping.set()
        night.quiet.set()
        if not night.crew.closing:
            night.crew.close(5)
        night.destroy()


def _judge(night, struck, late):
    recovery = defaultdict(list)
    arrivals = np.array(night.arrivals)
    for kind, at in struck:
        after = arrivals[arrivals > at]
        recovery[kind.replace("_", " ")].append(float(after[0] - at) if len(after) else math.inf)
    lost, doubled, killed = _count(night)
    complaints = [complaint for life in night.crew.past if (complaint := life.complaint())]
    complaints += [f"{log}: did not end in time after SIGTERM" for log in late]
    return Verdict(
        frames=len(night.sent),
        hdus=sum(len(sent.examined) + len(sent.rejected) for sent in night.sent.values()),
        recovery_s=dict(recovery),
        lost=lost,
        doubled=doubled,
        killed_worker=killed,
        complaints=complaints,
        audit=audit(night.settings, overdue_s=0, now_unix_s=time.time()),
        sigterm_s=[life.ended_after_s for life in night.crew.past if life.ended_after_s is not None],
    )


def _count(night):
    """Compare the topics with what was sent, by the sender's own names; gives what is lost, doubled, and given up."""
    settings = night.settings
    names = {(r.partition, r.offset): dict(r.headers)["name"].decode() for r in read_all(settings, FRAMES)}
    counts, told = Counter(names.values()), Counter(list(night.sent))
    wrong_frames = (counts - told) + (told - counts)
    assert not wrong_frames, f"the sender itself lost or doubled: {wrong_frames}"
    letters = [
        {name: value.decode("utf-8", "replace") for name, value in record.headers}
        for record in read_all(settings, REJECTED)
    ]
    given_up = {letter["name"] for letter in letters if letter["reason"] == "killed-worker"}
    expected = Counter()
    for name, sent in night.sent.items():
        if name in given_up:
            expected[name, "killed-worker"] += 1
            continue
        expected.update((name, extension) for extension in sent.examined)
        expected.update((name, reason) for reason in sent.rejected)
        expected.update({(name, extension, "alerts"): count for extension, count in sent.examined.items()})
    found = Counter((letter["name"], letter["reason"]) for letter in letters)
    for record in read_all(settings, EXAMINED):
        (summary,) = decode(record.value)
        found[names[summary["inputPartition"], summary["inputOffset"]], summary["extension"]] += 1
    ids = Counter()
    for record in read_all(settings, STREAKS):
        (alert,) = decode(record.value)
        found[names[alert["inputPartition"], alert["inputOffset"]], alert["extension"], "alerts"] += 1
        ids[alert["alertId"]] += 1
    lost = [f"{what} x{count}" for what, count in (expected - found).items()]
    doubled = [f"{what} x{count}" for what, count in (found - expected).items()]
    doubled += [f"alert {name} x{count}" for name, count in ids.items() if count > 1]
    return lost, doubled, len(given_up)
