"""Whatever the bytes are, nothing but ``BadFrame`` comes out, soon, and without much memory."""

import gzip
import tracemalloc

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.fits import read_frames
from detector.fitsheader import Limits
from detector.frame import BadFrame
from tests.detector.fitsmaker import compressed, file_of, header, image, sky

FLAGS = np.arange(48 * 64, dtype="i4").reshape(48, 64) % 7
SEEDS = {
    "plain": image(),
    "float": image(sky(kind="f4")),
    "summed": image(checksum=True),
    "cube": image(np.stack([sky(), sky()])),
    "many": file_of(
        fits.PrimaryHDU(None, header()),
        fits.ImageHDU(sky(), name="1.SCI"),
        fits.ImageHDU(FLAGS, name="1.FLG"),
        fits.ImageHDU(sky(kind="f4"), name="2.SCI"),
    ),
    "rice": compressed(),
    "quantized": compressed(sky(kind="f4"), quantize_level=8),
    "gzip tiles": compressed(compression_type="GZIP_2"),
    "hcompress": compressed(sky(kind="i4"), compression_type="HCOMPRESS_1", tile_shape=(24, 32)),
    "plio": compressed(sky(kind="i4"), compression_type="PLIO_1"),
    "gzip": gzip.compress(image()),
}
NUMBERS = ["-1", "0", "1", "3", "999", "65536", "2147483647", "-2147483648", "9223372036854775807", "1E308", "NaN"]
WORDS = ["'abc'", "'1.5'", "T", "", "'", "(1,2)"]
REASONS = {"not-fits", "truncated", "bad-header", "too-large", "damaged", "unsupported", "checksum", "no-image"}
REASONS |= {"zero-size", "one-dimensional", "cube", "all-nan", "constant"}
LIMITS = Limits(max_pixels=100_000, max_decompressed_bytes=10_000_000)


def survive(data):
    """Read it all; only ``BadFrame`` may come, and what is a frame has to be one. Gives the words of the refusals."""
    reasons = []
    try:
        for frame in read_frames(data, name="f", limits=LIMITS):
            if isinstance(frame, BadFrame):
                reasons.append(frame.reason)
            else:
                assert np.isfinite(frame.pixels).all()
                assert frame.pixels.shape == frame.mask.shape == frame.header.shape
    except BadFrame as bad:
        reasons.append(bad.reason)
    assert REASONS.issuperset(reasons)


@given(st.data())
@settings(max_examples=250, deadline=2000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_value_of_any_keyword_is_survived(data):
    file = SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))]
    places = [start for start in range(0, len(file) - 80, 80) if file[start + 8 : start + 10] == b"= "] or [0]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places))
        value = data.draw(st.sampled_from(NUMBERS + WORDS))
        file = file[: place + 10] + f"{value:>20}".ljust(70).encode() + file[place + 80 :]
    survive(file)


@given(st.data())
@settings(max_examples=250, deadline=2000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_damage_to_the_bytes_is_survived(data):
    file = SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(file)))
        gone = data.draw(st.sampled_from([0, 1, 8, 80, 2880, 10**6]))
        file = file[:place] + data.draw(st.binary(max_size=100)) + file[place + gone :]
    survive(file)


@pytest.mark.parametrize("size", [10**6, 2147483647, 99_999_999_999])
def test_no_header_makes_us_allocate_what_it_announces(size):
    file = SEEDS["plain"].replace(f"NAXIS1  = {64:>20}".encode(), f"NAXIS1  = {size:>20}".encode())
    tracemalloc.start()
    survive(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000
