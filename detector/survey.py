"""A camera and its exposures as one frozen value; each number with its source.

A profile says only what a frame's own header does not: the header always wins. The sources are spelled out in
``docs/surveys.md``; a number marked "unverified" there is from memory, and nothing may rest on it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

# Spellings that many cameras share; a profile puts its own before them. A keyword made of several with "+" between
# them is the values of all of them, joined by "-".
_EXPOSURE_KEYWORDS = (
    *("EXPNUM", "EXP-ID", "EXPID", "OBS_ID", "OBSID", "EXPOSURE", "ROOTNAME", "ARCFILE", "ORIGFILE", "ORIGNAME"),
    *("FILENAME", "IMAGEID"),
)
_CCD_KEYWORDS = (
    *("CCDNUM", "CCDID", "CCD-ID", "CHIPID", "DET-ID", "DETECTID", "DETECTOR", "CCDNAME", "CCDCHIP", "CCD", "DETNAME"),
    "EXTNAME",
)
_FIELD_KEYWORDS = ("FIELDID", "FIELD")


@dataclass(frozen=True)
class Survey:
    """What is known of a camera when a header is silent; ``None`` where only the frame can say.

    ``zero_point`` is the AB magnitude of 1 e-/s; ``sky_e`` electrons a pixel and exposure; ``bad_bits``,
    ``saturated_bits`` and ``cosmic_ray_bits`` are the bits of the instrument's own mask (none at all: any value but 0
    is bad); ``telescopes`` and ``instruments`` are the beginnings of the TELESCOP and INSTRUME values by which ``auto``
    knows it, in upper case.
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
    exposure_keywords: tuple[str, ...] = _EXPOSURE_KEYWORDS
    ccd_keywords: tuple[str, ...] = _CCD_KEYWORDS
    field_keywords: tuple[str, ...] = _FIELD_KEYWORDS
    expected_streaks_per_frame: float = 10.0

    def made(self, telescope: str | None, instrument: str | None) -> bool:
        """Whether a frame with this TELESCOP and INSTRUME is of this survey; a silent TELESCOP is not held against it.

        The instrument has to be named: "VIS" alone is enough, "EUCLID" alone could be NISP.
        """
        if not instrument or not instrument.upper().startswith(self.instruments or ("\0",)):
            return False
        return not telescope or telescope.upper().startswith(self.telescopes or ("",))


EUCLID_VIS = Survey(
    name="euclid-vis",
    telescopes=("EUCLID",),
    instruments=("VIS",),
    pixel_scale_arcsec=0.1,  # Euclid VIS, Cropper et al. 2025 (A&A 697, A2)
    gain_e_adu=3.48,  # VISsim, the instrument's simulator (Cropper et al.); Q1 frames carry their own GAIN
    read_noise_e=4.4,  # the same
    saturation_e=200_000.0,  # full well of the CCD273-84; the ADC ends at 65,535 ADU = 228,000 e-
    exposure_s=565.0,  # nominal; 560.5 s effective (Euclid Collaboration: Scaramella et al. 2022, A&A 662, A112)
    zero_point=25.50,  # exposure-time calculator of the shear pipeline; 25.74 in other sources
    sky_e=103.0,  # derived: 22.35 mag/arcsec2, 565 s, zero point 25.50
    psf_fwhm_arcsec=0.16,  # Cropper et al. 2025
    filter_name="VIS",
    ccd_shape=(4132, 4096),
    # Flag map of the Euclid data product description (VIS, "Vis Flag Map Product"): INVALID 0, HOT 1, COLD 2, SAT 3,
    # COSMIC 4, GHOST 5, QUADEDGE 6, BAD_COLUMN 7, BAD_CLUSTER 8, CR_REGION 9, OVRCOL 12, CHARINJ 15, ADCMAX 21,
    # NO_DATA 22. A ghost, an edge or a region of many cosmic rays still shows sky, and stays.
    bad_bits=1 << 0 | 1 << 1 | 1 << 2 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 15 | 1 << 22,
    saturated_bits=1 << 3 | 1 << 21,
    cosmic_ray_bits=1 << 4,
    # One OBS_ID is a field with its four dithers, so the dither belongs to the exposure's name.
    exposure_keywords=("EXPID", "OBS_ID+DITHOBS", *_EXPOSURE_KEYWORDS),
    ccd_keywords=("CCDID+QUADID", "CCDID", *_CCD_KEYWORDS),
    field_keywords=("FIELDID", "FIELD", "OBS_ID", "PTGID"),
)
KIDS_OMEGACAM = Survey(
    name="kids-omegacam",
    telescopes=("ESO-VST", "ESO-VLT-U0", "VST"),
    instruments=("OMEGACAM",),
    pixel_scale_arcsec=0.214,  # ESO OmegaCAM User Manual (unverified)
    gain_e_adu=2.5,  # the same; raw frames carry ESO DET OUT1 CONAD
    read_noise_e=5.5,  # the same: 5-6 e-
    exposure_s=360.0,  # r band: 5 dithers of 360 s (de Jong et al. 2013, Exp. Astron. 35, 25)
    psf_fwhm_arcsec=0.7,  # r band: below 0.8 arcsec (de Jong et al. 2013)
    filter_name="r",
    ccd_shape=(4100, 2048),
    exposure_keywords=("ARCFILE", *_EXPOSURE_KEYWORDS),
    ccd_keywords=("ESO DET CHIP ID", "ESO DET CHIP1 ID", *_CCD_KEYWORDS),
    field_keywords=("ESO OBS TARG NAME", *_FIELD_KEYWORDS),
)
SUBARU_HSC = Survey(
    name="subaru-hsc",
    telescopes=("SUBARU",),
    instruments=("HYPER SUPRIME-CAM", "HSC"),
    pixel_scale_arcsec=0.168,  # Miyazaki et al. 2018 (PASJ 70, S1)
    gain_e_adu=3.0,  # the same; raw frames carry T_GAIN1-4
    read_noise_e=4.5,  # the same
    exposure_s=200.0,  # wide layer, i band (Aihara et al. 2018, PASJ 70, S4)
    psf_fwhm_arcsec=0.6,  # i band, median (Aihara et al. 2018)
    filter_name="i",
    ccd_shape=(4176, 2048),
    # Bits of the mask planes of the HSC and Rubin pipelines, used where the mask does not list them (MP_*): BAD 0,
    # SAT 1, INTRP 2, CR 3, EDGE 4, DETECTED 5, DETECTED_NEGATIVE 6, SUSPECT 7, NO_DATA 8. DETECTED is what we look for.
    bad_bits=1 << 0 | 1 << 8,
    saturated_bits=1 << 1,
    cosmic_ray_bits=1 << 3,
    exposure_keywords=("EXP-ID", *_EXPOSURE_KEYWORDS),
    ccd_keywords=("DET-ID", *_CCD_KEYWORDS),
    field_keywords=("OBJECT", *_FIELD_KEYWORDS),
)
GENERIC = Survey(name="generic")

SURVEYS = {survey.name: survey for survey in (EUCLID_VIS, KIDS_OMEGACAM, SUBARU_HSC, GENERIC)}


def survey_of(telescope: str | None, instrument: str | None) -> Survey:
    """The survey that TELESCOP and INSTRUME speak of; the generic one where they name none."""
    return next((survey for survey in SURVEYS.values() if survey.made(telescope, instrument)), GENERIC)
