"""The tables of lens and merger candidates as other programs read them (docs/classes.md): one row a candidate.

Written as the table of streaks is (``stream.tables``), frame by frame; the best of a frame first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from detector.classtable import CandidateFlag
from stream.skyobjects import object_names
from stream.tables import Column, Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.streaks import Findings

Class = Literal["lenses", "mergers"]
KINDS: dict[Class, str] = {"lenses": "lens", "mergers": "merger"}
_PIXELS, _SHORT, _SKY = "z.2f", "z.4g", "z.8f"
_PLACE = (
    Column("frame"),
    Column("extension", digits="d"),
    Column("exposure"),
    Column("ccd"),
    Column("x", "pix", _PIXELS),
    Column("y", "pix", _PIXELS),
    Column("ra", "deg", _SKY),
    Column("dec", "deg", _SKY),
    Column("probability", "", "z.6g"),
    Column("probability_err", "", _SHORT),
)
_CONTENT = (Column("ic", "", _SHORT), Column("ic_err", "", _SHORT), Column("rank", digits="d"))
_LAST = (Column("object"), Column("flags"), Column("model"))
COLUMNS: dict[Class, tuple[Column, ...]] = {
    "lenses": (*_PLACE, *_CONTENT, *_LAST),
    "mergers": (*_PLACE, *_LAST),
}


def rows_of(findings: Findings, name: Class) -> NDArray[np.void]:
    """The candidates of a class (``detector.classtable.CANDIDATE``)."""
    return findings.lenses if name == "lenses" else findings.mergers


def candidate_words(flags: int, frame_flags: tuple[str, ...]) -> str:
    """The words of one row: the candidate's own, then its frame's, each once."""
    return " ".join(dict.fromkeys([*CandidateFlag(flags).words().split(), *frame_flags]))


def cells(findings: Findings, name: Class) -> dict[str, list[Any]]:
    """The columns of one frame: plain values, None where nothing is known."""
    header, rows = findings.header, rows_of(findings, name)
    constant = {
        "frame": header.name,
        "extension": header.extension,
        "exposure": header.exposure,
        "ccd": header.ccd,
        "model": findings.models.get(name),
    }
    table: dict[str, list[Any]] = {}
    for column in (column.name for column in COLUMNS[name]):
        if column in constant:
            table[column] = [constant[column]] * len(rows)
        elif column == "flags":
            table[column] = [candidate_words(int(row["flags"]), findings.flags) or None for row in rows]
        elif column == "object":
            names = [object_names(KINDS[name], float(row["ra"]), float(row["dec"])) for row in rows]
            table[column] = [next(iter(each), None) for each in names]
        elif column == "rank":
            table[column] = [int(rank) or None for rank in rows["rank"]]
        else:
            table[column] = [value if np.isfinite(value) else None for value in rows[column].tolist()]
    return table


LAYOUTS: dict[Class, Layout] = {
    "lenses": Layout(COLUMNS["lenses"], lambda findings: cells(findings, "lenses")),
    "mergers": Layout(COLUMNS["mergers"], lambda findings: cells(findings, "mergers")),
}
