"""Kafka's admin requests by a child process: what comes of them when it dies, hangs, or its parent does."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from tests.guards.leftovers import runs
from tests.integration.operator.asking import operator_settings
from tests.servers import Servers
from tests.waiting import wait_until

from psephos.adapters.kafka import LogUnavailable, admin_child
from psephos.adapters.kafka.admin_child import (
    Config,
    CountOwned,
    CreateTopics,
    DeleteTopics,
    DescribeTopic,
    RequestFailed,
    Topic,
)
from psephos.adapters.kafka.admin_process import AdminProcess
from psephos.adapters.kafka.client import connection_config
from psephos_operator.metrics import REGISTRY

ASKS = """
import sys, os, time
from psephos.adapters.kafka import admin_process
from psephos.adapters.kafka.admin_child import DescribeTopic
def ask():
    return admin_process.shared.ask({"bootstrap.servers": sys.argv[1]}, DescribeTopic(20.0, sys.argv[2]))[1]
"""


@pytest.fixture
def config(backends: Servers) -> Config:
    return connection_config(operator_settings(backends.kafka_bootstrap).role_settings("u"))


@pytest.fixture
def process() -> Iterator[AdminProcess]:
    made = AdminProcess()
    yield made
    made.end()


@pytest.fixture
def impatient() -> Iterator[AdminProcess]:
    """Soon takes its child for one that hangs."""
    made = AdminProcess(hung_s=2.0)
    yield made
    made.end()


@pytest.fixture
def topic(config: Config, process: AdminProcess, unique: Callable[[str], str]) -> str:
    """One that is there, with two partitions."""
    name = unique("topic")
    process.ask(config, CreateTopics(20.0, [Topic(name, 2, 1, {})]))
    wait_until(lambda: described(process, config, name) == 2, "the topic is known")
    return name


def described(process: AdminProcess, config: Config, topic: str) -> int | None:
    """Its partitions, None where Kafka does not know it."""
    try:
        return int(process.ask(config, DescribeTopic(20.0, topic))[1])
    except RequestFailed:
        return None


def ended(how: str) -> float:
    return REGISTRY.get_sample_value("psephos_admin_process_ended_total", {"how": how}) or 0.0


def pid_of(process: AdminProcess) -> int:
    assert process.pid is not None
    return process.pid


def test_a_request_whose_process_dies_is_made_once_more_in_another(
    process: AdminProcess, config: Config, topic: str
) -> None:
    first, before = pid_of(process), ended("died")
    os.kill(first, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(described, process, config, topic)
        os.kill(first, signal.SIGABRT)
        os.kill(first, signal.SIGCONT)
        assert asked.result(60) == 2
    assert process.pid != first
    assert ended("died") == before + 1


def test_a_request_whose_processes_all_die_fails_in_one_line_and_the_next_one_works(
    process: AdminProcess, config: Config, topic: str
) -> None:
    process.end()  # it would reply sooner than it is killed: each of its successors has to start first
    over = threading.Event()

    def kill_each() -> None:
        while not over.wait(0.01):
            if (pid := process.pid) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_each)
    killer.start()
    try:
        with pytest.raises(LogUnavailable, match="the process that asks Kafka ended: exit code -9") as failed:
            described(process, config, topic)
    finally:
        over.set()
        killer.join()
    assert "\n" not in str(failed.value)
    assert described(process, config, topic) == 2


def test_a_process_that_hangs_is_ended_and_the_next_request_has_another(
    impatient: AdminProcess, config: Config, topic: str
) -> None:
    assert described(impatient, config, topic) == 2
    first, before = pid_of(impatient), ended("hung")
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(LogUnavailable, match="stood still for 3 s"):
        impatient.ask(config, DescribeTopic(1.0, topic))
    wait_until(lambda: not runs(first), "it is gone")
    assert described(impatient, config, topic) == 2
    assert impatient.pid != first
    assert ended("hung") == before + 1


def test_a_process_that_hangs_with_its_pipe_full_is_ended_as_well(
    impatient: AdminProcess, config: Config, topic: str
) -> None:
    assert described(impatient, config, topic) == 2
    os.kill(pid_of(impatient), signal.SIGSTOP)
    with pytest.raises(LogUnavailable, match="stood still"):
        impatient.ask(config, DeleteTopics(1.0, ["x" * 200_000]))
    assert described(impatient, config, topic) == 2


def test_many_threads_share_one_process(process: AdminProcess, config: Config, topic: str) -> None:
    first = pid_of(process)
    with ThreadPoolExecutor(32) as pool:
        known = [pool.submit(described, process, config, topic) for _ in range(100)]
        unknown = [pool.submit(described, process, config, f"{topic}-{number}") for number in range(100)]
        assert {asked.result(60) for asked in known} == {2}
        assert {asked.result(60) for asked in unknown} == {None}
    assert process.pid == first


def test_each_request_is_made_by_the_configuration_that_it_brings(
    process: AdminProcess, config: Config, topic: str
) -> None:
    first, nowhere = pid_of(process), {"bootstrap.servers": "127.0.0.1:1"}
    with pytest.raises(RequestFailed):
        process.ask(nowhere, DescribeTopic(1.0, topic))
    with pytest.raises(RequestFailed, match="within 1 s"):
        process.ask(nowhere, CountOwned(1.0, "group", topic))
    with pytest.raises(RequestFailed, match="No such configuration property"):
        process.ask({"no.such": 1}, DescribeTopic(1.0, topic))
    assert described(process, config, topic) == 2
    assert process.pid == first


def test_a_process_without_requests_ends_and_the_next_request_starts_another(config: Config, topic: str) -> None:
    process, before = AdminProcess(idle_s=0.5), ended("died")
    try:
        assert described(process, config, topic) == 2
        first = pid_of(process)
        wait_until(lambda: process.pid is None and not runs(first), "it has ended")
        assert described(process, config, topic) == 2
        assert process.pid != first
    finally:
        process.end()
    assert ended("died") == before


@pytest.mark.parametrize("child", ["waits", "stands still"])
def test_no_process_outlives_a_parent_that_is_killed(backends: Servers, topic: str, child: str) -> None:
    says = "ask(); print(admin_process.shared.pid, flush=True); time.sleep(600)"
    with python(says, backends, topic) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if child == "stands still":
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
    wait_until(lambda: not runs(pid), "the child has ended with its parent")


def test_a_forked_copy_has_a_process_of_its_own(backends: Servers, topic: str) -> None:
    says = (
        "ask(); mine = admin_process.shared.pid; forked = os.fork()\n"
        "if not forked: assert ask() == 2 and admin_process.shared.pid != mine; os._exit(0)\n"
        "assert os.waitpid(forked, 0)[1] == 0 and ask() == 2 and admin_process.shared.pid == mine"
    )
    with python(says, backends, topic) as parent:
        assert parent.wait(60) == 0


def python(says: str, backends: Servers, topic: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", ASKS + says, backends.kafka_bootstrap, topic]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_the_process_imports_nothing_else_of_psephos() -> None:
    says = f"import runpy, sys; runpy.run_path({admin_child.__file__!r}); print('psephos' in sys.modules)"
    seen = subprocess.run([sys.executable, "-P", "-c", says], capture_output=True, text=True, check=True)
    assert seen.stdout == "False\n"
