"""A set of sightings as one object in motion: its straight path, how well everything agrees, where it will be.

What agrees is measured apart - places with the path, lengths and directions of the trails with the velocity, brightness
with itself - for the score to weigh. So is how many such sets chance would give: the density of sightings around, in
place and in trail, times the room that the prediction leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from detector.astrometry import ARCSEC, east_north, to_pixels, unit_vectors
from detector.sightings import off
from detector.tracklets import CURVATURE_ARCSEC_H2, MAG_SYSTEMATIC, chi2_of, fit_motion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.sightings import Plane

    F8 = NDArray[np.float64]
    I8 = NDArray[np.int64]

HOUR_S = 3600.0
# What the score of a track rests on, in this order.
FEATURES = (
    "sightings",
    "missed",  # exposures that show the predicted place and have no sighting there
    "log_odds_sum",
    "log_odds_min",
    "log_odds_max",
    "chi2_place",  # per degree of freedom, 0 for two sightings
    "chi2_rate",  # of the trails' lengths, per sighting
    "chi2_direction",
    "chi2_worst",  # the least fitting trail
    "chi2_mag",
    "log_chance",  # sets like this one that chance gives in the field
    "log_crowding",  # expected sightings within 10 px of a member, in its own exposure
    "log_length_px",  # of the trail that the velocity makes
    "log_shift",  # how far it went between first and last sighting, in sigmas
    "log_shift_px",
    "log_snr",
    "trail_err",  # a trail's uncertainty over its length
    "standing",  # share of the sightings at whose place another exposure shows the like
    "sticking",  # share of the sightings at whose pixel another exposure shows the like
    "short",
    "edge",
    "span",  # of the field's whole time
)
_LIMIT = 50.0


@dataclass(frozen=True)
class Motion:
    """An object on a great circle: where it is (ICRS degrees) at ``epoch_mjd_tai``, its rate, North through East."""

    ra: float
    dec: float
    epoch_mjd_tai: float
    rate_arcsec_h: float
    position_angle_deg: float

    def at(self, mjd_tai: float) -> tuple[float, float, float]:
        """RA, Dec and position angle of the motion (degrees) at a time."""
        here = unit_vectors(np.array(self.ra), np.array(self.dec))
        east, north = east_north(np.array(self.ra), np.array(self.dec))
        turn = np.radians(self.position_angle_deg)
        ahead = np.sin(turn) * east + np.cos(turn) * north
        angle = np.radians(self.rate_arcsec_h * (mjd_tai - self.epoch_mjd_tai) * 24.0 / ARCSEC)
        there = np.cos(angle) * here + np.sin(angle) * ahead
        onward = np.cos(angle) * ahead - np.sin(angle) * here
        ra = float(np.degrees(np.arctan2(there[1], there[0])) % 360.0)
        dec = float(np.degrees(np.arctan2(there[2], np.hypot(there[0], there[1]))))
        east, north = east_north(np.array(ra), np.array(dec))
        return ra, dec, float(np.degrees(np.arctan2(onward @ east, onward @ north)) % 360.0)


def predicted_ends(motion: Motion, mid_time_mjd_tai: float, exposure_s: float, wcs: Any) -> F8:
    """Where a track's trail begins and ends in another exposure: ``[4]`` x0, y0, x1, y1 in pixels, in order of time.

    NaN where the projection has none. For a fit at fixed ends (forced photometry) where nothing was detected.
    """
    half = 0.5 * exposure_s / 86400.0
    ends = np.array([motion.at(mid_time_mjd_tai + side * half)[:2] for side in (-1.0, 1.0)])
    return np.stack(to_pixels(wcs, ends[:, 0], ends[:, 1]), axis=1).reshape(4)


def motion_on(plane: Plane, members: I8) -> Motion:
    """The motion of one set of sightings (-1: none) of a plane; its epoch is the middle of their times."""
    chosen = members[members >= 0]
    middle = float(plane.time_s[chosen].mean())
    path, _ = fit_motion(members, middle, plane.time_s, plane.place, plane.spread)
    here, ahead = off(plane.axes, np.stack([path[:2], path[:2] + path[2:] * 60.0]))
    ra = float(np.degrees(np.arctan2(here[1], here[0])) % 360.0)
    dec = float(np.degrees(np.arcsin(np.clip(here[2], -1.0, 1.0))))
    east, north = east_north(np.array(ra), np.array(dec))
    step = ahead - here
    return Motion(
        ra=ra,
        dec=dec,
        epoch_mjd_tai=plane.catalogue.epoch_mjd_tai + middle / 86400.0,
        rate_arcsec_h=float(np.degrees(np.linalg.norm(step)) * ARCSEC * 60.0),
        position_angle_deg=float(np.degrees(np.arctan2(step @ east, step @ north)) % 360.0),
    )


def paths(plane: Plane, members: I8) -> F8:
    """The paths ``[m, 4]`` of sets of sightings: x, y at the mean of the plane's times, velocity (arcsec, arcsec/s)."""
    return _paths(members, float(plane.times_s.mean()), plane.time_s, plane.place, plane.spread)


@njit(cache=True, nogil=True)
def _paths(members: I8, middle_s: float, time_s: F8, place: F8, spread: F8) -> F8:
    table = np.empty((len(members), 4))
    for m in range(len(members)):
        table[m] = fit_motion(members[m], middle_s, time_s, place, spread)[0]
    return table


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What the features need to know of the sightings of a plane ``[n]``, and of its exposures.

    ``density`` is sightings per arcsec^2 around each in its own exposure; ``trail_density`` the share of the field's
    sightings per arcsec^2 of trail at each one's trail; ``standing``, ``sticking`` as in ``FEATURES``.
    """

    density: F8
    trail_density: F8
    standing: NDArray[np.bool_]
    sticking: NDArray[np.bool_]


def features(plane: Plane, members: I8, around: Surroundings, missed: I8) -> F8:
    """The features ``[m, len(FEATURES)]`` of sets of sightings ``[m, k]``; ``missed`` ``[m]`` is counted elsewhere."""
    found = plane.catalogue
    rows = plane.index
    table = _features(
        members, plane.time_s, plane.exposure_s, plane.place, plane.spread, plane.trail, plane.trail_spread,
        found.mag[rows], found.mag_err[rows], found.log_odds[rows], found.snr[rows], around.density,
        around.trail_density, around.standing, around.sticking, found.short[rows], found.edge[rows],
        plane.scale_arcsec, float(np.ptp(plane.times_s)), len(rows), len(FEATURES),
    )  # fmt: skip
    table[:, 1] = missed
    return np.clip(np.nan_to_num(table, nan=0.0, posinf=1e4, neginf=-1e4), -1e4, 1e4)


@njit(cache=True, nogil=True)
def _features(
    members: I8, time_s: F8, exposure_s: F8, place: F8, spread: F8, trail: F8, trail_spread: F8, mag: F8, mag_err: F8,
    log_odds: F8, snr: F8, density: F8, trail_density: F8, standing: NDArray[np.bool_], sticking: NDArray[np.bool_],
    short: NDArray[np.bool_], edge: NDArray[np.bool_], scale: float, span_s: float, sightings: int, width: int,
) -> F8:  # fmt: skip
    table = np.zeros((len(members), width))
    for m in range(len(members)):
        n = 0
        begin, end = np.inf, -np.inf
        for k in members[m]:
            if k >= 0:
                n += 1
                begin, end = min(begin, time_s[k]), max(end, time_s[k])
        middle, half = 0.5 * (begin + end), 0.5 * (end - begin)
        path, covariance = fit_motion(members[m], middle, time_s, place, spread)
        bend = (CURVATURE_ARCSEC_H2 * half * half / HOUR_S**2) ** 2
        speed = np.hypot(path[2], path[3])
        ux, uy = (path[2] / speed, path[3] / speed) if speed > 0.0 else (1.0, 0.0)
        row = table[m]
        row[0] = n
        row[3], row[4] = np.inf, -np.inf
        weight, weighted = 0.0, 0.0
        log_chance = np.log(float(sightings))
        length, trail_sigma, loudest, crowding = 0.0, 0.0, 0.0, 0.0
        first = True
        for k in members[m]:
            if k < 0:
                continue
            row[2] += log_odds[k]
            row[3], row[4] = min(row[3], log_odds[k]), max(row[4], log_odds[k])
            t = time_s[k] - middle
            dx, dy = place[k, 0] - path[0] - t * path[2], place[k, 1] - path[1] - t * path[3]
            row[5] += chi2_of(dx, dy, spread[k, 0] + bend, spread[k, 1], spread[k, 2] + bend)
            e = exposure_s[k]
            if np.isfinite(e):
                hx, hy = trail[k, 0], trail[k, 1]
                if hx * ux + hy * uy < 0.0:
                    hx, hy = -hx, -hy
                rx, ry = hx - path[2] * e, hy - path[3] * e
                xx = trail_spread[k, 0] + e * e * covariance[2, 2]
                xy = trail_spread[k, 1] + e * e * covariance[2, 3]
                yy = trail_spread[k, 2] + e * e * covariance[3, 3]
                along, across = rx * ux + ry * uy, rx * uy - ry * ux
                one = along * along / (ux * ux * xx + 2 * ux * uy * xy + uy * uy * yy)
                two = across * across / (uy * uy * xx - 2 * ux * uy * xy + ux * ux * yy)
                row[6] += one / n
                row[7] += two / n
                row[8] = max(row[8], one + two)
                length += speed * e / n
            determinant = max(trail_spread[k, 0] * trail_spread[k, 2] - trail_spread[k, 1] ** 2, 1e-12)
            trail_sigma += determinant**0.25 / n
            if np.isfinite(mag[k]):
                variance = MAG_SYSTEMATIC**2 + (mag_err[k] ** 2 if np.isfinite(mag_err[k]) else 0.0)
                weight += 1.0 / variance
                weighted += mag[k] / variance
            if np.isfinite(snr[k]) and snr[k] > 0.0:
                loudest += np.log(snr[k]) / n
            crowding += density[k] * np.pi * (10.0 * scale) ** 2 / n
            if not first:
                # The room in place and trail in which the sighting would have been taken, filled as its surroundings.
                xx = covariance[0, 0] + t * t * covariance[2, 2] + spread[k, 0] + bend
                yy = covariance[1, 1] + t * t * covariance[3, 3] + spread[k, 2] + bend
                room = 2.0 * np.pi * np.sqrt(xx * yy) * density[k]
                room_of_trail = 2.0 * np.pi * np.sqrt(determinant) * trail_density[k]
                log_chance += np.log(max(room, 1e-9)) + np.log(min(max(room_of_trail, 1e-6), 1.0))
            first = False
            row[17] += 1.0 / n if standing[k] else 0.0
            row[18] += 1.0 / n if sticking[k] else 0.0
            row[19] += 1.0 / n if short[k] else 0.0
            row[20] += 1.0 / n if edge[k] else 0.0
        for k in members[m]:
            if k >= 0 and np.isfinite(mag[k]) and weight > 0.0:
                variance = MAG_SYSTEMATIC**2 + (mag_err[k] ** 2 if np.isfinite(mag_err[k]) else 0.0)
                row[9] += (mag[k] - weighted / weight) ** 2 / variance / max(n - 1, 1)
        row[5] /= max(2 * n - 4, 1)
        row[10] = log_chance
        row[11] = np.log(max(crowding, 1e-6))
        row[12] = np.log(max(length / scale, 0.05))
        sigma = np.sqrt(covariance[2, 2] * ux * ux + 2 * covariance[2, 3] * ux * uy + covariance[3, 3] * uy * uy)
        row[13] = np.log(max(speed / sigma, 1e-3))
        row[14] = np.log(max(speed * (end - begin) / scale, 1e-3))
        row[15] = loudest
        row[16] = trail_sigma / max(length, 0.1 * scale)
        row[21] = (end - begin) / span_s if span_s > 0.0 else 0.0
    return table
