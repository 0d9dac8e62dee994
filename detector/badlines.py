"""Bad columns and rows: brighter or darker than their neighbours for a long run, and sharper than any trail.

A satellite's trail along a column is blurred by the PSF and so tells itself; a column has no blur. A faint column is
seen only in its whole length, and a short hot one is left to the detector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.goodpixels import nanmedian

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.goodpixels import Mask

SEGMENT_PX = 64  # columns and rows are judged in pieces of this length
CLAMP = 2.0  # sigma: a pixel counts for no more than this, so that stars and cosmic rays do not make a column
RUN_SEGMENTS = 3  # a bad column is at least this many segments long
SEGMENT_SIGMA = 5.0  # of one segment in a run
COLUMN_SIGMA = 12.5  # of a whole run: from here on the sharpness below can be told from that of a trail
# A line of the sky has at least a third of its peak one pixel away (Euclid, FWHM 1.6 px, centred: 0.34); a column none.
SHARPNESS = 0.2
# Centred between two columns its next ones have 0.11 of these two.
WIDE_SHARPNESS = 0.08
STEADY = 0.3  # of its excess that a bad column has in each quarter of its run


def bad_lines(pixels: NDArray[np.float32], mask: Mask) -> NDArray[np.bool_]:
    """Bad columns and bad rows."""
    bad = np.zeros(pixels.shape, np.bool_)
    height, width = pixels.shape
    length = min(SEGMENT_PX, height // RUN_SEGMENTS, width // RUN_SEGMENTS)
    if length < 16:
        return bad
    of_columns = np.full((height // length, width), np.nan, np.float32)
    of_rows = np.full((width // length, height), np.nan, np.float32)
    _segment_means(pixels, mask, length, of_columns, of_rows)
    _mark_lines(pixels, mask, of_columns, length, bad)
    _mark_lines(pixels.T, mask.T, of_rows, length, bad.T)
    return bad


def _mark_lines(
    pixels: NDArray[np.float32],
    mask: Mask,
    means: NDArray[np.float32],
    length: int,
    marked: NDArray[np.bool_],
) -> None:
    """Set the bad columns of ``pixels`` in our own ``marked``, by their segments' ``means`` [n, w]."""
    for x, first, end in _suspects(_contrast(means)):
        rows = np.s_[first * length : end * length]
        left, right = _sharp_group(pixels[rows], mask[rows], x)
        # A run may begin and end inside the segments next to it.
        last = (end + 1) * length if end + 1 < means.shape[0] else None
        marked[max(first - 1, 0) * length : last, left:right] = True


@njit(cache=True)
def _plane(pixels, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Robust plane of a block: level at its first pixel, rise per row and per column, and the clamping reach.

    From the medians of the halves of 512 pixels; the reach is 0 where there are too few.
    """
    height, width = pixels.shape
    sample = np.empty((3, 512))
    halves = np.zeros((4, 512))
    counts = np.zeros(4, np.int64)
    n = 0
    for k in range(512):
        y, x = (k * 37 + k // height) % height, (k * 91 + k // width) % width
        if mask[y, x] == 0 and abs(pixels[y, x]) < np.inf:
            sample[0, n], sample[1, n], sample[2, n] = pixels[y, x], y, x
            n += 1
            for half in (int(2 * y >= height), 2 + int(2 * x >= width)):
                halves[half, counts[half]] = pixels[y, x]
                counts[half] += 1
    if counts.min() < 16:
        return np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    middle = np.zeros(4)
    for half in range(4):
        middle[half] = np.median(halves[half, : counts[half]])
    rise, slope = 2.0 * (middle[1] - middle[0]) / height, 2.0 * (middle[3] - middle[2]) / width
    flat = sample[0, :n] - rise * sample[1, :n] - slope * sample[2, :n]
    level = np.median(flat)
    reach = CLAMP * 1.4826 * np.median(np.abs(flat - level))
    return np.float32(level), np.float32(rise), np.float32(slope), np.float32(reach)


@njit(cache=True, parallel=True)
def _segment_means(pixels, mask, length, of_columns, of_rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mean of each segment of a column [h // length, w] and of a row [w // length, h], in one pass over the frame.

    Pixels are clamped to ``CLAMP`` sigma about the plane of their block; where less than half is good nothing is
    written.
    """
    height, width = pixels.shape
    cols = (width + length - 1) // length
    for cell in prange((height + length - 1) // length * cols):
        k, m = cell // cols, cell % cols
        top, bottom = k * length, min((k + 1) * length, height)
        left, right = m * length, min((m + 1) * length, width)
        level, rise, slope, reach = _plane(pixels[top:bottom, left:right], mask[top:bottom, left:right])
        if not reach > 0.0:
            continue
        total = np.zeros(right - left, np.float32)
        good = np.zeros(right - left, np.int32)
        for y in range(top, bottom):
            row_total, row_good = np.float32(0.0), 0
            row_level = np.float32(level + rise * (y - top))
            for x in range(left, right):
                ok = mask[y, x] == 0
                value = pixels[y, x] - (row_level + slope * np.float32(x - left))
                value = min(max(value, -reach), reach) if ok else np.float32(0.0)
                total[x - left] += value
                good[x - left] += ok
                row_total += value
                row_good += ok
            if m < of_rows.shape[0] and 2 * row_good >= length:
                of_rows[m, y] = row_level + slope * 0.5 * (length - 1) + row_total / row_good
        if k < of_columns.shape[0]:
            for x in range(left, right):
                if 2 * good[x - left] >= length:
                    middle = level + rise * 0.5 * (length - 1) + slope * (x - left)
                    of_columns[k, x] = middle + total[x - left] / good[x - left]


def _contrast(means: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far each segment [n, w] stands out of its neighbours in the row, in units of that row's scatter; or NaN."""
    width = means.shape[1]
    padded = np.pad(means, ((0, 0), (5, 5)), mode="reflect")
    offsets = (-5, -4, -3, -2, 2, 3, 4, 5)
    beside = np.sort(np.stack([padded[:, 5 + d : 5 + d + width] for d in offsets]), axis=0)
    # Median of eight; NaN, sorted last, makes it high or NaN: no contrast is claimed there.
    contrast = means - 0.5 * (beside[3] + beside[4])
    scatter = 1.4826 * nanmedian(np.abs(contrast.T))
    return contrast / np.where(scatter > 0.0, scatter, np.nan)[:, None]


def _suspects(contrast: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """Runs ``(x, first, end)`` of segments of column ``x`` that stand out in one sense: pieces, and whole columns."""
    n = contrast.shape[0]
    whole = nanmedian(contrast) * np.sqrt(n) / 1.2533
    suspects = [(int(x), 0, n) for x in np.flatnonzero(np.abs(whole) > COLUMN_SIGMA)]
    for sign in (1.0, -1.0):
        out = sign * contrast > SEGMENT_SIGMA
        for x in np.flatnonzero(out.sum(axis=0) >= RUN_SEGMENTS):
            edges = np.flatnonzero(np.diff(np.pad(out[:, x].astype(np.int8), 1)))
            for first, end in zip(edges[::2], edges[1::2], strict=True):
                strength = sign * contrast[first:end, x].mean() * np.sqrt(end - first)
                if end - first >= RUN_SEGMENTS and strength > COLUMN_SIGMA:
                    suspects.append((int(x), int(first), int(end)))
    return suspects


def _sharp_group(pixels: NDArray[np.float32], mask: Mask, x: int) -> tuple[int, int]:
    """Columns ``left`` to ``right`` of the defect about ``x`` in these rows [n, w]; equal where it is as soft as light.

    One column whose neighbours have less than ``SHARPNESS`` of its excess, or two or three of like excess that end in
    less than ``WIDE_SHARPNESS``; the same columns in each quarter of the rows, for a line that wanders through three
    columns is their median in none. Neighbours to which a sharp column leaks go with it.
    """
    low, high = max(x - 8, 0), min(x + 9, pixels.shape[1])
    if x - low < 3 or high - x < 4:
        return x, x
    near = _good(pixels, mask, low, high)
    excess, error = _excess(near, x - low)
    quarters = np.stack([_excess(part, x - low)[0] for part in np.array_split(near, 4)])
    peak = excess[x - low]
    if not abs(peak) > 0.5 * COLUMN_SIGMA * error:
        return x, x  # a steep sky, not a column
    excess, quarters = excess * np.sign(peak), quarters * np.sign(peak)
    for width, limit in ((1, SHARPNESS), (2, WIDE_SHARPNESS), (3, WIDE_SHARPNESS)):
        for left in range(x - low - width + 1, x - low + 1):
            group, beside = excess[left : left + width], np.abs(excess[[left - 1, left + width]])
            steady = (quarters[:, left : left + width] > STEADY * group).all()
            if steady and group.min() >= 0.5 * group.max() and beside.max() < limit * group.max():
                leak = beside > max(0.05 * group.max(), 5.0 * error)
                return low + left - int(leak[0]), low + left + width + int(leak[1])
    return x, x


def _good(pixels: NDArray[np.float32], mask: Mask, low: int, high: int) -> NDArray[np.float32]:
    """Columns ``low`` to ``high``, NaN where masked."""
    return np.where(mask[:, low:high] == 0, pixels[:, low:high], np.float32(np.nan))


def _excess(near: NDArray[np.float32], x: int) -> tuple[NDArray[np.float64], float]:
    """Median excess of each of a few columns [n, k] over those four and more away from column ``x``, and its error.

    Row by row: the median of a column that runs down a slope would be one row's noise. A slope along the rows is taken
    off.
    """
    outer = np.abs(np.arange(near.shape[1]) - x) >= 4
    level = near - nanmedian(near[:, outer].T)[:, None]
    profile = nanmedian(level)
    slopes = np.diff(profile)
    if np.isnan(slopes).all() or np.isnan(profile[outer]).all():
        return np.zeros(profile.size), np.inf  # nothing but masked pixels beside it: no verdict
    profile -= np.nanmedian(slopes) * (np.arange(profile.size) - x)
    profile -= np.nanmedian(profile[outer])
    noise = 1.4826 * np.nanmedian(np.abs(level[:, outer]))
    return profile, 1.2533 * float(noise) / np.sqrt(near.shape[0])
