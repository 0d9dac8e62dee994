"""The figures as pictures (extra ``train``: matplotlib, without a screen)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.evaluate.completeness import LENGTH_CLASSES, score_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from models.evaluate.accuracy import Reliability, Residuals
    from models.evaluate.completeness import Curve, HalfMagnitude
    from models.evaluate.streaks import StreakReport

_BIN_MAG = 0.25
_PRICE = 10.0  # false ones per frame


def draw(folder: Path, curves: Mapping[str, Curve], report: StreakReport) -> None:
    """Write PNGs into ``folder``: completeness of each detector; m50, residuals, reliability of the first."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    pictures: dict[str, Callable[[Axes], None]] = {
        "completeness": lambda axes: _completeness(axes, curves, report.unit),
        "m50": lambda axes: _price(axes, report.half_magnitudes, report.unit),
        "residuals": lambda axes: _residuals(axes, report.residuals),
        "reliability": lambda axes: _reliability(axes, report.reliability),
    }
    for name, paint in pictures.items():
        figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
        paint(axes)
        figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})
        plt.close(figure)


def _completeness(axes: Axes, curves: Mapping[str, Curve], unit: str) -> None:
    """Found against magnitude at one price, all lengths together."""
    for name, curve in curves.items():
        above = score_at(curve.false_score, np.ones(len(curve.false_score)), _PRICE * curve.units)
        edges = np.arange(np.floor(curve.mag.min(initial=20)), curve.mag.max(initial=20) + _BIN_MAG, _BIN_MAG)
        total = np.histogram(curve.mag, edges)[0]
        found = np.histogram(curve.mag[curve.score > above], edges)[0]
        axes.plot((edges[1:] + edges[:-1]) / 2, found / np.where(total, total, np.nan), marker="o", label=name)
    axes.axhline(0.5, color="grey", linewidth=0.8)
    axes.set(xlabel="magnitude", ylabel=f"completeness at {_PRICE:g} false per {unit}", ylim=(0, 1.02))
    axes.legend()


def _price(axes: Axes, halves: Sequence[HalfMagnitude], unit: str) -> None:
    """m50 against false ones per frame by class of lengths, and what noise alone would allow."""
    for index, name in enumerate(LENGTH_CLASSES):
        rows = [half for half in halves if half.lengths == name]
        price = [half.false_per_frame for half in rows]
        m50 = [np.nan if half.m50 is None else half.m50 for half in rows]
        error = [half.m50_err or 0.0 for half in rows]
        limit = [np.nan if half.noise_limit is None else half.noise_limit for half in rows]
        label = "5 px and longer" if name == "all" else f"{name} px"
        axes.errorbar(price, m50, error, marker="o", color=f"C{index}", label=label)
        axes.plot(price, limit, linestyle=":", color=f"C{index}")
    axes.set(xscale="log", xlabel=f"false per {unit}", ylabel="m50 (dotted: noise alone)")
    axes.legend()


def _residuals(axes: Axes, table: Sequence[Residuals]) -> None:
    """Medians by SNR beside the bound."""
    rows = [row for row in table if row.count]
    if not rows:
        axes.text(0.5, 0.5, "nothing found at the threshold", ha="center", transform=axes.transAxes)
        return
    low = [row.snr_from for row in rows]
    for name, values in {
        "end": [row.end_px for row in rows],
        "end, Cramer-Rao": [row.end_bound_px for row in rows],
        "mid-point": [row.mid_px for row in rows],
        "mid-point, Cramer-Rao": [row.mid_bound_px for row in rows],
    }.items():
        axes.plot(low, [np.nan if value is None else value for value in values], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="SNR (lower edge of the bin)", ylabel="median residual, px")
    axes.legend()


def _reliability(axes: Axes, table: Sequence[Reliability]) -> None:
    """True fraction against score; a calibrated score lies on the diagonal at the expected density."""
    score = [row.mean_score for row in table]
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.plot(score, [row.true_fraction for row in table], marker="o", label="at this sample's density")
    axes.plot(score, [row.true_fraction_expected for row in table], marker="s", label="at the expected one")
    axes.set(xlabel="mean score", ylabel="fraction true", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend()
