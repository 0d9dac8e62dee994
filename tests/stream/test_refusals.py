"""What a broker does not let us do comes out as the right or the copy that is missing."""

import pytest
from kafka import errors

from stream import refusals
from stream.broker import BrokerError, explained
from stream.messages import FRAMES
from stream.refusals import cause_of, missing_right, sick_partitions
from stream.settings import load_settings
from stream.topics import create_missing_topics

SETTINGS = load_settings(None, {"topic_prefix": "night.", "group_id": "g"})


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.TopicAuthorizationFailedError({"a", "b"}), "--topic a; .*--topic b$"),
        (errors.TopicAuthorizationFailedError("a"), "Read --topic a$"),
        (errors.TopicAuthorizationFailedError(), r"--topic night\.\*$"),
        (errors.GroupAuthorizationFailedError(), "--group g$"),
        (errors.GroupAuthorizationFailedError("g-linker"), "--group g-linker$"),
        (
            errors.TransactionalIdAuthorizationFailedError(),
            "--transactional-id night.g- --resource-pattern-type prefixed",
        ),
        (errors.ClusterAuthorizationFailedError("no idempotence"), "may not do what is needed: .*no idempotence"),
    ],
)
def test_each_right_has_its_command(error, says):
    with pytest.raises(BrokerError, match=says), explained(SETTINGS):
        raise error


def test_what_the_client_wraps_is_unwrapped():
    first = errors.TopicAuthorizationFailedError({"night.streaks"})
    assert cause_of(errors.KafkaError("Cannot perform send", first)) is first
    assert cause_of(errors.KafkaTimeoutError("late")) == errors.KafkaTimeoutError("late")
    assert "User:me" in missing_right(
        first,
        load_settings(
            None,
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "me", "sasl_password": "x"},
        ),
    )


class Cluster:
    """An administrator's client as kafka-python answers; of two brokers the second is away."""

    def __init__(self, **_):
        pass

    def list_topics(self):
        return ["night.frames", "night.streaks", "else"]

    def describe_configs(self, resources, config_filter):
        assert config_filter == "all"
        return {"topic": {one.name: {"min.insync.replicas": {"value": "2"}} for one in resources}}

    def describe_topics(self, names):
        def part(number, leader, replicas, in_sync):
            return {"partition_index": number, "leader_id": leader, "replica_nodes": replicas, "isr_nodes": in_sync}

        parts = [part(0, 1, [1, 2], [1, 2]), part(1, 1, [1, 2], [1]), part(2, -1, [2], [2]), part(3, 1, [1], [1])]
        return [{"name": name, "partitions": parts if name == "night.streaks" else parts[:1]} for name in names]

    def close(self):
        pass


@pytest.mark.parametrize(
    "error", [errors.NotEnoughReplicasError(), errors.KafkaStorageError(), errors.KafkaTimeoutError()]
)
def test_partitions_that_take_nothing_are_named_when_messages_are_not_acknowledged(monkeypatch, error):
    monkeypatch.setattr(refusals, "KafkaAdminClient", Cluster)
    monkeypatch.setattr("stream.broker.check_reachable", lambda _: None)
    says = (
        r"night.streaks/1 has 1 of 2 copies in sync \(min.insync.replicas\); night.streaks/2 has no leader\. "
        r"Is a broker away, or its disk full\?"
    )
    with pytest.raises(BrokerError, match=says), explained(SETTINGS):
        raise error


@pytest.mark.kafka
def test_no_partition_of_a_sound_broker_is_sick(kafka_settings):
    create_missing_topics(kafka_settings)
    options = {"bootstrap_servers": kafka_settings.bootstrap_servers}
    assert sick_partitions(options, kafka_settings) is None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(refusals, "_sick", lambda topic, least: [f"{topic['name']} {least[topic['name']]}"])
        assert f"{kafka_settings.topic(FRAMES)} 1; " in sick_partitions(options, kafka_settings)
