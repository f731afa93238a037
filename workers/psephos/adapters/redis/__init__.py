"""The projection: a session's newest result frame in Redis, written by compare-and-set, and its channel.

The projector and the recount's sealing step write it; gateways read it.
"""

from psephos.adapters.redis.projection import (
    AWAY,
    Client,
    Projection,
    Subscription,
    Vacant,
    channel_name,
    frame_name,
    heartbeat_name,
    redis_client,
    tls,
)

__all__ = [
    "AWAY",
    "Client",
    "Projection",
    "Subscription",
    "Vacant",
    "channel_name",
    "frame_name",
    "heartbeat_name",
    "redis_client",
    "tls",
]
