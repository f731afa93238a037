"""Kafka, the ledger and Redis as the operator uses them: clients shared by all sessions. Calls block.

`psephos.control` changes them during a session's life; this module does what only an operator does: read all of it
at once, and delete it at the end.
"""

import secrets as random
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import redis

from psephos.adapters.dynamodb import Ledger, LedgerMissing
from psephos.adapters.dynamodb.ledger import dynamodb_client
from psephos.adapters.kafka import LogAdmin, LogUnavailable
from psephos.adapters.redis import frame_name, heartbeat_name, tls
from psephos.adapters.s3 import ObjectStore, exports_address
from psephos.control import ObservedState, observe
from psephos.formats.control import Phase
from psephos.platform.settings import Settings
from psephos_operator.settings import OperatorSettings

_REDIS_S = 2.0
PASSWORD_BYTES = 24
CLUSTER_COMMANDS = ("+cluster|slots", "+cluster|shards", "+cluster|nodes", "+cluster|myid")
COMMANDS = ("+@read", "+@write", "+@pubsub", "+@connection", "+eval", "+evalsha", "+script|load", "-@dangerous")


class Backends:
    """The clients. Threads may share it. Methods raise LogUnavailable, LedgerUnavailable, or one of
    `psephos.adapters.redis.AWAY`."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._dynamodb = dynamodb_client(settings.role_settings("operator"))
        self._redis: redis.Redis | redis.RedisCluster | None = None
        self._table_lock = threading.Lock()
        self._warmed = 0

    def role_settings(self, uid: str) -> Settings:
        """Returns the settings of `psephos.control` for one session."""
        return self._settings.role_settings(uid)

    def ledger(self, uid: str) -> Ledger:
        """Returns one session's ledger."""
        return Ledger(self._dynamodb, self._settings.dynamodb_table, uid)

    # --- Observe

    def observe(self, uid: str, run: str) -> ObservedState:
        """Reads the observed state of a session again, with what tally workers own."""
        observed = observe(self.role_settings(uid), self.ledger(uid), run)
        if observed.control is None or observed.control.phase is Phase.FINAL:
            return observed
        return replace(observed, owned=self.owned(uid))

    def owned(self, uid: str) -> int | None:
        """Returns how many partitions tally workers own, None if Kafka did not say. See `LogAdmin.count_owned`."""
        try:
            return LogAdmin(self.role_settings(uid)).count_owned()
        except LogUnavailable:
            return None

    def has_topics(self, uid: str) -> bool:
        """Returns whether the votes topic, which another system creates, is there."""
        return LogAdmin(self.role_settings(uid)).describe_votes() is not None

    # --- The table

    def warm(self, write_units: int) -> None:
        """Makes the shared table ready for this many write units per second; never reduces it.

        Raises botocore's ClientError if the cloud refuses.
        """
        with self._table_lock:
            enough = ON_DEMAND_UNITS if self._settings.dynamodb_billing == "on-demand" else 0
            if write_units <= max(self._warmed, enough):
                return
            table = self._dynamodb.describe_table(TableName=self._settings.dynamodb_table)["Table"]
            change = table_change(table, write_units, self._settings.dynamodb_billing)
            if change:
                self._dynamodb.update_table(TableName=self._settings.dynamodb_table, **change)
            self._warmed = write_units

    # --- Redis

    def redis_url(self, uid: str, password: str) -> str:
        """Returns the URL by which a session's pods reach Redis: with their own user, if they have one."""
        if not self._settings.redis_acl:
            return self._settings.redis_url
        parts = urlsplit(self._settings.redis_url)
        place = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{redis_user(uid)}:{quote(password)}@{place}"))

    def _redis_client(self) -> Any:
        """Returns the client. NB: making one asks a cluster for its nodes, and that may be unavailable then."""
        if self._redis is None:
            common: dict[str, Any] = {
                "socket_timeout": _REDIS_S,
                "socket_connect_timeout": _REDIS_S,
                **tls(self._settings.role_settings("operator")),
            }
            kind = redis.RedisCluster if self._settings.redis_cluster else redis.Redis
            self._redis = kind.from_url(self._settings.redis_url, **common)
        return self._redis

    def let_in(self, uid: str, password: str) -> None:
        """Creates or corrects the session's Redis user: its own keys and channels, and nothing else.

        NB: a Redis without an ACL file forgets users when it restarts, so this is repeated.
        """
        if self._settings.redis_acl:
            keys = f"psephos:{{{uid}}}:*"
            commands = (*COMMANDS, *CLUSTER_COMMANDS) if self._settings.redis_cluster else COMMANDS
            self._acl("SETUSER", redis_user(uid), "reset", "on", f">{password}", f"~{keys}", f"&{keys}", *commands)

    # --- Deleting

    def delete_topics(self, uid: str) -> None:
        """Deletes the session's topics; ignores those that are already gone."""
        LogAdmin(self.role_settings(uid)).delete_topics()

    def delete_rows(self, uid: str) -> None:
        """Deletes every ledger item of the session."""
        try:
            self.ledger(uid).delete_session()
        except LedgerMissing:
            return

    def delete_keys(self, uid: str) -> None:
        """Deletes the session's keys in Redis, and its user."""
        self._redis_client().delete(frame_name(uid), heartbeat_name(uid))
        if self._settings.redis_acl:
            self._acl("DELUSER", redis_user(uid))

    def delete_exports(self, uid: str, name: str, url: str) -> None:
        """Deletes what the session has exported into an object store. Raises ObjectStoreError."""
        address = exports_address(url, name, uid)
        if address is not None:
            ObjectStore.of(self.role_settings(uid)).delete_below(address)

    def _acl(self, command: str, *words: str) -> None:
        """Runs an ACL command, in a cluster on all nodes: each has its own users."""
        client, where = self._redis_client(), {}
        if self._settings.redis_cluster:
            where = {"target_nodes": redis.RedisCluster.ALL_NODES}
        client.execute_command(f"ACL {command}", *words, **where)


ON_DEMAND_UNITS = 4_000
"""Write units per second that a new on-demand table takes at once."""


def table_change(table: Mapping[str, Any], write_units: int, billing: str) -> dict[str, Any]:
    """Returns UpdateTable's arguments for this many write units per second; empty if it has enough. Pure."""
    if billing == "provisioned":
        now = table.get("ProvisionedThroughput", {})
        if now.get("WriteCapacityUnits", 0) >= write_units:
            return {}
        reads = max(now.get("ReadCapacityUnits", 0), write_units // 4)
        throughput = {"ReadCapacityUnits": reads, "WriteCapacityUnits": write_units}
        return {"BillingMode": "PROVISIONED", "ProvisionedThroughput": throughput}
    warm = table.get("WarmThroughput", {}).get("WriteUnitsPerSecond", ON_DEMAND_UNITS)
    return {} if warm >= write_units else {"WarmThroughput": {"WriteUnitsPerSecond": write_units}}


def redis_user(uid: str) -> str:
    """Returns the name of the session's user in Redis."""
    return f"psephos-{uid}"


def new_password() -> str:
    """Generates the password of a session's Redis user."""
    return random.token_urlsafe(PASSWORD_BYTES)
