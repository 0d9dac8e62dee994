"""Who is let in and who is not, on a real broker with a listener for each way: and what is said when one is not."""

import base64
import json
import logging
import os
import subprocess
import sys
import time
import uuid

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType
from typer.testing import CliRunner

from stream.broker import BrokerError, check_reachable, explained
from stream.cli import app
from stream.linker import run_linker
from stream.logs import configure_logs
from stream.messages import EXAMINED, FRAMES, STREAKS, Output
from stream.service import Limits, run_worker
from stream.settings import load_settings
from stream.subscriber import Subscriber
from stream.topics import create_missing_topics, topic_states
from tests.conftest import settings_for
from tests.kafka_broker import NoKafkaError
from tests.secure_broker import PASSWORD, USER, SecureBroker
from tests.stream.stand_in import EXAMINER, frame_bytes
from tests.stream.topics import finish, read_avro, send

pytestmark = pytest.mark.kafka

LOGIN = {"sasl_username": USER, "sasl_password": PASSWORD}
KIND = {"TLS": "SSL", "MUTUAL": "SSL", "EXPIRED": "SSL", "ELSEWHERE": "SSL"} | {
    "LOGIN": "SASL_PLAINTEXT",
    "LOGINTLS": "SASL_SSL",
    "TOKEN": "SASL_SSL",
}


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secure")
    try:
        broker = SecureBroker(folder)
        broker.broker.start()
    except NoKafkaError as reason:
        if os.environ.get("NEEDLESTREAM_REQUIRE_KAFKA"):
            raise
        pytest.skip(str(reason))
    yield broker
    broker.broker.stop()


def token(life_s=3600, subject="needle"):
    """An unsecured JSON Web Token, as the broker's validator for tests takes it."""
    now = int(time.time())
    claims = {"sub": subject, "iat": now - 10, "exp": now + life_s}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def settings_at(secure, listener, **more):
    alone = uuid.uuid4().hex[:8]
    given = {
        "bootstrap_servers": secure.address(listener),
        "security_protocol": KIND[listener],
        "topic_prefix": f"t{alone}.",
        "group_id": f"g{alone}",
        "partitions": 1,
        "session_timeout_s": 6,
    }
    if KIND[listener].endswith("SSL"):
        given["tls_ca"] = secure.tls / "authority.pem"
    return load_settings(None, {**given, **more})


def own_certificate(secure, name, key=None):
    return {"tls_cert": secure.tls / f"{name}.crt", "tls_key": secure.tls / f"{key or name}.key"}


WAYS = {
    "tls": ("TLS", {}),
    "client-certificate": ("MUTUAL", "client"),
    "plain": ("LOGIN", {"sasl_mechanism": "PLAIN", **LOGIN}),
    "plain-over-tls": ("LOGINTLS", {"sasl_mechanism": "PLAIN", **LOGIN}),
    "scram-256": ("LOGIN", {"sasl_mechanism": "SCRAM-SHA-256", **LOGIN}),
    "scram-256-over-tls": ("LOGINTLS", {"sasl_mechanism": "SCRAM-SHA-256", **LOGIN}),
    "scram-512": ("LOGIN", {"sasl_mechanism": "SCRAM-SHA-512", **LOGIN}),
    "scram-512-over-tls": ("LOGINTLS", {"sasl_mechanism": "SCRAM-SHA-512", **LOGIN}),
    "token": ("TOKEN", {"sasl_mechanism": "OAUTHBEARER"}),
}


def test_the_topics_of_a_broker_that_has_just_started_can_be_shown(secure):
    """The first test on this broker: it has no coordinator of groups yet."""
    settings = settings_for(secure.broker.address)
    create_missing_topics(settings)
    states = topic_states(settings)
    assert {state.name: state.lag for state in states if state.lag is not None} == {settings.topic(FRAMES): 0}


@pytest.mark.parametrize("way", WAYS)
def test_a_message_makes_the_round_trip(secure, way, capfd):
    """Topics made, a message sent, a worker in its group examines it, a subscriber reads the summary.

    Two of the workers are processes, with their secrets from the environment.
    """
    listener, more = WAYS[way]
    more = own_certificate(secure, more) if isinstance(more, str) else dict(more)
    if way == "token":
        more["sasl_oauth_token"] = token()
    settings = settings_at(secure, listener, **more)
    send(settings, [frame_bytes()])
    if way in {"scram-512-over-tls", "token"}:
        status, said = finish(start_worker(settings, "--count", "1"))
        assert status == 0, said
    else:
        configure_logs("json")
        assert work(settings) == 1
        said = "".join(capfd.readouterr())
        assert "worker started" in said
    subscriber = Subscriber(settings, [EXAMINED])
    taken = []
    while subscriber.behind():
        taken += subscriber.take(0.5)
    subscriber.close()
    assert len(taken) == 1
    for secret in (settings.sasl_password, settings.sasl_oauth_token):
        assert secret is None or secret.get_secret_value() not in said


def start_worker(settings, *arguments):
    """A worker process with these settings from its environment, secrets among them."""
    told = {
        f"NEEDLESTREAM_{name.upper()}": value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        for name, value in ((name, getattr(settings, name)) for name in settings.model_fields_set)
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stream.stand_in", *arguments],
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def bad(listener, says, certificate=None, **more):
    return listener, says, certificate, more


NO_LOGIN = {"security_protocol": "PLAINTEXT", "sasl_mechanism": None}
PLAIN = {"sasl_mechanism": "PLAIN", **LOGIN}
SCRAM = {"sasl_mechanism": "SCRAM-SHA-512", **LOGIN}
REFUSALS = {
    "wrong password": bad("LOGIN", "sasl_password is wrong for PLAIN", **PLAIN | {"sasl_password": "straw"}),
    "wrong user": bad("LOGIN", "sasl_username 'pin'", **PLAIN | {"sasl_username": "pin"}),
    "wrong password, scram": bad(
        "LOGINTLS", "sasl_password is wrong for SCRAM-SHA-512", **SCRAM | {"sasl_password": "straw"}
    ),
    "wrong user, scram": bad("LOGINTLS", "sasl_username 'pin'", **SCRAM | {"sasl_username": "pin"}),
    "mechanism not offered": bad("TOKEN", "does not take sasl_mechanism PLAIN; it takes OAUTHBEARER", **PLAIN),
    "wrong authority": bad("TLS", "did not sign its certificate", tls_ca="stranger.pem"),
    "no authority": bad("TLS", r"tls_ca \(not set", tls_ca=None),
    "authority is no certificate": bad("TLS", "tls_ca .* is no PEM file", tls_ca="authority.key"),
    "authority is not there": bad("TLS", "tls_ca .*No such file", tls_ca="none.pem"),
    "expired certificate": bad("EXPIRED", "certificate has expired"),
    "certificate of another host": bad("ELSEWHERE", "for another name than 'localhost'"),
    "no certificate of our own": bad("MUTUAL", "set tls_cert and tls_key"),
    "certificate of another authority": bad("MUTUAL", "refuses our certificate", "nobody"),
    "plain client on a TLS port": bad("TLS", "speaks TLS, .*: SSL", security_protocol="PLAINTEXT"),
    "login without TLS on a TLS port": bad(
        "LOGINTLS", "speaks TLS, .*: SASL_SSL", security_protocol="SASL_PLAINTEXT", **PLAIN
    ),
    "TLS client on a plain login port": bad(
        "LOGIN", "does not speak TLS, .*: SASL_PLAINTEXT", security_protocol="SASL_SSL", tls_ca="authority.pem", **PLAIN
    ),
    "no login on a login port": bad("LOGIN", "does it ask for a login", security_protocol="PLAINTEXT"),
    "login on a port without": bad("TLS", "asks for no login, .*: SSL", security_protocol="SASL_SSL", **PLAIN),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_who_is_not_let_in_is_told_why(secure, case):
    listener, says, certificate, more = REFUSALS[case]
    if isinstance(more.get("tls_ca"), str):
        more = {**more, "tls_ca": secure.tls / more["tls_ca"]}
    if certificate is not None:
        more = more | own_certificate(secure, certificate)
    settings = settings_at(secure, listener, **more)
    with pytest.raises(BrokerError, match=says) as refusal:
        check_reachable(settings)
    assert PASSWORD not in str(refusal.value)
    assert "straw" not in str(refusal.value)


def test_a_tls_client_on_a_port_without_is_told_so(secure):
    settings = settings_at(secure, "TLS", bootstrap_servers=secure.broker.address)
    with pytest.raises(BrokerError, match=r"does not speak TLS, .*: PLAINTEXT"):
        check_reachable(settings)


def test_a_locked_key_is_opened_with_its_password_and_never_asked_for_on_the_terminal(secure):
    locked = own_certificate(secure, "client", "locked")
    check_reachable(settings_at(secure, "MUTUAL", **locked, tls_key_password="open sesame"))
    for wrong in ({}, {"tls_key_password": "open barley"}):
        with pytest.raises(BrokerError, match="tls_key_password is wrong"):
            check_reachable(settings_at(secure, "MUTUAL", **locked, **wrong))


@pytest.mark.parametrize("command", ["run", "topics", "replay"])
def test_the_commands_end_with_the_reason_and_without_the_secret(secure, command, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("NEEDLESTREAM_SASL_PASSWORD", "straw-in-the-wind")
    caplog.set_level(logging.DEBUG)
    words = [command, *([str(tmp_path)] if command == "replay" else [])]
    words += ["--bootstrap-servers", secure.address("LOGIN"), "--security-protocol", "SASL_PLAINTEXT"]
    result = CliRunner().invoke(app, [*words, "--sasl-mechanism", "PLAIN", "--sasl-username", USER])
    assert result.exit_code == 1
    assert "sasl_password is wrong for PLAIN" in result.output
    assert "Traceback" not in result.output
    assert "straw-in-the-wind" not in result.output + caplog.text


def test_a_password_that_is_changed_while_it_runs_is_named_when_the_client_gives_up(secure, capsys):
    """And the client, which logs whole requests where it is let, is not let: not even by who asks for everything."""
    configure_logs("json")
    logging.getLogger().setLevel(logging.DEBUG)
    settings = settings_at(secure, "LOGIN", **PLAIN | {"sasl_password": "straw"}, request_timeout_s=2)
    with pytest.raises(BrokerError, match="sasl_password is wrong"), explained(settings):
        create_missing_topics(settings)
    said = capsys.readouterr().err
    assert "Bootstrap failed" in said
    assert "straw" not in said


# --- rights -----------------------------------------------------------------------------------------------------------


def keep_to_others(secure, kind, name, pattern=ACLResourcePatternType.LITERAL, ours=()):
    """Give all rights on something to somebody else, and so none to us; but for ``ours``."""
    admin = KafkaAdminClient(bootstrap_servers=secure.broker.address)
    what = ResourcePattern(kind, name, pattern)
    rights = [("User:somebody", ACLOperation.ALL), *((f"User:{USER}", right) for right in ours)]
    told = admin.create_acls([ACL(who, "*", right, ACLPermissionType.ALLOW, what) for who, right in rights])
    admin.close()
    assert not told["failed"]


def work(settings):
    return run_worker(settings, EXAMINER, Limits(count=1))


def link(settings):
    return run_linker(settings, None, idle_timeout_s=1)


PREFIXED, SEEN = ACLResourcePatternType.PREFIXED, {"ours": [ACLOperation.DESCRIBE]}
# What is kept to others, by the settings; who does what; which right the error asks for.
RIGHTS = {
    "to write answers": (lambda s: (ResourceType.TOPIC, s.topic(STREAKS)), SEEN, work, "Write --topic {prefix}streaks"),
    "to read frames": (lambda s: (ResourceType.TOPIC, s.topic(FRAMES)), SEEN, work, "Read --topic {prefix}frames"),
    "to see frames": (lambda s: (ResourceType.TOPIC, s.topic(FRAMES)), {}, work, "Describe --topic {prefix}frames"),
    "group": (lambda s: (ResourceType.GROUP, s.group_id), {}, work, "Read --group {group}"),
    "linkers' group": (lambda s: (ResourceType.GROUP, f"{s.group_id}-linker"), {}, link, "Read --group {group}-linker"),
    "transactions": (
        lambda s: (ResourceType.TRANSACTIONAL_ID, f"{s.topic_prefix}{s.group_id}-", PREFIXED),
        {},
        work,
        "Write --transactional-id {prefix}{group}- --resource-pattern-type prefixed",
    ),
}


@pytest.mark.parametrize("kept", RIGHTS)
def test_a_right_that_is_missing_is_named_with_the_command_that_gives_it(secure, kept):
    what, ours, attempt, says = RIGHTS[kept]
    settings = settings_at(secure, "LOGIN", **PLAIN)
    send(settings, [frame_bytes()])
    keep_to_others(secure, *what(settings), **ours)
    with pytest.raises(BrokerError) as refusal:
        attempt(settings)
    said = str(refusal.value)
    assert said.endswith(f"--operation {says.format(prefix=settings.topic_prefix, group=settings.group_id)}")
    assert "user 'needle' lacks the right" in said
    assert PASSWORD not in said


def test_a_right_that_is_missing_is_not_laid_to_the_frame(secure):
    settings = settings_at(secure, "LOGIN", **PLAIN)
    send(settings, [frame_bytes()])
    keep_to_others(secure, ResourceType.TOPIC, settings.topic(STREAKS), **SEEN)
    for _ in range(4):
        with pytest.raises(BrokerError, match="lacks the right Write"):
            work(settings)
    anonymous = settings.model_copy(update={"bootstrap_servers": secure.broker.address, **NO_LOGIN})
    assert work(anonymous) == 1
    assert len(read_avro(anonymous, EXAMINED)) == 1


def test_topics_that_may_not_be_made_are_an_administrators_work(secure):
    settings = settings_at(secure, "LOGIN", **PLAIN)
    keep_to_others(secure, ResourceType.CLUSTER, "kafka-cluster")
    keep_to_others(secure, ResourceType.TOPIC, settings.topic_prefix, PREFIXED)
    with pytest.raises(
        BrokerError, match=r"lacks the right Create on topic .*--operation Create --topic .*topics --create"
    ):
        work(settings)


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_from_a_file_is_read_again_for_each_login(secure, tmp_path):
    file = tmp_path / "token"
    settings = settings_at(secure, "TOKEN", sasl_mechanism="OAUTHBEARER", sasl_oauth_token_file=file)
    with pytest.raises(BrokerError, match=r"sasl_oauth_token_file \(.*token\): No such file"):
        check_reachable(settings)
    file.write_text(token(-5))
    with pytest.raises(BrokerError, match=r"sasl_oauth_token_file .* expired at 20"):
        check_reachable(settings)
    file.write_text(token() + "\n")
    check_reachable(settings)
    send(settings, [Output(FRAMES, b"k", frame_bytes())])


def test_a_token_that_the_broker_does_not_take_is_named(secure):
    settings = settings_at(secure, "TOKEN", sasl_mechanism="OAUTHBEARER", sasl_oauth_token="no-token-of-yours")
    with pytest.raises(BrokerError, match="refuses the token of sasl_oauth_token") as refusal:
        check_reachable(settings)
    assert "no-token-of-yours" not in str(refusal.value)
