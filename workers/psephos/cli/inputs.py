"""Reads files that are named on the command line."""

from pathlib import Path

from psephos.cli.errors import InputError
from psephos.domain.session import Session, SessionError, parse_session


def read_session(path: Path) -> tuple[Session, bytes]:
    """The session in a YAML file, and its source. Raises InputError naming file, place and each problem."""
    try:
        source = path.read_bytes()
        return parse_session(source), source
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except SessionError as error:
        raise InputError("; ".join(f"{path}: {problem}" for problem in error.problems)) from None
