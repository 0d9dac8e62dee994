"""The records of lens and merger candidates that subscribers get: one a candidate, keyed by the object that it is.

All exposures of one object have one key, so that they lie in one partition in their order. As with streaks, the same
frame gives the same records apart from the time of processing.
"""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO

from detector.classtable import CandidateFlag
from stream.alerts import ALERT_NAMESPACE, field_keys, frame_identity, origin
from stream.candidatetable import KINDS, rows_of
from stream.framing import CONTAINERS
from stream.messages import LENSES, MERGERS
from stream.skyobjects import object_names

if TYPE_CHECKING:
    import numpy as np

    from detector.streaks import Findings
    from stream.candidatetable import Class
    from stream.framing import Framing
    from stream.messages import Message, Output

TOPIC_OF: dict[Class, str] = {"lenses": LENSES, "mergers": MERGERS}
_FIELDS = {"ra": "ra", "dec": "dec", "probability_err": "probabilityErr"}
_CONTENT = {"ic": "informationContent", "ic_err": "informationContentErr"}


def candidate_alerts(
    findings: Findings,
    message: Message,
    source: bytes | BinaryIO,
    now_mjd_tai: float,
    framing: Framing = CONTAINERS,
) -> list[Output]:
    """Give one alert for each lens, then for each merger; their topics are those of their class."""
    outputs = []
    for name, topic in TOPIC_OF.items():
        rows = rows_of(findings, name)
        if not len(rows):
            continue
        shared = origin(findings.header, message) | {
            "timeProcessedMjdTai": now_mjd_tai,
            "model": findings.models.get(name, ""),
        }
        home = field_keys(findings.header)[0]
        frame = f"{frame_identity(findings.header, source)}/{findings.header.extension}"
        for row, alert_id in zip(rows, _ids(rows, f"{frame}/{KINDS[name]}"), strict=True):
            record = shared | _measured(row, name) | {"alertId": alert_id}
            outputs.append(framing.output(topic, (record["objectId"] or home).encode(), record))
    return outputs


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
        "cutoutScience": None,
    }
