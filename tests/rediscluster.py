"""A real Redis Cluster on loopback: three nodes that share the slots, each with a port and a folder of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import redis
from tests.waiting import wait_until

from psephos_lab.ports import LOOPBACK, free_port
from psephos_lab.servers import Redis

SLOTS = 16_384
NODE_TIMEOUT_MS = 2_000
START_S = 60.0


class Node(Redis):
    """One node; it keeps its place in the cluster over a restart, and nothing else."""

    def __init__(self, folder: Path, logs: Path, options: Sequence[str]) -> None:
        super().__init__(free_port(), folder, logs)
        self.bus = free_port()
        self._options = tuple(options)

    def command(self) -> list[str]:
        return [
            *super().command(),
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus), "--cluster-config-file", "nodes.conf"),
            *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), *self._options),
        ]

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis(LOOPBACK, self.port)

    def say(self, *words: object) -> object:
        """One command; its answer."""
        with self.client as client:
            return client.execute_command(*words)


class RedisCluster:
    """Three nodes, as a context manager."""

    def __init__(self, folder: Path, *options: str) -> None:
        """`options`: of redis-server, for all nodes."""
        self.nodes = [Node(folder / f"node-{number}", folder / f"node-{number}", options) for number in range(3)]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()
        share = -(-SLOTS // len(self.nodes))
        first, *others = self.nodes
        for number, node in enumerate(self.nodes):
            last = min((number + 1) * share, SLOTS) - 1
            node.say("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for node in others:
            node.say("CLUSTER", "MEET", LOOPBACK, first.port, first.bus)
        self.wait_whole()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()

    def wait_whole(self) -> None:
        """Until every node knows of all slots and nodes."""
        wait_until(lambda: all(self._is_whole(node) for node in self.nodes), "the cluster is whole", START_S)

    def owner(self, key: str) -> Node:
        """The node that has this key."""
        slot = self.nodes[0].say("CLUSTER", "KEYSLOT", key)
        return next(node for node in self.nodes if slot in self._slots(node))

    def move(self, key: str, to: Node) -> None:
        """Gives this key's slot, and what is in it, to another node, as `redis-cli --cluster reshard` does."""
        source, slot = self.owner(key), self.nodes[0].say("CLUSTER", "KEYSLOT", key)
        ids = {node: _text(node.say("CLUSTER", "MYID")) for node in (source, to)}
        to.say("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.say("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])
        while keys := source.say("CLUSTER", "GETKEYSINSLOT", slot, 100):
            assert isinstance(keys, list)
            source.say("MIGRATE", LOOPBACK, to.port, "", 0, 5_000, "KEYS", *keys)
        for node in (to, source, *(each for each in self.nodes if each not in ids)):
            node.say("CLUSTER", "SETSLOT", slot, "NODE", ids[to])

    def _is_whole(self, node: Node) -> bool:
        info = _text(node.say("CLUSTER", "INFO"))
        return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.nodes)}" in info

    def _slots(self, node: Node) -> set[int]:
        mine = next(line for line in _text(node.say("CLUSTER", "NODES")).splitlines() if "myself" in line)
        ranges = [part.split("-") for part in mine.split()[8:] if not part.startswith("[")]
        return {slot for first, *last in ranges for slot in range(int(first), int(last[0] if last else first) + 1)}


def _text(answer: object) -> str:
    """NB: CLUSTER INFO and NODES are parsed by the client unless asked in two words."""
    return answer.decode() if isinstance(answer, bytes) else str(answer)
