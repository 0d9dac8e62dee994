"""The tables of lens and merger candidates: one row an object seen in one frame, the most probable first.

Inside the house they are structured arrays (``CANDIDATE``); NaN is "not known". What is constant over a frame is in its
header and joined at the rim. Light, so that whoever only passes tables on need not wait for numba.
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CandidateFlag(IntFlag):
    """What a reader of a row has to know; written as lower-case words separated by spaces, ``_`` as ``-``."""

    EDGE = 1  # the cut-out reaches over the border of the frame
    MASKED = 2  # more than a quarter of the cut-out is masked, or lies beyond the border

    def words(self) -> str:
        """The flags as the tables and the alerts write them."""
        return " ".join(bit.name.lower().replace("_", "-") for bit in type(self) if bit in self and bit.name)


# x, y: 0-based pixels of the frame; ra, dec: ICRS degrees; ic: information content; rank: by it, 1 first; 0 is none.
CANDIDATE = np.dtype(
    [
        ("x", "f8"),
        ("y", "f8"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("probability", "f8"),
        ("probability_err", "f8"),
        ("ic", "f8"),
        ("ic_err", "f8"),
        ("rank", "i4"),
        ("flags", "u4"),
    ],
)


def empty_candidates(count: int = 0) -> NDArray[np.void]:
    """``count`` rows in which nothing is known yet: NaN everywhere, no rank, no flags."""
    rows = np.zeros(count, CANDIDATE)
    for name in CANDIDATE.names or ():
        if name not in {"rank", "flags"}:
            rows[name] = np.nan
    return rows
