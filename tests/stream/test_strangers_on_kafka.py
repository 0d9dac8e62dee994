"""Other programs write to the topics, retention and operators take from them: no worker stops, nothing is silent."""

from collections import Counter

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from stream.broker import BrokerError
from stream.messages import EXAMINED, FRAMES, LEFT_OUT, REJECTED, Output
from stream.metrics import Metrics
from stream.producer import producer_options
from stream.service import Limits, run_worker
from stream.source import Source
from stream.topics import create_missing_topics
from tests.conftest import settings_for
from tests.stream.stand_in import EXAMINER, frame_bytes
from tests.stream.test_audit import audit, commit, cut, problems
from tests.stream.test_batches import SNAPPY, raw_snappy, xerial
from tests.stream.test_rejected import rejected
from tests.stream.topics import committed, finish, read_all, read_avro, send, start_worker, wait_until

pytestmark = pytest.mark.kafka


class OddName(str):
    """A header's name that is not UTF-8, as programs in C may write it."""

    __slots__ = ()

    def encode(self, *_):
        return b"\xff\xfename"


def header(record, name):
    return dict(record.headers).get(name, b"").decode()


def other_program(settings, records, **options):
    """Send (key, value, headers, time in ms) as some other program does."""
    create_missing_topics(settings)
    producer = KafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, max_request_size=2**31 - 1, linger_ms=50, **options
    )
    sent = [
        producer.send(settings.topic(FRAMES), value, key=key, headers=headers, timestamp_ms=time_ms, partition=0)
        for key, value, headers, time_ms in records
    ]
    for each in sent:
        each.get(30)
    producer.close()


def make_again(settings):
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    admin.delete_topics([settings.topic(FRAMES)])
    admin.close()
    create_missing_topics(settings)


def work(settings, count):
    run_worker(settings, EXAMINER, Limits(count=count))


def packings():
    """The client's own, and snappy, for which it lacks a library: as Java writes it, and as C does."""
    yield from ("gzip", "lz4", "zstd", None)
    for pack in (xerial, raw_snappy):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kafka.codec.has_snappy", lambda: True)
            patch.setattr("kafka.record.default_records.snappy_encode", pack)
            patch.setitem(KafkaProducer._COMPRESSORS, "snappy", (lambda: True, SNAPPY))
            yield "snappy"


def test_frames_that_another_program_has_packed_are_examined(kafka_settings):
    for number, packed in enumerate(packings()):
        frames = [(None, frame_bytes(f"E{number}", str(n), padding=60_000), [], None) for n in range(3)]
        other_program(kafka_settings, frames, compression_type=packed, batch_size=1_000_000)
    work(kafka_settings, 18)
    assert Counter(record["exposure"] for record in read_avro(kafka_settings, EXAMINED)) == {
        f"E{n}": 3 for n in range(6)
    }
    assert read_all(kafka_settings, REJECTED) == []
    assert audit(kafka_settings)[0] == 0


def test_odd_names_keys_and_times_neither_stop_the_stream_nor_are_they_changed(kafka_settings):
    odd = [(OddName("x"), b"\xff"), ("", b""), ("name", b"\xff\xfe"), ("name", b"again"), ("reason", b"mine")]
    records = [
        (b"\xff" * 100_000, b"rubbish", odd, 0),
        (None, frame_bytes("E1"), odd, 1),
        (b"", frame_bytes("E2"), [("h", b"")] * 5_000, None),
        (None, frame_bytes("E3"), [], None),
    ]
    other_program(kafka_settings, records)
    work(kafka_settings, 4)
    assert {record["exposure"] for record in read_avro(kafka_settings, EXAMINED)} == {"E1", "E3"}
    letters = {header(record, "reason"): record for record in read_all(kafka_settings, REJECTED)}
    assert set(letters) == {"not-fits", "too-large"}
    assert letters["not-fits"].key == b"\xff" * 100_000
    kept = [(name.encode("utf-8"), value) for name, value in letters["not-fits"].headers][:4]
    assert kept == [(b"\xff\xfename", b"\xff"), (b"", b""), (b"name", b"\xff\xfe"), (b"name", b"again")]
    assert letters["too-large"].value == frame_bytes("E2")
    assert header(letters["too-large"], LEFT_OUT) == "headers"
    assert audit(kafka_settings)[0] == 0


def test_a_bomb_among_packed_frames_is_a_dead_letter_that_says_where_it_lies(kafka_broker):
    settings = settings_for(kafka_broker, max_message_bytes=3_000_000)
    records = [(b"k", value, [], None) for value in (frame_bytes("E1"), bytes(60_000_000), frame_bytes("E2"))]
    other_program(settings, records, compression_type="zstd", batch_size=2**30)
    work(settings, 3)
    assert {record["exposure"] for record in read_avro(settings, EXAMINED)} == {"E1", "E2"}
    (letter,) = read_all(settings, REJECTED)
    assert (letter.key, letter.value, header(letter, "reason"), header(letter, LEFT_OUT)) == (
        b"k",
        None,
        "too-large",
        "value",
    )
    assert "60000000 bytes" in header(letter, "detail")
    assert audit(settings)[0] == 0
    assert "not here" in rejected(settings)[0]
    lines = rejected(settings, "--replay")
    assert "its value is not here" in lines[0]
    assert lines[-1].split() == ["0", "sent", "again"]


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_dead_letter_that_its_topic_refuses_goes_without_its_bytes(kafka_broker, delivery):
    """The topic of the dead letters was made by somebody else, and is too small."""
    settings = settings_for(kafka_broker, delivery=delivery)
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    admin.create_topics({settings.topic(REJECTED): {"num_partitions": 1, "replication_factor": 1}})
    admin.close()
    send(settings, [b"x" * 2_000_000, frame_bytes("after")])
    work(settings, 2)
    (letter,) = read_all(settings, REJECTED)
    assert (letter.value, header(letter, "reason"), header(letter, LEFT_OUT)) == (None, "not-fits", "value")
    assert len(read_avro(settings, EXAMINED)) == 1
    assert audit(settings)[0] == 0


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_what_retention_took_before_a_worker_had_it_is_said_and_noted_for_good(kafka_broker, delivery, capfd):
    one = settings_for(kafka_broker, partitions=1, delivery=delivery)
    send(one, [frame_bytes(f"E{n}") for n in range(6)])
    work(one, 1)
    cut(one, FRAMES, 0, 4)
    metrics = Metrics()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.service.Metrics", lambda: metrics)
        work(one, 3)  # what is gone, E4, E5
    assert [record["exposure"] for record in read_avro(one, EXAMINED)] == ["E0", "E4", "E5"]
    assert committed(one) == 6
    (letter,) = read_all(one, REJECTED)
    assert header(letter, "reason") == "expired"
    assert "offsets 1 to 3 are lost" in header(letter, "detail")
    assert metrics.registry.collector.get_sample_value("needlestream_frames_rejected_total", {"reason": "expired"}) == 1
    assert "messages lost" in "".join(capfd.readouterr())
    status, output = audit(one)
    assert status == 1
    assert [(kind, what) for kind, what, _ in problems(output)] == [("frame-expired", f"{one.topic(FRAMES)}/0")]
    assert rejected(one, "--replay")[-1].split() == ["0", "sent", "again"]


def test_a_group_that_is_further_than_its_topic_is_not_sent_back_to_the_beginning(kafka_broker):
    """A broker that lost its last messages: to begin again would examine everything twice."""
    one = settings_for(kafka_broker, partitions=1)
    send(one, [frame_bytes(f"E{n}") for n in range(3)])
    commit(one, 0, 7)
    with pytest.raises(
        BrokerError, match=r"ends before offset 7.*kafka-consumer-groups.sh.*--reset-offsets --to-latest"
    ):
        work(one, 1)
    assert read_all(one, EXAMINED) == []
    assert committed(one) == 7


def test_a_topic_made_again_is_examined_from_its_beginning(kafka_broker):
    one = settings_for(kafka_broker, partitions=1)
    send(one, [frame_bytes(f"old {n}") for n in range(3)])
    work(one, 3)
    make_again(one)
    send(one, [frame_bytes(f"new {n}") for n in range(5)])
    work(one, 5)
    exposures = [record["exposure"] for record in read_avro(one, EXAMINED)]
    assert exposures == [f"old {n}" for n in range(3)] + [f"new {n}" for n in range(5)]


def test_a_topic_that_is_made_again_under_a_running_worker_stops_it(kafka_broker):
    """It would go on at the offset where it was, and pass over what came before."""
    one = settings_for(kafka_broker, partitions=1)
    send(one, [frame_bytes(f"old {n}") for n in range(2)])
    source = Source(one, one.topic(FRAMES))
    taken = []
    while len(taken) < 2:
        taken += [message.offset for message in [source.take(0.2)] if message is not None]
    make_again(one)
    send(one, [frame_bytes(f"new {n}") for n in range(4)])
    source.consumer._client.cluster.request_update()  # as it does by itself once a minute
    with pytest.raises(BrokerError, match=r"deleted and made again while this worker ran.*--to-earliest"):
        wait_until(lambda: source.take(0.2) is False, timeout_s=20)
    source.close()


def test_partitions_that_were_added_are_examined_from_their_beginning(kafka_broker):
    settings = settings_for(kafka_broker, partitions=1)
    send(settings, [frame_bytes("E0")])
    work(settings, 1)
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    admin.create_partitions({settings.topic(FRAMES): 3})
    admin.close()
    send(settings, [Output(FRAMES, b"k", frame_bytes(f"E{n}"), (), n) for n in (1, 2)])
    work(settings, 2)
    assert sorted(record["exposure"] for record in read_avro(settings, EXAMINED)) == ["E0", "E1", "E2"]
    assert audit(settings)[0] == 0


def test_messages_of_aborted_transactions_are_nobodys_and_no_gap_stops_a_worker(kafka_broker):
    one = settings_for(kafka_broker, partitions=1)
    create_missing_topics(one)
    producer = KafkaProducer(**producer_options(one), transactional_id=f"{one.topic_prefix}stranger")
    producer.init_transactions()
    for number, end in enumerate([producer.abort_transaction, producer.commit_transaction] * 3):
        producer.begin_transaction()
        for _ in range(3):
            producer.send(one.topic(FRAMES), frame_bytes(f"E{number}")).get(30)
        end()
    producer.begin_transaction()
    producer.send(one.topic(FRAMES), frame_bytes("open")).get(30)
    work(one, 9)
    producer.abort_transaction()
    producer.close()
    exposures = [record["exposure"] for record in read_avro(one, EXAMINED)]
    assert exposures == ["E1"] * 3 + ["E3"] * 3 + ["E5"] * 3
    status, output = audit(one)
    assert {kind for kind, _, _ in problems(output)} == {"alert-repeated"}, status


def test_two_prefixes_with_one_group_do_not_take_from_each_other(kafka_broker):
    left = settings_for(kafka_broker)
    right = left.model_copy(update={"topic_prefix": f"{left.topic_prefix}other."})
    for settings, name in ((left, "left"), (right, "right")):
        send(settings, [frame_bytes(f"{name} {n}") for n in range(4)])
    workers = [start_worker(settings, "--count", "4") for settings in (left, right)]
    for worker in workers:
        status, said = finish(worker)
        assert status == 0, said
    for settings, name in ((left, "left"), (right, "right")):
        assert sorted(record["exposure"] for record in read_avro(settings, EXAMINED)) == [
            f"{name} {n}" for n in range(4)
        ]
        assert audit(settings)[0] == 0
