"""Files as exposures of their fields, no broker: each frame is examined beside the others that show its sky.

Which these are is settled as ``replay --together`` settles it, so that a night gives the same rows from files as
through the topics. The prepared frames in memory are bounded; a frame that fell out is read and prepared again when
another asks for it. What fails at night: a file that cannot be read is refused by name, and the frames that it would
have been shown to are flagged ``other-exposures-unread``.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detector.frame import BadFrame
from detector.pointing import EXPOSURES_TOGETHER, NIGHT_DAYS, exposures_together, pointing_of
from stream.batch import OF_THE_FILE, refusal
from stream.export import Refused
from stream.exposures import UNREAD, Exposure, PreparedFrames, exposure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from detector.fits import Reading
    from detector.frame import Frame
    from detector.pointing import Pointing
    from detector.preparation import Prepared
    from detector.streaks import Findings

# Fields that may still get another exposure.
FIELDS_OPEN = 64


@dataclass(frozen=True)
class Fieldwise:
    """What it takes: ``read`` opens a file, ``point`` tells where its first frame looked (None: alone).

    ``examine`` takes a frame that ``prepare`` made ready, and ``others``; ``max_bytes`` of these are kept.
    """

    read: Callable[[Path], Reading]
    point: Callable[[Path], Pointing | None]
    prepare: Callable[[Frame], Prepared]
    examine: Callable[..., Findings]
    max_bytes: int


class Looks:
    """Where the first frames of files looked, and which files therefore show one field."""

    def __init__(self, files: Sequence[Path], point: Callable[[Path], Pointing | None]) -> None:
        self.pointings = {file: point(file) for file in files}
        known = [(told.mid_time_mjd_tai, str(file), file) for file, told in self.pointings.items() if told is not None]
        self.in_time = sorted(known)
        self.times = [time for time, *_ in self.in_time]

    def field_of(self, file: Path) -> list[Path]:
        """Give a file and those that show its field, by ``exposures_together``; of copies the first by name."""
        own = self.pointings[file]
        if own is None:
            return [file]
        time = own.mid_time_mjd_tai
        first, last = bisect_left(self.times, time - NIGHT_DAYS), bisect_right(self.times, time + NIGHT_DAYS)
        near = sorted(self.in_time[first:last], key=lambda one: (abs(one[0] - time), one[1]))
        told = ((self.pointings[other], other) for *_, other in near)
        return exposures_together(
            own, file, ((it, other) for it, other in told if it is not None and abs(it.dec - own.dec) <= own.reach_deg)
        )

    def in_turns(self) -> list[list[Path]]:
        """The files in groups that all show one field, each in the order given: who is examined one after the other.

        What was prepared for one of a group is at hand for the next.
        """
        groups: list[list[Path]] = []
        fields: list[tuple[list[Pointing], list[Path]]] = []
        for file, pointing in self.pointings.items():
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


def examine_exposures(files: Sequence[Path], way: Fieldwise) -> Iterator[tuple[Frame, Findings] | Refused]:
    """What each science HDU of each file showed, or why it was refused: of a field the first HDUs, then the second."""
    looks = Looks(files, way.point)
    prepared = PreparedFrames(way.prepare, way.max_bytes)
    for group in looks.in_turns():
        opened = _Opened(way.read)
        for file in group:
            trouble = opened(file)
            if isinstance(trouble, Refused):
                yield trouble
        turns = [(file, exposure) for file in group if isinstance(exposure := opened(file), Exposure)]
        beside = {file: [other for other in looks.field_of(file) if other != file] for file, _ in turns}
        for layer in itertools.zip_longest(*(exposure.reading.extensions for _, exposure in turns)):
            for (file, exposure), extension in zip(turns, layer, strict=True):
                if extension is not None:
                    yield _examined(file, exposure, extension, [*map(opened, beside[file])], prepared, way)


class _Opened:
    """Files, each opened once; or why it cannot be."""

    def __init__(self, read: Callable[[Path], Reading]) -> None:
        self.read = read
        self.known: dict[Path, Exposure | Refused] = {}

    def __call__(self, file: Path) -> Exposure | Refused:
        if file not in self.known:
            try:
                self.known[file] = exposure_of(self.read(file), str(file))
            except OF_THE_FILE as error:
                self.known[file] = refusal(file, error)
        return self.known[file]


def _examined(
    file: Path,
    exposure: Exposure,
    extension: int,
    beside: Sequence[Exposure | Refused],
    prepared: PreparedFrames,
    way: Fieldwise,
) -> tuple[Frame, Findings] | Refused:
    try:
        frame = exposure.reading.frame(extension)
    except OF_THE_FILE as error:
        return refusal(file, error, extension)
    others, unread = _shown(frame, beside, prepared)
    try:
        found = way.examine(prepared.of(exposure, extension, frame), others=others)
    except BadFrame as bad:
        return refusal(file, bad, extension)
    return frame, replace(found, flags=(*found.flags, UNREAD)) if unread else found


def _shown(
    frame: Frame, beside: Sequence[Exposure | Refused], prepared: PreparedFrames
) -> tuple[tuple[Prepared, ...], bool]:
    """What shows the field of a frame, and whether some of it cannot be read: why is said when its turn comes."""
    field = pointing_of(frame.header)
    if field is None:
        return (), False
    shown: list[Prepared | None] = []
    unread = False
    for exposure in beside:
        if isinstance(exposure, Refused):
            unread = True
            continue
        try:
            shown.append(prepared.showing(field, exposure))
        except OF_THE_FILE:
            unread = True
    return tuple(one for one in shown if one is not None), unread
