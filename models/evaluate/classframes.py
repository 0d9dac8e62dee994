"""What the discriminator hands on in whole simulated frames: how much of each class, and how much else.

An ensemble is what one class's network would be shown of all frames: the places that ``detector.candidates`` makes of
the peaks of its map. A place within 5 px (at 0.2 arcsec) of an object, or of the peak of its light, lies on it; within
that of any part of a trail. A further place on the same object, and one on an object that does not count, is neither
true nor false. Purity means nothing without the density of everything: that is told with it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from detector.candidates import cut_stamps, levels_of, shortlist
from detector.centring import centred
from detector.fits import read_frames
from detector.frame import Frame
from detector.preparation import whitened_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.candidates import Discriminator, Levels
    from detector.tiling import Tiling

    F4 = NDArray[np.float32]
    F8 = NDArray[np.float64]

SEARCHED = ("lens", "merger", "asteroid")
TABLES = {"lens": "lenses.csv", "merger": "mergers.csv", "impostor": "impostors.csv", "asteroid": "truth.csv"}
ON_OBJECT_PX = 5.0
BORDER_PX = 10.0
# Asteroids that count: so bright in a matched filter of their true shape, and no longer than this, px at 0.2 arcsec.
LEAST_SNR, LONGEST_PX = 10.0, 64.0
# Of impostors in the same frames this share is above the cut of what a class's own network recognises.
RECOGNISED_FALSE = 0.01
COMPLETENESSES = (1.0, 0.995, 0.99, 0.95, 0.9, 0.8)


@dataclass(frozen=True, eq=False)
class ClassFrame:
    """One frame: its levels, the logits' map ``[rows, cols, 4]``, and both ends ``[n, 4]`` of the objects by class.

    Ends are in the discriminator's pixels; those of all but asteroids are one place. ``counts`` by class ``[n]``.
    """

    levels: Levels
    area_arcmin2: float
    logits: F4
    ends: Mapping[str, F8]
    counts: Mapping[str, NDArray[np.bool_]]

    @property
    def coarse(self) -> F4:
        """The frame at the discriminator's pixels."""
        return self.levels.images[self.levels.coarse]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What one class is shown: log-odds and verdict (true, false, neither: 1, 0, -1) of each place, all frames.

    ``best`` ``[objects]``: the highest log-odds of a place on each object that counts, -inf where there is none.
    """

    odds: F8
    verdict: NDArray[np.int8]
    best: F8


def read_folder(folder: Path, logits_of: Callable[[F4], F4], tiling: Tiling) -> list[ClassFrame]:
    """The frames of a folder of ``simulate``, mapped; ``logits_of`` gives the logits of a coarse frame."""
    rows = {label: _rows(folder / table) for label, table in TABLES.items()}
    out = []
    for path in sorted([*folder.glob("*.fits"), *folder.glob("*.fits.fz")]):
        for frame in read_frames(path, name=path.name):
            if not isinstance(frame, Frame):
                raise ValueError(f"{path} cannot be examined: {frame.detail}")  # noqa: TRY004 - not the type is wrong
            levels = levels_of(whitened_frame(frame, tiling), frame.header.pixel_scale_arcsec)
            if levels is None:
                raise ValueError(f"{path}: its pixels are not those of the discriminator: no survey of the stamps")
            own = {
                label: [
                    row for row in table if (row["frame"], int(row["extension"])) == (path.name, frame.header.extension)
                ]
                for label, table in rows.items()
            }
            scale = float(frame.header.pixel_scale_arcsec or 0.0)
            out.append(
                _frame(levels, frame.pixels.size * (scale / 60.0) ** 2, logits_of(levels.images[levels.coarse]), own)
            )
    if not out:
        raise ValueError(f"{folder}: no FITS frame in it: give a folder that `needlestream simulate` wrote")
    return out


def _frame(levels: Levels, area: float, logits: F4, rows: Mapping[str, list[dict[str, str]]]) -> ClassFrame:
    size = 2.0**levels.coarse
    height, width = levels.images[levels.coarse].shape
    ends: dict[str, F8] = {}
    counts: dict[str, NDArray[np.bool_]] = {}
    for label, table in rows.items():
        names = ("x0", "y0", "x1", "y1") if label == "asteroid" else ("x", "y", "x", "y")
        native = np.array([[float(row[name]) for name in names] for row in table], np.float64).reshape(-1, 4)
        ends[label] = (native - 0.5 * (size - 1.0)) / size
        within = (ends[label] >= BORDER_PX) & (ends[label] <= np.array([width, height, width, height]) - 1 - BORDER_PX)
        counts[label] = np.asarray(within.all(axis=1), np.bool_)
        if label == "asteroid":
            length = np.hypot(ends[label][:, 2] - ends[label][:, 0], ends[label][:, 3] - ends[label][:, 1])
            snr = np.array([float(row["snr_limit"]) for row in table])
            counts[label] &= (length <= LONGEST_PX) & (snr >= LEAST_SNR)
    return ClassFrame(levels, area, logits, ends, counts)


def places_of(frame: ClassFrame, label: str) -> NDArray[np.intp]:
    """Where stamps of the objects of a class are cut, x, y ``[n, 2]``: the peaks of their light."""
    found = [centred(frame.coarse, x, y) for x, y in frame.ends[label][:, :2]]
    return np.array(found, np.intp).reshape(-1, 2)


def stamps_of(frame: ClassFrame, label: str, task: str) -> F4:
    """The cut-outs ``[n, 64, 64]`` of the objects of a class, as the networks of ``task`` (lens, merger) see them."""
    level = frame.levels.fine if task == "lens" else frame.levels.coarse
    finer = 2 ** (frame.levels.coarse - level)
    places = [(int(x), int(y)) for x, y in places_of(frame, label)]
    if finer > 1:
        image = frame.levels.images[level]
        places = [centred(image, *(p * finer + 0.5 * (finer - 1) for p in place)) for place in places]
    return cut_stamps(frame.levels.images[level], places)


def ensemble(
    frames: Sequence[ClassFrame],
    label: str,
    recognised: Sequence[NDArray[np.bool_]],
    discriminator: Discriminator,
    odds_of: Callable[[F4], F4],
) -> Ensemble:
    """What the network of a class would be shown; of its objects count those ``recognised`` in each frame ``[n]``."""
    parts = []
    for frame, known in zip(frames, recognised, strict=True):
        found = shortlist(frame.coarse, odds_of(frame.logits), label, discriminator)
        parts.append(_matched(frame, label, found, known & frame.counts[label]))
    return Ensemble(
        np.concatenate([part.odds for part in parts]),
        np.concatenate([part.verdict for part in parts]),
        np.concatenate([part.best for part in parts]),
    )


def _matched(frame: ClassFrame, label: str, found: F8, counts: NDArray[np.bool_]) -> Ensemble:
    """The verdicts on places ``[n, 3]`` (x, y, log-odds; best first) of one frame."""
    ends = frame.ends[label]
    if label != "asteroid":
        peaks = places_of(frame, label)
    verdict = np.zeros(len(found), np.int8)
    best = np.full(len(ends), -np.inf)
    for row, (x, y, odds) in enumerate(found):
        near = _distances(x, y, ends) <= ON_OBJECT_PX
        if label != "asteroid":
            near |= np.hypot(peaks[:, 0] - x, peaks[:, 1] - y) <= ON_OBJECT_PX
        if near.any():
            new = near & counts & np.isinf(best)
            verdict[row] = 1 if new.any() else -1
            best[near & np.isinf(best)] = odds
    return Ensemble(found[:, 2], verdict, best[counts])


def _distances(x: float, y: float, ends: F8) -> F8:
    dx, dy = ends[:, 2] - ends[:, 0], ends[:, 3] - ends[:, 1]
    along = ((x - ends[:, 0]) * dx + (y - ends[:, 1]) * dy) / np.maximum(dx * dx + dy * dy, 1e-9)
    share = np.clip(along, 0.0, 1.0)
    return np.asarray(np.hypot(x - ends[:, 0] - share * dx, y - ends[:, 1] - share * dy))


def floor_for(one: Ensemble, completeness: float) -> float:
    """The highest log-odds at which the share ``completeness`` of the objects has a place; -inf for none."""
    if not len(one.best):
        return float("-inf")
    ranked = np.sort(one.best)[::-1]
    return float(ranked[max(int(np.ceil(completeness * len(ranked) - 1e-9)) - 1, 0)])


def purity_above(one: Ensemble, floor: float) -> float:
    """The share of true places among true and false ones from a log-odds on; NaN where there is none."""
    above = one.odds >= floor
    true, false = int((above & (one.verdict == 1)).sum()), int((above & (one.verdict == 0)).sum())
    return true / (true + false) if true + false else float("nan")


def purity_at_rate(one: Ensemble, floor: float, rarer: float) -> float:
    """The purity where the objects are ``rarer`` times as rare, everything else as dense as it is."""
    purity = purity_above(one, floor)
    return purity / (purity + (1.0 - purity) * rarer)


def curve(one: Ensemble) -> F8:
    """Completeness and purity ``[n, 2]`` as the floor sinks over the places."""
    order = np.argsort(-one.odds, kind="stable")
    true = np.cumsum(one.verdict[order] == 1)
    false = np.cumsum(one.verdict[order] == 0)
    return np.column_stack([true / max(len(one.best), 1), true / np.maximum(true + false, 1)])


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
