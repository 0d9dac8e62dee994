"""``needlestream watch``: the live page, put together.

It follows the output topics like any subscriber and has no say in anything: to stop it, or to start ten of them,
changes nothing for the workers. How it fails at night: it stays up when the broker is away, and the page says so; only
a port that is taken ends it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import structlog

from detector.fits import read_frames
from detector.survey import SURVEYS
from stream.broker import BrokerError
from stream.schemaregistry import schemas
from stream.signals import stop_signals
from stream.watching.follower import Follower
from stream.watching.night import Night
from stream.watching.pictures import SIDES, PictureCache, cut_out, frame_picture
from stream.watching.pixels import FrameShelf
from stream.watching.server import Content, server

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer
    from typing import BinaryIO

    from detector.fitsheader import Limits
    from stream.settings import Settings
    from stream.watching.records import Key

log = structlog.get_logger()

TICK_S = 10.0  # the sparklines move on by themselves


class Watch:
    """A running page: ``url`` says where. ``close`` ends it."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self.settings = settings
        self.night = Night(schemas(settings))
        self.follower = Follower(settings, self.night)
        self.shelf = FrameShelf(settings, _reader(settings, limits))
        self.pictures = PictureCache()
        self.started_s = time.time()
        self.http = _bound(self._content(), settings)
        self.url = f"http://{settings.watch_address}:{self.http.server_port}/"

    def serve(self) -> None:
        """Follow and answer until ``close``."""
        self.follower.start()
        self.http.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """End all threads."""
        self.http.shutdown()
        self.http.server_close()
        self.follower.stop()

    def _content(self) -> Content:
        return Content(self._state, self.night.frame, self.night.frames_of, self._picture, self._cutout)

    def _state(self) -> tuple[str, Any]:
        now = time.time()
        # Of this process alone: a page that outlives it must not take another's version for its own.
        version = f'"{self.started_s:.3f}-{self.night.version}-{int(now // TICK_S)}"'
        link = self.follower.link
        return version, self.night.shown(now) | {
            "now": now,
            "epoch": f"{self.started_s:.0f}.{self.night.epoch}",
            "started": self.started_s,
            "past_s": self.settings.watch_past_s,
            "prefix": self.settings.topic_prefix,
            "group": self.settings.group_id,
            "link": vars(link),
        }

    def _picture(self, key: Key, size: str) -> tuple[str, bytes]:
        epoch = self.night.epoch
        return self.pictures.get(
            (epoch, key, size), lambda: frame_picture(self.shelf.frame(key, epoch).pixels, SIDES[size])
        )

    def _cutout(self, key: Key, ends: tuple[float, float, float, float]) -> tuple[str, bytes]:
        epoch = self.night.epoch
        return self.pictures.get((epoch, key, ends), lambda: cut_out(self.shelf.frame(key, epoch).pixels, ends))


def run_watch(settings: Settings, limits: Limits) -> None:
    """Serve the page until SIGTERM or SIGINT. Raises ``BrokerError`` when the port cannot be had."""
    watch = Watch(settings, limits)
    with stop_signals() as signals:
        thread = threading.Thread(target=watch.serve, daemon=True)
        thread.start()
        log.info("live page served", url=watch.url)
        while not signals and thread.is_alive():
            thread.join(0.2)
    watch.close()
    log.info("live page stopped")


def _bound(content: Content, settings: Settings) -> ThreadingHTTPServer:
    try:
        return server(content, settings.watch_address, settings.watch_port)
    except OSError as error:
        raise BrokerError(
            f"watch_address {settings.watch_address}, watch_port {settings.watch_port}: {error.strerror or error}; "
            "is another page running there? --watch-port 0 takes any free one"
        ) from None


def _reader(settings: Settings, limits: Limits) -> Any:
    """Give how the pixels of a message are read: as the workers do, by the survey that is set."""

    def read(source: bytes | BinaryIO, *, name: str, survey: str | None, extension: int) -> Any:
        profile = SURVEYS.get(survey or settings.survey)
        return read_frames(source, name=name, survey=profile, limits=limits, extension=extension)

    return read
