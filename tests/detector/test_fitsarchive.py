"""Files of an archive: what they are, and their frames cut apart."""

from io import BytesIO

import numpy as np
import pytest
from astropy.io import fits

from detector.fits import read_frames
from detector.fitsarchive import file_pointing, first_header, split_frames
from detector.fitsheader import Limits
from detector.frame import BadFrame


def mosaic(path, *, compressed=False, flagged=False, n_ccds=3):
    """A file of several CCDs; the exposure's identity and time stand in the primary alone."""
    primary = fits.PrimaryHDU()
    primary.header["EXPNUM"] = 4711
    primary.header["DATE-OBS"] = "2024-05-06T07:08:09"
    primary.header["EXPTIME"] = 100.0
    primary.header["HIERARCH ESO INS NAME"] = "long"
    primary.header["CTYPE1"] = "RA---TAN"
    hdus = [primary]
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    for ccd in range(n_ccds):
        rng = np.random.default_rng(ccd)
        image = kind(rng.normal(100, 5, (32, 40)).astype(np.float32), name=f"CCD{ccd}.SCI")
        image.header["CCDNUM"] = ccd
        image.add_checksum() if not compressed else None
        hdus.append(image)
        if flagged:
            flags = np.zeros((32, 40), np.int16)
            flags[3, 4] = 1
            hdus.append(fits.ImageHDU(flags, name=f"CCD{ccd}.FLG"))
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_a_frame_cut_out_is_the_frame_in_its_file(tmp_path, compressed):
    file = mosaic(tmp_path / "mosaic.fits", compressed=compressed)
    whole = list(read_frames(file, name="frame"))
    parts = list(split_frames(file, limits=Limits()))
    assert [extension for extension, _ in parts] == [frame.header.extension for frame in whole] == [1, 2, 3]
    for frame, (_, content) in zip(whole, parts, strict=True):
        assert len(content) % 2880 == 0
        (alone,) = read_frames(content, name="frame")
        np.testing.assert_array_equal(alone.pixels, frame.pixels)
        for name in ("exposure", "ccd", "mid_time_mjd_tai", "exposure_s", "wcs", "survey", "filter_name"):
            assert getattr(alone.header, name) == getattr(frame.header, name), name


def test_a_frame_cut_out_keeps_its_flag_map(tmp_path):
    file = mosaic(tmp_path / "mosaic.fits", flagged=True)
    for frame, (_, content) in zip(read_frames(file, name="frame"), split_frames(file, limits=Limits()), strict=True):
        (alone,) = read_frames(content, name="frame")
        np.testing.assert_array_equal(alone.mask, frame.mask)


def test_what_is_cut_out_is_sound_fits(tmp_path):
    file = mosaic(tmp_path / "mosaic.fits")
    for _, content in split_frames(file, limits=Limits()):
        with fits.open(BytesIO(content), checksum=True) as hdus:
            hdus.verify("exception")
            assert hdus[0].header["EXPNUM"] == 4711
            assert hdus[0].header["ESO INS NAME"] == "long"
            assert len(hdus) == 2


def test_a_single_image_is_cut_into_itself(tmp_path):
    file = tmp_path / "single.fits"
    fits.PrimaryHDU(np.arange(600, dtype=np.int16).reshape(20, 30)).writeto(file)
    assert list(split_frames(file, limits=Limits())) == [(0, file.read_bytes())]


def test_the_first_header_is_that_of_the_first_frame(tmp_path):
    file = mosaic(tmp_path / "mosaic.fits")
    header = first_header(file, limits=Limits())
    frame = next(iter(read_frames(file, name=str(file))))
    assert (header.exposure, header.ccd, header.extension) == ("4711", "0", 1)
    assert header.mid_time_mjd_tai == frame.header.mid_time_mjd_tai is not None


def test_a_file_that_is_none_is_a_bad_frame(tmp_path):
    file = tmp_path / "frame.fits"
    file.write_bytes(b"no FITS")
    with pytest.raises(BadFrame):
        first_header(file, limits=Limits())
    assert file_pointing(file, limits=Limits()) is None
    assert file_pointing(tmp_path / "gone.fits", limits=Limits()) is None
    with pytest.raises(BadFrame):
        list(split_frames(file, limits=Limits()))
