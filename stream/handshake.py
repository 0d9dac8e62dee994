"""The first words with a broker, spoken by ourselves: why it does not let us in, in a second and by name.

The client retries a refused certificate or login for as long as it retries a broker that is away, and says of both that
it cannot bootstrap. So before the client begins, and again when it has given up, the same settings are tried here by
hand: TCP, TLS, the login. What fails at night: a certificate that ran out, a password that was changed, a token that
nobody renewed; each comes out as one sentence with the setting to look at.

Nothing that is secret gets into an error. Sources: Kafka's protocol guide; KIP-43 and KIP-152 (SaslHandshake,
SaslAuthenticate).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any

from kafka.net.sasl import get_sasl_mechanism

from stream.oauth import TokenError, Tokens

if TYPE_CHECKING:
    from stream.settings import Settings

PATIENCE_S = 5.0
# Answers to what is asked here are some hundred bytes; what is longer is no answer of Kafka's.
MAX_ANSWER_BYTES = 1 << 20
_METADATA, _SASL_HANDSHAKE, _SASL_AUTHENTICATE = 3, 17, 36
_CLIENT = b"needlestream"
_ILLEGAL_SASL_STATE, _UNSUPPORTED_MECHANISM = 34, 33


class HandshakeError(Exception):
    """The broker is there and does not let us in; the text says why, and which setting to look at."""


class _ClosedError(Exception):
    """The other side closed the connection, or did not answer as Kafka does."""


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Give what the settings say of TLS: authority, own certificate; host names are always checked.

    Raises ``HandshakeError`` for files that are missing or are something else.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    password = settings.tls_key_password
    try:
        if settings.tls_ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(settings.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise HandshakeError(f"tls_ca ({settings.tls_ca}) is no PEM file of certificates: {error}") from None
    try:
        if settings.tls_cert is not None:
            # Never None: OpenSSL would ask for the password on the terminal, for ever.
            given = "" if password is None else password.get_secret_value()
            context.load_cert_chain(settings.tls_cert, settings.tls_key, given)
    except (OSError, ssl.SSLError) as error:
        files = f"tls_cert ({settings.tls_cert}) and tls_key ({settings.tls_key or 'in the same file'})"
        raise HandshakeError(
            f"{files} are no certificate with its key, or tls_key_password is wrong: {error}"
        ) from None
    return context


def login_options(settings: Settings) -> dict[str, Any]:
    """Give what kafka-python's mechanisms need to log in; empty where nobody asks for a login."""
    if settings.sasl_mechanism is None:
        return {}
    options: dict[str, Any] = {"sasl_mechanism": settings.sasl_mechanism}
    if settings.sasl_mechanism == "OAUTHBEARER":
        return options | {"sasl_oauth_token_provider": Tokens(settings)}
    password = settings.sasl_password
    return options | {
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": None if password is None else password.get_secret_value(),
    }


def shake_hands(settings: Settings, host: str, port: int) -> None:
    """Connect and log in as the settings say, and leave.

    Raises ``OSError`` where nothing listens, ``HandshakeError`` where we are not let in.
    """
    with contextlib.closing(_connected(settings, host, port)) as connection:
        try:
            if "SASL" in settings.security_protocol:
                _log_in(connection, settings)
            else:
                _call(connection, _METADATA, 1, struct.pack(">i", 0))
        except ssl.SSLError as error:
            raise HandshakeError(_of_our_certificate(error, settings)) from None
        except (_ClosedError, OSError):
            raise HandshakeError(_wrong_protocol(settings, host, port)) from None


def _connected(settings: Settings, host: str, port: int) -> socket.socket:
    """Give a connection, in TLS where the settings say so."""
    plain = socket.create_connection((host, port), timeout=PATIENCE_S)
    if "SSL" not in settings.security_protocol:
        return plain
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(plain.close)
        context = tls_context(settings)
        try:
            secure = context.wrap_socket(plain, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise HandshakeError(_of_their_certificate(error, settings, host)) from None
        except OSError as error:
            if isinstance(error, ssl.SSLError) and "ALERT" in str(error.reason):
                raise HandshakeError(_of_our_certificate(error, settings)) from None
            raise HandshakeError(_wrong_protocol(settings, host, port)) from None
        cleanup.pop_all()
        return secure


# --- what to say ------------------------------------------------------------------------------------------------------

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAME = {62, 64}


def _of_their_certificate(error: ssl.SSLCertVerificationError, settings: Settings, host: str) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate has expired: it has to be renewed there (or this machine's clock is wrong)"
    if error.verify_code == _NOT_YET:
        return "its certificate is not valid yet: is this machine's clock right?"
    if error.verify_code in _OTHER_NAME:
        return f"its certificate is for another name than {host!r}: use a name that it has in bootstrap_servers"
    authority = settings.tls_ca or "not set: the system's authorities"
    return f"the authority in tls_ca ({authority}) did not sign its certificate ({error.verify_message})"


def _of_our_certificate(error: ssl.SSLError, settings: Settings) -> str:
    reason = str(error.reason)
    if settings.tls_cert is None and ("CERTIFICATE" in reason or "HANDSHAKE_FAILURE" in reason):
        return "it asks for a certificate of our own: set tls_cert and tls_key"
    if "UNKNOWN_CA" in reason or "CERTIFICATE" in reason:
        return f"it refuses our certificate, tls_cert ({settings.tls_cert}): another authority, or expired? ({reason})"
    return f"TLS with it fails: {reason or error}"


def _wrong_protocol(settings: Settings, host: str, port: int) -> str:
    """Say what the other side speaks, having tried; ours it does not."""
    ours = f"security_protocol is {settings.security_protocol}"
    secure = _speaks_tls(host, port)
    if secure != ("SSL" in settings.security_protocol):
        wants = "speaks TLS" if secure else "does not speak TLS"
        right = settings.security_protocol.replace("SASL_PLAINTEXT", "SASL_SSL").replace("PLAINTEXT", "SSL")
        if not secure:
            right = settings.security_protocol.replace("SASL_SSL", "SASL_PLAINTEXT")
            right = "PLAINTEXT" if right == "SSL" else right
        return f"it {wants}, and {ours}: {right}, or another port"
    if "SASL" not in settings.security_protocol:
        return f"it closes the connection, and {ours}: does it ask for a login (SASL_{settings.security_protocol})?"
    return f"it does not answer as a Kafka broker does ({ours}): is the port right?"


def _speaks_tls(host: str, port: int) -> bool:
    """Tell whether there is TLS at all, whoever signed for it; nothing is sent through it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except OSError:
        return False


# --- the login --------------------------------------------------------------------------------------------------------


def _log_in(connection: socket.socket, settings: Settings) -> None:
    """Go through the login; raises ``HandshakeError`` where it is refused."""
    wanted = str(settings.sasl_mechanism)
    code, mechanisms = _mechanisms(_call(connection, _SASL_HANDSHAKE, 1, _text(wanted.encode())))
    if code == _ILLEGAL_SASL_STATE:
        plain = settings.security_protocol.removeprefix("SASL_")
        raise HandshakeError(
            f"it asks for no login, and security_protocol is {settings.security_protocol}: {plain}, or another port"
        )
    if code == _UNSUPPORTED_MECHANISM or wanted not in mechanisms:
        raise HandshakeError(f"it does not take sasl_mechanism {wanted}; it takes {', '.join(mechanisms) or 'none'}")
    options = login_options(settings)
    mechanism = get_sasl_mechanism(wanted)(security_protocol=None, host="", **options)
    while not mechanism.is_done():
        try:
            mine = mechanism.auth_bytes()
        except TokenError as error:
            raise HandshakeError(str(error)) from None
        answer = _call(connection, _SASL_AUTHENTICATE, 0, struct.pack(">i", len(mine)) + mine)
        (code,) = struct.unpack_from(">h", answer)
        said, rest = _string(answer, 2)
        if code:
            raise HandshakeError(_refused(settings, said))
        try:
            mechanism.receive(answer[rest + 4 :])
        except ValueError as error:  # SCRAM: the broker does not know the password that it lets us in with
            raise HandshakeError(
                f"it does not prove that it knows the password ({error}): is it the right one?"
            ) from None


def _refused(settings: Settings, said: str) -> str:
    if settings.sasl_mechanism == "OAUTHBEARER":
        return f"it refuses the token of {Tokens(settings).origin}: expired, or not meant for it? It says: {said}"
    return (
        f"it refuses the login: user name (sasl_username {settings.sasl_username!r}) or sasl_password is wrong for "
        f"{settings.sasl_mechanism}. It says: {said}"
    )


# --- the wire ---------------------------------------------------------------------------------------------------------


def _call(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """Ask one thing; gives the answer behind its correlation id."""
    request = struct.pack(">hhi", api, version, 1) + _text(_CLIENT) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    if not 4 < size <= MAX_ANSWER_BYTES:
        raise _ClosedError
    return _exactly(connection, size)[4:]


def _exactly(connection: socket.socket, count: int) -> bytes:
    pieces = b""
    while len(pieces) < count:
        piece = connection.recv(count - len(pieces))
        if not piece:
            raise _ClosedError
        pieces += piece
    return pieces


def _text(words: bytes) -> bytes:
    return struct.pack(">h", len(words)) + words


def _string(answer: bytes, start: int) -> tuple[str, int]:
    """Give a nullable string, and where it ends."""
    (length,) = struct.unpack_from(">h", answer, start)
    stop = start + 2 + max(0, length)
    return answer[start + 2 : stop].decode("utf-8", "replace"), stop


def _mechanisms(answer: bytes) -> tuple[int, list[str]]:
    """Give the error code and the mechanisms of an answer to SaslHandshake."""
    code, count = struct.unpack_from(">hi", answer)
    names, start = [], 6
    for _ in range(min(count, 100)):
        name, start = _string(answer, start)
        names.append(name)
    return code, names
