"""`psephos session`: gives people's commands to the controller of a session that runs on this machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from psephos.cli.errors import InputError
from psephos.platform.durations import parse_duration

if TYPE_CHECKING:
    from psephos.control import CommandFile, DesiredState

app = typer.Typer(
    help="Pause, resume, extend, close or void a session that runs on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Session = Annotated[
    str | None, typer.Argument(help="The session's name; not needed where one runs.", metavar="[SESSION]")
]
Data = Annotated[
    Path, typer.Option("--data", help="Folder of the session, or of all; with `serve`, its PSEPHOS_DATA_DIR.")
]
FOLDER = Path(".psephos")


@app.callback()
def _session() -> None:
    pass


@app.command()
def pause(session: Session = None, data: Data = FOLDER) -> None:
    """Take no votes for the time being.

    \b
      psephos session pause
      psephos session pause lunch --data .psephos

    Voters are told to come back. `closesAt` stays: `extend` makes up for the time. A session that has not begun
    begins paused.
    """
    from psephos.control import DesiredState

    _give(data, session, DesiredState(paused=True))


@app.command()
def resume(session: Session = None, data: Data = FOLDER) -> None:
    """Take votes again.

    \b
      psephos session resume lunch
    """
    from psephos.control import DesiredState

    _give(data, session, DesiredState(paused=False))


@app.command()
def extend(
    session: Session = None,
    to: Annotated[str | None, typer.Option(help="The new end, with its zone: 2026-11-23T20:15:00Z.")] = None,
    by: Annotated[str | None, typer.Option(help="So much later than now planned: 90s, 15m, 2h, 1d.")] = None,
    data: Data = FOLDER,
) -> None:
    """Move the end to later, as long as voting goes on.

    \b
      psephos session extend lunch --by 15m
      psephos session extend lunch --to 2026-11-23T20:15:00+01:00

    It can never be moved to earlier, and not within the last three seconds. A session without an end gets one.
    """
    from psephos.control import DesiredState

    if (to is None) == (by is None):
        raise InputError("say until when: --to TIME, or --by DURATION")
    file = _file(data, session)
    closes_at = _time("--to", to) if to is not None else _planned_end(file, data) + _duration("--by", str(by))
    _submit(file, DesiredState(closes_at=closes_at))


@app.command()
def close(
    session: Session = None,
    at: Annotated[str | None, typer.Option(help="When, with its zone; in three seconds without it.")] = None,
    data: Data = FOLDER,
) -> None:
    """End the voting: from then on the end is fixed, and the recount follows.

    \b
      psephos session close lunch
      psephos session close lunch --at 2026-11-23T20:15:00Z
    """
    from psephos.control import DesiredState

    now = _now_ms()
    close_at = now if at is None else _time("--at", at)
    if close_at < now:
        raise InputError(f"--at: {at} is over")
    _give(data, session, DesiredState(close_at=close_at))


@app.command()
def void(
    session: Session = None,
    reason: Annotated[str, typer.Option(help="Why, for everybody to read.")] = "",
    data: Data = FOLDER,
) -> None:
    """Declare the session void, for ever: no vote is taken any more, and there is no result.

    \b
      psephos session void lunch --reason "the list of options was wrong"
    """
    from psephos.control import DesiredState

    if not reason.strip():
        raise InputError("say why it is void: --reason TEXT; everybody will read it")
    _give(data, session, DesiredState(void=reason.strip()))


# --- To the controller


def _give(data: Path, session: str | None, command: DesiredState) -> None:
    _submit(_file(data, session), command)


def _submit(file: CommandFile, command: DesiredState) -> None:
    """Gives a command and prints the resulting state. Raises LifecycleError, NotAcknowledged."""
    from psephos.formats.control import Phase
    from psephos.platform.clock import text_of

    control = file.give(command)
    said = [f"{file.session} is {control.phase}"]
    if control.phase is Phase.VOID:
        said.append(f"because: {control.reason}")
    elif control.phase is Phase.PENDING and command.paused:
        said.append("and begins paused")
    if control.closes_at is not None and control.phase in (Phase.PENDING, Phase.OPEN, Phase.PAUSED):
        said.append(f"until {text_of(control.closes_at)}")
    typer.echo(", ".join(said))


def _planned_end(file: CommandFile, data: Path) -> int:
    last = file.acknowledged()
    if last is None or last.control.closes_at is None:
        raise InputError(f"{file.session} has no end so far: say --to TIME")
    return last.control.closes_at


# --- Which session


def _file(data: Path, session: str | None) -> CommandFile:
    """The command file of the intended session. Raises InputError."""
    from psephos.control import CommandFile

    folders = list(_folders(data, session))
    files = [CommandFile(folder, name) for name, folder in folders]
    running = [file for file in files if file.running()] or files
    if len(running) == 1:
        return running[0]
    if running:
        names = ", ".join(sorted(file.session for file in running))
        raise InputError(f"--data: several sessions are in {data}: {names}; say which")
    what = f"the session {session}" if session else "a session"
    raise InputError(f"--data: {data} does not hold {what}; `psephos dev up` starts one")


def _folders(data: Path, session: str | None) -> list[tuple[str, Path]]:
    """Names and command folders in a session's own folder, in `serve`'s data folder, or of all sessions below."""
    found = [folder for folder in (data / "data" / "commands", data / "commands") if folder.is_dir()]
    if not found:
        found = sorted(data.glob("*/data/commands"))
    named = [(_name(folder), folder) for folder in found]
    return [(name, folder) for name, folder in named if session in (None, name)]


def _name(folder: Path) -> str:
    """The session's name as its controller reports it; before that, the name of the session's folder."""
    from psephos.control import CommandFile

    last = CommandFile(folder, "").acknowledged()
    return folder.parent.parent.name if last is None else last.session


# --- Times


def _now_ms() -> int:
    from psephos.platform.clock import now_ms

    return now_ms()


def _time(option: str, text: str) -> int:
    """The time in milliseconds since 1970. Raises InputError."""
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InputError(f"{option} is {text!r}; allowed: a time with its zone, such as 2026-11-23T20:15:00Z")
    return round(time.astimezone(UTC).timestamp() * 1000)


def _duration(option: str, text: str) -> int:
    """The milliseconds of a duration such as `90s`, `15m`, `2h`, `1d`. Raises InputError."""
    found = parse_duration(text)
    if not found:
        raise InputError(f"{option} is {text!r}; allowed: a duration such as 90s, 15m, 2h or 1d")
    return found // timedelta(milliseconds=1)
