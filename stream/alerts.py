"""The records that subscribers get: an alert a streak, lists of candidates for the linker, a summary a frame.

How it fails at night: it does not by itself; what a frame's header does not say is null. The same frame gives the same
records apart from processing times: ids are derived from what the frame is.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from detector.fitscutout import box_around, fits_cutout
from detector.streaks import StreakFlag, empty
from stream.framing import CONTAINERS
from stream.messages import CANDIDATES, COPY_OF, EXAMINED, FRAME_SHAPE, REPLAYED, STREAKS, mjd_tai
from stream.skycells import touched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from detector.frame import Frame, FrameHeader
    from detector.streaks import Findings
    from stream.framing import Framing
    from stream.messages import Message, Output

# Namespace of the alerts' ids; an arbitrary constant that must never change (RFC 9562, section 6.6).
ALERT_NAMESPACE = uuid.UUID("6f2b7a52-4c0e-5d0b-9a44-0c5f3c1d7e21")

# A frame with more streaks than this is no use to anybody who looks at pictures.
MOST_CUTOUTS = 500
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


def streak_alerts(
    findings: Findings,
    message: Message,
    source: bytes | BinaryIO,
    now_mjd_tai: float,
    framing: Framing = CONTAINERS,
    cutouts: Sequence[bytes | None] = (),
) -> list[Output]:
    """Give one alert for each streak, keyed by field so that one linker sees what it must link.

    ``cutouts``: the FITS images of the first streaks, in their order.
    """
    key = field_keys(findings.header)[0].encode()
    records = _streak_records(findings, message, source, now_mjd_tai)
    headers = shape_header(findings.header)
    images = itertools.chain(cutouts, itertools.repeat(None))
    return [
        framing.output(STREAKS, key, record | {"cutoutScience": image}, headers)
        for record, image in zip(records[: len(findings.streaks)], images, strict=False)
    ]


def streak_cutouts(frame: Frame, streaks: NDArray[np.void], largest_px: int) -> list[bytes | None]:
    """Give the FITS images of the best streaks of a frame, at most ``MOST_CUTOUTS``; none for ``largest_px`` 0."""
    if largest_px == 0:
        return []
    ends = np.stack([streaks[name] for name in ("x0", "y0", "x1", "y1")], axis=1)[:MOST_CUTOUTS]
    boxes = (box_around(one, frame.header.shape, largest_px) for one in ends)
    return [None if box is None else fits_cutout(frame, box) for box in boxes]


def candidate_lists(findings: Findings, message: Message, source: bytes | BinaryIO, now_mjd_tai: float) -> list[Output]:
    """Give what only the linker wants: the candidates of a frame as one message, records like those of alerts.

    Always a container, for the other framing holds one record alone.
    A frame that touches neighbouring cells of the sky goes there too, its streaks with it, marked as a copy.
    """
    home, *others = field_keys(findings.header)
    records = _streak_records(findings, message, source, now_mjd_tai)
    beneath = records[len(findings.streaks) :]
    headers = shape_header(findings.header)
    own = [CONTAINERS.output_list(CANDIDATES, home.encode(), beneath, headers)] if beneath else []
    headers = (*headers, (COPY_OF, home.encode()))
    told = others if records else ()
    return own + [CONTAINERS.output_list(CANDIDATES, other.encode(), records, headers) for other in told]


def field_keys(header: FrameHeader) -> tuple[str, ...]:
    """The field that a frame belongs to: its name, else the cell of the sky, and then the cells that it touches.

    A frame that does not know where it is can be linked with nothing; its exposure keeps its CCDs together.
    """
    if header.field:
        return (header.field,)
    return touched(header) or (header.exposure or header.name,)


def shape_header(header: FrameHeader) -> tuple[tuple[str, bytes], ...]:
    """Give the message header that says rows and columns of a frame."""
    return ((FRAME_SHAPE, "{},{}".format(*header.shape).encode()),)


def _streak_records(
    findings: Findings, message: Message, source: bytes | BinaryIO, now_mjd_tai: float
) -> list[dict[str, Any]]:
    """The records of the streaks, then those of the candidates."""
    rows = np.concatenate([findings.streaks, findings.candidates])
    shared = origin(findings.header, message) | {"timeProcessedMjdTai": now_mjd_tai}
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
    framing: Framing = CONTAINERS,
) -> Output:
    """Give the summary of one examined frame; ``seconds`` are added to the findings' own."""
    header = findings.header
    record = origin(header, message) | {
        "timeArrivedMjdTai": mjd_tai(message.timestamp_ms / 1000),
        "timeProcessedMjdTai": now_mjd_tai,
        "nStreaks": len(findings.streaks),
        "nLenses": len(findings.lenses),
        "nMergers": len(findings.mergers),
        "background": _nullable(findings.background_e),
        "noise": _nullable(findings.noise_e),
        "psfFwhm": _nullable(findings.psf_fwhm_px),
        "dropped": dict(findings.dropped),
        "seconds": {**findings.seconds, **seconds},
        "flags": list(findings.flags),
        "programVersion": program_version,
        "weightsVersions": dict(weights_versions),
    }
    return framing.output(EXAMINED, _frame_key(header), record)


def alert_ids(streaks: NDArray[np.void], header: FrameHeader, source: bytes | BinaryIO) -> list[str]:
    """Give one id a streak: uuid5 of exposure, CCD, extension and the mid-point to the whole pixel.

    Without exposure or CCD the SHA-256 of the frame's bytes takes their place. Should two streaks of a frame share
    their whole pixel, the second (the table is sorted, so it is always the same one) carries its number too.
    """
    if len(streaks) == 0:
        return []
    frame = frame_identity(header, source)
    seen: dict[str, int] = {}
    ids = []
    for row in streaks:
        x, y = (math.floor((row[a] + row[b]) / 2 + 0.5) for a, b in (("x0", "x1"), ("y0", "y1")))
        name = f"{frame}/{header.extension}/{x},{y}"
        seen[name] = seen.get(name, 0) + 1
        ids.append(str(uuid.uuid5(ALERT_NAMESPACE, name if seen[name] == 1 else f"{name}#{seen[name]}")))
    return ids


def frame_identity(header: FrameHeader, source: bytes | BinaryIO) -> str:
    """Give what names a frame in the ids of its alerts: exposure and CCD, else the SHA-256 of its bytes."""
    known = header.exposure is not None and header.ccd is not None
    return f"{header.exposure}/{header.ccd}" if known else _sha256(source)


def streak_rows(alerts: Iterable[Mapping[str, Any]]) -> NDArray[np.void]:
    """Give the table of streaks (``STREAK``) that the alerts were made from, number for number."""
    records = list(alerts)
    rows = empty(len(records))
    for row, record in zip(rows, records, strict=True):
        for column, field in ALERT_FIELDS.items():
            row[column] = np.nan if record[field] is None else record[field]
        row["flags"] = sum(StreakFlag[word.upper().replace("-", "_")] for word in record["flags"])
    return rows


def origin(header: FrameHeader, message: Message) -> dict[str, Any]:
    """Give the fields that every record of a frame has: which message and frame it comes from."""
    return {
        "inputTopic": message.topic,
        "inputPartition": message.partition,
        "inputOffset": message.offset,
        "extension": header.extension,
        "source": message.header("name"),
        "replayed": message.header(REPLAYED),
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
