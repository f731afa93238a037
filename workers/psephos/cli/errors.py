"""Failures as one line and an exit code, never as a traceback.

An error that nobody foresaw is a bug: its line says where it happened, and with PSEPHOS_LOG_LEVEL=debug the whole
traceback stands before it.
"""

import os
import sys
import traceback
from pathlib import Path

FAILED = 1  # the command did its work, and the outcome is not what was hoped for
BAD_INPUT = 2  # settings or input: the same command can only fail again

_FORESEEN = {
    BAD_INPUT: (
        "psephos.platform.settings:SettingsError",
        "psephos.session:SessionError",
        "psephos.genesis:GenesisMismatch",
        "psephos.log:LogUnavailable",
        "psephos.ledger:LedgerUnavailable",
        "psephos.ledger:LedgerMissing",
        "psephos.cli.errors:InputError",
        "psephos.dev.ballots:BallotsError",
        "psephos.dev.tokens:TokenKeyError",
        "psephos.dev.errors:StackError",
        "psephos.platform.child_process:ProcessError",
        "psephos.platform.supervisor:RoleFailed",
        "psephos.recount.errors:RecountError",
    ),
    FAILED: (
        "psephos.cli.errors:Unsuccessful",
        "psephos.dev.read:NoAnswer",
        "psephos.dev.voters:Unanswered",
        "psephos.tally.publisher:Fenced",
        "psephos.lifecycle:LifecycleError",
        "psephos.lifecycle:Drained",
        "psephos.lifecycle:Stopped",
        "psephos.lifecycle:Untaken",
    ),
}
_EXTRAS = {
    "aiohttp": "write",
    "boto3": "write",
    "botocore": "write",
    "confluent_kafka": "write",
    "jwt": "write",
    "lmdb": "write",
    "uvloop": "write",
    "redis": "read",
    "kubernetes": "operator",
}


class InputError(Exception):
    """An argument or a file that can't be used. One line: which, what, and what is allowed."""


class Unsuccessful(Exception):
    """The outcome is not what was asked for. One line."""


def explain(error: Exception) -> tuple[str, int]:
    """One line for a person, and the exit code."""
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        return f"this command needs the extra `{extra}`: pip install 'psephos[{extra}]'", BAD_INPUT
    for code, names in _FORESEEN.items():
        if _is_one_of(error, names):
            return _one_line(str(error)), code
    if isinstance(error, OSError):
        return _one_line(str(error)), FAILED
    return _bug(error), FAILED


def _is_one_of(error: Exception, names: tuple[str, ...]) -> bool:
    """By name, so that no module is imported only to see that its errors did not happen."""
    known = {f"{kind.__module__}:{kind.__name__}" for kind in type(error).__mro__}
    return any(_home(name) in known for name in names)


def _home(name: str) -> str:
    """Where a class is defined, if its module has been imported at all: only then can the error be one."""
    module, _, attribute = name.partition(":")
    loaded = sys.modules.get(module)
    kind = getattr(loaded, attribute, None)
    return name if kind is None else f"{kind.__module__}:{kind.__name__}"


def _bug(error: Exception) -> str:
    if os.environ.get("PSEPHOS_LOG_LEVEL") == "debug":
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    hint = "PSEPHOS_LOG_LEVEL=debug shows where it comes from"
    return f"unexpected {type(error).__name__}: {_one_line(str(error))}{where}; {hint}"


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
