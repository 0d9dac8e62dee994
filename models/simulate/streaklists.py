"""Lists of streaks as a detector would give them, drawn without pixels: what the score of tracks learns from.

A field's frames take minutes to simulate and to search; its lists take milliseconds. Asteroids move on straight paths
and are found with a probability by SNR, measured with the errors that a trail of that length and SNR allows (Cramer-Rao
of a uniform line) and with the tails of real fits; false ones are those that occur: things that stand still on the sky,
diffraction spikes, crowds about bright stars, cosmic rays, defects that stay on the detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.time import Time
from scipy.special import expit

from detector.astrometry import ARCSEC, east_north, unit_vectors
from detector.sightings import off

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F8 = NDArray[np.float64]

SIGMA_OF_FWHM = 1.0 / 2.3548
# A streak's magnitude where its SNR is 10 for a length of 16 px, in a Euclid frame; others shift it, and nothing else.
MAG_AT_SNR_10 = 25.2


@dataclass(frozen=True)
class Circumstances:
    """One field: camera, exposures, how many asteroids and false candidates a CCD, how well the detector does.

    ``half_snr`` is where half are found, ``logit`` the typical one of false candidates, ``separation`` how far it rises
    for a true one; ``shares`` are those of the kinds of false candidates: still, about stars, spikes, anywhere, stuck.
    """

    scale_arcsec: float
    exposure_s: float
    times_s: tuple[float, ...]
    dither_arcsec: float
    shape: tuple[int, int]
    fwhm_px: float
    asteroids: float
    false: float
    half_snr: float
    logit: float
    separation: float
    shares: tuple[float, ...]


def draw_circumstances(rng: np.random.Generator) -> Circumstances:
    """Draw a camera and its night: half of them like Euclid VIS, the others anything between KiDS and HSC."""
    euclid = rng.random() < 0.5
    exposure_s = 565.0 if euclid else float(np.exp(rng.uniform(np.log(60.0), np.log(600.0))))
    gap = 505.0 if euclid else float(np.exp(rng.uniform(np.log(20.0), np.log(1500.0))))
    number = 4 if rng.random() < 0.7 else int(rng.integers(2, 8))
    starts = np.arange(number) * (exposure_s + gap)
    if rng.random() < 0.3:
        starts = starts + np.cumsum(rng.exponential(0.5 * (exposure_s + gap), number))
    shape = (2066, 2048) if rng.random() < 0.8 else (4132, 4096)
    return Circumstances(
        scale_arcsec=0.1 if euclid else float(rng.uniform(0.1, 0.4)),
        exposure_s=exposure_s,
        times_s=tuple(starts.tolist()),
        dither_arcsec=float(rng.uniform(0.0, 100.0)),
        shape=shape,
        fwhm_px=float(rng.uniform(1.5, 2.2) if euclid else rng.uniform(1.8, 5.0)),
        asteroids=float(np.exp(rng.uniform(np.log(3.0), np.log(500.0)))) * shape[0] / 4132
        if rng.random() < 0.9
        else 0.0,
        false=float(np.exp(rng.uniform(np.log(10.0), np.log(5000.0)))),
        half_snr=float(rng.uniform(4.5, 8.0)),
        logit=float(rng.normal(-5.0, 1.0)),
        separation=float(rng.uniform(1.0, 6.0)),
        shares=tuple(rng.dirichlet(np.array([4.0, 2.0, 1.0, 3.0, 0.5])).tolist()),
    )


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Rows of one exposure in pixels: ends ``[n, 4]``, whose (object, -1 false), SNR, magnitude, logit."""

    ends: F8
    object: NDArray[np.int64]
    snr: F8
    mag: F8
    logit: F8


def draw_lists(rng: np.random.Generator, night: Circumstances) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """The table of streaks of one field, and for each row the asteroid that made it (-1: none)."""
    middle = float(np.mean(night.times_s))
    axes = _axes(rng)
    turn = rng.uniform(0.0, 2.0 * np.pi)
    basis = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    pointings = rng.uniform(-night.dither_arcsec, night.dither_arcsec, (len(night.times_s), 2)) / night.scale_arcsec
    asteroids = _draw_asteroids(rng, night, np.abs(pointings).max())
    scenery = _draw_scenery(rng, night, np.abs(pointings).max())
    begin = float(rng.uniform(57000.0, 60600.0))
    tables = []
    for number, (time_s, pointing) in enumerate(zip(night.times_s, pointings, strict=True)):
        moving = _sighted(rng, night, asteroids, time_s - middle, pointing)
        false = _false(rng, night, scenery, pointing)
        rows = _Drawn(
            *(
                np.concatenate([getattr(moving, name), getattr(false, name)])
                for name in ("ends", "object", "snr", "mag", "logit")
            )
        )
        tables.append(
            (_columns(rng, night, rows, axes, basis, pointing, number, begin + time_s / 86400.0), rows.object)
        )
    return (
        {name: np.concatenate([table[name] for table, _ in tables]) for name in tables[0][0]},
        np.concatenate([owner for _, owner in tables]),
    )


def _axes(rng: np.random.Generator) -> F8:
    """East, North and centre of a field anywhere on the sky."""
    ra, dec = np.array(rng.uniform(0.0, 360.0)), np.array(np.degrees(np.arcsin(rng.uniform(-1.0, 1.0))))
    return np.stack([*east_north(ra, dec), unit_vectors(ra, dec)])


def _draw_asteroids(rng: np.random.Generator, night: Circumstances, margin: float) -> F8:
    """``[n, 6]``: x, y (px of the field, at its middle time), trail x, y (px in one exposure), magnitude, favour.

    The detector's favour is 0 to 1: some shapes and rates it scores low however bright they are, short ones above all.
    """
    height, width = night.shape
    area = (height + 2 * margin) * (width + 2 * margin) / (height * width)
    n = rng.poisson(night.asteroids * area)
    length = np.exp(rng.uniform(np.log(1.2), np.log(130.0), n))
    turn = rng.uniform(0.0, 2.0 * np.pi, n)
    return np.column_stack(
        [
            rng.uniform(-margin, width + margin, n),
            rng.uniform(-margin, height + margin, n),
            length * np.cos(turn),
            length * np.sin(turn),
            rng.uniform(20.0, 26.7, n),
            rng.uniform(0.0, 1.0, n) * np.clip(0.1 * length, 0.1, 1.0),
        ]
    )


def snr_of(mag: F8, length_px: F8) -> F8:
    """The SNR of trails: photons over the noise of the pixels that they cover."""
    return np.asarray(10.0 * 10.0 ** (-0.4 * (mag - MAG_AT_SNR_10)) * np.sqrt(19.0 / (3.0 + length_px)), np.float64)


def _sighted(rng: np.random.Generator, night: Circumstances, asteroids: F8, time_s: float, pointing: F8) -> _Drawn:
    """What the detector makes of the asteroids in one exposure."""
    trail = asteroids[:, 2:4]
    length = np.hypot(trail[:, 0], trail[:, 1])
    place = asteroids[:, :2] + trail * (time_s / night.exposure_s) - pointing
    snr = snr_of(asteroids[:, 4], length)
    found = rng.random(len(asteroids)) < 0.97 * expit((snr - night.half_snr) / 0.9)
    height, width = night.shape
    inside = (place > 0.0).all(axis=1) & (place < np.array([width, height])).all(axis=1)
    which = np.flatnonzero(found & inside)
    # Long trails come in pieces at times, and then as two rows or as one.
    broken = which[(length[which] > 30.0) & (rng.random(len(which)) < 0.06)]
    which = np.concatenate([which, broken])
    part = np.ones(len(which))
    part[np.isin(which, broken)] = rng.uniform(0.3, 0.8, int(np.isin(which, broken).sum()))
    place, trail, snr = place[which], trail[which], snr[which] * np.sqrt(part)
    whole = length[which]
    unit = trail / whole[:, None]
    shift = (1.0 - part) * whole * rng.uniform(-0.5, 0.5, len(which))
    half = 0.5 * part * whole
    ends = np.concatenate(
        [place + unit * (shift - half)[:, None], place + unit * (shift + half)[:, None]], axis=1
    ).reshape(-1, 2, 2)
    ends = np.clip(ends, 0.0, np.array([width - 1.0, height - 1.0]))
    measured = _measured(rng, ends, snr, night.fwhm_px)
    mag = asteroids[which, 4] - 2.5 * np.log10(part) + rng.normal(0.0, 1.1 / snr) + rng.normal(0.0, 0.07, len(which))
    favour = night.separation * asteroids[which, 5] * np.clip(0.25 * (snr - 3.0), 0.3, 3.0)
    logit = rng.normal(night.logit + favour, 1.2)
    return _Drawn(measured, which, snr, mag, logit)


def end_errors(length: F8, snr: F8, fwhm_px: float) -> tuple[F8, F8]:
    """One sigma of an end along and across its trail (px), the bound of an even line over noise."""
    sigma = fwhm_px * SIGMA_OF_FWHM
    along = np.sqrt(2.0 * np.sqrt(np.pi) * sigma * np.maximum(length, fwhm_px)) / snr
    return along, np.maximum(2.0 * sigma / snr, 0.0)


def _measured(rng: np.random.Generator, ends: F8, snr: F8, fwhm_px: float) -> F8:
    """Ends ``[n, 2, 2]`` with errors: normal ones, and for one in twelve the wide ones of a fit gone astray."""
    along = ends[:, 1] - ends[:, 0]
    length = np.hypot(along[:, 0], along[:, 1])
    turn = rng.uniform(0.0, 2.0 * np.pi, len(ends))
    unit = np.where(
        (length > 0.3)[:, None], along / np.maximum(length, 1e-6)[:, None], np.stack([np.cos(turn), np.sin(turn)], 1)
    )
    normal = np.stack([-unit[:, 1], unit[:, 0]], axis=1)
    sigma = np.stack(end_errors(length, np.maximum(snr, 2.0), fwhm_px), axis=1)
    astray = np.where(rng.random(len(ends)) < 0.08, rng.uniform(2.0, 5.0, len(ends)), 1.1)
    moved = rng.normal(0.0, 1.0, (len(ends), 2, 2)) * sigma[:, None, :] * astray[:, None, None]
    moved += rng.normal(0.0, 0.05, moved.shape)
    drawn = ends + moved[..., :1] * unit[:, None, :] + moved[..., 1:] * normal[:, None, :]
    return np.asarray(drawn.reshape(-1, 4), np.float64)


@dataclass(frozen=True, eq=False)
class _Scenery:
    """What gives false candidates: ``still`` ``[n, 7]`` (x, y, trail x, y, magnitude, how often, favour), stars ..."""

    still: F8
    stars: F8
    spikes: F8
    stuck: F8
    numbers: NDArray[np.int64]


def _draw_scenery(rng: np.random.Generator, night: Circumstances, margin: float) -> _Scenery:
    height, width = night.shape
    numbers = np.rint(np.array(night.shares) * night.false).astype(np.int64)

    def places(n: int, rim: float) -> F8:
        return np.column_stack([rng.uniform(-rim, width + rim, n), rng.uniform(-rim, height + rim, n)])

    def shapes(n: int, typical: float) -> F8:
        length, turn = typical * rng.lognormal(0.0, 0.6, n), rng.uniform(0.0, np.pi, n)
        return np.column_stack([length * np.cos(turn), length * np.sin(turn), rng.normal(24.3, 0.9, n)])

    area = (height + 2 * margin) * (width + 2 * margin) / (height * width)
    often = rng.beta(0.7, 0.7)
    n = int(numbers[0] * area / max(often, 0.1))
    favour = 1.5 * rng.gumbel(0.0, 1.0, n)  # some galaxies please the detector in every exposure
    still = np.column_stack([places(n, margin), shapes(n, 5.0), np.full(n, often), favour])
    stuck_n = int(numbers[4])
    stuck = np.column_stack([places(stuck_n, 0.0), shapes(stuck_n, 12.0)])
    stars = np.column_stack([places(max(int(rng.integers(3, 60)), 1), margin)])
    spikes = np.asarray(rng.uniform(0.0, np.pi) + np.arange(int(rng.integers(2, 4))) * np.pi / 3.0, np.float64)
    return _Scenery(still, stars, spikes, stuck, numbers)


def _false(rng: np.random.Generator, night: Circumstances, scenery: _Scenery, pointing: F8) -> _Drawn:
    """The false candidates of one exposure: ends, SNR, magnitude and logit."""
    height, width = night.shape
    still = scenery.still[rng.random(len(scenery.still)) < scenery.still[:, 5]]
    shape = still[:, 2:4] * rng.lognormal(0.0, 0.15, (len(still), 1)) + rng.normal(0.0, 0.5, (len(still), 2))
    jitter = rng.normal(0.0, 1.0, (len(still), 2)) * rng.lognormal(-1.0, 0.8, (len(still), 1))
    parts = [np.column_stack([still[:, :2] - pointing + jitter, shape, still[:, 4], still[:, 6]])]

    def plain(rows: F8) -> F8:
        return np.column_stack([rows, rng.gumbel(0.0, 0.7, len(rows))])

    # About bright stars, in any direction and along the spikes.
    for share, directed in ((2, False), (1, True)):
        n = int(rng.poisson(scenery.numbers[share]))
        star = scenery.stars[rng.integers(0, len(scenery.stars), n)] - pointing
        turn = rng.choice(scenery.spikes, n) if directed else rng.uniform(0.0, 2.0 * np.pi, n)
        away = rng.exponential(40.0, n) * rng.choice([-1.0, 1.0], n)
        place = star + np.column_stack([np.cos(turn), np.sin(turn)]) * away[:, None]
        own = turn + rng.normal(0.0, 0.05, n) if directed else rng.uniform(0.0, np.pi, n)
        length = 8.0 * rng.lognormal(0.0, 0.6, n)
        trail = np.column_stack([length * np.cos(own), length * np.sin(own)])
        parts.append(plain(np.column_stack([place, trail, rng.normal(23.8, 0.9, n)])))
    n = int(rng.poisson(scenery.numbers[3]))
    length, turn = 6.0 * rng.lognormal(0.0, 0.8, n), rng.uniform(0.0, np.pi, n)
    place = np.column_stack([rng.uniform(0.0, width, n), rng.uniform(0.0, height, n)])
    trail = np.column_stack([length * np.cos(turn), length * np.sin(turn)])
    parts.append(plain(np.column_stack([place, trail, rng.normal(24.0, 1.2, n)])))
    stuck = scenery.stuck
    parts.append(plain(stuck + rng.normal(0.0, 0.2, stuck.shape)))
    rows = np.concatenate(parts)
    inside = (rows[:, :2] > 0.0).all(axis=1) & (rows[:, :2] < np.array([width, height])).all(axis=1)
    rows = rows[inside]
    ends = np.concatenate([rows[:, :2] - 0.5 * rows[:, 2:4], rows[:, :2] + 0.5 * rows[:, 2:4]], axis=1)
    snr = np.maximum(snr_of(rows[:, 4], np.hypot(rows[:, 2], rows[:, 3])), 3.0) * rng.lognormal(0.0, 0.1, len(rows))
    logit = rng.normal(night.logit + rows[:, 5], 1.0)
    return _Drawn(ends, np.full(len(rows), -1), snr, rows[:, 4], logit)


def _columns(
    rng: np.random.Generator,
    night: Circumstances,
    rows: _Drawn,
    axes: F8,
    basis: F8,
    pointing: F8,
    number: int,
    mjd_tai: float,
) -> dict[str, NDArray[Any]]:
    """Rows as the columns of the table of streaks."""
    swap = rows.ends[:, 0] > rows.ends[:, 2]
    ends = np.where(swap[:, None], rows.ends[:, [2, 3, 0, 1]], rows.ends)
    along = ends[:, 2:] - ends[:, :2]
    length = np.hypot(along[:, 0], along[:, 1])
    centre = np.array([0.5 * night.shape[1], 0.5 * night.shape[0]])
    sky = {}
    for name, place in (("0", ends[:, :2]), ("1", ends[:, 2:]), ("", 0.5 * (ends[:, :2] + ends[:, 2:]))):
        vectors = off(axes, (place + pointing - centre) @ basis * night.scale_arcsec)
        sky[f"ra{name}"] = np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 360.0
        sky[f"dec{name}"] = np.degrees(np.arcsin(np.clip(vectors[:, 2], -1.0, 1.0)))
    # What a fit claims is right to a fifth or so.
    claimed = rng.lognormal(0.0, 0.15, len(length))
    end_along, end_across = (error * claimed for error in end_errors(length, rows.snr, night.fwhm_px))
    unit = (along / np.maximum(length, 1e-6)[:, None]) @ basis
    east = np.hypot(unit[:, 0] * end_along, unit[:, 1] * end_across) / np.sqrt(2.0)
    north = np.hypot(unit[:, 1] * end_along, unit[:, 0] * end_across) / np.sqrt(2.0)
    cross = 0.5 * unit[:, 0] * unit[:, 1] * (end_along**2 - end_across**2) / (east * north)
    seen = length * night.scale_arcsec
    count = len(length)
    time = str(Time(mjd_tai, format="mjd", scale="tai", precision=3).utc.isot) + "Z"
    border = np.minimum(ends.min(axis=1), np.minimum(*(night.shape[1 - k] - ends[:, k::2].max(axis=1) for k in (0, 1))))
    return {
        "frame": np.full(count, f"exposure-{number}.fits"),
        "extension": np.zeros(count),
        "exposure": np.full(count, f"exposure-{number}"),
        "ccd": np.full(count, "1"),
        **{name: ends[:, k] for k, name in enumerate(("x0", "y0", "x1", "y1"))},
        "score": expit(rows.logit),
        "snr": rows.snr,
        "mag": rows.mag,
        "mag_err": 1.1 / rows.snr,
        "length_px": length,
        **sky,
        "ra_err": east * night.scale_arcsec / ARCSEC,
        "dec_err": north * night.scale_arcsec / ARCSEC,
        "ra_dec_corr": np.clip(cross, -1.0, 1.0),
        "trail_length_arcsec": seen,
        "trail_length_arcsec_err": np.sqrt(2.0) * end_along * night.scale_arcsec,
        "trail_angle_deg_err": np.degrees(np.sqrt(2.0) * end_across / np.maximum(length, 0.1)),
        "rate_arcsec_h": seen * 3600.0 / night.exposure_s,
        "mid_time_utc": np.full(count, time),
        "flags": np.where(length < night.fwhm_px, "short", np.where(border < 10.0, "edge", "")),
    }
