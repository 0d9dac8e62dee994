"""Producers whose transactions cannot begin: whoever wanted them is told why, and nothing is left open."""

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors

from models.linker import load_linker
from stream.deadletters import Replayer
from stream.delivery import ExactlyOnce
from stream.linker import Linker
from stream.manifest import Run
from stream.metrics import LinkerMetrics
from stream.topics import create_missing_topics
from tests.conftest import settings_for

pytestmark = pytest.mark.kafka


OPENED_BY = {
    "a worker": lambda settings: ExactlyOnce(settings, None),
    "the linker": lambda settings: Linker(settings, load_linker(), LinkerMetrics(), stopping=lambda: False),
    "a replay": lambda settings: Run(settings, "night"),
    "dead letters sent again": Replayer,
}


@pytest.fixture
def clients(monkeypatch):
    """Every producer and consumer that is made meanwhile."""
    made = []

    def noted(kind):
        class Noted(kind):
            def __init__(self, **options):
                super().__init__(**options)
                made.append(self)

        return Noted

    monkeypatch.setattr("stream.producer.KafkaProducer", noted(KafkaProducer))
    monkeypatch.setattr("stream.broker.KafkaConsumer", noted(KafkaConsumer))
    return made


@pytest.mark.parametrize("who", OPENED_BY)
def test_a_producer_whose_transactions_cannot_begin_is_closed_and_so_is_what_was_opened_before_it(
    kafka_broker, clients, who
):
    # A broker grants fifteen minutes at most.
    settings = settings_for(kafka_broker, transaction_timeout_s=3600)
    create_missing_topics(settings)
    with pytest.raises(kafka_errors.KafkaError, match="InvalidTransactionTimeout"):
        OPENED_BY[who](settings)
    assert any(isinstance(one, KafkaProducer) for one in clients)
    assert all(one._closed for one in clients)
