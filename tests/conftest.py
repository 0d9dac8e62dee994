"""Brokers for the tests: Apache Kafka itself, and the embedded one."""

import os
import subprocess
import sys
import uuid

import pytest
import structlog

from stream.broker import BrokerError
from stream.embedded import broker_command
from stream.settings import load_settings
from tests.kafka_broker import KafkaBroker, NoKafkaError, free_port, wait_for_port


@pytest.fixture(autouse=True)
def logs_look_as_they_did():
    """A command run inside a test sets how logs look, for every test behind it too."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def threads_are_given_back():
    """Training in a test takes fewer threads, and they would be missing in every test behind it."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory):
    """The address of an Apache Kafka broker: one that is given, else one of our own.

    Where there is none the tests are skipped; NEEDLESTREAM_REQUIRE_KAFKA makes that a failure.
    """
    given = os.environ.get("NEEDLESTREAM_TEST_KAFKA")
    if given:
        yield given
        return
    try:
        broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
        broker.start()
    except NoKafkaError as reason:
        if os.environ.get("NEEDLESTREAM_REQUIRE_KAFKA"):
            raise
        pytest.skip(str(reason))
    yield broker.address
    broker.stop()


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory):
    """The address of an embedded broker."""
    port = free_port()
    log = tmp_path_factory.mktemp("embedded") / "log"
    try:
        command = broker_command(port)
    except BrokerError as reason:
        pytest.skip(str(reason))
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    wait_for_port(port, process, log)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def settings_for(address, **more):
    """Settings with topics and a group of their own, so that tests on one broker do not meet."""
    alone = uuid.uuid4().hex[:8]
    given = {"topic_prefix": f"t{alone}.", "group_id": f"g{alone}", "partitions": 4, "session_timeout_s": 6}
    return load_settings(None, {"bootstrap_servers": address, **given, **more})


@pytest.fixture
def kafka_settings(kafka_broker):
    return settings_for(kafka_broker)


@pytest.fixture
def embedded_settings(embedded_broker):
    return settings_for(embedded_broker, delivery="at-least-once")
