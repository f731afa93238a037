"""The role `psephos recount`: one run, after which the process ends."""

from psephos.platform.logs import configure_logs
from psephos.platform.settings import Settings
from psephos.roles.recount import job
from psephos.roles.recount.errors import RecountError
from psephos.roles.recount.job import FINAL_RUN, quiet, run_all, run_index, seal_run
from psephos.roles.recount.partitions import Progress
from psephos.roles.recount.report import RecountReport

__all__ = ["RecountError", "RecountReport", "run"]


def run(
    settings: Settings,
    *,
    index: int | None = None,
    parallelism: int | None = None,
    seal: bool = False,
    audit: bool = False,
    name: str = FINAL_RUN,
    progress: Progress = quiet,
) -> RecountReport:
    """Performs the requested run and returns a report; the process should end with `report.exit_code`.

    By default: all partitions, then the sealing step. `index` (with `parallelism`): only that index of a Job.
    `seal`: only the sealing step. `audit`: compare, seal nothing. `parallelism`: number of processes, by default
    what the session says, at most one per core. `name`: names the run's verdicts; not "final" after a repair.

    Raises RecountError, SettingsError, GenesisMismatch, LogUnavailable or LedgerUnavailable.
    """
    configure_logs(
        role="recount", level=settings.log_level, form=settings.log_format, session=settings.session_uid
    )
    if sum((index is not None, seal, audit)) > 1:
        raise RecountError("an index, the sealing step and an audit are three things: ask for one")
    if index is not None:
        if parallelism is None:
            raise RecountError(f"index {index} of how many? Name the parallelism as well")
        return run_index(settings, index, parallelism, run=name, progress=progress)
    if seal:
        return seal_run(settings, run=name, progress=progress)
    if audit:
        return job.audit(settings, parallelism=parallelism, progress=progress)
    return run_all(settings, run=name, parallelism=parallelism, progress=progress)
