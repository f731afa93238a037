"""Results by way of a Redis Cluster, and of a Redis with TLS and users: real ones, and what befalls them."""

import asyncio
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.apiserver.certificates import write_certificates
from tests.integration.readside.conftest import ReadSide, fetch
from tests.integration.readside.watching import Socket
from tests.rediscluster import RedisCluster
from tests.waiting import wait_until

from psephos.adapters.redis import AWAY, Projection, Vacant, channel_name, frame_name, redis_client
from psephos.platform.settings import Settings, SettingsError, load_settings
from psephos.roles.recount.sealing import publish
from psephos_lab.ports import LOOPBACK, free_port
from psephos_lab.servers import Backends as Servers
from psephos_lab.servers import Redis
from psephos_operator.reconcile.backends import Backends, new_password
from psephos_operator.settings import OperatorSettings, load_operator_settings


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def settings(uid: str, url: str, **more: str) -> Settings:
    common = {"PSEPHOS_SESSION_FILE": "s", "PSEPHOS_KAFKA_BOOTSTRAP": "k", "PSEPHOS_REDIS_CLUSTER": "true"}
    return load_settings({**common, "PSEPHOS_SESSION_UID": uid, "PSEPHOS_REDIS_URL": url, **more})


def operator_settings(url: str, servers: Servers, **more: str) -> OperatorSettings:
    return load_operator_settings(
        {},
        image="x",
        kafka_bootstrap=servers.kafka_bootstrap,
        dynamodb_endpoint=servers.dynamodb_endpoint,
        redis_url=url,
        redis_acl=True,
        **more,
    )


def new_uid() -> str:
    return uuid.uuid4().hex


async def test_many_sessions_are_spread_over_the_nodes_and_each_is_written_by_compare_and_set(
    cluster: RedisCluster,
) -> None:
    owners = set()
    for _ in range(12):
        uid = new_uid()
        client = redis_client(settings(uid, cluster.url))
        projection = Projection(client, uid)
        with pytest.raises(Vacant) as raised:
            await projection.write_live("e", 2, b"two", "")
        assert await projection.write_live("e", 2, b"two", raised.value.vacancy)
        assert not await projection.write("e", 1, b"one"), "never backwards"
        assert await projection.read() == b"two"
        await projection.beat(7)
        assert await projection.lag_ms() == 7
        await client.aclose()
        owners.add(cluster.owner(frame_name(uid)).port)
        assert cluster.owner(frame_name(uid)) is cluster.owner(channel_name(uid))
    assert len(owners) > 1


async def test_frames_are_published_to_the_slots_own_node_and_follow_it_when_it_moves(
    cluster: RedisCluster,
) -> None:
    uid = new_uid()
    reader, writer = (redis_client(settings(uid, cluster.url)) for _ in range(2))
    wanted, written = Projection(reader, uid), Projection(writer, uid)
    got: list[bytes] = []

    async def listen() -> None:
        async with wanted.subscription() as subscription:
            while True:
                await wanted.read()  # as gateways do each second: it is what notices that a slot has moved
                async for body in subscription.bodies(0.3):
                    got.append(body)

    async def until(body: bytes, version: int) -> None:
        """Published again and again, each time as a newer frame, until it is heard."""
        for attempt in range(200):
            await written.write("e", version + attempt, body)
            await asyncio.sleep(0.1)
            if body in got:
                return
            assert not listening.done(), listening.exception()
        raise AssertionError(f"{body!r} was not heard; {got}")

    listening = asyncio.create_task(listen())
    await until(b"before", 1)
    old = cluster.owner(channel_name(uid))
    assert [node.say("PUBSUB", "SHARDCHANNELS") for node in cluster.nodes if node is not old] == [[], []]
    assert old.say("PUBSUB", "SHARDCHANNELS") == [channel_name(uid).encode()]
    new = next(node for node in cluster.nodes if node is not old)
    cluster.move(channel_name(uid), new)
    await until(b"after", 1_000)
    assert await wanted.read() == b"after"
    wait_until(lambda: new.say("PUBSUB", "SHARDCHANNELS") == [channel_name(uid).encode()], "subscribed there")
    assert not listening.done()
    listening.cancel()
    await reader.aclose()
    await writer.aclose()


async def test_roles_show_results_by_a_cluster_and_outlive_the_death_of_its_node(
    cluster: RedisCluster, readside: ReadSide
) -> None:
    readside.append(0, [0, 0, 1])
    where = {"redis_url": cluster.url, "redis_cluster": "true"}
    projector, gateway = readside.start("projector", **where), readside.start("gateway", **where)
    projector.wait_ready()
    gateway.wait_ready()
    owner = cluster.owner(frame_name(readside.settings.session_uid))
    async with Socket(gateway.v1("/live").replace("http", "ws")) as watcher:
        await watcher.until(lambda frame: not frame["stale"], "fresh results")
        owner.kill()
        frame = await watcher.until(lambda frame: frame["stale"], "the mark is pushed")
        assert frame["totals"] == {"ada": 2, "bob": 1}, "the last results are still served"
        readside.append(1, [0])
        owner.start()
        owner.wait_ready()
        await watcher.until(lambda frame: not frame["stale"] and frame["totals"]["ada"] == 3, "right again")
    wait_until(lambda: fetch(gateway.v1("/results")).json["stale"] is False, "GET says so as well")
    wait_until(projector.ready, "ready again")
    cluster.wait_whole()


async def test_the_sealing_step_publishes_into_a_cluster(cluster: RedisCluster, readside: ReadSide) -> None:
    readside.append(0, [0])
    given = readside.settings.model_copy(update={"redis_url": cluster.url, "redis_cluster": True})
    assert await asyncio.to_thread(publish, given, readside.finish(), 1)
    client = redis_client(given)
    assert await Projection(client, given.session_uid).read() is not None
    await client.aclose()


async def test_a_cluster_that_is_away_is_away_and_no_bug(readside: ReadSide) -> None:
    uid, nobody = new_uid(), f"redis://{LOOPBACK}:{free_port()}"
    client = redis_client(settings(uid, nobody))
    with pytest.raises(AWAY):
        await Projection(client, uid).write("e", 1, b"x")
    with pytest.raises(AWAY):
        async with Projection(client, uid).subscription():
            pass
    await client.aclose()
    projector = readside.start("projector", redis_url=nobody, redis_cluster="true")
    wait_until(lambda: b"redis does not answer" in projector.said(), "it says so, and goes on")
    assert not projector.ready()


def test_a_cluster_has_one_database() -> None:
    with pytest.raises(SettingsError, match="a cluster has one database"):
        settings("u", "redis://redis:6379/3")
    with pytest.raises(SettingsError, match="a cluster has one database"):
        load_operator_settings(
            {}, image="x", kafka_bootstrap="k:1", redis_cluster=True, redis_url="redis://redis:6379/3"
        )


# --- Users


async def test_a_sessions_user_is_on_every_node_and_reaches_its_own_keys_only(
    cluster: RedisCluster, backends: Servers
) -> None:
    hands = Backends(operator_settings(cluster.url, backends, redis_cluster="true"))
    uid, other, password = new_uid(), new_uid(), new_password()
    hands.let_in(uid, password)
    client = redis_client(settings(uid, hands.redis_url(uid, password)))
    mine = Projection(client, uid)
    assert await mine.write("e", 1, b"body")
    assert await mine.read() == b"body"
    async with mine.subscription() as subscription:
        assert [body async for body in subscription.bodies(0.1)] == []
    for _ in range(3):  # wherever another's slot is
        with pytest.raises(redis.exceptions.NoPermissionError):
            await Projection(client, other).read()
        other = new_uid()
    await client.aclose()
    hands.delete_keys(uid)
    assert not cluster.owner(frame_name(uid)).say("EXISTS", frame_name(uid))
    for node in cluster.nodes:
        assert f"psephos-{uid}" not in str(node.say("ACL", "LIST"))


class TlsRedis(Redis):
    """A Redis that speaks TLS only, with one user of its own."""

    ADMIN = "admin:admins-password"

    def command(self) -> list[str]:
        command = super().command()
        at = command.index("--port")
        command[at : at + 2] = ["--port", "0", "--tls-port", str(self.port)]
        certificates = (
            ("--tls-cert-file", "tls.crt"),
            ("--tls-key-file", "tls.key"),
            ("--tls-ca-cert-file", "ca.crt"),
        )
        files = [part for option, name in certificates for part in (option, str(self.folder / name))]
        user, password = self.ADMIN.split(":")
        users = self.folder / "users.acl"
        users.write_text(f"user default off\nuser {user} on >{password} ~* &* +@all\n")
        return [*command, *files, "--tls-auth-clients", "no", "--aclfile", str(users)]

    @property
    def url(self) -> str:
        return f"rediss://{self.ADMIN}@{self.address}/0"

    def ready(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.url, ssl_ca_certs=str(self.folder / "ca.crt")).ping())
        except (redis.RedisError, ssl.SSLError):
            return False


async def test_a_redis_with_tls_of_a_private_authority_and_users(backends: Servers, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    write_certificates(folder)
    server, uid, password = TlsRedis(free_port(), folder, tmp_path), new_uid(), new_password()
    server.start()
    try:
        server.wait_ready()
        authority = str(folder / "ca.crt")
        hands = Backends(operator_settings(server.url, backends, redis_ca_file=authority))
        hands.let_in(uid, password)
        own = {"PSEPHOS_REDIS_CLUSTER": "false"}
        url = hands.redis_url(uid, password)
        client = redis_client(settings(uid, url, **own, PSEPHOS_REDIS_CA_FILE=authority))
        mine = Projection(client, uid)
        assert await mine.write("e", 1, b"body")
        assert await mine.read() == b"body"
        with pytest.raises(redis.exceptions.NoPermissionError):
            await Projection(client, new_uid()).read()
        await client.aclose()
        distrustful = redis_client(settings(uid, url, **own))
        with pytest.raises(AWAY, match="certificate verify failed"):
            await Projection(distrustful, uid).read()
        await distrustful.aclose()
        hands.delete_keys(uid)
    finally:
        server.stop()
