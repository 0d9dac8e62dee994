"""A schema registry: where the schemas of messages in Confluent framing lie, by number.

Schemas are registered when a worker or linker starts, each under ``TOPIC-value``, so that nothing is begun while the
registry is away, and nothing of it is needed afterwards. Who reads asks once for each number that it meets.

How it fails at night: a registry that is away, refuses the login, or refuses a schema as incompatible with what it has,
is a ``RegistryError`` that says which: the program ends with nothing acknowledged. A number that the registry does not
know is a message that cannot be read, and no failure of the registry.

Source of the interface: the Schema Registry API reference of Confluent (``POST /subjects/(subject)/versions``,
``GET /schemas/ids/{id}``), which Karapace and Apicurio serve too.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import fastavro

from stream.broker import BrokerError
from stream.framing import CONTAINERS, SCHEMA_VERSION, SCHEMAS, Confluent, no_registry, schema_text
from stream.messages import CANDIDATES
from stream.webservice import answer_to, basic_login

if TYPE_CHECKING:
    from stream.framing import Framing, SchemaOf
    from stream.settings import Settings

PATIENCE_S = 10.0
MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
MOST_UNKNOWN = 10_000  # numbers remembered as unknown: strangers' rubbish must not ask the registry for ever


class RegistryError(BrokerError):
    """The registry cannot be used or refused us; the text says which, what, and what to do."""


class SchemaRegistry:
    """Registers schemas and gives those of others; each is asked for once."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self.url = url.rstrip("/")
        self.where = f"schema_registry_url ({url})"
        self._schemas: dict[int, Any] = {}
        self._unknown: set[int] = set()

    def register(self, subject: str, name: str) -> int:
        """Give the number of our schema ``name`` under a subject. Raises ``RegistryError``."""
        text = json.dumps(json.loads(schema_text(name)))
        told = self._ask(f"/subjects/{urllib.parse.quote(subject, safe='')}/versions", {"schema": text})
        number = told.get("id")
        if not isinstance(number, int) or not 0 <= number < 2**32:
            raise RegistryError(f"{self.where} answers without the schema's number (id)")
        self._schemas[number] = fastavro.parse_schema(json.loads(text))
        return number

    def schema_of(self, number: int) -> Any:
        """Give the schema with this number. Raises ``LookupError`` for one that is unknown, ``RegistryError``."""
        if number in self._unknown:
            raise LookupError(f"{self.where} has no schema {number}")
        if number not in self._schemas:
            try:
                told = self._ask(f"/schemas/ids/{number}", None)
            except LookupError:
                if len(self._unknown) < MOST_UNKNOWN:
                    self._unknown.add(number)
                raise
            self._schemas[number] = fastavro.parse_schema(json.loads(str(told.get("schema"))))
        return self._schemas[number]

    def _ask(self, path: str, told: dict[str, str] | None) -> dict[str, Any]:
        """Give the answer to a question, which with ``told`` is a POST."""
        headers = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
        user, password = self.settings.schema_registry_username, self.settings.schema_registry_password
        if user is not None and password is not None:
            headers["Authorization"] = basic_login(user, password.get_secret_value())
        body = None if told is None else json.dumps(told).encode()
        request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310 - the settings check the scheme
        try:
            answer = json.loads(answer_to(request, ca=self.settings.schema_registry_ca, patience_s=PATIENCE_S))
        except urllib.error.HTTPError as error:
            raise self._refusal(error, path) from None
        except (OSError, ValueError) as error:  # URLError is an OSError; what is no JSON a ValueError
            reason = getattr(error, "reason", error)
            raise RegistryError(
                f"{self.where} does not answer: {reason}. Is it running, and is the URL right?"
            ) from None
        if not isinstance(answer, dict):
            raise RegistryError(f"{self.where} answers something else than a JSON object")
        return answer

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> Exception:
        """Give what an answer that is an error means."""
        try:
            said = " ".join(str(json.loads(error.read(10_000))["message"]).split())[:500]
        except (OSError, ValueError, LookupError, TypeError):
            said = str(error.reason)
        if error.code == 404 and path.startswith("/schemas/"):
            return LookupError(f"{self.where} has no schema {path.rpartition('/')[2]}")
        if error.code in {401, 403}:
            hint = ": are schema_registry_username and schema_registry_password right?"
        elif error.code == 409:
            hint = (
                f": our schemas {SCHEMA_VERSION} are not compatible with what {path.split('/')[2]} has there; "
                "delete that subject, or choose another topic_prefix"
            )
        else:
            hint = ""
        return RegistryError(f"{self.where} answers {error.code} ({said}){hint}")


def wire(settings: Settings) -> tuple[Framing, SchemaOf]:
    """Give how records are framed, and where the schemas of framed ones are looked up. Raises ``RegistryError``."""
    if settings.schema_registry_url is None:
        return CONTAINERS, no_registry
    registry = SchemaRegistry(settings, settings.schema_registry_url)
    if settings.alert_framing == "container":
        return CONTAINERS, registry.schema_of
    # Lists of candidates are containers always.
    topics = {topic: name for topic, name in SCHEMAS.items() if topic != CANDIDATES}
    numbers = {topic: registry.register(f"{settings.topic(topic)}-value", name) for topic, name in topics.items()}
    return Confluent(numbers), registry.schema_of


def schemas(settings: Settings) -> SchemaOf:
    """Give where the schemas of framed records are looked up, for who only reads."""
    url = settings.schema_registry_url
    return no_registry if url is None else SchemaRegistry(settings, url).schema_of
