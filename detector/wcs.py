"""A header's world coordinates, cleaned before astropy sees them.

astropy takes a CRVAL that is a string for no CRVAL at all and gives the identity: a streak at pixel (700, 300) would be
published at RA 700. So the keywords are gathered here, strings that hold numbers become numbers (flag
``wcs-from-strings``), and what is not celestial, not finite or of no plausible scale is refused: ``no-wcs``, with the
cause beside it (``wcs-unreadable``, ``wcs-not-celestial``, ``wcs-implausible``). Nothing here raises.

Two more traps: SIP coefficients count only where CTYPE says -SIP (drizzled images keep dead ones: ``sip-ignored``);
TAN with PV1_* is SCAMP's old word for TPV.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

from astropy.wcs import WCS

from detector.astrometry import pixel_scale_arcsec
from detector.fitsheader import number, text
from detector.headervalues import PLAUSIBLE_SCALE_ARCSEC

if TYPE_CHECKING:
    from detector.fitsheader import Cards

_LINEAR = re.compile(r"(CRVAL|CRPIX)[12]|LONPOLE|LATPOLE|EQUINOX")
_MATRIX = re.compile(r"CD[12]_[12]")
_OLD_MATRIX = re.compile(r"PC[12]_[12]|CDELT[12]|CROTA[12]")
_PV = re.compile(r"PV[12]_\d{1,2}")
_SIP = re.compile(r"[AB]_(ORDER|\d_\d)")
_LONGITUDES = {"RA": "DEC", "GLON": "GLAT", "ELON": "ELAT"}
_PROJECTIONS = {
    *("AZP", "SZP", "TAN", "STG", "SIN", "ARC", "ZPN", "ZEA", "AIR", "CYP", "CEA", "CAR", "MER", "SFL", "PAR", "MOL"),
    *("AIT", "COP", "COE", "COD", "COO", "BON", "PCO", "TSC", "CSC", "QSC", "HPX", "TPV"),
}
_FRAMES = {"ICRS", "FK5", "FK4", "FK4-NO-E"}
_MAX_SIP_ORDER = 9
_NEEDED = {"CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2"}


class Coordinates(NamedTuple):
    """A usable WCS and its scale at the frame's centre, or None twice; and what has to be said of it."""

    wcs: WCS | None
    pixel_scale_arcsec: float | None
    flags: tuple[str, ...]


def has_wcs(cards: Cards) -> bool:
    """Whether a header says anything of celestial coordinates."""
    return "CTYPE1" in cards and "CRVAL1" in cards


def read_wcs(cards: Cards, shape: tuple[int, int]) -> Coordinates:
    """The world coordinates of a frame of this shape [y, x]."""
    if not has_wcs(cards):
        return Coordinates(None, None, ("no-wcs",))
    types = _types(cards)
    if types is None:
        return Coordinates(None, None, ("no-wcs", "wcs-not-celestial"))
    names = [name for name in cards if _wanted(name, cards, types)]
    flags = ("wcs-from-strings",) if any(isinstance(cards[name].value, str) for name in names) else ()
    if "A_ORDER" in cards and not types[0].endswith("-SIP"):
        flags = (*flags, "sip-ignored")
    wcs = _build(types, {name: number(cards, name) for name in names}, cards)
    if wcs is None:
        return Coordinates(None, None, (*flags, "no-wcs", "wcs-unreadable"))
    scale = pixel_scale_arcsec(wcs, (shape[1] - 1) / 2, (shape[0] - 1) / 2)
    if not PLAUSIBLE_SCALE_ARCSEC[0] <= scale <= PLAUSIBLE_SCALE_ARCSEC[1]:
        return Coordinates(None, None, (*flags, "no-wcs", "wcs-implausible"))
    return Coordinates(wcs, scale, flags)


def _types(cards: Cards) -> tuple[str, str] | None:
    """CTYPE1 and CTYPE2, SCAMP's TAN renamed; None where they are no pair on the sky."""
    first, second = ((text(cards, name) or "").upper() for name in ("CTYPE1", "CTYPE2"))
    halves = [words[:4].rstrip("-") for words in (first, second)]
    if _LONGITUDES.get(halves[0]) != halves[1] and _LONGITUDES.get(halves[1]) != halves[0]:
        return None
    if first[4:] != second[4:] or first[5:8] not in _PROJECTIONS:
        return None
    if first[5:] == "TAN" and any(_PV.fullmatch(name) for name in cards):
        return first[:5] + "TPV", second[:5] + "TPV"
    return first, second


def _wanted(name: str, cards: Cards, types: tuple[str, str]) -> bool:
    """Whether a keyword belongs to this WCS: one matrix of the two that a header may hold, one kind of distortion."""
    sip = types[0].endswith("-SIP")
    return bool(
        _LINEAR.fullmatch(name)
        or (_MATRIX if "CD1_1" in cards else _OLD_MATRIX).fullmatch(name)
        or (sip and _SIP.fullmatch(name))
        or (not sip and _PV.fullmatch(name))
    )


def _build(types: tuple[str, str], stated: dict[str, float | None], cards: Cards) -> WCS | None:
    """The WCS of these numbers; None where one is missing or none, and where wcslib refuses them."""
    values = {name: value for name, value in stated.items() if value is not None}
    orders = [value for name, value in values.items() if name.endswith("_ORDER")]
    if len(values) < len(stated) or not values.keys() >= _NEEDED or any(not 0 <= n <= _MAX_SIP_ORDER for n in orders):
        return None
    words = {"CTYPE1": types[0], "CTYPE2": types[1]}
    words |= {name: unit for name in ("CUNIT1", "CUNIT2") if (unit := text(cards, name))}
    frame = (text(cards, "RADESYS", "RADECSYS") or "").upper()
    if frame in _FRAMES:
        words["RADESYS"] = frame
    header = [f"{'WCSAXES':<8}= {2:>20}"]
    header += [f"{name:<8}= '{value.replace(chr(39), ''):<8.40}'" for name, value in words.items()]
    header += [f"{name:<8}= {_written(name, value):>20}" for name, value in values.items()]
    try:
        with warnings.catch_warnings():
            # FITSFixedWarning: that a date or a unit was spelled in an old way is of no use to anybody at night.
            warnings.simplefilter("ignore")
            wcs = WCS("".join(f"{line:<80}" for line in header), naxis=2)
            wcs.wcs.set()
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
        # Whatever wcslib or astropy say against these numbers (WcsError is a ValueError): there is no WCS.
        return None
    return wcs if wcs.has_celestial else None


def _written(name: str, value: float) -> str:
    """A number as a header holds it; the order of a polynomial is whole."""
    return str(int(value)) if name.endswith("_ORDER") else repr(float(value))
