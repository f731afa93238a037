"""`psephos serve`: one session's roles on one machine or in one pod, until SIGTERM."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from psephos.domain.session import Session
from psephos.platform.child_process import POLL_INTERVAL
from psephos.platform.health import Health, open_admin
from psephos.platform.logs import configure_logs, get_logger
from psephos.platform.settings import Settings
from psephos.platform.signals import stop_requests
from psephos.roles.serve import metrics
from psephos.roles.serve.layout import layout, own_admin_port
from psephos.roles.serve.roles import supervise
from psephos.runtime.session_file import load_session

if TYPE_CHECKING:
    from psephos.control import LocalController
    from psephos.roles.serve.auditing import Auditor

READY_TIMEOUT_S = 300.0  # roles wait for a genesis, and another process may create it
log = get_logger()


def run(settings: Settings, *, workers: int = 1, conduct: bool = False) -> None:
    """Blocks until SIGTERM or SIGINT, then drains in order.

    Raises SettingsError, ProcessError, or RoleFailed for a role that can't run with its settings.
    """
    configure_logs(role="serve", level=settings.log_level, form=settings.log_format, session=settings.session_uid)
    session = load_session(settings)
    roles = layout(settings, workers)
    supervisor, health = supervise(roles, {}, logs=None), Health()
    conducting = (_controller(settings, session.name), _auditor(settings, session)) if conduct else ()
    with stop_requests() as stop, ExitStack() as held:
        held.callback(open_admin(settings, own_admin_port(settings, workers), health, metrics.REGISTRY).close)
        held.callback(supervisor.stop)
        supervisor.start()
        for part in conducting:
            held.callback(part.stop)
            part.start()

        def stopped() -> bool:
            health.beat()
            return bool(stop)

        if supervisor.wait_ready(READY_TIMEOUT_S, stopped):
            health.ready()
            _tell(session.name, settings, [role.name for role in roles])
        while not stopped():
            supervisor.check()
            time.sleep(POLL_INTERVAL)


def _controller(settings: Settings, name: str) -> LocalController:
    """Imports here: the controller's Kafka and ledger clients are 25 MB that mere supervision can do without."""
    from psephos.adapters.kafka import ADMIN_PROCESSES_ENDED
    from psephos.control import CommandFile, LocalController
    from psephos.roles.serve.recounting import recount_by_child

    metrics.REGISTRY.register(ADMIN_PROCESSES_ENDED)
    return LocalController(settings, recount_by_child(settings), commands=CommandFile(settings.commands_dir, name))


def _auditor(settings: Settings, session: Session) -> Auditor:
    from psephos.control import next_due
    from psephos.roles.serve.auditing import Auditor

    return Auditor(settings, partial(next_due, session.spec.recount.schedule))


def _tell(name: str, settings: Settings, roles: list[str]) -> None:
    log.info("serving", roles=roles, ingest_port=settings.ingest_port, gateway_port=settings.gateway_port)
    if sys.stderr.isatty():
        sys.stderr.write(
            f"psephos: {name} is ready: votes on port {settings.ingest_port}, results on port"
            f" {settings.gateway_port} (Ctrl-C stops)\n"
        )
