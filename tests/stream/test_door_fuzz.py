"""Whatever a message holds, the worker's loop answers it and goes on: examined, or a dead letter with its bytes.

Without a broker: the loop itself, with a source and a delivery in memory, and the reader of real FITS.
"""

import gzip
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detector.frame import BadFrame
from stream.claims import Claims
from stream.commands.streaming import message_reader
from stream.fields import UnreadableError, sheets
from stream.framing import decode
from stream.messages import ANSWER_TOPICS, EXAMINED, FRAMES, LEFT_OUT, REJECTED, STREAKS, TOPICS, Message
from stream.metrics import Metrics
from stream.service import Limits, serve
from tests.detector.test_fits_fuzz import LIMITS, SEEDS
from tests.stream.nights import night, outputs_of
from tests.stream.stand_in import EXAMINER, findings, streaks

OURS = {"reason", "detail", "input-topic", "input-partition", "input-offset", "extension", LEFT_OUT, "answers"}


@pytest.fixture(scope="module")
def examiner(tmp_path_factory):
    """Reads as `run` does, one root of files and one elsewhere; finds two streaks in whatever is a frame."""
    root = tmp_path_factory.mktemp("root")
    (root / "frame.fits").write_bytes(SEEDS["plain"])
    (root / "text").write_bytes(b"no frame")
    return replace(
        EXAMINER,
        read=message_reader(None, LIMITS),
        examine=lambda frame: findings(frame.header, streaks(2, seed=3)),
        claims=Claims((root, "memory://night"), max_bytes=1_000_000),
        max_message_bytes=50_000,
    )


@pytest.fixture(scope="module")
def metrics():
    return Metrics()


class OneMessage:
    """A source that has one message, and the delivery of its answers."""

    joined = True

    def __init__(self, message):
        self.message = message
        self.delivered = []

    def take(self, _timeout_s):
        return self.message

    def begin(self, _message):
        return 0

    def lag(self):
        return {0: 1}

    def waiting(self):
        return 1, 10

    def deliver(self, outputs, message):
        assert message is self.message
        self.delivered.append(outputs)


def answers(message, examiner, metrics):
    """What the loop publishes about a message, checked as the broker's client and every subscriber need it."""
    one = OneMessage(message)
    assert serve(one, one, examiner, metrics, limits=Limits(count=1), stopping=lambda: False) == 1
    (outputs,) = one.delivered
    told = [output for output in outputs if output.topic in ANSWER_TOPICS]
    assert told
    for output in outputs:
        assert output.topic in TOPICS
        assert all(isinstance(value, bytes) and name.encode().decode() == name for name, value in output.headers)
        if output.topic == REJECTED:
            check_letter(output, message)
        else:
            assert decode(output.value)
    assert all(dict(output.headers)["answers"] == b"%d" % len(told) for output in told)
    return told


def check_letter(letter, message):
    """A dead letter is its message, untouched, with a reason that is one word."""
    said = dict(letter.headers)
    assert (letter.key, letter.value) == (message.key, message.value)
    assert [pair for pair in letter.headers if pair[0] not in OURS] == [
        pair for pair in message.headers if pair[0] not in OURS
    ]
    assert said["reason"].decode().replace("-", "").isalpha()
    assert said["detail"].decode().strip()


AVRO = outputs_of(night(movers=1, background=0), "e0")[0].value
OTHER_VERSION = AVRO.replace(b"needlestream", b"needlestreaN")
values = st.one_of(
    st.none(),
    st.binary(max_size=300),
    st.sampled_from(sorted(SEEDS)).map(SEEDS.get),
    st.sampled_from([b"SIMPLE", b"XIMPLE" + SEEDS["plain"][6:], b"Obj\x01", AVRO, OTHER_VERSION, b"{}", b"\0" * 3000]),
    st.builds(
        lambda whole, end: whole[:end], st.sampled_from([AVRO, SEEDS["many"], SEEDS["gzip"]]), st.integers(0, 9000)
    ),
    st.binary(max_size=200).map(lambda some: b"\x1f\x8b\x08" + some),
    st.binary(max_size=200).map(gzip.compress),
    st.just(b"x" * 50_001),
)
claims = st.one_of(
    st.text(max_size=60).map(str.encode),
    st.binary(max_size=60),
    st.builds(
        lambda *parts: "".join(parts).encode(),
        st.sampled_from(
            ["file:", "file://", "file://[", "FILE://", "http://", "memory://", "memory://night/", "s3://", "/"]
        ),
        st.text("[]@:/%.?#*\\ a1\0\u2100\uff0f\u00e9", max_size=20),
        st.sampled_from(["", "/frame.fits", "/../text", "]", "%00", "%2e%2e/text", "x" * 5000]),
    ),
)
words = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"0", b"1", b"-1", b"99", b"1e3", b"auto", b"euclid-vis", b"\xff\0"])
)
headers = st.lists(
    st.one_of(
        st.tuples(st.just("uri"), claims),
        st.tuples(
            st.sampled_from(
                ["extension", "survey", "exposure", "ccd", "field", "name", "replayed", *sorted(OURS), "copy-of"]
            ),
            words,
        ),
        st.tuples(st.text(max_size=10), st.binary(max_size=20)),
    ),
    max_size=6,
).map(tuple)
messages = st.builds(
    Message,
    st.just(FRAMES),
    st.integers(0, 7),
    st.integers(0, 2**63 - 1),
    st.none() | st.binary(max_size=20),
    values,
    headers,
    st.sampled_from([-1, 0, 1, 1_700_000_000_000, 2**63 - 1, -(2**63)]),
)


@given(messages)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@example(Message(FRAMES, 0, 1, None, None, (("uri", b"file://["),)))
@example(Message(FRAMES, 0, 1, b"k", b"", (("uri", "file://\u2100/a".encode()),)))
def test_whatever_a_message_holds_it_is_examined_or_a_dead_letter_untouched(examiner, metrics, message):
    answers(message, examiner, metrics)


@given(claims)
@settings(max_examples=300, deadline=None)
def test_whatever_a_claim_says_it_is_refused_or_a_file_under_its_root(examiner, claim):
    text = Message(FRAMES, 0, 0, None, None, (("uri", claim),)).header("uri")
    try:
        with examiner.claims.open(text or "") as file:
            assert file.read() in {SEEDS["plain"], b"no frame"}
    except BadFrame as bad:
        assert bad.reason in {"claim-refused", "claim-missing"}  # noqa: PT017 - either is an end


def test_a_claim_and_a_frame_are_examined_by_the_same_loop(examiner, metrics):
    root = examiner.claims.roots[0]
    for message in (
        Message(FRAMES, 0, 1, b"k", SEEDS["plain"]),
        Message(FRAMES, 0, 1, b"k", None, (("uri", f"file://{root}/frame.fits".encode()),)),
    ):
        assert [answer.topic for answer in answers(message, examiner, metrics)] == [EXAMINED]


@pytest.mark.parametrize("value", [AVRO, OTHER_VERSION])
def test_avro_among_the_frames_is_not_a_frame(examiner, metrics, value):
    (letter,) = answers(Message(FRAMES, 0, 1, b"k", value), examiner, metrics)
    assert dict(letter.headers)["reason"] == b"not-fits"


@given(st.integers(0, len(AVRO) - 1))
@settings(max_examples=100, deadline=None)
def test_an_alert_that_is_cut_off_gives_no_streaks(end):
    try:
        assert sheets(Message(STREAKS, 0, 0, b"k", AVRO[:end])) == []
    except UnreadableError as error:
        assert str(error)  # noqa: PT017 - either is an end


def test_an_alert_of_another_major_version_gives_no_streaks():
    with pytest.raises(UnreadableError, match="another major version than 1"):
        sheets(Message(STREAKS, 0, 0, b"k", AVRO.replace(b"needlestream.v1", b"needlestream.v9")))
