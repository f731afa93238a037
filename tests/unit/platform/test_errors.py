"""One base for the errors of the product, and one way in which they end a program."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import psephos
import psephos_lab
import psephos_operator
from psephos.platform.errors import PsephosError
from psephos.platform.program import run_program
from psephos.platform.settings import SettingsError


def _errors() -> Iterator[type[Exception]]:
    for package in (psephos, psephos_lab, psephos_operator):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                    if kind.__module__ == module.name and issubclass(kind, Exception):
                        yield kind


def test_every_error_of_the_product_has_one_base() -> None:
    """But for that of a process that imports nothing else of psephos."""
    others = [kind.__qualname__ for kind in _errors() if not issubclass(kind, PsephosError)]
    assert others == ["RequestFailed"]


def test_a_foreseen_error_ends_a_program_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        raise SettingsError("first\n  second\n")

    assert run_program("psephos tally", run) == 2
    assert capsys.readouterr().err == "psephos tally: first; second\n"


def test_an_error_that_may_end_no_program_is_a_bug() -> None:
    def run() -> None:
        raise PsephosError("why")

    with pytest.raises(PsephosError):
        run_program("psephos tally", run)
