"""The header of a frame, put together from its HDU, the primary, and the survey's profile.

What neither of them says is None, and its name is among the flags; ``docs/frames.md`` lists the words. Nothing here
raises: a frame with a poor header is searched all the same.
"""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING

from detector.companions import ccd_of_name
from detector.fitsheader import number, text
from detector.frame import FrameHeader
from detector.headervalues import (
    PIXEL_SCALES,
    PLAUSIBLE_SCALE_ARCSEC,
    Camera,
    camera_of,
    exposure_name,
    field_name,
    identity,
)
from detector.survey import survey_of
from detector.times import mid_time
from detector.wcs import has_wcs, read_wcs

if TYPE_CHECKING:
    from detector.fitsheader import Cards, Outline
    from detector.survey import Survey

# Never taken from the primary: they describe the primary's own bytes and name.
_OWN = {
    *("BSCALE", "BZERO", "BLANK", "ZBLANK", "CHECKSUM", "DATASUM"),
    *("EXTNAME", "EXTVER", "EXTTYPE", "DES_EXT", "HDUCLAS2"),
}


def inherited(outline: Outline, primary: Outline) -> Cards:
    """The keywords of an HDU, and those of the primary that it lacks."""
    lent = {name: card for name, card in primary.cards.items() if name not in _OWN}
    return ChainMap(dict(outline.cards), lent)


def survey_and_camera(cards: Cards, survey: Survey | None) -> tuple[Survey, Camera]:
    """The survey (by TELESCOP and INSTRUME where none is given) and the camera of a frame."""
    known = survey or survey_of(text(cards, "TELESCOP"), text(cards, "INSTRUME"))
    return known, camera_of(cards, known)


def frame_header(
    name: str,
    outline: Outline,
    cards: Cards,
    known: tuple[Survey, Camera],
    *,
    shape: tuple[int, int],
    alone: bool,
    flags: tuple[str, ...],
) -> FrameHeader:
    """The header of one frame of ``shape`` [y, x].

    ``alone``: the file has one frame only, so that the primary's WCS can be its own; among several it is nobody's.
    """
    survey, camera = known
    time = mid_time(cards, camera.exposure_s)
    sky = read_wcs(cards if alone or has_wcs(outline.cards) else outline.cards, shape)
    scale = sky.pixel_scale_arcsec or _stated_scale(cards)
    scale_flags = ("pixel-scale-from-profile",) if scale is None and survey.pixel_scale_arcsec else ()
    scale = scale or survey.pixel_scale_arcsec
    exposure, ccd, field = exposure_name(cards, survey), ccd_name(cards, survey), field_name(cards, survey)
    absent = {"exposure-id": exposure, "ccd-id": ccd, "field": field, "pixel-scale": scale}
    missing = tuple(f"no-{word}" for word, value in absent.items() if value is None)
    return FrameHeader(
        name=name,
        extension=outline.number,
        shape=shape,
        survey=survey,
        exposure=exposure,
        ccd=ccd,
        field=field,
        mid_time_mjd_tai=time.mjd_tai,
        exposure_s=camera.exposure_s,
        filter_name=camera.filter_name,
        gain_e_adu=camera.gain_e_adu,
        read_noise_e=camera.read_noise_e,
        saturation_e=camera.saturation_e,
        zero_point=camera.zero_point,
        pixel_scale_arcsec=scale,
        wcs=sky.wcs,
        flags=(*sky.flags, *time.flags, *camera.flags, *scale_flags, *missing, *flags),
    )


def _stated_scale(cards: Cards) -> float | None:
    """The pixel scale by keyword, for frames without a WCS."""
    value = number(cards, *PIXEL_SCALES)
    return value if value and PLAUSIBLE_SCALE_ARCSEC[0] <= value <= PLAUSIBLE_SCALE_ARCSEC[1] else None


def ccd_name(cards: Cards, survey: Survey) -> str | None:
    """Which CCD of the camera this is; of an EXTNAME, what is left beside the kind of image."""
    for keyword in survey.ccd_keywords:
        words = ccd_of_name(cards) if keyword == "EXTNAME" else identity(cards, keyword)
        if words:
            return words
    return None
