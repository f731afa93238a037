"""The final recount in a separate process, for a local controller."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from psephos.control import LifecycleError
from psephos.formats.control import Phase
from psephos.platform.child_process import ChildProcess
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.recount.report import DIFFERS

_PHASES = {0: Phase.FINAL, DIFFERS: Phase.DISPUTED}  # by exit code; any other means that nothing was decided
_TRIES = 3
log = get_logger()


def recount_by_child(
    settings: Settings, environment: Mapping[str, str] | None = None, log_file: Path | None = None
) -> Callable[[], Phase]:
    """Returns the function that `LocalController` calls for a recount. `environment` is added to our own.

    The function raises LifecycleError if the recount could not be done after several tries.
    """
    command = (sys.executable, "-m", "psephos.cli", "recount")

    def recount() -> Phase:
        child = ChildProcess("recount", command, log_file, env=environment or {})
        for attempt in range(_TRIES):
            child.start()
            code = child.wait()
            if code in _PHASES:
                return _PHASES[code]
            log.warning("recount not done", exit_code=code, attempt=attempt + 1, why=child.last_words())
        raise LifecycleError(
            f"session {settings.session_uid} could not be recounted: {child.last_words() or 'see its lines above'}"
        )

    return recount
