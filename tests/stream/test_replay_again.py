"""A replay gives what it gave before, and goes beside live frames without disturbing them."""

import numpy as np
import pytest
from typer.testing import CliRunner

from stream.cli import app
from stream.fields import Fields
from stream.framing import decode
from stream.messages import CANDIDATES, EXAMINED, FRAMES, REJECTED, STREAKS, Output
from stream.service import Limits, run_worker
from tests.conftest import settings_for
from tests.stream.archives import night as archived_night
from tests.stream.nights import exposures_of, findings_of, latest, night, outputs_of, places_of
from tests.stream.stand_in import fits_examiner
from tests.stream.test_archive import where
from tests.stream.test_fields import fed, published_by
from tests.stream.topics import read_all, read_avro, send

PROCESSING = {"timeProcessedMjdTai", "timeArrivedMjdTai", "seconds"}


def typed(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def answers(settings):
    """Everything that the topics say of the frames, but for when it was said and for the prefix."""
    told = []
    for topic in (STREAKS, CANDIDATES, EXAMINED):
        for message in read_all(settings, topic):
            records = [dict(record, inputTopic=FRAMES) for record in decode(message.value)]
            kept = [{name: value for name, value in one.items() if name not in PROCESSING} for one in records]
            # A frame without a name is called by its place in the topic.
            key = message.key.replace(settings.topic_prefix.encode(), b"")
            told.append((topic, key, message.headers, repr(kept)))
    told += [(message.key, message.value) for message in read_all(settings, REJECTED)]
    return sorted(told, key=lambda one: repr(one[:2]))  # in each key's own order


@pytest.mark.kafka
def test_the_same_archive_gives_the_same_messages_again(kafka_broker, tmp_path):
    """Replay, reader and worker; that the science gives the same rows twice is shown in ``test_run_command``."""
    folder = archived_night(tmp_path / "night")
    found = []
    for _ in range(2):
        settings = settings_for(kafka_broker)
        typed("replay", folder, *where(settings, tmp_path), "--run", "again")
        assert run_worker(settings, fits_examiner(3), Limits(count=5)) == 5
        found.append(answers(settings))
    assert found[0] == found[1]
    assert len(found[0]) == 4 * 3 + 4 + 1


@pytest.mark.kafka
def test_live_frames_and_a_replay_go_through_one_worker_and_can_be_told_apart(kafka_settings, tmp_path):
    folder = archived_night(tmp_path / "night")
    (folder / "broken.fits").unlink()
    live = {f"live-{path.stem}": path.read_bytes() for path in sorted(folder.rglob("*.fits"))}
    frames = [
        Output(FRAMES, name.encode(), content, (("exposure", name.encode()), ("ccd", b"1")))
        for name, content in live.items()
    ]
    send(kafka_settings, frames[:2])
    typed("replay", folder, *where(kafka_settings, tmp_path), "--run", "old")
    send(kafka_settings, frames[2:])
    assert run_worker(kafka_settings, fits_examiner(3), Limits(count=8)) == 8
    for topic, each in ((EXAMINED, 1), (STREAKS, 3)):
        records = read_avro(kafka_settings, topic)
        ours = [record["exposure"] for record in records if record["replayed"] is None]
        assert sorted(ours) == sorted(list(live) * each)
        assert {record["replayed"] for record in records} == {None, "old"}
        assert len(records) == 2 * len(ours)
    alerts = [record["alertId"] for record in read_avro(kafka_settings, STREAKS)]
    assert len(set(alerts)) == len(alerts)


def test_a_replayed_night_of_the_same_field_links_for_itself_and_leaves_the_live_one_as_it_is():
    live, old = night(movers=2, background=5, seed=3), night(movers=3, background=5, seed=4)
    old["mid_time_utc"] = np.char.replace(old["mid_time_utc"], "202", "201", count=1)
    old["exposure"] = np.char.add("old-", old["exposure"])

    def tracks_of(*several):
        fields, records = Fields(3600.0), []
        for exposures in zip(*(exposures_of(table) for table in several), strict=True):
            for table, exposure in zip(several, exposures, strict=True):
                fed(outputs_of(table, exposure), fields)
            records += published_by(fields)
        return {(record["trackId"], places_of(record)) for record in latest(records)}

    assert findings_of(old, exposures_of(old)[0]).header.mid_time_mjd_tai < 58_849.0
    assert tracks_of(live, old) == tracks_of(live) | tracks_of(old)
    assert len(tracks_of(live)) == 2
