"""The ends of a line moved to where its SNR is highest, and what is then measured on it.

The frame is already filtered with its PSF, so a line is an integral, and all shifts, tilts and ends within reach are
sums over one strip of it. What is much brighter than the rest of the line counts for no more than the cap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit, prange

from detector.linepower import correlation, line_power, point_power

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.linepower import Core

LONGEST_PX = 512
HALVES = 4  # half-pixel steps across to each side
ACROSS = 2 * HALVES + 1
# Columns of what is measured, after the ends. SNR: of the line, and of the highest POINT on it. UNEVEN: reduced chi2 of
# the light along it. NEAR, SIDE: light one and two pixels beside it beyond what the PSF puts there, FAR: four pixels
# beside it on the brighter side, SKEW: difference of the two sides, BEYOND: light beyond the brighter end; all in sigma
# of the line's own noise. COVERED: the share of its light that falls on good pixels.
SNR, POINT, UNEVEN, NEAR, SIDE, SKEW, FAR, BEYOND, COVERED = range(4, 13)
COLUMNS = 13
CAPPED_FROM = 16  # half pixels
CAP_TIMES, CAP_SIGMA = 2.0, 3.5


def refine(
    smooth: NDArray[np.float32],
    coverage: NDArray[np.float32],
    ends: NDArray[np.float64],
    core: Core,
) -> NDArray[np.float64]:
    """Lines with their ends where the SNR is highest, and what is measured on them.

    Columns x0, y0, x1, y1, and what the constants above name.
    """
    out = np.full((len(ends), COLUMNS), np.nan)
    power = line_power(core, np.arange(2 * LONGEST_PX + 2) / 2.0)
    sigma, weight = correlation(core)
    offsets = np.arange(5.0)
    # What a line puts beside itself, of what it has on itself.
    share = weight / sigma
    beside = np.sum(share * np.exp(-0.5 * (offsets[:, None] / sigma) ** 2), axis=1) / np.sum(share)
    _refine(smooth, coverage, ends, power, float(point_power(core)), beside, out)
    return out


@njit(cache=True)
def _cubic(image: NDArray[np.float32], x: float, y: float) -> float:
    """Cubic convolution (Keys 1981) at a place; 0 outside."""
    height, width = image.shape
    j, i = int(math.floor(x)), int(math.floor(y))
    if j < 1 or i < 1 or j >= width - 2 or i >= height - 2:
        if j < -1 or i < -1 or j > width or i > height:
            return 0.0
        i, j = min(max(int(math.floor(y + 0.5)), 0), height - 1), min(max(int(math.floor(x + 0.5)), 0), width - 1)
        return float(image[i, j])
    fx, fy = x - j, y - i
    a0 = fx * (-0.5 + fx * (1.0 - 0.5 * fx))
    a1 = 1.0 + fx * fx * (-2.5 + 1.5 * fx)
    a2 = fx * (0.5 + fx * (2.0 - 1.5 * fx))
    a3 = fx * fx * (-0.5 + 0.5 * fx)
    value = 0.0
    for k in range(4):
        row = a0 * image[i + k - 1, j - 1] + a1 * image[i + k - 1, j] + a2 * image[i + k - 1, j + 1]
        row += a3 * image[i + k - 1, j + 2]
        if k == 0:
            value += fy * (-0.5 + fy * (1.0 - 0.5 * fy)) * row
        elif k == 1:
            value += (1.0 + fy * fy * (-2.5 + 1.5 * fy)) * row
        elif k == 2:
            value += fy * (0.5 + fy * (2.0 - 1.5 * fy)) * row
        else:
            value += fy * fy * (-0.5 + 0.5 * fy) * row
    return value


@njit(cache=True)
def _near(image: NDArray[np.float32], x: float, y: float) -> float:
    """The nearest pixel; 0 outside."""
    i, j = int(math.floor(y + 0.5)), int(math.floor(x + 0.5))
    return float(image[i, j]) if 0 <= i < image.shape[0] and 0 <= j < image.shape[1] else 0.0


@njit(cache=True, parallel=True)
def _refine(
    smooth: NDArray[np.float32],
    coverage: NDArray[np.float32],
    ends: NDArray[np.float64],
    power: NDArray[np.float64],
    point: float,
    beside: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Each line: a strip of half pixels along and across it; the tilt, the shift and the ends of the highest SNR."""
    for n in prange(len(ends)):
        line = ends[n].copy()
        strip = np.empty((ACROSS, 2 * LONGEST_PX + 1))
        covered = np.empty(2 * LONGEST_PX + 1)
        profile, sums, good = np.empty(2 * LONGEST_PX + 1), np.empty(2 * LONGEST_PX + 2), np.empty(2 * LONGEST_PX + 2)
        best, best_a, best_b, extend, steps = -1.0, 0, 0, 0, 0
        head, tail, length = 0.0, 0.0, 0.0
        for turn in range(3):
            length = max(math.hypot(line[2] - line[0], line[3] - line[1]), 0.5)
            ux, uy = (line[2] - line[0]) / length, (line[3] - line[1]) / length
            steps = max(1, int(2.0 * length + 0.5))
            extend = int(max(6.0, 0.6 * length)) if turn < 2 else 6
            extend = min(extend, (2 * LONGEST_PX - steps) // 2)
            if extend < 2:
                break
            cx, cy = 0.5 * (line[0] + line[2]), 0.5 * (line[1] + line[3])
            count = steps + 2 * extend
            for k in range(count):
                t = 0.5 * (k - 0.5 * (count - 1))
                for o in range(ACROSS):
                    d = 0.5 * (o - HALVES)
                    strip[o, k] = _cubic(smooth, cx + t * ux - d * uy, cy + t * uy + d * ux)
                profile[k] = strip[HALVES, k]
                covered[k] = _near(coverage, cx + t * ux, cy + t * uy)
            if steps >= CAPPED_FROM:
                # What is much brighter than the line is something on it.
                middle = np.median(profile[extend : extend + steps])
                cap = CAP_SIGMA * math.sqrt(point) + CAP_TIMES * max(middle, 0.0)
                for k in range(count):
                    for o in range(ACROSS):
                        strip[o, k] = min(strip[o, k], cap)
            best = -1.0
            # Shift of the first and of the last end across, half pixels; first and last half pixel along.
            reach = 3 if turn == 0 else 1
            for h in range(-reach, reach + 1):
                for e in range(-reach, reach + 1):
                    sums[0] = 0.0
                    good[0] = 0.0
                    for k in range(count):
                        f = (k + 0.5 - extend) / steps
                        place = min(max(HALVES + h + f * (e - h), 0.0), 2.0 * HALVES - 1e-6)
                        i = int(place)
                        sums[k + 1] = sums[k] + strip[i, k] + (place - i) * (strip[i + 1, k] - strip[i, k])
                        good[k + 1] = good[k] + covered[k]
                    stride = max(1, extend // 6) if turn < 2 else 1
                    for a in range(0, 2 * extend + 1, stride):
                        for b in range(max(a + 1, count - 2 * extend), count + 1, stride):
                            share = (good[b] - good[a]) / (b - a)
                            if share < 0.4:
                                continue
                            snr = 0.5 * (sums[b] - sums[a]) / math.sqrt(power[b - a] * share)
                            if snr > best:
                                best, best_a, best_b, head, tail = snr, a, b, float(h), float(e)
            if best <= 0.0:
                break
            low, high = 0.5 * (best_a - 0.5 * count), 0.5 * (best_b - 0.5 * count)
            d0 = 0.5 * (head + (best_a - extend) / steps * (tail - head))
            d1 = 0.5 * (head + (best_b - extend) / steps * (tail - head))
            line[0], line[1] = cx + low * ux - d0 * uy, cy + low * uy + d0 * ux
            line[2], line[3] = cx + high * ux - d1 * uy, cy + high * uy + d1 * ux
        if best <= 0.0:
            continue
        out[n, :4] = line
        out[n, SNR] = best
        _judge(smooth, coverage, line, power, point, beside, profile, out[n])


@njit(cache=True)
def _judge(
    smooth: NDArray[np.float32],
    coverage: NDArray[np.float32],
    line: NDArray[np.float64],
    power: NDArray[np.float64],
    point: float,
    beside: NDArray[np.float64],
    profile: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Measure what is on a line, beside it and beyond its ends."""
    length = max(math.hypot(line[2] - line[0], line[3] - line[1]), 0.5)
    ux, uy = (line[2] - line[0]) / length, (line[3] - line[1]) / length
    count = min(max(1, int(2.0 * length + 0.5)), len(profile))
    for k in range(count):
        t = length * (k + 0.5) / count
        profile[k] = _cubic(smooth, line[0] + t * ux, line[1] + t * uy)
    cap = np.inf
    if count >= CAPPED_FROM:
        cap = CAP_SIGMA * math.sqrt(point) + CAP_TIMES * max(np.median(profile[:count]), 0.0)
    parallel = np.zeros(9)  # sums along the lines 4 px to one side ... 4 px to the other
    highest, shares = 0.0, 0.0
    for k in range(count):
        t = length * (k + 0.5) / count
        x, y = line[0] + t * ux, line[1] + t * uy
        share = _near(coverage, x, y)
        shares += share
        profile[k] = min(profile[k], cap)
        parallel[4] += profile[k]
        highest = max(highest, profile[k] / math.sqrt(point * max(share, 0.25)))
        for o in (-4, -2, -1, 1, 2, 4):
            parallel[o + 4] += min(_cubic(smooth, x - o * uy, y + o * ux), cap)
    on, mean = parallel[4], parallel[4] / count
    out[COVERED] = shares / count
    noise = 2.0 * math.sqrt(power[min(count, len(power) - 1)] * max(shares / count, 0.25))
    out[POINT] = highest
    # Pieces of at least 3 px, at most eight, against the mean; the noise of the sum of each is known.
    pieces = min(8, max(1, int(length / 3.0)))
    chi2 = 0.0
    for p in range(pieces):
        first, last = count * p // pieces, count * (p + 1) // pieces
        total = 0.0
        for k in range(first, last):
            total += profile[k]
        chi2 += (0.5 * (total - mean * (last - first))) ** 2 / power[min(last - first, len(power) - 1)]
    out[UNEVEN] = chi2 / max(pieces - 1, 1) if pieces > 1 else 0.0
    out[NEAR] = (0.5 * (parallel[3] + parallel[5]) - beside[1] * on) / noise
    out[SIDE] = (0.5 * (parallel[2] + parallel[6]) - beside[2] * on) / noise
    out[SKEW] = abs(parallel[2] - parallel[6]) / noise
    out[FAR] = (max(parallel[0], parallel[8]) - beside[4] * on) / noise
    # Beyond the ends: half-pixel steps from 2.5 px on, as far as the line is long, at most 10 px.
    more = min(int(max(4.0, length)), 20)
    for side in range(2):
        total = 0.0
        for k in range(more):
            t = -0.5 * (5 + k) if side == 0 else length + 0.5 * (5 + k)
            total += min(_cubic(smooth, line[0] + t * ux, line[1] + t * uy), cap)
        out[BEYOND] = max(out[BEYOND] if side == 1 else 0.0, 0.5 * total / math.sqrt(power[more]))
