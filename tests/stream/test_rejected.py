"""`needlestream rejected` on Apache Kafka: what is listed, and what is sent again, once."""

import threading

import pytest
from typer.testing import CliRunner

from stream.broker import BrokerError
from stream.cli import app
from stream.deadletters import Replayer, dead_letters
from stream.messages import ANSWERS, EXAMINED, FRAMES, REJECTED, REPLAY_OF, Output
from stream.service import Limits, run_worker
from tests.conftest import settings_for
from tests.stream.stand_in import EXAMINER, frame_bytes
from tests.stream.test_audit import audit
from tests.stream.topics import read_all, read_avro, send

pytestmark = pytest.mark.kafka

OWN = (("name", b"night/7.fits"), ("x", b"\xff\x00"))


def rejected(settings, *more):
    words = ["rejected", "--bootstrap-servers", settings.bootstrap_servers, "--topic-prefix", settings.topic_prefix]
    result = CliRunner().invoke(app, [*words, *more])
    assert result.exit_code == 0, result.output
    return (result.stderr + result.stdout).splitlines()


def work(settings, frames):
    send(settings, frames)
    run_worker(settings, EXAMINER, Limits(count=len(frames)))


def headers(record):
    return [(name, bytes(value)) for name, value in record.headers]


def test_the_dead_letters_are_listed_with_their_reasons_and_counted(kafka_settings):
    several = frame_bytes(hdus=[{"streaks": 1}, {"bad": "constant"}, {"bad": "all-nan"}])
    work(kafka_settings, [b"rubbish", b"more rubbish", several, Output(FRAMES, None, None)])
    lines = rejected(kafka_settings)
    listed = [line.split("\t") for line in lines if "\t" in line]
    frames = {record.value: record for record in read_all(kafka_settings, FRAMES)}
    assert sorted(reason for _, reason, *_ in listed) == ["all-nan", "constant", "empty", "not-fits", "not-fits"]
    constant = next(row for row in listed if row[1] == "constant")
    assert constant[2] == f"{kafka_settings.topic(FRAMES)}/{frames[several].partition}/{frames[several].offset}[1]"
    assert constant[3:] == [f"{len(several)} bytes", "told to be bad"]
    assert [line.split() for line in lines[-5:]] == [
        ["1", "all-nan"],
        ["1", "constant"],
        ["1", "empty"],
        ["2", "not-fits"],
        ["5", "dead", "letters"],
    ]
    assert rejected(kafka_settings, "--reason", "constant")[-1].split() == ["1", "dead", "letters"]
    assert rejected(kafka_settings, "--limit", "2")[-1].split() == ["2", "dead", "letters"]


def test_without_dead_letters_there_are_none(kafka_settings):
    assert rejected(kafka_settings) == ["        0 dead letters"]


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_dead_letter_is_sent_again_as_it_came_and_once(kafka_broker, delivery):
    settings = settings_for(kafka_broker, delivery=delivery)
    bad = [Output(FRAMES, b"a key", b"rubbish", OWN), Output(FRAMES, b"", b"", (("uri", b"file:///no/where"),))]
    work(settings, [*bad, Output(FRAMES, None, None)])
    letters = {record.value: record for record in read_all(settings, REJECTED)}
    for sent in ("3 sent again", "0 sent again"):
        assert rejected(settings, "--replay", "--delivery", delivery)[-1].strip() == sent
    frames = read_all(settings, FRAMES)
    again = [record for record in frames if REPLAY_OF in dict(record.headers)]
    assert len(frames) == 6
    assert {record.value for record in again} == {b"rubbish", b"", None}
    (rubbish,) = [record for record in again if record.value == b"rubbish"]
    letter = letters[b"rubbish"]
    name = f"{settings.topic(REJECTED)}/{letter.partition}/{letter.offset}".encode()
    assert rubbish.key == b"a key"
    assert headers(rubbish) == [*OWN, (REPLAY_OF, name)]


def test_only_the_hdu_that_was_rejected_is_examined_again(kafka_settings):
    broken = frame_bytes(hdus=[{"streaks": 1}, {"bad": "constant"}, {"streaks": 2}])
    work(kafka_settings, [broken])
    assert rejected(kafka_settings, "--replay")[-1].strip() == "1 sent again"
    run_worker(kafka_settings, EXAMINER, Limits(count=1))
    assert [record["extension"] for record in read_avro(kafka_settings, EXAMINED)] == [0, 2]
    again = read_all(kafka_settings, REJECTED)[-1]
    assert dict(again.headers)["extension"] == b"1"
    assert dict(again.headers)[ANSWERS] == b"1"
    assert audit(kafka_settings)[0] == 0
    # What was rejected again is a new dead letter, and may be sent again in its turn.
    assert rejected(kafka_settings, "--replay")[-1].strip() == "1 sent again"
    replays = [header for record in read_all(kafka_settings, FRAMES) for header in record.headers]
    assert len([name for name, _ in replays if name == REPLAY_OF]) == 2


def test_only_the_reason_that_is_asked_for_is_sent_again_and_the_others_later(kafka_settings):
    work(kafka_settings, [b"rubbish", b"", frame_bytes(hdus=[{"bad": "constant"}]), b"more rubbish"])
    assert rejected(kafka_settings, "--replay", "--reason", "constant")[-1].strip() == "1 sent again"
    assert rejected(kafka_settings, "--replay", "--limit", "2")[-1].strip() == "2 sent again"
    assert rejected(kafka_settings, "--replay")[-1].strip() == "1 sent again"
    assert len(read_all(kafka_settings, FRAMES)) == 8


def test_of_two_replays_at_one_time_the_first_gives_way_and_nothing_is_sent_twice(kafka_settings):
    work(kafka_settings, [f"rubbish {n}".encode() for n in range(5)])
    letters = list(dead_letters(kafka_settings, reason=None))
    first = Replayer(kafka_settings)
    assert first.send(letters[0])
    second = Replayer(kafka_settings)
    with pytest.raises(BrokerError, match="another `rejected --replay` was started"):
        first.send(letters[1])
    assert [second.send(letter) for letter in letters] == [False, True, True, True, True]
    closing = threading.Thread(target=first.close, daemon=True)
    closing.start()
    second.close()
    assert len(read_all(kafka_settings, FRAMES)) == 10
