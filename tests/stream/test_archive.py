"""Replay: in the order of the night, at a chosen rate, each frame once, on from where it stopped."""

import csv
import time

import pytest
from typer.testing import CliRunner

from detector.fitsarchive import file_pointing
from detector.fitsheader import Limits
from stream.archive import parse_rate, run_name
from stream.cli import app
from stream.inventory import Selection
from stream.lag import Gate
from stream.messages import EXAMINED, FRAMES, REJECTED
from tests.conftest import settings_for
from tests.stream.archives import Tape, image, look, night, opened, pointed, run
from tests.stream.long_replay import killed_twice
from tests.stream.topics import finish, read_all, read_avro, start_worker


def where(settings, tmp_path):
    names = ["--bootstrap-servers", settings.bootstrap_servers, "--topic-prefix", settings.topic_prefix]
    return [*names, "--state", str(tmp_path / "state"), "--partitions", "2"]


def test_frames_are_sent_in_the_order_of_their_times_and_then_the_others(tmp_path):
    tape = Tape()
    outcomes = run([night(tmp_path)], tape, state=tmp_path)
    assert {outcome.reason for outcome in outcomes.values()} == {""}
    assert tape.names == ["b.fits", "c.fits", "a.fits", "timeless.fits", "broken.fits"]
    assert [frame.key for frame in tape.frames[:4]] == [b"1", b"2", b"3", b"timeless.fits"]
    assert tape.frames[0].value == (tmp_path / "b.fits").read_bytes()
    assert all(("replayed", b"tape") in frame.headers for frame in tape.frames)


def test_a_replay_goes_on_where_it_stopped(tmp_path):
    archive, sent = night(tmp_path / "night"), Tape().sent
    names = []
    for until in (2, 1, None):
        tape = Tape(until, sent=sent)
        try:
            run([archive], tape, state=tmp_path)
        except KeyboardInterrupt:
            assert until
        names += tape.names
    assert names == ["b.fits", "c.fits", "a.fits", "timeless.fits", "broken.fits"]
    again = Tape(sent=sent)
    assert {outcome.reason for outcome in run([archive], again, state=tmp_path).values()} == {"sent-before"}
    assert again.names == []


def test_split_sends_each_frame_of_a_file_and_goes_on_within_it(tmp_path):
    file = image(tmp_path / "mosaic.fits", date="2024-05-06T01:00:00", exposure=9, n_hdus=4)
    first = Tape(until=3)
    with pytest.raises(KeyboardInterrupt):
        run([file], first, state=tmp_path, each_hdu=True)
    second = Tape(sent=first.sent)
    run([file], second, state=tmp_path, each_hdu=True)
    assert [frame.key for frame in first.frames + second.frames] == [b"9/1", b"9/2", b"9/3", b"9/4"]


def test_a_file_over_the_limit_is_refused_with_its_size_and_the_rest_goes_on(tmp_path):
    files = [image(tmp_path / "large.fits", size=300), image(tmp_path / "small.fits")]
    tape = Tape(limit=100_000)
    outcomes = run(files, tape, state=tmp_path)
    assert outcomes["large.fits"].reason == "refused"
    assert "large.fits has 362,880 bytes" in outcomes["large.fits"].detail
    assert tape.names == ["small.fits"]


def test_the_same_bytes_are_sent_once_and_the_copy_is_named(tmp_path):
    original = image(tmp_path / "a.fits", seed=5)
    (tmp_path / "b.fits").write_bytes(original.read_bytes())
    (tmp_path / "broken.fits").write_bytes(b"no FITS")
    (tmp_path / "broken too.fits").write_bytes(b"no FITS")
    tape = Tape()
    outcomes = run([tmp_path], tape, state=tmp_path / "state")
    assert tape.names == ["a.fits", "broken too.fits"]
    assert outcomes["b.fits"].reason == outcomes["broken.fits"].reason == "same-content"
    assert str(original) in outcomes["b.fits"].detail


def test_the_same_exposure_in_another_file_is_sent_once(tmp_path):
    told = {"date": "2024-05-06T01:00:00", "exposure": 7, "ccd": 2}
    image(tmp_path / "a.fits", **told)
    image(tmp_path / "reduced.fits", seed=2, **told)
    image(tmp_path / "other ccd.fits", **{**told, "ccd": 3})
    image(tmp_path / "other night.fits", **{**told, "date": "2024-05-07T01:00:00"})
    image(tmp_path / "other half.fits", size=30, **told)
    image(tmp_path / "no ccd 1.fits", **{**told, "ccd": None})
    image(tmp_path / "no ccd 2.fits", seed=3, **{**told, "ccd": None})
    tape = Tape()
    outcomes = run([tmp_path], tape, state=tmp_path / "state")
    assert [name for name, outcome in outcomes.items() if outcome.reason] == ["reduced.fits"]
    assert outcomes["reduced.fits"].reason == "same-exposure"
    assert "a.fits" in outcomes["reduced.fits"].detail
    everything = Tape()
    run([tmp_path], everything, state=tmp_path / "state", keep_copies=True)
    assert len(everything.frames) == 7


def test_of_a_mosaic_only_what_no_other_file_had_is_sent(tmp_path):
    told = {"date": "2024-05-06T01:00:00", "exposure": 9}
    image(tmp_path / "a.fits", ccd=2, seed=7, **told)
    image(tmp_path / "mosaic.fits", n_hdus=3, **told)
    tape = Tape()
    run([tmp_path], tape, state=tmp_path / "state")
    assert [frame.key for frame in tape.frames] == [b"9/2", b"9/1", b"9/3"]


def test_together_each_message_names_the_other_exposures_of_its_field(tmp_path):
    told = {"a": 0, "b": 10, "c": 20}
    files = {name: pointed(tmp_path / f"{name}.fits", minutes=minutes) for name, minutes in told.items()}
    pointed(tmp_path / "b copy.fits", minutes=10, seed=99)
    pointed(tmp_path / "elsewhere.fits", minutes=5, east_arcsec=60.0)
    pointed(tmp_path / "beside.fits", minutes=6, east_arcsec=23.0)
    # Another CCD of the exposure of b, a little beside: the nearer one is meant.
    pointed(tmp_path / "a neighbour.fits", minutes=10, east_arcsec=15.0, ccd=2)
    pointed(tmp_path / "other filter.fits", minutes=7, filter="g")
    image(tmp_path / "nowhere.fits", date="2024-05-06T01:08:00", filter="r", exposure=8, ccd=1)
    tape = Tape()
    chosen = Selection(exposures=("0", "10", "5", "8"), ccds=("1",))
    run([tmp_path], tape, state=tmp_path / "state", selection=chosen, together=True)
    named = {
        name: [value.decode() for key, value in frame.headers if key == "other-exposure"]
        for name, frame in zip(tape.names, tape.frames, strict=True)
    }
    # What is not sent is named all the same; of two copies one, and that of a frame itself not at all.
    a, b, c = (files[name].as_uri() for name in "abc")
    copy = (tmp_path / "b copy.fits").as_uri()
    assert named == {"a.fits": [copy, c], "elsewhere.fits": [], "nowhere.fits": [], "b copy.fits": [a, c]}
    assert all(b not in uris for uris in named.values())
    # One worker gets them all.
    assert [frame.key for frame in tape.frames] == [b"a.fits/1", b"5/1", b"8/1", b"a.fits/1"]
    alone = Tape()
    run([tmp_path], alone, state=tmp_path / "state")
    assert not [key for frame in alone.frames for key, _ in frame.headers if key == "other-exposure"]


def test_of_a_long_night_the_nearest_exposures_are_named_and_a_changed_file_is_looked_at_again(tmp_path):
    files = [pointed(tmp_path / f"{k:02d}.fits", minutes=10 * k) for k in range(12)]
    inventory = opened(tmp_path / "state")
    point = lambda path: file_pointing(path, limits=Limits())  # noqa: E731
    inventory.scan([tmp_path], look, looked=lambda _: None)
    inventory.point(point, looked=lambda _: None)
    assert inventory.field_of(files[0]) == files[:8]
    assert inventory.field_of(files[6]) == files[2:10]
    files[1].unlink()
    pointed(files[1], minutes=10, east_arcsec=100.0)
    inventory.scan([tmp_path], look, looked=lambda _: None)
    assert inventory.field_of(files[1]) == [files[1]]
    inventory.point(point, looked=lambda _: None)
    assert inventory.field_of(files[0]) == [files[0], *files[2:9]]


@pytest.mark.parametrize(
    ("selection", "keys"),
    [
        (Selection(exposures=("2", "3")), [b"2/1", b"3/1"]),
        (Selection(fields=("N",)), [b"1/1", b"3/1"]),
        (Selection(filters=("r",), fields=("N", "S")), [b"2/1"]),
        (Selection(after_mjd_tai=60436.06, before_mjd_tai=60436.1), [b"2/1"]),
        (Selection(ccds=("2",)), [b"4/2"]),
        (Selection(ccds=("9",)), []),
    ],
)
def test_a_selection_sends_the_frames_that_were_asked_for(tmp_path, selection, keys):
    for number, (field, name) in enumerate(zip("NSN", "grg", strict=True), 1):
        date = f"2024-05-06T0{number}:00:00"
        image(tmp_path / f"{number}.fits", date=date, exposure=number, ccd=1, seed=number, field=field, filter=name)
    image(tmp_path / "mosaic.fits", date="2024-05-06T04:00:00", exposure=4, n_hdus=3)
    (tmp_path / "broken.fits").write_bytes(b"no FITS")
    tape = Tape()
    run([tmp_path], tape, state=tmp_path / "state", selection=selection)
    assert [frame.key for frame in tape.frames] == keys


def test_headers_are_read_once_and_again_when_a_file_has_changed(tmp_path):
    archive = night(tmp_path / "night")
    inventory, opened_files = opened(tmp_path), []

    def look(path):
        opened_files.append(path.name)
        return ()

    from tests.stream.archives import look as labels  # noqa: PLC0415

    for version, expected in (("1", 5), ("1", 1), ("2", 5)):
        inventory = opened(tmp_path, version)
        opened_files.clear()
        inventory.scan([archive], lambda path: look(path) or labels(path), looked=lambda _: None)
        assert len(opened_files) == expected  # broken.fits might be readable with other limits: each time
        inventory.close()
    (archive / "c.fits").unlink()
    image(archive / "c.fits", date="2024-05-06T09:00:00", exposure=2, size=25)
    (archive / "b.fits").unlink()
    tape = Tape()
    run([archive], tape, state=tmp_path)
    assert tape.names == ["a.fits", "c.fits", "timeless.fits", "broken.fits"]


def test_an_inventory_that_is_damaged_is_made_again(tmp_path):
    (tmp_path / "archive.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    tape = Tape()
    run([night(tmp_path / "night")], tape, state=tmp_path)
    assert len(tape.frames) == 5


def test_the_rate_is_that_of_the_night_or_faster(tmp_path):
    archive = night(tmp_path)
    started = time.monotonic()
    run([archive], Tape(), state=tmp_path, speed=7200 / 0.4)
    assert 0.4 <= time.monotonic() - started < 3


def test_rates_are_read_as_people_write_them():
    assert [parse_rate(text) for text in ("max", "real-time", "10x", "0.5")] == [None, 1.0, 10.0, 0.5]
    for text in ("fast", "0x", "-1", "nan", "inf"):
        with pytest.raises(ValueError):  # noqa: PT011 - its text is not shown
            parse_rate(text)


def test_a_run_is_named_after_its_paths(tmp_path):
    a, b = tmp_path / "a night", tmp_path / "b"
    assert run_name([a, b]) == run_name([a, b / "." / ""]) != run_name([b])
    assert run_name([a]).startswith("a-night-")


def test_a_frame_waits_while_too_many_are_waiting_for_the_workers():
    answers, asked = [9, 5, 2, 3], []
    gate = Gate(lambda: asked.append(1) or answers.pop(0), 3, lambda: False)
    gate.wait()
    assert (len(asked), gate.lag) == (3, 2)
    answers[:] = [1]
    gate.wait()  # with what was sent meanwhile there may be three: it asks
    assert (len(asked), gate.lag) == (4, 1)


def test_a_replay_that_is_told_to_stop_waits_no_longer():
    Gate(lambda: 99, 3, lambda: True).wait()


def test_a_dry_run_says_what_would_be_sent_and_why_not_the_rest(tmp_path):
    told = {"date": "2024-05-06T01:00:00", "exposure": 7, "ccd": 2, "filter": "r"}
    image(tmp_path / "night" / "a.fits", **told)
    image(tmp_path / "night" / "b.fits", seed=2, **told)
    words = ["replay", str(tmp_path / "night"), "--dry-run", "--state", str(tmp_path / "state")]
    result = CliRunner().invoke(app, [*words, "--bootstrap-servers", "127.0.0.1:1", "--after", "2024-05-06"])
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["send", "same-exposure"]
    assert rows[0][1:6] == ["7", "2", "-", "r", "2024-05-06T01:00:05.000Z"]
    assert "what was sent before is not known" in result.stderr


@pytest.mark.parametrize(
    ("words", "says"), [(["--after", "May"], "a date or a time"), (["--run", "a b"], "letters, digits")]
)
def test_what_is_no_time_or_no_name_is_a_usage_error(tmp_path, words, says):
    result = CliRunner().invoke(app, ["replay", str(tmp_path), *words])
    assert result.exit_code == 2
    assert says in result.output


@pytest.mark.kafka
def test_replayed_files_come_out_examined_or_rejected(kafka_settings, tmp_path):
    archive = night(tmp_path / "night")
    image(archive / "mosaic.fits", date="2024-05-06T04:00:00", exposure=4, n_hdus=3)
    (archive / "copy.fits").write_bytes((archive / "mosaic.fits").read_bytes())
    words = ["replay", str(archive), *where(kafka_settings, tmp_path), "--run", "spring"]
    result = CliRunner().invoke(app, [*words, "--manifest", str(tmp_path / "sent.csv")])
    assert result.exit_code == 0, result.output
    assert "6 of 7 files sent" in result.output
    frames = read_all(kafka_settings, FRAMES)
    assert len(frames) == 6
    assert {dict(frame.headers)["replayed"] for frame in frames} == {b"spring"}
    with (tmp_path / "sent.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert sorted(row["status"] for row in rows) == ["same-exposure"] + ["sent"] * 6
    lie = {(int(row["partition"]), int(row["offset"])) for row in rows if row["status"] == "sent"}
    assert lie == {(frame.partition, frame.offset) for frame in frames}
    status, said = finish(start_worker(kafka_settings, "--fits", "--count", "6"))
    assert status == 0, said
    examined = read_avro(kafka_settings, EXAMINED)
    assert sorted((record["exposure"] or "", record["extension"]) for record in examined) == [
        ("", 0),
        *[(str(n), 0) for n in (1, 2, 3)],
        *[("4", n) for n in (1, 2, 3)],
    ]
    (rejected,) = read_all(kafka_settings, REJECTED)
    assert rejected.value == (archive / "broken.fits").read_bytes()


@pytest.mark.kafka
def test_the_same_command_sends_only_what_is_new_and_restart_all(kafka_settings, tmp_path):
    folder = tmp_path / "night"
    words = ["replay", str(folder), *where(kafka_settings, tmp_path)]
    for number in range(3):
        image(folder / f"{number}.fits", date=f"2024-05-06T0{number}:00:00", seed=number)
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    assert len(read_all(kafka_settings, FRAMES)) == 3
    assert "nothing new" in CliRunner().invoke(app, words).output
    result = CliRunner().invoke(app, [*words, "--restart"])
    assert result.exit_code == 0, result.output
    assert len(read_all(kafka_settings, FRAMES)) == 6
    assert "nothing new" in CliRunner().invoke(app, words).output


@pytest.mark.kafka
def test_a_replay_killed_twice_sends_each_frame_once_and_in_order(kafka_broker, tmp_path):
    settings = settings_for(kafka_broker, partitions=1)
    order, names, _, _ = killed_twice(settings, tmp_path, files=60)
    assert names == order
    with (tmp_path / "sent.csv").open() as table:
        assert len([row for row in csv.DictReader(table) if row["status"] == "sent"]) == 60
