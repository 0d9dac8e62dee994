"""`needlestream audit` on Apache Kafka: it is silent when all is well, and sees each thing that can be wrong."""

import io
from dataclasses import replace

import fastavro
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata
from typer.testing import CliRunner

from stream.cli import app
from stream.messages import ANSWERS, EXAMINED, FRAMES, REJECTED, STREAKS, TRACKS, Output
from stream.producer import producer_options
from stream.service import Limits, answer_to, run_worker
from stream.source import Source
from tests.conftest import settings_for
from tests.stream.stand_in import EXAMINER, frame_bytes
from tests.stream.topics import read_all, send

pytestmark = pytest.mark.kafka


def work(settings, frames):
    """Send frames and have all of them examined; gives the messages."""
    send(settings, frames)
    run_worker(settings, EXAMINER, Limits(count=len(frames)))
    return read_all(settings, FRAMES)


def audit(settings, *more):
    words = ["audit", "--bootstrap-servers", settings.bootstrap_servers, "--topic-prefix", settings.topic_prefix]
    result = CliRunner().invoke(app, [*words, "--group-id", settings.group_id, *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout + result.stderr


def problems(output):
    """The lines that name a problem: kind, what, detail."""
    return [line.split("\t") for line in output.splitlines() if "\t" in line]


def write(settings, outputs):
    """Publish what no worker would."""
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    for output in outputs:
        producer.send(settings.topic(output.topic), output.value, key=output.key, headers=list(output.headers)).get(30)
    producer.close()


def commit(settings, partition, offset):
    """Let the group be done with a partition up to an offset, whatever was answered."""
    source = Source(settings, settings.topic(FRAMES))
    while not source.joined:
        source.take(0.5)
    where = TopicPartition(settings.topic(FRAMES), partition)
    source.consumer.commit({where: OffsetAndMetadata(offset, "", -1)})
    source.close()


def answers(message, hdus, *, count=None):
    """The records that a worker makes of a message with these HDUs."""
    frame = replace(message, value=frame_bytes("forged", hdus=hdus))
    outputs = answer_to(frame, EXAMINER).outputs
    if count is None:
        return outputs
    return [replace(o, headers=((ANSWERS, str(count).encode()),) if o.topic == EXAMINED else ()) for o in outputs]


def taken(settings):
    """The one message of the frames topic as a worker gets it."""
    source = Source(settings, settings.topic(FRAMES))
    message = None
    while message is None:
        message = source.take(0.5)
    source.close()
    return message


@pytest.fixture
def one(kafka_broker):
    """Settings with a frames topic of one partition."""
    return settings_for(kafka_broker, partitions=1)


def test_what_was_examined_and_rejected_is_well(kafka_settings):
    frames = [frame_bytes(f"E{n}", hdus=[{"streaks": 2}, {"bad": "constant"}]) for n in range(6)]
    work(kafka_settings, [*frames, b"rubbish", b"", frame_bytes("last", hdus=[{"streaks": 0}])])
    status, output = audit(kafka_settings)
    assert status == 0, output
    counts = [line.rsplit(maxsplit=1)[-1] for line in output.splitlines()[:4]]
    assert counts == ["9", "0", "15", "7"]
    assert "8  (constant 6, empty 1, not-fits 1)" in output
    assert "nothing missing, nothing doubled" in output


def test_what_no_worker_is_done_with_is_pending_and_overdue_after_a_time(kafka_settings):
    send(kafka_settings, [frame_bytes(f"E{n}") for n in range(5)])
    run_worker(kafka_settings, EXAMINER, Limits(count=2))
    status, output = audit(kafka_settings, "--overdue", "3600")
    assert status == 0, output
    assert output.splitlines()[1].split()[-1] == "3"
    status, output = audit(kafka_settings, "--overdue", "0")
    assert status == 1
    assert {kind for kind, _, _ in problems(output)} == {"frame-overdue"}
    assert "waiting for more than 0 s" in output


def test_a_message_that_was_passed_over_is_missing(one):
    work(one, [frame_bytes("E0")])
    send(one, [Output(FRAMES, b"k", frame_bytes("E1"), (("name", b"night/7.fits"),)), frame_bytes("E2")])
    commit(one, 0, 2)
    status, output = audit(one)
    assert status == 1
    assert problems(output) == [
        ["frame-missing", f"{one.topic(FRAMES)}/0/1", "no summary, no dead letter; it is night/7.fits"]
    ]


def test_an_offset_without_a_message_is_not_missing(one):
    """Marks of transactions take offsets, and so do messages of those that were aborted."""
    send(one, [frame_bytes("E0")])
    producer = KafkaProducer(**producer_options(one), transactional_id="sender")
    producer.init_transactions()
    for name, end in (("gone", producer.abort_transaction), ("E1", producer.commit_transaction)):
        producer.begin_transaction()
        producer.send(one.topic(FRAMES), frame_bytes(name)).get(30)
        end()
    producer.close()
    run_worker(one, EXAMINER, Limits(count=2))
    send(one, [frame_bytes("E2")])
    commit(one, 0, 5)
    status, output = audit(one)
    assert status == 0, output
    assert output.splitlines()[:2] == ["messages done                2", "messages pending             1"]
    commit(one, 0, 6)
    status, output = audit(one)
    assert (status, [what for _, what, _ in problems(output)]) == (1, [f"{one.topic(FRAMES)}/0/5"])


@pytest.mark.parametrize("hdus", [[{"streaks": 0}], [{"bad": "constant"}]])
def test_a_frame_that_was_answered_twice_is_doubled(one, hdus):
    send(one, [frame_bytes(hdus=hdus)])
    message = taken(one)
    run_worker(one, EXAMINER, Limits(count=1))
    write(one, answers(message, hdus))
    status, output = audit(one)
    assert status == 1
    assert problems(output) == [["frame-doubled", message.name, "HDU 0 has 2 answers"]]


def test_an_hdu_without_answer_is_missing_although_its_message_has_one(one):
    send(one, [frame_bytes()])
    message = taken(one)
    write(one, answers(message, [{"streaks": 1}], count=3))
    commit(one, 0, 1)
    status, output = audit(one)
    assert status == 1
    assert problems(output) == [["hdu-missing", message.name, "1 answers where there must be 3"]]


def test_an_alert_that_is_there_twice_is_doubled(one):
    send(one, [frame_bytes(hdus=[{"streaks": 3}])])
    message = taken(one)
    made = answers(message, [{"streaks": 3}])
    write(one, [*made, made[1]])
    commit(one, 0, 1)
    status, output = audit(one)
    assert status == 1
    ((kind, _, detail),) = problems(output)
    assert (kind, detail) == ("alert-doubled", f"2 times from {message.name}")


@pytest.mark.parametrize(("there", "kind"), [(1, "alert-missing"), (4, "alert-surplus")])
def test_alerts_are_as_many_as_the_summary_says(one, there, kind):
    send(one, [frame_bytes()])
    message = taken(one)
    alerts = [output for output in answers(message, [{"streaks": there}]) if output.topic == STREAKS]
    summary = [output for output in answers(message, [{"streaks": 3}]) if output.topic == EXAMINED]
    write(one, [*alerts, *summary])
    commit(one, 0, 1)
    status, output = audit(one)
    assert status == 1
    assert problems(output) == [[kind, message.name, f"HDU 0: {there} alerts, its summary says 3"]]


def track(number, version):
    """A message of the topic of tracks, as far as the audit reads it."""
    schema = {"type": "record", "name": "track", "fields": [
        {"name": "trackId", "type": "string"}, {"name": "version", "type": "int"},
    ]}  # fmt: skip
    value = io.BytesIO()
    fastavro.writer(value, schema, [{"trackId": f"T{number}", "version": version}])
    return Output(TRACKS, b"field", value.getvalue(), ())


def test_a_version_of_a_track_is_there_once_and_none_is_left_out(one):
    send(one, [frame_bytes()])
    write(one, [*answers(taken(one), [{"streaks": 0}]), *[track(1, version) for version in (1, 2, 3)]])
    commit(one, 0, 1)
    status, output = audit(one)
    assert status == 0, output
    write(one, [track(1, 2), track(2, 2)])
    status, output = audit(one)
    assert status == 1
    assert problems(output) == [
        ["track-doubled", "T1", "version 2 is there 2 times"],
        ["track-missing", "T2", "version 2 is there, 1 is not"],
    ]


def test_a_frame_that_was_sent_twice_repeats_its_alerts(one):
    messages = work(one, [frame_bytes(hdus=[{"streaks": 1}])] * 2)
    status, output = audit(one)
    assert status == 1
    ((kind, _, detail),) = problems(output)
    assert kind == "alert-repeated"
    assert all(f"/{message.offset}" in detail for message in messages)


def cut(settings, topic, partition, offset):
    """Delete what is older, as retention does."""
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    admin.delete_records({TopicPartition(settings.topic(topic), partition): offset})
    admin.close()


def test_what_retention_took_from_the_frames_is_not_judged(one):
    work(one, [frame_bytes(f"E{n}") for n in range(4)])
    cut(one, FRAMES, 0, 3)
    status, output = audit(one)
    assert status == 0, output
    assert output.splitlines()[0].split()[-1] == "1"


def test_what_retention_took_before_a_worker_had_it_is_expired(one):
    send(one, [frame_bytes(f"E{n}") for n in range(4)])
    run_worker(one, EXAMINER, Limits(count=1))
    cut(one, FRAMES, 0, 3)
    status, output = audit(one)
    assert status == 1
    assert problems(output)[0][0] == "frame-expired"
    assert "offsets 1 to 2" in output


def test_what_retention_took_from_the_answers_is_told_from_what_is_missing(one):
    work(one, [frame_bytes(f"E{n}", hdus=[{"streaks": 0}]) for n in range(4)])
    cut(one, EXAMINED, 0, 2 * 3)  # each summary is followed by the mark of its transaction
    status, output = audit(one)
    assert status == 0, output
    assert "3 messages without an answer are older than what retention left" in output
    assert read_all(one, REJECTED) == []


def test_topics_that_are_not_there_are_no_clean_audit(kafka_settings):
    status, output = audit(kafka_settings)
    assert status == 2
    assert "is topic_prefix right?" in output


def test_a_broker_that_is_not_there_is_no_clean_audit(kafka_settings):
    status, output = audit(kafka_settings.model_copy(update={"bootstrap_servers": "127.0.0.1:9"}))
    assert status == 2
    assert "no Kafka broker answers" in output
