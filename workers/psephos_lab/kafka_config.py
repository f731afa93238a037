"""The configuration of a local broker, from a few numbers to the text of its files. Pure.

Settings for safety are those of the design (no unclean election, no auto-creation); the rest trades capacity that
a local stack does not need for a start within seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Warnings and errors to standard output, which is the broker's log file.
LOG4J2 = """\
appenders = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRefs = console
rootLogger.appenderRef.console.ref = console
"""


@dataclass(frozen=True)
class Node:
    """One combined broker and controller on loopback."""

    node_id: int
    port: int
    controller_port: int


def server_properties(node: Node, nodes: Sequence[Node], data: Path, extra: Mapping[str, str]) -> str:
    """Returns the text of ``server.properties`` of ``node``, one of ``nodes``; ``extra`` overrides all else."""
    replicas = min(3, len(nodes))
    min_in_sync = 2 if replicas > 2 else 1
    settings = {
        "process.roles": "broker,controller",
        "node.id": node.node_id,
        "controller.quorum.voters": ",".join(f"{n.node_id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": min_in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": min_in_sync,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": min_in_sync,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1_000,
        # a dead worker's open transaction is aborted soon after its timeout, not up to 10 s later
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
        # a killed broker may be restarted at once: the controller refuses it while its old session lives
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 3_000,
        # otherwise an idle controller writes two records per second, which take a third of an idle broker's CPU
        "metadata.max.idle.interval.ms": 5_000,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 16 << 20,  # the default takes 128 MB of a heap of 512 MB
        **extra,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
