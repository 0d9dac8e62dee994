"""Other people's detectors on the same frames, for the rows beside ours.

A peer sees the pixels and mask that ours sees. Its score is for ranking only: it is no probability.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.frame import Frame

# Tuned for short faint streaks: five pixels above 1.5 sigma, a third longer than wide.
SEP_SIGMA, SEP_MIN_PIXELS, SEP_ELONGATION = 1.5, 5, 1.33
_SEP_STACK, _SEP_OBJECTS = 20_000_000, 100_000


def sep_installed() -> bool:
    """Whether the package ``sep`` (SExtractor as a library) is at hand."""
    return find_spec("sep") is not None


def sep_streaks(frame: Frame) -> NDArray[np.float64]:
    """The elongated ones of the sources that SExtractor's method finds: ``[n, 5]`` x0, y0, x1, y1, score.

    A line of length L has second moments that differ by L^2/12 along and across it; the score is 1 - b/a.
    """
    import sep  # noqa: PLC0415 - installed for comparisons only

    sep.set_extract_pixstack(_SEP_STACK)
    sep.set_sub_object_limit(_SEP_OBJECTS)
    masked = frame.mask != 0
    pixels = np.ascontiguousarray(np.where(masked, 0.0, frame.pixels), np.float32)
    background = sep.Background(pixels, mask=masked)
    found = sep.extract(pixels - background, SEP_SIGMA, err=background.globalrms, mask=masked, minarea=SEP_MIN_PIXELS)
    long = found[(found["a"] > SEP_ELONGATION * found["b"]) & np.isfinite(found["theta"])]
    half = np.sqrt(12 * (long["a"] ** 2 - long["b"] ** 2)) / 2
    dx, dy = half * np.cos(long["theta"]), half * np.sin(long["theta"])
    columns = (long["x"] - dx, long["y"] - dy, long["x"] + dx, long["y"] + dy, 1 - long["b"] / long["a"])
    return np.stack(columns, axis=-1).astype(np.float64)
