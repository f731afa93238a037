"""Runs a role with an event loop: logs, probes, the comparison with genesis, its loop until a signal."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from psephos.platform.health import Health, open_admin
from psephos.platform.logs import configure_logs, get_logger
from psephos.platform.settings import Settings
from psephos.platform.signals import stop_requests
from psephos.runtime.bootstrap import Context, start

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
Serve = Callable[[Context, Health, asyncio.Event], Awaitable[None]]
"""A role's loop: serves until the event is set, drains, returns."""

log = get_logger()


def run_role(
    role: str,
    settings: Settings,
    serve: Serve,
    *,
    registry: CollectorRegistry,
    session_key: bytes | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Blocks until SIGTERM or SIGINT. Raises what `start` raises, SettingsError if the admin port is taken."""
    configure_logs(role=role, level=settings.log_level, form=settings.log_format, session=settings.session_uid)
    health = Health()
    admin = open_admin(settings, settings.admin_port, health, registry)
    try:
        with stop_requests(_SIGNALS) as requested:

            def stopped() -> bool:
                health.beat()  # waiting for genesis is not a hang
                return bool(requested)

            context = start(
                settings,
                session_key=session_key,
                waiting=lambda why: health.not_ready("start", why),
                stopped=stopped,
            )

            async def until_stopped() -> None:
                stop, loop = asyncio.Event(), asyncio.get_running_loop()
                for number in _SIGNALS:
                    loop.add_signal_handler(number, stop.set)
                if requested:  # between the start and the handlers
                    stop.set()
                log.info("started", admin_port=admin.port)
                await serve(context, health, stop)
                log.info("stopped")

            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(until_stopped())
    finally:
        admin.close()
