"""Which images of a file are science, which only go along with them, and which flags belong to which frame.

A weight map searched as if it were a frame floods the output; a frame taken for a weight map is lost in silence. So an
image is a frame unless its name says otherwise, and every image passed over is counted by reason.

Names: EXTNAME and EXTTYPE (Euclid ``3-4.E.SCI``, ``.RMS``, ``.FLG``; HST ``SCI``, ``ERR``, ``DQ`` with EXTVER; Rubin
``IMAGE``, ``MASK``, ``VARIANCE``), DES_EXT (Dark Energy Survey), HDUCLAS2 (ESO: DATA, ERROR, QUALITY).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from detector.fitsheader import number, text
from detector.pixels import Bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detector.fitsheader import Cards, Outline
    from detector.survey import Survey

Role = Literal["science", "flags", "other"]

_NAME_KEYWORDS = ("EXTTYPE", "DES_EXT", "HDUCLAS2", "EXTNAME")
_SCIENCE = {"SCI", "SCIENCE", "IMAGE", "DATA", "BGSUB"}
_FLAGS = {"FLG", "FLAG", "FLAGS", "DQ", "DQM", "MASK", "BPM", "BADPIX", "BADPIXEL", "MSK", "QUALITY", "OOW", "PIXMASK"}
_OTHER = {
    *("RMS", "ERR", "ERROR", "ERRORS", "ERRMAP", "SIGMA", "STD", "STDDEV", "NOISE", "UNCERT", "UNCERTAINTY"),
    *("VAR", "VARIANCE", "IVAR", "INVVAR", "IVM", "WHT", "WEIGHT", "WEIGHTS", "WGT", "WT", "WTMAP"),
    *("PSF", "PSFEX", "BKG", "BACKGROUND", "BKGSUBTR", "SEG", "SEGM", "SEGMAP", "SEGMENTATION", "COVERAGE", "EXPMAP"),
    *("D2IMARR", "WCSDVARR", "NPOLFILE", "SAMP", "NSAMP", "THUMBNAIL", "PREVIEW"),
}
# Words that mean a companion only when they are the whole name: a camera may well call a chip "MODEL 3".
_WHOLE_NAMES = {"CON", "CTX", "AREA", "TIME", "EXP", "MODEL", "SKY", "LOCATION", "QUAL", "STAT"}
_TOOLS_NAMES = {"COMPRESSED_IMAGE", "PRIMARY"}  # what fpack and astropy call an image without a name
_WORD = re.compile(r"[A-Z0-9]+")


def _words(cards: Cards) -> list[str]:
    """The words of an HDU's names, in upper case."""
    return [word for name in _NAME_KEYWORDS for word in _WORD.findall((text(cards, name) or "").upper())]


def role_of(cards: Cards) -> Role:
    """What an image is, by its own header."""
    words = _words(cards)
    meant = set(words)
    if meant & _FLAGS:
        return "flags"
    if meant & _OTHER or (text(cards, "EXTNAME") or "").upper() in _WHOLE_NAMES:
        # "VAR_POISSON" is no science, and "SCI_ERR" neither: the companion's word wins.
        return "other"
    return "science"


def ccd_of_name(cards: Cards) -> str | None:
    """What EXTNAME says besides what kind of image it is: ``3-4.E`` of ``3-4.E.SCI``."""
    name = text(cards, "EXTNAME")
    if name is None or name.upper() in _TOOLS_NAMES:
        return None
    ending = re.compile(r"[\s._-]*\b(?:" + "|".join(sorted(_SCIENCE)) + r")\b$", re.IGNORECASE)
    return ending.sub("", name).strip() or None


# Mask planes of the HSC and Rubin pipelines: the mask's own header gives the bit of each as MP_name.
_BAD_PLANES = ("MP_BAD", "MP_NO_DATA", "MP_UNMASKEDNAN", "MP_ITL_DIP")
_SATURATED_PLANES = ("MP_SAT",)
_COSMIC_RAY_PLANES = ("MP_CR",)


def bits_of(cards: Cards, survey: Survey) -> Bits:
    """What the bits of a flag map mean: by its own MP_ keywords, else by the survey."""
    planes = (_BAD_PLANES, _SATURATED_PLANES, _COSMIC_RAY_PLANES)
    if not any(name in cards for names in planes for name in names):
        return Bits(survey.bad_bits, survey.saturated_bits, survey.cosmic_ray_bits)
    return Bits(*(_joined(cards, names) for names in planes))


def _joined(cards: Cards, names: tuple[str, ...]) -> int:
    """The bits of these mask planes together."""
    bits = {int(bit) for name in names if (bit := number(cards, name)) is not None and 0 <= bit < 63}
    return sum(1 << bit for bit in bits)


def _key(cards: Cards) -> tuple[tuple[str, ...], int]:
    """What a frame and its companions have in common: the rest of their names, and EXTVER."""
    rest = tuple(word for word in _words(cards) if word not in _SCIENCE | _FLAGS | _OTHER)
    return rest, int(number(cards, "EXTVER") or 1)


def flags_elsewhere(frame: Outline, outlines: Sequence[Outline]) -> Outline | None:
    """The flag map of a frame in a file of its own: of the same name, else of the same number, else the only one.

    Any image of the frame's shape may be one there, whatever it is called; of several those that are called flags.
    """
    images = [one for one in outlines if one.kind in {"image", "compressed"} and one.shape[-2:] == frame.shape[-2:]]
    called = [one for one in images if role_of(one.cards) == "flags"]
    maps = called or [one for one in images if role_of(one.cards) != "other"]
    key = _key(frame.cards)
    named = [one for one in maps if key[0] and _key(one.cards) == key]
    numbered = [one for one in maps if one.number == frame.number]
    return next(iter(named or numbered), maps[0] if len(maps) == 1 else None)


def flags_for(frame: Outline, outlines: Sequence[Outline]) -> Outline | None:
    """The flag map of a frame: of the same name, else the one right behind it, else the only one of the file."""
    images = [other for other in outlines if other.kind in {"image", "compressed"} and other.number != frame.number]
    maps = [other for other in images if role_of(other.cards) == "flags" and other.shape[-2:] == frame.shape[-2:]]
    named = [other for other in maps if _key(other.cards) == _key(frame.cards)]
    if named:
        return named[0]
    nameless = [other for other in maps if not _key(other.cards)[0]]
    following = sorted(other.number for other in images if other.number > frame.number)
    until = next((n for n in following if role_of(outlines[n].cards) == "science"), len(outlines))
    behind = [other for other in nameless if frame.number < other.number < until]
    alone = not any(role_of(other.cards) == "science" for other in images)
    return behind[0] if behind else (maps[0] if alone and len(maps) == 1 else None)
