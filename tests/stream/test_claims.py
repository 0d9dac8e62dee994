"""What a claim may point to: files under the roots, and nothing else, also when somebody exchanges them meanwhile."""

import os
import sys
import threading
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from detector.frame import BadFrame
from stream.claims import Claims, RootError, check_roots
from stream.cli import app
from stream.settings import SettingsError, load_settings


@pytest.fixture
def home(tmp_path):
    """A root with a frame, and around it everything that a claim must not reach."""
    root = tmp_path / "root"
    (root / "night").mkdir(parents=True)
    for file in (root / "frame", root / "a b.fits", root / "night" / "frame", tmp_path / "rootevil"):
        file.write_bytes(b"SIMPLE")
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "way").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    (root / "inside").symlink_to(root / "night" / "frame")
    os.mkfifo(root / "pipe")
    return root


def reason_of(uri, *roots, **more):
    with pytest.raises(BadFrame) as refused:
        Claims(roots, **more).open(uri)
    return refused.value.reason


def test_a_claim_gives_the_file_under_its_root(home):
    for uri in (
        f"{home}/a b.fits",
        (home / "a b.fits").as_uri(),
        f"file://localhost{home}/a%20b.fits",
        f"{home}/inside",
    ):
        with Claims((home,)).open(uri) as file:
            assert file.read() == b"SIMPLE"


def test_a_root_may_itself_be_a_link(home, tmp_path):
    (tmp_path / "disk").symlink_to(home)
    with Claims((tmp_path / "disk",)).open(f"{tmp_path}/disk/frame") as file:
        assert file.read() == b"SIMPLE"


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "{root}/../secret",
        "file://{root}/%2e%2e/secret",
        "file://elsewhere{root}/frame",
        "http://localhost/frame",
        "s3://bucket/frame",
        "memory://night/frame",
        "simplecache::file://{root}/frame",
        "frame",
        "{root}/link",
        "{root}/way/secret",
        "{root}/loop",
        "{root}",
        "{root}/night",
        "{root}/pipe",
        "{root}evil",
        "file://{root}/frame%00",
        "/dev/zero",
        "/proc/self/environ",
        "{root}/" + "x" * 5000,
    ],
)
def test_a_claim_that_leaves_its_root_or_is_no_file_is_refused(home, uri):
    assert reason_of(uri.format(root=home), home) == "claim-refused"


def test_a_claim_of_a_file_that_is_not_there_says_so_and_without_roots_none_is_followed(home):
    assert reason_of(f"{home}/none", home) == "claim-missing"
    assert reason_of(f"{home}/frame/below", home) == "claim-missing"
    assert reason_of(f"{home}/frame") == "claim-refused"


def test_a_file_over_the_limit_is_refused_before_it_is_read(home):
    with (home / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert reason_of(f"{home}/sparse", home) == "too-large"
    assert reason_of(f"{home}/frame", home, max_bytes=5) == "too-large"
    with pytest.raises(BadFrame, match="max_claim_bytes"):
        Claims((home,), 5).open(f"{home}/frame")


def test_a_root_that_is_away_is_a_fault_of_the_machine_not_of_the_frame(tmp_path):
    with pytest.raises(FileNotFoundError, match="is it mounted"):
        Claims((tmp_path / "disk",)).open(f"{tmp_path}/disk/frame")


def test_a_file_that_becomes_a_link_between_look_and_reading_is_refused(home, monkeypatch):
    """The path was sound when it was resolved; what is opened is something else."""
    target = home / "night" / "frame"
    resolve = Path.resolve

    def and_exchange(path, *, strict=False):
        found = resolve(path, strict=strict)
        if found == target:
            target.unlink()
            target.symlink_to(home.parent / "secret")
        return found

    monkeypatch.setattr(Path, "resolve", and_exchange)
    assert reason_of(str(target), home) == "claim-refused"


def test_a_folder_that_becomes_a_link_between_look_and_reading_is_refused(home, monkeypatch):
    folder = home / "night"
    (home.parent / "evil").mkdir()
    (home.parent / "evil" / "frame").write_bytes(b"secret")
    resolve = Path.resolve

    def and_exchange(path, *, strict=False):
        found = resolve(path, strict=strict)
        if found == folder / "frame" and not folder.is_symlink():
            folder.rename(home / "before")
            folder.symlink_to(home.parent / "evil")
        return found

    monkeypatch.setattr(Path, "resolve", and_exchange)
    assert reason_of(f"{folder}/frame", home) in {"claim-refused", "claim-missing"}


def test_whoever_exchanges_files_all_the_time_never_gets_the_secret_read(home):
    """A link and a file change places some thousand times while claims of it are followed."""
    target, stop = home / "night" / "frame", threading.Event()

    def exchange():
        while not stop.is_set():
            for make in (lambda p: p.symlink_to(home.parent / "secret"), lambda p: p.write_bytes(b"SIMPLE")):
                other = home / "other"
                make(other)
                other.replace(target)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        read = set()
        for _ in range(2000):
            try:
                with Claims((home,)).open(str(target)) as file:
                    read.add(file.read())
            except BadFrame as refused:
                assert refused.reason in {"claim-refused", "claim-missing"}  # noqa: PT017 - one of many attempts
    finally:
        stop.set()
        thread.join()
    assert read <= {b"SIMPLE"}


# --- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket():
    system = fsspec.filesystem("memory")
    for path in ("/night/frame", "/night/deep/frame", "/nightevil/frame", "/other/secret"):
        system.pipe_file(path, b"SIMPLE")
    yield "memory://night"
    system.rm("/", recursive=True)


def test_a_claim_elsewhere_gives_the_file_under_its_root(bucket):
    for uri in ("memory://night/frame", "memory://night/deep/frame"):
        with Claims((bucket,)).open(uri) as file:
            assert file.read() == b"SIMPLE"
    with Claims(("memory://night/deep/",)).open("memory://night/deep/frame") as file:
        assert file.read() == b"SIMPLE"


@pytest.mark.parametrize(
    "uri",
    [
        "memory://other/secret",
        "memory://nightevil/frame",
        "memory://night/../other/secret",
        "memory://night/%2e%2e/other/secret",
        "memory://night//frame",
        "memory:///night/frame",
        "memory://night",
        "memory://night/",
        "memory://night/deep",
        "memory://night/fram?",
        "memory://night/*",
        "s3://night/frame",
        "file://night/frame",
        "simplecache::memory://night/frame",
        "memory://night/simplecache::memory://other/secret",
        "/night/frame",
        "MEMORY://night/frame",
    ],
)
def test_a_claim_elsewhere_that_leaves_its_root_is_refused(bucket, uri):
    assert reason_of(uri, bucket) == "claim-refused"


def test_limits_and_absence_hold_elsewhere_too(bucket):
    assert reason_of("memory://night/none", bucket) == "claim-missing"
    assert reason_of("memory://night/frame", bucket, max_bytes=5) == "too-large"


@given(st.text(max_size=60))
def test_no_text_is_a_claim_that_breaks_the_worker(text):
    for uri in (text, f"/{text}", f"file:///{text}", f"memory://night/{text}"):
        assert reason_of(uri, Path("/var/empty-root-of-nobody/..").resolve(), "memory://night") in {
            "claim-refused",
            "claim-missing",
        }


def test_a_root_whose_file_system_is_not_installed_is_named_before_the_first_claim(monkeypatch):
    check_roots([Path("/data"), "memory://night"])
    with pytest.raises(RootError, match=r"claim_roots: nosuch:// is no file system"):
        check_roots(["nosuch://bucket"])
    with pytest.raises(RootError, match=r"one more package: .*s3fs"):
        check_roots(["s3://bucket"])
    result = CliRunner().invoke(app, ["run", "--claim-roots", "s3://bucket/night"])
    assert result.exit_code == 2
    assert "s3fs" in result.output
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(RootError, match=r"needlestream\[claims\]"):
        check_roots(["memory://night"])


@pytest.mark.parametrize("root", ["data", "s3://", "memory:///"])
def test_a_root_that_is_everything_or_depends_on_where_one_stands_is_a_mistake(root):
    with pytest.raises(SettingsError, match="claim_roots"):
        load_settings(None, {"claim_roots": root})


def test_roots_are_folders_and_uris_separated_by_commas():
    given = load_settings(None, {"claim_roots": "/data, file:///more,s3://bucket/night"})
    assert given.claim_roots == (Path("/data"), Path("/more"), "s3://bucket/night")
