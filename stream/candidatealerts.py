"""The records of lens and merger candidates that subscribers get: one a candidate, keyed by the object that it is.

All exposures of one object have one key, so that they lie in one partition in their order. As with streaks, the same
frame gives the same records apart from the time of processing.
"""

from __future__ import annotations

import itertools
import math
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from detector.classtable import CandidateFlag, empty_candidates
from detector.fitscutout import MARGIN_PX, box_around, fits_cutout
from stream.alerts import ALERT_NAMESPACE, field_keys, frame_identity, origin, shape_header
from stream.candidatetable import KINDS, rows_of
from stream.framing import CONTAINERS
from stream.messages import LENSES, MERGERS
from stream.skyobjects import object_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from detector.frame import Frame
    from detector.streaks import Findings
    from stream.candidatetable import Class
    from stream.framing import Framing
    from stream.messages import Message, Output

TOPIC_OF: dict[Class, str] = {"lenses": LENSES, "mergers": MERGERS}
_FIELDS = {"ra": "ra", "dec": "dec", "probability_err": "probabilityErr"}
# The side of a cut-out: that of the stamp which the network judged, arcsec, and pixels at least.
SIDE_ARCSEC: dict[Class, float] = {"lenses": 6.4, "mergers": 12.8}
LEAST_SIDE_PX = 64
_CONTENT = {"ic": "informationContent", "ic_err": "informationContentErr"}


def candidate_alerts(
    findings: Findings,
    message: Message,
    source: bytes | BinaryIO,
    now_mjd_tai: float,
    framing: Framing = CONTAINERS,
    cutouts: Mapping[Class, Sequence[bytes | None]] = MappingProxyType({}),
) -> list[Output]:
    """Give one alert for each lens, then for each merger; their topics are those of their class.

    ``cutouts``: the FITS images of the candidates of a class, in their order.
    """
    outputs = []
    for name, topic in TOPIC_OF.items():
        rows = rows_of(findings, name)
        if not len(rows):
            continue
        shared = origin(findings.header, message) | {
            "timeProcessedMjdTai": now_mjd_tai,
            "model": findings.models.get(name, ""),
        }
        home, headers = field_keys(findings.header)[0], shape_header(findings.header)
        frame = f"{frame_identity(findings.header, source)}/{findings.header.extension}"
        images = itertools.chain(cutouts.get(name, ()), itertools.repeat(None))
        ids = _ids(rows, f"{frame}/{KINDS[name]}")
        for row, alert_id, image in zip(rows, ids, images, strict=False):
            record = shared | _measured(row, name) | {"alertId": alert_id, "cutoutScience": image}
            outputs.append(framing.output(topic, (record["objectId"] or home).encode(), record, headers))
    return outputs


def candidate_cutouts(frame: Frame, findings: Findings, largest_px: int) -> dict[Class, list[bytes | None]]:
    """Give the FITS images of the candidates of a frame by class; none at all for ``largest_px`` 0."""
    if largest_px == 0:
        return {}
    scale = frame.header.pixel_scale_arcsec or frame.header.survey.pixel_scale_arcsec
    images: dict[Class, list[bytes | None]] = {}
    for name, side_arcsec in SIDE_ARCSEC.items():
        side_px = max(LEAST_SIDE_PX, round(side_arcsec / scale) if scale else 0)
        reach = 0.5 * side_px - MARGIN_PX  # the margin is added again
        boxes = (
            box_around(np.array([x - reach, y - reach, x + reach, y + reach]), frame.header.shape, largest_px)
            for x, y in rows_of(findings, name)[["x", "y"]].tolist()
        )
        images[name] = [None if box is None else fits_cutout(frame, box) for box in boxes]
    return images


def candidate_rows(alerts: Iterable[Mapping[str, Any]]) -> NDArray[np.void]:
    """Give the table of candidates (``CANDIDATE``) that the alerts of a class were made from, number for number."""
    records = list(alerts)
    rows = empty_candidates(len(records))
    for row, record in zip(rows, records, strict=True):
        for column, field in {"x": "x", "y": "y", "probability": "probability", **_FIELDS, **_CONTENT}.items():
            value = record.get(field)
            row[column] = np.nan if value is None else value
        row["rank"] = record.get("rank") or 0
        row["flags"] = sum(CandidateFlag[word.upper().replace("-", "_")] for word in record["flags"])
    return rows


def _ids(rows: np.ndarray[Any, Any], frame: str) -> list[str]:
    """One id a candidate: uuid5 of the frame, the class and the whole pixel; a second one there has its number too."""
    seen: dict[str, int] = {}
    ids = []
    for row in rows:
        name = f"{frame}/{math.floor(row['x'] + 0.5)},{math.floor(row['y'] + 0.5)}"
        seen[name] = seen.get(name, 0) + 1
        ids.append(str(uuid.uuid5(ALERT_NAMESPACE, name if seen[name] == 1 else f"{name}#{seen[name]}")))
    return ids


def _measured(row: np.void, name: Class) -> dict[str, Any]:
    names = object_names(KINDS[name], float(row["ra"]), float(row["dec"]))
    fields = _FIELDS | (_CONTENT if name == "lenses" else {})
    record: dict[str, Any] = {
        field: float(row[column]) if math.isfinite(row[column]) else None for column, field in fields.items()
    }
    if name == "lenses":
        record["rank"] = int(row["rank"]) or None
    return record | {
        "x": float(row["x"]),
        "y": float(row["y"]),
        "probability": float(row["probability"]),
        "objectId": next(iter(names), None),
        "objectIdsNear": list(names[1:]),
        "flags": CandidateFlag(int(row["flags"])).words().split(),
    }
