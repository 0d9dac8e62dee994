"""Streaks of the exposures of a field -> tracks: sets of sightings that are one moving object, with a probability.

Candidates go in far below any threshold for alerts: a place and a trail in three exposures reject chance so well that
tracks reach deeper than single streaks. The order is: sightings of a field (``sightings``) -> sets that may be one
object (``tracklets``) -> what agrees and what chance would give (``motion``) -> a score, given as a callable -> best
first, each sighting in one track at most -> missing sightings looked for at the predicted place.

Two, three and more sightings are accepted by thresholds of their own, for two of four are mostly chance; and so are
things that hardly move, for those are mostly stars and galaxies that a noisy fit moved about.

What fails at night: a field of one exposure has no track; that is no error. Wide fields are linked in pieces of the
sky, overlapping by what an object can move.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from detector.footprints import Footprint, covered, footprints_of
from detector.motion import FEATURES, features, motion_on, paths
from detector.sightings import DAY_S, NIGHT_S, fields, project
from detector.standing import static_rows, surroundings
from detector.tracklets import tracklets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from detector.motion import Motion, Surroundings
    from detector.sightings import Catalogue, Plane

    F8 = NDArray[np.float64]
    I8 = NDArray[np.int64]

# Pieces of a wide field, and how far they overlap: a tangent plane is straight to a milliarcsec over such a width.
PIECE_ARCSEC = 3600.0
OVERLAP_ARCSEC = 400.0
# Paths closer than this across, and than half a trail and this along, are one object's.
SAME_OBJECT_ACROSS_PX, SAME_OBJECT_ALONG_PX = 4.0, 6.0
# A missing sighting: how far from the predicted trail, how much turned where both are long enough, how much fainter.
PART_ACROSS_PX, PART_ALONG_PX = 3.0, 2.0
PART_ANGLE_DEG, PART_ANGLE_FROM_PX = 20.0, 8.0
PART_MAG = 1.5
CHANCE_AT_PLACE = 0.03
# Beyond any tail of a fit: such a set is none, whatever else speaks for it.
WORST_PLACE_CHI2, WORST_TRAIL_CHI2 = 25.0, 80.0
_PLACE, _TRAIL = FEATURES.index("chi2_place"), FEATURES.index("chi2_worst")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Scorer(Protocol):
    """What judges sets of sightings."""

    def __call__(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the probability that a set is one object, by its features ``[n, len(FEATURES)]``."""

    def accepts(self, table: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which sets are tracks, by their features and their probability ``[n]``."""


@dataclass(frozen=True, eq=False)
class Track:
    """One moving object: rows of the table of streaks in order of time, their times, its probability and its motion.

    ``exposures`` is how many the field has, ``shown`` how many of them show the object's place.
    """

    rows: tuple[int, ...]
    times_mjd_tai: tuple[float, ...]
    score: float
    motion: Motion
    shown: int
    exposures: int


@dataclass(frozen=True, eq=False)
class Linked:
    """What linking gives: tracks, best first; rows that stand still; counts by name (in = out)."""

    tracks: tuple[Track, ...]
    static: NDArray[np.int64]
    counts: Mapping[str, int]


def link(found: Catalogue, scorer: Scorer) -> Linked:
    """Link all fields of a catalogue."""
    tracks: list[Track] = []
    static: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    counts = {"fields": 0, "sightings": len(found), "sets": 0, "tracks": 0, "linked": 0, **found.left_out}
    for index in fields(found):
        counts["fields"] += 1
        used: set[int] = set()
        for plane, core in pieces(found, index):
            sets = Sets.of(plane)
            counts["sets"] += len(sets.members)
            accepted = resolved(sets, scorer, used, core)
            tracks += accepted
            used |= {row for track in accepted for row in track.rows}
            static.append(static_rows(found, plane, np.array(sorted(used), np.int64)))
    tracks.sort(key=lambda track: (-track.score, track.rows))
    marked = np.setdiff1d(np.concatenate(static), [row for track in tracks for row in track.rows])
    counts["tracks"] = len(tracks)
    counts["linked"] = sum(len(track.rows) for track in tracks)
    counts["static"] = len(marked)
    return Linked(tuple(tracks), marked.astype(np.int64), counts)


def pieces(found: Catalogue, index: I8) -> Iterator[tuple[Plane, NDArray[np.bool_]]]:
    """A field as planes small enough to be flat, with their overlap; and which sightings each is to answer for."""
    yield from _split(found, index, np.ones(len(index), np.bool_))


def _split(found: Catalogue, index: I8, core: NDArray[np.bool_]) -> Iterator[tuple[Plane, NDArray[np.bool_]]]:
    plane = project(found, index)
    own = core[np.argsort(found.frames.exposure[found.frame[index]], kind="stable")]
    extent = np.ptp(plane.place[own], axis=0) if own.any() else np.zeros(2)
    if float(extent.max()) <= PIECE_ARCSEC:
        if own.any():
            yield plane, own
        return
    axis = int(extent.argmax())
    along = plane.place[:, axis]
    cut = float(np.median(along[own]))
    for side in (along <= cut, along > cut):
        mine = own & side
        near = np.all(
            (plane.place >= plane.place[mine].min(axis=0) - OVERLAP_ARCSEC)
            & (plane.place <= plane.place[mine].max(axis=0) + OVERLAP_ARCSEC),
            axis=1,
        )
        yield from _split(found, plane.index[near], mine[near])


@dataclass(frozen=True, eq=False)
class Sets:
    """Sets of sightings ``members`` ``[m, k]`` (-1: none) of a plane, with what is known of them ``[m, features]``."""

    plane: Plane
    around: Surroundings
    footprints: Sequence[Footprint]
    members: I8
    table: F8

    @classmethod
    def of(cls, plane: Plane) -> Sets:
        """All sets that the trails of a plane allow."""
        members = tracklets(plane, longest_gap_s=NIGHT_S)
        bare = cls(plane, surroundings(plane), footprints_of(plane), members, np.empty((0, 0)))
        table = bare.judged(members)
        agrees = (table[:, _PLACE] < WORST_PLACE_CHI2) & (table[:, _TRAIL] < WORST_TRAIL_CHI2)
        return replace(bare, members=members[agrees], table=table[agrees])

    def judged(self, members: I8) -> F8:
        """The features of other sets of the same plane."""
        return features(self.plane, members, self.around, (self.shown(members) & (members < 0)).sum(axis=1))

    def shown(self, members: I8) -> NDArray[np.bool_]:
        """Which exposures show the place of each set."""
        return covered(self.plane, self.footprints, paths(self.plane, members))


def resolved(sets: Sets, scorer: Scorer, used: set[int], core: NDArray[np.bool_]) -> list[Track]:
    """The accepted tracks of a plane: best first, each sighting once, each object once.

    A set that lost sightings to a better one is judged again by what is left. ``used`` are rows of the table that are
    taken; ``core`` says which sightings the plane answers for: the first one of a track must be among them.
    """
    plane = sets.plane
    row_of = plane.catalogue.row[plane.index]
    taken = np.isin(row_of, np.array(sorted(used), np.int64)) if used else np.zeros(len(row_of), np.bool_)
    score = scorer(sets.table) if len(sets.members) else np.empty(0)
    hopeful = np.flatnonzero(scorer.accepts(sets.table, score)) if len(score) else np.empty(0, np.int64)
    queue = [(-float(score[m]), tuple(sets.members[m].tolist())) for m in hopeful.tolist()]
    heapq.heapify(queue)
    seen: set[tuple[int, ...]] = set()
    accepted: list[tuple[float, I8]] = []
    ways = np.empty((0, 4))
    while queue:
        negative, members = heapq.heappop(queue)
        mine = np.array(members, np.int64)
        free = np.where((mine >= 0) & ~taken[mine], mine, -1)
        if (free != mine).any():
            left = tuple(free.tolist())
            if (free >= 0).sum() >= 2 and left not in seen:
                seen.add(left)
                table = sets.judged(free[None])
                value = scorer(table)
                if scorer.accepts(table, value)[0]:
                    heapq.heappush(queue, (-float(value[0]), left))
            continue
        way = paths(plane, mine[None])
        if _same_object(plane, way[0], ways).any():
            continue
        ways = np.concatenate([ways, way])
        taken[mine[mine >= 0]] = True
        accepted.append((-negative, mine))
    tracks = []
    for probability, mine in accepted:
        if not core[mine[mine >= 0][0]]:
            continue
        whole = recovered(sets, mine, taken)
        shown = sets.shown(mine[None])[0] | (whole >= 0)
        chosen = whole[whole >= 0]
        taken[chosen] = True
        days = plane.catalogue.epoch_mjd_tai + plane.time_s[chosen] / DAY_S
        motion = motion_on(plane, mine)
        rows, times = tuple(row_of[chosen].tolist()), tuple(days.tolist())
        tracks.append(Track(rows, times, probability, motion, int(shown.sum()), len(plane.times_s)))
    return tracks


def recovered(sets: Sets, members: I8, taken: NDArray[np.bool_]) -> I8:
    """A set with the sightings that it missed: what lies on its predicted trail, in part or ill measured.

    Taken is the free sighting nearest to the predicted middle whose own middle lies within the predicted trail, along
    it where it is long enough to tell; and only where chance would put fewer than ``CHANCE_AT_PLACE`` into that room.
    """
    plane, scale = sets.plane, sets.plane.scale_arcsec
    way = paths(plane, members[None])[0]
    speed = float(np.hypot(way[2], way[3]))
    exposure_s = float(np.nan_to_num(plane.exposure_s[0]))
    trail = speed * exposure_s
    if not trail > 0.0:
        return members
    ahead = way[2:] / speed
    magnitudes = plane.catalogue.mag[plane.index[members[members >= 0]]]
    known = magnitudes[np.isfinite(magnitudes)]
    magnitude = float(np.median(known)) if len(known) else np.nan
    whole = members.copy()
    for exposure in np.flatnonzero(members < 0).tolist():
        here = np.flatnonzero((plane.exposure == exposure) & ~taken)
        apart = plane.place[here] - way[:2] - (plane.time_s[here] - plane.times_s.mean())[:, None] * way[2:]
        along, across = np.abs(apart @ ahead), np.abs(apart[:, 0] * ahead[1] - apart[:, 1] * ahead[0])
        length = np.hypot(plane.trail[here, 0], plane.trail[here, 1])
        turned = np.abs(plane.trail[here] @ ahead) < np.cos(np.radians(PART_ANGLE_DEG)) * length
        turned &= np.minimum(length, trail) > PART_ANGLE_FROM_PX * scale
        reach = PART_ALONG_PX * scale + 0.5 * trail
        fits = (across < PART_ACROSS_PX * scale) & (along < reach) & ~turned & (length < 1.5 * trail + 4.0 * scale)
        fits &= np.nan_to_num(np.abs(plane.catalogue.mag[plane.index[here]] - magnitude)) < PART_MAG
        room = 4.0 * reach * PART_ACROSS_PX * scale
        rare = sets.around.density[here] * room < CHANCE_AT_PLACE
        if (fits & rare).any():
            whole[exposure] = here[np.where(fits & rare, along + across, np.inf).argmin()]
    return whole


def _same_object(plane: Plane, way: F8, others: F8) -> NDArray[np.bool_]:
    """Which paths ``[m, 4]`` a path ``[4]`` runs along: pieces of a trail found in parts link to parallel tracks."""
    speed = np.maximum(np.hypot(others[:, 2], others[:, 3]), 1e-12)
    ahead = others[:, 2:] / speed[:, None]
    apart = way[:2] - others[:, :2]
    along = np.abs((apart * ahead).sum(axis=1))
    across = np.abs(apart[:, 0] * ahead[:, 1] - apart[:, 1] * ahead[:, 0])
    exposure_s = plane.exposure_s[0] if np.isfinite(plane.exposure_s[0]) else 0.0
    allowed = SAME_OBJECT_ALONG_PX * plane.scale_arcsec + 0.5 * speed * exposure_s
    faster = np.linalg.norm(way[2:] - others[:, 2:], axis=1) * (plane.times_s[-1] - plane.times_s[0])
    close = (across < SAME_OBJECT_ACROSS_PX * plane.scale_arcsec) & (along < allowed)
    return np.asarray(close & (faster < 2.0 * allowed), np.bool_)


def identifier(keys: Sequence[str]) -> str:
    """Eight characters (0-9, A-Z, a-z) that stand for a set of sightings, whatever their order.

    They fit an ADES ``trkSub``. 62^8 is 2e14: a million tracks share one with a probability of two in a thousand.
    """
    digest = hashlib.sha256("\n".join(sorted(keys)).encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    letters = []
    for _ in range(8):
        number, letter = divmod(number, 62)
        letters.append(_BASE62[letter])
    return "".join(letters)
