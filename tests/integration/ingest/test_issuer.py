"""An issuer's site that answers, rotates, lies and is down, by a real HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from tests.integration.ingest.conftest import eventually
from tests.unit.ingest.test_published_keys import ALGORITHMS, jwk, published, signed, verifier
from tests.unit.ingest.test_verifier import NOW

from psephos.roles.ingest import jwks
from psephos.roles.ingest.eligibility import Eligibility
from psephos.roles.ingest.jwks import PublishedKeys
from psephos.roles.ingest.keys import JWKS_LIMIT, UnknownKey, no_keys
from psephos.roles.ingest.problems import Problem


class Issuer:
    """A real HTTP server with a key set that the test changes."""

    def __init__(self) -> None:
        self.asked = 0
        self.respond: Callable[[], web.Response] = lambda: web.Response(body=published(jwk("ES256", "first")))
        self.slow = asyncio.Event()
        self.slow.set()

    async def __call__(self, _: web.BaseRequest) -> web.Response:
        self.asked += 1
        await self.slow.wait()
        return self.respond()


@pytest.fixture
async def issuer() -> AsyncIterator[tuple[Issuer, str]]:
    one = Issuer()
    runner = web.ServerRunner(web.Server(one))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield one, f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    one.slow.set()
    await runner.cleanup()


def eligibility(url: str) -> Eligibility:
    one = verifier(no_keys(ALGORITHMS))
    return Eligibility(one, PublishedKeys(url, ALGORITHMS, one.use))


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for which the tokens are."""
    monkeypatch.setattr("psephos.roles.ingest.eligibility.time.time", lambda: float(NOW))


async def test_an_unknown_key_is_looked_for_once_however_many_ask(issuer: tuple[Issuer, str]) -> None:
    server, url = issuer
    one = eligibility(url)
    server.slow.clear()
    asking = [asyncio.create_task(one.voter(signed("ES256", "first"))) for _ in range(20)]
    await eventually(lambda: server.asked, "asked")
    server.slow.set()
    assert {voter.subject for voter in await asyncio.gather(*asking)} == {"ann"}
    assert server.asked == 1


async def test_made_up_names_do_not_make_us_hammer_the_issuer(issuer: tuple[Issuer, str]) -> None:
    server, url = issuer
    one = eligibility(url)
    for number in range(30):
        with pytest.raises(UnknownKey):
            await one.voter(signed("ES256", f"made-up-{number}"))
    assert server.asked == 1
    assert (await one.voter(signed("ES256", "first"))).subject == "ann"


async def test_a_rotated_key_is_found_when_the_pause_is_over(
    issuer: tuple[Issuer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = issuer
    one = eligibility(url)
    await one.voter(signed("ES256", "first"))
    new = ec.generate_private_key(ec.SECP256R1())
    server.respond = lambda: web.Response(body=published(jwk("ES256", "first"), jwk("ES256", "second", new)))
    with pytest.raises(UnknownKey):
        await one.voter(signed("ES256", "second", new))
    monkeypatch.setattr(jwks, "UNKNOWN_KEY_PAUSE_S", 0.0)
    assert (await one.voter(signed("ES256", "second", new))).subject == "ann"
    assert (await one.voter(signed("ES256", "first"))).subject == "ann"


@pytest.mark.parametrize(
    "respond",
    [
        lambda: web.Response(status=503),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/keys"}),
        lambda: web.Response(body=b"<html>"),
        lambda: web.Response(body=b" " * (JWKS_LIMIT + 1)),
        lambda: web.Response(body=published()),
    ],
)
async def test_an_outage_is_survived_on_the_keys_that_are_known(
    issuer: tuple[Issuer, str], monkeypatch: pytest.MonkeyPatch, respond: Any
) -> None:
    server, url = issuer
    one = eligibility(url)
    await one.voter(signed("ES256", "first"))
    monkeypatch.setattr(jwks, "UNKNOWN_KEY_PAUSE_S", 0.0)
    server.respond = respond
    with pytest.raises(Problem) as caught:
        await one.voter(signed("ES256", "second"))
    assert (caught.value.slug, caught.value.status) == ("overloaded", 503)
    assert (await one.voter(signed("ES256", "first"))).subject == "ann"
    assert one.issuer is not None
    assert (one.issuer.known, one.issuer.trouble is not None) == (True, True)


async def test_a_process_without_any_keys_tries_on_until_it_has_some(
    issuer: tuple[Issuer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = issuer
    monkeypatch.setattr(jwks, "FIRST_RETRY_S", 0.01)
    server.respond = lambda: web.Response(status=500)
    one = eligibility(url)
    assert one.issuer is not None
    running = asyncio.create_task(one.issuer.run())
    await eventually(lambda: server.asked >= 3, "asked again and again")
    assert not one.issuer.known
    server.respond = lambda: web.Response(body=published(jwk("EdDSA", "late")))
    issuer_keys = one.issuer
    await eventually(lambda: issuer_keys.known, "keys")
    assert (await one.voter(signed("EdDSA", "late"))).subject == "ann"
    running.cancel()
