"""Streaks of many frames as sightings: where and when on the sky, with their trails, ready to be linked.

Linking needs no pixels: the table of streaks is enough, anybody's included. Here its columns become unit vectors, times
and covariances; frames become exposures, and exposures that look at one piece of sky within a night become fields. A
row that cannot be linked (no position, no time) is left out and counted by reason, never dropped in silence.

What fails at night: a frame whose clock or WCS is wrong links with nothing, and shows as tracks with too few sightings.

Angles are degrees in tables and arcsec on the plane; times are seconds (TAI) since ``Catalogue.epoch_mjd_tai``.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.time import Time
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from detector.astrometry import ARCSEC, east_north, separation_deg, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    F8 = NDArray[np.float64]
    I8 = NDArray[np.int64]
    Columns = Mapping[str, NDArray[Any]]

DAY_S = 86400.0
ENDS = ("x0", "y0", "x1", "y1")
_SKY = ("ra", "dec", "ra0", "dec0", "ra1", "dec1")
REQUIRED_NUMBERS = (*ENDS, *_SKY, "score")
REQUIRED = ("frame", "mid_time_utc", *REQUIRED_NUMBERS)
OPTIONAL_NUMBERS = (
    *("extension", "snr", "mag", "mag_err", "length_px", "ra_err", "dec_err", "ra_dec_corr"),
    *("trail_length_arcsec", "trail_length_arcsec_err", "trail_angle_deg_err", "rate_arcsec_h"),
)
NUMBERS = frozenset({*REQUIRED_NUMBERS, *OPTIONAL_NUMBERS})
# Exposures of one place within half a day are one night's.
NIGHT_S = 0.5 * DAY_S
# How far apart two footprints may be and still be neighbours: what moves at 80 arcsec/h goes as far in two hours.
NEIGHBOURS_ARCSEC = 160.0
# Where the fit gave no errors, in pixels: the ends are the network's.
POSITION_ERR_PX, TRAIL_ERR_PX = 1.5, 4.0
# Below these, claimed errors are not believed: distortion, blending, an uneven trail.
LEAST_POSITION_PX, LEAST_TRAIL_PX, LEAST_TRAIL_SHARE = 0.08, 0.3, 0.03
# A mid-point more uncertain than this, or a length by as much and half of itself, is none.
UNMEASURED_PX = 5.0
# Of a trail that is not longer than the PSF only its being short is known.
SHORT_TRAIL_PX = 2.0
_LOGIT_LIMIT = 14.0


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of a table, ``[m]`` each: path and HDU, shape (NaN where nobody said), pixel scale, when, how long.

    ``detector`` tells the CCDs apart; ``exposure`` numbers the exposures of the whole table in the order of time;
    ``exposure_s`` is NaN where the table has no rates.
    """

    name: NDArray[np.str_]
    extension: I8
    detector: I8
    shape: F8  # [m, 2] rows, columns
    scale_arcsec: F8
    time_s: F8
    exposure_s: F8
    exposure: I8


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Sightings ``[n]`` of all frames of a table.

    ``row`` is the row of the table; ``frame`` an index into ``frames``; ``middle``, ``ends`` are unit vectors
    ``[n, 3]`` and ``[n, 2, 3]``; ``pixels`` ``[n, 4]`` x0, y0, x1, y1; ``spread`` ``[n, 2, 2]`` the covariance of the
    mid-point (East, North, arcsec^2); ``trail_err`` ``[n, 2]`` one sigma of the trail along and across itself (arcsec).
    """

    frames: Frames
    epoch_mjd_tai: float
    row: I8
    frame: I8
    middle: F8
    ends: F8
    pixels: F8
    spread: F8
    trail_err: F8
    log_odds: F8
    snr: F8
    mag: F8
    mag_err: F8
    short: NDArray[np.bool_]
    edge: NDArray[np.bool_]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        """How many sightings."""
        return len(self.row)


def catalogue(table: Columns, shapes: Mapping[tuple[str, int], tuple[float, float]] | None = None) -> Catalogue:
    """The sightings of a table of streaks; ``shapes`` gives (rows, columns) of frames by name and HDU.

    Errors: ``ValueError`` for a table without the columns that linking needs.
    """
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise ValueError(
            f"no column {', '.join(missing)}: linking needs what `needlestream detect` writes; "
            f"the table has {', '.join(table) or 'none'}"
        )
    count = len(table["frame"])
    unknown = np.full(count, np.nan)
    get = {name: table.get(name, unknown) for name in OPTIONAL_NUMBERS}
    mjd = _times(table["mid_time_utc"])
    placed = np.all([np.isfinite(table[name]) for name in (*ENDS, *_SKY, "score")], axis=0)
    timed = np.isfinite(mjd)
    measured = _measured(table, get)
    # One rate tells a frame's exposure time, and one frame that of others; without any, a trail tells no motion.
    with np.errstate(invalid="ignore", divide="ignore"):
        rated = np.full(count, np.isfinite(get["rate_arcsec_h"] / get["trail_length_arcsec"]).any())
    left_out = Counter(
        {
            "no-position": int((~placed).sum()),
            "no-time": int((placed & ~timed).sum()),
            "no-rate": int((placed & timed & ~rated).sum()),
            "unmeasured": int((placed & timed & rated & ~measured).sum()),
        }
    )
    row = np.flatnonzero(placed & timed & rated & measured)
    number = {name: np.asarray(table[name][row], np.float64) for name in REQUIRED_NUMBERS}
    number |= {name: np.asarray(get[name][row], np.float64) for name in OPTIONAL_NUMBERS}
    middle = unit_vectors(number["ra"], number["dec"])
    ends = np.stack([unit_vectors(number[f"ra{end}"], number[f"dec{end}"]) for end in "01"], axis=1)
    epoch = float(np.floor(mjd[row].min())) if len(row) else 0.0
    ccd = table["ccd"][row] if "ccd" in table else np.full(len(row), "")
    frames, frame, scale = _frames(table["frame"][row], ccd, number, ends, (mjd[row] - epoch) * DAY_S, shapes or {})
    words = np.char.add(np.char.add(" ", table["flags"][row]), " ") if "flags" in table else np.full(len(row), "  ")
    pixels = np.stack([number[name] for name in ENDS], axis=1)
    length_px = np.hypot(pixels[:, 2] - pixels[:, 0], pixels[:, 3] - pixels[:, 1])
    short = (np.char.find(words, " short ") >= 0) | (length_px < 1.0)
    with np.errstate(divide="ignore"):
        log_odds = np.log(number["score"]) - np.log1p(-np.clip(number["score"], 0.0, 1.0))
    return Catalogue(
        frames=frames,
        epoch_mjd_tai=epoch,
        row=row,
        frame=frame,
        middle=middle,
        ends=ends,
        pixels=pixels,
        spread=_spread(number, scale),
        trail_err=_trail_errors(number, separation_deg(ends[:, 0], ends[:, 1]) * ARCSEC, scale, short),
        log_odds=np.clip(np.nan_to_num(log_odds, nan=-_LOGIT_LIMIT), -_LOGIT_LIMIT, _LOGIT_LIMIT),
        snr=number["snr"],
        mag=number["mag"],
        mag_err=number["mag_err"],
        short=short,
        edge=(np.char.find(words, " edge ") >= 0) | (np.char.find(words, " crosses ") >= 0),
        left_out={reason: n for reason, n in left_out.items() if n},
    )


def _measured(table: Columns, get: Columns) -> NDArray[np.bool_]:
    """Whether a row says where it is: a fit that claims more than ``UNMEASURED_PX`` has found nothing to hold on to.

    Such rows (saturated stars, mostly) would agree with everything.
    """
    length_px = np.hypot(table["x1"] - table["x0"], table["y1"] - table["y0"])
    length = separation_deg(*(unit_vectors(table[f"ra{end}"], table[f"dec{end}"]) for end in "01")) * ARCSEC
    with np.errstate(invalid="ignore", divide="ignore"):
        px = length_px / length
        place = np.hypot(get["ra_err"], get["dec_err"]) * ARCSEC * px
        trail = get["trail_length_arcsec_err"] * px
        free = (place > UNMEASURED_PX) | (trail > UNMEASURED_PX + 0.5 * length_px)
    return np.asarray(~free, np.bool_)


def _times(texts: NDArray[np.str_]) -> F8:
    """MJD (TAI) of ISO times in UTC, with or without a trailing Z; NaN where there is none that can be read."""
    mjd: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # leap seconds of years to come: a second for all exposures alike
        for text in np.unique(texts).tolist():
            try:
                mjd[text] = float(Time(text.rstrip("Z"), format="isot", scale="utc").tai.mjd) if text else np.nan
            except ValueError:
                mjd[text] = np.nan
    return np.array([mjd[text] for text in texts.tolist()], np.float64)


def _frames(
    names: NDArray[np.str_],
    ccd: NDArray[np.str_],
    number: Columns,
    ends: F8,
    time_s: F8,
    shapes: Mapping[tuple[str, int], tuple[float, float]],
) -> tuple[Frames, I8, F8]:
    """The frames of the rows, each row's frame, and each row's pixel scale (arcsec)."""
    extension = np.nan_to_num(number["extension"]).astype(np.int64)
    keys: dict[tuple[str, int], int] = {}
    frame = np.array(
        [keys.setdefault(key, len(keys)) for key in zip(names.tolist(), extension.tolist(), strict=True)], np.int64
    )
    listed = list(keys)
    first = np.unique(frame, return_index=True)[1]
    length = separation_deg(ends[:, 0], ends[:, 1]) * ARCSEC
    length_px = np.hypot(number["x1"] - number["x0"], number["y1"] - number["y0"])
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = _median_by(np.where(length_px > 1.0, length / length_px, np.nan), frame, len(listed))
        exposure_s = _median_by(3600.0 * number["trail_length_arcsec"] / number["rate_arcsec_h"], frame, len(listed))
    scale = np.where(np.isfinite(scale), scale, np.nanmedian(scale) if np.isfinite(scale).any() else 1.0)
    if np.isfinite(exposure_s).any():
        exposure_s = np.where(np.isfinite(exposure_s), exposure_s, np.nanmedian(exposure_s))
    shape = np.array([shapes.get(key, (np.nan, np.nan)) for key in listed], np.float64).reshape(-1, 2)
    frames = Frames(
        name=np.array([name for name, _ in listed], np.str_),
        extension=extension[first],
        detector=_detectors(ccd[first], extension[first]),
        shape=shape,
        scale_arcsec=scale,
        time_s=time_s[first],
        exposure_s=exposure_s,
        exposure=_exposures(time_s[first], exposure_s),
    )
    return frames, frame, scale[frame]


def _detectors(ccd: NDArray[np.str_], extension: I8) -> I8:
    """A number for each CCD, by its name; by the HDU where it has none."""
    named = np.char.add(np.char.add(ccd.astype(np.str_), "|"), np.where(ccd == "", extension, -1).astype(np.str_))
    return np.asarray(np.unique(named, return_inverse=True)[1], np.int64).reshape(-1)


def _median_by(values: F8, group: I8, count: int) -> F8:
    """The median of the finite values of each group, NaN where there is none."""
    median = np.full(count, np.nan)
    good = np.isfinite(values)
    order = np.argsort(group[good], kind="stable")
    parts = np.split(values[good][order], np.searchsorted(group[good][order], np.arange(1, count)))
    for index, part in enumerate(parts):
        if len(part):
            median[index] = np.median(part)
    return median


def _exposures(time_s: F8, exposure_s: F8) -> I8:
    """Exposures by time: frames whose middles are closer than a quarter of their exposure are of one."""
    order = np.argsort(time_s, kind="stable")
    apart = np.maximum(1.0, 0.25 * np.nan_to_num(exposure_s[order], nan=4.0))
    number = np.zeros(len(time_s), np.int64)
    number[order] = np.cumsum(np.concatenate([[0], np.diff(time_s[order]) > apart[1:]])) if len(time_s) else 0
    return number


def _spread(number: Columns, scale: F8) -> F8:
    """Covariance of the mid-points, East and North in arcsec^2, claimed or assumed, never smaller than can be true."""
    known = np.isfinite(number["ra_err"]) & np.isfinite(number["dec_err"])
    assumed = POSITION_ERR_PX * scale
    sigma = [np.where(known, number[name] * ARCSEC, assumed) for name in ("ra_err", "dec_err")]
    correlation = np.where(known, np.clip(np.nan_to_num(number["ra_dec_corr"]), -0.99, 0.99), 0.0)
    spread = np.empty((len(scale), 2, 2))
    for axis in (0, 1):
        spread[:, axis, axis] = sigma[axis] ** 2 + (LEAST_POSITION_PX * scale) ** 2
    spread[:, 0, 1] = spread[:, 1, 0] = correlation * sigma[0] * sigma[1]
    return spread


def _trail_errors(number: Columns, length: F8, scale: F8, short: NDArray[np.bool_]) -> F8:
    """One sigma of the trail's vector along and across itself, arcsec."""
    assumed = TRAIL_ERR_PX * scale
    along = np.where(np.isfinite(number["trail_length_arcsec_err"]), number["trail_length_arcsec_err"], assumed)
    turn = np.radians(np.minimum(number["trail_angle_deg_err"], 90.0))
    across = np.where(np.isfinite(turn), length * turn, assumed)
    floor = np.stack([np.hypot(LEAST_TRAIL_PX * scale, LEAST_TRAIL_SHARE * length), LEAST_TRAIL_PX * scale], axis=1)
    errors = np.hypot(np.stack([along, across], axis=1), floor)
    least = np.where(short, np.maximum(SHORT_TRAIL_PX * scale, length), 0.0)[:, None]
    # A trail cannot be more uncertain than a few lengths: the fit's covariance is local.
    most = (length + TRAIL_ERR_PX * scale)[:, None]
    return np.asarray(np.maximum(np.minimum(errors, most), least), np.float64)


@dataclass(frozen=True, eq=False)
class Plane:
    """Sightings ``[n]`` of one piece of sky on its tangent plane (arcsec, towards ``axes`` ``[3, 3]``: E, N, centre).

    ``index`` is their place in the catalogue; they come in the order of exposures ``exposure`` (0 .. k - 1), whose
    times are ``times_s`` ``[k]``. ``place``, ``trail`` are ``[n, 2]``, their covariances ``spread``, ``trail_spread``
    ``[n, 3]`` (xx, xy, yy). ``exposure_s`` is NaN where rates are not known.
    """

    catalogue: Catalogue
    axes: F8
    index: I8
    exposure: I8
    times_s: F8
    place: F8
    spread: F8
    trail: F8
    trail_spread: F8
    time_s: F8
    exposure_s: F8
    scale_arcsec: float


def project(found: Catalogue, index: I8) -> Plane:
    """The sightings ``index`` of a catalogue on the tangent plane about their middle."""
    centre = found.middle[index].sum(axis=0)
    centre /= np.linalg.norm(centre)
    longitude, latitude = np.degrees(np.arctan2(centre[1], centre[0])), np.degrees(np.arcsin(centre[2]))
    axes = np.stack([*east_north(np.array(longitude), np.array(latitude)), centre])
    exposure_of_frame = found.frames.exposure[found.frame[index]]
    order = np.argsort(exposure_of_frame, kind="stable")
    index = index[order]
    numbers, exposure = np.unique(exposure_of_frame[order], return_inverse=True)
    frame = found.frame[index]
    time_s = found.frames.time_s[frame]
    times = np.bincount(exposure, time_s) / np.bincount(exposure) if len(numbers) else np.empty(0)
    first, last = (onto(axes, found.ends[index, end]) for end in (0, 1))
    trail = last - first
    length = np.hypot(trail[:, 0], trail[:, 1])
    along = np.where(length[:, None] > 0.0, trail / np.maximum(length, 1e-12)[:, None], [1.0, 0.0])
    turned = _local_axes(axes, found.middle[index])
    spread = np.einsum("nij,njk,nlk->nil", turned, found.spread[index], turned)
    squares = found.trail_err[index] ** 2
    return Plane(
        catalogue=found,
        axes=axes,
        index=index,
        exposure=exposure.reshape(-1).astype(np.int64),
        times_s=np.asarray(times, np.float64),
        place=onto(axes, found.middle[index]),
        spread=np.stack([spread[:, 0, 0], spread[:, 0, 1], spread[:, 1, 1]], axis=1),
        trail=trail,
        trail_spread=np.stack(
            [
                squares[:, 0] * along[:, 0] ** 2 + squares[:, 1] * along[:, 1] ** 2,
                (squares[:, 0] - squares[:, 1]) * along[:, 0] * along[:, 1],
                squares[:, 0] * along[:, 1] ** 2 + squares[:, 1] * along[:, 0] ** 2,
            ],
            axis=1,
        ),
        time_s=time_s,
        exposure_s=found.frames.exposure_s[frame],
        scale_arcsec=float(np.median(found.frames.scale_arcsec[np.unique(frame)])) if len(frame) else 1.0,
    )


def onto(axes: F8, vectors: F8) -> F8:
    """Unit vectors ``[n, 3]`` on the tangent plane of ``axes``: ``[n, 2]`` arcsec East and North (gnomonic)."""
    seen = vectors @ axes.T
    return np.asarray(seen[:, :2] / seen[:, 2:] * np.degrees(1.0) * ARCSEC, np.float64)


def off(axes: F8, places: F8) -> F8:
    """Unit vectors ``[n, 3]`` of places ``[n, 2]`` on the tangent plane, the inverse of ``onto``."""
    seen = np.concatenate([places / (np.degrees(1.0) * ARCSEC), np.ones((len(places), 1))], axis=1)
    vectors = seen @ axes
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1)[:, None], np.float64)


def _local_axes(axes: F8, vectors: F8) -> F8:
    """Local East and North at ``vectors`` ``[n, 3]`` in the plane's axes: ``[n, 2 (plane), 2 (East, North)]``."""
    longitude, latitude = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])), np.degrees(np.arcsin(vectors[:, 2]))
    local = np.stack(east_north(longitude, latitude), axis=1)
    return np.asarray(np.einsum("pk,nlk->npl", axes[:2], local), np.float64)


def fields(found: Catalogue) -> list[I8]:
    """The catalogue's sightings field by field: frames that overlap, or nearly do, within a night are of one.

    A frame's footprint is the circle about its sightings; frames of one exposure are told apart by their place alone.
    """
    frames = found.frames
    count = len(frames.name)
    if not count:
        return []
    sums = np.stack([np.bincount(found.frame, found.middle[:, axis], count) for axis in range(3)], axis=1)
    middles = np.asarray(sums / np.linalg.norm(sums, axis=1)[:, None], np.float64)
    radius = np.zeros(count)
    np.maximum.at(radius, found.frame, separation_deg(found.middle, middles[found.frame]) * ARCSEC)
    seen = np.nan_to_num(0.5 * np.hypot(frames.shape[:, 0], frames.shape[:, 1]) * frames.scale_arcsec)
    radius = np.maximum(radius, seen)
    reach = np.radians((2 * radius.max() + NEIGHBOURS_ARCSEC) / ARCSEC)
    pairs = cKDTree(middles).query_pairs(2.0 * np.sin(min(reach, np.pi) / 2.0), output_type="ndarray")
    one, other = pairs[:, 0], pairs[:, 1]
    apart = separation_deg(middles[one], middles[other]) * ARCSEC
    joined = (apart < radius[one] + radius[other] + NEIGHBOURS_ARCSEC) & (
        np.abs(frames.time_s[one] - frames.time_s[other]) < NIGHT_S
    )
    links = coo_array((np.ones(int(joined.sum())), (one[joined], other[joined])), shape=(count, count))
    _, label = connected_components(links, directed=False)
    of_row = label[found.frame]
    order = np.argsort(of_row, kind="stable")
    return [part.astype(np.int64) for part in np.split(order, np.flatnonzero(np.diff(of_row[order])) + 1)]
