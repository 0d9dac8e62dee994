"""Every knob of the stream, read once: command line > environment > TOML file > default.

A setting has one name everywhere: ``bootstrap_servers`` is ``--bootstrap-servers`` on the commands that take it,
``NEEDLESTREAM_BOOTSTRAP_SERVERS`` in the environment and ``bootstrap_servers`` in the file given by ``--config``.

How it fails at night: a key that nobody knows in the file, or a value out of its range, stops the program before it
touches a broker, with the setting's name. An unknown variable in the environment is not an error, since others put
some there (Kubernetes does for every service); ``needlestream settings`` shows what was understood, and from where.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from stream.webservice import keeps_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT_PREFIX = "NEEDLESTREAM_"
CLASSES = ("asteroids", "lenses", "mergers")


class SettingsError(Exception):
    """The settings cannot be used; the text names the setting and where it came from."""


class Settings(BaseSettings):
    """What an operator can choose; times in seconds, sizes in bytes, as the names say."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True)

    bootstrap_servers: str = Field("127.0.0.1:9092", description="Kafka brokers: HOST:PORT[,HOST:PORT...].")
    topic_prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Put before every topic's name as it is: 'night.' -> night.frames.",
    )
    group_id: str = Field("needlestream", min_length=1, description="Consumer group of the workers.")
    survey: str = Field("auto", description="auto (by TELESCOP and INSTRUME), or the name of a survey profile.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    method: Literal["network", "matched", "both"] = Field(
        "both", description="Who proposes: the network, the oriented matched filter, or both."
    )
    threshold: float = Field(0.2, ge=0, le=1, description="Lowest score that is published; 0 gives every proposal.")
    link_threshold: float = Field(
        0.0005,
        gt=0,
        le=1,
        description="Lowest score of the candidates that the linker gets besides the streaks; 1: none.",
    )
    classes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("asteroids",), description="What is looked for: any of asteroids, lenses, mergers, separated by commas."
    )
    lens_threshold: float | None = Field(
        None, ge=0, le=1, description="Lowest probability of a lens that is published; empty: the network's own."
    )
    merger_threshold: float | None = Field(
        None, ge=0, le=1, description="Lowest probability of a merger that is published; empty: the network's own."
    )
    lens_weights: str = Field("denselens", description="The lenses' network: a shipped name or a .safetensors file.")
    merger_weights: str = Field("merger", description="The mergers' network: a shipped name or a .safetensors file.")
    discriminator_weights: str = Field(
        "discriminator", description="The network in front of both: a shipped name or a .safetensors file."
    )
    field_timeout_s: float = Field(
        7200, gt=0, description="A field of which nothing came for so long is closed with what it has."
    )
    link_after_s: float = Field(
        10,
        ge=0,
        description="A field of which nothing came for so long is linked; one that never rests, six times later.",
    )
    known_radius_arcsec: float = Field(
        2.0,
        ge=0,
        le=3600,
        description="How far a sighting may be from a known object's place, besides its three sigmas.",
    )
    expected_streaks_per_frame: float | None = Field(
        None, gt=0, description="What scores are calibrated for; empty: the survey's own number."
    )
    delivery: Literal["exactly-once", "at-least-once"] = Field(
        "exactly-once",
        description="exactly-once (outputs and offsets in one transaction), or at-least-once for brokers without them.",
    )
    session_timeout_s: float = Field(20, ge=1, description="A worker silent for so long is taken for dead.")
    max_poll_interval_s: float = Field(900, ge=1, description="A worker busy with one message for so long, likewise.")
    request_timeout_s: float = Field(60, ge=1, le=500, description="Longest wait for one answer of a broker.")
    transaction_timeout_s: float = Field(30, ge=1, description="A transaction left open for so long is aborted.")
    max_message_bytes: int = Field(
        200_000_000, ge=1_000_000, le=2_000_000_000, description="Largest frame message; every other limit follows."
    )
    max_pixels: int = Field(200_000_000, ge=1, description="Largest image that is read, per HDU.")
    max_hdus: int = Field(1000, ge=1, description="HDUs that a file may have.")
    max_header_bytes: int = Field(32_000_000, ge=2880, description="All headers of a file together.")
    max_decompressed_bytes: int = Field(2**31, ge=2880, description="Largest file, gunzipped.")
    max_claim_bytes: int = Field(2**33, ge=1, description="Largest file that a uri header may point to.")
    other_exposures_mb: int = Field(1024, ge=0, description="Memory for other exposures of a field, prepared, in MB.")
    many_streaks: int = Field(500, ge=1, description="A frame with more streaks is flagged many-streaks.")
    partitions: int = Field(8, ge=1, le=10_000, description="Partitions of a topic that is created.")
    replication_factor: int = Field(
        -1, ge=-1, description="Copies of a topic that is created; -1: as the broker has it."
    )
    metrics_port: int | None = Field(None, ge=0, le=65535, description="Prometheus metrics; 0: any free port.")
    metrics_address: str = Field("127.0.0.1", description="Address that the metrics port is bound to.")
    sensitivity_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the frames that are examined once more with synthetic streaks in a copy; 0: none.",
    )
    sensitivity_window: int = Field(
        300, ge=30, le=100_000, description="Synthetic streaks, the last ones, that say how deep the search goes."
    )
    sensitivity_lag: int = Field(
        10, ge=0, description="No frame is examined twice while more messages than this wait for the worker."
    )
    watch_port: int = Field(8010, ge=0, le=65535, description="Port of the live page; 0: any free port.")
    watch_address: str = Field("127.0.0.1", description="Address that the live page's port is bound to.")
    watch_past_s: float = Field(
        86_400, ge=0, description="How far back the live page reads the output topics when it starts."
    )
    claim_roots: Annotated[tuple[Path | str, ...], NoDecode] = Field(
        (),
        description="Where a message's uri header may point into: folders, file:// URIs, or others that fsspec reaches "
        "(s3://bucket/prefix); separated by commas.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to speak to the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="How to log in."
    )
    sasl_username: str | None = Field(None, description="User name for the login.")
    sasl_password: SecretStr | None = Field(None, description="Password for the login.")
    sasl_oauth_token: SecretStr | None = Field(None, description="OAUTHBEARER: the token itself.")
    sasl_oauth_token_file: Path | None = Field(
        None, description="OAUTHBEARER: file that holds the token; read again for each login."
    )
    sasl_oauth_token_url: str | None = Field(
        None, description="OAUTHBEARER: token endpoint (https), asked with client credentials."
    )
    sasl_oauth_client_id: str | None = Field(None, description="Client id for the token endpoint.")
    sasl_oauth_client_secret: SecretStr | None = Field(None, description="Client secret for the token endpoint.")
    sasl_oauth_scope: str | None = Field(None, description="Scope to ask the token endpoint for.")
    tls_ca: Path | None = Field(None, description="PEM file of the authority that signed the brokers' certificates.")
    tls_cert: Path | None = Field(None, description="PEM file of the client's own certificate.")
    tls_key: Path | None = Field(None, description="PEM file of the client's own key.")
    tls_key_password: SecretStr | None = Field(None, description="Password of that key, where it has one.")
    alert_framing: Literal["container", "confluent"] = Field(
        "container",
        description="container (each message one Avro container), or confluent (number in a registry, bare record).",
    )
    cutout_px: int = Field(
        0, ge=0, le=512, description="Largest side of the FITS cut-out in an alert, in pixels; 0: none is sent."
    )
    schema_registry_url: str | None = Field(
        None, pattern=r"^https?://[^\s@]+$", description="Schema registry for Confluent framing: http(s)://HOST[:PORT]."
    )
    schema_registry_username: str | None = Field(None, description="User name at the schema registry.")
    schema_registry_password: SecretStr | None = Field(None, description="Password at the schema registry.")
    schema_registry_ca: Path | None = Field(
        None, description="PEM file of the authority that signed the registry's certificate."
    )
    log_format: Literal["console", "json"] = Field("console", description="console for people, json for machines.")

    @field_validator("classes", mode="before")
    @classmethod
    def _split_classes(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        wanted = tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))
        unknown = [word for word in wanted if word not in CLASSES]
        if unknown or not wanted:
            raise ValueError(f"{', '.join(unknown) or 'nothing'} is looked for; there are {', '.join(CLASSES)}")
        return wanted

    @field_validator("claim_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(_root(str(part).strip()) for part in parts if str(part).strip())

    @field_validator("claim_roots")
    @classmethod
    def _whole_roots(cls, roots: tuple[Path | str, ...]) -> tuple[Path | str, ...]:
        for root in roots:
            if not (root.is_absolute() if isinstance(root, Path) else root.partition("://")[2].strip("/")):
                raise ValueError(f"{root} is neither an absolute path nor a URI with a bucket or folder")
        return roots

    @model_validator(mode="after")
    def _login_is_whole(self) -> Settings:
        if "SASL" not in self.security_protocol:
            if self.sasl_mechanism is not None:
                raise ValueError("sasl_mechanism is set; security_protocol must then be SASL_SSL or SASL_PLAINTEXT")
            return self
        if self.sasl_mechanism is None:
            raise ValueError(f"security_protocol is {self.security_protocol}; sasl_mechanism must then be set")
        if self.sasl_mechanism == "OAUTHBEARER":
            origins = (self.sasl_oauth_token, self.sasl_oauth_token_file, self.sasl_oauth_token_url)
            if sum(origin is not None for origin in origins) != 1:
                raise ValueError(
                    "OAUTHBEARER needs one of sasl_oauth_token, sasl_oauth_token_file and sasl_oauth_token_url"
                )
        elif self.sasl_username is None or self.sasl_password is None:
            raise ValueError(f"{self.sasl_mechanism} needs sasl_username and sasl_password")
        return self

    @model_validator(mode="after")
    def _registry_is_whole(self) -> Settings:
        url = self.schema_registry_url
        if self.alert_framing == "confluent" and url is None:
            raise ValueError("alert_framing is confluent; schema_registry_url must then be set")
        if self.schema_registry_username is None:
            return self
        if self.schema_registry_password is None:
            raise ValueError("schema_registry_username needs schema_registry_password")
        if url is not None and not keeps_secrets(url):
            raise ValueError(f"schema_registry_url ({url}): only https is used, since the password travels there")
        return self

    def topic(self, name: str) -> str:
        """Give the full name of a topic: ``frames`` -> ``night.frames``."""
        return self.topic_prefix + name


def _root(text: str) -> Path | str:
    """A claim root: a folder as a path, anything that only fsspec reaches as the URI that it is."""
    local = text.removeprefix("file://")
    return text if "://" in local else Path(local)


def load_settings(config: Path | None, command_line: Mapping[str, Any]) -> Settings:
    """Give the effective settings; ``None`` on the command line means "not given".

    Raises ``SettingsError``.
    """
    from_file = _read_toml(config)
    given = {name: value for name, value in command_line.items() if value is not None}

    class Sourced(Settings):
        """The settings with their file: pydantic-settings takes its sources from the class."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - .env files are not read
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=from_file)

    try:
        return Sourced(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error, given, config)) from None


def sources(config: Path | None, command_line: Mapping[str, Any]) -> dict[str, str]:
    """Say for each setting where its value comes from: a phrase such as ``environment`` or ``default``."""
    from_file = _read_toml(config)
    environment = {name.upper() for name in os.environ}
    found = {}
    for name in Settings.model_fields:
        if command_line.get(name) is not None:
            found[name] = "command line"
        elif (ENVIRONMENT_PREFIX + name).upper() in environment:
            found[name] = "environment"
        else:
            found[name] = f"file {config}" if name in from_file else "default"
    return found


def _read_toml(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {config}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {config} is not TOML: {error}") from None


def _explain(error: ValidationError, given: Mapping[str, Any], config: Path | None) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: no such setting (file {config}); `needlestream settings` lists all")
            continue
        if not name:
            lines.append(problem["msg"].removeprefix("Value error, "))
            continue
        variable = ENVIRONMENT_PREFIX + name.upper()
        origin = "command line" if name in given else variable if variable in os.environ else f"file {config}"
        lines.append(f"{name} ({origin}): {problem['msg']}")
    return "; ".join(lines)
