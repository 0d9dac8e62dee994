"""Streak candidates of one frame: proposed by the network and the matched filter, merged, fitted, judged.

The second stage sees each by its cut-out and its evidence. Where no star told the PSF, the brightest candidates do, and
all are fitted again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.spatial import cKDTree

from detector.cutouts import cut_out, shown
from detector.endpoints import settled
from detector.evidence import FILTER_NAMES, evidence, heard
from detector.fitting import fit_lines
from detector.matched import filtered_frame, matched_proposals
from detector.merging import merge
from detector.proposals import concatenated
from detector.proposing import FLOOR_LOGIT, propose
from detector.psf import Psf
from detector.sky import noise_at
from detector.spikes import WINGED_SIGMA, beside_stars, bright_stars
from detector.stopwatch import Stopwatch
from detector.tiling import Tiling, unpadded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from detector.fitting import Fits
    from detector.proposals import Proposals
    from detector.sky import Sky
    from detector.streaknetwork import StreakNetwork

# Who proposes: StreakNet, the oriented matched filter, or both; the second stage judges either's.
Method = Literal["network", "matched", "both"]
# Cut-outs of 46 kB each in memory at a time.
STAMPS_AT_ONCE = 1_024
# Ends of two proposals of one streak that are worth one fit.
SAME_ENDS_PX = 2.0
# The candidates that say how wide an unmeasured PSF is: clearly there, and the network's favourites.
CLEAR_SNR = 20.0
CLEAR_CANDIDATES = 3
# How far the network's ends may be off, in pixels of its scale.
ENDS_UNCERTAINTY_PX = 1.5


@dataclass(frozen=True, eq=False)
class Candidates:
    """Fitted candidates, the network's best first: proposals, fits, PSF, the sky's sigma (electrons), drops.

    ``filtered`` ``[n, 3]`` is the matched filter's word on each (``detector.evidence.heard``), zeros unless asked;
    ``beside`` ``[n, 2]`` how near bright stars are (``detector.spikes.beside_stars``).
    """

    proposals: Proposals
    fits: Fits
    psf: Psf
    noise_e: NDArray[np.float64]
    filtered: NDArray[np.float64]
    beside: NDArray[np.float64]
    dropped: Counter[str]

    def take(self, rows: NDArray[np.intp]) -> Candidates:
        """The same with these rows only."""
        return Candidates(
            self.proposals.take(rows),
            self.fits.take(rows),
            self.psf,
            self.noise_e[rows],
            self.filtered[rows],
            self.beside[rows],
            self.dropped,
        )

    def evidence(self) -> NDArray[np.float64]:
        """The evidence on each ``[n, len(NAMES)]`` (``detector.evidence``)."""
        return evidence(self.proposals, self.fits, self.psf, self.filtered, self.beside)


def candidates(
    padded: NDArray[np.float32],
    shape: tuple[int, int],
    network: StreakNetwork,
    sky: Sky,
    psf: Psf,
    most: int,
    *,
    mask: NDArray[np.uint8],
    method: Method = "network",
    done: Stopwatch | None = None,
) -> Candidates:
    """What is proposed in a whitened frame of ``shape`` (padded), merged and fitted: the ``most`` best."""
    done = done or Stopwatch()
    frame = unpadded(padded, shape, Tiling(network.window, network.step))
    filtered = filtered_frame(frame, psf)
    done("filter")
    tables, seen, matched = [], 0, None
    if method != "matched":
        proposals = propose(padded, shape, network, psf.fwhm_px)
        done("network")
        merged = merge(proposals, fwhm_px=psf.fwhm_px)
        tables.append(best(merged, most if method == "network" else most - most // 2))
        seen += len(proposals)
        done("merging")
    if method != "network":
        matched = matched_proposals(filtered, most=most)
        tables.append(best(unknown_to_network(matched.proposals, tables), most))
        seen += len(matched.proposals)
        done("matched")
    merged = concatenated(tables)
    kept = best(merged, most)
    noise_e = noise_at(sky, kept.ends, shape)
    margin = Tiling(network.window, network.step).margin
    fits = fit_lines(padded, margin, kept.ends, ENDS_UNCERTAINTY_PX * kept.scale, noise_e, psf)
    if psf.n_stars == 0:
        # Nobody measured the PSF: the brightest streaks say how wide it is.
        psf = rescaled(psf, fits)
        fits = fit_lines(padded, margin, kept.ends, ENDS_UNCERTAINTY_PX * kept.scale, noise_e, psf)
    done("fit")
    fits = settled(padded, margin, fits, noise_e, psf, filtered)
    done("ends")
    dropped = Counter({"same-streak": seen - len(merged), "too-doubtful": len(merged) - len(kept)})
    said = np.zeros((len(kept), len(FILTER_NAMES))) if matched is None else heard(fits.ends, matched)
    stars = bright_stars(frame, mask, WINGED_SIGMA)
    return Candidates(kept, fits, psf, noise_e, said, beside_stars(fits.ends, stars), dropped)


def best(proposals: Proposals, most: int) -> Proposals:
    """The first ``most`` rows."""
    return proposals.take(np.arange(min(len(proposals), most)))


def unknown_to_network(proposals: Proposals, known: Sequence[Proposals]) -> Proposals:
    """What the matched filter found and no table of ``known`` has: as the network would have said it, below its floor.

    Nothing is joined: the filter's lines are whole. Two rows are one where all four coordinates of their ends agree
    to ``SAME_ENDS_PX``; what is one streak only once it is fitted goes by its fit (``first_rows``).
    """
    new = np.ones(len(proposals), np.bool_)
    for table in known:
        if len(table) and len(proposals):
            tree = cKDTree(table.ends)
            for order in ([0, 1, 2, 3], [2, 3, 0, 1]):
                new &= tree.query(proposals.ends[:, order], p=np.inf)[0] > SAME_ENDS_PX
    fresh = proposals.take(new)
    behind = np.arange(len(fresh)) / max(len(fresh), 1)
    return replace(fresh, logit=FLOOR_LOGIT - 1e-3 * behind)


def judged(
    found: Candidates,
    padded: NDArray[np.float32],
    shape: tuple[int, int],
    network: StreakNetwork,
) -> NDArray[np.float64]:
    """The second stage's logit of each candidate, by its cut-out and its fit."""
    frame = shown(unpadded(padded, shape, Tiling(network.window, network.step)), found.psf)
    known = found.evidence()
    logit = np.zeros(len(known))
    for first in range(0, len(known), STAMPS_AT_ONCE):
        part = slice(first, first + STAMPS_AT_ONCE)
        stamps = cut_out(frame, found.fits.ends[part], found.fits.flux[part], found.psf)
        logit[part] = network.judge(stamps, known[part])
    return logit


def rescaled(psf: Psf, fits: Fits) -> Psf:
    """A guessed PSF made as wide as the fits of the brightest candidates say, by their median; at most twofold."""
    clear = np.flatnonzero(fits.good & (fits.snr > CLEAR_SNR))[:CLEAR_CANDIDATES]
    if len(clear) == 0:
        return psf
    return Psf.gaussian(psf.fwhm_px * float(np.exp(np.clip(np.median(fits.width[clear, 0]), -0.7, 0.7))))
