"""Cut-outs of a frame as small FITS files: what an alert carries so that its reader sees the pixels.

Written card by card, gzipped, the same bytes each time: electrons as they are in the frame, bad pixels NaN, the frame's
own sky (shifted to the cut-out) and the frame's identity in the header. How it fails at night: it does not by itself. A
sky that astropy cannot write is left out, words that are no ASCII lose those letters.
"""

from __future__ import annotations

import gzip
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.frame import MaskBit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.frame import Frame, FrameHeader

BLOCK_BYTES, CARD_CHARACTERS = 2880, 80
LONGEST_TEXT = 60
# What of the surroundings is shown at least, to each side of an object.
MARGIN_PX = 16


@dataclass(frozen=True)
class Box:
    """A piece of a frame: columns ``x0`` to ``x1`` and rows ``y0`` to ``y1``, the last ones not included."""

    x0: int
    y0: int
    x1: int
    y1: int


def box_around(ends: NDArray[np.float64], shape: tuple[int, int], largest_px: int) -> Box | None:
    """Give the square about two ends ``[4]`` x0, y0, x1, y1 (equal ones: a point) with a margin, cut off at the border.

    Its side is at most ``largest_px``; of something longer it is the middle. None where nothing of it is in the frame.
    """
    if not np.isfinite(ends).all():
        return None
    extent = max(abs(ends[2] - ends[0]), abs(ends[3] - ends[1]))
    side = int(min(largest_px, math.ceil(min(extent, largest_px)) + 2 * MARGIN_PX))
    middle = np.clip(0.5 * (ends[:2] + ends[2:]), -1e9, 1e9)
    x0, y0 = (round(float(place)) - side // 2 for place in middle)
    box = Box(max(0, x0), max(0, y0), min(shape[1], x0 + side), min(shape[0], y0 + side))
    return box if box.x0 < box.x1 and box.y0 < box.y1 else None


def fits_cutout(frame: Frame, box: Box) -> bytes:
    """Give a piece of a frame as a gzipped FITS image of 32-bit floats, in electrons."""
    pixels = np.array(frame.pixels[box.y0 : box.y1, box.x0 : box.x1], dtype=">f4")
    pixels[frame.mask[box.y0 : box.y1, box.x0 : box.x1] & MaskBit.BAD != 0] = np.nan
    cards = {
        "SIMPLE": True,
        "BITPIX": -32,
        "NAXIS": 2,
        "NAXIS1": box.x1 - box.x0,
        "NAXIS2": box.y1 - box.y0,
        "BUNIT": "electron",
        **_sky(frame.header, box),
        **_identity(frame.header),
        "X0FRAME": box.x0,
        "Y0FRAME": box.y0,
    }
    head = "".join(_card(name, value) for name, value in cards.items() if value is not None) + f"{'END':<80}"
    return gzip.compress(_padded(head.encode("ascii"), b" ") + _padded(pixels.tobytes(), b"\x00"), mtime=0)


# What a card says beside its value.
_COMMENTS = {
    "X0FRAME": "column of the first pixel in the frame, from 0",
    "Y0FRAME": "row of the first pixel in the frame, from 0",
    "FRAME": "topic/partition/offset or file",
    "HDU": "number of the frame's HDU; 0 is the primary",
    "MJD-AVG": "[d] middle of the exposure",
    "EXPTIME": "[s]",
    "MAGZERO": "[mag] AB magnitude of one electron a second",
}


def _identity(header: FrameHeader) -> dict[str, Any]:
    """What the frame is, as far as it says."""
    return {
        "FRAME": header.name,
        "HDU": header.extension,
        "EXPOSURE": header.exposure,
        "CCD": header.ccd,
        "FIELD": header.field,
        "SURVEY": header.survey.name,
        "FILTER": header.filter_name,
        "TIMESYS": "TAI",
        "MJD-AVG": header.mid_time_mjd_tai,
        "EXPTIME": header.exposure_s,
        "MAGZERO": header.zero_point,
    }


def _sky(header: FrameHeader, box: Box) -> dict[str, Any]:
    """The cards of the frame's WCS, its reference pixel moved to where it is in the piece."""
    if header.wcs is None:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of keywords that are not standard (SIP): they are meant
            cards = header.wcs[box.y0 : box.y1, box.x0 : box.x1].to_header(relax=True)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
        return {}
    return {str(name): value for name, value in cards.items() if name not in {"COMMENT", "HISTORY", "", "MJDREF"}}


def _card(name: str, value: Any) -> str:
    """One line of a header, in fixed format."""
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        plain = "".join(letter for letter in value if " " <= letter <= "~")[:LONGEST_TEXT].replace("'", "''")
        text = f"'{plain[:66]:<8}'"
    elif isinstance(value, int | np.integer):
        text = f"{int(value):>20}"
    elif math.isfinite(value):
        text = f"{float(value)!r:>20}".upper()
    else:
        return ""
    comment = f" / {_COMMENTS[name]}" if name in _COMMENTS else ""
    return f"{f'{name:<8}= {text}{comment}':<{CARD_CHARACTERS}}"[:CARD_CHARACTERS]


def _padded(block: bytes, filling: bytes) -> bytes:
    return block + filling * (-len(block) % BLOCK_BYTES)
