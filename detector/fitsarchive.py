"""Files of an archive before their turn comes: what a file's first frame is, and one file cut into its frames.

Nothing is decoded here: bytes are copied as they are, so that a compressed CCD stays compressed and a checksum valid.
What fails at night is the file: ``BadFrame`` where even its outline cannot be read, ``OSError`` where the disk fails.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detector.companions import flags_for
from detector.fits import read_frames
from detector.fitsheader import BLOCK, CARD, Limits, Outline
from detector.frame import BadFrame, FrameLabel
from detector.frameheader import ccd_name, frame_header, inherited, survey_and_camera
from detector.headervalues import exposure_name, field_name
from detector.pointing import pointing_of
from detector.times import mid_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from detector.fits import Reading
    from detector.frame import FrameHeader
    from detector.pointing import Pointing

# What describes the primary's own data, which do not come along.
_OWN_DATA = re.compile(
    rb"(SIMPLE|BITPIX|NAXIS\d*|EXTEND|GROUPS|PCOUNT|GCOUNT|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|END) *$"
)
# A WCS in the primary of a file with several frames is that of none of them.
_WCS = re.compile(rb"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)\d *$|(CD|PC|PV)\d_\d+ *$")
_EMPTY_PRIMARY = tuple(
    f"{keyword:<8}= {value:>20}".encode()
    for keyword, value in (("SIMPLE", "T"), ("BITPIX", "8"), ("NAXIS", "0"), ("EXTEND", "T"))
)


def frame_labels(path: Path, *, limits: Limits) -> tuple[FrameLabel, ...]:
    """Each frame of a file by its header, without reading pixels or coordinates: enough for an archive's inventory.

    Raises ``BadFrame``, ``OSError``.
    """
    reading = read_frames(path, name=str(path), limits=limits)
    return tuple(_label(reading.outlines[extension], reading.outlines[0]) for extension in reading.extensions)


def _label(outline: Outline, primary: Outline) -> FrameLabel:
    cards = inherited(outline, primary)
    survey, camera = survey_and_camera(cards, None)
    return FrameLabel(
        outline.number,
        survey.name,
        _shape(outline),
        exposure_name(cards, survey),
        ccd_name(cards, survey),
        field_name(cards, survey),
        camera.filter_name,
        mid_time(cards, camera.exposure_s).mjd_tai,
    )


def _shape(outline: Outline) -> tuple[int, int]:
    return (outline.shape[-2], outline.shape[-1]) if len(outline.shape) >= 2 else (0, 0)


def first_header(path: Path, *, limits: Limits) -> FrameHeader:
    """The header of the first frame of a file, without reading pixels: enough to put files in order.

    Raises ``BadFrame``, ``OSError``.
    """
    reading = read_frames(path, name=str(path), limits=limits)
    return header_of(reading, reading.extensions[0])


def file_pointing(path: Path, *, limits: Limits) -> Pointing | None:
    """Where and when the first frame of a file looked; None where that is not known, or the file cannot be read."""
    try:
        return pointing_of(first_header(path, limits=limits))
    except (BadFrame, PermissionError, FileNotFoundError):
        return None


def header_of(reading: Reading, extension: int) -> FrameHeader:
    """The header of one frame of a file, without reading its pixels."""
    outline = reading.outlines[extension]
    cards = inherited(outline, reading.outlines[0])
    known = survey_and_camera(cards, reading.survey)
    return frame_header(reading.name, outline, cards, known, shape=_shape(outline), alone=len(reading) == 1, flags=())


def split_frames(
    path: Path, *, limits: Limits, extensions: Collection[int] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Each frame of a file as a FITS file of its own, with the number of its HDU in ``path``; or those asked for.

    A frame in an extension becomes HDU 1 behind a primary without data that has the old primary's keywords; its flag
    map comes along. Raises ``BadFrame``, ``OSError``.
    """
    reading = read_frames(path, name=str(path), limits=limits)
    for extension in reading.extensions:
        if extensions is not None and extension not in extensions:
            continue
        yield extension, _alone(reading, reading.outlines[extension])


def _alone(reading: Reading, outline: Outline) -> bytes:
    """One frame, its flag map, and the primary's keywords."""
    flags = flags_for(outline, reading.outlines)
    parts = [] if outline.number == 0 else [_primary(reading)]
    parts.append(_bytes_of(reading, outline))
    if flags is not None and flags.number != 0:
        parts.append(_bytes_of(reading, flags))
    return b"".join(parts)


def _bytes_of(reading: Reading, outline: Outline) -> bytes:
    """An HDU as it is, its last block filled up."""
    content = bytes(reading.source.read(outline.start, outline.end))
    return content + b"\0" * (-len(content) % BLOCK)


def _primary(reading: Reading) -> bytes:
    """A primary HDU without data, with the keywords of the file's own primary."""
    header = bytes(reading.source.read(0, reading.outlines[0].data_start))
    cards = [header[start : start + CARD] for start in range(0, len(header), CARD)]
    several = len(reading) > 1
    kept = [card for card in cards if not _OWN_DATA.match(card[:8]) and not (several and _WCS.match(card[:8]))]
    text = b"".join(card.ljust(CARD) for card in (*_EMPTY_PRIMARY, *kept, b"END"))
    return text + b" " * (-len(text) % BLOCK)
