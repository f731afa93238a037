"""Compare-and-set on (epoch, version): two writers do no harm, and a version never goes backwards.

A Redis that was emptied has forgotten what it showed, so nothing in it refuses an older frame. It then has a
vacancy, whose name lasts until a frame is written or Redis is emptied again. A projector learns the name, then
reads everything that can have been shown before, and writes under that name. If there is another vacancy by then,
a newer frame may have come and gone meanwhile, and the projector has to read again.

Works with one Redis or a Redis Cluster. In a cluster all keys of a session and its channel are in one slot, and
frames are published to the nodes of that slot only (sharded, Redis 7): otherwise every node would carry every
session's frames.
"""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from psephos.platform.errors import PsephosError
from psephos.platform.settings import Settings

_HEARTBEAT_S = 5  # a projector beats every second; gateways mark results stale without a beat
_MESSAGES: Final = ("message", "smessage")
_TIMEOUT_S = 2.0  # a Redis that hangs counts as unavailable
# An equal version of one epoch is not written again: its content is the same except for its time.
# ARGV: epoch, version, body, the vacancy that the writer knows, and the name for one that it is the first to see;
# that name is empty if any vacancy may be filled.
_WRITE = """
local old = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'vacancy')
local vacant = old[1] ~= ARGV[1]
if not vacant and tonumber(old[2]) >= tonumber(ARGV[2]) then return 0 end
if vacant and ARGV[5] ~= '' and old[3] ~= ARGV[4] then
  if old[3] then return old[3] end
  redis.call('HSET', KEYS[1], 'vacancy', ARGV[5])
  return ARGV[5]
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'version', ARGV[2], 'body', ARGV[3])
redis.call('HDEL', KEYS[1], 'vacancy')
redis.call('%s', KEYS[2], ARGV[3])
return 1
"""
Client: TypeAlias = "Redis | RedisCluster"
AWAY: Final = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)
"""Errors of calls while Redis, or part of a cluster, is unavailable. NB: the second is not derived from the first.
The last one is uvloop's, for a connection that was closed before the first write to it: redis-py passes it on."""


class Vacant(PsephosError):
    """Redis holds no frame of this epoch, and the writer may not know the newest one that it held."""

    def __init__(self, vacancy: str) -> None:
        super().__init__("Redis holds no frame of this session")
        self.vacancy = vacancy


def frame_name(session_uid: str) -> str:
    """Key of the hash {epoch, version, body}, or {vacancy} while there is no frame.

    The braces keep a session's keys in one cluster slot.
    """
    return f"psephos:{{{session_uid}}}:frame"


def channel_name(session_uid: str) -> str:
    """Channel on which the body of each newer frame is published."""
    return f"psephos:{{{session_uid}}}:frames"


def heartbeat_name(session_uid: str) -> str:
    """Key that a live projector keeps from expiring."""
    return f"psephos:{{{session_uid}}}:projector"


def redis_client(settings: Settings, timeout_s: float = _TIMEOUT_S) -> Client:
    """A client that fails fast and does not retry: callers know when to retry, and what to report until then."""
    common: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, **tls(settings)}
    if settings.redis_cluster:  # one retry: for a slot that has moved, or a node that is gone
        return RedisCluster.from_url(settings.redis_url, retry=Retry(NoBackoff(), 1), **common)
    return Redis.from_url(settings.redis_url, retry=Retry(NoBackoff(), 0), **common)


def tls(settings: Settings) -> dict[str, str]:
    """The client's arguments for a private CA."""
    ca = settings.redis_ca_file
    return {"ssl_ca_certs": str(ca)} if ca is not None and settings.redis_url.startswith("rediss://") else {}


class Projection:
    """One session's frame in Redis. Methods raise the errors in AWAY while Redis is unavailable."""

    def __init__(self, redis: Client, session_uid: str) -> None:
        self._redis: Any = redis  # the two clients have the same commands, but no type in common
        self._uid = session_uid
        sharded = isinstance(redis, RedisCluster)
        self._write = self._redis.register_script(_WRITE % ("SPUBLISH" if sharded else "PUBLISH"))

    async def write(self, epoch: str, version: int, body: bytes) -> bool:
        """Writes and publishes the frame if it is newer than the stored one; returns whether it was.

        Only for a frame before which nothing newer can have been shown: the final one.
        """
        return bool(await self._compare_and_set(epoch, version, body, "", ""))

    async def write_live(self, epoch: str, version: int, body: bytes, vacancy: str) -> bool:
        """Like `write`, for a frame that may be older than one that Redis has forgotten.

        vacancy: the one that the writer saw before it read everything, empty if none. Raises Vacant if there is
        another one now.
        """
        done = await self._compare_and_set(epoch, version, body, vacancy, secrets.token_hex(8))
        if isinstance(done, bytes | str):
            raise Vacant(done.decode() if isinstance(done, bytes) else done)
        return bool(done)

    async def _compare_and_set(self, epoch: str, version: int, body: bytes, *vacancies: str) -> int | bytes | str:
        keys = [frame_name(self._uid), channel_name(self._uid)]
        done: int | bytes | str = await self._write(keys=keys, args=[epoch, version, body, *vacancies])
        return done

    async def read(self) -> bytes | None:
        """The newest frame's body; None if there is none."""
        body = await self._redis.hget(frame_name(self._uid), "body")
        return body.encode() if isinstance(body, str) else body

    async def beat(self, lag_ms: int) -> None:
        """Reports that a projector is alive, and how long the oldest record not yet seen counted has waited."""
        await self._redis.set(heartbeat_name(self._uid), lag_ms, ex=_HEARTBEAT_S)

    async def lag_ms(self) -> int | None:
        """The lag in a projector's heartbeat of the last seconds; None without one."""
        beat = await self._redis.get(heartbeat_name(self._uid))
        return None if beat is None else int(beat)

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator["Subscription"]:
        """A subscription to the session's channel, for the duration of the `with` block."""
        subscription = Subscription(self._redis, channel_name(self._uid))
        try:
            await subscription.renew()
            yield subscription
        finally:
            await subscription.end()

    async def delete(self) -> None:
        """Deletes this session's keys."""
        await self._redis.delete(frame_name(self._uid), heartbeat_name(self._uid))


class Subscription:
    """Frames as they are published. Redis drops slow subscribers silently: `read` is authoritative.

    In a cluster it is a connection to the node that has the channel's slot, recreated when the slot has moved:
    the client learns that from the answers to its reads.
    """

    def __init__(self, redis: Client, channel: str) -> None:
        self._redis = redis
        self._channel = channel
        self._own: Redis | None = None  # the client of one node of a cluster
        self._node: str | None = None
        self._pubsub: PubSub | None = None

    async def renew(self) -> None:
        """Subscribes on the node that has the channel now."""
        await self.end()
        if isinstance(self._redis, RedisCluster):
            await self._redis.initialize()
            node = self._owner(self._redis)
            pool = ConnectionPool(connection_class=node.connection_class, **node.connection_kwargs)
            self._node, self._own = node.name, Redis.from_pool(pool)
            self._pubsub = self._own.pubsub(ignore_subscribe_messages=True)
            await self._pubsub.ssubscribe(self._channel)
        else:
            self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            await self._pubsub.subscribe(self._channel)

    async def end(self) -> None:
        """Closes the connection."""
        pubsub: Any = self._pubsub  # its aclose has no types
        own, self._pubsub, self._own = self._own, None, None
        try:
            if pubsub is not None:
                await pubsub.aclose()
        finally:
            if own is not None:
                await own.aclose()

    async def bodies(self, seconds: float) -> AsyncIterator[bytes]:
        """Bodies of the frames that arrive within this many seconds."""
        if isinstance(self._redis, RedisCluster) and self._owner(self._redis).name != self._node:
            await self.renew()
        assert self._pubsub is not None
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            message = await self._pubsub.get_message(timeout=left)
            if message is not None and message["type"] in _MESSAGES:
                yield message["data"]

    def _owner(self, cluster: RedisCluster) -> ClusterNode:
        node: ClusterNode | None = cluster.get_node_from_key(self._channel)
        if node is None:
            raise RedisClusterException(f"no node of the cluster has the slot of {self._channel}")
        return node
