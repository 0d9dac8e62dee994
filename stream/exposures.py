"""Exposures of one field, each a file: where its frames looked, and those of them that were prepared last.

Shared by the worker, whose messages name other exposures, and by ``detect``, which finds them among its files. What
fails at night: a frame that cannot be read is left out and named; errors of the machine stop who asked.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.fitsarchive import header_of
from detector.pointing import pointing_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from detector.fits import Reading
    from detector.frame import Frame
    from detector.pointing import Pointing
    from detector.preparation import Prepared

# The flag of a frame that was examined without an exposure which it should have been shown.
UNREAD = "other-exposures-unread"


@dataclass(frozen=True, eq=False)
class Exposure:
    """A file that was opened: its frames, and which of them look where; ``version`` of its content."""

    version: str
    reading: Reading
    pointings: tuple[tuple[int, Pointing], ...]

    def showing(self, field: Pointing) -> int | None:
        """Which of its frames shows a field in another exposure; the nearest of several."""
        near = [
            (pointing.apart_deg(field), extension)
            for extension, pointing in self.pointings
            if pointing.shows_field_of(field)
        ]
        return min(near)[1] if near else None


def exposure_of(reading: Reading, version: str) -> Exposure:
    """Give a file with where its frames looked, from their headers."""
    readable = [number for number in reading.extensions if reading.outlines[number].trouble is None]
    pointings = [(number, pointing_of(header_of(reading, number))) for number in readable]
    return Exposure(version, reading, tuple((number, known) for number, known in pointings if known is not None))


class PreparedFrames:
    """Frames that ``prepare`` made ready; those looked at last are kept, in ``max_bytes`` at most."""

    def __init__(self, prepare: Callable[[Frame], Prepared], max_bytes: int) -> None:
        self.prepare = prepare
        self.max_bytes = max_bytes
        self.kept: OrderedDict[tuple[str, int], Prepared] = OrderedDict()

    def of(self, exposure: Exposure, extension: int, frame: Frame | None = None) -> Prepared:
        """Give one frame of an exposure, which is read unless it is given as ``frame``. Raises ``BadFrame``."""
        key = exposure.version, extension
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        ready = self.prepare(exposure.reading.frame(extension) if frame is None else frame)
        self.kept[key] = ready
        held = sum(one.size_bytes for one in self.kept.values())
        while held > self.max_bytes:
            held -= self.kept.popitem(last=False)[1].size_bytes
        return ready

    def showing(self, field: Pointing, exposure: Exposure) -> Prepared | None:
        """Give the frame of an exposure that shows a field, None where there is none. Raises ``BadFrame``."""
        extension = exposure.showing(field)
        return None if extension is None else self.of(exposure, extension)
