"""What an evaluation judges: truths and detections of the same frames, from anybody's tables.

Tables come as columns by name (numbers float64, text str). Which frame a row means: ``models.evaluate.framekeys``. The
failure to expect is exactly there: a table of another run, of which no frame is known, is an error and not a
completeness of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.evaluate.framekeys import distinct, frame_keys, places_among
from models.evaluate.matching import Matches, ends_of, inside, lengths, match_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from models.evaluate.framekeys import Key

    Columns = Mapping[str, NDArray[Any]]

_ENDS = ("x0", "y0", "x1", "y1")
# Along and across the trail, of an end and of the mid-point: where the truth knows its own Cramer-Rao bounds.
BOUNDS = ("end_along_bound_px", "end_across_bound_px", "mid_along_bound_px", "mid_across_bound_px")
TRUTH_NUMBERS = (*_ENDS, "mag", "rate_arcsec_h", "snr_limit", *BOUNDS, "inside")
DETECTION_NUMBERS = (*_ENDS, "x0_err", "y0_err", "x1_err", "y1_err", "score", "snr", "mag", "mag_err")
FRAME_NUMBERS = ("width", "height", "psf_fwhm_px", "noise_e")
NUMBERS = frozenset({*TRUTH_NUMBERS, *DETECTION_NUMBERS, *FRAME_NUMBERS, "extension"})

# frame: index into the sample's frames. counts: both ends 10 px from the border. snr_limit: what a matched filter of
# the true shape would see over the noise of the sky alone. fwhm_px, noise_e: the PSF of the frame
# and the sigma of its sky in electrons; these and the bounds are NaN where not known.
TRUTH = np.dtype(
    [
        ("frame", "i8"),
        *[(name, "f8") for name in _ENDS],
        ("mag", "f8"),
        ("length_px", "f8"),
        ("rate_arcsec_h", "f8"),
        ("snr_limit", "f8"),
        *[(name, "f8") for name in BOUNDS],
        ("fwhm_px", "f8"),
        ("noise_e", "f8"),
        ("counts", "?"),
    ],
)
DETECTION = np.dtype([("frame", "i8"), *[(name, "f8") for name in DETECTION_NUMBERS]])


@dataclass(frozen=True, eq=False)
class Sample:
    """Truths (``TRUTH``) and detections (``DETECTION``) of ``n_frames`` frames; their indices are 0 .. n_frames - 1.

    ``left_out`` counts truths and detections of frames that the list of frames does not name or that were refused.
    ``pixels`` is how many a frame has on average, NaN where no list of frames says it.
    """

    truths: NDArray[np.void]
    detections: NDArray[np.void]
    n_frames: int
    left_out: int
    pixels: float = np.nan

    def match(self) -> Matches:
        """Match frame by frame; indices in the result are rows of the sample's tables."""
        claimed = np.full(len(self.truths), -1, np.int64)
        verdict = np.zeros(len(self.detections), np.int8)
        truth_rows, detection_rows = _by_frame(self.truths, self.n_frames), _by_frame(self.detections, self.n_frames)
        for of_truth, of_detected in zip(truth_rows, detection_rows, strict=True):
            truths, detections = self.truths[of_truth], self.detections[of_detected]
            one = match_frame(ends_of(truths), truths["counts"], ends_of(detections), detections["score"])
            found = one.claimed >= 0
            claimed[of_truth[found]] = of_detected[one.claimed[found]]
            verdict[of_detected] = one.verdict
        return Matches(claimed, verdict)


def _by_frame(rows: NDArray[np.void], n_frames: int) -> list[NDArray[np.int64]]:
    order = np.argsort(rows["frame"], kind="stable")
    return np.split(order, np.searchsorted(rows["frame"][order], np.arange(1, n_frames)))


def build_sample(truth: Columns, detections: Columns, *, frames: Columns | None, n_frames: int | None) -> Sample:
    """Put tables together. ``frames`` lists all that were examined; without it, all that a table names were.

    ``n_frames`` is their number where no list is at hand: it adds empty frames that no table names. Raises
    ``ValueError`` for missing columns, names that fit several frames, tables that share no frame.
    """
    _require("truth", truth, ("frame", *_ENDS, "mag"))
    _require("detections", detections, ("frame", *_ENDS, "score"))
    _require_numbers("truth", truth, _ENDS)
    _require_numbers("detections", detections, (*_ENDS, "score"))
    if frames is not None:
        frames = _examined(frames)
    tables = [truth, detections] if frames is None else [truth, detections, frames]
    by_extension = all("extension" in table for table in tables)
    truth_keys, detection_keys = (
        frame_keys(truth, by_extension=by_extension),
        frame_keys(detections, by_extension=by_extension),
    )
    listed = distinct(truth_keys) if frames is None else distinct(frame_keys(frames, by_extension=by_extension))
    of_truth, of_detection = places_among(truth_keys, listed), places_among(detection_keys, listed)
    if len(truth_keys) and len(detection_keys) and not {*of_truth[of_truth >= 0]} & {*of_detection[of_detection >= 0]}:
        raise ValueError(
            f"the tables share no frame: truth has {truth_keys[0][0]!r}, detections {detection_keys[0][0]!r}",
        )
    if frames is None:  # a frame without truths is known by its detections alone
        new = distinct(key for key, place in zip(detection_keys, of_detection, strict=True) if place < 0)
        listed = [*listed, *new]
        of_detection = places_among(detection_keys, listed)
    if n_frames is not None and n_frames < len(listed):
        raise ValueError(f"{n_frames} frames were announced, and the tables name {len(listed)}")
    left_out = int((of_truth < 0).sum() + (of_detection < 0).sum())
    shape_of, psf_and_noise = _frame_facts(frames, listed, by_extension=by_extension)
    return Sample(
        _truths(truth, of_truth, shape_of, psf_and_noise),
        _detections(detections, of_detection),
        n_frames if n_frames is not None else len(listed),
        left_out,
        float(shape_of.prod(axis=1).mean()) if listed else np.nan,
    )


def _require(table: str, columns: Columns, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in columns]
    if missing:
        raise ValueError(f"{table}: no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}")


def _require_numbers(table: str, columns: Columns, names: Sequence[str]) -> None:
    for name in names:
        empty = np.flatnonzero(~np.isfinite(columns[name]))
        if len(empty):
            raise ValueError(f"{table}: column {name} has no number in {len(empty)} rows, first in row {empty[0] + 1}")


def _examined(frames: Columns) -> Columns:
    """The list of frames without those that were refused: nobody looked at them."""
    if "reason" not in frames:
        return frames
    done = frames["reason"] == ""
    return {name: column[done] for name, column in frames.items()}


def _frame_facts(
    frames: Columns | None,
    listed: Sequence[Key],
    *,
    by_extension: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Height and width ``[n, 2]``, and FWHM and noise ``[n, 2]``, of each listed frame; NaN where not known."""
    facts = np.full((len(listed), 4), np.nan)
    if frames is not None:
        places = places_among(frame_keys(frames, by_extension=by_extension), listed)
        for column, name in enumerate(("height", "width", "psf_fwhm_px", "noise_e")):
            if name in frames:
                facts[places, column] = frames[name]
    return facts[:, :2], facts[:, 2:]


def _truths(
    table: Columns,
    places: NDArray[np.int64],
    shape_of: NDArray[np.float64],
    psf_and_noise: NDArray[np.float64],
) -> NDArray[np.void]:
    rows = np.zeros(len(places), TRUTH)
    rows["frame"] = places
    for name in (*_ENDS, "mag", "rate_arcsec_h", "snr_limit", *BOUNDS):
        rows[name] = table.get(name, np.nan)
    rows["counts"] = np.nan_to_num(table["inside"], nan=1.0) > 0 if "inside" in table else True
    rows["fwhm_px"] = rows["noise_e"] = np.nan
    rows = rows[places >= 0]
    ends = ends_of(rows)
    rows["length_px"] = lengths(ends)
    for frame in np.unique(rows["frame"]):
        here = rows["frame"] == frame
        rows["fwhm_px"][here], rows["noise_e"][here] = psf_and_noise[frame]
        if np.isfinite(shape_of[frame]).all():
            rows["counts"][here] = inside(ends[here], (int(shape_of[frame, 0]), int(shape_of[frame, 1])))
    return rows


def _detections(table: Columns, places: NDArray[np.int64]) -> NDArray[np.void]:
    rows = np.zeros(len(places), DETECTION)
    rows["frame"] = places
    for name in DETECTION_NUMBERS:
        rows[name] = table.get(name, np.nan)
    return rows[places >= 0]
