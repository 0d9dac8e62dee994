"""A thousand bad messages of every kind through the stream: each is a dead letter, untouched, with its reason."""

import os
import random
from collections import Counter

import numpy as np
import pytest
from astropy.io import fits

from stream.messages import FRAMES, REJECTED, Output
from stream.service import Limits, run_worker
from tests.conftest import settings_for
from tests.detector.fitsmaker import file_of, header, image, sky, with_card
from tests.stream.faults.worker import examiner
from tests.stream.test_audit import audit
from tests.stream.topics import read_all, send

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

MESSAGES = int(os.environ.get("NEEDLESTREAM_BAD_MESSAGES", "200"))
GOOD = image()

# Kind -> the reasons that it may have, and what makes one: value and headers, from a random number generator.
KINDS = {
    "random bytes": ({"not-fits"}, lambda rng: (rng.randbytes(rng.randint(1, 20_000)), ())),
    "wrong magic": ({"not-fits"}, lambda _: (b"XIMPLE" + GOOD[6:], ())),
    "another file's magic": ({"not-fits"}, lambda rng: (rng.choice([b"\x89PNG\r\n", b"PK\x03\x04"]) + GOOD, ())),
    "cut off": ({"truncated"}, lambda rng: (GOOD[: rng.randrange(2880, len(GOOD) - 2880)], ())),
    "cut off in the header": (
        {"truncated", "not-fits", "bad-header"},
        lambda rng: (GOOD[: rng.randrange(80, 2800)], ()),
    ),
    "huge axis": ({"too-large"}, lambda rng: (with_card(GOOD, "NAXIS1", rng.choice([10**9, 2**31 - 1])), ())),
    "negative axis": ({"bad-header"}, lambda rng: (with_card(GOOD, "NAXIS1", -rng.randint(1, 99)), ())),
    "unknown BITPIX": ({"bad-header"}, lambda rng: (with_card(GOOD, "BITPIX", rng.choice([7, 12, 128])), ())),
    "no axes": ({"no-image"}, lambda _: (file_of(fits.PrimaryHDU(None, header())), ())),
    "one axis": ({"one-dimensional"}, lambda rng: (image(np.arange(rng.randint(20, 99), dtype="f4")), ())),
    "cube": ({"cube"}, lambda rng: (image(np.stack([sky(rng.randrange(99)), sky(2)])), ())),
    "constant": ({"constant"}, lambda rng: (image(np.full((48, 64), rng.randint(0, 9), "i2")), ())),
    "no number": ({"all-nan"}, lambda rng: (image(np.full((48, 64 + rng.randrange(9)), np.nan, "f4")), ())),
    "wrong checksum": ({"checksum"}, lambda rng: (_damaged(image(checksum=True), rng), ())),
    "damaged gzip": ({"damaged", "truncated", "not-fits"}, lambda rng: (b"\x1f\x8b\x08" + rng.randbytes(500), ())),
    "nothing": ({"empty"}, lambda rng: (rng.choice([b"", None]), ())),
    "claim out of the roots": ({"claim-refused"}, lambda rng: (b"", (("uri", rng.choice(OUTSIDE)),))),
    "no number as extension": (
        {"bad-header"},
        lambda rng: (GOOD, (("extension", rng.choice([b"one", b"-1", b"1e9"])),)),
    ),
    "an extension that is not there": ({"no-image"}, lambda rng: (GOOD, (("extension", b"%d" % rng.randint(1, 99)),))),
}
OUTSIDE = [b"file:///etc/passwd", b"/etc/hostname", b"http://127.0.0.1/x.fits", b"s3://a/b", b"/tmp/../etc/passwd"]


def _damaged(file, rng):
    place = len(file) - 2880 - rng.randint(0, 3000)  # in the pixels, not in what fills the last block
    return file[:place] + bytes([file[place] ^ (1 + rng.randrange(255))]) + file[place + 1 :]


def test_every_bad_message_is_a_dead_letter_untouched(kafka_broker, capsys):
    settings = settings_for(kafka_broker)
    rng = random.Random(os.environ.get("NEEDLESTREAM_SEED", "7"))
    sent, expected = [], {}
    for number in range(MESSAGES):
        kind = list(KINDS)[number % len(KINDS)]
        reasons, make = KINDS[kind]
        value, headers = make(rng)
        expected[str(number)] = kind, reasons, value
        sent.append(Output(FRAMES, b"k%d" % number, value, (*headers, ("name", b"%d" % number))))
    send(settings, sent)
    run_worker(settings, examiner(), Limits(count=MESSAGES))
    letters = {dict(record.headers)["name"].decode(): record for record in read_all(settings, REJECTED)}
    counts = Counter()
    for name, (kind, reasons, value) in expected.items():
        record = letters[name]
        reason = dict(record.headers)["reason"].decode()
        assert reason in reasons, kind
        assert (record.value or None) == (value or None), kind
        assert record.key == b"k" + name.encode()
        counts[reason] += 1
    with capsys.disabled():
        print("\n", MESSAGES, "bad messages:", dict(counts.most_common()))  # noqa: T201
    assert len(letters) == MESSAGES
    assert audit(settings)[0] == 0
