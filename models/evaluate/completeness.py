"""How faint a streak is found at a price: completeness, thresholds by false ones per frame, and m50.

m50 is the magnitude at which half are found: where a logistic curve, fitted to found and missed ones by maximum
likelihood, crosses one half. The curve levels off at the bright end where it must (confusion, borders), for a detector
that misses one bright streak in ten for other reasons than faintness is not fainter for it. Its error is the scatter
over bootstrap samples of whole frames, which carries the threshold's own uncertainty; two frames give 0.1 mag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit
from scipy.stats import norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

FALSE_PER_FRAME = (1.0, 10.0, 100.0, 1000.0)
# Length classes in pixels, lower edge in, upper edge out.
LENGTH_CLASSES = {
    "all": (5.0, np.inf),
    "5-15": (5.0, 15.0),
    "15-40": (15.0, 40.0),
    "40-130": (40.0, 130.0),
}
# A matched filter over the noise of one Euclid CCD has 1, 10, 100 false ones above SNR 5.91, 5.52, 5.10: the Gaussian
# tail of 5.9e8 independent templates. They are places, lengths and directions, hence in proportion to the pixels: from
# the same number follows any other rate and any other size of frame.
CCD_PX = 4132 * 4096
TRIALS_PER_CCD = 5.88e8
# Found and total are counted in bins far narrower than any curve is wide; m50 is given to the step.
_BIN_MAG = 0.05
_STEP_MAG = 0.02
_BEYOND_MAG = 0.5  # curves that cross one half outside the sample are tried too, and mean "none"
_WIDTHS = np.geomspace(0.02, 1.5, 10)
_PLATEAUS = np.array([0.2, 0.35, 0.5, 0.55, 0.62, 0.7, 0.78, 0.85, 0.9, 0.94, 0.97, 0.99, 1.0])
_UNLIKELY = 1e-3  # a bright one missed or a faint one found by chance must not decide


@dataclass(frozen=True)
class HalfMagnitude:
    """m50 of one class of lengths at one price; ``m50`` None where the curve never crosses one half.

    ``false_per_frame`` is per the unit of the report: a frame, or the area of a Euclid CCD. ``noise_limit`` is the m50
    of a matched filter over the same truths if nothing but noise were in the frames.
    """

    lengths: str
    false_per_frame: float
    score: float | None
    truths: int
    found: int
    m50: float | None
    m50_err: float | None
    noise_limit: float | None


def noise_limit_snr(false_ones: float, ccds: float = 1.0) -> float:
    """The SNR above which noise alone gives so many false ones in ``ccds`` times the area of a Euclid CCD."""
    return float(norm.isf(false_ones / (TRIALS_PER_CCD * ccds)))


def score_at(false_scores: NDArray[np.float64], weights: NDArray[np.float64], allowed: float) -> float:
    """The score of the first false one too many when ``allowed`` may pass; -inf where all may.

    ``false_scores`` come highest first; ``weights`` counts each as often as its frame was drawn. What is found scores
    *above* the result: of detections with equal scores all pass or none.
    """
    passed = np.cumsum(weights)
    # The sum is of whole numbers, and `allowed` is a product that may fall short of one by rounding.
    first_too_many = int(np.searchsorted(passed, allowed + 1e-9, side="right"))
    return float(false_scores[first_too_many]) if first_too_many < len(passed) else -np.inf


@dataclass(frozen=True, eq=False)
class CurveFit:
    """All completeness curves that a fit may choose from, tabulated once: a fit is then one matrix product.

    ``log_found`` and ``log_missed`` are [bins, curves], ``m50`` [curves] with NaN for a curve that never crosses one
    half. Trying all of them finds the highest likelihood where a descent may stop at a lower one.
    """

    brightest: float
    faintest: float
    log_found: NDArray[np.float64]
    log_missed: NDArray[np.float64]
    m50: NDArray[np.float64]

    def fit(
        self, mag: NDArray[np.float64], found: NDArray[np.bool_], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """m50 ``[fits]`` of truths with ``mag`` [n]; ``found`` and ``weights`` are [fits, n]; NaN where there is none.

        There is none where the best curve crosses one half beyond the magnitudes of the sample.
        """
        bins = ((mag - self.brightest) / _BIN_MAG).astype(np.int64)
        n_bins = len(self.log_found)
        total = np.array([np.bincount(bins, one, n_bins) for one in weights])
        hits = np.array(
            [np.bincount(bins, one * is_found, n_bins) for one, is_found in zip(weights, found, strict=True)]
        )
        likelihood = hits @ self.log_found + (total - hits) @ self.log_missed  # fits curves
        m50 = self.m50[likelihood.argmax(axis=1)]
        return np.where((m50 >= self.brightest) & (m50 <= self.faintest) & (total.sum(axis=1) > 0), m50, np.nan)


def curve_fit(brightest: float, faintest: float) -> CurveFit:
    """Tabulate the curves for truths between two magnitudes.

    The curve is ``plateau / (1 + exp((mag - middle) / width))``; plateaus above one half are laid out by where they
    cross it, so that the resolution is that of m50 itself.
    """
    centre = np.arange(brightest, faintest + _BIN_MAG, _BIN_MAG) + _BIN_MAG / 2
    position = np.arange(brightest - _BEYOND_MAG, faintest + _BEYOND_MAG, _STEP_MAG)
    plateau, width, position = (axis.ravel() for axis in np.meshgrid(_PLATEAUS, _WIDTHS, position, indexing="ij"))
    crosses = plateau > 0.5
    middle = position - np.where(crosses, width * np.log(np.where(crosses, 2 * plateau - 1, 1.0)), 0.0)
    found = plateau * expit((middle - centre[:, None]) / width)
    found = np.clip(found, _UNLIKELY, 1 - _UNLIKELY)
    return CurveFit(brightest, faintest, np.log(found), np.log1p(-found), np.where(crosses, position, np.nan))


def half_magnitude(mag: NDArray[np.float64], found: NDArray[np.bool_]) -> float | None:
    """The magnitude at which half of the truths are found, None where there is none within the sample."""
    if not len(mag):
        return None
    fit = curve_fit(float(mag.min()), float(mag.max()))
    return _known(fit.fit(mag, found[None], np.ones((1, len(mag))))[0])


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class Curve:
    """One detector over one sample: what m50 needs to know, and no more.

    ``mag``, ``length_px``, ``snr_limit``, ``score`` (-inf: not found), ``frame`` are of the truths that count;
    ``false_score``, ``false_frame`` of the false detections, highest score first. A price is paid per unit: there are
    ``units`` in the sample (its frames, or its area in Euclid CCDs), each of ``ccds_per_unit`` of a Euclid CCD.
    """

    mag: NDArray[np.float64]
    length_px: NDArray[np.float64]
    snr_limit: NDArray[np.float64]
    score: NDArray[np.float64]
    frame: NDArray[np.int64]
    false_score: NDArray[np.float64]
    false_frame: NDArray[np.int64]
    n_frames: int
    units: float
    ccds_per_unit: float = 1.0

    def half_magnitudes(self, *, resamples: int, seed: int) -> list[HalfMagnitude]:
        """m50 of every class of lengths at every price, with errors from ``resamples`` bootstrap samples."""
        # The sample itself is the first row: each frame once.
        frames = np.full(self.n_frames, 1 / self.n_frames)
        drawn = np.random.default_rng(seed).multinomial(self.n_frames, frames, resamples)
        draws = np.vstack([np.ones(self.n_frames), drawn])
        fit = curve_fit(float(self.mag.min()), float(self.mag.max())) if len(self.mag) else None
        table = []
        for false_per_frame in FALSE_PER_FRAME:
            allowed = false_per_frame * self.units
            scores = np.array([score_at(self.false_score, draw[self.false_frame], allowed) for draw in draws])
            table += [self._half(name, false_per_frame, draws, scores, fit) for name in LENGTH_CLASSES]
        return table

    def _half(
        self,
        name: str,
        false_per_frame: float,
        draws: NDArray[np.float64],
        scores: NDArray[np.float64],
        fit: CurveFit | None,
    ) -> HalfMagnitude:
        shortest, longest = LENGTH_CLASSES[name]
        members = (self.length_px >= shortest) & (self.length_px < longest)
        mag, snr = self.mag[members], self.snr_limit[members]
        found = self.score[members] > scores[:, None]  # draws truths
        m50, limit = np.full(len(draws), np.nan), np.array([np.nan])
        if fit is not None:
            m50 = fit.fit(mag, found, draws[:, self.frame[members]])
        if fit is not None and np.isfinite(snr).all():
            visible = snr[None] >= noise_limit_snr(false_per_frame, self.ccds_per_unit)
            limit = fit.fit(mag, visible, np.ones((1, len(mag))))
        crossings = m50[1:][np.isfinite(m50[1:])]
        return HalfMagnitude(
            lengths=name,
            false_per_frame=false_per_frame,
            score=_known(scores[0]),
            truths=len(mag),
            found=int(found[0].sum()),
            m50=_known(m50[0]),
            m50_err=float(crossings.std(ddof=1)) if self.n_frames > 1 and len(crossings) > 1 else None,
            noise_limit=_known(limit[0]),
        )


@dataclass(frozen=True, eq=False)
class Grid:
    """Found and total in bins of magnitude and a second quantity: ``[second, magnitude]``; edges one longer."""

    mag_edges: NDArray[np.float64]
    second_edges: NDArray[np.float64]
    found: NDArray[np.int64]
    total: NDArray[np.int64]


def grid(
    mag: NDArray[np.float64],
    second: NDArray[np.float64],
    second_edges: NDArray[np.float64],
    found: NDArray[np.bool_],
) -> Grid:
    """Count found and total in bins of one magnitude and of ``second`` (length, rate); NaN falls in none."""
    mag_edges = np.arange(np.floor(mag.min()), np.floor(mag.max()) + 2) if len(mag) else np.array([20.0, 21.0])
    edges = [second_edges, mag_edges]
    total = np.histogram2d(second, mag, edges)[0].astype(np.int64)
    hits = np.histogram2d(second[found], mag[found], edges)[0].astype(np.int64)
    return Grid(mag_edges, second_edges, hits, total)
