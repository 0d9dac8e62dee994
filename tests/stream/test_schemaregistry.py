"""Confluent framing: bytes that others read with a schema registry, and a registry that fails."""

import io
import json
import ssl

import fastavro
import pytest

from detector.linking import link
from detector.sightings import catalogue
from models.linker import load_linker
from stream.alerts import streak_alerts
from stream.audit import audit
from stream.broker import BrokerError
from stream.fields import UnreadableError, sheets
from stream.framing import CONTAINERS, Confluent, decode, encode
from stream.known import read_known
from stream.linker import run_linker
from stream.messages import CANDIDATES, EXAMINED, FRAMES, STREAKS, TRACKS, Message
from stream.schemaregistry import RegistryError, schemas, wire
from stream.service import Limits, run_worker
from stream.settings import load_settings
from stream.watching.night import Night
from tests.conftest import settings_for
from tests.detector.test_linking import SHAPES
from tests.secure_broker import make_authority, make_certificate
from tests.stream.fake_registry import fake_registry
from tests.stream.nights import exposures_of, findings_of, night, outputs_of
from tests.stream.stand_in import EXAMINER, findings, frame_bytes, streaks
from tests.stream.test_alerts import HEADER, MESSAGE
from tests.stream.test_known import known_rows
from tests.stream.topics import committed, read_all, send

SECRET = "kept-under-the-hat"


@pytest.fixture
def registry():
    with fake_registry() as server:
        yield server


def settings(server, **more):
    return load_settings(None, {"alert_framing": "confluent", "schema_registry_url": server.url, **more})


def by_hand(value, registry):
    """Read a framed record as its documentation says: magic, number, bare record."""
    assert value[0] == 0
    schema = json.loads(registry.schemas[int.from_bytes(value[1:5], "big")])
    body = io.BytesIO(value[5:])
    record = fastavro.schemaless_reader(body, fastavro.parse_schema(schema))
    assert body.read() == b""
    return record


def test_a_framed_record_is_read_by_hand_and_is_the_containers_record(registry):
    framing, schema_of = wire(settings(registry, topic_prefix="night."))
    rows = streaks(3, seed=1)
    framed = streak_alerts(findings(HEADER, rows), MESSAGE, b"x", 1.0, framing)
    contained = streak_alerts(findings(HEADER, rows), MESSAGE, b"x", 1.0)
    for one, other in zip(framed, contained, strict=True):
        (record,) = decode(other.value)
        assert by_hand(one.value, registry) == record == decode(one.value, schema_of)[0]
        assert (one.topic, one.key) == (other.topic, other.key)
        assert "_format" not in dict(one.headers)
    assert {"night.streaks-value", "night.tracks-value", "night.frames.examined-value"} <= set(registry.subjects)
    assert registry.subjects["night.streaks-value"] == int.from_bytes(framed[0].value[1:5], "big")


def test_a_reader_asks_for_each_schema_once_and_once_for_one_that_is_unknown(registry):
    framing, _ = wire(settings(registry))
    outputs = streak_alerts(findings(HEADER, streaks(4, seed=1)), MESSAGE, b"x", 1.0, framing)
    registry.asked.clear()
    schema_of = schemas(settings(registry, alert_framing="container"))
    for output in outputs:
        decode(output.value, schema_of)
    for _ in range(3):
        with pytest.raises(LookupError, match="no schema 7"):
            decode(b"\x00\x00\x00\x00\x07record", schema_of)
    number = registry.subjects["streaks-value"]
    assert registry.asked == [("GET", f"/schemas/ids/{number}"), ("GET", "/schemas/ids/7")]


def test_a_record_framed_by_an_older_program_is_read_with_the_new_fields_empty(registry):
    newest = json.loads(registry.schemas[wire(settings(registry))[0].numbers[STREAKS]])
    added = {"replayed", "cutoutScience"}
    old = newest | {"namespace": "needlestream.v1_0", "fields": [f for f in newest["fields"] if f["name"] not in added]}
    registry.schemas[5] = json.dumps(old)
    (record,) = decode(streak_alerts(findings(HEADER, streaks(1, seed=1)), MESSAGE, b"x", 1.0)[0].value)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(old), record)
    (read,) = decode(b"\x00\x00\x00\x00\x05" + body.getvalue(), schemas(settings(registry)))
    assert read == record | {"replayed": None, "cutoutScience": None}


def test_without_a_registry_a_framed_message_is_unreadable_and_says_what_to_set(registry):
    framing, _ = wire(settings(registry))
    (output,) = streak_alerts(findings(HEADER, streaks(1, seed=1)), MESSAGE, b"x", 1.0, framing)
    message = Message(STREAKS, 0, 0, b"k", output.value)
    with pytest.raises(UnreadableError, match="set schema_registry_url"):
        sheets(message)
    with pytest.raises(ValueError, match="set schema_registry_url"):
        Night().take(message)
    watching = Night(schemas(settings(registry)))
    watching.take(message)
    assert len(watching.shown(0.0)["alerts"]) == 1
    for broken in (output.value[:3], output.value[:40]):
        with pytest.raises(UnreadableError):
            sheets(Message(STREAKS, 0, 0, b"k", broken), schemas(settings(registry)))


def test_containers_need_no_registry(registry):
    assert wire(load_settings(None, {}))[0] is CONTAINERS
    assert wire(settings(registry, alert_framing="container"))[0] is CONTAINERS
    assert registry.asked == []


def test_a_registry_that_fails_is_named_with_what_to_do_and_without_the_password(registry):
    login = {"schema_registry_username": "me", "schema_registry_password": SECRET}
    registry.login = "me:other"
    with pytest.raises(RegistryError, match=r"401 .Unauthorized.*schema_registry_password") as refusal:
        wire(settings(registry, **login))
    assert SECRET not in str(refusal.value)
    registry.login = f"me:{SECRET}"
    assert isinstance(wire(settings(registry, **login))[0], Confluent)
    registry.incompatible = {"tracks-value"}
    with pytest.raises(RegistryError, match=r"409 .*incompatible.* what tracks-value has"):
        wire(settings(registry, **login))
    away = settings(registry)
    registry.shutdown()
    registry.server_close()
    with pytest.raises(RegistryError, match=r"does not answer: .*Connection refused"):
        wire(away)
    with pytest.raises(RegistryError, match="does not answer"):
        decode(b"\x00\x00\x00\x00\x07record", schemas(away))


def test_a_registry_by_https_is_believed_by_its_authority_alone(tmp_path):
    make_authority(tmp_path, "authority")
    make_certificate(tmp_path, "registry", "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "registry.pem")
    with fake_registry(context) as server:
        with pytest.raises(RegistryError, match="CERTIFICATE_VERIFY_FAILED"):
            wire(settings(server))
        assert isinstance(wire(settings(server, schema_registry_ca=tmp_path / "authority.pem"))[0], Confluent)


def test_a_password_travels_by_https_or_within_the_machine_alone():
    login = {"schema_registry_username": "me", "schema_registry_password": SECRET}
    with pytest.raises(Exception, match="only https is used"):
        load_settings(None, {"schema_registry_url": "http://registry:8081", **login})


@pytest.mark.kafka
def test_worker_linker_and_audit_speak_confluent_framing_and_known_objects_are_marked(kafka_broker, registry, tmp_path):
    more = {"alert_framing": "confluent", "schema_registry_url": registry.url, "link_after_s": 0.5}
    ours = settings_for(kafka_broker, **more)
    table = night(movers=3, background=5)
    send(ours, [frame_bytes(exposure) for exposure in exposures_of(table)])
    found = {exposure: findings_of(table, exposure) for exposure in exposures_of(table)}
    examiner = EXAMINER.__class__(EXAMINER.read, lambda frame: found[frame.header.exposure])
    assert run_worker(ours, examiner, Limits(count=4)) == 4
    track = link(catalogue(table, SHAPES), load_linker()).tracks[0]
    lines = [f"2024 AB12,{row}" for row in known_rows(table, track.rows)]
    (tmp_path / "known.csv").write_text("\n".join(["name,time_utc,ra,dec", *lines]))
    known = read_known(tmp_path / "known.csv", 2.0)
    assert run_linker(ours, load_linker(), idle_timeout_s=1, known=known) == 3
    expected = {STREAKS: sum(len(one.streaks) for one in found.values()), EXAMINED: 4, TRACKS: 3}
    for topic, count in expected.items():
        values = [record.value for record in read_all(ours, topic)]
        assert len([by_hand(value, registry) for value in values]) == count
    tracks = [by_hand(record.value, registry) for record in read_all(ours, TRACKS)]
    assert sorted(str(record["knownAs"]) for record in tracks) == ["2024 AB12", "None", "None"]
    assert all(record.value[:3] == b"Obj" for record in read_all(ours, CANDIDATES))
    told = audit(ours, overdue_s=None, now_unix_s=2e9)
    assert (told.examined, told.alerts, told.tracks, told.problems) == (4, expected[STREAKS], 3, ())


@pytest.mark.kafka
def test_a_worker_whose_registry_is_away_begins_nothing(kafka_broker, registry):
    more = {"alert_framing": "confluent", "schema_registry_url": registry.url}
    ours = settings_for(kafka_broker, **more)
    send(ours, [frame_bytes()])
    registry.shutdown()
    registry.server_close()
    with pytest.raises(BrokerError, match="does not answer"):
        run_worker(ours, EXAMINER, Limits(count=1))
    assert committed(ours) == 0
    assert read_all(ours, FRAMES)
    assert read_all(ours, EXAMINED) == []


def test_streams_of_both_framings_are_read_side_by_side(registry):
    framing, schema_of = wire(settings(registry))
    table = night(movers=1, background=0)
    exposure = exposures_of(table)[0]
    (contained, *_) = outputs_of(table, exposure)
    (record,) = decode(contained.value)
    framed = framing.output(STREAKS, b"k", record)
    assert decode(framed.value, schema_of) == decode(encode("streak", record), schema_of) == [record]
