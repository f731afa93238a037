"""A session's needs in the cluster, as the one object that every builder reads. Pure."""

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from psephos.domain.session import Session
from psephos.domain.sizing import Sizes, sizes
from psephos.formats.control import ENDED, Phase
from psephos_operator.settings import OperatorSettings

LONGEST_NAME = 52
"""Longest name of any child: a CronJob's name may not be longer, and a StatefulSet's pods carry its name plus 11
characters in a label of at most 63."""


class Api(StrEnum):
    """APIs that a cluster may or may not have; what needs one is only built if it is there."""

    STRIMZI = "kafka.strimzi.io"
    KEDA = "keda.sh"
    PROMETHEUS = "monitoring.coreos.com"
    GATEWAY = "gateway.networking.k8s.io"
    CUSTOM_METRICS = "custom.metrics.k8s.io"


@dataclass(frozen=True)
class Plan:
    """One session in one cluster. `recounting`: the run of this name is to take place; `sealing`: all its verdicts
    are there; `sealed`: its result is there."""

    session: Session
    namespace: str
    uid: str
    settings: OperatorSettings
    image: str
    partitions: int
    phase: Phase = Phase.PENDING
    apis: frozenset[Api] = field(default_factory=frozenset)
    run: str = "final"
    recounting: bool = False
    sealing: bool = False
    sealed: bool = False

    @property
    def name(self) -> str:
        return self.session.name

    @property
    def sizes(self) -> Sizes:
        return sizes(self.session.spec.capacity, self.partitions, self.session.spec.recount.parallelism)

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def counts(self) -> bool:
        """Whether there may still be something to count; a disputed session may be repaired and recounted."""
        return self.phase not in (Phase.FINAL, Phase.VOID)

    @property
    def closing(self) -> bool:
        """Whether closing has begun: from then on the topics' settings are the protocol's alone."""
        return self.ended or self.phase in (Phase.CLOSING, Phase.RECOUNTING)

    @property
    def exports_url(self) -> str | None:
        """Where in an object store the result is to be exported, None if it is not to be."""
        exports = self.session.spec.exports
        return exports.url if exports is not None and self.session.exports_in_store else None

    @property
    def exporting(self) -> bool:
        """Whether there is a result to export, now and whenever its URL changes."""
        return self.sealed and self.exports_url is not None and self.phase in (Phase.FINAL, Phase.DISPUTED)

    @property
    def public_host(self) -> str | None:
        host = self.settings.host
        return None if host is None else host.format(name=self.name, namespace=self.namespace)

    @property
    def public_url(self) -> str | None:
        """The base URL of the session's endpoints for browsers, None if it is not published."""
        if self.public_host is None:
            return None
        settings = self.settings
        tls = settings.gateway_tls if settings.routing == "gateway" else settings.tls_secret is not None
        port = "" if settings.public_port is None else f":{settings.public_port}"
        return f"{'https' if tls else 'http'}://{self.public_host}{port}"

    def child(self, suffix: str) -> str:
        """Returns the name of a child, the same every time, never too long for any kind."""
        return shortened(self.name, suffix)

    @property
    def key_prefix(self) -> str:
        """Name prefix of Secrets that outlive the session: another session of the same name must not find them."""
        return f"{self.name}-{self.uid.split('-')[0]}"


def shortened(name: str, suffix: str) -> str:
    """Returns `name-suffix`, with the name cut off and marked by a hash if that would be too long."""
    whole = f"{name}-{suffix}"
    if len(whole) <= LONGEST_NAME:
        return whole
    mark = sha256(name.encode()).hexdigest()[:6]
    return f"{name[: LONGEST_NAME - len(suffix) - 8].rstrip('-')}-{mark}-{suffix}"
