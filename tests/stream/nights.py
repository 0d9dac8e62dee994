"""Streaks of a drawn field as the workers publish them, exposure by exposure."""

import numpy as np
from astropy.time import Time

from detector.frame import FrameHeader
from detector.streaks import Findings, StreakFlag, empty
from detector.survey import GENERIC
from stream.alerts import candidate_lists, streak_alerts
from stream.messages import Message
from tests.detector.test_linking import EXPOSURE_S, crowd, mover, streaks

THRESHOLD = 0.3  # of alerts


def night(*, movers=6, background=40, seed=3, exposures=4):
    """A table of streaks as `link` takes it: bright and faint movers among unrelated candidates."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(movers):
        turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(9, 16)
        trail = (length * np.cos(turn), length * np.sin(turn))
        score = 0.9 if number % 2 else 0.05
        rows += mover(*rng.uniform(500, 1500, 2), trail, score=score, exposures=range(exposures))
    return streaks([*rows, *crowd(background, seed, exposures)], seed=seed)


def findings_of(table, exposure, *, field="F1"):
    """What the worker found in one exposure of a table."""
    here = np.flatnonzero(table["exposure"] == exposure)
    rows = empty(len(here))
    for name in rows.dtype.names:
        if name in table and name != "flags":
            rows[name] = table[name][here]
    rows["flags"] = [StreakFlag.SHORT if "short" in words else 0 for words in table["flags"][here]]
    rows = rows[np.argsort(-rows["score"], kind="stable")]
    text = str(table["mid_time_utc"][here[0]]).rstrip("Z")
    header = FrameHeader(
        name=str(exposure),
        extension=0,
        shape=(2000, 2000),
        survey=GENERIC,
        exposure=str(exposure),
        ccd="1",
        field=field,
        mid_time_mjd_tai=float(Time(text, format="isot", scale="utc").tai.mjd),
        exposure_s=EXPOSURE_S,
    )
    published = int((rows["score"] >= THRESHOLD).sum())
    return Findings(header, rows[:published], 1.0, 1.0, 2.0, {}, {}, (), rows[published:])


def exposures_of(table):
    return list(dict.fromkeys(table["exposure"].tolist()))


def outputs_of(table, exposure, *, field="F1"):
    """The messages of one exposure: alerts, then the list of candidates."""
    number = exposures_of(table).index(exposure)
    message = Message("frames", 0, number, b"k", b"x")
    found = findings_of(table, exposure, field=field)
    return streak_alerts(found, message, b"x", 60_000.0) + candidate_lists(found, message, b"x", 60_000.0)


def places_of(record):
    """The sightings of a published track: exposure and mid-point to the pixel."""
    return frozenset(
        (one["exposure"], round((one["x0"] + one["x1"]) / 2), round((one["y0"] + one["y1"]) / 2))
        for one in record["sightings"]
    )


def places_in(table, track):
    """The same of a track of `link`."""
    return frozenset(
        (
            str(table["exposure"][row]),
            round((table["x0"][row] + table["x1"][row]) / 2),
            round((table["y0"][row] + table["y1"][row]) / 2),
        )
        for row in track.rows
    )


def latest(records):
    """The highest version of each track that is not withdrawn."""
    newest = {}
    for record in records:
        if record["version"] > newest.get(record["trackId"], {"version": 0})["version"]:
            newest[record["trackId"]] = record
    return [record for record in newest.values() if not record["withdrawn"]]
