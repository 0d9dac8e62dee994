"""The page's own HTTP server: reads alone, a fixed list of files, JSON, and pictures.

What it trusts: nobody. Only GET and HEAD; paths are compared with patterns, never opened; the browser is told to load
nothing from elsewhere and to run nothing but the page's own scripts. Bound to the loopback address it answers requests
for this machine's names alone, so that a foreign web page cannot read it by a name of its own (DNS rebinding). It has
neither users nor encryption: towards others it belongs behind a proxy that has.

How it fails at night: a client that sends nothing is cut off after ``PATIENCE_S``, more than ``MOST_AT_ONCE`` at once
are told to come back (503).
"""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from stream.watching.pictures import SIDES, told
from stream.watching.pixels import NoPixelsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream.watching.records import Key

PATIENCE_S = 15.0
MOST_AT_ONCE = 64
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/elements.js": ("elements.js", "text/javascript; charset=utf-8"),
    "/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/drawing.js": ("drawing.js", "text/javascript; charset=utf-8"),
    "/sections.js": ("sections.js", "text/javascript; charset=utf-8"),
    "/details.js": ("details.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
LEAST_ZIPPED = 1400  # bytes: below that it is one packet anyway
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_FRAME = re.compile(r"/(frame|picture|cutout)/(\d{1,9})/(\d{1,18})/(\d{1,6})")


@dataclass(frozen=True)
class Content:
    """What the page can ask for; each is called by many threads."""

    state: Callable[[], tuple[str, Any]]  # its version, and what the page shows at first sight
    frame: Callable[[Key], Any | None]
    frames_of: Callable[[str], Any]
    picture: Callable[[Key, str], tuple[str, bytes]]  # raises NoPixelsError
    cutout: Callable[[Key, tuple[float, float, float, float]], tuple[str, bytes]]  # the same


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: HTTPStatus
    kind: str = "text/plain; charset=utf-8"
    body: bytes = b""
    cache: str = "no-store"
    version: str | None = None


def server(content: Content, address: str, port: int) -> ThreadingHTTPServer:
    """Give a server that is bound and not yet running. Raises ``OSError``."""
    page = resources.files("stream.page")
    files = {path: (kind, page.joinpath(name).read_bytes()) for path, (name, kind) in FILES.items()}
    rooms = threading.BoundedSemaphore(MOST_AT_ONCE)
    loopback = _LOOPBACK.fullmatch(f"[{address}]" if ":" in address else address) is not None

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        timeout = PATIENCE_S
        protocol_version = "HTTP/1.1"
        server_version = "needlestream"
        sys_version = ""

        def do_GET(self) -> None:
            """Answer with head and body."""
            if not rooms.acquire(blocking=False):
                self._send(_refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many at once"))
                return
            try:
                if loopback and not _LOOPBACK.fullmatch(self.headers.get("Host", "")):
                    self._send(_refused(HTTPStatus.MISDIRECTED_REQUEST, "this page is for this machine's own names"))
                    return
                self._send(reply(self.path, self.headers.get("If-None-Match"), content, files))
            finally:
                rooms.release()

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Keep quiet: a page asks every second or two."""

        def _send(self, answer: Reply) -> None:
            body = answer.body
            zipped = (
                len(body) > LEAST_ZIPPED
                and not answer.kind.startswith(("image/jpeg", "image/png"))
                and "gzip" in self.headers.get("Accept-Encoding", "")
            )
            body = gzip.compress(body, 3) if zipped else body
            self.send_response(answer.status)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Cache-Control", answer.cache)
            if answer.version is not None:
                self.send_header("ETag", answer.version)
            if zipped:
                self.send_header("Content-Encoding", "gzip")
            if answer.status != HTTPStatus.NOT_MODIFIED:
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and answer.status != HTTPStatus.NOT_MODIFIED:
                self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        """Threads that do not keep the process."""

        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Keep quiet about clients that went away; a defect of ours has its traceback on standard error."""
            if not isinstance(sys.exception(), ConnectionError | TimeoutError):
                super().handle_error(request, client_address)

    return Server((address, port), Handler)


def reply(path: str, held_version: str | None, content: Content, files: dict[str, tuple[str, bytes]]) -> Reply:
    """Give the answer to one path."""
    parts = urlsplit(path)
    if parts.path in files:
        kind, body = files[parts.path]
        return Reply(HTTPStatus.OK, kind, body, "no-cache")
    if parts.path == "/state":
        version, _ = state = content.state()
        if held_version == version:
            return Reply(HTTPStatus.NOT_MODIFIED, version=version)
        return _json(state[1], version)
    query = {name: values[-1] for name, values in parse_qs(parts.query, max_num_fields=8).items()}
    if parts.path == "/ccd":
        return _json(content.frames_of(unquote(query.get("name", ""))))
    found = _FRAME.fullmatch(parts.path)
    if found is None:
        return _refused(HTTPStatus.NOT_FOUND, "no such page")
    return _of_frame(found[1], (int(found[2]), int(found[3]), int(found[4])), query, content)


def _of_frame(what: str, key: Key, query: dict[str, str], content: Content) -> Reply:
    if what == "frame":
        seen = content.frame(key)
        return _refused(HTTPStatus.NOT_FOUND, "not remembered any more") if seen is None else _json(seen)
    try:
        if what == "picture":
            kind, body = content.picture(key, query["size"] if query.get("size") in SIDES else "large")
        else:
            ends = _ends(query.get("ends", ""))
            if ends is None:
                return _refused(HTTPStatus.BAD_REQUEST, "ends: give x0,y0,x1,y1 in pixels")
            kind, body = content.cutout(key, ends)
    except NoPixelsError as error:
        # As a picture, where people look for one; to the browser a missing picture is an error in its console.
        return Reply(HTTPStatus.OK, *told(f"No pixels. {error}"))
    return Reply(HTTPStatus.OK, kind, body, "private, max-age=600")


def _ends(text: str) -> tuple[float, float, float, float] | None:
    try:
        x0, y0, x1, y1 = (float(word) for word in text.split(","))
    except ValueError:
        return None
    if not all(math.isfinite(value) and abs(value) < 1e6 for value in (x0, y0, x1, y1)):
        return None
    return x0, y0, x1, y1


def _json(value: Any, version: str | None = None) -> Reply:
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return Reply(HTTPStatus.OK, "application/json", body, version=version)


def _refused(status: HTTPStatus, why: str) -> Reply:
    return Reply(status, body=why.encode())
