"""Stacks that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.integration.elections.playing import Command, example


class Finished(NamedTuple):
    """An election that has its result, its servers and roles still up."""

    command: Command
    result: dict[str, Any]


@pytest.fixture(scope="module")
def burlington(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Burlington's election, played once: at a pace that gives each partition a chain of many blocks."""
    session, ballots = example("burlington-2009-irv")
    folder: Path = tmp_path_factory.mktemp("burlington") / "stack"
    load = ("--duplicates", "0.1", "--invalid", "0.01", "--rate", "3000", "--workers", "2")
    command = Command(folder, "run", session, "--ballots", ballots, *load, "--stay", "--json")
    try:
        yield Finished(command, command.result())
    finally:
        code = command.stop()
    assert code == 0, command.errors


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts `psephos dev ARGUMENTS --data-dir <a folder of its own>`; stopped after the test."""
    commands: list[Command] = []

    def start(*arguments: str | Path, folder: Path | None = None) -> Command:
        command = Command(folder or tmp_path / f"stack-{len(commands)}", *arguments)
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.stop()
