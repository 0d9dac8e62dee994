"""What the detector asks of a streak network, wherever it runs: the detector itself knows no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class StreakNetwork(Protocol):
    """The proposal network, evaluated densely on a strip of the padded, sky-sigma frame."""

    @property
    def window(self) -> int:
        """The window's side, px."""

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""

    def __call__(self, strip: NDArray[np.float32], fwhm_px: float) -> NDArray[np.float32]:
        """Give ``[rows, cols, 5]``: logit, x0, y0, x1, y1 (pixels, from the window's first pixel) of each window.

        ``strip`` is ``[window + step * (rows - 1), window + step * (cols - 1)]``; masked pixels are NaN.
        """

    def judge(self, stamps: NDArray[np.float32], evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the logit of candidates by their cut-outs (``detector.cutouts``) and their evidence ``[n, k]``."""

    def probability(self, logit: NDArray[np.float64], expected_per_frame: float) -> NDArray[np.float64]:
        """Give the probability that belongs to a logit where so many streaks are expected in a frame."""


class FieldJudge(Protocol):
    """Judges candidates for which other exposures of their field were looked at."""

    def __call__(self, evidence: NDArray[np.float64], expected_per_frame: float) -> NDArray[np.float64]:
        """Give the probability of each candidate by its evidence ``[n, k]`` (``detector.fieldevidence.NAMES``)."""
