"""Replay: archived exposures -> frame messages, in the order of their mid-times, at a chosen rate.

Headers are read first, pixels only when their turn comes: memory holds one file. What was acknowledged is written to a
state file, one line each, so that a replay that was stopped goes on where it was.

How it fails at night: killed between an acknowledgement and its line, it sends that one frame again (alert ids are the
same). A file that cannot be read is sent all the same, in its place at the end, so that it is rejected by name and
counts in are counts out; one that is too large for a message is refused here, with its size.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from detector.frame import BadFrame
from stream.broker import MessageTooLargeError
from stream.messages import FRAMES, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from detector.frame import FrameHeader

    Peek = Callable[[Path], FrameHeader]  # the header of a file's first frame; raises BadFrame
    Split = Callable[[Path], Iterable[tuple[int, bytes]]]  # HDU and bytes of each frame of a file; raises BadFrame

SECONDS_A_DAY = 86400.0


class FrameFeed(Protocol):
    """Where frames go: ``stream.broker.Feed``."""

    def check(self, size_bytes: int, what: str) -> None:
        """Raise ``MessageTooLargeError`` for a frame that is too large to be sent, before it is read."""

    def send(self, frame: Output) -> None:
        """Return when the frame is in its topic."""


@dataclass(frozen=True)
class ArchivedFile:
    """A file of the archive with what its first frame's header says, if it is ``readable`` at all."""

    path: Path
    size_bytes: int
    readable: bool
    mid_time_mjd_tai: float | None = None
    exposure: str | None = None
    ccd: str | None = None

    @property
    def key(self) -> bytes:
        """``exposure/ccd``: spreads an exposure over the workers; the file's name where nothing is known."""
        return ("/".join(part for part in (self.exposure, self.ccd) if part) or self.path.name).encode()


class SentFrames:
    """What was acknowledged: a file of lines, each the JSON text of ``[path, extension]``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sent = set(file.read_text(encoding="utf-8").splitlines()) if file.exists() else set()

    def __len__(self) -> int:
        """Count the frames that need not be sent again."""
        return len(self._sent)

    def has(self, path: Path, extension: int | None) -> bool:
        """Say whether this one was acknowledged before."""
        return self._line(path, extension) in self._sent

    def add(self, path: Path, extension: int | None) -> None:
        """Note it, on disk before this returns."""
        line = self._line(path, extension)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")
        self._sent.add(line)

    @staticmethod
    def _line(path: Path, extension: int | None) -> str:
        return json.dumps([str(path.resolve()), extension])


def default_state_file(paths: Sequence[Path], topic: str, bootstrap_servers: str, *, split: bool) -> Path:
    """Give the state file of this very replay: same paths, same topic, same brokers."""
    identity = json.dumps([sorted(str(path.resolve()) for path in paths), topic, bootstrap_servers, split])
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return folder / "needlestream" / f"replay-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.txt"


def parse_rate(text: str) -> float | None:
    """Give the speed-up of a rate such as ``10x`` or ``real-time`` (1); None is ``max``. Raises ``ValueError``."""
    if text == "max":
        return None
    if text == "real-time":
        return 1.0
    speed = float(text.removesuffix("x"))
    if not 0 < speed < float("inf"):
        raise ValueError(text)
    return speed


def in_time_order(files: Iterable[Path], peek: Peek) -> list[ArchivedFile]:
    """Give the files by mid-time, then by name; those without a time come last. Raises ``OSError``."""
    found = [_look_at(path, peek) for path in files]
    return sorted(found, key=lambda file: (file.mid_time_mjd_tai is None, file.mid_time_mjd_tai, str(file.path)))


def replay(
    files: Sequence[ArchivedFile],
    feed: FrameFeed,
    sent: SentFrames,
    *,
    speed: float | None,
    split: Split | None,
    progress: Callable[[ArchivedFile], None],
) -> list[str]:
    """Send what was not sent yet; gives why each refused file was refused.

    ``split`` cuts a file into its science HDUs; None sends files as they are. Raises ``BrokerError``, ``OSError``.
    """
    refused: list[str] = []
    done = [file for file in files if sent.has(file.path, None)]
    for file in done:
        progress(file)
    for file in _paced([file for file in files if file not in done], speed):
        try:
            if split is None or not file.readable:
                feed.check(file.size_bytes, str(file.path))
            for extension, frame in _messages(file, split, sent):
                feed.send(frame)
                sent.add(file.path, extension)
        except MessageTooLargeError as error:
            refused.append(str(error))
        except BadFrame as bad:
            refused.append(f"{file.path}: {bad.detail}")
        progress(file)
    return refused


def _look_at(path: Path, peek: Peek) -> ArchivedFile:
    size_bytes = path.stat().st_size
    try:
        header = peek(path)
    except BadFrame:
        # It is sent all the same, and rejected by name, where everybody looks for what was rejected.
        return ArchivedFile(path, size_bytes, readable=False)
    return ArchivedFile(path, size_bytes, True, header.mid_time_mjd_tai, header.exposure, header.ccd)


def _messages(file: ArchivedFile, split: Split | None, sent: SentFrames) -> Iterator[tuple[int | None, Output]]:
    name = (("name", str(file.path).encode()),)
    if split is None or not file.readable:
        if not sent.has(file.path, None):
            yield None, Output(FRAMES, file.key, file.path.read_bytes(), name)
        return
    for extension, content in split(file.path):
        if not sent.has(file.path, extension):
            key = f"{file.exposure or file.path.name}/{extension}".encode()
            yield extension, Output(FRAMES, key, content, name)


def _paced(files: Sequence[ArchivedFile], speed: float | None) -> Iterator[ArchivedFile]:
    """Give each file when its time has come: ``speed`` times faster than the night was."""
    started = time.monotonic()
    first = next((file.mid_time_mjd_tai for file in files if file.mid_time_mjd_tai is not None), None)
    for file in files:
        if speed is not None and first is not None and file.mid_time_mjd_tai is not None:
            due = started + (file.mid_time_mjd_tai - first) * SECONDS_A_DAY / speed
            time.sleep(max(0.0, due - time.monotonic()))
        yield file
