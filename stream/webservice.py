"""The door to web services that a program logs in to by itself: token endpoints, schema registries.

What fails at night: a service that is away or answers with an error. Both come out as what ``urllib`` raises
(``OSError``; of an answer its subclass ``HTTPError``), for the caller to say whose it was. Nobody is followed elsewhere
with our secret, and no answer is read beyond ``MAX_ANSWER_BYTES``.
"""

from __future__ import annotations

import base64
import ssl
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MAX_ANSWER_BYTES = 1 << 20
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def keeps_secrets(url: str) -> bool:
    """Say whether a secret may travel to a URL: by https, or within this machine."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def basic_login(user: str, password: str) -> str:
    """Give the value of the header ``Authorization`` for a user (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def answer_to(request: urllib.request.Request, *, ca: Path | None, patience_s: float) -> bytes:
    """Give the body of an answer; ``ca`` is trusted beside the system's authorities. Raises ``OSError``."""
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
    with opener.open(request, timeout=patience_s) as answer:
        return bytes(answer.read(MAX_ANSWER_BYTES))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere with our secret."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none: the redirect is then an ``HTTPError``."""
        return
