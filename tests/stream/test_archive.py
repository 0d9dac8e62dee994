"""Replay: in the order of the night, at a chosen rate, on from where it stopped."""

import time
from functools import partial

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from detector.fitsarchive import first_header, split_frames
from detector.fitsheader import Limits
from stream.archive import SentFrames, default_state_file, in_time_order, parse_rate, replay
from stream.broker import MessageTooLargeError
from stream.cli import app
from stream.messages import EXAMINED, FRAMES, REJECTED
from tests.stream.topics import finish, read_all, read_avro, start_worker

PEEK = partial(first_header, limits=Limits())


class Tape:
    """A feed that remembers; stops the replay after so many frames."""

    def __init__(self, until=None, limit=10**9):
        self.frames, self.until, self.limit = [], until, limit

    def check(self, size_bytes, what):
        if size_bytes > self.limit:
            raise MessageTooLargeError(f"{what} has {size_bytes:,} bytes")

    def send(self, frame):
        if len(self.frames) == self.until:
            raise KeyboardInterrupt
        self.check(len(frame.value), "it")
        self.frames.append(frame)

    @property
    def names(self):
        return [dict(frame.headers)["name"].decode().rpartition("/")[2] for frame in self.frames]


def image(path, *, date=None, exposure=None, size=24, n_hdus=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    hdus = [fits.PrimaryHDU(None if n_hdus else rng.normal(100, 5, (size, size)).astype(np.float32))]
    hdus += [fits.ImageHDU(rng.normal(100, 5, (size, size)).astype(np.float32), name=f"CCD{n}") for n in range(n_hdus)]
    if date:
        hdus[0].header["DATE-OBS"], hdus[0].header["EXPTIME"] = date, 10.0
    if exposure:
        hdus[0].header["EXPNUM"] = exposure
    fits.HDUList(hdus).writeto(path)
    return path


def night(folder):
    """Files whose names are not in the order of their times; one without a time, one that is no FITS."""
    image(folder / "b.fits", date="2024-05-06T01:00:00", exposure=1)
    image(folder / "deep" / "a.fits", date="2024-05-06T03:00:00", exposure=3)
    image(folder / "c.fits", date="2024-05-06T02:00:00", exposure=2)
    image(folder / "timeless.fits")
    (folder / "broken.fits").write_bytes(b"SIMPLE  = hm")
    return sorted(folder.rglob("*.fits"))


def run(files, feed, sent, *, speed=None, split=None):
    return replay(in_time_order(files, PEEK), feed, sent, speed=speed, split=split, progress=lambda _: None)


def test_frames_are_sent_in_the_order_of_their_times_and_then_the_others(tmp_path):
    tape = Tape()
    assert run(night(tmp_path), tape, SentFrames(tmp_path / "state")) == []
    assert tape.names == ["b.fits", "c.fits", "a.fits", "broken.fits", "timeless.fits"]
    assert [frame.key for frame in tape.frames[:4]] == [b"1", b"2", b"3", b"broken.fits"]
    assert tape.frames[0].value == (tmp_path / "b.fits").read_bytes()


def test_a_replay_goes_on_where_it_stopped(tmp_path):
    files, state = night(tmp_path), tmp_path / "notes" / "state"
    names = []
    for until in (2, 1, None):
        tape = Tape(until)
        try:
            run(files, tape, SentFrames(state))
        except KeyboardInterrupt:
            assert until
        names += tape.names
    assert names == ["b.fits", "c.fits", "a.fits", "broken.fits", "timeless.fits"]
    again = Tape()
    run(files, again, SentFrames(state))
    assert again.names == []


def test_split_sends_each_frame_of_a_file_and_goes_on_within_it(tmp_path):
    file = image(tmp_path / "mosaic.fits", date="2024-05-06T01:00:00", exposure=9, n_hdus=4)
    split = partial(split_frames, limits=Limits())
    first, second = Tape(until=3), Tape()
    with pytest.raises(KeyboardInterrupt):
        run([file], first, SentFrames(tmp_path / "state"), split=split)
    run([file], second, SentFrames(tmp_path / "state"), split=split)
    assert [frame.key for frame in first.frames + second.frames] == [b"9/1", b"9/2", b"9/3", b"9/4"]


def test_a_file_over_the_limit_is_refused_with_its_size_and_the_rest_goes_on(tmp_path):
    files = [image(tmp_path / "large.fits", size=300), image(tmp_path / "small.fits")]
    tape = Tape(limit=100_000)
    (refused,) = run(files, tape, SentFrames(tmp_path / "state"))
    assert "large.fits has 362,880 bytes" in refused
    assert tape.names == ["small.fits"]


def test_the_rate_is_that_of_the_night_or_faster(tmp_path):
    files = night(tmp_path)
    started = time.monotonic()
    run(files, Tape(), SentFrames(tmp_path / "state"), speed=7200 / 0.4)
    assert 0.4 <= time.monotonic() - started < 3


def test_rates_are_read_as_people_write_them():
    assert [parse_rate(text) for text in ("max", "real-time", "10x", "0.5")] == [None, 1.0, 10.0, 0.5]
    for text in ("fast", "0x", "-1", "nan", "inf"):
        with pytest.raises(ValueError):  # noqa: PT011 - its text is not shown
            parse_rate(text)


def test_each_replay_has_a_state_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    a = default_state_file([tmp_path], "frames", "kafka:9092", split=False)
    others = [
        default_state_file([tmp_path / "b"], "frames", "kafka:9092", split=False),
        default_state_file([tmp_path], "night.frames", "kafka:9092", split=False),
        default_state_file([tmp_path], "frames", "kafka:9093", split=False),
        default_state_file([tmp_path], "frames", "kafka:9092", split=True),
    ]
    assert len({a, *others}) == 5
    assert a.is_relative_to(tmp_path)


@pytest.mark.kafka
def test_replayed_files_come_out_examined_or_rejected(kafka_settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    night(tmp_path / "night")
    image(tmp_path / "night" / "mosaic.fits", date="2024-05-06T04:00:00", exposure=4, n_hdus=3)
    where = ["--bootstrap-servers", kafka_settings.bootstrap_servers, "--topic-prefix", kafka_settings.topic_prefix]
    result = CliRunner().invoke(app, ["replay", str(tmp_path / "night"), *where, "--partitions", "2"])
    assert result.exit_code == 0, result.output
    assert "6 of 6 files sent" in result.output
    assert len(read_all(kafka_settings, FRAMES)) == 6
    status, said = finish(start_worker(kafka_settings, "--fits", "--count", "6"))
    assert status == 0, said
    examined = read_avro(kafka_settings, EXAMINED)
    assert sorted((record["exposure"] or "", record["extension"]) for record in examined) == [
        ("", 0),
        *[(str(n), 0) for n in (1, 2, 3)],
        *[("4", n) for n in (1, 2, 3)],
    ]
    (rejected,) = read_all(kafka_settings, REJECTED)
    assert rejected.value == (tmp_path / "night" / "broken.fits").read_bytes()
    assert not list((tmp_path / "state").rglob("replay-*"))


@pytest.mark.kafka
def test_with_a_state_file_only_what_is_new_is_sent(kafka_settings, tmp_path):
    folder, state = tmp_path / "night", tmp_path / "sent.txt"
    where = ["--bootstrap-servers", kafka_settings.bootstrap_servers, "--topic-prefix", kafka_settings.topic_prefix]
    for number in range(3):
        image(folder / f"{number}.fits", date=f"2024-05-06T0{number}:00:00")
        result = CliRunner().invoke(app, ["replay", str(folder), *where, "--state", str(state)])
        assert result.exit_code == 0, result.output
    assert len(read_all(kafka_settings, FRAMES)) == 3
    result = CliRunner().invoke(app, ["replay", str(folder), *where, "--state", str(state), "--restart"])
    assert result.exit_code == 0, result.output
    assert len(read_all(kafka_settings, FRAMES)) == 6
