"""The inventory: what the frames in an archive's files are, kept on disk, so that memory holds none of it.

Headers are read once: a file whose size and time of change are those of the last look is not opened again. What is
there is rebuilt from the files whenever it is missing, of another version or damaged, so it may be deleted at any time.

How it fails at night: a file that may not be read, or is gone between two looks, is left out by name; one that is no
FITS is kept without frames, and looked at again each time. Errors of the inventory's own disk are ``sqlite3.Error``.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.frame import BadFrame, FrameLabel
from detector.pointing import NIGHT_DAYS, Pointing, exposures_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Look = Callable[[Path], tuple[FrameLabel, ...]]  # the frames of a file by their headers; raises BadFrame
    Point = Callable[[Path], Pointing | None]  # where its first frame looked

SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".fits.gz", ".fit.gz", ".fts.gz")
TOGETHER = 500  # files between two commits, and rows in memory at once
LAYOUT = 2
TABLES = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, changed_ns INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS frames (
    path TEXT, extension INTEGER, survey TEXT, height INTEGER, width INTEGER, exposure TEXT, ccd TEXT, field TEXT,
    filter TEXT, mid_time REAL, PRIMARY KEY (path, extension)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pointings (
    path TEXT PRIMARY KEY, ra REAL, dec REAL, reach REAL, mid_time REAL, height INTEGER, width INTEGER, filter TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pointings_in_time ON pointings (mid_time);
CREATE TEMP TABLE present (path TEXT PRIMARY KEY, shown TEXT, size INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE queue (number INTEGER PRIMARY KEY, path TEXT, shown TEXT, size INTEGER);
"""


@dataclass(frozen=True)
class Selection:
    """Which frames are wanted: MJD in TAI from ``after`` on and before ``before``; of names any of those given."""

    after_mjd_tai: float | None = None
    before_mjd_tai: float | None = None
    fields: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ()
    ccds: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is asked for, so that files without any known frame are wanted too."""
        return self == Selection()

    def wants(self, frame: FrameLabel) -> bool:
        """Say whether a frame is one of them; what is not known is none."""
        time = frame.mid_time_mjd_tai
        named = (
            (self.fields, frame.field),
            (self.filters, frame.filter_name),
            (self.exposures, frame.exposure),
            (self.ccds, frame.ccd),
        )
        return (
            (self.after_mjd_tai is None or (time is not None and time >= self.after_mjd_tai))
            and (self.before_mjd_tai is None or (time is not None and time < self.before_mjd_tai))
            and all(not wanted or name in wanted for wanted, name in named)
        )


@dataclass(frozen=True)
class ArchivedFile:
    """A file of the archive: its absolute path, its name as it was given, its frames, and which of them are wanted.

    A file without frames cannot be read.
    """

    path: Path
    shown: str
    size_bytes: int
    frames: tuple[FrameLabel, ...]
    wanted: tuple[FrameLabel, ...]

    @property
    def readable(self) -> bool:
        """Whether it is a file of frames at all."""
        return bool(self.frames)

    @property
    def mid_time_mjd_tai(self) -> float | None:
        """The time of its earliest wanted frame."""
        return min((f.mid_time_mjd_tai for f in self.wanted if f.mid_time_mjd_tai is not None), default=None)


class Inventory:
    """The files below some paths and what they hold. ``database`` is kept; what is asked of it is not."""

    def __init__(self, database: Path, version: str) -> None:
        database.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.connection = _opened(database, version)
        except sqlite3.DatabaseError:
            for ending in ("", "-wal", "-shm"):
                Path(f"{database}{ending}").unlink(missing_ok=True)
            self.connection = _opened(database, version)

    def scan(self, paths: Iterable[Path], look: Look, *, looked: Callable[[int], None]) -> list[str]:
        """Take in the files below ``paths``; gives why each that cannot be read by this user was left out.

        ``looked`` is told how many there are so far.
        """
        left_out: list[str] = []
        with self.connection:
            self.connection.execute("DELETE FROM present")
        for number, path in enumerate(fits_below(paths), 1):
            try:
                str(path).encode()  # names go into messages and the database as UTF-8
                self._take_in(path, look)
            except UnicodeEncodeError:
                left_out.append(f"{str(path).encode(errors='replace').decode()}: its name is not UTF-8")
            except (PermissionError, FileNotFoundError) as error:
                left_out.append(f"{path}: {error.strerror}")
            if number % TOGETHER == 0:
                self.connection.commit()
            looked(number)
        self.connection.commit()
        return left_out

    def point(self, point: Point, *, looked: Callable[[int], None]) -> None:
        """Take in where the files of the last scan looked, as far as that is not known yet."""
        missing = self.connection.execute(
            "SELECT DISTINCT present.path FROM present JOIN frames ON frames.path = present.path "
            "LEFT JOIN pointings ON pointings.path = present.path WHERE pointings.path IS NULL"
        ).fetchall()
        for number, (path,) in enumerate(missing, 1):
            known = point(Path(path))
            row = (None,) * 7 if known is None else (*astuple(known)[:4], *known.shape, known.filter_name)
            self.connection.execute("INSERT OR REPLACE INTO pointings VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (path, *row))
            if number % TOGETHER == 0:
                self.connection.commit()
            looked(number)
        self.connection.commit()

    def field_of(self, path: Path) -> list[Path]:
        """Give a file and those of the last scan that show its field, by ``exposures_together``."""
        row = self.connection.execute(
            f"SELECT {_POINTING} FROM pointings WHERE path = ?",  # noqa: S608 - of our own words
            (str(path),),
        ).fetchone()
        if row is None or row[0] is None:
            return [path]
        own = _pointing(row)
        time = own.mid_time_mjd_tai
        rows = self.connection.execute(
            f"SELECT {_POINTING}, pointings.path FROM pointings JOIN present ON present.path = pointings.path "  # noqa: S608 - of our own words
            "WHERE mid_time BETWEEN ? AND ? AND dec BETWEEN ? AND ? ORDER BY ABS(mid_time - ?), pointings.path",
            (time - NIGHT_DAYS, time + NIGHT_DAYS, own.dec - own.reach_deg, own.dec + own.reach_deg, time),
        )
        return exposures_together(own, path, ((_pointing(told), Path(other)) for *told, other in rows))

    def choose(self, selection: Selection) -> tuple[int, int]:
        """Put the files that hold wanted frames in the order of time, then of name; gives how many, and their bytes.

        Files without a time, and then those that cannot be read, come last.
        """
        condition, values = _condition(selection)
        with self.connection:
            self.connection.execute("DELETE FROM queue")
            self.connection.execute(
                "INSERT INTO queue (path, shown, size) SELECT present.path, shown, size FROM present JOIN frames "  # noqa: S608 - of our own words
                f"ON frames.path = present.path WHERE {condition} GROUP BY present.path "
                "ORDER BY MIN(mid_time) IS NULL, MIN(mid_time), present.path",
                values,
            )
            if selection.everything:
                self.connection.execute(
                    "INSERT INTO queue (path, shown, size) SELECT path, shown, size FROM present "
                    "WHERE NOT EXISTS (SELECT 1 FROM frames WHERE frames.path = present.path) ORDER BY path"
                )
        count, size_bytes = self.connection.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM queue").fetchone()
        return int(count), int(size_bytes)

    def chosen(self, selection: Selection) -> Iterator[ArchivedFile]:
        """Give the files of the last choice, a few in memory at a time."""
        last = 0
        while rows := self.connection.execute(
            "SELECT number, path, shown, size FROM queue WHERE number > ? ORDER BY number LIMIT ?", (last, TOGETHER)
        ).fetchall():
            for number, path, shown, size in rows:
                frames = tuple(self._frames(path))
                yield ArchivedFile(Path(path), shown, size, frames, tuple(f for f in frames if selection.wants(f)))
                last = number

    def close(self) -> None:
        """Let go of the database."""
        self.connection.close()

    def _take_in(self, path: Path, look: Look) -> None:
        status = path.stat()
        absolute = os.path.abspath(path)  # noqa: PTH100 - links stay: a link's own name is the file's name here
        row = (absolute, status.st_size, status.st_mtime_ns)
        execute = self.connection.execute
        execute("INSERT OR IGNORE INTO present VALUES (?, ?, ?)", (absolute, str(path), status.st_size))
        known = execute("SELECT 1 FROM files WHERE path = ? AND size = ? AND changed_ns = ?", row).fetchone()
        if known:
            return
        try:
            frames = look(path)
        except (PermissionError, FileNotFoundError):
            execute("DELETE FROM present WHERE path = ?", (absolute,))
            raise
        except BadFrame:
            frames = ()
        execute("DELETE FROM frames WHERE path = ?", (absolute,))
        execute("DELETE FROM files WHERE path = ?", (absolute,))
        execute("DELETE FROM pointings WHERE path = ?", (absolute,))
        rows = [(absolute, f.extension, f.survey, *f.shape, *astuple(f)[3:]) for f in frames]
        self.connection.executemany("INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        if frames:  # what could not be read may be readable with other limits
            execute("INSERT INTO files VALUES (?, ?, ?)", row)

    def _frames(self, path: str) -> Iterator[FrameLabel]:
        rows = self.connection.execute("SELECT * FROM frames WHERE path = ? ORDER BY extension", (path,))
        for _, extension, survey, height, width, *rest in rows:
            yield FrameLabel(extension, survey, (height, width), *rest)


_POINTING = "ra, dec, reach, mid_time, height, width, filter"


def _pointing(row: Sequence[Any]) -> Pointing:
    """A pointing of a row of ``_POINTING``."""
    ra, dec, reach, mid_time, height, width, filter_name = row
    return Pointing(ra, dec, reach, mid_time, (height, width), filter_name)


def fits_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Give the files as given, and for each folder the FITS files below it; links to folders are not followed."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                file = Path(folder) / name
                if name.lower().endswith(SUFFIXES) and file.is_file():
                    yield file


def _opened(database: Path, version: str) -> sqlite3.Connection:
    """Open the database; what another version of the program understood of headers is forgotten."""
    connection = sqlite3.connect(database, timeout=60)
    # It can be made again: speed before what a power cut may take.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE IF NOT EXISTS written (by TEXT)")
    writer = f"{LAYOUT}/{version}"
    if connection.execute("SELECT by FROM written").fetchall() != [(writer,)]:
        with connection:
            for table in ("files", "frames", "pointings", "written"):
                connection.execute(f"DROP TABLE IF EXISTS {table}")
            connection.execute("CREATE TABLE written (by TEXT)")
            connection.execute("INSERT INTO written VALUES (?)", (writer,))
    connection.executescript(TABLES)
    return connection


def _condition(selection: Selection) -> tuple[str, list[object]]:
    """The selection in SQL: the same as ``Selection.wants``."""
    parts: list[str] = ["1"]
    values: list[object] = []
    if selection.after_mjd_tai is not None:
        parts.append("mid_time >= ?")
        values.append(selection.after_mjd_tai)
    if selection.before_mjd_tai is not None:
        parts.append("mid_time < ?")
        values.append(selection.before_mjd_tai)
    for column in ("field", "filter", "exposure", "ccd"):
        names = getattr(selection, f"{column}s")
        if names:
            parts.append(f"{column} IN ({','.join('?' * len(names))})")
            values += names
    return " AND ".join(parts), values
