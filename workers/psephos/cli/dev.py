"""`psephos dev`: sessions and whole elections on this machine, with real servers."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Sessions and whole elections on this machine, on real Kafka, Redis and DynamoDB Local.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SessionFile = Annotated[Path, typer.Argument(help="The session's YAML.", metavar="SESSION.yaml")]
TokenKey = Annotated[
    Path | None,
    typer.Option("--token-key-file", help="HS256 secret of voter tokens; without it one is made."),
]


@app.callback()
def _dev() -> None:
    pass


@app.command()
def up(
    session_file: SessionFile,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept; .psephos/<session name> without it.")
    ] = None,
    port: Annotated[int, typer.Option(help="Results: page and API; 0: a free one.")] = 8081,
    ingest_port: Annotated[int, typer.Option(help="Votes; 0: a free one.")] = 8080,
    admin_port: Annotated[int, typer.Option(help="First of the roles' admin ports; 0: free ones.")] = 9090,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Tally workers.")] = 1,
    ingest_processes: Annotated[int, typer.Option(min=1, max=64, help="Ingest processes.")] = 1,
    token_key_file: TokenKey = None,
    roll_file: Annotated[
        Path | None, typer.Option("--roll-file", help="Electoral roll, a subject a line; else the session's.")
    ] = None,
) -> None:
    """Run a session on this machine until Ctrl-C.

    \b
      psephos dev up my-session.yaml
      psephos dev up my-session.yaml --data-dir /tmp/vote --port 9001

    Starts the servers, makes keys, opens the session by its clock, closes and recounts it. What is started again
    on the same folder goes on where it was. `source <folder>/env` lets other commands find the stack.
    """
    from psephos.cli.local import run_stack
    from psephos_lab.stack import StackOptions

    options = StackOptions(
        workers=workers,
        ingest_processes=ingest_processes,
        ingest_port=ingest_port or None,
        gateway_port=port or None,
        admin_port=admin_port or None,
        token_key_file=token_key_file,
        roll_file=roll_file,
    )
    run_stack(session_file, data_dir, options)


@app.command()
def run(
    session_file: SessionFile,
    ballots: Annotated[Path, typer.Option(help="CSV with the columns count,choices; .gz as well.")],
    duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the voters with a second vote that must not count.")
    ] = 0.0,
    extra: Annotated[
        float, typer.Option(min=0, max=1, help="Further votes, where voters may have several, by the ballots.")
    ] = 0.0,
    invalid: Annotated[
        float, typer.Option(min=0, max=1, help="Invalid ballots by valid ones: half by HTTP, half into the log.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="All chance in the load comes from it.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Tally workers.")] = 1,
    ingest_processes: Annotated[int, typer.Option(min=1, max=64, help="Ingest processes.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="An empty folder for the stack; without it a temporary one.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=1, help="Ballots a second at most.")] = None,
    grace: Annotated[float, typer.Option(min=1, max=60, help="Close grace in seconds at most.")] = 5.0,
    stay: Annotated[bool, typer.Option("--stay", help="Leave the stack up after the result.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Show live bars and published figures; stays up on a terminal.")
    ] = False,
    token_key_file: TokenKey = None,
) -> None:
    """Play a whole election on a fresh stack: vote, close, recount, check, print the result.

    \b
      psephos dev run session.yaml --ballots ballots.csv
      psephos dev run session.yaml --ballots ballots.csv --duplicates 0.1 --invalid 0.01 --json
      psephos dev run revotes.yaml --ballots ballots.csv --extra 0.2 --duplicates 0.1 --ingest-processes 2

    ballots.csv has the columns count,choices: a+b for approval, a>b>c for ranked, a=3>b=2 for scores, nothing for
    a blank ballot. Each ballot is cast by a voter of its own, by HTTP. Exit code 0: the recount matches, every
    acknowledged vote is in the log, a reference model finds the same result, receipts say what became of their
    votes, and viewers see what was recounted.
    """
    from psephos.cli.election import Wanted, run_election
    from psephos_lab.run import RunOptions
    from psephos_lab.stack import StackOptions

    stack = StackOptions(workers=workers, ingest_processes=ingest_processes, token_key_file=token_key_file)
    options = RunOptions(duplicates, extra, invalid, seed, rate, grace, live=demo, stack=stack)
    raise typer.Exit(run_election(session_file, ballots, options, Wanted(json, data_dir, stay, demo)))
