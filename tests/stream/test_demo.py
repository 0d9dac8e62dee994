"""What a new user runs first."""

import csv
import re

import pytest
from PIL import Image
from typer.testing import CliRunner

from stream.children import ChildError, child
from stream.cli import app
from tests.stream.test_run_command import untrained


@pytest.mark.embedded
def test_the_demo_shows_what_was_put_in_and_leaves_tables_and_pictures(tmp_path):
    out = tmp_path / "demo"
    weights = untrained(tmp_path / "untrained.safetensors")
    simulation = ["--size", "256x256", "--ccds", "1", "--dithers", "2"]
    words = ["demo", "--out", str(out), *simulation, "--weights", str(weights), "--threshold", "0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output

    assert re.search(r"files +2 +messages sent +2 +OK", result.output)
    assert re.search(r"frames in the files +2 +2 examined \+ 0 rejected +2 +OK", result.output)
    assert "MISMATCH" not in result.output
    assert "These are simulated frames" in result.output
    with (out / "frames.csv").open(newline="") as lines:
        listed = list(csv.DictReader(lines))
    with (out / "streaks.csv").open(newline="") as lines:
        streaks = list(csv.DictReader(lines))
    assert [row["exposure"] for row in listed] == ["S900000-1", "S900000-2"]
    assert sum(int(row["streaks"]) for row in listed) == len(streaks) > 10
    assert {row["frame"] for row in streaks} == {row["frame"] for row in listed}
    assert len(list((out / "pictures").glob("*.png"))) == 2
    # Of the candidates the screen tells how many are true, and a page shows them; both count what the table holds.
    with (out / "lenses.csv").open(newline="") as lines:
        lenses = list(csv.DictReader(lines))
    told = re.search(r"lenses: (\d+) put in; (\d+) candidates: (\d+) true, (\d+) false", result.output)
    put_in, candidates, true, false = map(int, told.groups())
    assert (candidates, true + false) == (len(lenses), len(lenses))
    assert put_in > 0
    assert Image.open(out / "candidates.png").width > 900
    for name in ("broker", "replay", "worker"):
        assert (out / "logs" / f"{name}.log").exists()

    # The way through the broker changes no digit.
    words += ["--classes", "asteroids,lenses,mergers"]
    detect = ["detect", str(out / "frames"), "--out", str(tmp_path / "files"), *words[-6:]]
    assert CliRunner().invoke(app, detect).exit_code == 0
    for name in ("streaks", "lenses", "mergers"):
        assert (tmp_path / "files" / f"{name}.csv").read_text() == (out / f"{name}.csv").read_text()

    # The same with files of one's own, of which one is no frame.
    (out / "frames" / "rubbish.fits").write_bytes(b"not FITS at all")
    own = ["demo", str(out / "frames"), "--out", str(tmp_path / "own"), *words[-6:-2]]
    result = CliRunner().invoke(app, own)
    assert result.exit_code == 0, result.output
    assert re.search(r"frames in the files +3 +2 examined \+ 1 rejected +3 +OK", result.output)
    assert re.search(r"rubbish.fits +not-fits", result.output)
    assert (tmp_path / "own" / "streaks.csv").read_text() == (out / "streaks.csv").read_text()


def test_a_child_that_fails_is_named_with_its_last_words_and_its_log(tmp_path):
    log = tmp_path / "replay.log"
    with child("replay", ["replay", str(tmp_path / "nowhere")], log) as replay:
        replay.process.wait(60)
        with pytest.raises(ChildError, match="the replay ended with status 2") as failure:
            replay.ended()
    assert "does not exist" in str(failure.value)
    assert str(log) in str(failure.value)


def test_children_end_with_the_block_that_started_them(tmp_path):
    with pytest.raises(KeyboardInterrupt), child("settings", ["settings"], tmp_path / "log") as running:
        raise KeyboardInterrupt
    assert running.process.poll() is not None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "file" / "demo")])
    assert result.exit_code == 1
    assert "file/demo" in result.output
    assert "--out" in result.output
