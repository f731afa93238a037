"""`psephos`: all commands together, and the one place where failures become exit codes."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NoReturn

import typer
import typer.main

from psephos.cli import dev, people, roles, session, size, tokens
from psephos.cli.errors import run_command
from psephos.platform.signals import write_stacks_when_asked

app = typer.Typer(
    name="psephos",
    help="""Votes that are never lost and never counted twice, with live results that anyone can check.

    A whole election on this machine, with real servers:

    \b
      psephos dev up my-session.yaml
      psephos dev run my-session.yaml --ballots ballots.csv

    Each role is a command of its own, configured by PSEPHOS_* variables; its --help lists them.""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.add_typer(dev.app, name="dev")
app.add_typer(session.app, name="session")
app.add_typer(tokens.app, name="tokens")
people.add_to(app)
size.add_to(app)
roles.add_to(app)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command and ends the process."""
    write_stacks_when_asked()
    run_command("psephos", _command.main, arguments)


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"psephos {version('psephos')}")
        except PackageNotFoundError:
            typer.echo("psephos (not installed as a package)")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_command = typer.main.get_command(app)  # once: forked processes share it
