"""When the middle of an exposure was: the many spellings of headers -> MJD in TAI.

A streak's position is worth as much as the time that goes with it: at 40 arcsec/h a minute is 0.7 arcsec. So a time is
believed only where the header is clear, in this order: a stated middle; a stated begin and end; a begin and half of
the exposure. What is missing or contradictory is named in the flags: ``no-time``, ``time-scale-unknown``,
``times-disagree``, ``two-digit-year``, ``time-is-start``, ``coadd``. Nothing here raises.

Sources: FITS standard 4.0 section 9 (DATE-*, MJD-*, TIMESYS, TIMEOFFS); the spellings are those of real headers.
"""

from __future__ import annotations

import re
import warnings
from datetime import date
from typing import NamedTuple

from astropy.time import Time

from detector.fitsheader import Cards, number, text

DAY_S = 86400.0
MJD_OF_JD = 2_400_000.5
_MJD_OF_ORDINAL = date(1858, 11, 17).toordinal()
# CCDs have been on telescopes since 1976; beyond 2100 nobody can know the leap seconds.
EARLIEST_MJD, LATEST_MJD = 40_587.0, 88_069.0  # 1970, 2100

# Scales that need no table from the network. UT1 is UTC to 0.9 s, and UT and GMT are older words for it.
_SCALES = {
    **dict.fromkeys(("UTC", "UT", "GMT", "UT1", "UT(NTP)"), "utc"),
    **dict.fromkeys(("TAI", "IAT"), "tai"),
    **dict.fromkeys(("TT", "TDT", "ET"), "tt"),
    "TDB": "tdb",
    "TCB": "tcb",
    "TCG": "tcg",
}
_GPS_BEHIND_TAI_S = 19.0

_MIDDLES = ("DATE-AVG", "MJD-AVG", "DATE-MID", "MJD-MID", "MIDTIMJD", "MJDMID", "MJD_MID", "JD-MID", "JDMID", "JD_MID")
_SPANS = (
    ("DATE-BEG", "DATE-END"),
    ("MJD-BEG", "MJD-END"),
    ("MJD-STR", "MJD-END"),
    ("DATE-OBS", "DATE-END"),
    ("MJD-OBS", "MJD-END"),
    ("EXPSTART", "EXPEND"),
)
_DATES = ("DATE-OBS", "DATE_OBS", "DATE-BEG", "DATEOBS", "UTDATE", "UT-DATE", "UTDATE-OBS")
_CLOCKS = (
    *("TIME-OBS", "UTCSTART", "UTSTART", "UT-STR", "UTC-STR", "TIME-BEG", "UTC-OBS", "UTCOBS", "UTSHUT", "UTOBS"),
    *("UT-OBS", "TIME_OBS", "UT_TIME", "UTTIME", "UTIME", "UT", "UTC"),
)
_SECONDS = ("TM-START", "UT_START")  # seconds of the day: MIDAS and Calar Alto
_DAY_NUMBERS = ("MJD-BEG", "MJD-STR", "MJD-OBS", "MJD_OBS", "EXPSTART", "JDSTART")
# Ends in old spellings often include the read-out: they are used only where frames were added up.
_END_CLOCKS = ("UTCEND", "UTC-END", "UTSTOP", "UTEND", "UT-END", "TIME-END")

_ISO = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[T ]\s*(.*?))?(Z|[+-]00:?00)?")
# Day, month and year; a year of three digits counts from 1900 (what C's tm_year gave after 1999).
_OLD = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{2,4})")
_CLOCK = re.compile(r"(\d{1,2})[: ](\d{1,2})[: ](\d{1,2}(?:\.\d*)?)")
_AGREE_S = 120.0  # times that differ by more contradict each other
_SAYS_END = re.compile(r"\bend\b", re.IGNORECASE)


class Moment(NamedTuple):
    """A day and seconds into it (0 where no clock was given), as written; ``clocked`` says whether there was one."""

    mjd: int
    seconds: float
    clocked: bool
    utc: bool = False
    short_year: bool = False

    @property
    def days(self) -> float:
        """As one number."""
        return self.mjd + self.seconds / DAY_S


class MidTime(NamedTuple):
    """The middle of an exposure, MJD in TAI or None, and what has to be said of it."""

    mjd_tai: float | None
    flags: tuple[str, ...]


def parse_clock(words: str) -> float | None:
    """Seconds into the day of ``hh:mm:ss.s``."""
    found = _CLOCK.fullmatch(words.strip())
    if not found:
        return None
    hours, minutes, seconds = int(found[1]), int(found[2]), float(found[3])
    # 24:00:00 and the leap second 23:59:60 are written by real clocks.
    return hours * 3600 + minutes * 60 + seconds if hours <= 24 and minutes < 60 and seconds < 61 else None


def parse_date(words: str) -> Moment | None:
    """A date, with or without a time, in ISO 8601 or in the FITS spelling of before 2000."""
    words = words.strip()
    iso, old = _ISO.fullmatch(words), _OLD.fullmatch(words)
    if iso:
        year, month, day = int(iso[1]), int(iso[2]), int(iso[3])
        clock, utc, short = iso[4], bool(iso[5]), False
    elif old:
        day, month, year = int(old[1]), int(old[2]), int(old[3])
        clock, utc, short = None, False, len(old[3]) < 4
        # The standard's two digits mean 19yy, but there was no CCD before 1970: those are years after 2000.
        year += (2000 if year < 70 else 1900) if len(old[3]) < 4 else 0
    else:
        return None
    try:
        mjd = date(year, month, day).toordinal() - _MJD_OF_ORDINAL
    except ValueError:
        return None
    seconds = parse_clock(clock) if clock else None
    if clock and seconds is None:
        return None
    return Moment(mjd, seconds or 0.0, seconds is not None, utc, short)


def _moment(cards: Cards, name: str) -> Moment | None:
    """A date or a day number (MJD or JD, whichever it is) of one keyword; None without a clock."""
    words = text(cards, name)
    found = parse_date(words) if words else None
    if found is not None:
        return found if found.clocked else None
    days = number(cards, name)
    if days is None:
        return None
    days -= MJD_OF_JD if days > MJD_OF_JD else 0.0
    return Moment(int(days), (days - int(days)) * DAY_S, clocked=True) if days > 0 else None


def _start(cards: Cards) -> Moment | None:
    """When the shutter opened, from a date and a clock, or from a day number."""
    found = next((moment for name in _DATES if (moment := parse_date(text(cards, name) or ""))), None)
    if found is not None and (not found.clocked or found.seconds == 0.0):
        # A date of midnight sharp beside a clock is a date without a time.
        clock = next((s for name in _CLOCKS if (s := parse_clock(text(cards, name) or "")) is not None), None)
        clock = clock if clock is not None else number(cards, *_SECONDS)
        if clock is not None and 0.0 <= clock <= DAY_S + 1.0:
            found = found._replace(seconds=clock, clocked=True)
    if found is not None and found.clocked:
        return found
    return next((moment for name in _DAY_NUMBERS if (moment := _moment(cards, name))), None)


def _span(cards: Cards, exposure_s: float | None) -> tuple[Moment, Moment] | None:
    """A stated begin and end that are in order and not far longer than the exposure."""
    longest_s = max(4.0 * (exposure_s or DAY_S), 600.0)
    for begin_name, end_name in _SPANS:
        begin, end = _moment(cards, begin_name), _moment(cards, end_name)
        if begin and end and 0.0 < (end.days - begin.days) * DAY_S <= longest_s:
            return begin, end
    return None


def _coadd_end(cards: Cards, start: Moment) -> Moment | None:
    """When the last of several added exposures ended."""
    clock = next((s for name in _END_CLOCKS if (s := parse_clock(text(cards, name) or "")) is not None), None)
    if clock is None:
        return None
    return start._replace(mjd=start.mjd + (clock < start.seconds), seconds=clock)


def _written_at_the_end(cards: Cards, start: Moment) -> bool:
    """Whether the clock was read when the shutter closed: the comment of a Julian date of the same moment says so."""
    stated = _moment(cards, "JD")
    return stated is not None and bool(_SAYS_END.search(cards["JD"].comment)) and abs(stated.days - start.days) < 1e-4


def _half(begin: Moment, end: Moment) -> Moment:
    """The moment half-way."""
    gap_s = (end.mjd - begin.mjd) * DAY_S + end.seconds - begin.seconds
    return begin._replace(seconds=begin.seconds + gap_s / 2, utc=begin.utc or end.utc)


def _as_written(cards: Cards, exposure_s: float | None) -> tuple[Moment | None, list[str]]:
    """The middle, still in the header's own time scale."""
    flags: list[str] = []
    coadd = (number(cards, "NCOMBINE") or 1.0) > 1.0
    if coadd:
        flags.append("coadd")
    middle = next((moment for name in _MIDDLES if (moment := _moment(cards, name))), None)
    if middle is not None:
        return middle, flags
    span = _span(cards, exposure_s)
    if span is not None:
        return _half(*span), flags
    start = _start(cards)
    if start is None:
        return None, flags
    stated = next((moment for name in ("MJD-OBS", "MJD-BEG") if (moment := _moment(cards, name))), None)
    if stated is not None and abs(stated.days - start.days) * DAY_S > _AGREE_S + (exposure_s or 0.0):
        flags.append("times-disagree")
    end = _coadd_end(cards, start) if coadd else None
    if end is not None:
        return _half(start, end), flags
    if exposure_s is None:
        flags.append("time-is-start")
    half_s = (exposure_s or 0.0) / 2
    return start._replace(seconds=start.seconds + (-half_s if _written_at_the_end(cards, start) else half_s)), flags


def _to_tai(moment: Moment, scale: str) -> float:
    """MJD in TAI."""
    if scale == "gps":
        return moment.days + _GPS_BEHIND_TAI_S / DAY_S
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ERFA's "dubious year": leap seconds of the coming years are not known
        return float(Time(float(moment.mjd), moment.seconds / DAY_S, format="mjd", scale=scale).tai.mjd)


def mid_time(cards: Cards, exposure_s: float | None) -> MidTime:
    """The middle of the exposure."""
    moment, flags = _as_written(cards, exposure_s)
    if moment is None or not EARLIEST_MJD <= moment.mjd <= LATEST_MJD:
        return MidTime(None, (*flags, "no-time"))
    if moment.short_year:
        flags.append("two-digit-year")
    name = "UTC" if moment.utc else (text(cards, "TIMESYS") or "UTC").upper()
    scale = "gps" if name == "GPS" else _SCALES.get(name)
    if scale is None:
        return MidTime(None, (*flags, "time-scale-unknown", "no-time"))
    return MidTime(_to_tai(moment, scale), tuple(flags))
