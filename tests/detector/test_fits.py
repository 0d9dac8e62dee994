import gzip

import numpy as np
import pytest
from astropy.io import fits

from detector.fits import read_frames
from detector.fitsheader import Limits
from detector.frame import BadFrame, Frame, MaskBit
from detector.survey import EUCLID_VIS, GENERIC
from tests.detector.fitsmaker import compressed, file_of, header, image, sky, with_card


def only(data, **options):
    """The one frame of a file."""
    (frame,) = read_frames(data, name="f.fits", **options)
    if isinstance(frame, BadFrame):
        raise frame
    return frame


def reason_of(data, **options):
    """Why a file is refused, whether as a whole or as its one HDU."""
    with pytest.raises(BadFrame) as bad:
        only(data, **options)
    assert len(bad.value.detail) > 20, "a refusal says what, which and what to look for"
    return bad.value.reason


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "i8", "f4", "f8"])
def test_every_number_type_gives_the_same_electrons(kind):
    pixels = sky(kind=kind) if kind != "u1" else sky(kind="u2").clip(0, 255).astype("u1")
    frame = only(image(pixels))
    assert frame.pixels.dtype == np.float32
    np.testing.assert_allclose(frame.pixels, pixels.astype(np.float64) * 2.0, rtol=1e-6)
    assert not frame.mask.any()


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS"])
def test_every_compression_of_integers_gives_the_same_electrons(method):
    tile = (16, 32) if method == "HCOMPRESS_1" else None
    frame = only(compressed(sky(kind="i4"), compression_type=method, tile_shape=tile))
    np.testing.assert_array_equal(frame.pixels, only(image(sky(kind="i4"))).pixels)
    assert frame.header.extension == 1


def test_unsigned_integers_survive_rice_compression():
    pixels = sky()
    pixels[3, 4] = 65_000
    np.testing.assert_array_equal(only(compressed(pixels)).pixels, only(image(pixels)).pixels)


def test_quantized_floats_come_back_within_their_step_and_nan_is_masked():
    pixels = sky(kind="f4")
    pixels[5, 6] = np.nan
    frame = only(compressed(pixels, quantize_level=16))
    assert frame.mask[5, 6] == MaskBit.BAD
    assert frame.pixels[5, 6] == 0.0
    good = frame.mask == 0
    assert np.abs(frame.pixels / 2 - pixels)[good].max() < 2.0
    assert good.sum() == pixels.size - 1


def test_a_gzip_of_several_members_is_one_file():
    data = image()
    packed = gzip.compress(data[:5000]) + gzip.compress(data[5000:])
    np.testing.assert_array_equal(only(packed).pixels, only(data).pixels)


def test_a_file_on_disk_reads_like_bytes(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(image())
    np.testing.assert_array_equal(only(path).pixels, only(image()).pixels)


def test_a_missing_file_is_no_fault_of_the_frame(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_frames(tmp_path / "none.fits", name="none")


def test_scaled_integers_and_blank_pixels():
    pixels = sky(kind="i2")
    pixels[1, 2] = -99
    hdu = fits.PrimaryHDU(pixels, header())
    hdu.header.update({"BSCALE": 0.5, "BZERO": 100.0, "BLANK": -99})
    frame = only(file_of(hdu))
    assert frame.mask[1, 2] == MaskBit.BAD
    good = frame.mask == 0
    assert good.sum() == pixels.size - 1
    np.testing.assert_allclose(frame.pixels[good], (pixels * 0.5 + 100.0)[good] * 2.0, rtol=1e-6)


def test_what_is_not_finite_or_not_of_this_world_is_masked_and_finite():
    pixels = sky(kind="f8")
    pixels[0, :4] = np.nan, np.inf, -np.inf, 1e300
    frame = only(image(pixels))
    assert (frame.mask[0, :4] == MaskBit.BAD).all()
    assert np.isfinite(frame.pixels).all()


def test_saturated_pixels_are_marked_from_the_header_and_at_the_end_of_the_converter():
    pixels = sky()
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = 50_000, 49_999, 65_535
    frame = only(image(pixels))
    assert list(frame.mask[0, :3]) == [MaskBit.SATURATED, 0, MaskBit.SATURATED]
    silent = only(image(pixels, header(SATURATE=None)))
    assert list(silent.mask[0, :3]) == [0, 0, MaskBit.SATURATED]


def test_a_saturation_level_below_the_sky_is_not_believed():
    frame = only(image(cards=header(SATURATE=10.0)))
    assert not frame.mask.any()
    assert "saturation-implausible" in frame.header.flags


def test_a_degenerate_third_axis_is_squeezed():
    frame = only(image(sky()[None]))
    assert frame.header.shape == (48, 64)


def test_a_cube_says_how_to_choose_a_plane_and_gives_it():
    cube = np.stack([sky(1), sky(2), sky(3)])
    assert reason_of(image(cube)) == "cube"
    with pytest.raises(BadFrame, match=r"plane from 0 to 2"):
        only(image(cube))
    np.testing.assert_array_equal(only(image(cube), plane=2).pixels, sky(3) * 2.0)
    np.testing.assert_array_equal(only(compressed(cube), plane=1).pixels, sky(2) * 2.0)
    assert reason_of(image(cube), plane=3) == "cube"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not-fits"),
        (b"BZh91AY", "not-fits"),
        (b"SIMPLE  =", "truncated"),
        (image()[:-4000], "truncated"),
        (image()[:2000], "truncated"),
        (gzip.compress(image())[:-2000], "truncated"),
        (gzip.compress(image())[:40] + b"\xff" * 400, "damaged"),
        (with_card(image(), "NAXIS1", -64), "bad-header"),
        (with_card(image(), "NAXIS", 2147483647), "bad-header"),
        (with_card(image(), "BITPIX", 12), "bad-header"),
        (with_card(image(), "NAXIS1", 2147483647), "too-large"),
        (with_card(compressed(), "ZNAXIS2", 2147483647), "too-large"),
        (with_card(compressed(), "ZNAXIS2", -5), "bad-header"),
        (with_card(compressed(), "ZTILE1", 0), "bad-header"),
        (with_card(compressed(), "ZCMPTYPE", "'LZW     '"), "unsupported"),
        (with_card(image(sky(shape=(1, 64))), "NAXIS2", 0), "zero-size"),
        (image(sky(shape=(64,))), "one-dimensional"),
        (image(sky(shape=(1, 64))), "one-dimensional"),
        (image(np.full((48, 64), np.nan, "f4")), "all-nan"),
        (image(np.full((48, 64), 7, "i2")), "constant"),
        (file_of(fits.PrimaryHDU()), "no-image"),
        (file_of(fits.PrimaryHDU(), fits.ImageHDU(sky(), name="WHT")), "no-image"),
    ],
)
def test_bad_input_is_refused_by_name(data, reason):
    assert reason_of(data) == reason


@pytest.mark.parametrize("hdus", [[fits.PrimaryHDU], [fits.PrimaryHDU, fits.CompImageHDU]])
def test_a_wrong_checksum_is_refused_and_a_right_one_is_not(hdus):
    *empty, kind = hdus
    data = file_of(*(make() for make in empty), kind(sky(), header()), checksum=True)
    assert only(data)
    end = len(data) - 2880
    assert reason_of(data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]) == "checksum"
    assert reason_of(with_card(data, "EXPTIME", 101.0)) == "checksum"


def test_sums_that_a_compressor_copied_from_the_image_say_nothing():
    data = compressed(cards=header(AAAA="5", BBBB="5")).replace(b"AAAA    ", b"DATASUM ")
    assert reason_of(data) == "checksum"
    assert "checksum-not-its-own" in only(data.replace(b"BBBB    ", b"ZDATASUM")).header.flags


def test_the_limit_on_pixels_is_a_setting():
    assert reason_of(image(), limits=Limits(max_pixels=3000)) == "too-large"
    assert only(image(), limits=Limits(max_pixels=48 * 64))


def test_a_gzip_bomb_costs_no_more_than_its_headers():
    bomb = gzip.compress(image() + b"\0" * 50_000_000)
    assert len(bomb) < 100_000
    assert only(bomb, limits=Limits(max_decompressed_bytes=20_000))


def test_a_gzip_that_needs_more_than_the_limit_is_refused():
    assert reason_of(gzip.compress(image()), limits=Limits(max_decompressed_bytes=8000)) == "too-large"


def test_a_stream_that_points_outside_the_heap_is_refused():
    data = bytearray(compressed())
    table = data.index(b"END" + b" " * 77, 2880) // 2880 * 2880 + 2880
    data[table + 4 : table + 8] = (2**31 - 1).to_bytes(4, "big")
    assert reason_of(bytes(data)) == "damaged"


def test_one_sick_hdu_does_not_lose_the_others():
    blank = np.full((48, 64), np.nan, "f4")
    data = file_of(
        fits.PrimaryHDU(None, header()),
        fits.ImageHDU(sky(1), name="A"),
        fits.ImageHDU(blank, name="B"),
        fits.ImageHDU(sky(2), name="C"),
    )
    first, second, third = read_frames(data, name="f")
    assert isinstance(first, Frame)
    assert (second.reason, second.extension) == ("all-nan", 2)
    assert isinstance(third, Frame)


def test_a_file_cut_in_its_last_hdu_gives_the_others():
    data = file_of(fits.PrimaryHDU(None, header()), fits.ImageHDU(sky(1)), fits.ImageHDU(sky(2)))
    first, second = read_frames(data[:-3000], name="f")
    assert isinstance(first, Frame)
    assert (second.reason, second.extension) == ("truncated", 2)


def test_hdus_passed_over_are_counted_by_reason():
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])
    data = file_of(
        fits.PrimaryHDU(),
        fits.ImageHDU(sky(), name="SCI"),
        fits.ImageHDU(sky(kind="f4"), name="ERR"),
        fits.ImageHDU(sky(kind="i2"), name="DQ"),
        table,
    )
    reading = read_frames(data, name="f")
    assert reading.extensions == (1,)
    assert reading.passed_over == {"empty": 1, "companion": 2, "table": 1}
    assert len(reading) == 1


def test_one_extension_can_be_chosen_whatever_it_is_called():
    data = file_of(fits.PrimaryHDU(), fits.ImageHDU(sky(1), name="SCI"), fits.ImageHDU(sky(2), name="WHT"))
    assert only(data, extension=2).header.extension == 2
    assert reason_of(data, extension=0) == "no-image"
    assert reason_of(data, extension=9) == "no-image"


@pytest.mark.parametrize(
    ("science", "flags"),
    [
        (("3-4.E.SCI", 1), ("3-4.E.FLG", 1)),
        (("SCI", 2), ("DQ", 2)),
        (("IMAGE", 1), ("MASK", 1)),
        (("S1", 1), ("S1.DQ", 1)),
    ],
)
def test_the_flags_beside_an_image_become_its_mask(science, flags):
    marks = np.zeros((48, 64), "i4")
    marks[7, 8] = 64
    other = np.full((48, 64), 1, "i4")
    data = file_of(
        fits.PrimaryHDU(),
        fits.ImageHDU(other, name="9-9.FLG", ver=7),
        fits.ImageHDU(sky(), name=science[0], ver=science[1]),
        fits.ImageHDU(marks, name=flags[0], ver=flags[1]),
    )
    frame = only(data)
    assert frame.mask[7, 8] == MaskBit.BAD
    assert (frame.mask > 0).sum() == 1


def test_flags_of_a_known_survey_mean_what_its_profile_says():
    marks = np.zeros((48, 64), "i4")
    marks[0, :5] = 1 << 0, 1 << 3, 1 << 4, 1 << 5, 1 << 24
    data = file_of(fits.PrimaryHDU(), fits.ImageHDU(sky(), name="1-1.SCI"), fits.ImageHDU(marks, name="1-1.FLG"))
    frame = only(data, survey=EUCLID_VIS)
    assert list(frame.mask[0, :5]) == [MaskBit.BAD, MaskBit.SATURATED, MaskBit.COSMIC_RAY, 0, 0]


def test_mask_planes_named_by_the_mask_itself_win():
    marks = np.zeros((48, 64), "i4")
    marks[0, :3] = 1 << 5, 1 << 2, 1 << 0
    planes = fits.Header({"MP_DETECTED": 5, "MP_CR": 2, "MP_BAD": 0})
    data = file_of(fits.PrimaryHDU(), fits.ImageHDU(sky(), name="IMAGE"), fits.ImageHDU(marks, planes, name="MASK"))
    assert list(only(data).mask[0, :3]) == [0, MaskBit.COSMIC_RAY, MaskBit.BAD]


def test_a_flag_map_that_cannot_be_read_is_said_and_the_frame_lives():
    flags = fits.CompImageHDU(np.arange(48 * 64, dtype="i4").reshape(48, 64), name="DQ")
    data = file_of(fits.PrimaryHDU(None, header()), fits.ImageHDU(sky(), name="SCI"), flags)
    assert only(data).mask.any()
    frame = only(with_card(data, "ZCMPTYPE", "'LZW     '"))
    assert "mask-unreadable" in frame.header.flags
    assert not frame.mask.any()


def test_what_an_extension_lacks_comes_from_the_primary_but_not_its_scaling():
    primary = fits.PrimaryHDU(None, header())
    primary.header["BZERO"] = 1000.0
    frame = only(file_of(primary, fits.ImageHDU(sky(kind="i2"), name="S1")))
    assert frame.header.exposure == "12"
    assert frame.header.exposure_s == 100.0
    np.testing.assert_array_equal(frame.pixels, sky() * 2.0)
    assert frame.header.wcs is not None, "a file of one frame may keep its WCS in the primary"


def test_the_primarys_wcs_is_nobodys_among_several_frames():
    data = file_of(fits.PrimaryHDU(None, header()), fits.ImageHDU(sky(1), name="A"), fits.ImageHDU(sky(2), name="B"))
    assert all("no-wcs" in frame.header.flags for frame in read_frames(data, name="f"))


def test_seventy_hdus_are_read_one_at_a_time(monkeypatch):
    hdus = [fits.ImageHDU(sky(seed), name=f"S{seed}") for seed in range(5)]
    reading = read_frames(file_of(fits.PrimaryHDU(), *hdus), name="f")
    read = []
    monkeypatch.setattr(type(reading), "_frame", lambda _self, outline: read.append(outline.number))
    frames = iter(reading)
    next(frames)
    assert read == [1]


def test_a_frame_named_by_its_instrument_gets_that_surveys_profile():
    cards = header(TELESCOP="EUCLID", INSTRUME="VIS", GAIN=None, RDNOISE=None)
    found = only(image(cards=cards)).header
    assert found.survey is EUCLID_VIS
    assert found.gain_e_adu == 3.48
    assert {"gain-from-profile", "read-noise-from-profile"} <= set(found.flags)
    assert only(image(cards=cards), survey=GENERIC).header.gain_e_adu == 1.0


def test_a_refusal_names_file_and_hdu():
    (bad,) = read_frames(image(np.full((48, 64), 7, "i2")), name="night/a.fits")
    assert bad.detail.startswith("night/a.fits [0]: ")
