"""Marks of transactions, on Apache Kafka: nobody waits for them."""

import pytest
from kafka import KafkaProducer, TopicPartition

from stream.marks import STANDS_S, StandingGaps, only_marks
from stream.messages import FRAMES
from stream.producer import producer_options
from stream.service import Limits, run_worker
from stream.topics import create_missing_topics, topic_states
from tests.conftest import settings_for
from tests.stream.stand_in import EXAMINER, frame_bytes
from tests.stream.test_audit import audit
from tests.stream.topics import send

pytestmark = pytest.mark.kafka


def lag_of(settings):
    (state,) = (one for one in topic_states(settings) if one.lag is not None)
    return state.lag


def test_when_all_frames_of_a_replay_are_done_nothing_waits(kafka_broker):
    settings = settings_for(kafka_broker, partitions=1)
    create_missing_topics(settings)
    producer = KafkaProducer(**producer_options(settings), transactional_id=f"{settings.topic_prefix}replay")
    producer.init_transactions()
    for exposure in ("E1", "E2"):
        producer.begin_transaction()
        producer.send(settings.topic(FRAMES), frame_bytes(exposure)).get(30)
        producer.commit_transaction()
    assert lag_of(settings) > 0
    run_worker(settings, EXAMINER, Limits(count=2))
    assert lag_of(settings) == 0
    status, output = audit(settings, "--overdue", "0")
    assert status == 0, output
    assert output.splitlines()[1] == "messages pending             0"
    # The live page looks into a gap when it stands, once.
    where = TopicPartition(settings.topic(FRAMES), 0)
    standing = StandingGaps(settings)
    assert standing.only_marks({where: (3, 4)}, 0.0) == set()
    assert standing.only_marks({where: (3, 4)}, STANDS_S) == {where}
    standing.settings = None  # no second look
    assert standing.only_marks({where: (3, 4)}, 2 * STANDS_S) == {where}
    assert standing.only_marks({where: (3, 5)}, 2 * STANDS_S) == set()

    send(settings, [frame_bytes("E3")])
    assert lag_of(settings) > 0
    assert only_marks(settings, {where: (3, 5)}) == set()
    # What an open transaction holds is waited for.
    producer.begin_transaction()
    producer.send(settings.topic(FRAMES), frame_bytes("E4")).get(30)
    assert only_marks(settings, {where: (5, 6)}) == set()
    producer.abort_transaction()
    producer.close()
    assert only_marks(settings, {where: (5, 7)}) == {where}
