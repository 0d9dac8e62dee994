"""Pixels -> sky: end points, length, direction and rate of streaks, with their covariance.

One call to the WCS serves all streaks of a frame. Lengths and directions are taken between unit vectors, so that RA 0
and the poles are places like any other. Errors follow the local Jacobian of the WCS at each end and at the middle,
distortion included. What fails at night: a frame without a WCS keeps its pixels and gets NaN here; a pixel that a
projection cannot show is NaN alone.

Angles are degrees; ICRS whatever the frame's own system is (FK5 differs by some 20 mas, FK4 by degrees).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.coordinates import ICRS, SkyCoord
from astropy.wcs.utils import wcs_to_celestial_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.frame import FrameHeader

    F8 = NDArray[np.float64]

ARCSEC = 3600.0
_STEP_PX = 0.5  # on each side, for the Jacobian: far above rounding (1e-9 px), far below the scale of any distortion


def to_sky(wcs: Any, x: F8, y: F8) -> tuple[F8, F8]:
    """RA and Dec (ICRS degrees) of pixels; NaN where the projection has none. ``x``, ``y`` and the results are [n]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old dates and invalid pixels: the former do not matter, the latter are NaN
        world = wcs.all_pix2world(np.column_stack([x, y]), 0)
        longitude, latitude = world[:, wcs.wcs.lng], world[:, wcs.wcs.lat]
        frame = wcs_to_celestial_frame(wcs)
        if isinstance(frame, ICRS):
            return np.mod(longitude, 360.0), latitude
        usable = np.isfinite(longitude) & (np.abs(latitude) <= 90.0)
        ra, dec = np.full(len(x), np.nan), np.full(len(x), np.nan)
        if usable.any():
            icrs = SkyCoord(longitude[usable], latitude[usable], unit="deg", frame=frame).icrs
            ra[usable], dec[usable] = icrs.ra.deg, icrs.dec.deg
    return ra, dec


def to_pixels(wcs: Any, ra: F8, dec: F8) -> tuple[F8, F8]:
    """Pixels of ICRS degrees, the inverse of ``to_sky``; NaN where the sky does not lie on the detector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = wcs_to_celestial_frame(wcs)
        here = SkyCoord(ra, dec, unit="deg", frame=ICRS()).transform_to(frame).spherical
        world = np.empty((len(ra), 2))
        world[:, wcs.wcs.lng], world[:, wcs.wcs.lat] = here.lon.deg, here.lat.deg
        pixels = wcs.all_world2pix(world, 0, quiet=True)
    return pixels[:, 0], pixels[:, 1]


def unit_vectors(ra: F8, dec: F8) -> F8:
    """Unit vectors [..., 3] of ICRS degrees [...]."""
    longitude, latitude = np.radians(ra), np.radians(dec)
    across = np.cos(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=-1)


def east_north(ra: F8, dec: F8) -> tuple[F8, F8]:
    """Unit vectors [..., 3] towards East and North at ICRS degrees [...]."""
    longitude, latitude = np.radians(ra), np.radians(dec)
    nothing = np.zeros_like(longitude)
    east = np.stack([-np.sin(longitude), np.cos(longitude), nothing], axis=-1)
    north = np.stack(
        [-np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)], axis=-1
    )
    return east, north


def separation_deg(one: F8, other: F8) -> F8:
    """Angle between unit vectors [..., 3]; right from micro-arcseconds to 180 degrees."""
    across = np.linalg.norm(np.cross(one, other), axis=-1)
    return np.degrees(np.arctan2(across, np.sum(one * other, axis=-1)))


def pixel_scale_arcsec(wcs: Any, x: float, y: float) -> float:
    """Side of the square that has a pixel's area at this place; NaN where the projection has none."""
    steps = _steps(wcs, np.array([x]), np.array([y]))[0]
    area = np.linalg.norm(np.cross(steps[:, 0], steps[:, 1]))
    return float(np.degrees(np.sqrt(area))) * ARCSEC


def _steps(wcs: Any, x: F8, y: F8) -> F8:
    """How the unit vector moves per pixel in x and in y at pixels [n]: [n, 3, 2], radians."""
    h = _STEP_PX
    ra, dec = to_sky(wcs, np.concatenate([x + h, x - h, x, x]), np.concatenate([y, y, y + h, y - h]))
    plus_x, minus_x, plus_y, minus_y = unit_vectors(ra, dec).reshape(4, len(x), 3)
    return np.stack([plus_x - minus_x, plus_y - minus_y], axis=-1) / (2 * h)


def on_the_sky(streaks: NDArray[np.void], covariances: F8 | None, header: FrameHeader) -> NDArray[np.void]:
    """A copy of the table ``STREAK`` [n] with its sky columns filled; unchanged where the frame has no WCS.

    ``covariances`` [n, 4, 4] are those of x0, y0, x1, y1 in pixels; without them (or where they are NaN) the errors
    stay NaN.
    """
    table = streaks.copy()
    if header.wcs is None or len(table) == 0:
        return table
    x0, y0, x1, y1 = (table[name].astype(np.float64) for name in ("x0", "y0", "x1", "y1"))
    count = len(table)
    ra, dec = to_sky(header.wcs, np.concatenate([x0, x1, (x0 + x1) / 2]), np.concatenate([y0, y1, (y0 + y1) / 2]))
    for index, end in enumerate(("0", "1", "")):
        table[f"ra{end}"] = ra[index * count : (index + 1) * count]
        table[f"dec{end}"] = dec[index * count : (index + 1) * count]
    ends = unit_vectors(ra, dec).reshape(3, count, 3)
    here = np.stack(east_north(table["ra"], table["dec"]), axis=1)  # [n, 2 (East, North), 3]
    along = np.einsum("nij,nj->ni", here, ends[1] - ends[0])
    length = separation_deg(ends[0], ends[1])
    table["trail_length_arcsec"] = length * ARCSEC
    angle = np.mod(np.degrees(np.arctan2(along[:, 0], along[:, 1])), 180.0)
    # np.mod of a tiny negative number rounds up to 180 itself, which is not in [0, 180).
    table["trail_angle_deg"] = np.where(length > 0.0, np.where(angle < 180.0, angle, 0.0), np.nan)
    if covariances is not None:
        _fill_errors(table, covariances, header.wcs, here, along)
    if header.exposure_s:
        for suffix in ("", "_err"):
            table[f"rate_arcsec_h{suffix}"] = table[f"trail_length_arcsec{suffix}"] * (3600.0 / header.exposure_s)
    return table


def _fill_errors(table: NDArray[np.void], covariances: F8, wcs: Any, here: F8, along: F8) -> None:
    """Write the error columns into ``table``, which ``on_the_sky`` owns.

    ``here`` [n, 2, 3] are East and North at the mid-points, ``along`` [n, 2] end 1 minus end 0 in them (radians). All
    Jacobians are taken in that one frame: near a pole East at one end is not East at the other.
    """
    x0, y0, x1, y1 = (table[name] for name in ("x0", "y0", "x1", "y1"))
    steps = _steps(wcs, np.concatenate([x0, x1, (x0 + x1) / 2]), np.concatenate([y0, y1, (y0 + y1) / 2]))
    first, second, middle = np.einsum("nij,enjk->enik", here, steps.reshape(3, len(table), 3, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = np.hypot(along[:, 0], along[:, 1])[:, None]
        forward = along / norm
        sideways = np.stack([forward[:, 1], -forward[:, 0]], axis=-1)  # an angle grows from North towards East
        rows = np.concatenate(
            [
                np.concatenate([middle, middle], axis=2) / 2,  # mid-point, East and North: [n, 2, 4]
                _across_ends(forward, first, second),  # length
                _across_ends(sideways / norm, first, second),  # angle
            ],
            axis=1,
        )  # [n, 4, 4]
        spread = np.einsum("nij,njk,nlk->nil", rows, covariances, rows)
        sigma = np.degrees(np.sqrt(np.diagonal(spread, axis1=1, axis2=2)))
        table["ra_err"], table["dec_err"] = sigma[:, 0], sigma[:, 1]
        correlation = spread[:, 0, 1] / np.sqrt(spread[:, 0, 0] * spread[:, 1, 1])
    table["ra_dec_corr"] = np.clip(correlation, -1.0, 1.0)
    table["trail_length_arcsec_err"] = sigma[:, 2] * ARCSEC
    table["trail_angle_deg_err"] = np.where(np.isfinite(sigma[:, 3]), sigma[:, 3], np.nan)


def _across_ends(direction: F8, first: F8, second: F8) -> F8:
    """How ``direction`` . (end 1 - end 0) changes with x0, y0, x1, y1: [n, 1, 4]."""
    ends = [np.einsum("ni,nij->nj", direction, -first), np.einsum("ni,nij->nj", direction, second)]
    return np.concatenate(ends, axis=1)[:, None, :]
