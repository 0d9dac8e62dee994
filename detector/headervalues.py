"""What a header says of the camera: exposure, gain, noise, saturation, zero point, units, names.

Every quantity has a dozen spellings, and some of the spellings mean something else elsewhere (GAIN = 100 is a knob of
an amateur camera, CCDGAIN an amplifier setting, EXPOSURE the number of an exposure or its length). The spellings that
are believed stand below, best first, and ``docs/frames.md`` prints them. What the header lacks is the survey's, or
nothing; either way the flags say so. Nothing here raises.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from detector.fitsheader import number, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detector.fitsheader import Cards
    from detector.survey import Survey

EXPOSURES = ("EXPTIME", "XPOSURE", "EXP_TIME", "EXP-TIME", "EXPOSURE", "ITIME", "TEXPTIME", "ELAPTIME", "INTTIME")
GAINS = ("EGAIN", "CCDSENS", "ESO DET OUT1 CONAD", "GAIN", "AGAIN_01")
AMPLIFIER_GAINS = (
    ("GAINA", "GAINB", "GAINC", "GAIND"),
    ("GAIN1", "GAIN2", "GAIN3", "GAIN4"),
    ("T_GAIN1", "T_GAIN2", "T_GAIN3", "T_GAIN4"),
    ("ATODGNA", "ATODGNB", "ATODGNC", "ATODGND"),
)
READ_NOISES = ("RDNOISE", "READNOIS", "READNOISE", "RON", "RNOISE", "CCDRON", "ENOISE", "ESO DET OUT1 RON", "ARDNS_01")
AMPLIFIER_READ_NOISES = (
    ("RDNOISEA", "RDNOISEB", "RDNOISEC", "RDNOISED"),
    ("READNOIA", "READNOIB", "READNOIC", "READNOID"),
    ("READNSEA", "READNSEB", "READNSEC", "READNSED"),
    ("RDNOISE1", "RDNOISE2", "RDNOISE3", "RDNOISE4"),
)
SATURATIONS = ("SATURATE", "SATURAT", "SATLEVEL", "SATUR", "CCDSAT", "SATURATA", "SATURATB")
FILTERS = ("FILTER", "FILTNAME", "BAND", "FILTER01", "FILTER1", "FILTER2", "FILTERS", "ESO INS FILT1 NAME", "INSFLNAM")
PIXEL_SCALES = ("PIXSCALE", "PIXSCAL1", "SECPIX", "SECPIX1", "PIXSCAX", "INSTRSCL", "PLTSCALE")
# A zero point of one count a second, whatever the exposure ...
ZERO_POINTS_PER_SECOND = ("MAGZERO", "MAGZEROP", "ZEROPOINT", "ZEROPNT", "ZEROPT", "MAGZPT", "MAGZPT1", "ZPAB", "ZPT")
# ... and of one count in the image as it is stored (ESO science data products, ZTF).
ZERO_POINTS_OF_THE_IMAGE = ("PHOTZP", "MAGZP")

# Nobody has built a CCD outside these: e-/ADU, e-, and the magnitude of 1 e-/s from a lens of 3 cm to a mirror of 40 m.
PLAUSIBLE_GAIN = (0.01, 100.0)
PLAUSIBLE_READ_NOISE = (0.05, 500.0)
PLAUSIBLE_ZERO_POINT = (14.0, 33.0)
PLAUSIBLE_SCALE_ARCSEC = (0.001, 600.0)
MAX_EXPOSURE_S = 1e5  # longer than a day: EXPOSURE was a number of something else

_UNIT_SECONDS = {"d": 86400.0, "day": 86400.0, "days": 86400.0, "h": 3600.0, "min": 60.0, "ms": 1e-3, "msec": 1e-3}
_IN_BRACKETS = re.compile(r"[\[(]\s*([a-z]+)\s*[\])]", re.IGNORECASE)
_PER_SECOND = re.compile(
    r"/\s*s(ec(ond)?)?\b|\bper\s+s(ec(ond)?)?\b|\bs(ec)?\s*(\^|\*\*)?\s*-1\b|\bcps\b", re.IGNORECASE
)
_ELECTRONS = re.compile(r"^\s*(e-|e\b|electrons?|photo-?electrons?|el\b)", re.IGNORECASE)
_COUNTS = re.compile(r"^\s*(adu|dn|du|counts?|cts?|cps|data numbers?)\b|^\s*$", re.IGNORECASE)
_IN_ELECTRONS = re.compile(r"\[?\(?\s*\b(e-|electrons?)", re.IGNORECASE)


@dataclass(frozen=True)
class Unit:
    """What one unit of the stored image is: counts of the ADC, electrons, or something calibrated."""

    kind: Literal["counts", "electrons", "calibrated"]
    per_second: bool
    known: bool  # False: BUNIT says something that nobody here knows, taken for counts


@dataclass(frozen=True)
class Camera:
    """What header and survey say of the camera and the exposure; ``flags`` name what neither said.

    ``electrons_per_unit`` turns the stored image (BSCALE and BZERO applied) into electrons.
    """

    exposure_s: float | None
    gain_e_adu: float
    read_noise_e: float | None
    saturation_e: float | None
    zero_point: float | None
    filter_name: str | None
    electrons_per_unit: float
    flags: tuple[str, ...]


def exposure_time_s(cards: Cards) -> float | None:
    """The exposure time in seconds; a unit in brackets in the comment is honoured."""
    for name in EXPOSURES:
        value = number(cards, name)
        if value is None or not 0.0 < value <= MAX_EXPOSURE_S:
            continue
        unit = _IN_BRACKETS.match(cards[name].comment)
        return value * _UNIT_SECONDS.get(unit[1].lower() if unit else "s", 1.0)
    return None


def unit_of(cards: Cards) -> Unit:
    """What BUNIT says; silence means counts."""
    words = text(cards, "BUNIT") or ""
    per_second = bool(_PER_SECOND.search(words))
    if _ELECTRONS.search(words):
        return Unit("electrons", per_second, known=True)
    if _COUNTS.search(words):
        return Unit("counts", per_second, known=True)
    calibrated = re.search(r"jy|erg|mag|flam|fnu|photon|watt|\bW\b|nmgy|kelvin|sr\b", words, re.IGNORECASE)
    return Unit("calibrated", per_second, known=True) if calibrated else Unit("counts", per_second, known=False)


def _one_or_mean(
    cards: Cards, names: tuple[str, ...], groups: tuple[tuple[str, ...], ...], plausible: tuple[float, float]
) -> tuple[float | None, bool]:
    """The first plausible number, or the mean over the amplifiers; and whether it is such a mean."""
    for name in names:
        value = number(cards, name)
        if value is not None and plausible[0] <= value <= plausible[1]:
            return value, False
    for group in groups:
        values = [v for name in group if (v := number(cards, name)) is not None and plausible[0] <= v <= plausible[1]]
        if values:
            return math.fsum(values) / len(values), max(values) > min(values)
    return None, False


def _saturation_e(cards: Cards, unit: Unit, gain: float) -> float | None:
    """Where pixels saturate, in electrons; a header means ADU unless its comment speaks of electrons."""
    for name in SATURATIONS:
        value = number(cards, name)
        if value is not None and value > 0 and unit.kind != "calibrated":
            electrons = _IN_ELECTRONS.search(cards[name].comment) is not None
            return value if electrons or unit.kind == "electrons" else value * gain
    return None


def _zero_point(cards: Cards, electrons_per_unit: float, exposure_s: float | None, unit: Unit) -> float | None:
    """The AB magnitude of 1 e-/s, from the magnitude of one unit of the image.

    ``electrons_per_unit`` is of the image, so it holds the exposure where the image is per second.
    """
    if unit.kind == "calibrated":
        return None
    for name in (*ZERO_POINTS_PER_SECOND, *ZERO_POINTS_OF_THE_IMAGE):
        value = number(cards, name)
        if value is None or value == 0.0:
            continue
        of_the_image = name in ZERO_POINTS_OF_THE_IMAGE and not _PER_SECOND.search(cards[name].comment)
        # One unit of the image, or one unit a second, is this many electrons a second.
        seconds = exposure_s if of_the_image or unit.per_second else 1.0
        if seconds is None:
            continue
        magnitude = value + 2.5 * math.log10(electrons_per_unit / seconds)
        if PLAUSIBLE_ZERO_POINT[0] <= magnitude <= PLAUSIBLE_ZERO_POINT[1]:
            return magnitude
    return None


def _filter(cards: Cards) -> str | None:
    """The filter; an empty slot of a filter wheel is none."""
    for name in FILTERS:
        words = text(cards, name)
        if words and not words.upper().startswith(("CLEAR", "NOTPRESENT", "EMPTY", "FREE")):
            return words
    return None


def camera_of(cards: Cards, survey: Survey) -> Camera:
    """What header and survey say of the camera and the exposure."""
    flags: list[str] = []
    unit = unit_of(cards)

    def known(name: str, stated: float | None, profile: float | None) -> float | None:
        if stated is None:
            flags.append(f"no-{name}" if profile is None else f"{name}-from-profile")
        return profile if stated is None else stated

    exposure_s = known("exposure-time", exposure_time_s(cards), survey.exposure_s)
    gain, averaged = _one_or_mean(cards, GAINS, AMPLIFIER_GAINS, PLAUSIBLE_GAIN)
    if unit.kind == "counts":
        gain = known("gain", gain, survey.gain_e_adu)
    if averaged:
        flags.append("amplifiers-averaged")
    gain = gain if gain is not None and unit.kind != "calibrated" else 1.0
    if not unit.known:
        flags.append("unit-unknown")
    seconds = exposure_s if unit.per_second else 1.0
    if unit.kind == "calibrated" or seconds is None:
        flags.append("not-electrons")
    per_unit = (gain if unit.kind == "counts" else 1.0) * (seconds or 1.0) if unit.kind != "calibrated" else 1.0
    noise, _ = _one_or_mean(cards, READ_NOISES, AMPLIFIER_READ_NOISES, PLAUSIBLE_READ_NOISE)
    profile_saturation = survey.saturation_e if unit.kind != "calibrated" else None
    profile_zero_point = survey.zero_point if unit.kind != "calibrated" else None
    filter_name = _filter(cards)
    if filter_name is None:
        flags.append("no-filter" if survey.filter_name is None else "filter-from-profile")
    return Camera(
        exposure_s=exposure_s,
        gain_e_adu=gain,
        read_noise_e=known("read-noise", noise, survey.read_noise_e),
        saturation_e=known("saturation", _saturation_e(cards, unit, gain), profile_saturation),
        zero_point=known("zero-point", _zero_point(cards, per_unit, exposure_s, unit), profile_zero_point),
        filter_name=filter_name or survey.filter_name,
        electrons_per_unit=per_unit,
        flags=tuple(flags),
    )


def identity(cards: Cards, keyword: str) -> str | None:
    """What one keyword says of who this is, or what several, joined by "+", say together."""
    parts = [_plain(cards, name) for name in keyword.split("+")]
    return "-".join(part for part in parts if part) if all(parts) else None


def _plain(cards: Cards, name: str) -> str | None:
    """One keyword as a name; None where it is not one."""
    words = text(cards, name)
    if words is None:
        return None
    if name == "EXPOSURE" and (number(cards, name) is not None) and not _is_a_count(cards):
        return None
    return words.rpartition("/")[2] if name in {"FILENAME", "ORIGFILE"} else words


def _is_a_count(cards: Cards) -> bool:
    """Whether EXPOSURE is the number of an exposure: whole, beside another keyword that says how long it was."""
    value, seconds = cards["EXPOSURE"].value, number(cards, "EXPTIME", "EXP_TIME", "XPOSURE")
    return isinstance(value, int | str) and seconds is not None and number(cards, "EXPOSURE") != seconds


def _first(words: Iterator[str | None]) -> str | None:
    return next((word for word in words if word), None)


def exposure_name(cards: Cards, survey: Survey) -> str | None:
    """Which exposure this is."""
    return _first(identity(cards, keyword) for keyword in survey.exposure_keywords)


def field_name(cards: Cards, survey: Survey) -> str | None:
    """Which field it is of."""
    return _first(identity(cards, keyword) for keyword in survey.field_keywords)
