"""What goes over the wire: frame messages in; alerts, summaries and dead letters out.

In: FITS bytes, or an empty value with a ``uri`` header (claim check) that points under an allowed root. Out: one Avro
container a message (``fastavro.reader`` alone reads it), written from the published schema in ``schema/MAJOR/MINOR``.

How it fails at night: a message that cannot be a frame (no value, a claim that leaves its root, a header that is no
number) is a ``BadFrame`` like any unreadable file, and ends among the dead letters with its bytes untouched. The same
frame gives the same records, byte for byte, apart from processing times: ids are derived, sync markers are fixed.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import uuid
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, BinaryIO

import fastavro
import numpy as np

from detector.frame import BadFrame
from detector.streaks import StreakFlag, empty
from stream.skycells import touched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from detector.frame import Frame, FrameHeader
    from detector.streaks import Findings
    from stream.claims import Claims

FRAMES = "frames"
STREAKS = "streaks"
CANDIDATES = "candidates"
TRACKS = "tracks"
EXAMINED = "frames.examined"
REJECTED = "frames.rejected"
TOPICS = (FRAMES, STREAKS, CANDIDATES, TRACKS, EXAMINED, REJECTED)
ANSWER_TOPICS = (EXAMINED, REJECTED)

# Headers of streaks and candidates: rows and columns of their frame, which tell the linker what it could have shown; of
# a list that a neighbouring cell of the sky gets too: whose it is.
FRAME_SHAPE = "frame-shape"
COPY_OF = "copy-of"

# Headers that are ours: how many summaries and dead letters a message led to; which dead letter is sent again.
ANSWERS = "answers"
REPLAY_OF = "replay-of"

SCHEMA_VERSION = "1/0"
MAX_DETAIL_CHARACTERS = 2000

# Namespace of the alerts' ids; an arbitrary constant that must never change (RFC 9562, section 6.6).
ALERT_NAMESPACE = uuid.UUID("6f2b7a52-4c0e-5d0b-9a44-0c5f3c1d7e21")

# Column of the table of streaks -> field of the alert. Names are Rubin's where the quantity is.
ALERT_FIELDS = {
    "x0": "x0",
    "y0": "y0",
    "x1": "x1",
    "y1": "y1",
    "x0_err": "x0Err",
    "y0_err": "y0Err",
    "x1_err": "x1Err",
    "y1_err": "y1Err",
    "score": "reliability",
    "snr": "snr",
    "flux": "flux",
    "flux_err": "fluxErr",
    "mag": "mag",
    "mag_err": "magErr",
    "chi2": "reducedChi2",
    "length_px": "lengthPx",
    "length_px_err": "lengthPxErr",
    "angle_deg": "angleDeg",
    "angle_deg_err": "angleDegErr",
    "ra0": "ra0",
    "dec0": "dec0",
    "ra1": "ra1",
    "dec1": "dec1",
    "ra": "trailRa",
    "dec": "trailDec",
    "ra_err": "trailRaErr",
    "dec_err": "trailDecErr",
    "ra_dec_corr": "raDecCorr",
    "trail_length_arcsec": "trailLength",
    "trail_length_arcsec_err": "trailLengthErr",
    "trail_angle_deg": "trailAngle",
    "trail_angle_deg_err": "trailAngleErr",
    "rate_arcsec_h": "rateArcsecH",
    "rate_arcsec_h_err": "rateArcsecHErr",
}


@dataclass(frozen=True)
class Message:
    """A record of the frames topic as it came; ``timestamp_ms`` is Unix time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0

    @property
    def name(self) -> str:
        """``topic/partition/offset``: the frame's name in the stream."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> str | None:
        """Give the last header of that name as text, or None; an empty one counts as absent."""
        for key, value in reversed(self.headers):
            if key == name:
                return (value or b"").decode("utf-8", "replace") or None
        return None

    @property
    def extension(self) -> int | None:
        """The only HDU that is meant, where the sender says so. Raises ``BadFrame``."""
        text = self.header("extension")
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 6:
            raise BadFrame("bad-header", f"header 'extension' is {text[:40]!r}; give the number of an HDU, such as 1")
        return int(text)


@dataclass(frozen=True)
class Output:
    """A record to be published: ``topic`` without prefix, value and headers as they go out.

    ``partition`` None: by the key.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


# --- in ---------------------------------------------------------------------------------------------------------------


def frame_source(message: Message, claims: Claims, *, max_message_bytes: int) -> bytes | BinaryIO:
    """Give the FITS bytes of a message, or the file that its ``uri`` points to, opened. Raises ``BadFrame``."""
    if message.value:
        if len(message.value) > max_message_bytes:
            size = f"the message has {len(message.value)} bytes"
            raise BadFrame("too-large", f"{size}; the limit is {max_message_bytes} (max_message_bytes)")
        return message.value
    uri = message.header("uri")
    if uri is None:
        raise BadFrame("empty", "the message has neither FITS bytes nor a 'uri' header that says where they are")
    return claims.open(uri)


def as_message_says(frame: Frame, message: Message) -> Frame:
    """Give the frame with what the message's headers say of it; they win over the FITS header's words."""
    header = frame.header
    said = {word: message.header(name) for name, word in _IDENTITY.items()}
    answered = {word for word, value in said.items() if value is not None}
    if not answered:
        return frame
    return replace(
        frame,
        header=replace(
            header,
            exposure=said["no-exposure-id"] or header.exposure,
            ccd=said["no-ccd-id"] or header.ccd,
            field=said["no-field"] or header.field,
            flags=tuple(flag for flag in header.flags if flag not in answered),
        ),
    )


# Header of a message -> the frame's flag that says that it is not known.
_IDENTITY = {"exposure": "no-exposure-id", "ccd": "no-ccd-id", "field": "no-field"}


# --- out --------------------------------------------------------------------------------------------------------------


def streak_alerts(findings: Findings, message: Message, source: bytes | BinaryIO, now_mjd_tai: float) -> list[Output]:
    """Give one alert for each streak, keyed by field so that one linker sees what it must link."""
    key = field_keys(findings.header)[0].encode()
    records = _streak_records(findings, message, source, now_mjd_tai)
    headers = _shape_header(findings.header)
    return [Output(STREAKS, key, encode("streak", record), headers) for record in records[: len(findings.streaks)]]


def candidate_lists(findings: Findings, message: Message, source: bytes | BinaryIO, now_mjd_tai: float) -> list[Output]:
    """Give what only the linker wants: the candidates of a frame as one message, records like those of alerts.

    A frame that touches neighbouring cells of the sky goes there too, its streaks with it, marked as a copy.
    """
    home, *others = field_keys(findings.header)
    records = _streak_records(findings, message, source, now_mjd_tai)
    beneath = records[len(findings.streaks) :]
    headers = _shape_header(findings.header)
    own = [Output(CANDIDATES, home.encode(), encode("streak", *beneath), headers)] if beneath else []
    copied = encode("streak", *records) if records and others else b""
    headers = (*headers, (COPY_OF, home.encode()))
    return own + [Output(CANDIDATES, other.encode(), copied, headers) for other in others if copied]


def field_keys(header: FrameHeader) -> tuple[str, ...]:
    """The field that a frame belongs to: its name, else the cell of the sky, and then the cells that it touches.

    A frame that does not know where it is can be linked with nothing; its exposure keeps its CCDs together.
    """
    if header.field:
        return (header.field,)
    return touched(header) or (header.exposure or header.name,)


def _shape_header(header: FrameHeader) -> tuple[tuple[str, bytes], ...]:
    return ((FRAME_SHAPE, "{},{}".format(*header.shape).encode()),)


def _streak_records(
    findings: Findings, message: Message, source: bytes | BinaryIO, now_mjd_tai: float
) -> list[dict[str, Any]]:
    """The records of the streaks, then those of the candidates."""
    rows = np.concatenate([findings.streaks, findings.candidates])
    shared = _origin(findings.header, message) | {"timeProcessedMjdTai": now_mjd_tai}
    ids = alert_ids(rows, findings.header, source)
    return [shared | _measured(row) | {"alertId": alert_id} for row, alert_id in zip(rows, ids, strict=True)]


def examined_summary(
    findings: Findings,
    message: Message,
    *,
    seconds: Mapping[str, float],
    now_mjd_tai: float,
    program_version: str,
    weights_versions: Mapping[str, str],
) -> Output:
    """Give the summary of one examined frame; ``seconds`` are added to the findings' own."""
    header = findings.header
    record = _origin(header, message) | {
        "timeArrivedMjdTai": mjd_tai(message.timestamp_ms / 1000),
        "timeProcessedMjdTai": now_mjd_tai,
        "nStreaks": len(findings.streaks),
        "nLenses": 0,
        "nMergers": 0,
        "background": _nullable(findings.background_e),
        "noise": _nullable(findings.noise_e),
        "psfFwhm": _nullable(findings.psf_fwhm_px),
        "dropped": dict(findings.dropped),
        "seconds": {**findings.seconds, **seconds},
        "flags": list(findings.flags),
        "programVersion": program_version,
        "weightsVersions": dict(weights_versions),
    }
    return Output(EXAMINED, _frame_key(header), encode("examined", record))


def dead_letter(message: Message, bad: BadFrame, *, extension: int | None) -> Output:
    """Give the rejected message: key, value and headers untouched, the reason in further headers behind them.

    A header of the sender's that has the name of one of those gives way.
    """
    why = {
        "reason": bad.reason,
        "detail": bad.detail[:MAX_DETAIL_CHARACTERS],
        "input-topic": message.topic,
        "input-partition": str(message.partition),
        "input-offset": str(message.offset),
    }
    if extension is not None:
        why["extension"] = str(extension)
    kept = tuple(pair for pair in message.headers if pair[0] not in why)
    return Output(REJECTED, message.key, message.value, kept + tuple((k, v.encode()) for k, v in why.items()))


def counted(outputs: Sequence[Output]) -> list[Output]:
    """Give the outputs with the number of all answers to the message in the headers of each answer."""
    answers = sum(output.topic in ANSWER_TOPICS for output in outputs)
    header = (ANSWERS, str(answers).encode())
    return [
        replace(output, headers=(*output.headers, header)) if output.topic in ANSWER_TOPICS else output
        for output in outputs
    ]


def alert_ids(streaks: NDArray[np.void], header: FrameHeader, source: bytes | BinaryIO) -> list[str]:
    """Give one id a streak: uuid5 of exposure, CCD, extension and the mid-point to the whole pixel.

    Without exposure or CCD the SHA-256 of the frame's bytes takes their place. Should two streaks of a frame share
    their whole pixel, the second (the table is sorted, so it is always the same one) carries its number too.
    """
    if len(streaks) == 0:
        return []
    known = header.exposure is not None and header.ccd is not None
    frame = f"{header.exposure}/{header.ccd}" if known else _sha256(source)
    seen: dict[str, int] = {}
    ids = []
    for row in streaks:
        x, y = (math.floor((row[a] + row[b]) / 2 + 0.5) for a, b in (("x0", "x1"), ("y0", "y1")))
        name = f"{frame}/{header.extension}/{x},{y}"
        seen[name] = seen.get(name, 0) + 1
        ids.append(str(uuid.uuid5(ALERT_NAMESPACE, name if seen[name] == 1 else f"{name}#{seen[name]}")))
    return ids


def encode(schema_name: str, *records: Mapping[str, Any]) -> bytes:
    """Give one Avro container with the records and their schema inside."""
    schema, marker = _schema(schema_name)
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, records, sync_marker=marker)
    return buffer.getvalue()


def decode(container: bytes) -> list[dict[str, Any]]:
    """Give the records of an Avro container: what any subscriber does."""
    return list(fastavro.reader(io.BytesIO(container)))


def streak_rows(alerts: Iterable[Mapping[str, Any]]) -> NDArray[np.void]:
    """Give the table of streaks (``STREAK``) that the alerts were made from, number for number."""
    records = list(alerts)
    rows = empty(len(records))
    for row, record in zip(rows, records, strict=True):
        for column, field in ALERT_FIELDS.items():
            row[column] = np.nan if record[field] is None else record[field]
        row["flags"] = sum(StreakFlag[word.upper().replace("-", "_")] for word in record["flags"])
    return rows


def mjd_tai(unix_s: float) -> float:
    """Give the MJD in TAI of a Unix time. TAI - UTC is 37 s since 2017-01-01 (IERS Bulletin C); no earlier clock is."""
    return 40587.0 + (unix_s + 37.0) / 86400.0


def _origin(header: FrameHeader, message: Message) -> dict[str, Any]:
    return {
        "inputTopic": message.topic,
        "inputPartition": message.partition,
        "inputOffset": message.offset,
        "extension": header.extension,
        "source": message.header("name"),
        "exposure": header.exposure,
        "ccd": header.ccd,
        "field": header.field,
        "survey": header.survey.name,
        "band": header.filter_name,
        "exposureTime": header.exposure_s,
        "midpointMjdTai": header.mid_time_mjd_tai,
    }


def _measured(row: np.void) -> dict[str, Any]:
    flags = StreakFlag(int(row["flags"]))
    measured: dict[str, Any] = {field: _nullable(float(row[column])) for column, field in ALERT_FIELDS.items()}
    # AB: 0 mag is 3631 Jy, so that a magnitude of 31.4 is 1 nJy (Oke & Gunn 1983).
    flux_njy = 10 ** ((31.4 - float(row["mag"])) / 2.5)
    return measured | {
        "trailFlux": _nullable(flux_njy),
        "trailFluxErr": _nullable(flux_njy * float(row["mag_err"]) * math.log(10) / 2.5),
        "trail_flag_edge": StreakFlag.EDGE in flags,
        "flags": flags.words().split(),
    }


def _frame_key(header: FrameHeader) -> bytes:
    return "/".join(part for part in (header.exposure, header.ccd) if part).encode() or header.name.encode()


def _nullable(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _sha256(source: bytes | BinaryIO) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256()
    source.seek(0)
    while piece := source.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


@cache
def _schema(name: str) -> tuple[Any, bytes]:
    """Give the parsed schema and the sync marker of its containers: derived, so that equal input gives equal bytes."""
    text = resources.files("stream.schema").joinpath(f"{SCHEMA_VERSION}/{name}.avsc").read_text(encoding="utf-8")
    marker = hashlib.sha256(text.encode()).digest()[:16]
    return fastavro.parse_schema(json.loads(text)), marker
