"""Fields that are open: the sightings of each, and the tracks that were published of them.

A field is the messages of one key that follow each other within the time-out and whose exposures lie within half a day.
It stays open until nothing of it came for the time-out, so exposures may come late and in any order; then it is closed
with what it has and forgotten, which bounds the memory: 0.6 kB a candidate of the fields that are open, 2 kB while they
are linked.

All here is made from messages alone, so that reading them again after a crash gives the same fields. Time is that of
the messages' stamps (Unix milliseconds), so that a night that is replayed in minutes is linked like the night itself.

What fails at night: a message that is no streak is an ``UnreadableError``, to be counted and passed over. An exposure
that comes after its field was closed makes a new field, alone, and links with nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.linking import link
from detector.sightings import DAY_S, NIGHT_S, catalogue
from detector.streaks import STREAK, StreakFlag
from stream.alerts import streak_rows
from stream.framing import UNREADABLE, decode, no_registry
from stream.messages import COPY_OF, FRAME_SHAPE
from stream.tables import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from detector.linking import Scorer, Track
    from stream.framing import SchemaOf
    from stream.messages import Message

NIGHT_DAYS = NIGHT_S / DAY_S
# Namespace of the tracks' ids; an arbitrary constant that must never change (RFC 9562, section 6.6).
TRACK_NAMESPACE = uuid.UUID("2d3c0e54-8a0f-5a0b-8f0e-9b1c7f3ad6c2")

ORIGIN = ("inputTopic", "inputPartition", "inputOffset", "extension")
OF_FRAME = (*ORIGIN, "source", "replayed", "exposure", "ccd", "band", "exposureTime", "midpointMjdTai")


class UnreadableError(Exception):
    """A message that holds no streaks as ``schema/1/*/streak.avsc`` has them; the text says what is odd."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """The streaks of one frame that one message brought: ``frame`` by the names in ``OF_FRAME``.

    ``rows`` is an array of ``STREAK``, ``shape`` the frame's rows and columns where they are told. A sheet that is not
    ``own`` is a copy for this key: what it shows is published by the field that it belongs to.
    """

    frame: Mapping[str, Any]
    ids: tuple[str, ...]
    rows: NDArray[np.void]
    own: bool
    shape: tuple[float, float] | None = None


LATEST_MJD = 1e6  # the year 4596: beyond that astropy has no calendar, and nobody a camera


def sheets(message: Message, schema_of: SchemaOf = no_registry) -> list[Sheet]:
    """Give the frames that a message of ``streaks`` or ``candidates`` tells of. Raises ``UnreadableError``."""
    try:
        groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
        for record in decode(message.value or b"", schema_of):
            groups[tuple(record[name] for name in ORIGIN)].append(record)
        _check_times(groups.values())
        return [
            Sheet(
                {name: records[0][name] for name in OF_FRAME},
                tuple(str(record["alertId"]) for record in records),
                streak_rows(records),
                message.header(COPY_OF) is None,
                _shape(message.header(FRAME_SHAPE)),
            )
            for records in groups.values()
        ]
    except UNREADABLE as error:
        raise UnreadableError(f"{type(error).__name__}: {error}") from None


def _shape(text: str | None) -> tuple[float, float] | None:
    """Rows and columns as a header tells them; None where it does not."""
    rows, _, columns = (text or "").partition(",")
    plain = all(word.isascii() and word.isdigit() and len(word) < 7 for word in (rows, columns))
    return (float(rows), float(columns)) if plain else None


def _check_times(groups: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    for records in groups:
        mjd = records[0]["midpointMjdTai"]
        if mjd is not None and not 0.0 <= mjd <= LATEST_MJD:
            raise ValueError(f"midpointMjdTai = {mjd!r} is no date")


def field_key(message: Message, sheet: Sheet) -> str:
    """Give the key of the field that a sheet belongs to: the message's own, else what its frame is called."""
    if message.key:
        return message.key.decode("utf-8", "replace")
    return str(sheet.frame["exposure"] or frame_name(sheet.frame))


@dataclass(frozen=True)
class Published:
    """What subscribers know of a track: its last version, its sightings (none: withdrawn), and all it ever had."""

    version: int
    sightings: frozenset[str]
    ever: frozenset[str]


UNKNOWN = Published(0, frozenset(), frozenset())


class Field:
    """One open field; it changes as messages come."""

    def __init__(self, key: str, tracks_from: int) -> None:
        self.key = key
        self.tracks_from = tracks_from  # offset in the topic of tracks before which nothing of this field is
        self.first_offsets: dict[str, int] = {}
        self.first_ms = self.last_ms = 0
        self.first_mjd = self.last_mjd = np.nan
        self.changed_ms: int | None = None
        self.ids: set[str] = set()
        self.sheets: list[Sheet] = []

    def takes(self, stamp_ms: int, mjd: float | None, timeout_ms: float) -> bool:
        """Say whether a sheet of this field's key belongs to it, or to another night's field of that key."""
        near = self.first_ms - timeout_ms < stamp_ms < self.last_ms + timeout_ms
        if mjd is None or not np.isfinite(self.first_mjd):
            return near
        return near and max(self.last_mjd, mjd) - min(self.first_mjd, mjd) <= NIGHT_DAYS

    def add(self, message: Message, sheet: Sheet, *, again: bool) -> int:
        """Take a sheet in; gives how many sightings are new (a message that came twice brings none)."""
        mjd = sheet.frame["midpointMjdTai"]
        stamp_ms = message.timestamp_ms
        self.first_ms = min(self.first_ms or stamp_ms, stamp_ms)
        self.last_ms = max(self.last_ms, stamp_ms)
        if mjd is not None:
            self.first_mjd, self.last_mjd = np.fmin(self.first_mjd, mjd), np.fmax(self.last_mjd, mjd)
        before = self.first_offsets.get(message.topic, message.offset)
        self.first_offsets[message.topic] = min(before, message.offset)
        new = [number for number, alert_id in enumerate(sheet.ids) if alert_id not in self.ids]
        if new:
            self.ids.update(sheet.ids[number] for number in new)
            self.sheets.append(replace(sheet, ids=tuple(sheet.ids[n] for n in new), rows=sheet.rows[new]))
            if not again:
                self.changed_ms = self.changed_ms or stamp_ms
        return len(new)


class Fields:
    """The open fields of one partition, and what was published of them."""

    def __init__(self, timeout_s: float, schema_of: SchemaOf = no_registry) -> None:
        self.schema_of = schema_of
        self.timeout_ms = timeout_s * 1000.0
        self.open: dict[str, list[Field]] = {}
        self.published: dict[str, Published] = {}

    def __iter__(self) -> Iterator[Field]:
        """Go through the open fields."""
        return (one for several in self.open.values() for one in several)

    def add(self, message: Message, tracks_from: int, *, again: bool = False) -> int:
        """Take a message in; gives how many sightings are new. Raises ``UnreadableError``.

        ``again``: it is read for a second time, and what it brings was linked when it was read first.
        """
        count = 0
        for sheet in sheets(message, self.schema_of):
            key = field_key(message, sheet)
            mjd = sheet.frame["midpointMjdTai"]
            several = self.open.setdefault(key, [])
            mine = next((one for one in several if one.takes(message.timestamp_ms, mjd, self.timeout_ms)), None)
            if mine is None:
                mine = Field(key, tracks_from)
                several.append(mine)
            count += mine.add(message, sheet, again=again)
        return count

    def due(self, now_ms: float, link_after_s: float) -> bool:
        """Say whether a field has rested for so long, or has not for six times as long."""
        wait_ms = link_after_s * 1000.0
        changed = [(one.changed_ms, one.last_ms) for one in self if one.changed_ms is not None]
        return any(now_ms - last >= wait_ms or now_ms - since >= 6.0 * wait_ms for since, last in changed)

    def close(self, now_ms: float) -> int:
        """Forget the fields whose time is over; gives how many. What changed must have been linked."""
        before = sum(len(several) for several in self.open.values())
        for key, several in list(self.open.items()):
            kept = [one for one in several if one.changed_ms is not None or now_ms - one.last_ms < self.timeout_ms]
            self.open[key] = kept
            if not kept:
                del self.open[key]
        closed = before - sum(len(several) for several in self.open.values())
        if closed:
            self.keep_known()
        return closed

    def keep_known(self) -> None:
        """Forget the tracks of which no sighting is in an open field."""
        ids: set[str] = set().union(*(one.ids for one in self))
        self.published = {name: known for name, known in self.published.items() if known.ever & ids}

    def learn(self, record: Mapping[str, Any]) -> None:
        """Take in what was published before, by whomever: a record of the topic of tracks."""
        name, version = str(record["trackId"]), int(record["version"])
        known = self.published.get(name, UNKNOWN)
        if version > known.version:
            sightings = frozenset(str(sighting["alertId"]) for sighting in record["sightings"])
            self.published[name] = Published(version, sightings, known.ever | sightings)

    def linked(self, scorer: Scorer, now_mjd_tai: float) -> list[tuple[str, dict[str, Any]]]:
        """Link every field that changed; gives the records to publish, each with its key, and takes them for known."""
        records = []
        for one in self:
            if one.changed_ms is None:
                continue
            for record in self._changes(one, scorer, now_mjd_tai):
                self.learn(record)
                records.append((one.key, record))
            one.changed_ms = None
        return records

    def _changes(self, one: Field, scorer: Scorer, now_mjd_tai: float) -> list[dict[str, Any]]:
        """The records of the tracks of a field that are new or other than what is known."""
        table, sightings = linking_table(one.sheets)
        tracks = [
            track
            for track in link(catalogue(table, shapes_of(one.sheets)), scorer).tracks
            if sightings[track.rows[0]].own
        ]
        members = [[sightings[row].alert_id for row in track.rows] for track in tracks]
        mine = {name: known for name, known in self.published.items() if known.sightings & one.ids}
        names = identities(members, mine, self.published)
        made = []
        for track, ids, name in zip(tracks, members, names, strict=True):
            known = self.published.get(name, UNKNOWN)
            if known.sightings != frozenset(ids):
                shared = _head(name, known.version + 1, one.key, now_mjd_tai)
                made.append(shared | _track_record(track, [sightings[row] for row in track.rows]))
        gone = sorted(mine.keys() - set(names))
        return made + [
            _head(name, mine[name].version + 1, one.key, now_mjd_tai)
            | {"withdrawn": True, "nSightings": 0, "sightings": []}
            for name in gone
        ]


# --- the table that is linked -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sighting:
    """One row of the table: the streak's id, its frame, its row of ``STREAK``."""

    alert_id: str
    frame: Mapping[str, Any]
    row: np.void
    own: bool


def linking_table(several: Sequence[Sheet]) -> tuple[dict[str, NDArray[Any]], list[Sighting]]:
    """Give the table that ``link`` takes, in an order that does not depend on what came first; and its rows."""
    sightings = [
        Sighting(alert_id, sheet.frame, row, sheet.own)
        for sheet in several
        for alert_id, row in zip(sheet.ids, sheet.rows, strict=True)
    ]
    sightings.sort(key=_order)
    rows = np.array([one.row for one in sightings], STREAK)
    texts = {
        "frame": [frame_name(one.frame) for one in sightings],
        "exposure": [str(one.frame["exposure"] or "") for one in sightings],
        "ccd": [str(one.frame["ccd"] or "") for one in sightings],
        "mid_time_utc": _times(one.frame["midpointMjdTai"] for one in sightings),
        "flags": [StreakFlag(int(flags)).words() for flags in rows["flags"]],
    }
    table: dict[str, NDArray[Any]] = {name: np.array(values, np.str_) for name, values in texts.items()}
    table["extension"] = np.array([one.frame["extension"] for one in sightings], np.float64)
    return table | {name: rows[name] for name in STREAK.names or () if name != "flags"}, sightings


def frame_name(frame: Mapping[str, Any]) -> str:
    """Give ``topic/partition/offset``."""
    return "/".join(str(frame[name]) for name in ORIGIN[:3])


def shapes_of(several: Iterable[Sheet]) -> dict[tuple[str, int], tuple[float, float]]:
    """Give the rows and columns of the frames, by name and HDU, as far as they are told."""
    return {
        (frame_name(sheet.frame), int(sheet.frame["extension"])): sheet.shape
        for sheet in several
        if sheet.shape is not None
    }


def _order(one: Sighting) -> tuple[Any, ...]:
    return (one.frame["midpointMjdTai"] or 0.0, *(one.frame[name] for name in ORIGIN), one.alert_id)


def _times(days: Iterable[float | None]) -> list[str]:
    """ISO times; each is made once, since astropy takes its time over it."""
    known: dict[float | None, str] = {}
    return [known[day] if day in known else known.setdefault(day, utc_text(day) or "") for day in days]


# --- names ------------------------------------------------------------------------------------------------------------


def identities(
    members: Sequence[Sequence[str]], mine: Mapping[str, Published], all_known: Mapping[str, Published]
) -> list[str]:
    """Give each track (its alert ids in the order of time) its name.

    A track is the published one with which it shares most sightings, so that it keeps its name whatever is added in
    front or behind. A new one is named by its first sighting; where that name is taken, by all of them.
    """
    shared = Counter(
        {
            (number, name): len(known.sightings.intersection(ids))
            for number, ids in enumerate(members)
            for name, known in mine.items()
            if known.sightings.intersection(ids)
        }
    )
    names: dict[int, str] = {}
    for number, name in sorted(shared, key=lambda pair: (-shared[pair], pair)):
        if number not in names and name not in names.values():
            names[number] = name
    for number, ids in enumerate(members):
        if number not in names:
            names[number] = next(
                name
                for name in _new_names(ids)
                if name not in names.values() and not all_known.get(name, UNKNOWN).sightings
            )
    return [names[number] for number in range(len(members))]


def _new_names(ids: Sequence[str]) -> Iterator[str]:
    yield str(uuid.uuid5(TRACK_NAMESPACE, ids[0]))
    number = 0
    while True:
        yield str(uuid.uuid5(TRACK_NAMESPACE, "\n".join([*sorted(ids), str(number)])))
        number += 1


_BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def tracklet_name(track_id: str) -> str:
    """Give eight letters and figures that stand for a track at the MPC, by its id."""
    number = int.from_bytes(hashlib.sha256(track_id.encode()).digest()[:8], "big")
    letters = []
    for _ in range(8):
        number, letter = divmod(number, len(_BASE36))
        letters.append(_BASE36[letter])
    return "".join(letters)


# --- records ----------------------------------------------------------------------------------------------------------


def _head(name: str, version: int, key: str, now_mjd_tai: float) -> dict[str, Any]:
    return {
        "trackId": name,
        "version": version,
        "withdrawn": False,
        "field": key,
        "trkSub": tracklet_name(name),
        "timeProcessedMjdTai": now_mjd_tai,
    }


_OF_ROW = {
    **{name: name for name in ("x0", "y0", "x1", "y1", "mag", "snr")},
    "trailRa": "ra",
    "trailDec": "dec",
    "trailRaErr": "ra_err",
    "trailDecErr": "dec_err",
    "raDecCorr": "ra_dec_corr",
    "magErr": "mag_err",
    "reliability": "score",
}


def _track_record(track: Track, seen: Sequence[Sighting]) -> dict[str, Any]:
    motion = track.motion
    return {
        "reliability": track.score,
        "nSightings": len(seen),
        "nShown": track.shown,
        "nExposures": track.exposures,
        "epochMjdTai": motion.epoch_mjd_tai,
        "ra": motion.ra,
        "dec": motion.dec,
        "rateArcsecH": motion.rate_arcsec_h,
        "positionAngle": motion.position_angle_deg % 360.0,
        "replayed": next((one.frame["replayed"] for one in reversed(seen) if one.frame["replayed"]), None),
        "sightings": [
            {
                "alertId": one.alert_id,
                **{name: one.frame[name] for name in OF_FRAME},
                **{name: _nullable(one.row[column]) for name, column in _OF_ROW.items()},
                "positionAngle": motion.at(mjd_tai)[2],
            }
            for one, mjd_tai in zip(seen, track.times_mjd_tai, strict=True)
        ],
    }


def _nullable(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
