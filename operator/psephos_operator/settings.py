"""Configuration of the operator: environment variables `PSEPHOS_OPERATOR_*`, read once into a frozen object.

NB: Kubernetes gives pods variables for the Services next to them (`PSEPHOS_OPERATOR_SERVICE_HOST`), and unknown
variables are refused here: the operator's own pod needs `enableServiceLinks: false`, as all of a session's have.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from psephos.platform.settings import Settings, SettingsError, load_settings

PREFIX = "PSEPHOS_OPERATOR_"
_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[Annotated[str, Field(pattern=_NAME)], ...], BeforeValidator(_split)]


class OperatorSettings(BaseModel):
    """What the operator needs to know. Each field is the variable PSEPHOS_OPERATOR_<FIELD>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = Field("psephos", pattern=_NAME, description="the operator's own namespace: its Lease")
    namespaces: Names = Field((), description="watched namespaces, comma separated; empty: all")
    identity: str = Field(
        default_factory=lambda: os.environ.get("HOSTNAME", "operator"),
        min_length=1,
        description="name in the Lease",
    )
    kubeconfig: Path | None = Field(None, description="a kubeconfig file; without it the pod's ServiceAccount")

    image: str = Field(min_length=1, description="image of the sessions' pods; a session keeps its first one")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: Names = Field((), description="names of pull Secrets in the sessions' namespaces")
    service_account: str | None = Field(None, pattern=_NAME, description="of the sessions' pods: an IAM role")

    kafka_bootstrap: str = Field(min_length=1, description="host:port of brokers, comma separated")
    kafka_properties_file: Path | None = Field(None, description="librdkafka properties (SASL, TLS), a line each")
    kafka_replication: int = Field(3, ge=1, le=9)
    strimzi_cluster: str | None = Field(None, pattern=_NAME, description="topics as KafkaTopic of this cluster")
    strimzi_namespace: str | None = Field(None, pattern=_NAME, description="where KafkaTopic resources are read")
    dynamodb_endpoint: str | None = Field(None, description="URL; without it the cloud's own")
    dynamodb_table: str = Field("psephos", min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")
    dynamodb_billing: Literal["on-demand", "provisioned"] = "on-demand"
    aws_region: str = Field("eu-north-1", min_length=1)
    redis_url: str = Field("redis://127.0.0.1:6379/0", pattern=r"^rediss?://")
    redis_cluster: bool = Field(False, description="the URL names a node of a Redis Cluster, version 7 or newer")
    redis_ca_file: Path | None = Field(None, description="CA of rediss:// (PEM); without it the system's")
    redis_acl: bool = Field(False, description="a Redis user of its own for each session, for its keys alone")

    s3_endpoint: str | None = Field(None, pattern=r"^https?://", description="URL; without it the cloud's own")
    s3_region: str | None = Field(None, min_length=1, description="without it PSEPHOS_OPERATOR_AWS_REGION")
    s3_access_key_id: str | None = Field(None, description="without it AWS_ACCESS_KEY_ID, or an IAM role")
    s3_secret_access_key: str | None = Field(None, repr=False, description="of that key")

    host: str | None = Field(
        None, description="where sessions are published: a host name, may hold {name} and {namespace}"
    )
    public_port: int | None = Field(
        None, ge=1, le=65535, description="port of `host` as voters see it, where it is not the scheme's own"
    )
    routing: Literal["none", "ingress", "gateway"] = Field("none", description="Ingress or HTTPRoute for `host`")
    ingress_class: str | None = Field(None, pattern=_NAME)
    tls_secret: str | None = Field(None, pattern=_NAME, description="certificate of the Ingress; then https")
    gateway: str | None = Field(None, description="Gateway of HTTPRoutes: namespace/name")
    gateway_tls: bool = Field(True, description="whether that Gateway serves https")
    trusted_proxies: int = Field(1, ge=0, le=8, description="proxies before the doors that append X-Forwarded-For")

    cpu_percent: int = Field(
        100, ge=1, le=100, description="share of the CPU of its peak that a session's pod asks for"
    )
    tally_volume: Literal["ephemeral", "persistent"] = Field("ephemeral", description="where tally stores are")
    storage_class: str | None = Field(None, pattern=_NAME, description="of persistent tally volumes")
    autoscaling: bool = Field(True, description="HorizontalPodAutoscalers, and ScaledObjects where KEDA is")
    network_policies: bool = True
    monitors: bool = Field(True, description="PodMonitors where the Prometheus operator is")

    workers: int = Field(8, ge=1, le=64, description="sessions that are reconciled at once")
    resync_s: float = Field(
        60.0, ge=1, le=3600, description="seconds after which every session is looked at again"
    )
    lease_s: float = Field(15.0, ge=2, le=300, description="seconds after which a silent leader is replaced")
    cleanup_s: float = Field(300.0, ge=5, le=86400, description="seconds that a deletion is held up at most")
    request_s: float = Field(10.0, ge=1, le=120, description="time-out of a request to the Kubernetes API")
    listen: str = Field("0.0.0.0", description="address of /livez, /readyz and /metrics")  # noqa: S104 - pods
    admin_port: int = Field(9090, ge=0, le=65535)
    webhook: Literal["off", "self-signed", "provided"] = Field(
        "off", description="validating webhook: its certificate is made here, or provided in its Secret"
    )
    webhook_name: str = Field(
        "psephos-webhook", pattern=_NAME, description="its ValidatingWebhookConfiguration and its Secret"
    )
    webhook_hosts: Names = Field((), description="names and addresses in the self-signed certificate")
    webhook_port: int = Field(9443, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="after")
    def _fits_together(self) -> "OperatorSettings":
        if not _is_host(self.host):
            raise ValueError(
                f"{PREFIX}HOST={self.host!r}: may hold {{name}} and {{namespace}}, nothing else in braces"
            )
        if self.routing != "none" and self.host is None:
            raise ValueError(f"{PREFIX}ROUTING={self.routing} needs {PREFIX}HOST")
        if self.routing == "gateway" and not re.fullmatch(r"[a-z0-9.-]+/[a-z0-9.-]+", self.gateway or ""):
            raise ValueError(f"{PREFIX}ROUTING=gateway needs {PREFIX}GATEWAY=namespace/name")
        if (self.strimzi_cluster is None) != (self.strimzi_namespace is None):
            raise ValueError(f"{PREFIX}STRIMZI_CLUSTER and {PREFIX}STRIMZI_NAMESPACE go together")
        if self.redis_cluster and urlsplit(self.redis_url).path not in ("", "/", "/0"):
            raise ValueError(f"{PREFIX}REDIS_URL: a cluster has one database, so no number may follow the host")
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError(f"{PREFIX}S3_ACCESS_KEY_ID and {PREFIX}S3_SECRET_ACCESS_KEY go together")
        if self.webhook == "self-signed" and not self.webhook_hosts:
            raise ValueError(f"{PREFIX}WEBHOOK=self-signed needs {PREFIX}WEBHOOK_HOSTS")
        return self

    def kafka_properties(self) -> str:
        """Returns the librdkafka properties as text, empty without a file. Raises SettingsError."""
        return self._text(self.kafka_properties_file, "KAFKA_PROPERTIES_FILE")

    @staticmethod
    def _text(path: Path | None, variable: str) -> str:
        try:
            return "" if path is None else path.read_text()
        except OSError as error:
            raise SettingsError(f"{PREFIX}{variable}: {path}: {error.strerror}") from None

    def redis_ca(self) -> str:
        """Returns the CA of Redis as text (PEM), empty without a file. Raises SettingsError."""
        return self._text(self.redis_ca_file, "REDIS_CA_FILE")

    def role_settings(self, session_uid: str) -> Settings:
        """Returns the adapters' settings (log, ledger, projection) for one session."""
        return load_settings(
            {},
            session_file=Path("/nonexistent"),  # the operator has the session as an object
            session_uid=session_uid,
            kafka_bootstrap=self.kafka_bootstrap,
            kafka_properties_file=self.kafka_properties_file,
            kafka_replication=self.kafka_replication,
            dynamodb_endpoint=self.dynamodb_endpoint,
            dynamodb_table=self.dynamodb_table,
            aws_region=self.aws_region,
            redis_url=self.redis_url,
            redis_cluster=self.redis_cluster,
            redis_ca_file=self.redis_ca_file,
            s3_endpoint=self.s3_endpoint,
            s3_region=self.s3_region,
            s3_access_key_id=self.s3_access_key_id,
            s3_secret_access_key=self.s3_secret_access_key,
        )


def _is_host(host: str | None) -> bool:
    try:
        return host is None or re.fullmatch(r"[a-z0-9.-]+", host.format(name="n", namespace="n")) is not None
    except (KeyError, IndexError, ValueError):
        return False


def load_operator_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> OperatorSettings:
    """Loads settings from the environment; `overrides` win. Raises SettingsError with one readable line."""
    environ = os.environ if environ is None else environ
    values = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and value != ""
    }
    for name in values:
        if name not in OperatorSettings.model_fields:
            known = ", ".join(sorted(PREFIX + field.upper() for field in OperatorSettings.model_fields))
            raise SettingsError(f"{PREFIX}{name.upper()} is not a setting. Settings are {known}")
    try:
        return OperatorSettings.model_validate({**values, **overrides})
    except ValidationError as error:
        raise SettingsError("; ".join(_line(problem) for problem in error.errors())) from None


def _line(problem: Any) -> str:
    if not problem["loc"]:
        return str(problem["msg"]).removeprefix("Value error, ")
    field = PREFIX + str(problem["loc"][0]).upper()
    if problem["type"] == "missing":
        return f"{field} is not set"
    return f"{field}={problem['input']!r}: {problem['msg']}"
