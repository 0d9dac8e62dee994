"""A frame made ready to be searched: what is masked, its sky, its PSF, its pixels in sigma of the sky.

It fails on nothing that a frame can hold: without a star the PSF is the profile's, without a good pixel the sky is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from detector.defects import find_defects
from detector.psfmeasurement import measure_psf
from detector.sky import measure_sky, noise_at
from detector.spikes import bright_stars
from detector.stopwatch import Stopwatch
from detector.tiling import Tiling, unpadded
from detector.whitening import whiten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from detector.frame import Frame, FrameHeader
    from detector.psf import Psf
    from detector.sky import Sky
    from detector.streaknetwork import StreakNetwork

# Sources that tell whether two frames show one sky are this bright in their pixels, and wider than a cosmic ray.
SOURCES_SIGMA, SOURCES_RADIUS_PX = 20.0, 2.0
# Where neither the stars nor the profile say how wide the PSF is.
DEFAULT_FWHM_PX = 2.5


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame ready to be searched: what is masked, its sky, its PSF, and its pixels in units of the sky's sigma.

    ``padded`` has ``margin`` pixels of NaN all round; ``seconds`` is what each stage took. Another exposure of the
    field is given as this.
    """

    header: FrameHeader
    mask: NDArray[np.uint8]
    sky: Sky
    psf: Psf
    padded: NDArray[np.float32]
    margin: int
    seconds: Mapping[str, float]

    @property
    def whitened(self) -> NDArray[np.float32]:
        """The frame itself, without its margin."""
        height, width = self.header.shape
        return self.padded[self.margin : self.margin + height, self.margin : self.margin + width]

    @property
    def size_bytes(self) -> int:
        """The memory of its pixels and mask, nearly all that it holds."""
        return self.padded.nbytes + self.mask.nbytes

    @cached_property
    def sources(self) -> NDArray[np.float64]:
        """Middles and radii ``[n, 3]`` of the bright sources: by them frames of one sky know each other."""
        found = bright_stars(self.whitened, self.mask, SOURCES_SIGMA)
        return found[found[:, 2] >= SOURCES_RADIUS_PX]

    def noise_at(self, ends: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sky's sigma in electrons ``[n]`` at the mid-points of lines; the nearest known beyond the border."""
        return noise_at(self.sky, np.nan_to_num(ends, nan=0.0, posinf=0.0, neginf=0.0), self.header.shape)


def prepare(frame: Frame, network: StreakNetwork) -> Prepared:
    """Defects, sky, PSF: all that is known of a frame before anything is looked for."""
    done = Stopwatch()
    tiling = Tiling(network.window, network.step)
    mask = find_defects(frame.pixels, frame.mask, saturation_e=frame.header.saturation_e)
    done("defects")
    sky = measure_sky(frame.pixels, mask)
    padded = whiten(frame.pixels, mask, sky, window=tiling.window, step=tiling.step)
    done("sky")
    psf = measure_psf(frame.pixels, mask, sky, fallback_fwhm_px=profile_fwhm_px(frame.header))
    done("psf")
    return Prepared(frame.header, mask, sky, psf, padded, tiling.margin, done.seconds)


def whitened_frame(frame: Frame, tiling: Tiling) -> NDArray[np.float32]:
    """The pixels of a frame ``[h, w]`` in sigma of the sky, NaN where masked: for who looks for no streaks."""
    mask = find_defects(frame.pixels, frame.mask, saturation_e=frame.header.saturation_e)
    sky = measure_sky(frame.pixels, mask)
    padded = whiten(frame.pixels, mask, sky, window=tiling.window, step=tiling.step)
    return unpadded(padded, frame.header.shape, tiling)


def profile_fwhm_px(header: FrameHeader) -> float:
    """The PSF's width in pixels as the survey's profile has it, or a plain guess."""
    scale = header.pixel_scale_arcsec or header.survey.pixel_scale_arcsec
    if header.survey.psf_fwhm_arcsec and scale:
        return header.survey.psf_fwhm_arcsec / scale
    return DEFAULT_FWHM_PX
