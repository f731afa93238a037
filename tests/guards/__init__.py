"""What fails a run though each test that came to its end passed.

A test process that died or hangs, a process that a test left running, a test that was skipped. The conftest of
each suite installs these guards; they hold in every process of a parallel run.
"""

import pytest
from tests.guards import skips
from tests.guards.deaths import Watch
from tests.guards.leftovers import Leftovers, adopt_orphans
from tests.guards.worker import FOLDER, Worker


def install(config: pytest.Config) -> None:
    """For a suite that runs on this machine alone; once a process."""
    forbid_skips(config)
    folder = getattr(config, "workerinput", {}).get(FOLDER)
    if folder is not None:
        config.pluginmanager.register(Worker(config, folder))
        return
    adopt_orphans()
    config.pluginmanager.register(Leftovers())
    if config.getoption("dist", "no") != "no":
        config.pluginmanager.register(Watch(config))


def forbid_skips(config: pytest.Config) -> None:
    """For every suite."""
    config.pluginmanager.register(skips, "psephos skips")
