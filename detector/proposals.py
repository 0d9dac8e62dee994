"""The table of proposals: what the network or the matched filter said, before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Proposals:
    """What the network said, one row a window above the floor.

    ``ends`` ``[n, 4]`` x0, y0, x1, y1 in frame pixels; ``logit`` ``[n]``; ``scale`` ``[n]`` the binning (1, 2, 4)
    of the frame it was seen in; ``members`` ``[n]`` how many windows made it (1 before merging).
    """

    ends: NDArray[np.float64]
    logit: NDArray[np.float64]
    scale: NDArray[np.float64]
    members: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.logit)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Proposals:
        """The same table with these rows only."""
        return Proposals(self.ends[rows], self.logit[rows], self.scale[rows], self.members[rows])


def concatenated(tables: list[Proposals]) -> Proposals:
    """Several tables as one."""
    return Proposals(
        np.concatenate([table.ends for table in tables]),
        np.concatenate([table.logit for table in tables]),
        np.concatenate([table.scale for table in tables]),
        np.concatenate([table.members for table in tables]),
    )
