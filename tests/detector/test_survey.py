import dataclasses

import pytest

from detector.survey import EUCLID_VIS, GENERIC, KIDS_OMEGACAM, SUBARU_HSC, SURVEYS, survey_of


@pytest.mark.parametrize(
    ("telescope", "instrument", "survey"),
    [
        ("EUCLID", "VIS", EUCLID_VIS),
        ("Euclid", "vis", EUCLID_VIS),
        (None, "VIS", EUCLID_VIS),
        ("EUCLID", "NISP", GENERIC),
        ("VISTA", "VIRCAM", GENERIC),
        ("ESO 4m", "VIS", GENERIC),
        ("ESO-VST", "OMEGACAM", KIDS_OMEGACAM),
        ("Subaru", "Hyper Suprime-Cam", SUBARU_HSC),
        ("SUBARU", "HSC", SUBARU_HSC),
        ("SUBARU", "MOIRCS", GENERIC),
        (None, None, GENERIC),
        ("EUCLID", None, GENERIC),
    ],
)
def test_a_survey_is_known_by_telescope_and_instrument(telescope, instrument, survey):
    assert survey_of(telescope, instrument) is survey


def test_no_bit_of_a_mask_means_two_things():
    for survey in SURVEYS.values():
        bits = [survey.bad_bits, survey.saturated_bits, survey.cosmic_ray_bits]
        assert sum(bits) == bits[0] | bits[1] | bits[2]


def test_every_profile_is_listed_by_its_name_and_frozen():
    assert list(SURVEYS) == ["euclid-vis", "kids-omegacam", "subaru-hsc", "generic"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        EUCLID_VIS.gain_e_adu = 1.0


def test_the_generic_profile_claims_nothing():
    silent = ("pixel_scale_arcsec", "gain_e_adu", "read_noise_e", "saturation_e", "exposure_s", "zero_point")
    assert all(getattr(GENERIC, name) is None for name in silent)
