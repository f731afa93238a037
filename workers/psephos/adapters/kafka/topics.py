"""A session's topics and their settings, for what creates them: the admin client or KafkaTopic resources. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from psephos.adapters.kafka.client import control_topic, tallies_topic, votes_topic

_FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
_COMPACT = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
_DATED = {"message.timestamp.type": "LogAppendTime"}  # roles compare their clocks with it


class Topic(NamedTuple):
    """A topic to be created."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def session_topics(session_uid: str, partitions: int, replication: int) -> tuple[Topic, ...]:
    """The topics votes, tallies and control, in this order."""
    common = {
        "min.insync.replicas": str(max(1, replication - 1)),
        "unclean.leader.election.enable": "false",
    }
    return (
        Topic(votes_topic(session_uid), partitions, replication, {**common, **_FOREVER, **_DATED}),
        Topic(tallies_topic(session_uid), partitions, replication, {**common, **_COMPACT}),
        Topic(control_topic(session_uid), 1, replication, {**common, **_COMPACT, **_DATED}),
    )
