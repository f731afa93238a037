"""The operator's own hands on Kafka, the ledger and Redis: what a session may reach, and what is left of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis
from tests.prepared import PARTITIONS, Prepared

from psephos.adapters.redis import Projection, frame_name
from psephos.control import ObservedState
from psephos_lab.servers import Backends as Servers
from psephos_operator.reconcile.backends import Backends, new_password
from psephos_operator.settings import load_operator_settings

Unique = Callable[[str], str]


@pytest.fixture
def hands(backends: Servers) -> Backends:
    """The operator's clients on the shared servers."""
    return Backends(
        load_operator_settings(
            {},
            image="x",
            kafka_bootstrap=backends.kafka_bootstrap,
            kafka_replication=1,
            dynamodb_endpoint=backends.dynamodb_endpoint,
            redis_url=backends.redis_url,
            redis_acl=True,
        )
    )


@pytest.fixture
def prepared(backends: Servers, unique: Unique, tmp_path: Path) -> Prepared:
    """A session of long ago with some votes."""
    session = Prepared(backends, unique("o")[:60], tmp_path)
    session.produce([session.vote(f"voter-{number}") for number in range(50)])
    return session


async def test_a_sessions_redis_user_reaches_its_own_keys_and_no_others(hands: Backends, unique: Unique) -> None:
    uid, other = unique("mine"), unique("other")
    password = new_password()
    hands.let_in(uid, password)
    hands.let_in(uid, password)
    client = AsyncRedis.from_url(hands.redis_url(uid, password))
    mine = Projection(client, uid)
    assert await mine.write("epoch", 1, b"body")
    assert await mine.read() == b"body"
    await mine.beat(5)
    assert await mine.lag_ms() == 5
    async with client.pubsub() as listening:
        await listening.subscribe(f"psephos:{{{uid}}}:frames")
    with pytest.raises(redis.exceptions.NoPermissionError):
        await Projection(client, other).read()
    with pytest.raises(redis.exceptions.NoPermissionError):
        await client.flushall()
    with pytest.raises(redis.exceptions.NoPermissionError):
        await client.keys("*")
    await client.aclose()


def test_deleting_keys_takes_the_user_away_as_well(hands: Backends, backends: Servers, unique: Unique) -> None:
    uid, password = unique("gone"), new_password()
    hands.let_in(uid, password)
    redis.Redis.from_url(backends.redis_url).hset(frame_name(uid), "version", 1)
    hands.delete_keys(uid)
    assert not redis.Redis.from_url(backends.redis_url).exists(frame_name(uid))
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis.from_url(hands.redis_url(uid, password)).ping()


def test_the_standing_of_a_session_is_that_of_ledger_and_log(hands: Backends, prepared: Prepared) -> None:
    uid = prepared.genesis.session
    before = hands.observe(uid, "final")
    assert before.genesis == prepared.genesis
    assert (before.closing, before.sealed, before.ends, before.owned) == (None, {}, (0, 0), 0)
    ends = prepared.finish()
    after = hands.observe(uid, "final")
    assert after.ends == ends
    assert after.sealed == dict(enumerate(ends))
    assert after.counted
    assert sum(state.voters for state in after.states) == 50


def test_a_session_that_was_never_prepared_has_no_standing(hands: Backends, unique: Unique) -> None:
    assert hands.observe(unique("nobody"), "final") == ObservedState()


def test_all_rows_of_a_session_go_and_no_others(
    hands: Backends, prepared: Prepared, backends: Servers, unique: Unique, tmp_path: Path
) -> None:
    neighbour = Prepared(backends, unique("n")[:60], tmp_path / "n")
    prepared.finish()
    for number in range(60):  # more than one batch
        prepared.ledger.put_once("verdict#audit-20260101T000000.000000Z", b"{}", sort=number)
    assert prepared.ledger.delete_session() > 60 + PARTITIONS
    assert prepared.ledger.get("genesis") is None
    assert list(prepared.ledger.blocks(0)) == []
    assert neighbour.ledger.get("genesis") is not None
    hands.delete_topics(prepared.genesis.session)
    hands.delete_topics(prepared.genesis.session)
    assert not hands.has_topics(prepared.genesis.session)
