"""`psephos dev run`, from the arguments to the exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from psephos.cli.errors import InputError
from psephos.cli.inputs import read_session
from psephos.cli.local import stay, tell_addresses
from psephos.cli.output import encode_result
from psephos.domain.session import Session
from psephos.platform.errors import FAILED
from psephos.platform.logs import configure_logs
from psephos.platform.signals import stop_requests
from psephos_lab.ballots import BallotsError
from psephos_lab.display import Display
from psephos_lab.folder import temporary_folder
from psephos_lab.published import Published, read_published
from psephos_lab.report import result_text
from psephos_lab.run import ElectionFailed, Inputs, Played, RunOptions, play, read_inputs
from psephos_lab.stack import Stack

_DEMO_S = 30.0  # how long the voting of a demo takes


class Wanted(NamedTuple):
    """Options of a run: what to print, where the stack lives, and whether it stays up."""

    json: bool
    data_dir: Path | None
    stay: bool
    demo: bool


def run_election(session_file: Path, ballots: Path, options: RunOptions, wanted: Wanted) -> int:
    """Plays the election and prints its result; returns the exit code.

    Raises InputError, BallotsError, and errors that keep a stack from starting.
    """
    session, _ = read_session(session_file)
    inputs = _read(session, session_file, ballots, options)
    published = read_published(ballots) if wanted.demo else None
    if wanted.demo and options.rate is None:
        options = replace(options, rate=max(1.0, sum(kind.voters for kind in inputs.kinds) / _DEMO_S))
    configure_logs(role="dev", level="warning", form="console")
    try:
        played = _play(inputs, options, wanted, published)
    except ElectionFailed as error:
        Display().news("failed", str(error))
        return FAILED
    return FAILED if played.problems or (published and published.differences(played.result)) else 0


def _read(session: Session, session_file: Path, ballots: Path, options: RunOptions) -> Inputs:
    try:
        return read_inputs(session, ballots, options)
    except BallotsError:
        raise
    except ValueError as error:
        raise InputError(f"{session_file}: {error}") from None


def _play(inputs: Inputs, options: RunOptions, wanted: Wanted, published: Published | None) -> Played:
    """Plays. With --stay the result is printed while the stack is up, else after everything has stopped."""
    display = Display()
    stays = wanted.stay or (wanted.demo and sys.stdin.isatty())
    with stop_requests() as stop, _folder(wanted.data_dir) as folder:

        def meanwhile(stack: Stack, played: Played) -> None:
            if stays:
                _show(played, inputs.session, published, display, json=wanted.json)
                tell_addresses(stack, display)
                stay(stack, display, stop)

        played = play(inputs, folder, options, display, lambda: bool(stop), meanwhile)
    if not stays:
        _show(played, inputs.session, published, display, json=wanted.json)
    return played


def _show(played: Played, session: Session, published: Published | None, display: Display, *, json: bool) -> None:
    result = played.result
    print(encode_result(result) if json else result_text(result, session.labels, published), flush=True)  # noqa: T201
    for problem in (*played.problems, *(published.differences(result) if published else ())):
        display.news("wrong", problem)


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """An empty folder: an election is played once. Raises InputError."""
    if given is None:
        with temporary_folder() as folder:
            yield folder
        return
    if given.exists() and (not given.is_dir() or any(given.iterdir())):
        raise InputError(f"--data-dir: {given} is not an empty folder; an election needs a fresh one")
    given.mkdir(parents=True, exist_ok=True)
    yield given
