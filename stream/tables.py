"""The table of streaks as other programs read it, and the way back.

One table holds all frames of a run. It is written frame by frame, so memory does not grow with the number of frames,
into ``NAME.partial``, which takes its name when the last frame is done: whoever sees ``streaks.csv`` sees all of it.
When a night's run dies half-way, ``streaks.csv.partial`` holds the frames that were done.

Columns, units and flags are published in ``docs/streaks.md``; the order never changes, new columns come before
``flags``.
"""

from __future__ import annotations

import csv
import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from astropy.table import Column as AstropyColumn
from astropy.table import Table
from astropy.time import Time

from detector.streaks import StreakFlag
from stream.machine import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from detector.streaks import Findings

    Add = Callable[[Findings], None]


@dataclass(frozen=True)
class Column:
    """One column: its name, its unit ("" for none), and how a number is written; ``digits`` is None for text."""

    name: str
    unit: str = ""
    digits: str | None = None


# Digits: a tenth of what the best streak can be measured to; of the score so many that the best ones stay ordered.
# Right ascension and declination: 1e-8 degrees are 0.04 mas. "z" in a format keeps -0.0001 from becoming "-0.000".
_PIXELS, _SHORT, _SKY = "z.3f", "z.4g", "z.8f"
COLUMNS = (
    Column("frame"),
    Column("extension", digits="d"),
    Column("exposure"),
    Column("ccd"),
    Column("x0", "pix", _PIXELS),
    Column("y0", "pix", _PIXELS),
    Column("x1", "pix", _PIXELS),
    Column("y1", "pix", _PIXELS),
    Column("score", "", "z.9g"),
    Column("snr", "", "z.2f"),
    Column("flux", "electron", "z.6g"),
    Column("mag", "mag(AB)", "z.3f"),
    Column("chi2", "", _SHORT),
    Column("length_px", "pix", _PIXELS),
    Column("angle_deg", "deg", _PIXELS),
    Column("ra0", "deg", _SKY),
    Column("dec0", "deg", _SKY),
    Column("ra1", "deg", _SKY),
    Column("dec1", "deg", _SKY),
    Column("ra", "deg", _SKY),
    Column("dec", "deg", _SKY),
    Column("trail_length_arcsec", "arcsec", "z.4f"),
    Column("trail_angle_deg", "deg", _PIXELS),
    Column("rate_arcsec_h", "arcsec / h", "z.4f"),
    Column("mid_time_utc"),
    Column("x0_err", "pix", _SHORT),
    Column("y0_err", "pix", _SHORT),
    Column("x1_err", "pix", _SHORT),
    Column("y1_err", "pix", _SHORT),
    Column("flux_err", "electron", _SHORT),
    Column("mag_err", "mag", _SHORT),
    Column("length_px_err", "pix", _SHORT),
    Column("angle_deg_err", "deg", _SHORT),
    Column("ra_err", "deg", _SHORT),
    Column("dec_err", "deg", _SHORT),
    Column("ra_dec_corr", "", _SHORT),
    Column("trail_length_arcsec_err", "arcsec", _SHORT),
    Column("trail_angle_deg_err", "deg", _SHORT),
    Column("rate_arcsec_h_err", "arcsec / h", _SHORT),
    Column("flags"),
)
NAMES = tuple(column.name for column in COLUMNS)
TEXT = frozenset(column.name for column in COLUMNS if column.digits is None)


def utc_text(mjd_tai: float | None) -> str | None:
    """A time (MJD, TAI) as ISO 8601 UTC with milliseconds and a ``Z``; None stays None."""
    if mjd_tai is None or not np.isfinite(mjd_tai):
        return None
    return str(Time(mjd_tai, format="mjd", scale="tai", precision=3).utc.isot) + "Z"


def flag_words(streak_flags: int, frame_flags: Sequence[str]) -> str:
    """The words of one row: the streak's own, then its frame's, each once."""
    own = StreakFlag(streak_flags).words().split()
    return " ".join(dict.fromkeys([*own, *frame_flags]))


def cells(findings: Findings) -> dict[str, list[Any]]:
    """The table's columns of one frame: plain values, None where nothing is known."""
    header, streaks = findings.header, findings.streaks
    constant = {
        "frame": header.name,
        "extension": header.extension,
        "exposure": header.exposure,
        "ccd": header.ccd,
        "mid_time_utc": utc_text(header.mid_time_mjd_tai),
    }
    table: dict[str, list[Any]] = {}
    for name in NAMES:
        if name in constant:
            table[name] = [constant[name]] * len(streaks)
        elif name == "flags":
            table[name] = [flag_words(int(flags), findings.flags) or None for flags in streaks["flags"]]
        else:
            table[name] = [value if np.isfinite(value) else None for value in streaks[name].tolist()]
    return table


@dataclass(frozen=True)
class Layout:
    """A kind of table: its columns, and what gives their plain values for one frame."""

    columns: tuple[Column, ...]
    cells: Callable[[Findings], dict[str, list[Any]]]

    def texts(self, findings: Findings) -> Iterator[tuple[str, ...]]:
        """The rows of one frame as CSV and ECSV write them; an unknown value is the empty text."""
        table = self.cells(findings)
        written = [
            ["" if value is None else format(value, column.digits or "") for value in table[column.name]]
            for column in self.columns
        ]
        return zip(*written, strict=True)


STREAK_LAYOUT = Layout(COLUMNS, cells)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend ``path`` with ``.partial`` behind its name; it takes its own name when the block ends without an error.

    The error of a full disk, which does not say whose, gets the folder's name.
    """
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(partial.parent)
        raise
    partial.replace(path)


@contextmanager
def csv_table(path: Path, layout: Layout = STREAK_LAYOUT) -> Iterator[Add]:
    """Write CSV: one line of names, then one line a streak, or whatever the ``layout`` has rows of."""
    with _text_table(path, ",".join(column.name for column in layout.columns) + "\n", layout) as add:
        yield add


@contextmanager
def ecsv_table(path: Path, layout: Layout = STREAK_LAYOUT) -> Iterator[Add]:
    """Write ECSV: the same lines under a header with types and units, which astropy reads back as columns."""
    kinds = {None: str, "d": np.int64}
    header = Table(
        [AstropyColumn([], name=column.name, dtype=kinds.get(column.digits, np.float64)) for column in layout.columns],
    )
    for column in layout.columns:
        header[column.name].unit = column.unit or None
    lines = io.StringIO()
    header.write(lines, format="ascii.ecsv", delimiter=",")
    with _text_table(path, lines.getvalue(), layout) as add:
        yield add


@contextmanager
def _text_table(path: Path, head: str, layout: Layout) -> Iterator[Add]:
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        stream.write(head)
        lines = csv.writer(stream, lineterminator="\n")

        def add(findings: Findings) -> None:
            lines.writerows(layout.texts(findings))
            stream.flush()  # what is done is on disk when the next frame takes the process down

        yield add


@contextmanager
def parquet_table(path: Path, layout: Layout = STREAK_LAYOUT) -> Iterator[Add]:
    """Write Parquet (extra ``parquet``), numbers in full precision, one row group a frame, units in the fields."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to import
    import pyarrow.parquet as pq  # noqa: PLC0415

    kinds = {None: pa.string(), "d": pa.int64()}
    schema = pa.schema(
        pa.field(column.name, kinds.get(column.digits, pa.float64()), metadata={"unit": column.unit})
        for column in layout.columns
    )
    with replacing(path) as partial, pq.ParquetWriter(partial, schema) as writer:

        def add(findings: Findings) -> None:
            table = pa.table(layout.cells(findings), schema=schema)
            if len(table):
                writer.write_table(table)

        yield add


def read_columns(path: Path, numbers: Collection[str]) -> dict[str, NDArray[Any]]:
    """Read anybody's table: CSV, ECSV or Parquet by the file's suffix, columns in any order.

    The columns named in ``numbers`` come as float64, NaN where the table is empty; all others as text, "" where it is
    empty, so that a CCD called ``0012`` keeps its zeros. Raises ``ValueError`` for a table that cannot be read, naming
    the file and the column.
    """
    readers: Mapping[str, Callable[[Path], dict[str, list[Any]]]] = {
        ".csv": _read_csv,
        ".ecsv": _read_ecsv,
        ".parquet": _read_parquet,
    }
    if path.suffix not in readers:
        raise ValueError(f"{path}: a table ends in one of {', '.join(readers)}")
    raw = readers[path.suffix](path)
    return {name: _numbers(path, name, raw[name]) if name in numbers else _texts(raw[name]) for name in raw}


def _read_csv(path: Path) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(line for line in stream if not line.startswith("#"))
        names = next(lines, None)
        if names is None:
            raise ValueError(f"{path}: empty; the first line must name the columns")
        rows = [line for line in lines if line]
    wrong = next((index for index, row in enumerate(rows) if len(row) != len(names)), None)
    if wrong is not None:
        raise ValueError(f"{path}: row {wrong + 1} has {len(rows[wrong])} values for {len(names)} columns")
    return {name.strip(): [row[index] for row in rows] for index, name in enumerate(names)}


def _read_ecsv(path: Path) -> dict[str, list[Any]]:
    table = Table.read(path, format="ascii.ecsv")
    return {name: cast("list[Any]", table[name].tolist()) for name in table.colnames}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra, and slow to import

    return cast("dict[str, list[Any]]", pq.read_table(path).to_pydict())


def _numbers(path: Path, name: str, values: Sequence[Any]) -> NDArray[np.float64]:
    words = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0, "": np.nan, "null": np.nan}
    try:
        return np.array(
            [
                np.nan
                if value is None
                else words[value.strip().lower()]
                if isinstance(value, str) and value.strip().lower() in words
                else float(value)
                for value in values
            ],
            dtype=np.float64,
        )
    except ValueError as error:
        raise ValueError(f"{path}: column {name}: {error}") from error


def _texts(values: Sequence[Any]) -> NDArray[np.str_]:
    return np.array(["" if value is None else str(value) for value in values], dtype=np.str_)
