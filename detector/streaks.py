"""The table of streaks: one row an object seen in one frame, best first.

Inside the house it is one structured array (``STREAK``); NaN is "not known". Names, units and order follow the
published contract (``docs/streaks.md``); what is constant over a frame (name, extension, exposure, CCD) is in the
frame's header and joined at the rim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING

import numpy as np

from detector.classtable import empty_candidates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from detector.frame import FrameHeader

MAX_STREAKS_PER_FRAME = 20_000


class StreakFlag(IntFlag):
    """What a reader of a row has to know; written as lower-case words separated by spaces, ``_`` as ``-``."""

    EDGE = 1  # an end lies within 10 px of the border: the streak may go on outside
    CROSSES = 2  # both ends lie at the border: a trail that crosses the frame
    JOINED = 4  # put together from several windows: longer than one window
    MASKED = 8  # more than a quarter of the fitted pixels are masked
    NO_FIT = 16  # the fit did not converge: ends are the network's, errors are null
    SHORT = 32  # not longer than the PSF: the direction says nothing
    PSF_FROM_PROFILE = 64  # too few stars: the PSF is the profile's
    STATIC = 128  # another exposure of the field shows something at the same place on the sky
    SPIKE = 256  # the line points at a bright star: a diffraction spike, most likely
    ALIGNED = 512  # along a row or column to the border: a line of the detector, most likely

    def words(self) -> str:
        """The flags as the table and the alerts write them."""
        return " ".join(bit.name.lower().replace("_", "-") for bit in type(self) if bit in self and bit.name)


# x, y: 0-based pixels, centre of the first pixel (0, 0); end 0 is the one with smaller x. flux: electrons.
# mag: AB. angle_deg: from +x to +y in [0, 180). ra, dec: ICRS degrees, of the mid-point. trail_angle_deg: North
# through East in [0, 180). *_err: one sigma. Correlations: of the two coordinates of the mid-point on the sky.
STREAK = np.dtype(
    [
        ("x0", "f8"),
        ("y0", "f8"),
        ("x1", "f8"),
        ("y1", "f8"),
        ("x0_err", "f8"),
        ("y0_err", "f8"),
        ("x1_err", "f8"),
        ("y1_err", "f8"),
        ("score", "f8"),
        ("snr", "f8"),
        ("flux", "f8"),
        ("flux_err", "f8"),
        ("mag", "f8"),
        ("mag_err", "f8"),
        ("chi2", "f8"),  # reduced
        ("length_px", "f8"),
        ("length_px_err", "f8"),
        ("angle_deg", "f8"),
        ("angle_deg_err", "f8"),
        ("ra0", "f8"),
        ("dec0", "f8"),
        ("ra1", "f8"),
        ("dec1", "f8"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("ra_err", "f8"),  # degrees on the sky: cos(dec) applied
        ("dec_err", "f8"),
        ("ra_dec_corr", "f8"),
        ("trail_length_arcsec", "f8"),
        ("trail_length_arcsec_err", "f8"),
        ("trail_angle_deg", "f8"),
        ("trail_angle_deg_err", "f8"),
        ("rate_arcsec_h", "f8"),
        ("rate_arcsec_h_err", "f8"),
        ("flags", "u4"),
    ],
)


def empty(count: int) -> NDArray[np.void]:
    """``count`` rows in which nothing is known yet: NaN everywhere, no flags."""
    rows = np.zeros(count, STREAK)
    for name in STREAK.names or ():
        if name != "flags":
            rows[name] = np.nan
    return rows


@dataclass(frozen=True, eq=False)
class Findings:
    """What one frame showed.

    ``streaks`` is an array of ``STREAK``, best first; ``dropped`` counts by reason what the filters took away;
    ``seconds`` by stage; ``flags`` are the frame's own words (``header.flags`` and what the examination added, such as
    ``many-streaks``). ``candidates`` are more rows, not streaks to be published: what only linking can tell, best
    first. ``lenses`` and ``mergers`` are arrays of ``detector.classtable.CANDIDATE``; ``models`` says by these words
    which network judged, and lacks what was not looked for. ``background_e`` and ``noise_e`` are medians over the
    mesh, electrons a pixel.
    """

    header: FrameHeader
    streaks: NDArray[np.void]
    background_e: float
    noise_e: float
    psf_fwhm_px: float
    dropped: Mapping[str, int]
    seconds: Mapping[str, float]
    flags: tuple[str, ...]
    candidates: NDArray[np.void] = field(default_factory=lambda: empty(0))
    lenses: NDArray[np.void] = field(default_factory=empty_candidates)
    mergers: NDArray[np.void] = field(default_factory=empty_candidates)
    models: Mapping[str, str] = field(default_factory=dict)
