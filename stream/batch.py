"""Files in, tables and pictures out, no broker: the loop under ``needlestream detect``.

One frame is in memory at a time, or the exposures of one field. A frame that cannot be read is refused by name and the
rest goes on; everything else (disk, GPU, a defect of ours) stops the run, and the ``.partial`` tables hold what was
done.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from detector.frame import BadFrame
from detector.pointing import EXPOSURES_TOGETHER
from stream.export import Format, Refused, file_stem, frame_list, streak_output
from stream.picture import draw_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from detector.frame import Frame
    from detector.pointing import Pointing
    from detector.streaks import Findings
    from stream.candidatetable import Class

    Point = Callable[[Path], Pointing | None]
    Read = Callable[[Path], Iterable[Frame | BadFrame]]
    Examine = Callable[[Frame], Findings]
    ExamineTogether = Callable[[Sequence[Frame]], Iterator[Findings]]

Shown = TypeVar("Shown")
# Fields that may still get another exposure.
FIELDS_OPEN = 64
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
        except BadFrame as bad:
            yield Refused(str(file), bad.extension, bad.reason, bad.detail)
        except (PermissionError, FileNotFoundError) as error:  # this file's own; a disk that fails is everybody's
            yield Refused(str(file), None, "unreadable", f"{file}: {error.strerror}")


def by_field(files: Sequence[Path], point: Point) -> list[list[Path]]:
    """The files in groups of exposures of one field, at most ``EXPOSURES_TOGETHER``; each in the order of ``files``.

    Two belong together whose first frames have the same shape and filter, that overlap on the sky (middles less than
    0.9 of a frame apart; of several fields the nearest), and that are different exposures of a night. What has no WCS
    or time, or cannot be read, stays alone.
    """
    groups: list[list[Path]] = []
    fields: list[tuple[list[Pointing], list[Path]]] = []
    for file in files:
        pointing = point(file)
        if pointing is None:
            groups.append([file])
            continue
        open_to_it = [
            (pointing.apart_deg(field[0]), number)
            for number, (field, group) in enumerate(fields[-FIELDS_OPEN:], max(0, len(fields) - FIELDS_OPEN))
            if len(group) < EXPOSURES_TOGETHER and all(pointing.shows_field_of(other) for other in field)
        ]
        if open_to_it:
            field, group = fields[min(open_to_it)[1]]
            field.append(pointing)
            group.append(file)
        else:
            groups.append([file])
            fields.append(([pointing], groups[-1]))
    return groups


def examine_exposures(
    fields: Iterable[Sequence[Path]],
    read: Read,
    examine: Examine,
    examine_together: ExamineTogether,
) -> Iterator[tuple[Frame, Findings] | Refused]:
    """What each science HDU of the exposures of each field showed: the first HDUs of its files, then the second ones.

    As many frames are in memory as a field has exposures.
    """
    for files in fields:
        if len(files) == 1:
            yield from examine_files(files, read, examine)
            continue
        readings = [_frames_of(file, read) for file in files]
        for layer in itertools.zip_longest(*readings):
            yield from (each for each in layer if isinstance(each, Refused))
            frames = [each for each in layer if each is not None and not isinstance(each, Refused)]
            yield from zip(frames, examine_together(frames), strict=True)


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
