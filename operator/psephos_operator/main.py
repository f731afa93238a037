"""`psephos operator`: waits for the lease, then reconciles every session until it is asked to stop."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from psephos.platform.health import AdminServer, Health
from psephos.platform.logs import configure_logs, get_logger
from psephos.platform.program import run_program
from psephos.platform.settings import SettingsError
from psephos.platform.signals import StopRequest, stop_requests
from psephos_operator import metrics
from psephos_operator.admission.webhook import CertificateStore, Webhook
from psephos_operator.controller import Loop
from psephos_operator.kube.client import Kube
from psephos_operator.kube.leader import Leadership
from psephos_operator.reconcile.backends import Backends
from psephos_operator.settings import PREFIX, OperatorSettings, load_operator_settings

TICK_S = 0.5
log = get_logger()


def run(settings: OperatorSettings) -> None:
    """Blocks until SIGTERM or SIGINT. Raises SettingsError."""
    configure_logs(role="operator", level=settings.log_level, form=settings.log_format, identity=settings.identity)
    settings.kafka_properties()
    health = Health()
    metrics.HEARTBEAT.set_function(lambda: health.age_s)
    admin = _admin(settings, health)
    try:
        kube, backends = Kube(settings), Backends(settings)
        leadership = Leadership(settings, kube)
        with stop_requests() as stop, _webhook(settings, kube):
            health.ready()
            log.info("started", admin_port=admin.port)
            while not stop:
                _stand_by(leadership, health, stop)
                if leadership.held and not stop:
                    _lead(leadership, Loop(settings, kube, backends, leadership.require), health, stop)
            leadership.release()
            log.info("stopped")
    finally:
        admin.close()


def _webhook(settings: OperatorSettings, kube: Kube) -> AbstractContextManager[object]:
    """Starts the webhook, which every replica serves, leader or not."""
    if settings.webhook == "off":
        return nullcontext()
    try:
        return Webhook(settings, CertificateStore(settings, kube.client))
    except OSError as error:
        raise SettingsError(f"{PREFIX}WEBHOOK_PORT={settings.webhook_port}: {error.strerror}") from None


def _stand_by(leadership: Leadership, health: Health, stop: StopRequest) -> None:
    while not stop and not leadership.hold():
        _tick(health, stop, leadership.pause_s, lambda: True)


def _lead(leadership: Leadership, loop: Loop, health: Health, stop: StopRequest) -> None:
    """Leads until the lease is lost. NB: a loop that hangs stops the heartbeat; the kubelet then restarts us."""
    metrics.LEADER.set(1)
    loop.start()

    def going() -> bool:
        loop.show()
        for trouble in loop.troubles:
            log.error("the loop is in trouble", why=trouble)
        return not loop.troubles

    try:
        while not stop and leadership.held:
            leadership.hold()
            _tick(health, stop, leadership.pause_s, going)
    finally:
        metrics.LEADER.set(0)
        loop.forget_gauges()
        log.info("no longer leading", asked_to_stop=bool(stop))
        loop.stop()


def _tick(health: Health, stop: StopRequest, for_s: float, going: Callable[[], bool]) -> None:
    """Waits, and keeps the heartbeat going as long as all is well."""
    deadline = time.monotonic() + for_s
    while not stop and time.monotonic() < deadline:
        if going():
            health.beat()
        time.sleep(TICK_S)


def _admin(settings: OperatorSettings, health: Health) -> AdminServer:
    try:
        return AdminServer(settings.listen, settings.admin_port, health, metrics.REGISTRY)
    except OSError as error:
        raise SettingsError(f"{PREFIX}ADMIN_PORT={settings.admin_port}: {error.strerror}") from None


def main() -> int:
    """Runs with the environment's settings; returns the exit code."""
    return run_program("psephos operator", lambda: run(load_operator_settings()))
