"""Records of the output topics -> the few values that the page shows, as plain dictionaries ready for JSON.

Times become Unix seconds here. What a record does not say is None; what is too long to be shown is cut, since every
text comes from a stranger and is kept for as long as the page runs.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from stream.framing import UNREADABLE, no_registry, records
from stream.messages import FRAME_SHAPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream.framing import SchemaOf
    from stream.messages import Message

Shown = dict[str, Any]
Key = tuple[int, int, int]  # partition and offset of the frame message, HDU

LONGEST_TEXT = 200  # characters
MOST_WORDS = 30  # flags, stages, reasons of one record
MOST_SIGHTINGS = 50
# Half of what a cut-out of a candidate spans before its margin, px: 64 and 128 px are shown.
REACH_PX = {"lens": 12.5, "merger": 32.5}


def records_of(message: Message, most: int, schema_of: SchemaOf = no_registry) -> list[dict[str, Any]]:
    """Give at most so many records of a message, the first ones. Raises ``ValueError`` for what has none."""
    try:
        return list(itertools.islice(records(message.value or b"", schema_of), most))
    except UNREADABLE as error:
        raise ValueError(f"{message.name} holds no records: {error}") from None


def key_of(record: Mapping[str, Any]) -> Key:
    """Give which frame a record is about."""
    return int(record["inputPartition"]), int(record["inputOffset"]), int(record["extension"])


def frame_summary(record: Mapping[str, Any]) -> Shown:
    """Give a record of ``frames.examined`` as it is shown."""
    return {
        **_origin(record),
        "arrived": unix_s(record["timeArrivedMjdTai"]),
        "at": unix_s(record["timeProcessedMjdTai"]),
        "streaks": int(record["nStreaks"]),
        "lenses": int(record["nLenses"]),
        "mergers": int(record["nMergers"]),
        "background": number(record["background"]),
        "noise": number(record["noise"]),
        "fwhm": number(record["psfFwhm"]),
        "dropped": _counts(record["dropped"]),
        "seconds": _counts(record["seconds"]),
        "flags": _words(record["flags"]),
    }


def streak_alert(record: Mapping[str, Any]) -> Shown:
    """Give a record of ``streaks`` as it is shown."""
    return {
        **_origin(record),
        "id": text(record["alertId"]),
        "kind": "streak",
        "at": unix_s(record["timeProcessedMjdTai"]),
        "ends": _ends(record),
        "score": number(record["reliability"]),
        "snr": number(record["snr"]),
        "mag": number(record["mag"]),
        "length": number(record["lengthPx"]),
        "ra": number(record["trailRa"]),
        "dec": number(record["trailDec"]),
        "rate": number(record["rateArcsecH"]),
        "flags": _words(record["flags"]),
    }


def object_alert(record: Mapping[str, Any], kind: str) -> Shown:
    """Give a record of ``lenses`` or ``mergers`` (``kind`` is "lens" or "merger") as it is shown.

    ``ends`` are those of the line that a cut-out is made around.
    """
    x, y = number(record["x"]), number(record["y"])
    reach = REACH_PX[kind]
    return {
        **_origin(record),
        "id": text(record["alertId"]),
        "kind": kind,
        "at": unix_s(record["timeProcessedMjdTai"]),
        "x": x,
        "y": y,
        "ends": None
        if x is None or y is None
        else [round(x - reach, 2), round(y, 2), round(x + reach, 2), round(y, 2)],
        "score": number(record["probability"]),
        "spread": number(record["probabilityErr"]),
        "content": number(record.get("informationContent")),
        "rank": record.get("rank"),
        "ra": number(record["ra"]),
        "dec": number(record["dec"]),
        "object": text(record["objectId"]),
        "flags": _words(record["flags"]),
        "model": text(record["model"]),
    }


def candidate_mark(record: Mapping[str, Any]) -> list[float | None]:
    """Give what is drawn of a candidate: its ends and its score."""
    return [*_ends(record), number(record["reliability"])]


def track(record: Mapping[str, Any]) -> Shown:
    """Give a record of ``tracks`` as it is shown, its sightings in the order of time."""
    return {
        "id": text(record["trackId"]),
        "name": text(record["trkSub"]),
        "version": int(record["version"]),
        "withdrawn": bool(record["withdrawn"]),
        "field": text(record["field"]),
        "at": unix_s(record["timeProcessedMjdTai"]),
        "score": number(record["reliability"]),
        "exposures": record["nExposures"],
        "ra": number(record["ra"]),
        "dec": number(record["dec"]),
        "rate": number(record["rateArcsecH"]),
        "angle": number(record["positionAngle"]),
        "known": text(record.get("knownAs")),  # since 1.1
        "known_also": _words(record.get("knownAlso") or []),
        "sightings": [_sighting(one) for one in record["sightings"][:MOST_SIGHTINGS]],
    }


def refusal(message: Message) -> Shown:
    """Give a dead letter as it is shown: its reason, and which frame it was."""
    return {
        "reason": text(message.header("reason")) or "unknown",
        "detail": text(message.header("detail")),
        "partition": _whole(message.header("input-partition")),
        "offset": _whole(message.header("input-offset")),
        "extension": _whole(message.header("extension")),
        "source": text(message.header("name")),
        "exposure": text(message.header("exposure")),
        "ccd": text(message.header("ccd")),
        "key": text((message.key or b"").decode("utf-8", "replace")),
        "bytes": len(message.value or b""),
        "at": message.timestamp_ms / 1000,
    }


def frame_shape(message: Message) -> tuple[int, int] | None:
    """Give rows and columns of the frame that a message is about, where its header says them."""
    said = (message.header(FRAME_SHAPE) or "").split(",")
    sides = [_whole(side) for side in said]
    return (sides[0], sides[1]) if len(sides) == 2 and sides[0] and sides[1] else None


def unix_s(mjd_tai: float | None) -> float | None:
    """Give the Unix time of an MJD in TAI (37 s ahead of UTC since 2017); None for what is not finite."""
    finite = number(mjd_tai)
    return None if finite is None else (finite - 40587.0) * 86400.0 - 37.0


def number(value: Any) -> float | None:
    """Give a finite number, or None: JSON knows no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)


def text(value: str | None) -> str | None:
    """Give a text that is short enough to be kept."""
    return None if value is None else value[:LONGEST_TEXT]


def _origin(record: Mapping[str, Any]) -> Shown:
    partition, offset, extension = key_of(record)
    return {
        "topic": text(record["inputTopic"]),
        "frame": f"{partition}/{offset}/{extension}",
        "source": text(record["source"]),
        "exposure": text(record["exposure"]),
        "ccd": text(record["ccd"]),
        "field": text(record["field"]),
        "band": text(record["band"]),
        "exposure_s": number(record["exposureTime"]),
        "mid": unix_s(record["midpointMjdTai"]),
        "replayed": text(record.get("replayed")),  # since 1.1
    }


def _sighting(record: Mapping[str, Any]) -> Shown:
    partition, offset, extension = key_of(record)
    return {
        "frame": f"{partition}/{offset}/{extension}",
        "exposure": text(record["exposure"]),
        "ccd": text(record["ccd"]),
        "mid": unix_s(record["midpointMjdTai"]),
        "ends": _ends(record),
        "ra": number(record["trailRa"]),
        "dec": number(record["trailDec"]),
        "mag": number(record["mag"]),
        "snr": number(record["snr"]),
        "score": number(record["reliability"]),
    }


def _ends(record: Mapping[str, Any]) -> list[float | None]:
    return [None if (value := number(record[name])) is None else round(value, 2) for name in ("x0", "y0", "x1", "y1")]


def _words(words: list[str]) -> list[str]:
    return [str(word)[:LONGEST_TEXT] for word in words[:MOST_WORDS]]


def _counts(counts: Mapping[str, float]) -> dict[str, float | None]:
    return {name[:LONGEST_TEXT]: number(value) for name, value in itertools.islice(counts.items(), MOST_WORDS)}


def _whole(said: str | None) -> int | None:
    return int(said) if said and said.isascii() and said.isdigit() and len(said) < 19 else None
