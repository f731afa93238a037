"""Reports failures as one line and an exit code, never as a traceback.

An unforeseen error is a bug: its line says where it happened, and with PSEPHOS_LOG_LEVEL=debug the whole traceback
is printed before it.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from typer.exceptions import Abort, TyperException

from psephos.platform.errors import BAD_INPUT, FAILED, PsephosError, one_line

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


class InputError(PsephosError):
    """An argument or a file that can't be used. The message is one line: which, what, and what is allowed."""

    exit_code = BAD_INPUT


class Unsuccessful(PsephosError):
    """The outcome is not the requested one. The message is one line."""

    exit_code = FAILED


def run_command(program: str, command: Callable[..., object], arguments: list[str] | None) -> NoReturn:
    """Runs a typer command and ends the process."""
    try:
        sys.exit(command(arguments, prog_name=program, standalone_mode=False) or 0)  # type: ignore[arg-type]
    except TyperException as error:
        message = error.format_message()
        sys.stderr.write(f"{message}\n" if "\n" in message else f"{program}: {message}\n")
        sys.exit(error.exit_code)
    except (Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILED)
    except Exception as error:
        line, code = explain(error)
        sys.stderr.write(f"{program}: {line}\n")
        sys.exit(code)


def explain(error: Exception) -> tuple[str, int]:
    """One line for a person, and the exit code."""
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        return f"this command needs the extra `{extra}`: pip install 'psephos[{extra}]'", BAD_INPUT
    if isinstance(error, PsephosError) and error.exit_code is not None:
        return error.line, error.exit_code
    if isinstance(error, OSError):
        return one_line(str(error)), FAILED
    return _bug(error), FAILED


def _bug(error: Exception) -> str:
    if os.environ.get("PSEPHOS_LOG_LEVEL") == "debug":
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    hint = "PSEPHOS_LOG_LEVEL=debug shows where it comes from"
    return f"unexpected {type(error).__name__}: {one_line(str(error))}{where}; {hint}"
