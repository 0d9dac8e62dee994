"""Files that are small and ask for everything: refused by their headers, before anything is allocated."""

import gzip
import io
import tracemalloc
import zlib

import pytest

from detector import tilecompression
from detector.fits import read_frames
from detector.fitsheader import BLOCK, Limits
from detector.frame import BadFrame
from tests.detector.fitsmaker import compressed, image, with_card

MB = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def all_loaded():
    """What is loaded and compiled at the first frame is not the bomb's."""
    for sound in (image(), compressed()):
        assert len(list(read_frames(sound, name="sound"))) == 1


def card(text):
    return text.encode().ljust(80)


def hdu(*cards):
    content = b"".join(card(text) for text in (*cards, "END"))
    return content.ljust(-(-len(content) // BLOCK) * BLOCK)


PRIMARY = hdu("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0")
EXTENSION = ("XTENSION= 'IMAGE   '", "BITPIX  =                    8", "NAXIS   =                    0")


def packed(*pieces):
    """A gzip of pieces ``(bytes, how often)``, made without ever holding it unpacked."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
        for piece, count in pieces:
            for _ in range(count):
                file.write(piece)
    return out.getvalue()


def read_all(data, limits):
    """Why the file or its last HDU is refused, and the most memory that it took."""
    tracemalloc.start()
    try:
        outcomes = list(read_frames(data, name="bomb", limits=limits))
        reason = outcomes[-1].reason if isinstance(outcomes[-1], BadFrame) else None
    except BadFrame as bad:
        reason = bad.reason
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return reason, peak


def test_a_gigabyte_behind_an_image_is_not_unpacked():
    bomb = packed((image(), 1), (b"\0" * MB, 1000))
    assert len(bomb) < 6 * MB
    reason, peak = read_all(bomb, Limits())
    assert reason is None
    assert peak < 20 * MB


def test_an_image_that_unpacks_beyond_the_limit_stops_there():
    header = hdu(
        "SIMPLE  =                    T",
        "BITPIX  =                    8",
        "NAXIS   =                    2",
        "NAXIS1  =                10000",
        "NAXIS2  =                30000",
    )
    bomb = packed((header, 1), (b"\0" * MB, 300))
    reason, peak = read_all(bomb, Limits(max_decompressed_bytes=30 * MB))
    assert reason == "too-large"
    assert peak < 5 * MB


@pytest.mark.parametrize("sides", [(2**31 - 1, 2**31 - 1), (2**62, 4), (10**39, 2), (40_000, 40_000)])
def test_an_image_that_claims_to_be_huge_is_refused_by_its_header(sides):
    data = with_card(with_card(image(), "NAXIS1", sides[0]), "NAXIS2", sides[1])
    reason, peak = read_all(data, Limits(max_pixels=10**9))
    assert reason in {"too-large", "bad-header"}
    assert peak < 2 * MB


def test_a_compressed_image_that_claims_to_be_huge_is_refused_by_its_header():
    data = with_card(with_card(compressed(), "ZNAXIS1", 10**6), "ZNAXIS2", 10**6)
    reason, peak = read_all(data, Limits())
    assert reason == "too-large"
    assert peak < 2 * MB


def test_a_hundred_thousand_hdus_are_read_as_far_as_the_limit():
    bomb = packed((PRIMARY, 1), (hdu(*EXTENSION), 100_000))
    reason, peak = read_all(bomb, Limits())
    assert reason == "too-large"
    assert peak < 40 * MB
    assert read_all(bomb, Limits(max_hdus=5))[1] < 5 * MB


def test_a_header_of_a_hundred_megabytes_is_read_as_far_as_the_limit():
    begin = b"".join(card(text) for text in ("SIMPLE  =                    T", "BITPIX  =                    8"))
    bomb = packed((begin, 1), (card("COMMENT and so on") * 12_500, 100))
    reason, peak = read_all(bomb, Limits(max_header_bytes=4 * MB))
    assert reason == "too-large"
    assert peak < 20 * MB


def test_many_headers_count_together():
    wordy = hdu(*EXTENSION, *(f"KEY{n:<5}=                    1" for n in range(1200)))
    bomb = packed((PRIMARY, 1), (wordy, 500))
    reason, peak = read_all(bomb, Limits(max_header_bytes=1 * MB))
    assert reason == "too-large"
    assert peak < 20 * MB
    assert read_all(packed((PRIMARY, 1), (wordy, 5), (image(), 0)), Limits(max_header_bytes=1 * MB))[0] == "no-image"


def test_a_gzip_within_a_gzip_is_not_unpacked_twice():
    reason, peak = read_all(gzip.compress(packed((image(), 1), (b"\0" * MB, 200))), Limits())
    assert reason == "not-fits"
    assert peak < 5 * MB


def test_a_compressed_image_within_a_gzip_is_read_and_its_bombs_are_not():
    assert read_all(gzip.compress(compressed(compression_type="GZIP_1")), Limits())[0] is None
    stream = memoryview(packed((b"\0" * MB, 300)))
    tracemalloc.start()
    with pytest.raises(BadFrame, match="gzip tile holds"):
        tilecompression._check_gzip(stream, 5 * MB)
    assert tracemalloc.get_traced_memory()[1] < 5 * MB
    tracemalloc.stop()


def test_a_gzip_tile_of_just_its_size_passes_whatever_its_pieces():
    for size in (0, 1, MB, 3 * MB + 7):
        tilecompression._check_gzip(memoryview(gzip.compress(bytes(size))), size)
    broken = zlib.compress(b"1234567890" * 100, wbits=31)[:-9]
    with pytest.raises(BadFrame, match="breaks off"):
        tilecompression._check_gzip(memoryview(broken), 1000)
