"""`psephos projector`: one per session."""

import asyncio

from psephos.adapters.redis import Projection, redis_client
from psephos.platform.health import Health
from psephos.platform.settings import Settings
from psephos.roles.projector import metrics
from psephos.roles.projector.projector import Projector
from psephos.runtime.bootstrap import Context
from psephos.runtime.role import run_role


def run(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT.

    Raises SettingsError, GenesisMismatch, LogUnavailable or LedgerUnavailable at startup.
    """
    run_role("projector", settings, _serve, registry=metrics.REGISTRY)


async def _serve(context: Context, health: Health, stop: asyncio.Event) -> None:
    redis = redis_client(context.settings)
    try:
        await Projector(context, Projection(redis, context.settings.session_uid), health).run(stop)
    finally:
        await redis.aclose()
