"""How much is missed tonight: a copy of a frame with synthetic streaks, examined as the frame was.

The copy is of the worker's own frame: its sky, its defects, the PSF of its stars; only the streaks are drawn, with the
Poisson noise of their light, spread evenly (in the logarithm) about the noise limit and over the lengths of the
evaluations. One is found when the examination publishes a detection on it that the frame itself did not already give.

Two figures come of it. The *magnitude* at which half are found falls when the sky is bright, the seeing bad, or the
header's zero point low: it says how deep the night is. The *SNR* at which half are found is compared with the frame's
own noise, which no sky changes: it rises when the search itself is worse than it was (weights, settings, a kernel).
What neither sees: light that is lost before the detector (clouds) in frames whose headers keep the same zero point.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.evaluate.completeness import CCD_PX, half_magnitude, noise_limit_snr
from models.evaluate.injection import canvas, draw_streaks, magnitudes, outranking, with_streaks
from models.evaluate.matching import ends_of, match_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from detector.frame import Frame
    from detector.preparation import Prepared
    from detector.streaks import Findings

# As rare as a frame can bear: 40 in a Euclid CCD are one in a square of 650 px.
PER_CCD = 40.0
# About the SNR above which noise gives one false streak a frame: what nothing finds to what nothing should miss.
ABOUT_LIMIT = (0.6, 5.0)
# The bins of the exported counters.
BIN_MAG = 0.5
# Fewer streaks than this do not say where half are found.
FEWEST_IN_WINDOW = 24
# Windows are kept for each survey, filter and kind of magnitude; what comes after so many is not followed.
MOST_WINDOWS = 32


@dataclass(frozen=True, eq=False)
class Trial:
    """What one copy told. ``system`` is ``AB``, or ``instrumental`` where the header has no zero point or no time.

    ``mag``, ``snr`` and ``found`` are ``[n]``; the halves are over the last streaks, not of this frame alone.
    """

    survey: str
    filter_name: str | None
    system: str
    mag: NDArray[np.float64]
    snr: NDArray[np.float64]
    found: NDArray[np.bool_]
    seconds: float
    half_magnitude: float | None = None
    half_snr: float | None = None

    def by_magnitude(self) -> Iterator[tuple[float, int, int]]:
        """The bins of magnitude in which there are any: middle, streaks put in, streaks found."""
        bins = np.floor(self.mag / BIN_MAG).astype(np.int64)
        for number in np.unique(bins):
            inside = bins == number
            yield (float(number) + 0.5) * BIN_MAG, int(inside.sum()), int(self.found[inside].sum())


class Sensitivity:
    """Measures a ``share`` of the frames, and keeps the last ``window`` streaks of each survey, filter and system."""

    def __init__(self, examine: Callable[..., Findings], *, share: float, window: int) -> None:
        self.examine = examine
        self.share = share
        self.window = window
        self.windows: dict[tuple[str, str | None, str], deque[tuple[float, float, bool]]] = {}

    def wants(self, frame: Frame) -> bool:
        """Whether ``frame`` is one of the share: the same frame always is, or never."""
        return int.from_bytes(identity(frame)) < self.share * 2**64

    def measure(self, frame: Frame, findings: Findings, others: Sequence[Prepared] = ()) -> Trial | None:
        """What a copy of ``frame`` tells, which showed ``findings`` by itself; None where it has no room for a streak.

        ``others`` are the exposures that were looked at with it. Raises ``BadFrame`` where the examination does.
        """
        examine = functools.partial(self.examine, others=others) if others else self.examine
        trial = try_frame(frame, findings, examine)
        if trial is None:
            return None
        group = (trial.survey, trial.filter_name, trial.system)
        if group not in self.windows:
            if len(self.windows) >= MOST_WINDOWS:
                return trial
            self.windows[group] = deque(maxlen=self.window)
        kept = self.windows[group]
        kept.extend(zip(trial.mag.tolist(), trial.snr.tolist(), trial.found.tolist(), strict=True))
        if len(kept) < FEWEST_IN_WINDOW:
            return trial
        mag, snr, found = (np.array(column) for column in zip(*kept, strict=True))
        faintest = half_magnitude(-2.5 * np.log10(snr), found)
        half_snr = None if faintest is None else 10.0 ** (-0.4 * faintest)
        return replace(trial, half_magnitude=half_magnitude(mag, found), half_snr=half_snr)


def try_frame(frame: Frame, findings: Findings, examine: Callable[[Frame], Findings]) -> Trial | None:
    """Which streaks of a copy of ``frame`` are found; None where it has no room for any.

    The streaks follow from the frame's identity alone, so that a frame tells the same however often it is asked.
    """
    started = time.perf_counter()
    header = frame.header
    rng = np.random.default_rng(int.from_bytes(identity(frame)))
    on = canvas(frame)
    limit = noise_limit_snr(1.0, frame.pixels.size / CCD_PX)
    rows = draw_streaks(rng, on, PER_CCD, snr_range=(ABOUT_LIMIT[0] * limit, ABOUT_LIMIT[1] * limit))
    if not len(rows):
        return None
    shown = examine(with_streaks(rng, on, rows)).streaks
    shown = shown[outranking(rows, shown, findings.streaks)]
    counts = np.ones(len(rows), np.bool_)
    claimed = match_frame(ends_of(rows), counts, ends_of(shown), shown["score"]).claimed
    known = header.zero_point is not None and bool(header.exposure_s)
    return Trial(
        survey=header.survey.name,
        filter_name=header.filter_name,
        system="AB" if known else "instrumental",
        mag=magnitudes(rows["flux_e"], header.zero_point, header.exposure_s),
        snr=np.asarray(rows["snr_limit"]),
        found=claimed >= 0,
        seconds=time.perf_counter() - started,
    )


def identity(frame: Frame) -> bytes:
    """Eight bytes that follow from which frame it is: exposure, CCD and HDU, else its name."""
    header = frame.header
    known = header.exposure is not None and header.ccd is not None
    which = (header.exposure, header.ccd) if known else (header.name,)
    text = "\0".join([*map(str, which), str(header.extension)])
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
