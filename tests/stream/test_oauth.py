"""Tokens: where they come from, when they are fetched again, and that no secret is told to anybody else."""

import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from stream import oauth
from stream.oauth import TokenError, Tokens
from stream.settings import load_settings
from tests.secure_broker import make_authority, make_certificate

SECRET = "kept-under-the-hat"


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.headers["Authorization"], body))
        status, answer = self.server.answer
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://example.org/")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    server.asked, server.answer = [], (200, b'{"access_token": "abc", "expires_in": 3600}')
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def tokens(url, **more):
    given = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_url": url}
    given |= {"sasl_oauth_client_id": "me", "sasl_oauth_client_secret": SECRET, "sasl_oauth_scope": "kafka"}
    return Tokens(load_settings(None, {**given, **more}))


def url_of(server, scheme="http"):
    return f"{scheme}://127.0.0.1:{server.server_port}/token"


def test_an_endpoint_is_asked_with_client_credentials_and_again_only_near_the_end_of_a_token(endpoint, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(oauth.time, "monotonic", lambda: now[0])
    mine = tokens(url_of(endpoint))
    assert mine.token() == mine.token() == "abc"
    assert len(endpoint.asked) == 1
    login, body = endpoint.asked[0]
    assert base64.b64decode(login.removeprefix("Basic ")).decode() == f"me:{SECRET}"
    assert body == "grant_type=client_credentials&scope=kafka"
    now[0] += 3300.0
    endpoint.answer = 200, b'{"access_token": "def"}'
    assert mine.token() == "def"


@pytest.mark.parametrize(
    ("status", "answer", "says"),
    [
        (401, b"no", "answers 401 .*sasl_oauth_client_secret"),
        (500, b"", "answers 500"),
        (302, b"", "answers 302"),
        (200, b"<html>", "gives no token"),
        (200, b"[]", "something else than a JSON object"),
        (200, b'{"token": "abc"}', "without an access_token"),
    ],
)
def test_an_endpoint_that_gives_no_token_is_named_without_the_secret(endpoint, status, answer, says):
    endpoint.answer = status, answer
    with pytest.raises(TokenError, match=says) as refusal:
        tokens(url_of(endpoint)).token()
    assert url_of(endpoint) in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_an_endpoint_that_is_away_is_named(endpoint):
    endpoint.shutdown()
    endpoint.server_close()
    with pytest.raises(TokenError, match="Connection refused"):
        tokens(url_of(endpoint)).token()


@pytest.mark.parametrize("url", ["http://example.org/token", "file:///etc/passwd", "ftp://127.0.0.1/"])
def test_a_secret_goes_to_https_only(url):
    with pytest.raises(TokenError, match="only https"):
        tokens(url).token()


def test_an_endpoint_in_tls_is_believed_by_the_authority_in_tls_ca_alone(endpoint, tmp_path):
    make_authority(tmp_path, "authority")
    make_authority(tmp_path, "stranger")
    make_certificate(tmp_path, "server", "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    endpoint.socket = context.wrap_socket(endpoint.socket, server_side=True)
    url = url_of(endpoint, "https")
    assert tokens(url, tls_ca=tmp_path / "authority.pem").token() == "abc"
    with pytest.raises(TokenError, match="CERTIFICATE_VERIFY_FAILED"):
        tokens(url, tls_ca=tmp_path / "stranger.pem").token()


def test_a_token_file_holds_one_token_and_nothing_else(tmp_path):
    mine = tokens(None, sasl_oauth_token_file=tmp_path / "token")
    for content in ("", "a b", "ä"):
        (tmp_path / "token").write_text(content)
        with pytest.raises(TokenError, match="one token and nothing else"):
            mine.token()
    (tmp_path / "token").write_text("opaque\n")
    assert mine.token() == "opaque"


@pytest.mark.parametrize("odd", ["a.b.c", "a.e30.c", "...", "opaque", "a." + base64.b64encode(b"[1]").decode() + ".c"])
def test_a_token_that_does_not_say_when_it_expires_is_left_to_the_broker(odd):
    assert oauth.expires(odd) is None


def test_a_token_says_when_it_expires():
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1234}).encode()).rstrip(b"=").decode()
    assert oauth.expires(f"e30.{claims}.") == 1234
