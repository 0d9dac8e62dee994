"""The other exposures of a field that a message names: opened as claims are, read, and prepared once.

A message may say in headers ``other-exposure``, one URI each, where exposures of the same field lie. Of each the frames
are taken that show the field of the message's frame in the same night; what is prepared is kept, up to a bound of
memory, for the next exposure of the field names nearly the same.

What fails at night: an exposure that may not be followed, is not there or cannot be read is left out, logged, and the
frame is flagged ``other-exposures-unread``; the frame itself is examined all the same. Errors of the machine (a root
that is away, memory) stop the worker as everywhere.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import structlog

from detector.frame import BadFrame
from detector.pointing import EXPOSURES_TOGETHER, pointing_of
from stream.exposures import Exposure, PreparedFrames, exposure_of
from stream.messages import OTHER_EXPOSURE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from detector.fits import Reading
    from detector.frame import Frame
    from detector.preparation import Prepared
    from stream.claims import Claims
    from stream.messages import Message

log = structlog.get_logger()


class OtherExposures:
    """What a worker needs to look at other exposures, and those that it looked at last, in ``max_bytes`` at most."""

    def __init__(
        self, claims: Claims, read: Callable[..., Reading], prepare: Callable[[Frame], Prepared], max_bytes: int
    ) -> None:
        self.claims = claims
        self.read = read
        self.prepared = PreparedFrames(prepare, max_bytes)

    @contextlib.contextmanager
    def named_by(self, message: Message) -> Iterator[Named]:
        """Open what a message names, as long as it is looked at."""
        with contextlib.ExitStack() as opened:
            yield Named(self, message, opened)


class Named:
    """The exposures that one message names; opened at the first frame that asks for them."""

    def __init__(self, others: OtherExposures, message: Message, opened: contextlib.ExitStack) -> None:
        self.others = others
        self.message = message
        self.opened = opened
        self.uris = tuple(dict.fromkeys(message.all_headers(OTHER_EXPOSURE)))[: EXPOSURES_TOGETHER - 1]
        self.exposures: tuple[Exposure, ...] | None = None
        self.unread = False

    def __bool__(self) -> bool:
        """Say whether the message names any."""
        return bool(self.uris)

    def beside(self, frame: Frame) -> tuple[Prepared, ...]:
        """Give what shows the field of ``frame``, in the order in which the message names it."""
        if self.exposures is None:
            self.exposures = tuple(filter(None, map(self._opened, self.uris)))
        field = pointing_of(frame.header)
        if field is None:
            return ()
        shown = []
        for exposure in self.exposures:
            try:
                shown.append(self.others.prepared.showing(field, exposure))
            except BadFrame as bad:
                self._leave_out(exposure.reading.name, bad)
        return tuple(one for one in shown if one is not None)

    def _opened(self, uri: str) -> Exposure | None:
        try:
            file, version = self.others.claims.open_known(uri)
            self.opened.enter_context(contextlib.closing(file))
            reading = self.others.read(file, name=uri, survey=self.message.header("survey"), extension=None)
        except BadFrame as bad:
            self._leave_out(uri, bad)
            return None
        return exposure_of(reading, version)

    def _leave_out(self, uri: str, bad: BadFrame) -> None:
        self.unread = True
        log.warning("other exposure left out", name=self.message.name, uri=uri, reason=bad.reason, detail=bad.detail)
