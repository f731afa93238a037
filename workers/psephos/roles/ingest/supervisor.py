"""Several ingest processes behind one port: the kernel spreads connections over their sockets (SO_REUSEPORT).

They are forked from one that has imported ingest's modules, where the system allows. None outlives this process.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from psephos.platform.backoff import Backoff
from psephos.platform.child_process import POLL_INTERVAL
from psephos.platform.forkserver import ForkServer, can_fork, python_program
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings, SettingsError, environment
from psephos.platform.signals import stop_requests
from psephos.platform.supervisor import RoleFailed, Supervised, Supervisor
from psephos.roles.ingest.listener import bind

GRACE_S = 25.0  # more than a process takes to drain
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
SOUND_AFTER_S = 60.0  # a process that ran this long starts with the first delay again
log = get_logger()


def run(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT. Raises SettingsError if a process can't start at all."""
    with stop_requests() as stop, _reserved(settings) as port:
        supervisor = _supervisor(settings, port)
        try:
            supervisor.start()
            while not stop:
                supervisor.check()
                time.sleep(POLL_INTERVAL)
        except RoleFailed as error:
            raise SettingsError(f"could not start {error}") from None
        finally:
            supervisor.stop(together=True)
    log.info("stopped")


def _supervisor(settings: Settings, port: int) -> Supervisor:
    fork_server = ForkServer(["psephos.roles.ingest.main"]) if can_fork() else None
    own = environment(settings, ingest_port=port, ingest_processes=1)
    processes = [
        Supervised(
            f"ingest process {index}",
            python_program(
                fork_server, f"ingest-{index}", "psephos.roles.ingest", ("--index", str(index)), None, own
            ),
            backoff=Backoff(FIRST_DELAY_S, LONGEST_DELAY_S, SOUND_AFTER_S),
        )
        for index in range(settings.ingest_processes)
    ]
    return Supervisor(processes, fork_server=fork_server, grace_s=GRACE_S)


@contextmanager
def _reserved(settings: Settings) -> Iterator[int]:
    """Holds the port for our processes: no other socket is on it, and port 0 becomes the same port for all."""
    with bind(settings, shared=False) as alone:
        port = alone.getsockname()[1]
    with bind(settings.model_copy(update={"ingest_port": port}), shared=True):
        yield port
