"""Objects that are known, at times and places of a table: which of them a track is.

The places of an object are interpolated in time on the sphere: by up to four neighbouring rows, or along the great
circle between two. Beyond its rows it is followed by its rate where the table says rate and direction. A track is an
object when two thirds of the sightings whose times the table covers, and two at least, lie where the object was: the
rest may be pieces of its trail, measured badly.

How it fails at night: a table made for another observer, or for other days, matches nothing; a track of which the table
covers one sighting alone is not judged, for a place without a motion is chance.

Places are unit vectors ``[n, 3]``, times MJD in TAI, angles degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from detector.astrometry import ARCSEC, east_north, separation_deg, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    F8 = NDArray[np.float64]
    I8 = NDArray[np.int64]

# Between rows further apart nothing is interpolated; beyond its last row an object is followed for half a day.
GAP_DAYS, REACH_DAYS = 2.0, 0.5
# A row without a direction stands for as long as its object moves by this; without a rate, for a second.
STANDS_ARCSEC, MOMENT_DAYS = 1.0, 1.0 / 86400.0
# How many sigmas of a sighting's place are added to the radius.
SIGMAS = 3.0
# Of the sightings, as a track is judged to be an object's in evaluations: so many at least, and such a share.
LEAST, SHARE = 2, 2.0 / 3.0
# Room for a path that bends between two rows, when rows near the sightings are looked for.
BEND, BEND_DEG = 1.3, 0.02


@dataclass(frozen=True, eq=False)
class Known:
    """Known objects: ``names`` of each, and rows sorted by object and time, ``owner`` saying whose each is.

    ``rate_deg_day`` and the unit vector ``onward`` of the motion are NaN where the table does not say them.
    """

    names: NDArray[np.str_]
    owner: I8
    mjd_tai: F8
    place: F8
    rate_deg_day: F8
    onward: F8
    spans: Spans


@dataclass(frozen=True, eq=False)
class Spans:
    """Times for which a row says where its object is, sorted by object: between two rows, or beyond one.

    ``first[o]`` to ``first[o + 1]`` are those of object ``o``; ``centre`` and ``reach_deg`` are a circle that holds all
    places of the span.
    """

    row: I8
    begin: F8
    end: F8
    between: NDArray[np.bool_]
    centre: F8
    reach_deg: F8
    first: I8


@dataclass(frozen=True, eq=False)
class Seen:
    """The sightings of one track ``[k]``: when, where, one sigma of the place (NaN: not known)."""

    mjd_tai: F8
    place: F8
    sigma_arcsec: F8


@dataclass(frozen=True)
class Match:
    """An object that a track may be, and how far each sighting is from it; NaN where the table does not say."""

    name: str
    separations_arcsec: tuple[float, ...]


def known_objects(
    names: NDArray[np.str_], mjd_tai: F8, ra: F8, dec: F8, rate_arcsec_h: F8, position_angle_deg: F8
) -> Known:
    """Give the objects of a table, whose rows ``[n]`` may come in any order."""
    unique, owner = np.unique(names, return_inverse=True)
    order = np.lexsort((mjd_tai, owner))
    ra, dec, angle = ra[order], dec[order], np.radians(position_angle_deg[order])[:, None]
    east, north = east_north(ra, dec)
    place, rate = unit_vectors(ra, dec), rate_arcsec_h[order] * 24.0 / ARCSEC
    onward = np.sin(angle) * east + np.cos(angle) * north
    owner, times = owner[order].astype(np.int64), mjd_tai[order]
    spans = _spans(owner, times, place, rate, np.isfinite(angle[:, 0]), len(unique))
    return Known(unique, owner, times, place, rate, onward, spans)


def _spans(owner: I8, times: F8, place: F8, rate: F8, directed: NDArray[np.bool_], objects: int) -> Spans:
    together = np.flatnonzero((owner[1:] == owner[:-1]) & (np.diff(times) <= GAP_DAYS) & (np.diff(times) > 0.0))
    last, first = np.ones(len(owner), np.bool_), np.ones(len(owner), np.bool_)
    last[together], first[together + 1] = False, False
    with np.errstate(divide="ignore", invalid="ignore"):
        stands = np.where(rate > 0.0, STANDS_ARCSEC / ARCSEC / rate, MOMENT_DAYS)
    reach_days = np.clip(np.where(directed & np.isfinite(rate), REACH_DAYS, stands), MOMENT_DAYS, REACH_DAYS)
    ends, begins = np.flatnonzero(last), np.flatnonzero(first)
    row = np.concatenate([together, ends, begins])
    begin = np.concatenate([times[together], times[ends], times[begins] - reach_days[begins]])
    end = np.concatenate([times[together + 1], times[ends] + reach_days[ends], times[begins]])
    middle = place[together] + place[together + 1]
    norm = np.linalg.norm(middle, axis=1, keepdims=True)
    centre = np.concatenate([middle / np.where(norm > 0.0, norm, 1.0), place[ends], place[begins]])
    half = 0.5 * separation_deg(place[together], place[together + 1])
    beyond = np.nan_to_num(rate * reach_days)
    reach = np.concatenate([BEND * half, beyond[ends], beyond[begins]]) + BEND_DEG
    between = np.arange(len(row)) < len(together)
    order = np.argsort(owner[row], kind="stable")
    first_span = np.searchsorted(owner[row][order], np.arange(objects + 1))
    return Spans(row[order], begin[order], end[order], between[order], centre[order], reach[order], first_span)


def places_at(known: Known, spans: I8, mjd_tai: F8) -> F8:
    """Give where the objects of spans ``[n]`` are at times ``[n]`` within them."""
    rows, between = known.spans.row[spans], known.spans.between[spans]
    place = np.empty((len(spans), 3))
    for number, (row, inside, when) in enumerate(zip(rows.tolist(), between.tolist(), mjd_tai.tolist(), strict=True)):
        place[number] = _interpolated(known, row, when) if inside else _followed(known, row, when)
    return place


def _interpolated(known: Known, row: int, mjd_tai: float) -> F8:
    """The place between a row and the next one: Lagrange's polynomial through up to four rows, put on the sphere."""
    mine, times = known.owner, known.mjd_tai
    low = row - (row > 0 and mine[row - 1] == mine[row] and 0.0 < times[row] - times[row - 1] <= GAP_DAYS)
    after = row + 2
    high = after + (after < len(mine) and mine[after] == mine[row] and 0.0 < times[after] - times[row + 1] <= GAP_DAYS)
    near, place = times[low:high] - mjd_tai, known.place[low:high]
    if len(near) == 2:
        angle = np.radians(separation_deg(place[0], place[1]))
        share = -near[0] / (near[1] - near[0])
        weights = np.array([1.0 - share, share]) if angle < 1e-9 else np.sin([(1 - share) * angle, share * angle])
    else:
        weights = np.array(
            [np.prod([b / (b - a) for j, b in enumerate(near) if j != i]) for i, a in enumerate(near)], np.float64
        )
    there = weights @ place
    return np.asarray(there / np.linalg.norm(there))


def _followed(known: Known, row: int, mjd_tai: float) -> F8:
    """The place before or behind a row, along its motion; that of the row where that is not known."""
    angle = np.radians(known.rate_deg_day[row] * (mjd_tai - known.mjd_tai[row]))
    there = np.cos(angle) * known.place[row] + np.sin(angle) * known.onward[row]
    return there if np.isfinite(there).all() else known.place[row]


def matches(known: Known, tracks: Sequence[Seen], radius_arcsec: float) -> list[tuple[Match, ...]]:
    """Give for each track the objects that it may be, the nearest first.

    A sighting fits within ``radius_arcsec`` and ``SIGMAS`` of its own uncertainty.
    """
    if not tracks or not len(known.names):
        return [()] * len(tracks)
    radii = [radius_arcsec + SIGMAS * np.nan_to_num(track.sigma_arcsec) for track in tracks]
    widest_deg = max(float(radius.max(initial=0.0)) for radius in radii) / ARCSEC
    tree = cKDTree(np.concatenate([track.place for track in tracks]))
    chords = 2.0 * np.sin(np.radians(np.minimum(known.spans.reach_deg + widest_deg, 180.0)) / 2.0)
    counts = tree.query_ball_point(known.spans.centre, chords, return_length=True)
    near = np.flatnonzero(counts)
    return [_matches_of(known, near, track, radius) for track, radius in zip(tracks, radii, strict=True)]


def _matches_of(known: Known, near: I8, track: Seen, radius_arcsec: F8) -> tuple[Match, ...]:
    """The objects of one track, among those that have a span in ``near``."""
    spans = known.spans
    owners: set[int] = set()
    for when, place, radius in zip(track.mjd_tai, track.place, radius_arcsec, strict=True):
        now = near[(spans.begin[near] <= when) & (when <= spans.end[near])]
        apart = separation_deg(spans.centre[now], place)
        owners.update(known.owner[spans.row[now[apart <= spans.reach_deg[now] + radius / ARCSEC]]].tolist())
    found = []
    for owner in sorted(owners):
        apart_arcsec = _separations(known, owner, track)
        told = int(np.isfinite(apart_arcsec).sum())
        if np.sum(apart_arcsec <= radius_arcsec) >= max(LEAST, math.ceil(SHARE * told)):
            found.append(Match(str(known.names[owner]), tuple(apart_arcsec.tolist())))
    return tuple(sorted(found, key=lambda match: (np.nanmedian(match.separations_arcsec), match.name)))


def _separations(known: Known, owner: int, track: Seen) -> F8:
    """How far an object is from each sighting, arcsec; NaN where the table does not say where it is then."""
    mine = np.arange(known.spans.first[owner], known.spans.first[owner + 1])
    apart = np.full(len(track.mjd_tai), np.nan)
    for number, when in enumerate(track.mjd_tai):
        now = mine[(known.spans.begin[mine] <= when) & (when <= known.spans.end[mine])]
        if len(now):
            between = now[known.spans.between[now]]
            now = (between if len(between) else now)[:1]
            place = places_at(known, now, np.array([when]))[0]
            apart[number] = separation_deg(place, track.place[number]) * ARCSEC
    return apart
