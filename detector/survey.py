"""A camera and its exposures as one frozen value; each number with its source.

A profile says only what a frame's own header does not: the header always wins.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Survey:
    """What is known of a camera when a header is silent; ``None`` where only the frame can say.

    ``zero_point`` is the AB magnitude of 1 e-/s; ``bad_bits``, ``saturated_bits`` and ``cosmic_ray_bits`` are the bits
    of the instrument's own mask; ``instruments`` are the INSTRUME values by which ``auto`` knows it.
    """

    name: str
    telescopes: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    pixel_scale_arcsec: float | None = None
    gain_e_adu: float | None = None
    read_noise_e: float | None = None
    saturation_e: float | None = None
    exposure_s: float | None = None
    zero_point: float | None = None
    sky_e: float | None = None
    psf_fwhm_arcsec: float | None = None
    filter_name: str | None = None
    ccd_shape: tuple[int, int] | None = None
    bad_bits: int = 0
    saturated_bits: int = 0
    cosmic_ray_bits: int = 0
    exposure_keywords: tuple[str, ...] = ("EXPOSURE", "EXPNUM", "OBS_ID", "OBSID", "EXPID", "ARCFILE", "ORIGFILE")
    ccd_keywords: tuple[str, ...] = ("CCDNUM", "CCDID", "CHIPID", "DET-ID", "DETECTOR", "CCDNAME", "EXTNAME")
    field_keywords: tuple[str, ...] = ("FIELD", "POINTING", "FIELDID")
    expected_streaks_per_frame: float = 10.0


# Euclid VIS: 0.1 arcsec, gain 3.48, read noise 4.4, 4132 x 4096, 565 s, PSF 0.16 arcsec (Euclid VIS papers; see
# docs/surveys.md); zero point of the reference setting 25.50; sky 103 e- at 22.35 mag/arcsec2.
EUCLID_VIS = Survey(
    name="euclid-vis",
    telescopes=("EUCLID",),
    instruments=("VIS",),
    pixel_scale_arcsec=0.1,
    gain_e_adu=3.48,
    read_noise_e=4.4,
    saturation_e=200_000.0,
    exposure_s=565.0,
    zero_point=25.50,
    sky_e=103.0,
    psf_fwhm_arcsec=0.16,
    filter_name="VIS",
    ccd_shape=(4132, 4096),
)
KIDS_OMEGACAM = Survey(
    name="kids-omegacam",
    telescopes=("ESO-VLT-U0", "VST"),
    instruments=("OMEGACAM",),
    pixel_scale_arcsec=0.214,
    gain_e_adu=2.5,
    read_noise_e=5.5,
    exposure_s=360.0,
    psf_fwhm_arcsec=0.7,
    filter_name="r",
    ccd_shape=(4100, 2048),
)
SUBARU_HSC = Survey(
    name="subaru-hsc",
    telescopes=("SUBARU",),
    instruments=("HYPER SUPRIME-CAM", "HSC"),
    pixel_scale_arcsec=0.168,
    gain_e_adu=3.0,
    read_noise_e=4.5,
    exposure_s=200.0,
    psf_fwhm_arcsec=0.6,
    filter_name="i",
    ccd_shape=(4176, 2048),
)
GENERIC = Survey(name="generic")

SURVEYS = {survey.name: survey for survey in (EUCLID_VIS, KIDS_OMEGACAM, SUBARU_HSC, GENERIC)}
