"""The whole science of one frame on one screen: Frame + networks (callables) -> Findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detector.frame import Frame
    from detector.streaks import Findings


class StreakNetwork(Protocol):
    """The proposal network, evaluated densely on a strip of the padded, sky-sigma frame."""

    window: int
    step: int

    def __call__(self, strip: NDArray[np.float32], fwhm_px: float) -> NDArray[np.float32]:
        """Give ``[rows, cols, 5]``: logit, x0, y0, x1, y1 (pixels, from the window's first pixel) of each window.

        ``strip`` is ``[window + step * (rows - 1), window + step * (cols - 1)]``; masked pixels are NaN.
        """


@dataclass(frozen=True)
class Search:
    """How deep to look. ``threshold`` is the lowest score published; 0 gives every proposal."""

    threshold: float = 0.5
    many_streaks: int = 500


def examine(frame: Frame, network: StreakNetwork, search: Search) -> Findings:
    """Give what one frame shows."""
    raise NotImplementedError
