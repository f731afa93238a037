"""Which process of a parallel run gets which file of tests: long ones first, and servers are started seldom."""

from collections import Counter
from collections.abc import Collection, Iterable

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

OWN_SERVERS = ("tests/apiserver/", "tests/faults/")
"""Folders whose tests share servers that each process starts for itself: an API server, three brokers."""
FIRST = (*OWN_SERVERS, "tests/integration/elections/", "tests/integration/", "tests/model/")
"""What takes longest is not begun last."""
LONG = (
    "tests/apiserver/test_reconcile.py",
    "tests/faults/test_broker_faults.py",
    "tests/integration/embargo/test_embargo.py",
    "tests/integration/elections/test_votes_again.py",
    "tests/model/test_exactly_once.py",
    "tests/integration/elections/test_burlington.py",
    "tests/integration/operator/test_kafka_restarts.py",
    "tests/integration/elections/test_a_session_on_this_machine.py",
    "tests/integration/ingest/test_eligibility.py",
    "tests/apiserver/test_lifecycle_deletion.py",
    "tests/apiserver/test_kubectl_plugin.py",
    "tests/faults/test_tally_killed.py",
)
"""What takes a minute or more; first a file of each of `OWN_SERVERS`, so that their servers start at once."""
WORTH_SERVERS = 2  # files left in a folder for which one more process starts its servers


def rank(path: str) -> int:
    """When the tests of a file are handed out, lowest first."""
    return next((number for number, start in enumerate(FIRST) if path.startswith(start)), len(FIRST))


def folder(path: str) -> str:
    """The folder whose servers these tests share; empty for those of the whole run."""
    return next((each for each in OWN_SERVERS if path.startswith(each)), "")


def choose(waiting: Iterable[str], mine: str, others: Collection[str]) -> str | None:
    """The next file for a process, of those that wait; None: its work is done.

    `mine`: the folder whose servers it has; `others`: those that other processes have. A process with servers goes
    on with their tests. The others take those only when no other tests are left, from the folder with most files.
    """
    files = sorted(waiting, key=lambda path: LONG.index(path) if path in LONG else len(LONG))
    left = Counter(map(folder, files))
    if mine and left[mine]:
        return next(path for path in files if folder(path) == mine)
    if (alone := next((path for path in files if folder(path) not in others), None)) is not None:
        return alone
    most = max(left, key=left.__getitem__, default="")
    return next(path for path in files if folder(path) == most) if left[most] >= WORTH_SERVERS else None


class ByServers(LoadScopeScheduling):  # type: ignore[misc]
    """By file, and by who has which servers."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        held = {each: _held(files) for each, files in self.assigned_work.items()}
        mine = held.pop(node, "")
        path = choose(self.workqueue, mine, set(held.values()) - {""})
        if path is None:
            node.shutdown()
        else:
            self.workqueue.move_to_end(path, last=False)
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """NB: a process begins its last test when it knows the next one, or that there is none."""
        if self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)


def _held(files: Iterable[str]) -> str:
    """The folder whose servers a process has that was given these files, in this order."""
    *_, last = ("", *files)
    return folder(last)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByServers | None:
    """Only where tests are handed out by file: `make faults` spreads its own differently."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return ByServers(config, log)
