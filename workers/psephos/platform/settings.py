"""Configuration of every role: environment variables `PSEPHOS_*`, read once into a frozen object.

Unknown or bad variables stop a role at its start with one readable line, see `SettingsError`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from psephos.platform.errors import BAD_INPUT, PsephosError

PREFIX = "PSEPHOS_"
TEST_PREFIX = "PSEPHOS_TEST_"  # faults that the fault suite injects, see psephos.roles.tally.crash


class SettingsError(PsephosError):
    """A setting is missing, unknown or bad. The message is one line: which, what, and what is allowed."""

    exit_code = BAD_INPUT


class Settings(BaseModel):
    """What a role needs to know of its surroundings. Each field is the variable PSEPHOS_<FIELD>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_file: Path = Field(description="the session's YAML")
    session_uid: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="unique id")
    session_key_file: Path | None = Field(None, description="key of the voters' pseudonyms, 32 bytes or more")
    token_key_file: Path | None = Field(None, description="HS256 secret or public key (PEM) of tokens")
    batch_credential_file: Path | None = Field(None, description="credentials of the batch door, a line each")
    roll_file: Path | None = Field(None, description="electoral roll, a subject a line; else the session's")
    signing_key_file: Path | None = Field(None, description="Ed25519 private key (PEM) of the final result")
    lot_seed_file: Path | None = Field(None, description="seed of the lot, committed at genesis")

    kafka_bootstrap: str = Field(min_length=1, description="host:port of brokers, comma separated")
    kafka_properties_file: Path | None = Field(None, description="librdkafka properties (SASL, TLS), a line each")
    kafka_replication: int = Field(3, ge=1, le=9, description="replication factor of topics")
    dynamodb_endpoint: str | None = Field(None, description="URL; without it the cloud's own")
    dynamodb_table: str = Field("psephos", min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")
    aws_region: str = Field("eu-north-1", min_length=1)
    redis_url: str = Field("redis://127.0.0.1:6379/0", pattern=r"^rediss?://")
    redis_cluster: bool = Field(False, description="the URL names a node of a Redis Cluster, version 7 or newer")
    redis_ca_file: Path | None = Field(None, description="CA of rediss:// (PEM); without it the system's")
    s3_enabled: bool = Field(True, description="false: exports to s3:// stay in the data folder")
    s3_endpoint: str | None = Field(None, pattern=r"^https?://", description="URL; without it the cloud's own")
    s3_region: str | None = Field(None, min_length=1, description="without it PSEPHOS_AWS_REGION")
    s3_access_key_id: str | None = Field(None, description="without it AWS_ACCESS_KEY_ID, or an IAM role")
    s3_secret_access_key: str | None = Field(None, repr=False, description="of that key")
    data_dir: Path = Field(Path("/var/lib/psephos"), description="local stores and exports")

    host: str = Field("0.0.0.0", description="address that doors listen on")  # noqa: S104 - pods
    ingest_port: int = Field(8080, ge=0, le=65535)
    gateway_port: int = Field(8081, ge=0, le=65535)
    ingest_url: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/\-]*)?$",
        description="where browsers reach ingest: https://vote.example; without it the gateway's address",
    )
    admin_port: int = Field(9090, ge=0, le=65535, description="/livez, /readyz, /metrics")
    ingest_processes: int = Field(1, ge=1, le=64, description="ingest processes behind one port")
    ingest_queue: int = Field(20_000, ge=1, description="votes in flight a process before 503 overloaded")
    ingest_connections: int = Field(15_000, ge=1, description="open connections a process before 503 overloaded")
    ingest_idle_s: float = Field(75.0, ge=1, le=3600, description="seconds that an idle connection stays open")
    ingest_address_rate: float = Field(2_000, ge=0, description="votes a second of an address; 0: any number")
    ingest_address_burst: int = Field(10_000, ge=1, description="votes at once of an address")
    ingest_voter_rate: float = Field(5, ge=0, description="votes a second of a voter; 0: any number")
    ingest_voter_burst: int = Field(50, ge=1, description="votes at once of a voter")
    ingest_open_rate: float = Field(1, gt=0, description="anonymous tokens a second of an address")
    ingest_open_burst: int = Field(60, ge=1, description="anonymous tokens at once of an address")
    trusted_proxies: int = Field(0, ge=0, le=8, description="proxies before the doors that append X-Forwarded-For")
    gateway_viewers: int = Field(20_000, ge=1, description="viewers of a gateway process before 503 overloaded")
    gateway_receipt_rate: float = Field(50, gt=0, description="receipts a second of one client address")
    gateway_receipt_burst: int = Field(1_000, ge=1, description="receipts at once of one client address")
    worker: str = Field("0", pattern=r"^[A-Za-z0-9-]+$", description="the tally worker's ordinal")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        if self.redis_cluster and urlsplit(self.redis_url).path not in ("", "/", "/0"):
            raise ValueError(f"{PREFIX}REDIS_URL: a cluster has one database, so no number may follow the host")
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError(f"{PREFIX}S3_ACCESS_KEY_ID and {PREFIX}S3_SECRET_ACCESS_KEY go together")
        return self

    @property
    def exports_dir(self) -> Path:
        """The folder for exports without a URL."""
        return self.data_dir / "exports"

    @property
    def commands_dir(self) -> Path:
        """The folder where people give commands to a local controller: see `psephos.control.command_file`."""
        return self.data_dir / "commands"


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment; `overrides` win. Raises SettingsError with one readable line."""
    environ = os.environ if environ is None else environ
    _refuse_unknown(environ)
    values = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and value != ""
    }
    try:
        return Settings.model_validate({**values, **overrides})
    except ValidationError as error:
        raise SettingsError("; ".join(_line(problem) for problem in error.errors())) from None


def environment(settings: Settings, **changes: object) -> dict[str, str]:
    """The variables that produce these settings, with changes."""
    values = {**settings.model_dump(), **changes}
    return {PREFIX + name.upper(): "" if value is None else str(value) for name, value in values.items()}


def read_key(path: Path | None, variable: str, at_least: int = 1) -> bytes:
    """A key's bytes, without trailing newlines. Raises SettingsError, which never contains the key."""
    if path is None:
        raise SettingsError(f"{PREFIX}{variable} is not set: name the file that holds this key")
    try:
        key = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise SettingsError(f"{PREFIX}{variable}: {path}: {error.strerror}") from None
    if len(key) < at_least:
        raise SettingsError(f"{PREFIX}{variable}: {path} holds {len(key)} bytes, it needs {at_least}")
    return key


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name in environ:
        if name.startswith(TEST_PREFIX):
            continue
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in Settings.model_fields:
            known = ", ".join(sorted(PREFIX + field.upper() for field in Settings.model_fields))
            raise SettingsError(f"{name} is not a setting. Settings are {known}")


def _line(problem: Any) -> str:
    if not problem["loc"]:  # its input would be all settings, including keys
        return str(problem["msg"]).removeprefix("Value error, ")
    field = PREFIX + str(problem["loc"][0]).upper()
    if problem["type"] == "missing":
        return f"{field} is not set"
    return f"{field}={problem['input']!r}: {problem['msg']}"
