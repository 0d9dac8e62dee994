"""Producers whose transactions cannot begin: whoever wanted them is told why, and nothing is left open."""

import pytest
from kafka import KafkaProducer
from kafka import errors as kafka_errors

from models.linker import load_linker
from stream.broker import ExactlyOnce
from stream.deadletters import Replayer
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
def producers(monkeypatch):
    """Every producer with transactions that is made meanwhile."""
    made = []

    class Noted(KafkaProducer):
        def __init__(self, **options):
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr("stream.broker.KafkaProducer", Noted)
    return made


@pytest.mark.parametrize("who", OPENED_BY)
def test_a_producer_whose_transactions_cannot_begin_is_closed(kafka_broker, producers, who):
    # A broker grants fifteen minutes at most.
    settings = settings_for(kafka_broker, transaction_timeout_s=3600)
    create_missing_topics(settings)
    with pytest.raises(kafka_errors.KafkaError, match="InvalidTransactionTimeout"):
        OPENED_BY[who](settings)
    assert [one._closed for one in producers] == [True]
