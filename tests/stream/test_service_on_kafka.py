"""The worker on Apache Kafka itself: nothing is lost, nothing is doubled, offsets come last."""

import json
import os
import signal
import threading
from collections import Counter

import pytest
from kafka.errors import KafkaTimeoutError, NotEnoughReplicasError, ProducerFencedError

from stream.broker import MessageTooLargeError
from stream.delivery import ExactlyOnce
from stream.machine import MachineError
from stream.messages import EXAMINED, FRAMES, REJECTED, STREAKS, Output
from stream.metrics import Metrics
from stream.producer import Feed, publish, within
from stream.service import Limits, run_worker
from stream.source import Source, next_offset, note_of
from stream.topics import administration, topic_states
from tests.conftest import settings_for
from tests.stream.stand_in import EXAMINER, frame_bytes
from tests.stream.topics import committed, finish, read_all, read_avro, send, start_worker, wait_for_event, wait_until

pytestmark = pytest.mark.kafka

IDLE = ("--idle-timeout", "2")


def work(settings, count=None):
    """A worker in this process: where it matters what one does, not that it is another one."""
    done = run_worker(settings, EXAMINER, Limits(count=count))
    assert done == count


def header(record, name):
    return dict(record.headers).get(name, b"").decode()


def test_a_frame_becomes_its_streaks_and_one_summary(kafka_settings):
    send(kafka_settings, [frame_bytes(hdus=[{"streaks": 3}])])
    work(kafka_settings, 1)
    (summary,) = read_avro(kafka_settings, EXAMINED)
    alerts = read_avro(kafka_settings, STREAKS)
    (frame,) = read_all(kafka_settings, FRAMES)
    assert summary["nStreaks"] == len(alerts) == 3
    for record in [summary, *alerts]:
        origin = record["inputTopic"], record["inputPartition"], record["inputOffset"], record["extension"]
        assert origin == (kafka_settings.topic(FRAMES), frame.partition, frame.offset, 0)
    assert len({alert["alertId"] for alert in alerts}) == 3
    assert committed(kafka_settings) == 1


def test_each_hdu_of_a_message_is_examined_or_rejected(kafka_settings):
    hdus = [{"streaks": 2}, {"bad": "all-nan"}, {"streaks": 0}, {"bad": "constant"}]
    content = frame_bytes(hdus=hdus)
    send(kafka_settings, [content])
    work(kafka_settings, 1)
    assert sorted(record["extension"] for record in read_avro(kafka_settings, EXAMINED)) == [0, 2]
    rejected = read_all(kafka_settings, REJECTED)
    assert {(header(r, "reason"), header(r, "extension")) for r in rejected} == {("all-nan", "1"), ("constant", "3")}
    assert all(record.value == content for record in rejected)


def test_what_cannot_be_a_frame_is_rejected_untouched_and_the_stream_goes_on(kafka_settings):
    topic = FRAMES
    bad = {
        "not-fits": Output(topic, b"a", b"SIMPLE  = nothing of the kind"),
        "empty": Output(topic, b"b", b""),
        "claim-refused": Output(topic, b"c", b"", (("uri", b"file:///etc/passwd"),)),
        "bad-header": Output(topic, b"d", frame_bytes(), (("extension", b"one"),)),
    }
    tombstone = Output(topic, None, None)
    send(kafka_settings, [*bad.values(), tombstone, frame_bytes()])
    work(kafka_settings, 6)
    rejected = read_all(kafka_settings, REJECTED)
    assert Counter(header(record, "reason") for record in rejected) == Counter([*bad, "empty"])
    for record in rejected:
        assert header(record, "input-topic") == kafka_settings.topic(FRAMES)
        assert header(record, "detail")
        if record.key:
            sent = bad[header(record, "reason")]
            assert (record.key, record.value) == (sent.key, sent.value)
            assert set(sent.headers) <= set(record.headers)
        else:
            assert record.value is None
    assert len(read_avro(kafka_settings, EXAMINED)) == 1


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_worker_killed_in_mid_replay_loses_nothing(kafka_broker, delivery):
    settings = settings_for(kafka_broker, delivery=delivery, transaction_timeout_s=15)
    frames = [frame_bytes(f"E{n}", hdus=[{"streaks": 2, "sleep_s": 0.03}]) for n in range(60)]
    frames[7::20] = [b"rubbish"] * 3
    send(settings, frames)
    for alive in (10, 30):
        worker = start_worker(settings)
        wait_until(lambda alive=alive: committed(settings) >= alive)
        worker.kill()
        worker.wait()
    status, said = finish(start_worker(settings, *IDLE))
    assert status == 0, said

    sent = {(record.partition, record.offset) for record in read_all(settings, FRAMES)}
    examined = [(record["inputPartition"], record["inputOffset"]) for record in read_avro(settings, EXAMINED)]
    rejected = [
        (int(header(r, "input-partition")), int(header(r, "input-offset"))) for r in read_all(settings, REJECTED)
    ]
    alerts = [record["alertId"] for record in read_avro(settings, STREAKS)]
    assert set(examined) | set(rejected) == sent
    assert set(examined).isdisjoint(rejected)
    assert len(set(alerts)) == 2 * 57
    if delivery == "exactly-once":
        assert len(examined) + len(rejected) == len(sent) == 60
        assert len(alerts) == 2 * 57


def test_a_dead_workers_open_transaction_is_waited_for_until_the_broker_aborts_it(kafka_broker):
    settings = settings_for(kafka_broker, transaction_timeout_s=8)
    send(settings, [frame_bytes(hdus=[{"streaks": 2}])])
    dead = Source(settings, settings.topic(FRAMES))
    delivery = ExactlyOnce(settings, dead)
    taken = []
    wait_until(lambda: taken.append(dead.take(0.5)) or taken[-1] is not None)
    delivery.producer.begin_transaction()
    publish(delivery.producer, [Output(EXAMINED, b"k", b"never to be seen")], settings)
    delivery.producer.send_offsets_to_transaction(next_offset(taken[-1]), dead.group)
    dead.close()
    status, said = finish(start_worker(settings, "--count", "1"))
    assert status == 0, said
    assert said.count("held by a dead worker's transaction") == 1
    assert len(read_avro(settings, EXAMINED)) == committed(settings) == 1


@pytest.mark.parametrize(
    ("fails", "advice"),
    [
        ("memory", "out of memory. Give it more, or lower max_pixels. A frame that does this three times"),
        ("gpu", "the GPU failed: look at nvidia-smi"),
        ("gpu-memory", "the GPU is out of memory. Is another program on it?"),
        ("disk", "the disk is full, or a quota reached /var/cache: make room"),
    ],
)
def test_a_fault_of_the_machine_stops_the_worker_with_nothing_acknowledged(kafka_settings, fails, advice):
    send(kafka_settings, [frame_bytes(hdus=[{"streaks": 2}, {"fails": fails}])])
    with pytest.raises(MachineError) as stopped:
        work(kafka_settings, 1)
    assert advice in str(stopped.value)
    assert committed(kafka_settings) == 0
    assert read_all(kafka_settings, STREAKS) == read_all(kafka_settings, EXAMINED) == []


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("fails", ["crash", "memory", "defect"])
def test_a_frame_that_took_three_workers_down_is_rejected(kafka_broker, delivery, fails):
    settings = settings_for(kafka_broker, session_timeout_s=2, partitions=1, delivery=delivery)
    content = frame_bytes(hdus=[{"streaks": 2}, {"fails": fails}])
    send(settings, [frame_bytes("before"), content, frame_bytes("after")])
    for _ in range(3):
        if fails == "crash":
            assert finish(start_worker(settings))[0] == -signal.SIGKILL
        else:
            with pytest.raises((MachineError, IndexError)):
                work(settings)
    assert read_all(settings, REJECTED) == []
    work(settings, 2)
    (rejected,) = read_all(settings, REJECTED)
    assert (rejected.value, header(rejected, "reason")) == (content, "killed-worker")
    assert "3 workers ended" in header(rejected, "detail")
    assert [record["exposure"] for record in read_avro(settings, EXAMINED)] == ["before", "after"]


@pytest.mark.parametrize("fails", ["gpu", "disk"])
def test_a_broken_machine_is_not_laid_to_the_frame(kafka_broker, fails):
    settings = settings_for(kafka_broker, session_timeout_s=2, partitions=1)
    send(settings, [frame_bytes(hdus=[{"fails": fails}])])
    for _ in range(5):
        with pytest.raises(MachineError):
            work(settings)
    assert read_all(settings, REJECTED) == []
    assert committed(settings) == 0


def test_neither_sigterm_nor_a_rebalance_is_laid_to_the_frame_in_hand(kafka_broker):
    settings = settings_for(kafka_broker, session_timeout_s=3, partitions=1)
    send(settings, [frame_bytes(str(n), hdus=[{"sleep_s": 1.5}]) for n in range(9)])
    for _ in range(4):
        worker = start_worker(settings)
        wait_for_event(worker, "examining")
        other = start_worker(settings, "--count", "1")
        os.kill(worker.pid, signal.SIGTERM)
        assert finish(worker)[0] == 0
        other.terminate()
        # One that is still starting has taken nothing yet, and ends by the signal itself.
        assert finish(other)[0] in (0, -signal.SIGTERM)
    status, said = finish(start_worker(settings, *IDLE))
    assert status == 0, said
    assert read_all(settings, REJECTED) == []
    assert len(read_avro(settings, EXAMINED)) == 9


def test_sigterm_finishes_the_frame_in_hand_and_leaves_the_group(kafka_broker):
    kafka_settings = settings_for(kafka_broker, session_timeout_s=300)
    send(kafka_settings, [frame_bytes(hdus=[{"sleep_s": 2}]) for _ in range(3)])
    worker = start_worker(kafka_settings)
    wait_for_event(worker, "examining")
    os.kill(worker.pid, signal.SIGTERM)
    status, said = finish(worker)
    assert status == 0, said
    assert "SIGTERM" in said
    assert committed(kafka_settings) == len(read_avro(kafka_settings, EXAMINED)) == 1
    # It left the group: another worker is given everything at once, long before the session time-out.
    work(kafka_settings, 2)
    assert len(read_avro(kafka_settings, EXAMINED)) == 3


def test_an_idle_worker_ends_by_itself(kafka_settings):
    assert run_worker(kafka_settings, EXAMINER, Limits(idle_timeout_s=1)) == 0


def test_a_long_frame_does_not_throw_its_worker_out_of_the_group(kafka_broker):
    settings = settings_for(kafka_broker, session_timeout_s=3)
    send(settings, [frame_bytes(hdus=[{"sleep_s": 8}])])
    work(settings, 1)
    assert len(read_avro(settings, EXAMINED)) == 1


def test_a_second_worker_takes_its_share_while_the_first_is_busy(kafka_settings):
    send(kafka_settings, [frame_bytes(f"E{n}", hdus=[{"sleep_s": 0.2}]) for n in range(40)])
    workers = [start_worker(kafka_settings, *IDLE), start_worker(kafka_settings, *IDLE)]
    ends = [finish(worker) for worker in workers]
    assert [status for status, _ in ends] == [0, 0], ends
    shares = [json.loads(said.strip().splitlines()[-1])["messages"] for _, said in ends]
    assert sum(shares) == 40
    assert min(shares) > 0
    assert Counter(record["exposure"] for record in read_avro(kafka_settings, EXAMINED)) == Counter(
        f"E{n}" for n in range(40)
    )


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_worker_that_was_thought_dead_commits_nothing_and_says_so(kafka_broker, delivery):
    settings = settings_for(kafka_broker, session_timeout_s=3, delivery=delivery)
    send(settings, [frame_bytes(hdus=[{"streaks": 2, "sleep_s": 1}])])
    stopped = start_worker(settings, "--count", "1")
    wait_for_event(stopped, "examining")
    os.kill(stopped.pid, signal.SIGSTOP)
    work(settings, 1)
    os.kill(stopped.pid, signal.SIGCONT)
    status, said = finish(stopped)
    assert status == 1
    assert "gave this worker up" in said
    assert len({record["alertId"] for record in read_avro(settings, STREAKS)}) == 2
    if delivery == "exactly-once":
        assert len(read_avro(settings, EXAMINED)) == 1
        assert len(read_avro(settings, STREAKS)) == 2


def test_a_34_mb_frame_travels_there_and_into_the_dead_letters(kafka_settings):
    large = frame_bytes(padding=34_000_000)
    send(kafka_settings, [large, b"x" * 34_000_000])
    work(kafka_settings, 2)
    assert read_avro(kafka_settings, EXAMINED)[0]["nStreaks"] == 1
    (rejected,) = read_all(kafka_settings, REJECTED)
    assert rejected.value == b"x" * 34_000_000


def test_a_frame_at_the_limit_fits_and_one_over_it_is_an_error_that_gives_its_size(kafka_broker):
    settings = settings_for(kafka_broker, max_message_bytes=2_000_000)
    send(settings, [b"x" * 2_000_000])
    feed = Feed(settings)
    with pytest.raises(MessageTooLargeError, match=r"2,000,001 bytes.*max_message_bytes = 2,000,000"):
        feed.send(Output(FRAMES, b"k", b"x" * 2_000_001))
    feed.close()
    work(settings, 1)
    assert len(read_all(settings, REJECTED)[0].value) == 2_000_000


def test_a_topic_that_takes_less_than_our_limit_is_an_error_that_gives_the_size(kafka_broker):
    small = settings_for(kafka_broker, max_message_bytes=1_000_000)
    send(small, [])
    feed = Feed(small.model_copy(update={"max_message_bytes": 50_000_000}))
    with pytest.raises(MessageTooLargeError, match="refused a message of 5,000,000 bytes"):
        feed.send(Output(FRAMES, b"k", b"x" * 5_000_000))
    feed.close()


def test_the_topics_show_how_far_the_workers_are_behind(kafka_settings):
    send(kafka_settings, [frame_bytes(str(n)) for n in range(5)])
    work(kafka_settings, 2)
    state = next(state for state in topic_states(kafka_settings) if state.name == kafka_settings.topic(FRAMES))
    assert (state.exists, state.partitions, state.messages, state.lag) == (True, 4, 5, 3)
    assert state.max_message_bytes >= kafka_settings.max_message_bytes


def test_the_metrics_count_what_the_topics_hold(kafka_settings, monkeypatch):
    made = []
    monkeypatch.setattr("stream.service.Metrics", lambda: made.append(Metrics()) or made[0])
    send(kafka_settings, [frame_bytes(hdus=[{"streaks": 2}, {"bad": "constant"}]), b"rubbish", frame_bytes("E2")])
    run_worker(kafka_settings, EXAMINER, Limits(count=3))
    sample = made[0].registry.collector.get_sample_value
    assert sample("needlestream_frames_received_total") == 4
    assert sample("needlestream_frames_examined_total") == len(read_avro(kafka_settings, EXAMINED)) == 2
    assert sample("needlestream_frames_rejected_total", {"reason": "constant"}) == 1
    assert sample("needlestream_frames_rejected_total", {"reason": "not-fits"}) == 1
    assert sample("needlestream_streaks_total") == len(read_avro(kafka_settings, STREAKS)) == 3
    assert sample("needlestream_dropped_total", {"reason": "edge"}) == 4
    assert sample("needlestream_stage_seconds_count", {"stage": "fit"}) == 2
    assert sample("needlestream_latency_seconds_count") == 3


def test_a_frame_whose_answers_could_not_be_published_is_put_back(kafka_broker):
    settings = settings_for(kafka_broker, partitions=1)
    send(settings, [frame_bytes()])
    source = Source(settings, settings.topic(FRAMES))
    delivery = ExactlyOnce(settings, source)
    taken = []
    wait_until(lambda: taken.append(source.take(0.2)) or taken[-1] is not None)
    assert source.begin(taken[-1]) == 0
    delivery.producer.send = lambda *_, **__: raising(NotEnoughReplicasError())()
    with pytest.raises(NotEnoughReplicasError):
        delivery.deliver([Output(EXAMINED, b"k", b"v")], taken[-1])
    assert [note_of(told).worker for told in told_by_the_group(settings)] == [None]
    delivery.close()
    source.close()
    assert committed(settings) == 0


def told_by_the_group(settings):
    """What the group keeps of the partitions that it has something of."""
    with administration(settings) as admin:
        return list(admin.list_group_offsets({settings.group_id: None})[settings.group_id].values())


def test_a_step_that_the_client_never_ends_is_left_alone():
    """The client waits for the end of a transaction without a limit, and sometimes for ever."""
    with pytest.raises(KafkaTimeoutError, match=r"in 0\.2 s"):
        within(0.2, threading.Event().wait)
    with pytest.raises(ProducerFencedError):
        within(5, raising(ProducerFencedError("gone")))
    assert within(5, lambda: None) is None


def raising(error):
    def fail():
        raise error

    return fail
