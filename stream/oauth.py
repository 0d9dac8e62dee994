"""Tokens for OAUTHBEARER: from a file, from the settings, or from a token endpoint with client credentials.

A file is read again for each login, so that whoever renews it need not restart anybody; an endpoint is asked again when
a tenth of its token's life is left. What fails at night: a token that nobody renewed, an endpoint that is away or
refuses the client. Each is a ``TokenError`` that says which, and never what the token or the secret is.

Sources: RFC 7628 (OAUTHBEARER), RFC 6749 section 4.4 (client credentials), RFC 7519 section 4.1.4 (``exp``).
"""

from __future__ import annotations

import base64
import binascii
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from kafka.net.sasl.oauth import AbstractTokenProvider

from stream.webservice import answer_to, basic_login, keeps_secrets

if TYPE_CHECKING:
    from stream.settings import Settings

PATIENCE_S = 10.0
LIFE_LEFT = 0.1  # of a token's life, when the next one is fetched
UNSAID_LIFE_S = 300.0  # of a token whose endpoint does not say how long it lives (RFC 6749 only recommends it)


class TokenError(Exception):
    """There is no token that could be used; the text says where it should have come from."""


class Tokens(AbstractTokenProvider):
    """Gives a token that has not expired, from where the settings say."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self._lock = Lock()
        self._kept = ""
        self._until_s = 0.0

    @property
    def origin(self) -> str:
        """Say where the token comes from: the setting and its value."""
        if self.settings.sasl_oauth_token_url:
            return f"sasl_oauth_token_url ({self.settings.sasl_oauth_token_url})"
        if self.settings.sasl_oauth_token_file:
            return f"sasl_oauth_token_file ({self.settings.sasl_oauth_token_file})"
        return "sasl_oauth_token"

    def token(self) -> str:
        """Give the token for one login. Raises ``TokenError``."""
        with self._lock:
            if self.settings.sasl_oauth_token_url:
                return self._from_endpoint(self.settings.sasl_oauth_token_url)
            token = self._given()
        expiry_s = expires(token)
        if expiry_s is not None and expiry_s <= time.time():
            when = datetime.fromtimestamp(expiry_s, UTC).isoformat(timespec="seconds")
            raise TokenError(f"the token of {self.origin} expired at {when}: it has to be renewed")
        return token

    def _given(self) -> str:
        file = self.settings.sasl_oauth_token_file
        if file is None:
            secret = self.settings.sasl_oauth_token
            return "" if secret is None else secret.get_secret_value().strip()
        try:
            token = file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise TokenError(f"{self.origin}: {error.strerror}") from None
        except UnicodeDecodeError:
            token = ""
        if not token or any(letter.isspace() for letter in token):
            raise TokenError(f"{self.origin} does not hold one token and nothing else")
        return token

    def _from_endpoint(self, url: str) -> str:
        now_s = time.monotonic()
        if now_s >= self._until_s:
            answer = ask(url, self.settings)
            token, life_s = answer.get("access_token"), answer.get("expires_in", UNSAID_LIFE_S)
            if not isinstance(token, str) or not token:
                raise TokenError(f"{self.origin} answers without an access_token")
            life_s = float(life_s) if isinstance(life_s, int | float | str) and _is_number(life_s) else UNSAID_LIFE_S
            self._kept, self._until_s = token, now_s + (1.0 - LIFE_LEFT) * life_s
        return self._kept


def expires(token: str) -> float | None:
    """Give the Unix time at which a JSON Web Token expires by its own word; None for any other token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None


def ask(url: str, settings: Settings) -> dict[str, Any]:
    """Give a token endpoint's answer to our client credentials. Raises ``TokenError``."""
    where = f"sasl_oauth_token_url ({url})"
    if not keeps_secrets(url):
        raise TokenError(f"{where}: only https is used, since the client's secret travels there")
    form = {"grant_type": "client_credentials"}
    if settings.sasl_oauth_scope:
        form["scope"] = settings.sasl_oauth_scope
    secret = settings.sasl_oauth_client_secret
    login = basic_login(settings.sasl_oauth_client_id or "", "" if secret is None else secret.get_secret_value())
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        url,
        urllib.parse.urlencode(form).encode(),
        {"Authorization": login, "Accept": "application/json"},
    )
    try:
        told = json.loads(answer_to(request, ca=settings.tls_ca, patience_s=PATIENCE_S))
    except urllib.error.HTTPError as error:
        hint = ": are sasl_oauth_client_id and sasl_oauth_client_secret right?" if error.code in {400, 401, 403} else ""
        raise TokenError(f"{where} answers {error.code} {error.reason}{hint}") from None
    except (OSError, ValueError) as error:  # URLError is an OSError; what is no JSON a ValueError
        raise TokenError(f"{where} gives no token: {getattr(error, 'reason', error)}") from None
    if not isinstance(told, dict):
        raise TokenError(f"{where} answers something else than a JSON object")
    return told


def _is_number(value: float | str) -> bool:
    try:
        return float(value) > 0.0
    except ValueError:
        return False
