"""A disk that is full, a folder that may not be written, memory or GPU that fail: status 1 and one sentence.

The disk is made full for real: the operating system refuses to let a file of this process grow any more.
"""

import contextlib
import csv
import errno
import resource
from collections import Counter
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stream.cli import app
from stream.commands.options import broker_errors, machine_errors
from stream.machine import MachineError, machine_fault
from stream.messages import FRAMES
from tests.stream.archives import Ready, image, night
from tests.stream.test_ades import ROW, TOLD
from tests.stream.test_ades import table as tracks_table
from tests.stream.test_files import one_streak
from tests.stream.topics import read_all

NOWHERE = Path("/sys/nobody-may-write-here")


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@contextlib.contextmanager
def room(size_bytes):
    """Let no file of this process grow beyond so many bytes; what is captured of its output goes elsewhere."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def ends_with_a_sentence(done, *words):
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert all(str(word) in said for word in words), said


@pytest.fixture
def science(monkeypatch):
    """Gives what stands in for the examination, to be exchanged."""
    monkeypatch.setattr("models.predictor.load_streak_network", lambda *_: "network")
    monkeypatch.setattr("stream.commands.science.load_judge", lambda *_: None)
    monkeypatch.setattr("stream.commands.science.prepare", lambda frame, **_: Ready(frame.header))
    monkeypatch.setattr("detector.examine.examine_prepared", lambda ready, **_: one_streak(ready))
    return monkeypatch


@pytest.mark.usefixtures("science")
@pytest.mark.parametrize("kind", ["csv", "ecsv", "parquet", "ds9"])
def test_detect_on_a_full_disk_names_the_folder_and_leaves_no_whole_table(tmp_path, kind):
    image(tmp_path / "a.fits")
    with room(60):
        done = invoke("detect", tmp_path / "a.fits", "--out", tmp_path / "out", "--format", kind)
    ends_with_a_sentence(done, "the disk is full", tmp_path / "out", "make room and start again")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".partial"}
    done = invoke("detect", tmp_path / "a.fits", "--out", tmp_path / "out", "--format", kind)
    assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("science")
def test_a_picture_that_does_not_fit_is_a_full_disk_too(tmp_path):
    image(tmp_path / "a.fits", size=200)
    with room(2000):
        done = invoke("detect", tmp_path / "a.fits", "--out", tmp_path / "out", "--picture")
    ends_with_a_sentence(done, "the disk is full", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.usefixtures("science")
@pytest.mark.parametrize("command", ["detect", "link", "evaluate", "simulate", "train", "export"])
def test_an_output_folder_that_may_not_be_written_is_named(tmp_path, command):
    frame = image(tmp_path / "a.fits")
    table, tracks = tmp_path / "streaks.csv", tracks_table(tmp_path, ROW)
    assert invoke("detect", frame, "--out", tmp_path).exit_code == 0
    words = {
        "detect": ("detect", frame, "--out", NOWHERE),
        "link": ("link", table, "--out", NOWHERE),
        "evaluate": ("evaluate", "streaks", "--detections", table, "--truth", table, "--out", NOWHERE),
        "simulate": ("simulate", "--size", "64x64", "--dithers", 1, "--out", NOWHERE),
        "train": ("train", "linker", "--scenes", 1, "--out", NOWHERE),
        "export": ("export", "ades", tracks, "--stn", "268", *TOLD, "--out", NOWHERE / "ades.psv"),
    }
    ends_with_a_sentence(invoke(*words[command]), "no permission", NOWHERE)


@pytest.mark.usefixtures("science")
def test_a_file_in_place_of_the_output_folder_is_named(tmp_path):
    frame = image(tmp_path / "a.fits")
    (tmp_path / "file").write_text("")
    ends_with_a_sentence(
        invoke("detect", frame, "--out", tmp_path / "file" / "out"), "a file stands where a folder should"
    )


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError("Unable to allocate 1.00 TiB"), "out of memory. Give it more, or lower max_pixels"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "the GPU failed: look at nvidia-smi"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), "the GPU is out of memory"),
        (OSError(errno.EIO, "Input/output error", "/data/a.fits"), "a file or disk failed /data/a.fits"),
    ],
)
def test_memory_gpu_and_disk_that_fail_under_detect_are_told_apart(tmp_path, science, error, advice):
    def fail(*_, **__):
        raise error

    science.setattr("detector.examine.examine_prepared", fail)
    ends_with_a_sentence(invoke("detect", image(tmp_path / "a.fits"), "--out", tmp_path / "out"), advice)


def test_a_defect_of_ours_keeps_its_traceback(tmp_path, science):
    def fail(*_, **__):
        raise RuntimeError("dictionary changed size during iteration")

    science.setattr("detector.examine.examine_prepared", fail)
    done = invoke("detect", image(tmp_path / "a.fits"), "--out", tmp_path / "out")
    assert isinstance(done.exception, RuntimeError)
    assert "changed size" in str(done.exception)


def test_who_reads_our_output_may_stop_to():
    with pytest.raises(BrokenPipeError), machine_errors():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    with pytest.raises(typer.Exit), machine_errors():
        raise typer.Exit(3)


def test_a_worker_that_the_machine_let_down_leaves_with_status_1(capsys):
    with pytest.raises(typer.Exit) as end, broker_errors():
        raise MachineError("frames/0/1: the GPU failed")
    assert end.value.exit_code == 1
    assert capsys.readouterr().err == "error: frames/0/1: the GPU failed\n"


def test_a_port_that_another_program_has_is_no_disk():
    fault = machine_fault(OSError(errno.EADDRINUSE, "Address already in use"))
    assert "another program" in fault.advice
    assert not fault.by_frame


def test_an_inventory_on_a_full_disk_names_its_folder(tmp_path):
    archive = night(tmp_path / "night")
    with room(100):
        done = invoke("replay", archive, "--dry-run", "--state", tmp_path / "state")
    ends_with_a_sentence(done, "inventory", tmp_path / "state", "--state names another folder")


@pytest.mark.kafka
def test_a_manifest_that_does_not_fit_is_written_by_the_same_command_later_and_nothing_goes_twice(
    tmp_path, kafka_settings
):
    archive, table = night(tmp_path / "night"), tmp_path / "sent.csv"
    told = ("--bootstrap-servers", kafka_settings.bootstrap_servers, "--topic-prefix", kafka_settings.topic_prefix)
    words = ("replay", archive, *told, "--state", tmp_path / "state", "--manifest")
    ends_with_a_sentence(invoke(*words, NOWHERE / "sent.csv"), "no permission", NOWHERE)
    full = table.with_name("sent.csv.partial")
    full.symlink_to("/dev/full")
    ends_with_a_sentence(invoke(*words, table), "the disk is full", tmp_path, "make room and start again")
    assert not table.exists()
    full.unlink()
    assert "0 of 5 files sent" in invoke(*words, table).output
    rows = list(csv.DictReader(table.open()))
    assert Counter(row["status"] for row in rows)["sent"] == len(read_all(kafka_settings, FRAMES)) == 5
