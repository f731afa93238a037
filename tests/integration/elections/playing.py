"""Elections as a person plays them: the command in a process of its own, watched through what it writes."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.guards.leftovers import BOUND
from tests.waiting import READY_S, wait_until

from psephos.platform.settings import Settings, load_settings

EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"
PSEPHOS = (sys.executable, "-m", "psephos.cli")
RESULT_S = 400.0


def psephos(
    *arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 120.0, stdin: str = ""
) -> Any:
    """Runs a command to its end: `.returncode`, `.stdout`, `.stderr`."""
    return subprocess.run(
        [*PSEPHOS, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=120,
        check=False,
    )


def example(name: str) -> tuple[Path, Path]:
    """Session and ballots of an example."""
    folder = EXAMPLES / name
    return folder / "session.yaml", next(folder.glob("ballots.csv*"))


def read_environment(folder: Path) -> dict[str, str]:
    """What `source <folder>/env` exports."""
    words = shlex.split((folder / "env").read_text().replace("\n", " ; "))
    pairs = [word.partition("=") for word in words if "=" in word]
    return {name: value for name, _, value in pairs}


class Command:
    """A `psephos dev` command that runs on, with its folder."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self.folder = folder
        self.said = folder.parent / f"{folder.name}.stderr"
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [*BOUND, *PSEPHOS, "dev", *map(str, arguments), "--data-dir", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )

    @property
    def errors(self) -> str:
        return self.said.read_text()

    def wait_for_words(self, words: str, timeout: float = READY_S) -> None:
        def said() -> bool:
            assert self.process.poll() is None or words in self.errors, self.errors
            return words in self.errors

        wait_until(said, f"standard error says {words!r}", timeout)

    @property
    def environment(self) -> dict[str, str]:
        return read_environment(self.folder)

    @property
    def settings(self) -> Settings:
        return load_settings(self.environment)

    def pids(self) -> dict[str, int]:
        """Process ids of servers and roles, by name."""
        pids: dict[str, int] = json.loads((self.folder / "pids.json").read_text())
        return pids

    def pid(self, name: str) -> int:
        return self.pids()[name]

    def kill(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)

    def log_events(self, name: str, event: str) -> list[dict[str, Any]]:
        """The lines of a process's log with this event."""
        path = self.folder / "logs" / f"{name}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        parsed = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in parsed if line.get("event") == event]

    def result(self) -> dict[str, Any]:
        """The object on standard output; waits for it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors
        found: dict[str, Any] = json.loads(line)
        return found

    def finish(self) -> int:
        """Waits for the end; the exit code."""
        return self.process.wait(RESULT_S)

    def stop(self) -> int:
        """SIGTERM, then waits; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(READY_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
