"""One CCD of one exposure, as the rest of the house sees it.

A ``Frame`` is made by ``detector.fits`` (or by a simulator) and never changed afterwards: float32 electrons, a mask of
named bits, and a header of plain values. Whatever a header could not say is ``None`` there and named in ``flags``, so
that nobody downstream guesses twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detector.survey import Survey


class BadFrame(Exception):  # noqa: N818 - the name that the design gives it
    """A frame that can never be read: refuse it, never retry it.

    ``reason`` is a short constant word (``not-fits``, ``truncated``, ``too-large`` ...), for metrics and headers; the
    text says what, which, and what to look for. ``extension`` is the HDU number when one HDU of several is meant.
    """

    def __init__(self, reason: str, detail: str, *, extension: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.extension = extension


class MaskBit(IntFlag):
    """Why a pixel is not to be used; a pixel without any bit is good."""

    BAD = 1  # non-finite, dead, hot, bad column, flagged by the instrument
    SATURATED = 2
    COSMIC_RAY = 4  # only where the instrument's own mask says so
    BORDER = 8  # overscan, unlit corners


@dataclass(frozen=True)
class FrameHeader:
    """What is known of a frame besides its pixels.

    Times are MJD in TAI, angles degrees (ICRS), lengths pixels or arcsec as the names say. ``name`` is the path as
    given, or ``topic/partition/offset`` in the stream; ``extension`` the HDU number (0 = primary). ``zero_point`` is
    the AB magnitude of a source that gives 1 e-/s. ``wcs`` is an ``astropy.wcs.WCS`` with a celestial part, or None.
    ``flags`` are words from ``docs/frames.md``.
    """

    name: str
    extension: int
    shape: tuple[int, int]
    survey: Survey
    exposure: str | None = None
    ccd: str | None = None
    field: str | None = None
    mid_time_mjd_tai: float | None = None
    exposure_s: float | None = None
    filter_name: str | None = None
    gain_e_adu: float = 1.0
    read_noise_e: float | None = None
    saturation_e: float | None = None
    zero_point: float | None = None
    pixel_scale_arcsec: float | None = None
    wcs: Any = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrameLabel:
    """What a frame of an archive is, as far as its header says and without its pixels; fields as in ``FrameHeader``."""

    extension: int
    survey: str
    shape: tuple[int, int]
    exposure: str | None = None
    ccd: str | None = None
    field: str | None = None
    filter_name: str | None = None
    mid_time_mjd_tai: float | None = None

    @property
    def identity(self) -> str | None:
        """What two copies of one frame have in common, whatever their bytes; None where too little is known.

        Numbers of exposures begin anew in some archives, so the time (to the second) belongs to it.
        """
        if self.exposure is None or self.ccd is None or self.mid_time_mjd_tai is None:
            return None
        second = round(self.mid_time_mjd_tai * 86400.0)
        return f"{self.survey}/{self.exposure}/{self.ccd}/{second}/{self.shape[0]}x{self.shape[1]}"


@dataclass(frozen=True, eq=False)
class Frame:
    """Pixels in electrons, float32 ``[y, x]``, and their mask, uint8 of ``MaskBit``; both of ``header.shape``."""

    header: FrameHeader
    pixels: NDArray[np.float32]
    mask: NDArray[np.uint8]
