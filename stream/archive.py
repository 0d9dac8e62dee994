"""Replay: archived exposures -> frame messages, each once, in the order of their mid-times, at a chosen rate.

Files come one at a time from the inventory, pixels are read when their turn comes: memory holds one file. What was sent
is known by the run's manifest, so that a replay that was stopped goes on where it was.

How it fails at night: a file that cannot be read as FITS is sent all the same, in its place at the end, so that it is
rejected by name and counts in are counts out; one that is too large for a message, that is gone or that this user may
not read is refused here, by name, and the rest goes on. A copy is left out by name, with the file that was sent.
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
from stream.manifest import SentFrame
from stream.messages import FRAMES, OTHER_EXPOSURE, REPLAYED, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from detector.frame import FrameLabel
    from stream.inventory import ArchivedFile
    from stream.manifest import SentFrames

SECONDS_A_DAY = 86400.0
NAP_S = 0.2  # how soon a replay that waits for its time notices that it shall stop


class Split(Protocol):
    """HDU and bytes of the frames of a file that are asked for (``detector.fitsarchive.split_frames``)."""

    def __call__(self, path: Path, *, extensions: Collection[int]) -> Iterable[tuple[int, bytes]]:
        """Give them one after the other; raises ``BadFrame``."""


class FrameFeed(Protocol):
    """Where frames go, and what went there before: ``stream.manifest.Run``."""

    name: str
    sent: SentFrames

    def check(self, size_bytes: int, what: str) -> None:
        """Raise ``MessageTooLargeError`` for a frame that is too large to be sent, before it is read."""

    def send(self, frame: Output, entry: SentFrame) -> None:
        """Return when the frame is in its topic, and noted."""


@dataclass(frozen=True)
class Way:
    """How files are sent: whole, or each HDU alone; each frame once, or copies too; ``wait`` before each message.

    ``field`` gives a file and those of the other exposures of its field, which its messages then name.
    """

    split: Split
    each_hdu: bool
    keep_copies: bool
    wait: Callable[[], None]
    stopping: Callable[[], bool]
    field: Callable[[Path], Sequence[Path]] = lambda path: (path,)


@dataclass(frozen=True)
class Outcome:
    """What became of a file: how many ``messages`` it led to now, and else why not.

    ``reason`` is empty, ``sent-before``, ``same-content`` or ``same-exposure`` (a copy: left out), ``refused`` (not
    sent; ``detail`` is the sentence) or ``stopped`` (in the middle of it).
    """

    file: ArchivedFile
    messages: int
    reason: str = ""
    detail: str = ""


def run_name(paths: Sequence[Path]) -> str:
    """Give the name of a run that was given none: the same for the same paths."""
    identity = json.dumps(sorted(os.path.abspath(path) for path in paths))  # noqa: PTH100 - as the inventory does
    word = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in Path(paths[0]).resolve().name)
    return f"{word[:40]}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def state_folder() -> Path:
    """Give the folder where the inventory of archives lies unless another is named."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return folder / "needlestream"


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


def replay(files: Iterable[ArchivedFile], feed: FrameFeed, way: Way) -> Iterator[Outcome]:
    """Send what was not sent yet; gives what became of each file, when it has. Raises ``BrokerError``, ``OSError``."""
    for file in files:
        if way.stopping():
            return
        yield _replay_file(file, feed, way)


def paced(files: Iterable[ArchivedFile], speed: float | None, stopping: Callable[[], bool]) -> Iterator[ArchivedFile]:
    """Give each file when its time has come: ``speed`` times faster than the night was."""
    started: float | None = None
    first = 0.0
    for file in files:
        if speed is not None and file.mid_time_mjd_tai is not None:
            if started is None:
                started, first = time.monotonic(), file.mid_time_mjd_tai
            due = started + (file.mid_time_mjd_tai - first) * SECONDS_A_DAY / speed
            while (left_s := due - time.monotonic()) > 0 and not stopping():
                time.sleep(min(NAP_S, left_s))
        yield file


@dataclass(frozen=True)
class Due:
    """Which frames of a file are still to be sent; of a file without any the ``reason`` (as of ``Outcome``), if any."""

    frames: tuple[FrameLabel, ...]
    reason: str = ""
    detail: str = ""

    def whole(self, file: ArchivedFile, *, each_hdu: bool) -> bool:
        """Whether the file goes as it is: all of its frames are to be sent, and no HDU alone."""
        return not file.readable or (not each_hdu and len(self.frames) == len(file.frames))


def due(file: ArchivedFile, sent: SentFrames, *, keep_copies: bool) -> Due:
    """Give what is still to be sent of a file, as far as headers tell."""
    path = str(file.path)
    # A file that was sent whole has nothing more to give, whatever is wanted of it.
    new = [frame for frame in file.wanted if not sent.has(path, frame.extension)]
    if sent.has(path, None) or (file.readable and not new):
        return Due((), "sent-before")
    originals = {frame: None if keep_copies else sent.same_frame(frame) for frame in new}
    alone = tuple(frame for frame, original in originals.items() if original in {None, path})
    if new and not alone:
        return Due((), "same-exposure", f"its frames were sent from {_named(filter(None, originals.values()))}")
    return Due(alone)


def _replay_file(file: ArchivedFile, feed: FrameFeed, way: Way) -> Outcome:
    left = due(file, feed.sent, keep_copies=way.keep_copies)
    if left.reason:
        return Outcome(file, 0, left.reason, left.detail)
    messages = 0
    originals: list[str] = []
    try:
        for entry, output in _messages(file, left, feed, way):
            original = None if way.keep_copies else feed.sent.same_content(entry.sha256)
            if original is not None:
                originals.append(original)
                continue
            way.wait()
            if way.stopping():
                return Outcome(file, messages, "stopped")
            feed.send(output, entry)
            messages += 1
    except (MessageTooLargeError, BadFrame) as error:
        return Outcome(file, messages, "refused", str(error))
    except (PermissionError, FileNotFoundError) as error:
        return Outcome(file, messages, "refused", f"{file.shown}: {error.strerror}")
    if originals:
        return Outcome(file, messages, "same-content", f"its bytes were sent from {_named(originals)}")
    return Outcome(file, messages)


def _messages(file: ArchivedFile, left: Due, feed: FrameFeed, way: Way) -> Iterator[tuple[SentFrame, Output]]:
    """Give the messages of a file: itself, or each frame that is due as a file of its own."""
    field = way.field(file.path)
    others = tuple((OTHER_EXPOSURE, other.as_uri().encode()) for other in field if other != file.path)
    headers = (("name", file.shown.encode()), (REPLAYED, feed.name.encode()), *others)
    path = str(file.path)
    if left.whole(file, each_hdu=way.each_hdu):
        feed.check(file.size_bytes, file.shown)
        content = file.path.read_bytes()
        feed.check(len(content), file.shown)
        entry = SentFrame(path, None, len(content), hashlib.sha256(content).hexdigest(), left.frames)
        yield entry, Output(FRAMES, _key(file, field), content, headers)
        return
    by_extension = {frame.extension: frame for frame in left.frames}
    for extension, content in way.split(file.path, extensions=by_extension.keys()):
        feed.check(len(content), f"{file.shown} [{extension}]")
        first = field[0].name if others else by_extension[extension].exposure or file.path.name
        key = f"{first}/{extension}".encode()
        sha256 = hashlib.sha256(content).hexdigest()
        entry = SentFrame(path, extension, len(content), sha256, (by_extension[extension],))
        yield entry, Output(FRAMES, key, content, headers)


def _key(file: ArchivedFile, field: Sequence[Path]) -> bytes:
    """``exposure/ccd``: spreads an exposure over the workers; the file's name where nothing is known.

    What is examined together has one key, by its first file: a worker then has the other exposures in memory already.
    """
    first = file.frames[0] if file.frames else None
    known = (first.exposure, first.ccd) if first else ()
    if len(field) > 1:
        known = (field[0].name, first.ccd if first else None)
    return ("/".join(part for part in known if part) or file.path.name).encode()


def _named(files: Iterable[str]) -> str:
    first, *more = sorted(set(files))
    return first if not more else f"{first} and {len(more)} more"
