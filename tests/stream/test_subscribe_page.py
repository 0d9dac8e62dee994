"""Every example of docs/subscribe.md, as it stands there, against Apache Kafka."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaProducer

from stream.alerts import streak_alerts, streak_cutouts
from stream.candidatealerts import candidate_alerts
from stream.framing import CONTAINERS, SCHEMA_VERSION, decode
from stream.messages import TRACKS
from stream.producer import producer_options, publish
from stream.schemaregistry import wire
from tests.conftest import settings_for
from tests.deploy.debian import program
from tests.stream.fake_registry import fake_registry
from tests.stream.nights import exposures_of, night, outputs_of
from tests.stream.stand_in import findings
from tests.stream.stand_in import objects as stand_ins
from tests.stream.test_alerts import MESSAGE
from tests.stream.test_fields import fed, published_by
from tests.stream.test_streak_cutouts import ENDS, frame_with
from tests.stream.topics import send

pytestmark = pytest.mark.kafka

PAGE = Path(__file__).parents[2] / "docs" / "subscribe.md"
EXAMPLES = {
    name: (language, text)
    for name, language, text in re.findall(
        r"<!-- example: (\S+) -->\n```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
}
PATIENCE_S = 60


def alerts(count, framing=CONTAINERS, message=MESSAGE):
    frame, rows = frame_with(ENDS[0])
    rows["ra"], rows["dec"] = frame.header.wcs.all_pix2world(120.0, 70.0, 0)
    outputs = []
    for number in range(count):
        header = replace(frame.header, exposure=f"E{number}", ccd="1")
        cutouts = streak_cutouts(frame, rows, 64)
        outputs += streak_alerts(findings(header, rows), message, b"x", 1.0, framing, cutouts)
    return outputs


def objects():
    """A lens and a merger, each in two exposures, in the second of which they are more probable."""
    frame, rows = frame_with(ENDS[0])
    outputs = []
    for exposure, probability in (("E1", 0.6), ("E2", 0.9)):
        found = findings(replace(frame.header, exposure=exposure, ccd="1"), rows)
        there = stand_ins(1, seed=1)
        there["ra"], there["dec"], there["probability"], there["ic"] = 150.0, 2.0, probability, 300.0
        found = replace(found, lenses=there, mergers=there, models={"lenses": "denselens@0", "mergers": "merger@0"})
        outputs += candidate_alerts(found, MESSAGE, b"x", 1.0)
    return outputs


@pytest.fixture(scope="module")
def stream(kafka_broker):
    """Three alerts, one of a replayed frame, one of an aborted transaction; the versions of two tracks; two objects."""
    settings = settings_for(kafka_broker)
    replayed = alerts(4, message=replace(MESSAGE, headers=(("replayed", b"old"),)))[3:]
    table = night(movers=2, background=0)
    fields = fed([])
    versions = []
    for exposure in exposures_of(table):
        fed(outputs_of(table, exposure), fields)
        versions += [CONTAINERS.output(TRACKS, b"F", record) for record in published_by(fields)]
    send(settings, [*alerts(3), *replayed, *versions, *objects()])
    producer = KafkaProducer(**producer_options(settings), transactional_id=f"{settings.topic_prefix}aborted")
    producer.init_transactions()
    producer.begin_transaction()
    publish(producer, alerts(6)[5:], settings)
    producer.abort_transaction()
    producer.close()
    return settings


def command(name, settings, tmp_path, registry_url="http://registry:8081"):
    language, text = EXAMPLES[name]
    for words, ours in (
        ("kafka:9092", settings.bootstrap_servers),
        ("night.", settings.topic_prefix),
        ("http://registry:8081", registry_url),
    ):
        text = text.replace(words, ours)
    if language == "sh":
        return ["bash", "-euo", "pipefail", "-c", text]
    (tmp_path / "example.py").write_text(text)
    return [sys.executable, "example.py"]


def environment(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}


def start(name, settings, folder, **more):
    return subprocess.Popen(
        command(name, settings, folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(folder),
    )


def said(process):
    """What an example prints until it ends by itself."""
    printed, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, complaints
    return printed


def run(name, settings, folder):
    return said(start(name, settings, folder))


@pytest.fixture(scope="module")
def started(stream, kafka_broker, tmp_path_factory):
    """The examples that wait some seconds for more, all at once, each with its folder."""
    with fake_registry() as registry:
        framed = settings_for(kafka_broker, alert_framing="confluent", schema_registry_url=registry.url)
        send(framed, alerts(2, wire(framed)[0]))
        folders = {name: tmp_path_factory.mktemp(name) for name in ("tracks", "cutouts", "objects", "registry")}
        processes = {
            "tracks": start("tracks", stream, folders["tracks"]),
            "cutouts": start("cutouts", stream, folders["cutouts"]),
            "objects": start("objects", stream, folders["objects"]),
            "registry": start("registry", framed, folders["registry"], registry_url=registry.url),
        }
        yield {name: (process, folders[name]) for name, process in processes.items()}
        for process in processes.values():
            process.kill()
            process.communicate()


def ids(count):
    return [decode(output.value)[0]["alertId"] for output in alerts(count)]


def test_every_example_of_the_page_is_run_here():
    assert PAGE.read_text(encoding="utf-8").count("```") == 2 * len(EXAMPLES)
    here = Path(__file__).read_text(encoding="utf-8")
    assert all(f'run("{name}"' in here or f'start("{name}"' in here for name in EXAMPLES)


def test_a_program_gets_each_live_alert_once_and_no_aborted_one(stream, tmp_path):
    with start("alerts", stream, tmp_path) as running:
        lines = [running.stdout.readline().split() for _ in range(3)]
        running.kill()
    assert sorted(line[0] for line in lines) == sorted(ids(3))
    assert float(lines[0][1]) == pytest.approx(150.0, abs=0.1)


def test_the_newest_version_of_each_track(started):
    lines = [line.split() for line in said(started["tracks"][0]).splitlines()]
    assert [(line[1], line[4]) for line in lines] == [("4", "None"), ("4", "None")]


def test_cut_outs_become_files_with_the_streak_in_their_middle(started):
    process, folder = started["cutouts"]
    lines = said(process).splitlines()
    assert len(lines) == 4
    assert "mid-point at column 3" in lines[0]
    assert len(list(folder.glob("*.fits"))) == 4


def test_lenses_and_mergers_are_one_line_an_object(started):
    lines = [line.split() for line in said(started["objects"][0]).splitlines()]
    assert sorted(line[1:] for line in lines) == [
        ["150.0", "2.0", "0.9", "300.0"],
        ["150.0", "2.0", "0.9", "merger"],
    ]


def test_alerts_that_need_a_registry(started):
    lines = said(started["registry"][0]).splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(ids(2))


def test_kcat_lists_the_messages_and_fastavro_shows_one(stream, tmp_path):
    program("kcat")
    lines = run("kcat-list", stream, tmp_path).splitlines()
    assert len(lines) == 4
    assert all("_format=avro" in line for line in lines)
    assert json.loads(run("kcat-json", stream, tmp_path))["alertId"] in ids(4)
    assert (
        json.loads(run("kcat-schema", stream, tmp_path))["name"]
        == f"needlestream.v{SCHEMA_VERSION.replace('/', '_')}.streak"
    )


def test_hop_client_gives_the_record(stream, tmp_path):
    pytest.importorskip("hop", reason="hop-client is not installed (extra dev)")
    lines = run("hop", stream, tmp_path).splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(ids(4))
