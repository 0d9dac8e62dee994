"""Whole exposures: one sky seen several times by a dithering camera, with asteroids moving across it, as FITS files.

This is what the evaluation stands on, so the truth is computed once, on the sky: an asteroid moves on a straight line
in the field's tangent plane, and each frame's own WCS turns where it was at the opening and at the closing of the
shutter into pixels. Stars and galaxies go the same way; noise and cosmic rays are new in each exposure, the detector's
defects stay where they are. Whatever is wrong here makes every published figure wrong without anybody noticing: the
truth is tested against the pixels.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from models.simulate.asteroids import add_trails
from models.simulate.conditions import Conditions, draw_conditions
from models.simulate.defects import expose_again
from models.simulate.planted import TOLD, Planted, add_object, check_survey, place_objects, scene_of
from models.simulate.psf import PointSpread, point_spread
from models.simulate.sky import Sources, draw_sources, paint_backdrop, paint_sources
from models.simulate.trails import trail_bounds, trail_snr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

# Between two CCDs of the mosaic.
GAP_PX = 150
# How far the wings of stars are drawn, and therefore how far beyond a frame's edge sources are.
WINGS_PX = 240
RIM_PX = WINGS_PX + 20
# Added to each ADU value, so that the noise of a dark pixel is not cut off at zero.
PEDESTAL_ADU = 100.0
LARGEST_ADU = 65_535.0
# Tables of objects that were put in besides asteroids.
PLANTED_TABLES = {"lens": "lenses.csv", "merger": "mergers.csv", "impostor": "impostors.csv"}
# The instrument's own cosmic-ray flag, at the bit of the Euclid flag map, is set where the charge stands out.
COSMIC_RAY_FLAG = 1 << 4
FLAGGED_SIGMA = 1.5


class Camera(NamedTuple):
    """How a camera is used and how it signs its frames; ``cycle_s`` from one opening of the shutter to the next."""

    telescope: str
    instrument: str
    filter_name: str
    cycle_s: float
    dither_arcsec: tuple[float, float]


# Euclid starts an exposure every 1,050-1,090 s and dithers by 50-100 arcsec; KiDS takes its five exposures within
# half an hour; HSC reads out in 30 s or so (facts of the surveys' own papers, rounded).
CAMERAS = {
    "euclid-vis": Camera("EUCLID", "VIS", "VIS", 1070.0, (50.0, 100.0)),
    "euclid-reference": Camera("EUCLID", "VIS", "VIS", 1070.0, (50.0, 100.0)),
    "kids-omegacam": Camera("ESO-VST", "OMEGACAM", "r", 395.0, (25.0, 85.0)),
    "subaru-hsc": Camera("SUBARU", "Hyper Suprime-Cam", "i", 240.0, (30.0, 120.0)),
    "generic": Camera("SIMULATED", "CAMERA", "r", 600.0, (0.0, 60.0)),
}


@dataclass(frozen=True)
class Plan:
    """What is simulated: ``asteroids``, ``lenses``, ``mergers`` and ``impostors`` a CCD on average.

    ``ccds`` a mosaic, ``dithers`` exposures of each field.
    ``shape`` (rows, columns) of a CCD, None for the camera's own; magnitudes are even, rates logarithmically even.
    """

    kind: str = "euclid-vis"
    asteroids: float = 300.0
    magnitudes: tuple[float, float] = (20.0, 26.5)
    rates_arcsec_h: tuple[float, float] = (1.0, 80.0)
    shape: tuple[int, int] | None = None
    ccds: int = 1
    dithers: int = 4
    lenses: float = 0.0
    mergers: float = 0.0
    impostors: float = 0.0

    @property
    def planted(self) -> dict[str, float]:
        """How many of each class of ``models.simulate.planted`` are on a CCD, on average; none of those not wanted."""
        wanted = {"lens": self.lenses, "merger": self.mergers, "impostor": self.impostors}
        return {label: count for label, count in wanted.items() if count}


class Truth(NamedTuple):
    """One asteroid in one frame: a row of the truth table. End 0 is where it was when the shutter opened.

    Pixels are 0-based, sky positions ICRS degrees, ``angle_deg`` is from +x to +y in [0, 180), the position angle of
    the motion North through East. ``snr_limit`` is what a matched filter of the true shape would see over the noise
    of the empty sky, the bounds are what it lets anybody know of ends and mid-point (``models.simulate.trails``);
    ``inside`` is 1 where the mid-point lies on the frame.
    """

    field: str
    frame: str
    extension: int
    exposure: str
    ccd: str
    object: str
    x0: float
    y0: float
    x1: float
    y1: float
    ra0: float
    dec0: float
    ra1: float
    dec1: float
    ra: float
    dec: float
    mag: float
    flux_e: float
    length_px: float
    angle_deg: float
    rate_arcsec_h: float
    position_angle_deg: float
    mid_time_utc: str
    snr_limit: float
    end_along_bound_px: float
    end_across_bound_px: float
    mid_along_bound_px: float
    mid_across_bound_px: float
    inside: int


class PlantedTruth(NamedTuple):
    """One lens, merger or impostor in one frame; ``told`` are the columns of its class (``planted.TOLD``).

    Pixels are 0-based; ``kind`` says what an impostor is. ``snr`` and what belongs to it are those of one exposure in
    the conditions that the field was drawn with.
    """

    field: str
    frame: str
    extension: int
    exposure: str
    ccd: str
    object: str
    kind: str
    x: float
    y: float
    ra: float
    dec: float
    label: str
    told: tuple[float, ...]


class FrameFacts(NamedTuple):
    """One frame of a simulation: a row of the list of frames, the empty ones included."""

    field: str
    frame: str
    extension: int
    exposure: str
    ccd: str
    height: int
    width: int
    psf_fwhm_px: float
    noise_e: float
    zero_point: float
    exposure_s: float
    mid_time_utc: str


@dataclass(frozen=True, eq=False)
class SimulatedFrame:
    """One CCD of one exposure: ``adu`` uint16, ``flags`` uint8 of cosmic rays, header cards, and its truth."""

    adu: NDArray[np.uint16]
    flags: NDArray[np.uint8]
    cards: dict[str, tuple[Any, str]]
    truths: tuple[Truth, ...]
    planted: tuple[PlantedTruth, ...]
    facts: FrameFacts


@dataclass(frozen=True, eq=False)
class _Field:
    """One sky: sources and asteroids in pixels of the field's tangent plane about ``wcs``'s origin.

    ``asteroids`` is float64 ``[n, 5]``: x, y at the field's middle time, pixels a second along x and y, magnitude.
    """

    name: str
    seed: int
    plan: Plan
    conditions: Conditions
    shape: tuple[int, int]
    corners: tuple[tuple[float, float], ...]
    wcs: WCS
    sources: Sources
    asteroids: NDArray[np.float64]
    planted: tuple[Planted, ...]
    opened: tuple[dt.datetime, ...]
    pointings: NDArray[np.float64]


def draw_field(plan: Plan, seed: int, *, compressed: bool = False) -> Iterator[tuple[SimulatedFrame, ...]]:
    """The exposures of one field in the order of time, each as the frames of its CCDs; one is in memory at a time.

    Errors: ``ValueError`` for a kind of camera that is not known.
    """
    field = _draw_sky(plan, seed)
    for k in range(plan.dithers):
        yield tuple(_draw_frame(field, k, ccd, compressed=compressed) for ccd in range(plan.ccds))


def write_fields(
    out: Path,
    plan: Plan,
    seed: int,
    *,
    fields: int = 1,
    compressed: bool = False,
    flags: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``fields`` fields, of seeds ``seed`` and up, to the folder ``out``; gives the path of ``truth.csv``.

    One FITS file an exposure (``.fits.fz``, Rice, when ``compressed``), with ``flags`` an extension ``...FLG`` beside
    each CCD; ``frames.csv`` lists all frames, the empty ones too; ``lenses.csv``, ``mergers.csv`` and ``impostors.csv``
    what there is of them. ``progress`` is called with exposures done and their
    number. The tables appear under their names when they are whole.
    """
    out.mkdir(parents=True, exist_ok=True)
    truth, listed = out / "truth.csv", out / "frames.csv"
    partial = [path.with_suffix(".partial") for path in (truth, listed)]
    planted: list[PlantedTruth] = []
    with partial[0].open("w", newline="") as truth_file, partial[1].open("w", newline="") as frames_file:
        truths, frames = csv.writer(truth_file), csv.writer(frames_file)
        truths.writerow(Truth._fields)
        frames.writerow(FrameFacts._fields)
        for f in range(fields):
            for k, exposure in enumerate(draw_field(plan, seed + f, compressed=compressed)):
                write_exposure(out / exposure[0].facts.frame, exposure, compressed=compressed, flags=flags)
                for frame in exposure:
                    truths.writerows(frame.truths)
                    planted += frame.planted
                    frames.writerow(frame.facts)
                if progress is not None:
                    progress(f * plan.dithers + k + 1, fields * plan.dithers)
    partial[0].replace(truth)
    partial[1].replace(listed)
    for label in plan.planted:
        _write_planted(out / PLANTED_TABLES[label], label, [one for one in planted if one.label == label])
    return truth


def _write_planted(path: Path, label: str, rows: list[PlantedTruth]) -> None:
    """The table of one class: a line an object a frame, whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*PlantedTruth._fields[:-2], *TOLD[label]])
        table.writerows([*row[:-2], *row.told] for row in rows)
    partial.replace(path)


def _draw_sky(plan: Plan, seed: int) -> _Field:
    if plan.kind not in CAMERAS:
        raise ValueError(f"no such kind of frame: {plan.kind!r}; known are {', '.join(CAMERAS)}")
    if plan.planted:
        check_survey(plan.kind)
    rng = np.random.default_rng(seed)
    conditions = draw_conditions(rng, plan.kind)
    shape = plan.shape or conditions.defects.ccd_shape
    camera = CAMERAS[plan.kind]
    corners = _mosaic(plan.ccds, shape)
    scale = conditions.pixel_scale_arcsec
    dither_px = rng.uniform(*camera.dither_arcsec, plan.dithers) / scale
    turns = rng.uniform(0.0, 2.0 * math.pi, plan.dithers)
    pointings = np.column_stack([dither_px * np.cos(turns), dither_px * np.sin(turns)])
    pointings[:1] = 0.0
    low = np.min(corners, axis=0) + pointings.min(axis=0) - RIM_PX
    high = np.max(corners, axis=0) + np.array(shape[::-1]) + pointings.max(axis=0) + RIM_PX
    width, height = (high - low).tolist()
    drawn = draw_sources(rng, conditions.population, (math.ceil(height), math.ceil(width)), rim_px=0)
    for table in (drawn.stars, drawn.galaxies):
        table[:, :2] += low
    night = dt.datetime(2027, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=rng.uniform(0.0, 3e7))
    opened = tuple(night + dt.timedelta(seconds=camera.cycle_s * k) for k in range(plan.dithers))
    declination = math.degrees(math.asin(rng.uniform(-0.9, 0.9)))
    return _Field(
        name=f"S{seed}",
        seed=seed,
        plan=plan,
        conditions=conditions,
        shape=shape,
        corners=corners,
        wcs=_tangent_plane((rng.uniform(0.0, 360.0), declination), rng.uniform(0.0, 2.0 * math.pi), scale),
        sources=drawn,
        asteroids=_draw_asteroids(rng, plan, low, high, shape, scale),
        planted=_draw_planted(plan, seed, low, high, shape, scale),
        opened=opened,
        pointings=pointings,
    )


def _draw_planted(
    plan: Plan, seed: int, low: NDArray[np.float64], high: NDArray[np.float64], shape: tuple[int, int], scale: float
) -> tuple[Planted, ...]:
    """Lenses, mergers and impostors as dense everywhere as ``plan`` wants them; the sky is the same without."""
    area = float(np.prod(high - low)) / (shape[0] * shape[1])
    counts = {label: round(count * area) for label, count in plan.planted.items()}
    return place_objects(np.random.default_rng([seed, 13]), counts, low, high, scale)


def _mosaic(ccds: int, shape: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Lower left corners (x, y) of the CCDs about the optical axis, in a square as near as can be."""
    columns = math.ceil(math.sqrt(ccds))
    rows = math.ceil(ccds / columns)
    pitch_y, pitch_x = shape[0] + GAP_PX, shape[1] + GAP_PX
    return tuple(((k % columns - 0.5 * columns) * pitch_x, (k // columns - 0.5 * rows) * pitch_y) for k in range(ccds))


def _tangent_plane(centre_deg: tuple[float, float], turn: float, scale_arcsec: float) -> WCS:
    """A gnomonic WCS whose pixel (0, 0) is the centre; East is to the left of North, both turned by ``turn``."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = centre_deg
    wcs.wcs.crpix = [1.0, 1.0]
    cosine, sine = math.cos(turn), math.sin(turn)
    wcs.wcs.cd = np.array([[-cosine, sine], [sine, cosine]]) * scale_arcsec / 3600.0
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    return wcs


def _draw_asteroids(
    rng: np.random.Generator,
    plan: Plan,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    shape: tuple[int, int],
    scale_arcsec: float,
) -> NDArray[np.float64]:
    """Asteroids as dense everywhere within the corners ``low`` and ``high`` as ``plan`` wants them on a CCD."""
    area = float(np.prod(high - low)) / (shape[0] * shape[1])
    n = round(plan.asteroids * area)
    places = rng.uniform(low, high, (n, 2))
    rates_px_s = (
        np.exp(rng.uniform(math.log(plan.rates_arcsec_h[0]), math.log(plan.rates_arcsec_h[1]), n))
        / 3600.0
        / scale_arcsec
    )
    turns = rng.uniform(0.0, 2.0 * math.pi, n)
    magnitudes = rng.uniform(*plan.magnitudes, n)
    return np.column_stack([places, rates_px_s * np.cos(turns), rates_px_s * np.sin(turns), magnitudes])


def _draw_frame(field: _Field, exposure: int, ccd: int, *, compressed: bool) -> SimulatedFrame:
    """One CCD of one exposure: the sky through this frame's own optics and WCS, then the detector."""
    plan = field.plan
    rng = np.random.default_rng([field.seed, exposure, ccd])
    conditions = _conditions_of_exposure(field, exposure)
    spread = point_spread(conditions.optics, extent_px=min(WINGS_PX, max(field.shape) // 2))
    wcs = _frame_wcs(field, exposure, ccd)
    sources = Sources(
        _moved(field.sources.stars, field.wcs, wcs, field.shape),
        _moved(field.sources.galaxies, field.wcs, wcs, field.shape),
    )
    image = paint_backdrop(conditions, field.shape, int(rng.integers(1 << 31)))
    paint_sources(image, sources, spread, conditions)
    extension = ccd + 1 if plan.ccds > 1 or compressed else 0
    suffix = ".fits.fz" if compressed else ".fits"
    facts = FrameFacts(
        field=field.name,
        frame=f"{plan.kind}-{field.name}-{exposure + 1}{suffix}",
        extension=extension,
        exposure=f"{field.name}-{exposure + 1}",
        ccd=str(ccd + 1),
        height=field.shape[0],
        width=field.shape[1],
        psf_fwhm_px=spread.core.fwhm_px,
        noise_e=conditions.noise_e,
        zero_point=conditions.zero_point,
        exposure_s=conditions.exposure_s,
        mid_time_utc=_iso(field.opened[exposure] + dt.timedelta(seconds=0.5 * conditions.exposure_s)),
    )
    planted = _plant(image, field, wcs, spread, conditions, facts)
    truths, trails = _trails(field, exposure, wcs, spread, conditions, facts)
    add_trails(image, trails, spread.core)
    electrons, charge = expose_again(
        image, conditions, int(rng.integers(1 << 31)), detector_seed=1_000 * field.seed + ccd
    )
    adu = np.clip(np.rint(electrons / conditions.gain_e_adu + PEDESTAL_ADU), 0.0, LARGEST_ADU).astype(np.uint16)
    flags = np.where(charge > FLAGGED_SIGMA * conditions.noise_e, COSMIC_RAY_FLAG, 0).astype(np.uint8)
    return SimulatedFrame(adu, flags, _cards(field, exposure, wcs, conditions, facts), truths, planted, facts)


def _conditions_of_exposure(field: _Field, exposure: int) -> Conditions:
    """The field's conditions as they were in one exposure: the sky brightens, the seeing changes."""
    rng = np.random.default_rng([field.seed, exposure])
    drawn = field.conditions
    steady = drawn.optics.kind == "pupil"
    width = rng.uniform(0.99, 1.01) if steady else rng.uniform(0.93, 1.07)
    brightness = 1.0 if field.plan.kind == "euclid-reference" else rng.uniform(0.95, 1.05)
    return replace(
        drawn,
        optics=replace(drawn.optics, size_px=drawn.optics.size_px * width),
        sky_e=drawn.sky_e * brightness,
    )


def _frame_wcs(field: _Field, exposure: int, ccd: int) -> WCS:
    """The WCS of one CCD: the pointing of the exposure, a hair of roll, and the CCD's place in the mosaic."""
    rng = np.random.default_rng([field.seed, exposure, 7])
    centre = field.wcs.all_pix2world(field.pointings[exposure][None, :], 0)[0]
    roll = math.radians(rng.normal(0.0, 0.005)) if exposure else 0.0
    wcs = field.wcs.deepcopy()
    wcs.wcs.crval = centre
    wcs.wcs.cd = field.wcs.wcs.cd @ np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    wcs.wcs.crpix = [1.0 - field.corners[ccd][0], 1.0 - field.corners[ccd][1]]
    wcs.wcs.set()
    return wcs


def _moved(table: NDArray[np.float64], sky: WCS, wcs: WCS, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Rows of a catalogue with x and y in pixels of the frame, those that may shine into it."""
    moved = table.copy()
    moved[:, :2] = _pixels(table[:, :2], sky, wcs)
    x, y = moved[:, 0], moved[:, 1]
    near = (x > -RIM_PX) & (x < shape[1] + RIM_PX) & (y > -RIM_PX) & (y < shape[0] + RIM_PX)
    return moved[near]


def _pixels(places: NDArray[np.float64], sky: WCS, wcs: WCS) -> NDArray[np.float64]:
    """Places ``[n, 2]`` of the field's tangent plane in pixels of a frame."""
    if not len(places):
        return places.copy()
    return np.asarray(wcs.all_world2pix(sky.all_pix2world(places, 0), 0), np.float64)


def _plant(
    image: NDArray[np.float32], field: _Field, wcs: WCS, spread: PointSpread, conditions: Conditions, facts: FrameFacts
) -> tuple[PlantedTruth, ...]:
    """Add the field's lenses, mergers and impostors to ``image`` in place; the truth of those whose middle is on it."""
    truths = []
    places = np.array([[one.x, one.y] for one in field.planted]).reshape(-1, 2)
    skies = field.wcs.all_pix2world(places, 0) if len(places) else places
    pixels = _pixels(places, field.wcs, wcs)
    for one, row in zip(field.planted, np.column_stack([pixels, skies]).tolist(), strict=True):
        x, y, ra, dec = (round(value, 9) for value in row)
        if not (-0.5 <= x < facts.width - 0.5 and -0.5 <= y < facts.height - 0.5):
            continue
        scene = scene_of(field.conditions, field.seed, one.label, one.number)
        add_object(image, scene, conditions, spread, x, y)
        told = tuple(round(float(scene.truth.get(name, math.nan)), 6) for name in TOLD[one.label])
        name = f"{field.name}-{one.label}-{one.number}"
        truths.append(PlantedTruth(*facts[:5], name, scene.kind, x, y, ra, dec, one.label, told))
    return tuple(truths)


def _trails(
    field: _Field, exposure: int, wcs: WCS, spread: PointSpread, conditions: Conditions, facts: FrameFacts
) -> tuple[tuple[Truth, ...], NDArray[np.float64]]:
    """The truth rows of the asteroids that touch the frame, and their trails ``[n, 5]`` (x0, y0, x1, y1, electrons)."""
    moving = field.asteroids
    middle = field.opened[0] + 0.5 * (field.opened[-1] - field.opened[0])
    begin_s = (field.opened[exposure] - middle).total_seconds() - 0.5 * conditions.exposure_s
    places = [moving[:, :2] + moving[:, 2:4] * (begin_s + part * conditions.exposure_s) for part in (0.0, 0.5, 1.0)]
    ends = [_pixels(place, field.wcs, wcs) for place in places]
    skies = [field.wcs.all_pix2world(place, 0) if len(place) else place for place in places]
    height, width = field.shape
    touching = np.ones(len(moving), np.bool_)
    for axis, size in ((0, width), (1, height)):
        pair = np.column_stack([ends[0][:, axis], ends[2][:, axis]])
        touching &= (pair.max(axis=1) > -0.5) & (pair.min(axis=1) < size - 0.5)
    variance = conditions.noise_e**2 + conditions.gain_e_adu**2 / 12.0
    truths, trails = [], []
    for k in np.flatnonzero(touching):
        (x0, y0), (xm, ym), (x1, y1) = (end[k] for end in ends)
        (ra0, dec0), (ra, dec), (ra1, dec1) = (sky[k] for sky in skies)
        flux = conditions.electrons(moving[k, 4])
        trail = np.array([x0, y0, x1, y1, flux])
        trails.append(trail)
        values = {
            "x0": x0, "y0": y0, "x1": x1, "y1": y1, "ra0": ra0, "dec0": dec0, "ra1": ra1, "dec1": dec1,
            "ra": ra, "dec": dec, "mag": moving[k, 4], "flux_e": flux, "length_px": math.hypot(x1 - x0, y1 - y0),
            "angle_deg": math.degrees(math.atan2(y1 - y0, x1 - x0)) % 180.0,
            "rate_arcsec_h": math.hypot(moving[k, 2], moving[k, 3]) * conditions.pixel_scale_arcsec * 3600.0,
            "position_angle_deg": _position_angle_deg(ra0, dec0, ra1, dec1),
            "snr_limit": trail_snr(trail, spread.core, variance),
            **trail_bounds(trail, spread.core, variance)._asdict(),
        }  # fmt: skip
        truths.append(
            Truth(
                field=facts.field,
                frame=facts.frame,
                extension=facts.extension,
                exposure=facts.exposure,
                ccd=facts.ccd,
                object=f"{field.name}-{k}",
                mid_time_utc=facts.mid_time_utc,
                inside=int(-0.5 <= xm < width - 0.5 and -0.5 <= ym < height - 0.5),
                **{name: round(float(value), 9) for name, value in values.items()},
            )
        )
    return tuple(truths), np.array(trails).reshape(-1, 5)


def _position_angle_deg(ra0: float, dec0: float, ra1: float, dec1: float) -> float:
    """The direction from one place to a near one, North through East, degrees in [0, 360)."""
    dra = math.radians((ra1 - ra0 + 180.0) % 360.0 - 180.0)
    d0, d1 = math.radians(dec0), math.radians(dec1)
    east = math.sin(dra) * math.cos(d1)
    north = math.cos(d0) * math.sin(d1) - math.sin(d0) * math.cos(d1) * math.cos(dra)
    return math.degrees(math.atan2(east, north)) % 360.0


def _iso(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]


def _cards(
    field: _Field, exposure: int, wcs: WCS, conditions: Conditions, facts: FrameFacts
) -> dict[str, tuple[Any, str]]:
    """The header of a frame, as a camera's control software would write it."""
    camera = CAMERAS[field.plan.kind]
    gain = conditions.gain_e_adu
    saturated = min(conditions.saturation_e / gain + PEDESTAL_ADU, LARGEST_ADU - 1.0)
    cards: dict[str, tuple[Any, str]] = {
        "TELESCOP": (camera.telescope, ""),
        "INSTRUME": (camera.instrument, ""),
        "FILTER": (camera.filter_name, ""),
        "EXPID": (facts.exposure, "this exposure"),
        "CCDID": (facts.ccd, "this detector"),
        "FIELDID": (facts.field, "exposures with one FIELDID show one sky"),
        "DATE-OBS": (_iso(field.opened[exposure]), "shutter opened"),
        "TIMESYS": ("UTC", ""),
        "EXPTIME": (conditions.exposure_s, "[s]"),
        "BUNIT": ("adu", ""),
        "GAIN": (round(gain, 6), "[e-/adu]"),
        "RDNOISE": (round(conditions.read_noise_e, 4), "[e-]"),
        "SATURATE": (round(saturated, 1), "[adu]"),
        "PIXSCALE": (conditions.pixel_scale_arcsec, "[arcsec]"),
        "MAGZERO": (round(conditions.zero_point - 2.5 * math.log10(gain), 6), "AB magnitude of 1 adu/s"),
    }
    for card in wcs.to_header(relax=True).cards:
        if card.keyword not in {"MJDREF", "DATE-OBS", "MJD-OBS"}:
            cards[card.keyword] = (card.value, card.comment)
    return cards


def write_exposure(path: Path, frames: tuple[SimulatedFrame, ...], *, compressed: bool, flags: bool) -> None:
    """One exposure as a FITS file: a lone CCD in the primary HDU, several (or a compressed one) in extensions."""
    alone = len(frames) == 1 and not compressed
    hdus = [] if alone else [fits.PrimaryHDU()]
    companions = []
    for frame in frames:
        header = fits.Header([(key, *value) for key, value in frame.cards.items()])
        if alone:
            hdus.append(fits.PrimaryHDU(frame.adu, header))
        else:
            header["EXTNAME"] = f"CCD{frame.facts.ccd}"
            hdus.append(_extension(frame.adu, header, compressed=compressed))
        if flags:
            name = fits.Header([("EXTNAME", f"CCD{frame.facts.ccd}.FLG")])
            companions.append(_extension(frame.flags, name, compressed=compressed))
    partial = path.with_name(path.name + ".partial")
    fits.HDUList([*hdus, *companions]).writeto(partial, overwrite=True, output_verify="exception", checksum=True)
    partial.replace(path)


def _extension(pixels: NDArray[Any], header: fits.Header, *, compressed: bool) -> Any:
    if compressed:
        return fits.CompImageHDU(pixels, header, compression_type="RICE_1")
    return fits.ImageHDU(pixels, header)
