"""The linker on Apache Kafka itself: the tracks of `link`, each version once, whatever happens in between."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

from detector.linking import link
from detector.sightings import catalogue
from models.linker import load_linker
from stream.broker import BrokerError
from stream.linker import Linker, linker_group, run_linker
from stream.messages import CANDIDATES, FRAMES, STREAKS, TRACKS, Output
from stream.metrics import LinkerMetrics
from stream.service import Limits, run_worker
from stream.topics import administration, create_missing_topics
from tests.conftest import settings_for
from tests.detector.test_linking import SHAPES
from tests.stream.nights import exposures_of, findings_of, latest, night, outputs_of, places_in, places_of
from tests.stream.stand_in import EXAMINER, frame_bytes
from tests.stream.topics import finish, read_all, read_avro, send, wait_for_event, wait_until

pytestmark = pytest.mark.kafka

SCORER = load_linker()


@pytest.fixture
def linker_settings(kafka_broker):
    return settings_for(kafka_broker, link_after_s=0.5, transaction_timeout_s=8)


def start_linker(settings, *arguments, **more):
    told = {**settings.model_dump(include=settings.model_fields_set), **more, "log_format": "json"}
    return subprocess.Popen(
        [sys.executable, "-c", "from stream.cli import app; app()", "track", *arguments],
        env={**os.environ, **{f"NEEDLESTREAM_{name.upper()}": str(value) for name, value in told.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_idle(settings):
    """A linker in this process, until all is linked: where it matters what one does, not that it is another one."""
    return run_linker(settings, SCORER, idle_timeout_s=2)


def expected(*tables):
    return Counter(
        places_in(table, track) for table in tables for track in link(catalogue(table, SHAPES), SCORER).tracks
    )


def tracks_in(settings):
    """The published records; each version of each track must be there once."""
    records = read_avro(settings, TRACKS)
    versions = Counter((record["trackId"], record["version"]) for record in records)
    assert set(versions.values()) <= {1}
    for name in {record["trackId"] for record in records}:
        mine = [record["version"] for record in records if record["trackId"] == name]
        assert mine == list(range(1, len(mine) + 1))
    return records


def final(settings):
    return Counter(places_of(record) for record in latest(tracks_in(settings)))


def send_exposures(settings, table, exposures, field="F1"):
    send(settings, [out for exposure in exposures for out in outputs_of(table, exposure, field=field)])


def test_a_fields_streaks_and_candidates_become_the_tracks_that_link_gives(linker_settings):
    table = night()
    send_exposures(linker_settings, table, exposures_of(table))
    status, said = finish(start_linker(linker_settings, "--idle-timeout", "2"))
    assert status == 0, said
    assert final(linker_settings) == expected(table)
    assert sum(final(linker_settings).values()) == 6
    record = tracks_in(linker_settings)[0]
    assert (record["field"], record["version"], record["withdrawn"]) == ("F1", 1, False)
    streaks = [r["alertId"] for topic in (STREAKS, CANDIDATES) for r in read_avro(linker_settings, topic)]
    for track in tracks_in(linker_settings):
        assert {sighting["alertId"] for sighting in track["sightings"]} <= set(streaks)
        assert {sighting["inputTopic"] for sighting in track["sightings"]} == {FRAMES}
        times = [sighting["midpointMjdTai"] for sighting in track["sightings"]]
        assert times == sorted(times)
    assert '"tracks": 6' in said


def test_what_a_worker_finds_goes_on_into_tracks(linker_settings):
    """Frames in, tracks out: worker and linker, exactly once from end to end."""
    table = night(movers=4)
    send(linker_settings, [frame_bytes(exposure) for exposure in exposures_of(table)])
    found = {exposure: findings_of(table, exposure) for exposure in exposures_of(table)}
    examiner = replace(EXAMINER, examine=lambda frame: found[frame.header.exposure])
    run_worker(linker_settings, examiner, Limits(count=4))
    until_idle(linker_settings)
    assert final(linker_settings) == expected(table)
    frames = {(record.partition, record.offset) for record in read_all(linker_settings, FRAMES)}
    for track in tracks_in(linker_settings):
        for one in track["sightings"]:
            assert one["inputTopic"] == linker_settings.topic(FRAMES)
            assert (one["inputPartition"], one["inputOffset"]) in frames


def test_alerts_alone_are_linked_where_nobody_sends_candidates(linker_settings):
    table = night(movers=4)
    outputs = [out for exposure in exposures_of(table) for out in outputs_of(table, exposure) if out.topic == STREAKS]
    send(linker_settings, outputs)
    until_idle(linker_settings)
    assert sum(final(linker_settings).values()) == 2


@pytest.mark.embedded
def test_the_embedded_broker_serves_a_linker_too(embedded_broker):
    """It keeps no metadata with offsets: who comes next reads everything again, and publishes nothing twice."""
    settings = settings_for(embedded_broker, link_after_s=0.5, delivery="at-least-once")
    table = night(movers=3)
    create_missing_topics(settings)
    linker = start_linker(settings)
    for exposure in ("e0", "e1", "e2"):
        send_exposures(settings, table, [exposure])
    wait_until(lambda: sum(final(settings).values()) == 3)
    os.kill(linker.pid, signal.SIGTERM)
    status, said = finish(linker)
    assert status == 0, said
    send_exposures(settings, table, ["e3"])
    linker = start_linker(settings)
    wait_until(lambda: final(settings) == expected(table))
    linker.kill()
    linker.wait()


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_exposures_late_and_out_of_order_raise_the_version_and_the_end_is_the_same(kafka_broker, delivery):
    settings = settings_for(kafka_broker, link_after_s=0.5, delivery=delivery)
    table = night()
    for exposure in ("e2", "e0", "e3", "e1"):
        send_exposures(settings, table, [exposure])
        until_idle(settings)
    assert final(settings) == expected(table)
    assert max(record["version"] for record in tracks_in(settings)) >= 2


def test_a_linker_that_is_killed_again_and_again_loses_and_doubles_nothing(linker_settings):
    """Killed before, between and behind its commits: every field is linked in the end as if nothing had happened."""
    tables = {f"F{n}": night(movers=3, background=20, seed=n) for n in range(8)}
    create_missing_topics(linker_settings)
    linker = start_linker(linker_settings)
    for number, exposure in enumerate(["e1", "e0", "e3", "e2"]):
        for field, table in tables.items():
            send_exposures(linker_settings, table, [exposure], field)
        if number == 2:
            wait_until(lambda: len(read_all(linker_settings, TRACKS)) > 5)
        time.sleep(0.4 * number)
        linker.kill()
        linker.wait()
        linker = start_linker(linker_settings)
    wait_for_event(linker, "fields rebuilt")
    linker.kill()
    linker.wait()
    until_idle(linker_settings)
    assert final(linker_settings) == expected(*tables.values())


def test_a_linker_killed_in_the_middle_of_its_transaction_publishes_once(linker_settings, monkeypatch):
    """Tracks and offsets are sent, and the process dies before the commit: who comes next waits, and goes on."""
    table = night(movers=2)
    send_exposures(linker_settings, table, exposures_of(table))
    dead = Linker(linker_settings, SCORER, LinkerMetrics(), stopping=lambda: False)
    died = []

    def die():
        died.append(True)
        raise KeyboardInterrupt

    monkeypatch.setattr(dead.producer, "commit_transaction", die)
    with pytest.raises(KeyboardInterrupt):
        dead.serve(None)
    assert died
    dead.consumer.close(autocommit=False)
    assert read_all(linker_settings, TRACKS) == []
    until_idle(linker_settings)
    assert final(linker_settings) == expected(table)
    assert {record["version"] for record in tracks_in(linker_settings)} == {1}


def test_two_linkers_share_the_fields_and_take_over_when_one_leaves(linker_settings):
    tables = {f"F{n}": night(movers=2, background=10, seed=n) for n in range(6)}
    create_missing_topics(linker_settings)
    first, second = start_linker(linker_settings), start_linker(linker_settings)
    for field, table in tables.items():
        send_exposures(linker_settings, table, ["e0", "e1"], field)
    wait_until(lambda: sum(final(linker_settings).values()) >= 6)
    os.kill(first.pid, signal.SIGTERM)
    status, said = finish(first)
    assert status == 0, said
    assert "SIGTERM" in said
    for field, table in tables.items():
        send_exposures(linker_settings, table, ["e2", "e3"], field)
    wait_until(lambda: final(linker_settings) == expected(*tables.values()))
    os.kill(second.pid, signal.SIGTERM)
    status, said = finish(second)
    assert status == 0, said
    assert final(linker_settings) == expected(*tables.values())


def test_a_linker_that_was_thought_dead_publishes_nothing_and_says_so(kafka_broker):
    settings = settings_for(kafka_broker, link_after_s=3, session_timeout_s=3)
    table = night(movers=2)
    create_missing_topics(settings)
    stopped = start_linker(settings)
    wait_for_event(stopped, "partitions assigned")
    send_exposures(settings, table, exposures_of(table))
    time.sleep(1.5)
    os.kill(stopped.pid, signal.SIGSTOP)
    until_idle(settings)
    os.kill(stopped.pid, signal.SIGCONT)
    time.sleep(5)
    os.kill(stopped.pid, signal.SIGTERM)
    finish(stopped)
    assert final(settings) == expected(table)
    assert {record["version"] for record in tracks_in(settings)} == {1}


def test_a_field_of_which_nothing_comes_is_closed_and_read_no_more(kafka_broker):
    settings = settings_for(kafka_broker, link_after_s=0.2, field_timeout_s=3, partitions=1)
    table = night(movers=2)
    send_exposures(settings, table, ["e0", "e1", "e2"])
    until_idle(settings)
    before = tracks_in(settings)
    time.sleep(3.5)
    send_exposures(settings, table, ["e3"])
    until_idle(settings)
    assert tracks_in(settings) == before
    time.sleep(3.5)
    until_idle(settings)
    # Where the next linker begins: behind what is closed.
    with administration(settings) as admin:
        (offsets,) = admin.list_group_offsets([linker_group(settings)]).values()
    for source, entry in offsets.items():
        ends = len(read_all(settings, source.topic.removeprefix(settings.topic_prefix)))
        assert entry.offset == ends
        assert json.loads(entry.metadata)["open"] == ends


def test_what_is_no_streak_is_passed_over_and_counted(linker_settings, capsys):
    table = night(movers=2)
    rubbish = [Output(STREAKS, b"F1", b"rubbish"), Output(CANDIDATES, b"F1", b""), Output(STREAKS, None, None)]
    send(linker_settings, rubbish)
    send_exposures(linker_settings, table, exposures_of(table))
    until_idle(linker_settings)
    assert final(linker_settings) == expected(table)
    assert capsys.readouterr().out.count("no streaks in a message") == 3


def test_topics_that_would_split_a_field_are_refused(linker_settings):
    with administration(linker_settings) as admin:
        admin.create_topics({linker_settings.topic(TRACKS): {"num_partitions": 2, "replication_factor": 1}})
    with pytest.raises(BrokerError, match=r"same number of partitions: .*streaks has 4, .*tracks has 2"):
        run_linker(linker_settings, SCORER, idle_timeout_s=1)


def test_the_metrics_count_what_the_topics_hold(linker_settings, monkeypatch):
    made = []
    monkeypatch.setattr("stream.linker.LinkerMetrics", lambda: made.append(LinkerMetrics()) or made[0])
    table = night(movers=2)
    send(linker_settings, [Output(STREAKS, b"F1", b"rubbish")])
    send_exposures(linker_settings, table, exposures_of(table))
    run_linker(linker_settings, SCORER, idle_timeout_s=2)
    sample = made[0].registry.collector.get_sample_value
    assert sample("needlestream_sightings_total") == len(table["frame"])
    assert sample("needlestream_unreadable_total") == 1
    kinds = [sample("needlestream_tracks_total", {"kind": kind}) or 0 for kind in ("new", "again", "withdrawn")]
    assert sum(kinds) == len(read_all(linker_settings, TRACKS))
    assert sample("needlestream_open_fields") == 1
    lag = {"topic": linker_settings.topic(STREAKS), "partition": "0"}
    assert sample("needlestream_lag_messages", lag) == 0


def test_a_linker_that_hears_of_the_generation_before_its_partitions_begins_with_them(linker_settings, monkeypatch):
    """A poll may end between the two; on a busy machine it does."""
    table = night(movers=2)
    send_exposures(linker_settings, table, exposures_of(table))
    linker = Linker(linker_settings, SCORER, LinkerMetrics(), stopping=lambda: False)
    assignment, early = linker.consumer.assignment, iter(range(2))
    monkeypatch.setattr(
        linker.consumer, "assignment", lambda: set() if assignment() and next(early, None) is not None else assignment()
    )
    linker.serve(1)
    linker.close()
    assert final(linker_settings) == expected(table)
