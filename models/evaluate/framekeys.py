"""Which frame a row of anybody's table means.

Frames are told apart by path and HDU; since one program writes the whole path and another only the file's name, two
paths mean the same frame when one ends with the other.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any]]
    Key = tuple[str, int]


def frame_keys(table: Columns, *, by_extension: bool) -> list[Key]:
    """The frame of each row: its path, and its HDU where ``by_extension``."""
    names = table["frame"].tolist()
    extensions = np.nan_to_num(table["extension"]).astype(int).tolist() if by_extension else [0] * len(names)
    return list(zip(names, extensions, strict=True))


def distinct(keys: Iterable[Key]) -> list[Key]:
    """Each once, in the order of their first rows."""
    return list(dict.fromkeys(keys))


def places_among(keys: Sequence[Key], listed: Sequence[Key]) -> NDArray[np.int64]:
    """For each key the index of its frame in ``listed``, -1 where it is not there."""
    known: dict[Key, list[int]] = {}
    for index, (name, extension) in enumerate(listed):
        known.setdefault((PurePath(name).name, extension), []).append(index)
    places = {key: _place(key, known, listed) for key in set(keys)}
    return np.array([places[key] for key in keys], np.int64)


def _place(key: Key, known: Mapping[Key, Sequence[int]], listed: Sequence[Key]) -> int:
    name, extension = key
    candidates = known.get((PurePath(name).name, extension), ())
    exact = [index for index in candidates if listed[index][0] == name]
    fitting = exact or [index for index in candidates if same_path(name, listed[index][0])]
    if len(fitting) > 1:
        raise ValueError(f"{name!r} fits {len(fitting)} frames, such as {listed[fitting[0]][0]!r}: give longer paths")
    return fitting[0] if fitting else -1


def same_path(one: str, other: str) -> bool:
    """Whether two paths mean the same file: one ends with the other."""
    shorter, longer = sorted((PurePath(one).parts, PurePath(other).parts), key=len)
    return longer[len(longer) - len(shorter) :] == shorter
