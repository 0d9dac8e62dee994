"""numba: sightings of several exposures -> sets of sightings that may be one object on a straight path.

A trail says how fast its object moves and, but for the sign, where to. Each sighting therefore predicts where it is in
any other exposure; what is there with a trail that fits the displacement makes a pair (four dimensions: place and
trail), and a pair predicts the place in all further exposures to a pixel. Both look-ups go through one grid of cells,
so that the cost grows with the number of sightings and of chance neighbours, not with its square.

Where a trail is shorter than the PSF its vector is zero with an error of the PSF's width, and the same code links it as
a moving point. What does not move by a pixel between two exposures stands still, and makes no pair.

Lengths are arcsec on the tangent plane, times seconds; covariances are (xx, xy, yy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sightings import Plane

    F8 = NDArray[np.float64]
    I8 = NDArray[np.int64]

# A gate of 5 sigma in the worst direction: fits have wider tails than a normal law.
REACH_SIGMA = 5.0
# chi2 of two trails against the displacement (4 degrees of freedom), and of one more sighting (place and trail, 4).
PAIR_CHI2, NEXT_CHI2 = 30.0, 30.0
MAG_CHI2 = 25.0
# Light curves, blends and local backgrounds move magnitudes by more than the fit knows.
MAG_SYSTEMATIC = 0.2
# A path bends by the observer's turning: 8.8 arcsec (w t)^2 / 8 for something at 1 au; half of that and less is usual.
CURVATURE_ARCSEC_H2 = 0.03
# What moved by less stands still.
LEAST_SHIFT_PX = 1.0
# However uncertain a trail is, nothing is looked for farther from its prediction.
FARTHEST_PX = 120.0
_CELL_PX = 16.0
_MOST_CELLS = 512


@dataclass(frozen=True, eq=False)
class Grid:
    """Sightings by exposure and cell: those of cell c of exposure e are ``order[start[q] : start[q + 1]]``.

    ``q = (e * rows + row) * columns + column``; ``origin`` is the corner of cell 0, ``side`` a cell's side (arcsec).
    """

    order: I8
    start: I8
    origin: F8
    side: float
    rows: int
    columns: int


def grid(plane: Plane) -> Grid:
    """Sort the sightings of a plane into cells."""
    low, high = plane.place.min(axis=0), plane.place.max(axis=0)
    side = max(_CELL_PX * plane.scale_arcsec, float((high - low).max()) / _MOST_CELLS)
    columns, rows = (np.floor((high - low) / side).astype(int) + 1).tolist()
    cell = np.floor((plane.place - low) / side).astype(np.int64)
    key = (plane.exposure * rows + cell[:, 1]) * columns + cell[:, 0]
    order = np.argsort(key, kind="stable")
    start = np.searchsorted(key[order], np.arange(len(plane.times_s) * rows * columns + 1))
    return Grid(order.astype(np.int64), start.astype(np.int64), low, side, rows, columns)


def tracklets(plane: Plane, *, longest_gap_s: float) -> I8:
    """Sets of sightings that may be one object: ``[m, k]``, a sighting (or -1) for each exposure, no set twice.

    Every pair that its trails allow is extended to all other exposures by the best sighting at the predicted place.
    """
    if len(plane.times_s) < 2 or len(plane.index) < 2:
        return np.empty((0, len(plane.times_s)), np.int64)
    cells = grid(plane)
    arrays = _arrays(plane)
    table = (cells.order, cells.start, cells.origin, cells.side, cells.rows, cells.columns)
    pairs = _pairs(*arrays, *table, plane.scale_arcsec, longest_gap_s)
    members = _extended(pairs, *arrays, *table, plane.scale_arcsec)
    return np.unique(members, axis=0) if len(members) else members


def _arrays(plane: Plane) -> tuple[I8, F8, F8, F8, F8, F8, F8, F8, F8, F8]:
    """The columns that the kernels read."""
    rows = plane.index
    return (
        plane.exposure,
        plane.times_s,
        plane.time_s,
        plane.exposure_s,
        plane.place,
        plane.spread,
        plane.trail,
        plane.trail_spread,
        plane.catalogue.mag[rows],
        plane.catalogue.mag_err[rows],
    )


@njit(cache=True, nogil=True)
def chi2_of(x: float, y: float, xx: float, xy: float, yy: float) -> float:
    """The vector (x, y) over its covariance."""
    determinant = xx * yy - xy * xy
    if not determinant > 0.0:
        return np.inf
    return (x * x * yy - 2.0 * x * y * xy + y * y * xx) / determinant


@njit(cache=True, nogil=True)
def major(xx: float, xy: float, yy: float) -> float:
    """One sigma along the longer axis of a covariance."""
    return np.sqrt(0.5 * (xx + yy) + np.hypot(0.5 * (xx - yy), xy))


@njit(cache=True, nogil=True)
def _mag_chi2(a: int, b: int, mag: F8, mag_err: F8) -> float:
    apart = mag[a] - mag[b]
    if not np.isfinite(apart):
        return 0.0
    variance = MAG_SYSTEMATIC**2
    for k in (a, b):
        if np.isfinite(mag_err[k]):
            variance += mag_err[k] ** 2
    return apart * apart / variance


@njit(cache=True, nogil=True)
def _trail_chi2(
    k: int, vx: float, vy: float, vxx: float, vxy: float, vyy: float, exposure_s: F8, trail: F8, spread: F8
) -> float:
    """The trail of sighting k against a velocity (arcsec/s, with its covariance); its sign is free."""
    t = exposure_s[k]
    if not np.isfinite(t):
        return 0.0
    hx, hy = trail[k, 0], trail[k, 1]
    if hx * vx + hy * vy < 0.0:
        hx, hy = -hx, -hy
    t2 = t * t
    return chi2_of(hx - vx * t, hy - vy * t, spread[k, 0] + t2 * vxx, spread[k, 1] + t2 * vxy, spread[k, 2] + t2 * vyy)


@njit(cache=True, nogil=True)
def _pairs(
    exposure: I8, times: F8, time_s: F8, exposure_s: F8, place: F8, spread: F8, trail: F8, trail_spread: F8,
    mag: F8, mag_err: F8, order: I8, start: I8, origin: F8, side: float, rows: int, columns: int,
    scale: float, longest_gap_s: float,
) -> I8:  # fmt: skip
    """Pairs ``[m, 2]`` (earlier, later) whose displacement both trails allow."""
    found = np.empty((1024, 2), np.int64)
    count = 0
    least2 = (LEAST_SHIFT_PX * scale) ** 2
    for a in range(len(exposure)):
        for e in range(exposure[a] + 1, len(times)):
            gap = times[e] - times[exposure[a]]
            if gap > longest_gap_s:
                break
            known = np.isfinite(exposure_s[a])
            f = gap / exposure_s[a] if known else 0.0
            sigma = major(
                spread[a, 0] + f * f * trail_spread[a, 0],
                spread[a, 1] + f * f * trail_spread[a, 1],
                spread[a, 2] + f * f * trail_spread[a, 2],
            )
            reach = min(REACH_SIGMA * sigma + 2.0 * scale, FARTHEST_PX * scale) if known else FARTHEST_PX * scale
            for sign in (-1.0, 1.0):
                if sign > 0.0 and not known:
                    break
                x, y = place[a, 0] + sign * f * trail[a, 0], place[a, 1] + sign * f * trail[a, 1]
                first_column = max(0, int(np.floor((x - reach - origin[0]) / side)))
                last_column = min(columns - 1, int(np.floor((x + reach - origin[0]) / side)))
                first_row = max(0, int(np.floor((y - reach - origin[1]) / side)))
                last_row = min(rows - 1, int(np.floor((y + reach - origin[1]) / side)))
                if first_column > last_column:
                    continue
                for row in range(first_row, last_row + 1):
                    line = (e * rows + row) * columns
                    for q in range(start[line + first_column], start[line + last_column + 1]):
                        b = order[q]
                        if (place[b, 0] - x) ** 2 + (place[b, 1] - y) ** 2 > reach * reach:
                            continue
                        dx, dy = place[b, 0] - place[a, 0], place[b, 1] - place[a, 1]
                        ahead = dx * trail[a, 0] + dy * trail[a, 1] >= 0.0
                        # Where the two predictions overlap, each neighbour belongs to the one on its side.
                        if known and ahead != (sign > 0.0):
                            continue
                        if dx * dx + dy * dy < least2 or _mag_chi2(a, b, mag, mag_err) > MAG_CHI2:
                            continue
                        t = time_s[b] - time_s[a]
                        t2 = t * t
                        bend = (CURVATURE_ARCSEC_H2 * t2 / 3600.0**2) ** 2
                        vxx = (spread[a, 0] + spread[b, 0] + bend) / t2
                        vxy = (spread[a, 1] + spread[b, 1]) / t2
                        vyy = (spread[a, 2] + spread[b, 2] + bend) / t2
                        chi2 = _trail_chi2(a, dx / t, dy / t, vxx, vxy, vyy, exposure_s, trail, trail_spread)
                        if chi2 > PAIR_CHI2:
                            continue
                        chi2 += _trail_chi2(b, dx / t, dy / t, vxx, vxy, vyy, exposure_s, trail, trail_spread)
                        if chi2 > PAIR_CHI2:
                            continue
                        if count == len(found):
                            more = np.empty((2 * count, 2), np.int64)
                            more[:count] = found
                            found = more
                        found[count, 0], found[count, 1] = a, b
                        count += 1
    return found[:count].copy()


@njit(cache=True, nogil=True)
def fit_motion(members: I8, middle_s: float, time_s: F8, place: F8, spread: F8) -> tuple[F8, F8]:
    """The straight path through sightings (-1: none): x, y at ``middle_s`` and velocity ``[4]``, covariance ``[4, 4]``.

    Weighted least squares with each sighting's own covariance; at least two sightings of different times.
    """
    normal, right = np.zeros((4, 4)), np.zeros(4)
    for k in members:
        if k < 0:
            continue
        determinant = spread[k, 0] * spread[k, 2] - spread[k, 1] ** 2
        wxx, wxy, wyy = spread[k, 2] / determinant, -spread[k, 1] / determinant, spread[k, 0] / determinant
        t = time_s[k] - middle_s
        wx = wxx * place[k, 0] + wxy * place[k, 1]
        wy = wxy * place[k, 0] + wyy * place[k, 1]
        right += np.array([wx, wy, t * wx, t * wy])
        for i in range(2):
            for j in range(2):
                power = 1.0 if i + j == 0 else t if i + j == 1 else t * t
                normal[2 * i, 2 * j] += power * wxx
                normal[2 * i, 2 * j + 1] += power * wxy
                normal[2 * i + 1, 2 * j] += power * wxy
                normal[2 * i + 1, 2 * j + 1] += power * wyy
    # Time in units of its own spread, else the matrix mixes 1 and 1e7.
    unit = np.sqrt(normal[2, 2] / normal[0, 0]) if normal[0, 0] > 0.0 else 1.0
    scale = np.array([1.0, 1.0, 1.0 / unit, 1.0 / unit])
    for i in range(4):
        for j in range(4):
            normal[i, j] *= scale[i] * scale[j]
    covariance = np.linalg.inv(normal)
    for i in range(4):
        for j in range(4):
            covariance[i, j] *= scale[i] * scale[j]
    return covariance @ right, covariance  # type: ignore[return-value]  # numpy says floating, which is float64


@njit(cache=True, nogil=True)
def _extended(
    pairs: I8, exposure: I8, times: F8, time_s: F8, exposure_s: F8, place: F8, spread: F8, trail: F8,
    trail_spread: F8, mag: F8, mag_err: F8, order: I8, start: I8, origin: F8, side: float, rows: int, columns: int,
    scale: float,
) -> I8:  # fmt: skip
    """Each pair with the best sighting of every other exposure at its predicted place: ``[m, k]``."""
    members = np.full((len(pairs), len(times)), -1, np.int64)
    for m in range(len(pairs)):
        mine = members[m]
        for k in pairs[m]:
            mine[exposure[k]] = k
        middle = 0.5 * (time_s[pairs[m, 0]] + time_s[pairs[m, 1]])
        half = 0.5 * (time_s[pairs[m, 1]] - time_s[pairs[m, 0]])
        path, covariance = fit_motion(mine, middle, time_s, place, spread)
        for e in np.argsort(np.abs(times - middle)):
            if mine[e] >= 0:
                continue
            best = best_at(
                e, path, covariance, middle, half, pairs[m, 0], NEXT_CHI2, times, time_s, exposure_s, place,
                spread, trail, trail_spread, mag, mag_err, order, start, origin, side, rows, columns, scale,
            )  # fmt: skip
            if best >= 0:
                mine[e] = best
                half = max(half, abs(time_s[best] - middle))
                path, covariance = fit_motion(mine, middle, time_s, place, spread)
    return members


@njit(cache=True, nogil=True)
def best_at(
    e: int, path: F8, covariance: F8, middle: float, half: float, like: int, gate: float, times: F8,
    time_s: F8, exposure_s: F8, place: F8, spread: F8, trail: F8, trail_spread: F8, mag: F8, mag_err: F8, order: I8,
    start: I8, origin: F8, side: float, rows: int, columns: int, scale: float,
) -> int:  # fmt: skip
    """The sighting of exposure ``e`` that fits a path best (place, trail, magnitude of ``like``); -1: none does."""
    t = times[e] - middle
    x, y = path[0] + t * path[2], path[1] + t * path[3]
    beyond = max(abs(t), half)
    bend = (CURVATURE_ARCSEC_H2 * beyond * beyond / 3600.0**2) ** 2
    xx = covariance[0, 0] + 2 * t * covariance[0, 2] + t * t * covariance[2, 2] + bend
    yy = covariance[1, 1] + 2 * t * covariance[1, 3] + t * t * covariance[3, 3] + bend
    xy = covariance[0, 1] + t * (covariance[0, 3] + covariance[1, 2]) + t * t * covariance[2, 3]
    # The sightings' own errors are not known before they are looked at: room for them.
    reach = min(REACH_SIGMA * major(xx, xy, yy) + 6.0 * scale, FARTHEST_PX * scale)
    first_column = max(0, int(np.floor((x - reach - origin[0]) / side)))
    last_column = min(columns - 1, int(np.floor((x + reach - origin[0]) / side)))
    first_row = max(0, int(np.floor((y - reach - origin[1]) / side)))
    last_row = min(rows - 1, int(np.floor((y + reach - origin[1]) / side)))
    best, lowest = -1, gate
    if first_column > last_column:
        return best
    for row in range(first_row, last_row + 1):
        line = (e * rows + row) * columns
        for q in range(start[line + first_column], start[line + last_column + 1]):
            c = order[q]
            dt = time_s[c] - times[e]
            dx, dy = place[c, 0] - x - dt * path[2], place[c, 1] - y - dt * path[3]
            if dx * dx + dy * dy > reach * reach:
                continue
            chi2 = chi2_of(dx, dy, xx + spread[c, 0], xy + spread[c, 1], yy + spread[c, 2])
            if chi2 > lowest:
                continue
            chi2 += _trail_chi2(
                c, path[2], path[3], covariance[2, 2], covariance[2, 3], covariance[3, 3], exposure_s, trail,
                trail_spread,
            )  # fmt: skip
            apart = _mag_chi2(like, c, mag, mag_err)
            if apart < MAG_CHI2 and chi2 < lowest:
                best, lowest = c, chi2
    return best
