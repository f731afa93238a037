"""`psephos gateway`: any number of gateways serve one session."""

import asyncio
import resource

import uvloop
from aiohttp import web

from psephos.adapters.kafka import ControlFollower
from psephos.adapters.redis import redis_client
from psephos.domain.results import embargoed
from psephos.formats.control import Control, Phase
from psephos.platform.health import Health
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings, SettingsError
from psephos.roles.gateway import metrics
from psephos.roles.gateway.fanout import Hub
from psephos.roles.gateway.feed import Feed, Newest
from psephos.roles.gateway.routes import Doors
from psephos.runtime.bootstrap import Context
from psephos.runtime.role import run_role

DRAIN_S = 8.0
CONTACT_S = 5.0  # without Redis a gateway still has a page to show, so it becomes ready after this
BEAT_S = 1.0
BACKLOG = 4096  # connections that arrive at once when another gateway has gone
OTHER_FILES = 128  # descriptors for other things than viewers: Redis, Kafka, the ledger, probes
log = get_logger()


def run(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT, then disconnects its viewers, a share at a time.

    Raises SettingsError, GenesisMismatch, LogUnavailable or LedgerUnavailable at startup.
    """
    run_role("gateway", settings, _serve, registry=metrics.REGISTRY, loop_factory=uvloop.new_event_loop)


async def _serve(context: Context, health: Health, stop: asyncio.Event) -> None:
    settings, loop = context.settings, asyncio.get_running_loop()
    hub = Hub(_most_viewers(settings))
    doors = Doors(context, hub)
    newest = Newest(context.genesis.epoch, hub.publish, embargoed=embargoed(context.session, Phase.OPEN))
    contact = asyncio.Event()
    redis = redis_client(settings)
    runner = web.AppRunner(
        doors.application(),
        access_log=None,
        handler_cancellation=True,  # a viewer that is gone ends its handler
        shutdown_timeout=3.0,
        keepalive_timeout=75.0,
    )
    await runner.setup()
    control = ControlFollower(settings, lambda news: _hand_over(loop, doors, news))
    try:
        site = await _listen(runner, settings)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(Feed(redis, settings.session_uid, newest, contact.set).run()),
                group.create_task(hub.run()),
                group.create_task(_beat(health)),
                group.create_task(_become_ready(health, contact)),
            ]
            await stop.wait()
            health.not_ready("stop", "draining")
            await site.stop()
            await hub.drain(DRAIN_S)
            for task in tasks:
                task.cancel()
    finally:
        await runner.cleanup()
        await redis.aclose()
        await asyncio.to_thread(control.close)
        doors.close()


async def _listen(runner: web.AppRunner, settings: Settings) -> web.TCPSite:
    site = web.TCPSite(runner, settings.host, settings.gateway_port, backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise SettingsError(
            f"PSEPHOS_GATEWAY_PORT={settings.gateway_port}: {error.strerror or error}; choose a free port"
        ) from None
    log.info("gateway listens", addresses=[list(address[:2]) for address in runner.addresses])
    return site


async def _beat(health: Health) -> None:
    while True:
        health.beat()
        await asyncio.sleep(BEAT_S)


async def _become_ready(health: Health, contact: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(CONTACT_S):
            await contact.wait()
    except TimeoutError:
        log.warning("redis has not answered so far; serving without results")
    health.ready()


def _hand_over(loop: asyncio.AbstractEventLoop, doors: Doors, control: Control) -> None:
    """Hands a control record from the follower's thread to the event loop."""
    loop.call_soon_threadsafe(setattr, doors, "control", control)


def _most_viewers(settings: Settings) -> int:
    """Returns the configured number of viewers, or what open files allow; raises the soft limit to that end."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    possible = settings.gateway_viewers if hard == resource.RLIM_INFINITY else hard - OTHER_FILES
    if possible < settings.gateway_viewers:
        log.warning(
            "fewer viewers than asked for", asked=settings.gateway_viewers, possible=possible, open_files=hard
        )
    return min(settings.gateway_viewers, possible)
