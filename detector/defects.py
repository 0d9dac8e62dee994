"""Which pixels of a frame are the detector's own doing: bad columns, saturation and its bleeding, unlit borders.

A bad column is a perfect streak to anyone who does not know the detector, and most frames come without a mask. What is
found here becomes mask; what is masked can never be found, so each finder errs on the side of leaving a pixel alone:
a column is bad only where it is sharper than any image of the sky can be, and exactly aligned over a long run; a finder
that would take more than a quarter of the frame is taken for mistaken and ignored. At night the worst that happens is a
defect that is left in, for the networks to judge.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numba import njit, prange
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from detector.frame import MaskBit

MOST_OF_FRAME = 0.25  # a finder that masks more than this is mistaken
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
BORDER_FRACTION = 0.08  # overscan takes no more of a side than this, or than 64 px
BORDER_PX = 64
SMALLEST_PX = 32  # a smaller frame has no borders to speak of
OVERSCAN_PX = 4  # an overscan at least twice as wide tells the level without light
BORDER_SIGMA = 3.0  # noise of the lit side by which an overscan is darker, within three pixels
LIT_FRACTION = 0.5  # less light than this part of the typical: unlit corner
PLATEAU_PIXELS = 5  # exactly equal maxima that make a saturation level
PLATEAU_SIGMA = 30.0
BLEED_RUN_PX = 8  # saturated runs of this length bleed
BLEED_REACH_PX = 64
GROWTH_PX = 2  # around saturated pixels: the charge that spilled

Mask = NDArray[np.uint8]
Pixel = TypeVar("Pixel", bound=np.generic)


def find_defects(pixels: NDArray[np.float32], mask: Mask, *, saturation_e: float | None) -> Mask:
    """``mask`` [h, w] with the bits BAD, SATURATED and BORDER of what the ``pixels`` [h, w] themselves show.

    ``saturation_e`` is the level of the header, electrons; without one, or with one that is out of the frame's reach,
    a plateau of equal maxima is the sign. Nothing is changed in place.
    """
    found = mask.copy()
    found[~np.isfinite(pixels)] |= np.uint8(MaskBit.BAD)
    _add(found, _filling(pixels, found), MaskBit.BAD)
    _add(found, _saturated(pixels, found, saturation_e), MaskBit.SATURATED)
    _add(found, _borders(pixels, found), MaskBit.BORDER)
    _add(found, _bad_lines(pixels, found), MaskBit.BAD)
    return found


def _add(found: Mask, pixels: NDArray[np.bool_], bit: MaskBit) -> None:
    """Set ``bit`` in our own copy of the mask, unless the finder is mistaken."""
    if pixels.mean() <= MOST_OF_FRAME:
        found[pixels] |= np.uint8(bit)


def _typical(pixels: NDArray[np.float32], mask: Mask) -> tuple[float, float]:
    """Median and scatter of a sample of the good pixels; 0 and 0 when there are none."""
    every = max(1, pixels.size // (1 << 16))
    # A prime number of columns apart, so that no column is preferred.
    sample = pixels.reshape(-1)[:: every | 1][mask.reshape(-1)[:: every | 1] == 0]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 0.0
    median = float(np.median(sample))
    return median, 1.4826 * float(np.median(np.abs(sample - median)))


def _filling(pixels: NDArray[np.float32], mask: Mask) -> NDArray[np.bool_]:
    """Pixels without data that were filled with one exact value (the minimum, or 0).

    Such a value is far more frequent than its neighbours on the scale of values, which measured ones never are.
    """
    filled = np.zeros(pixels.shape, np.bool_)
    median, scatter = _typical(pixels, mask)
    if scatter == 0.0:
        return filled
    lowest, _ = _extremes(pixels, mask)
    for value in {lowest, 0.0}:
        exact, near = _frequency(pixels, mask, np.float32(value), np.float32(scatter))
        far = value < median - 8.0 * scatter
        if exact >= 50 and exact > (0.2 if far else 20.0) * near:
            filled |= pixels == value
    return filled


@njit(cache=True, parallel=True)
def _extremes(pixels, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Lowest and highest good pixel; +inf and -inf where there is none."""
    height, width = pixels.shape
    low = np.full(height, np.inf, np.float32)
    high = np.full(height, -np.inf, np.float32)
    for y in prange(height):
        least, most = np.float32(np.inf), np.float32(-np.inf)
        for x in range(width):
            if mask[y, x] == 0:
                least = min(least, pixels[y, x])
                most = max(most, pixels[y, x])
        low[y], high[y] = least, most
    return low.min(), high.max()


@njit(cache=True, parallel=True)
def _frequency(pixels, mask, value, reach):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """How many good pixels are exactly ``value``, and how many others lie within ``reach`` of it."""
    height, width = pixels.shape
    exact, near = 0, 0
    for y in prange(height):
        equal, close = 0, 0
        for x in range(width):
            if mask[y, x] == 0:
                equal += pixels[y, x] == value
                close += abs(pixels[y, x] - value) <= reach
        exact += equal
        near += close - equal
    return exact, near


def _saturated(pixels: NDArray[np.float32], mask: Mask, saturation_e: float | None) -> NDArray[np.bool_]:
    """Saturated pixels, what bled from them along columns and rows, and ``GROWTH_PX`` around."""
    grown = np.zeros(pixels.shape, np.bool_)
    level = _saturation_level(pixels, mask, saturation_e)
    if level is None:
        return grown
    saturated = pixels >= level
    _, scatter = _typical(pixels, mask)
    rows, columns = np.nonzero(saturated)
    _spill(pixels, saturated, rows, columns, 5.0 * scatter, grown)
    _spill(pixels.T, saturated.T, columns, rows, 5.0 * scatter, grown.T)
    return grown


def _saturation_level(pixels: NDArray[np.float32], mask: Mask, saturation_e: float | None) -> float | None:
    """The header's level, or the frame's own where many pixels share the highest value; None where neither is seen."""
    median, scatter = _typical(pixels, mask)
    _, highest = _extremes(pixels, mask)
    levels = []
    if highest > median + PLATEAU_SIGMA * scatter > median and (pixels == highest).sum() >= PLATEAU_PIXELS:
        levels.append(float(highest))
    # A header that calls a twentieth of the frame saturated speaks of other units.
    if saturation_e is not None and highest >= saturation_e and (pixels >= saturation_e).mean() < 0.05:
        levels.append(saturation_e)
    return min(levels, default=None)


@njit(cache=True)
def _spill(pixels, saturated, rows, columns, excess, grown):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mark each saturated pixel and its surroundings in ``grown``, and what bled from long vertical runs.

    A run is lengthened as long as its column stands out of the columns three pixels to each side.
    """
    height, width = pixels.shape
    for k in range(rows.size):
        y, x = rows[k], columns[k]
        for i in range(max(y - GROWTH_PX, 0), min(y + GROWTH_PX + 1, height)):
            for j in range(max(x - GROWTH_PX, 0), min(x + GROWTH_PX + 1, width)):
                grown[i, j] = True
        for direction in (-1, 1):
            row = y + direction
            if row < 0 or row >= height or saturated[row, x] or x < 3 or x >= width - 3:
                continue
            run = 1
            while run < BLEED_RUN_PX and 0 <= y - direction * run < height and saturated[y - direction * run, x]:
                run += 1
            if run < BLEED_RUN_PX:
                continue
            for _ in range(BLEED_REACH_PX):
                if row < 0 or row >= height:
                    break
                if not pixels[row, x] - max(pixels[row, x - 3], pixels[row, x + 3]) > excess:
                    break
                grown[row, x - 1 : x + 2] = True
                row += direction


def _borders(pixels: NDArray[np.float32], mask: Mask) -> NDArray[np.bool_]:
    """Overscan-like strips along the four sides and, where those tell the level without light, unlit corners."""
    border = np.zeros(pixels.shape, np.bool_)
    if min(pixels.shape) < SMALLEST_PX:
        return border
    dark: list[NDArray[np.float32]] = []
    for side in range(4):
        along, marked = _from_side(pixels, side), _from_side(border, side)
        width = _overscan_px(*_profile(along, _from_side(mask, side)))
        if width:
            marked[:, :width] = True
        if width >= 2 * OVERSCAN_PX:  # less may be a few dead lines, which tell no level
            dark.append(along[:, : width - OVERSCAN_PX])
    if dark:
        level = min(float(np.nanmedian(strip)) for strip in dark)
        border |= _unlit(pixels, level)
    return border


def _from_side(array: NDArray[Pixel], side: int) -> NDArray[Pixel]:
    """View of ``array`` in which ``side`` (0 left, 1 right, 2 first row, 3 last row) is the left one."""
    turned = array if side < 2 else array.T
    return turned[:, ::-1] if side % 2 else turned


def _profile(pixels: NDArray[np.float32], mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and pixel noise of each of the first columns, from the middle four fifths of the rows."""
    height, width = pixels.shape
    most = min(width // 4, max(BORDER_PX, int(BORDER_FRACTION * width))) + 8
    rows = np.s_[height // 10 : height - height // 10 : max(1, height // 500)]
    columns = np.where(mask[rows, :most] & np.uint8(MaskBit.BAD), np.nan, pixels[rows, :most])
    below = pixels[height // 10 + 1 : height - height // 10 + 1 : max(1, height // 500), :most]
    noise = 1.4826 * _nanmedian(np.abs(columns - below[: columns.shape[0]])) / np.sqrt(2.0)
    return _nanmedian(columns), noise


def _nanmedian(columns: NDArray[np.floating]) -> NDArray[np.float64]:
    """Median of each column without its NaN, NaN where there is nothing else (and much faster than numpy's)."""
    ordered = np.sort(columns, axis=0)  # NaN last
    count = np.isfinite(ordered).sum(axis=0)
    middle = [np.take_along_axis(ordered, np.maximum(count - d, 0)[None] // 2, axis=0)[0] for d in (0, 1)]
    return np.where(count > 0, 0.5 * (middle[0] + middle[1]), np.nan).astype(np.float64)


def _overscan_px(level: NDArray[np.float64], noise: NDArray[np.float64]) -> int:
    """Columns from the border on that see no light: all darker than what comes next, by an abrupt step."""
    width = 0
    inside_level = _nanmedian(sliding_window_view(level, 4).T)
    inside_noise = _nanmedian(sliding_window_view(noise, 4).T)
    brightest = np.fmax.accumulate(level)
    outside_noise = np.cumsum(np.nan_to_num(noise)) / np.arange(1, noise.size + 1)
    for c in range(1, level.size - 6):
        inside, sigma = inside_level[c + 1], inside_noise[c + 1]
        outside = max(1, c - 1)  # one column may be in between
        step = level[c + 1] - level[max(0, c - 2)]
        abrupt = step > 2.0 * (level[c + 4] - level[c + 1])
        quieter = outside_noise[outside - 1] < 0.9 * sigma
        darker = brightest[outside - 1] < inside - BORDER_SIGMA * sigma
        if darker and abrupt and step > (BORDER_SIGMA if quieter else 10.0) * sigma:
            width = c + 1
    return width


def _unlit(pixels: NDArray[np.float32], dark_level: float) -> NDArray[np.bool_]:
    """Blocks of 16 px, joined to the border, that see less than ``LIT_FRACTION`` of the typical light."""
    size = 16
    height, width = pixels.shape
    rows, cols = height // size, width // size
    unlit = np.zeros(pixels.shape, np.bool_)
    if rows < 4 or cols < 4:
        return unlit
    blocks = pixels[: rows * size, : cols * size].reshape(rows, size, cols, size)
    levels = np.nanmedian(np.nan_to_num(blocks, nan=dark_level), axis=(1, 3))
    typical = float(np.median(levels))
    dim = levels - dark_level < LIT_FRACTION * (typical - dark_level)
    labels, _ = ndimage.label(np.pad(dim, 1, constant_values=True))
    joined = (labels == labels[0, 0])[1:-1, 1:-1]
    # Blocks that the division leaves over go with the last ones.
    row = np.minimum(np.arange(height) // size, rows - 1)
    col = np.minimum(np.arange(width) // size, cols - 1)
    return joined[np.ix_(row, col)]


def _bad_lines(pixels: NDArray[np.float32], mask: Mask) -> NDArray[np.bool_]:
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
    scatter = 1.4826 * _nanmedian(np.abs(contrast.T))
    return contrast / np.where(scatter > 0.0, scatter, np.nan)[:, None]


def _suspects(contrast: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """Runs ``(x, first, end)`` of segments of column ``x`` that stand out in one sense: pieces, and whole columns."""
    n = contrast.shape[0]
    whole = _nanmedian(contrast) * np.sqrt(n) / 1.2533
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
    level = near - _nanmedian(near[:, outer].T)[:, None]
    profile = _nanmedian(level)
    slopes = np.diff(profile)
    if np.isnan(slopes).all() or np.isnan(profile[outer]).all():
        return np.zeros(profile.size), np.inf  # nothing but masked pixels beside it: no verdict
    profile -= np.nanmedian(slopes) * (np.arange(profile.size) - x)
    profile -= np.nanmedian(profile[outer])
    noise = 1.4826 * np.nanmedian(np.abs(level[:, outer]))
    return profile, 1.2533 * float(noise) / np.sqrt(near.shape[0])
