"""Files in, tables and pictures out, no broker: the loop under ``needlestream detect``.

One frame is in memory at a time (exposures of a field: ``stream.fieldwise``). A frame that cannot be read is refused
by name and the rest goes on; everything else (disk, GPU, a defect of ours) stops the run, and the ``.partial`` tables
hold what was done.
"""

from __future__ import annotations

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
    from stream.candidatetable import Class

    Read = Callable[[Path], Iterable[Frame | BadFrame]]
    Examine = Callable[[Frame], Findings]

Shown = TypeVar("Shown")
# A file's own trouble; a disk that fails is everybody's.
OF_THE_FILE = (BadFrame, PermissionError, FileNotFoundError)
FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".fits.gz", ".fit.gz", ".fts.gz")


@dataclass(frozen=True)
class Output:
    """Where a run writes, the format, whether it draws each frame, and what has tables besides the streaks."""

    folder: Path
    kind: Format
    pictures: bool
    classes: tuple[Class, ...] = ()


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
        except OF_THE_FILE as error:
            yield refusal(file, error)


def _outcome(file: Path, frame: Frame | BadFrame, examine: Callable[[Frame], Shown]) -> tuple[Frame, Shown] | Refused:
    if isinstance(frame, BadFrame):
        return refusal(file, frame)
    try:
        return frame, examine(frame)
    except BadFrame as bad:
        return refusal(file, bad, frame.header.extension)


def refusal(file: Path, error: BadFrame | PermissionError | FileNotFoundError, extension: int | None = None) -> Refused:
    """What stands in the list of frames for a file, or one HDU of it, that cannot be read."""
    if isinstance(error, BadFrame):
        return Refused(str(file), error.extension if extension is None else extension, error.reason, error.detail)
    return Refused(str(file), extension, "unreadable", f"{file}: {error.strerror}")


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
        streak_output(output.folder, output.kind, root, output.classes) as add_streaks,
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
