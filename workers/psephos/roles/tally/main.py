"""`psephos tally`: one worker."""

import gc
import signal
import threading
import time

from psephos.platform.health import AdminServer, Health
from psephos.platform.logs import configure_logs, get_logger
from psephos.platform.settings import Settings
from psephos.roles.tally import metrics
from psephos.roles.tally.worker import Worker
from psephos.runtime.bootstrap import start

# Number of new objects after which the collector looks for cycles. A fetch creates 65,000 objects without any
# cycle: collecting after every 700, which is Python's default, took a quarter of the time.
_COLLECT_AFTER = 200_000
log = get_logger()


def run(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT, then leaves the group and closes the stores.

    Raises SettingsError, GenesisMismatch, LogUnavailable or LedgerUnavailable at startup, and Fenced if another
    process runs with this worker's ordinal.
    """
    configure_logs(
        role="tally",
        level=settings.log_level,
        form=settings.log_format,
        session=settings.session_uid,
        worker=settings.worker,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    health = Health()
    admin = AdminServer(settings.host, settings.admin_port, health, metrics.REGISTRY)

    def waiting(why: str) -> None:
        health.not_ready("start", why)

    try:
        began = time.monotonic()
        context = start(settings, waiting=waiting, stopped=stop.is_set)
        log.info("tally started", seconds=round(time.monotonic() - began, 3), admin_port=admin.port)
        gc.set_threshold(_COLLECT_AFTER)
        Worker(context, health, stop.is_set).run()
        log.info("tally stopped")
    finally:
        admin.close()
