"""What is known of a candidate where other exposures of its field are at hand: its own evidence, and what is there.

Nothing in it is the same for all candidates of a frame (the PSF's width, how crowded the sky is): from a hundred fields
trees learn such numbers by heart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from detector import evidence
from detector.elsewhere import standing_odds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.elsewhere import Elsewhere
    from detector.streakcandidates import Candidates

ALIKE_IN_A_FRAME = ("fwhm",)
# How many exposures show the place; the likelihood of "moves" over "stands still" (natural logarithm); the flux there
# over its sigma, of all together and the most of one, and what it would be if the candidate stood still; the flux there
# as a part of the candidate's, of all together, and the most and least of one.
ELSEWHERE_NAMES = ("seen", "moves", "there", "most_there", "expected_there", "part", "most_part", "least_part")
# ``judged`` is the logit of the second stage, ``weighed`` the same after ``moves`` has moved the odds.
NAMES = (
    "judged",
    "weighed",
    *(name for name in evidence.NAMES if name not in ALIKE_IN_A_FRAME),
    *ELSEWHERE_NAMES,
)
MOST_PARTS = 20.0


def field_evidence(judged: NDArray[np.float64], found: Candidates, elsewhere: Elsewhere) -> NDArray[np.float64]:
    """The evidence on each candidate ``[n, len(NAMES)]``; ``judged`` ``[n]`` is the second stage's logit."""
    own = found.evidence()[:, [name not in ALIKE_IN_A_FRAME for name in evidence.NAMES]]
    moves = elsewhere.moves()
    flux, sigma = elsewhere.combined()
    shown = np.isfinite(elsewhere.there_sigma_e)
    seen = elsewhere.seen
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(shown, elsewhere.there_e / elsewhere.there_sigma_e, -np.inf).max(axis=1, initial=-np.inf)
        parts = elsewhere.there_e / elsewhere.flux_e[:, None]
        most = np.where(shown, parts, -np.inf).max(axis=1, initial=-np.inf)
        least = np.where(shown, parts, np.inf).min(axis=1, initial=np.inf)
        there = (
            np.arcsinh(flux / sigma),
            np.arcsinh(each),
            np.arcsinh(elsewhere.flux_e / sigma),
            np.clip(flux / elsewhere.flux_e, -MOST_PARTS, MOST_PARTS),
            np.clip(most, -MOST_PARTS, MOST_PARTS),
            np.clip(least, -MOST_PARTS, MOST_PARTS),
        )
    columns = (seen, moves, *(np.where(seen > 0, column, 0.0) for column in there))
    table = np.column_stack([judged, judged - np.log(standing_odds(moves)), own, *columns])
    return np.nan_to_num(table, nan=0.0, posinf=0.0, neginf=0.0)
