"""Topics, and the messages on them: frame messages in, dead letters out (alerts: ``stream.alerts``).

In: FITS bytes, or an empty value with a ``uri`` header (claim check) that points under an allowed root.

How it fails at night: a message that cannot be a frame (no value, a claim that leaves its root, a header that is no
number) is a ``BadFrame`` like any unreadable file, and ends among the dead letters with its bytes untouched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from detector.frame import BadFrame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detector.frame import Frame
    from stream.claims import Claims

FRAMES = "frames"
STREAKS = "streaks"
CANDIDATES = "candidates"
LENSES = "lenses"
MERGERS = "mergers"
TRACKS = "tracks"
EXAMINED = "frames.examined"
REJECTED = "frames.rejected"
TOPICS = (FRAMES, STREAKS, CANDIDATES, LENSES, MERGERS, TRACKS, EXAMINED, REJECTED)
ANSWER_TOPICS = (EXAMINED, REJECTED)
# What a frame's summary counts.
ALERT_TOPICS = (STREAKS, LENSES, MERGERS)

# Headers of streaks and candidates: rows and columns of their frame, which tell the linker what it could have shown; of
# a list that a neighbouring cell of the sky gets too: whose it is.
FRAME_SHAPE = "frame-shape"
COPY_OF = "copy-of"

# Header of a frame message: where the flag maps of its frames lie (a URI, as of a claim).
FLAGS_URI = "flags-uri"

# Header of a frame message, one for each: where another exposure of the same field lies (a URI, as of a claim).
OTHER_EXPOSURE = "other-exposure"

# Header of a frame message: the name of the run that replayed it from an archive. A frame without it is a live one.
REPLAYED = "replayed"

# Headers that are ours: how many summaries and dead letters a message led to; which dead letter is sent again.
ANSWERS = "answers"
REPLAY_OF = "replay-of"
# Header of a dead letter that is not all of its message: what is not there.
LEFT_OUT = "left-out"
# Reason of a dead letter that stands for messages which were gone before a worker had them.
EXPIRED = "expired"

MAX_DETAIL_CHARACTERS = 2000


@dataclass(frozen=True)
class Message:
    """A record of the frames topic as it came; ``timestamp_ms`` is Unix time.

    ``unread`` says why it cannot be had as it was sent; nothing of it is looked at then.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0
    unread: BadFrame | None = None

    @property
    def name(self) -> str:
        """``topic/partition/offset``: the frame's name in the stream."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> str | None:
        """Give the last header of that name as text, or None; an empty one counts as absent."""
        for key, value in reversed(self.headers):
            if key == name:
                return (value or b"").decode("utf-8", "replace") or None
        return None

    def all_headers(self, name: str) -> list[str]:
        """Give all headers of that name as text, in their order, but for empty ones."""
        return [value.decode("utf-8", "replace") for key, value in self.headers if key == name and value]

    @property
    def extension(self) -> int | None:
        """The only HDU that is meant, where the sender says so. Raises ``BadFrame``."""
        text = self.header("extension")
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 6:
            raise BadFrame("bad-header", f"header 'extension' is {text[:40]!r}; give the number of an HDU, such as 1")
        return int(text)


@dataclass(frozen=True)
class Output:
    """A record to be published: ``topic`` without prefix, value and headers as they go out.

    ``partition`` None: by the key.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


# --- in ---------------------------------------------------------------------------------------------------------------


def frame_source(message: Message, claims: Claims, *, max_message_bytes: int) -> bytes | BinaryIO:
    """Give the FITS bytes of a message, or the file that its ``uri`` points to, opened. Raises ``BadFrame``."""
    if message.unread is not None:
        raise message.unread
    if message.value:
        if len(message.value) > max_message_bytes:
            size = f"the message has {len(message.value)} bytes"
            raise BadFrame("too-large", f"{size}; the limit is {max_message_bytes} (max_message_bytes)")
        return message.value
    uri = message.header("uri")
    if uri is None:
        raise BadFrame("empty", "the message has neither FITS bytes nor a 'uri' header that says where they are")
    return claims.open(uri)


def as_message_says(frame: Frame, message: Message) -> Frame:
    """Give the frame with what the message's headers say of it; they win over the FITS header's words."""
    header = frame.header
    said = {word: message.header(name) for name, word in _IDENTITY.items()}
    answered = {word for word, value in said.items() if value is not None}
    if not answered:
        return frame
    return replace(
        frame,
        header=replace(
            header,
            exposure=said["no-exposure-id"] or header.exposure,
            ccd=said["no-ccd-id"] or header.ccd,
            field=said["no-field"] or header.field,
            flags=tuple(flag for flag in header.flags if flag not in answered),
        ),
    )


# Header of a message -> the frame's flag that says that it is not known.
_IDENTITY = {"exposure": "no-exposure-id", "ccd": "no-ccd-id", "field": "no-field"}


# --- out --------------------------------------------------------------------------------------------------------------


def dead_letter(message: Message, bad: BadFrame, *, extension: int | None) -> Output:
    """Give the rejected message: key, value and headers untouched, the reason in further headers behind them.

    A header of the sender's that has the name of one of those gives way. What could not be had of the message is left
    out, and named.
    """
    why = {
        "reason": bad.reason,
        "detail": bad.detail[:MAX_DETAIL_CHARACTERS],
        "input-topic": message.topic,
        "input-partition": str(message.partition),
        "input-offset": str(message.offset),
    }
    if extension is not None:
        why["extension"] = str(extension)
    if message.unread is not None:
        why[LEFT_OUT] = "value" if message.value is None else "headers"
    kept = tuple(pair for pair in message.headers if pair[0] not in why)
    return Output(REJECTED, message.key, message.value, kept + tuple((k, v.encode()) for k, v in why.items()))


def counted(outputs: Sequence[Output]) -> list[Output]:
    """Give the outputs with the number of all answers to the message in the headers of each answer."""
    answers = sum(output.topic in ANSWER_TOPICS for output in outputs)
    header = (ANSWERS, str(answers).encode())
    return [
        replace(output, headers=(*output.headers, header)) if output.topic in ANSWER_TOPICS else output
        for output in outputs
    ]


def without_values(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """Give the outputs with dead letters that leave their value out: for a topic that does not take it."""
    left_out = (LEFT_OUT, b"value")
    return tuple(
        replace(output, value=None, headers=(*output.headers, left_out))
        if output.topic == REJECTED and output.value
        else output
        for output in outputs
    )


def mjd_tai(unix_s: float) -> float:
    """Give the MJD in TAI of a Unix time. TAI - UTC is 37 s since 2017-01-01 (IERS Bulletin C); no earlier clock is."""
    return 40587.0 + (unix_s + 37.0) / 86400.0
