"""Leader election by a Lease: one replica acts, the others stand by. Calls block.

Only this machine's clock counts: another replica's lease is valid for `lease_s` after it was last seen to change,
whatever that replica's clock says.
"""

import time
from datetime import UTC, datetime
from typing import Any

from psephos.platform.errors import PsephosError
from psephos.platform.logs import get_logger
from psephos_operator.kube.client import ApiError, Kube, Unreachable
from psephos_operator.kube.kinds import LEASES
from psephos_operator.settings import OperatorSettings

LEASE = "psephos-operator"
RENEWALS = 3  # within the time after which another replica may take over
log = get_logger()


class NotLeading(PsephosError):
    """Another replica may be leading by now: what this one was about to change is for the other to decide."""


class Leadership:
    """This replica's part in the election."""

    def __init__(self, settings: OperatorSettings, kube: Kube) -> None:
        self._kube, self._settings = kube, settings
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0
        self._held_until = 0.0

    @property
    def pause_s(self) -> float:
        """The time to wait between two calls of `hold`."""
        return self._settings.lease_s / RENEWALS / 2

    @property
    def held(self) -> bool:
        """Whether this replica is sure to be the only one that acts."""
        return time.monotonic() < self._held_until

    def require(self) -> None:
        """Raises NotLeading unless this replica is sure to be the only one that acts.

        A process that stood still for a while (a paused machine, a stopped process) continues where it was, with
        outdated knowledge. So this is called again right before every change.
        """
        if not self.held:
            raise NotLeading("the lease has run out")

    def hold(self) -> bool:
        """Acquires or renews the lease if that is possible now; returns whether it is ours. Never raises."""
        begun = time.monotonic()
        try:
            if self._try():
                # The others count from when they saw the renewal, which was later.
                self._held_until = begun + self._settings.lease_s * (RENEWALS - 1) / RENEWALS
        except (ApiError, Unreachable) as error:
            log.warning("lease not renewed", why=str(error))
        return self.held

    def release(self) -> None:
        """Lets another replica take over at once."""
        if not self.held:
            return
        self._held_until = 0.0
        try:
            lease = self._get()
            if lease is not None and lease["spec"].get("holderIdentity") == self._settings.identity:
                self._kube.replace(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
        except (ApiError, Unreachable) as error:
            log.warning("lease not released", why=str(error))

    def _get(self) -> Any:
        return self._kube.get(LEASES, self._settings.namespace, LEASE)

    def _try(self) -> bool:
        lease = self._get()
        if lease is None:
            metadata = {"name": LEASE, "namespace": self._settings.namespace}
            new = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.name,
                "metadata": metadata,
                "spec": self._spec({}),
            }
            return self._kube.create(LEASES, new) is not None
        spec = lease.get("spec", {})
        holder = spec.get("holderIdentity", "")
        if holder not in ("", self._settings.identity) and not self._is_stale(spec):
            return False
        try:
            self._kube.replace(LEASES, {**lease, "spec": self._spec(spec)})
        except ApiError as error:
            if error.status == 409:  # another replica was quicker
                return False
            raise
        if holder != self._settings.identity:
            log.info("leader", identity=self._settings.identity, before=holder)
        return True

    def _is_stale(self, spec: dict[str, Any]) -> bool:
        mark = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if mark != self._seen:
            self._seen, self._seen_at = mark, time.monotonic()
        return time.monotonic() - self._seen_at > self._settings.lease_s

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = before.get("holderIdentity") == self._settings.identity
        return {
            "holderIdentity": self._settings.identity,
            "leaseDurationSeconds": max(1, round(self._settings.lease_s)),
            "acquireTime": before.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (not ours),
        }
