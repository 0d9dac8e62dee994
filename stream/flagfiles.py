"""Files of flag maps that lie beside frames: which belongs to which, by a pattern.

A pattern is a path, relative to the folder of the frame, in which ``*`` or ``{stem}`` stands for the frame's name
without its ending and ``{name}`` for the whole name: ``*_flag.fits``, ``../masks/{name}``. One without any of these is
one map for all frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.fits import Reading, read_flags
from detector.frame import BadFrame

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from detector.fitsheader import Limits

ENDINGS = (".gz", ".fz", ".fits", ".fit", ".fts")


def flags_path(frame: Path, pattern: str) -> Path:
    """Where the flags of a frame lie by ``pattern``."""
    stem = frame.name
    for ending in ENDINGS:
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
    return frame.parent / pattern.replace("{name}", frame.name).replace("{stem}", stem).replace("*", stem)


def without_flags(files: Iterable[Path], pattern: str) -> list[Path]:
    """The files without those that are the flags of another one: none of these is a frame."""
    given = list(files)
    flags = {flags_path(file, pattern).resolve() for file in given}
    return [file for file in given if file.resolve() not in flags]


def flags_beside(frame: Path, pattern: str, limits: Limits) -> Reading | BadFrame:
    """The flag maps of a frame, or why they cannot be had."""
    path = flags_path(frame, pattern)
    try:
        return read_flags(path, name=str(path), limits=limits)
    except BadFrame as bad:
        return bad
    except OSError as error:
        return BadFrame("no-image", f"{path}: {error.strerror}")
