"""Frame messages in, dead letters out."""

from dataclasses import replace

import pytest

from detector.frame import BadFrame
from stream.claims import Claims
from stream.messages import Message, dead_letter, frame_source, mjd_tai

MESSAGE = Message("frames", 1, 2, b"k", b"SIMPLE", (("name", b"night/a.fits"),), 1_700_000_000_000)


def test_the_clock_is_tai():
    assert mjd_tai(0) == 40_587 + 37 / 86_400


def test_a_dead_letter_is_the_message_with_its_reason():
    message = replace(MESSAGE, headers=(("mine", b"1"), ("reason", b"old"), ("extension", b"2")))
    output = dead_letter(message, BadFrame("truncated", "d" * 5000), extension=None)
    assert (output.key, output.value) == (b"k", b"SIMPLE")
    headers = dict(output.headers)
    assert len(headers) == len(output.headers)
    assert headers.pop("detail") == b"d" * 2000
    assert headers == {
        "mine": b"1",
        "extension": b"2",
        "reason": b"truncated",
        "input-topic": b"frames",
        "input-partition": b"1",
        "input-offset": b"2",
    }


def source_of(message, roots=(), limit=100):
    return frame_source(message, Claims(roots), max_message_bytes=limit)


def test_a_claim_check_gives_the_file_under_its_root(tmp_path):
    (tmp_path / "frame").write_bytes(b"SIMPLE")
    with source_of(replace(MESSAGE, value=None, headers=(("uri", f"{tmp_path}/frame".encode()),)), (tmp_path,)) as file:
        assert file.read() == b"SIMPLE"


def test_a_message_over_the_limit_is_refused_whatever_the_topic_takes():
    assert source_of(MESSAGE, limit=6) == b"SIMPLE"
    with pytest.raises(BadFrame, match="max_message_bytes") as refused:
        source_of(MESSAGE, limit=5)
    assert refused.value.reason == "too-large"
