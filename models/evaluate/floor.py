"""The floor under the networks: what hand-made features know already, and what nothing but shape may know.

Two questions about a set of labelled stamps. Do *trivial* features tell its classes apart: where the brightest pixel
is, how much light there is, what the border looks like? Then the set leaks, and every figure made with it flatters.
And how far do *shapes made by hand* get (concentration, asymmetry, Gini, M20, moments, rings) with boosted trees? A
network that does not beat them has learned nothing worth its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRIVIAL = ("peak_offset", "peak", "total", "border_mean", "border_scatter")
MORPHOLOGY = (
    *("concentration", "asymmetry", "smoothness", "gini", "m20", "elongation", "size", "peaks", "second_peak"),
    *(f"ring_{k}" for k in range(8)),
    *(f"ring_scatter_{k}" for k in range(8)),
)
# Widths (px) of the rings about the middle in which light and its scatter are measured.
RING_PX = 3.5
BORDER_PX = 4
# How far a trivial feature's area under the curve may be from one half.
LEAK = 0.03
TREES = 200
FOLDS = 4


def trivial_features(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """What of stamps ``[n, h, w]`` should say nothing about their class, ``[n, len(TRIVIAL)]``."""
    n, height, width = pixels.shape
    filled = np.nan_to_num(pixels.astype(np.float64))
    smooth = ndimage.gaussian_filter(filled, (0.0, 1.0, 1.0))
    brightest = smooth.reshape(n, -1).argmax(axis=1)
    rows, columns = np.divmod(brightest, width)
    border = np.ones((height, width), np.bool_)
    border[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = False
    edge = np.arcsinh(filled[:, border])
    return np.column_stack(
        [
            np.hypot(rows - height / 2.0, columns - width / 2.0),
            smooth.max(axis=(1, 2)),
            filled.sum(axis=(1, 2)),
            edge.mean(axis=1),
            edge.std(axis=1),
        ]
    )


def areas(feature_rows: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The area under the curve of each feature alone, ``[k]``; one half says nothing, either side tells classes."""
    return np.array([area(column, positive) for column in feature_rows.T])


def area(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, equal scores counting half.

    Errors: ``ValueError`` when one of the classes is missing.
    """
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        raise ValueError(f"{count} positives and {others} negatives: both are needed for an area under the curve")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - count * (count + 1) / 2.0) / (count * others))


def morphology_features(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shapes of stamps ``[n, h, w]`` made by hand, ``[n, len(MORPHOLOGY)]`` (Conselice 2003, Lotz et al. 2004)."""
    return np.array([_shape_of(np.nan_to_num(stamp.astype(np.float64))) for stamp in pixels]).reshape(
        len(pixels), len(MORPHOLOGY)
    )


def _shape_of(stamp: NDArray[np.float64]) -> NDArray[np.float64]:
    smooth = ndimage.gaussian_filter(stamp, 1.0)
    height, width = stamp.shape
    middle = smooth[height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8]
    cy, cx = np.unravel_index(int(middle.argmax()), middle.shape)
    cy, cx = int(cy) + height // 2 - 8, int(cx) + width // 2 - 8
    rows, columns = np.indices(stamp.shape)
    r = np.hypot(rows - cy, columns - cx)
    # The object: what hangs together with the middle above 1.5 sigma of the smoothed sky.
    labels, _ = ndimage.label(smooth > 0.45)
    mine = (labels == labels[cy, cx]) & (smooth > 0.45) if smooth[cy, cx] > 0.45 else r < 3.0
    light = np.where(mine, np.maximum(stamp, 0.0), 0.0)
    total = max(float(light.sum()), 1e-6)
    order = np.argsort(r[mine])
    grown = np.cumsum(light[mine][order]) / total
    r20, r80 = (float(r[mine][order][min(np.searchsorted(grown, q), len(grown) - 1)]) for q in (0.2, 0.8))
    half = min(cy, cx, height - 1 - cy, width - 1 - cx, 24)
    inner = smooth[cy - half : cy + half + 1, cx - half : cx + half + 1]
    norm = max(float(np.abs(inner).sum()), 1e-6)
    asymmetry = float(np.abs(inner - inner[::-1, ::-1]).sum()) / norm
    smoothness = float(np.abs(inner - ndimage.gaussian_filter(inner, 2.5)).sum()) / norm
    values = np.sort(light[mine])
    k = np.arange(1, len(values) + 1)
    gini = float(((2 * k - len(values) - 1) * values).sum() / max(values.sum() * max(len(values) - 1, 1), 1e-6))
    moment = light * r**2
    bright = np.sort(light[mine])[::-1]
    level = bright[min(int(np.searchsorted(np.cumsum(bright), 0.2 * total)), len(bright) - 1)]
    m20 = float(np.log10(max(moment[light >= level].sum(), 1e-6) / max(moment.sum(), 1e-6)))
    dx, dy = (columns - cx)[mine], (rows - cy)[mine]
    w = light[mine] / total
    tensor = np.array([[(w * dx * dx).sum(), (w * dx * dy).sum()], [(w * dx * dy).sum(), (w * dy * dy).sum()]])
    low, high = np.linalg.eigvalsh(tensor + 0.1 * np.eye(2))
    peaks = (ndimage.maximum_filter(smooth, 5) == smooth) & (smooth > 2.0)
    heights = np.sort(smooth[peaks])[::-1]
    rings = [np.arcsinh(smooth[(r >= a * RING_PX) & (r < (a + 1) * RING_PX)]) for a in range(8)]
    return np.array([
        5.0 * np.log10(max(r80, 0.5) / max(r20, 0.5)), asymmetry, smoothness, gini, m20,
        np.sqrt(low / high), np.sqrt(mine.sum()), float(len(heights)),
        float(heights[1] / heights[0]) if len(heights) > 1 else 0.0,
        *(float(ring.mean()) for ring in rings), *(float(ring.std()) for ring in rings),
    ])  # fmt: skip


def boosted_scores(features: NDArray[np.float64], positive: NDArray[np.bool_], *, seed: int = 1) -> NDArray[np.float64]:
    """The score of each row by boosted trees that have not seen it (``FOLDS`` parts in turn), ``[n]``.

    Needs the extra ``train`` (lightgbm).
    """
    import lightgbm  # noqa: PLC0415 - an extra

    part = np.random.default_rng(seed).permutation(len(features)) % FOLDS
    scores = np.zeros(len(features))
    for k in range(FOLDS):
        data = lightgbm.Dataset(features[part != k], positive[part != k].astype(np.float64))
        parameters = {"objective": "binary", "num_leaves": 15, "learning_rate": 0.05, "verbose": -1, "seed": seed}
        trees = lightgbm.train({**parameters, "num_threads": 1, "deterministic": True}, data, TREES)
        scores[part == k] = trees.predict(features[part == k])
    return scores
