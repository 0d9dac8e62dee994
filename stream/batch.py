"""Files in, tables and pictures out, no broker: the loop under ``needlestream detect``.

One frame is in memory at a time. A frame that cannot be read is refused by name and the rest goes on; everything else
(disk, GPU, a defect of ours) stops the run, and the ``.partial`` tables hold what was done.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from detector.frame import BadFrame
from stream.export import Format, Refused, file_stem, frame_list, streak_output
from stream.picture import draw_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from detector.frame import Frame
    from detector.streaks import Findings

    Read = Callable[[Path], Iterable[Frame | BadFrame]]
    Examine = Callable[[Frame], Findings]
    ExamineTogether = Callable[[Sequence[Frame]], Iterator[Findings]]

Shown = TypeVar("Shown")
EXPOSURES_TOGETHER = 8
FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".fits.gz", ".fit.gz", ".fts.gz")


@dataclass(frozen=True)
class Output:
    """Where a run writes, the streaks' format, and whether it draws each frame."""

    folder: Path
    kind: Format
    pictures: bool


def fits_files(paths: Sequence[Path]) -> list[Path]:
    """The files as given, and for each folder the FITS files below it in the order of their names; each file once.

    A file that was named is taken whatever its suffix: its content decides.
    """
    found: list[Path] = []
    for path in paths:
        below = (
            sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(FITS_SUFFIXES))
            if path.is_dir()
            else [path]
        )
        found += below
    return list(dict.fromkeys(found))


def examine_files(
    files: Sequence[Path],
    read: Read,
    examine: Callable[[Frame], Shown],
) -> Iterator[tuple[Frame, Shown] | Refused]:
    """What each science HDU of each file showed, in order, or why it was refused."""
    for file in files:
        try:
            for frame in read(file):
                yield _outcome(file, frame, examine)
        except BadFrame as bad:
            yield Refused(str(file), bad.extension, bad.reason, bad.detail)
        except (PermissionError, FileNotFoundError) as error:  # this file's own; a disk that fails is everybody's
            yield Refused(str(file), None, "unreadable", f"{file}: {error.strerror}")


def examine_exposures(
    files: Sequence[Path],
    read: Read,
    examine: ExamineTogether,
) -> Iterator[tuple[Frame, Findings] | Refused]:
    """What each science HDU of exposures of one field showed: the first HDUs of all files, then the second ones.

    At most ``EXPOSURES_TOGETHER`` files at a time; as many frames are in memory.
    """
    for first in range(0, len(files), EXPOSURES_TOGETHER):
        readings = [_frames_of(file, read) for file in files[first : first + EXPOSURES_TOGETHER]]
        for layer in itertools.zip_longest(*readings):
            yield from (each for each in layer if isinstance(each, Refused))
            frames = [each for each in layer if each is not None and not isinstance(each, Refused)]
            yield from zip(frames, examine(frames), strict=True)


def _frames_of(file: Path, read: Read) -> Iterator[Frame | Refused]:
    for outcome in examine_files([file], read, lambda frame: frame):
        yield outcome if isinstance(outcome, Refused) else outcome[0]


def _outcome(file: Path, frame: Frame | BadFrame, examine: Callable[[Frame], Shown]) -> tuple[Frame, Shown] | Refused:
    if isinstance(frame, BadFrame):
        return Refused(str(file), frame.extension, frame.reason, frame.detail)
    try:
        return frame, examine(frame)
    except BadFrame as bad:
        return Refused(str(file), frame.header.extension, bad.reason, bad.detail)


def run_batch(
    outcomes: Iterable[tuple[Frame, Findings] | Refused],
    output: Output,
    *,
    root: Path,
    announce: Callable[[Findings | Refused], None],
) -> list[Refused]:
    """Write all that ``output`` asks for of each frame, and give the frames that were refused.

    ``announce`` is told of each frame when it is written.
    """
    refused: list[Refused] = []
    with (
        streak_output(output.folder, output.kind, root) as add_streaks,
        frame_list(output.folder / "frames.csv") as add_frame,
    ):
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                refused.append(outcome)
                add_frame(outcome)
                announce(outcome)
                continue
            frame, findings = outcome
            add_streaks(findings)
            add_frame(findings)
            if output.pictures:
                draw_picture(output.folder / f"{file_stem(frame.header, root)}.png", frame, findings)
            announce(findings)
    return refused
