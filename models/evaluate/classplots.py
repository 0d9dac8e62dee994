"""The figures of lenses and mergers as pictures: ROC, reliability, and a page of the best true and worst false stamps.

ROC and reliability need the extra ``train`` (matplotlib); the page of stamps does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from models.evaluate.classes import roc
from models.evaluate.classframes import curve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from models.evaluate.classes import ClassReport, Judgement
    from models.evaluate.classframes import Ensemble

COLUMNS, ROWS = 10, 2
GAP_PX = 4
# Sigmas of the sky that are black and white.
DARK, LIGHT = -2.0, 40.0


def draw_curves(
    folder: Path, judgements: Mapping[str, Judgement], reports: Mapping[str, ClassReport], true: NDArray[np.bool_]
) -> None:
    """Write ``roc.png`` and ``reliability.png`` into ``folder``."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for name, judgement in judgements.items():
        axes.plot(*roc(judgement.score, true).T, label=f"{name} ({reports[name].area:.3f})")
    axes.set(xscale="log", xlim=(0.5 / max((~true).sum(), 1), 1.0), ylim=(0, 1.02))
    axes.set(xlabel="share of false ones taken", ylabel="share of true ones found")
    axes.legend()
    figure.savefig(folder / "roc.png", dpi=120, metadata={"Software": None})
    plt.close(figure)
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for name, report in reports.items():
        if report.reliability is not None:
            axes.plot(report.reliability[:, 0], report.reliability[:, 1], marker="o", label=name)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set(xlabel="probability said", ylabel="share that is true")
    axes.legend()
    figure.savefig(folder / "reliability.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def draw_completeness(folder: Path, found: Mapping[str, Ensemble]) -> None:
    """Write ``completeness.png``: of each class, purity against completeness as the floor of its map sinks."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for name, one in found.items():
        axes.plot(*curve(one).T, label=f"{name} ({len(one.best)})")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="completeness", ylabel="purity of what is handed on")
    axes.legend()
    figure.savefig(folder / "completeness.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def stamp_page(pixels: NDArray[np.floating], score: NDArray[np.float64], true: NDArray[np.bool_]) -> Image.Image:
    """The best true stamps ``[n, h, w]`` in the two upper rows, below a bar the false ones that score highest."""
    side = pixels.shape[1]
    height = 2 * ROWS * (side + GAP_PX) + 3 * GAP_PX
    page = np.full((height, COLUMNS * (side + GAP_PX) + GAP_PX), 90, np.uint8)
    for part, wanted in enumerate((true, ~true)):
        rows = np.flatnonzero(wanted)
        best = rows[np.argsort(-score[rows], kind="stable")][: COLUMNS * ROWS]
        for place, row in enumerate(best):
            line, column = divmod(place, COLUMNS)
            top = GAP_PX + (line + part * ROWS) * (side + GAP_PX) + part * GAP_PX
            left = GAP_PX + column * (side + GAP_PX)
            page[top : top + side, left : left + side] = grey(pixels[row])
    return Image.fromarray(page)


def grey(stamp: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A stamp in sigmas of the sky as grey values, asinh-stretched; masked pixels are black."""
    value = np.nan_to_num(np.asarray(stamp, np.float64), nan=DARK)
    low, high = np.arcsinh(DARK), np.arcsinh(LIGHT)
    return np.asarray(np.clip((np.arcsinh(value) - low) / (high - low), 0.0, 1.0) * 255, np.uint8)
