"""Commands, run inside the test's own process: those that end before they start anything."""

import os
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import pytest

from psephos.cli import main


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def line(self) -> str:
        """The one line on standard error."""
        assert "Traceback" not in self.stderr
        (line,) = self.stderr.splitlines()
        return line


@pytest.fixture
def psephos(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `psephos ARGUMENTS`; `env`: variables of its own, in place of every PSEPHOS_* that is set."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Done:
        others = {name: value for name, value in os.environ.items() if not name.startswith("PSEPHOS_")}
        capsys.readouterr()
        with (
            mock.patch.dict(os.environ, {**others, **(env or {})}, clear=True),
            pytest.raises(SystemExit) as ended,
        ):
            main([str(each) for each in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    return run
