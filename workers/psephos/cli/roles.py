"""The roles as commands: `psephos ingest`, `tally`, `projector`, `gateway`, `recount`, `serve` and `operator`."""

import textwrap
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

_EVERY_ROLE = (
    "session_file",
    "session_uid",
    "kafka_bootstrap",
    "kafka_properties_file",
    "dynamodb_endpoint",
    "dynamodb_table",
    "aws_region",
    "host",
    "admin_port",
    "log_level",
    "log_format",
)
_DOOR = (
    "ingest_port",
    "ingest_processes",
    "ingest_queue",
    "ingest_connections",
    "ingest_idle_s",
    "ingest_address_rate",
    "ingest_address_burst",
    "ingest_voter_rate",
    "ingest_voter_burst",
    "ingest_open_rate",
    "ingest_open_burst",
    "trusted_proxies",
)
_REDIS = ("redis_url", "redis_cluster", "redis_ca_file")
_STORE = ("s3_enabled", "s3_endpoint", "s3_region", "s3_access_key_id", "s3_secret_access_key")
VARIABLES = {
    "ingest": (
        "session_key_file",
        "token_key_file",
        "batch_credential_file",
        "roll_file",
        *_STORE,
        "data_dir",
        *_DOOR,
    ),
    "tally": ("worker", "data_dir"),
    "projector": _REDIS,
    "gateway": ("session_key_file", "gateway_port", "gateway_viewers", "ingest_url", *_REDIS),
    "recount": ("signing_key_file", "lot_seed_file", *_REDIS, *_STORE, "data_dir"),
    "serve": (
        "session_key_file",
        "token_key_file",
        "batch_credential_file",
        "roll_file",
        *_DOOR,
        "gateway_port",
        "gateway_viewers",
        "ingest_url",
        *_REDIS,
        *_STORE,
        "data_dir",
    ),
}
_INDENT = " " * 6


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    for role, text in _ROLES.items():
        app.command(role, cls=_RoleCommand, help=text)(_command(role))
    app.command("recount", cls=_RoleCommand)(recount)
    app.command("serve", cls=_RoleCommand)(serve)
    app.command("operator", cls=_OperatorCommand)(operator)


class _RoleCommand(TyperCommand):
    """A command whose help ends with its relevant variables, read from the settings themselves."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        formatter.write(variables_help(self.name or ""))


class _OperatorCommand(TyperCommand):
    """A command whose help ends with the operator's own variables."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        known = import_module("psephos_operator.settings")
        formatter.write(_variables(known.OperatorSettings.model_fields, known.PREFIX))


def variables_help(role: str) -> str:
    """The variables of a role, each with its meaning and its default."""
    from psephos.platform.settings import PREFIX, Settings

    names = (*VARIABLES[role], *_EVERY_ROLE)
    return _variables({name: Settings.model_fields[name] for name in names}, PREFIX)


def _variables(fields: Mapping[str, Any], prefix: str) -> str:
    from pydantic_core import PydanticUndefined

    lines = ["\nVariables:\n"]
    for name, field in fields.items():
        meaning = field.description or str(getattr(field.annotation, "__args__", "")).strip("()")
        default = "required" if field.default is PydanticUndefined else f"default {field.default}"
        meaning = meaning if field.default is None else f"{meaning} ({default})".strip()
        lines += [f"  {prefix}{name.upper()}\n", textwrap.fill(meaning, 100, initial_indent=_INDENT) + "\n"]
    return "".join(lines)


def _command(role: str) -> Callable[[], None]:
    def command() -> None:
        from psephos.platform.settings import load_settings

        settings = load_settings()
        import_module(f"psephos.roles.{role}.main").run(settings)

    return command


_ROLES = {
    "ingest": """Take votes: HTTP in, the log out, a receipt back.

    \b
      PSEPHOS_SESSION_FILE=session.yaml PSEPHOS_SESSION_UID=grand-final-1 \\
      PSEPHOS_KAFKA_BOOTSTRAP=kafka:9092 PSEPHOS_SESSION_KEY_FILE=session.key \\
      PSEPHOS_TOKEN_KEY_FILE=tokens.key psephos ingest

    Configured by variables; runs until SIGTERM, then finishes what it has taken.""",
    "tally": """Count votes: the log in, ledger blocks and tallies out. One worker.

    \b
      PSEPHOS_WORKER=0 PSEPHOS_DATA_DIR=/var/lib/psephos psephos tally

    Workers of one session share its partitions; each has an ordinal and a folder of its own.""",
    "projector": """Keep the newest result in Redis, from the ledger's heads and the tallies.

    \b
      PSEPHOS_REDIS_URL=redis://redis:6379/0 psephos projector""",
    "gateway": """Show results: pages, GET, WebSocket and events out of Redis, receipts out of the ledger.

    \b
      PSEPHOS_GATEWAY_PORT=8081 psephos gateway""",
}


def recount(
    audit: Annotated[
        bool, typer.Option("--audit", help="Compare up to the ledger's heads as they are now; seal nothing.")
    ] = False,
    index: Annotated[
        int | None, typer.Option(min=0, help="Only the partitions p with p % parallelism = index; seals nothing.")
    ] = None,
    parallelism: Annotated[
        int | None, typer.Option(min=1, help="Processes, or indexes of a Job; by default what the session says.")
    ] = None,
    seal: Annotated[bool, typer.Option("--seal", help="Only combine all verdicts and sign.")] = False,
    name: Annotated[str, typer.Option(help="Of this run's verdicts; another one after a repair.")] = "final",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    tolerate_differences: Annotated[
        bool,
        typer.Option("--tolerate-differences", help="Exit code 0 for them as well: a Job would only try again."),
    ] = False,
) -> None:
    """Count the log again and compare it with the ledger, record by record.

    \b
      source .psephos/my-session/env && psephos recount --audit

    Without --audit, in a session that has been closed: the final recount, which signs and publishes the result.
    Exit code 0: log and ledger agree; 3: they differ.
    """
    from psephos.cli.recounting import print_report
    from psephos.platform.settings import load_settings
    from psephos.roles.recount.main import run

    report = run(
        load_settings(),
        index=index,
        parallelism=parallelism,
        seal=seal,
        audit=audit,
        name=name,
        progress=lambda news: typer.echo(f"recount: {news}", err=True),
    )
    print_report(report, as_json=as_json)
    raise typer.Exit(0 if tolerate_differences else report.exit_code)


def serve(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Tally workers.")] = 1,
    conduct: Annotated[
        bool,
        typer.Option(
            "--conduct", help="Open, audit, close and recount by the clock as well, as the operator does."
        ),
    ] = False,
) -> None:
    """Run ingest, tally, projector and gateway of one session as child processes.

    \b
      psephos serve --workers 2

    A role that dies or hangs is started again. Their admin ports follow each other from PSEPHOS_ADMIN_PORT on:
    ingest, gateway, projector, tally workers, and last its own. SIGTERM drains them in order, whoever takes votes
    first.
    """
    from psephos.platform.settings import load_settings
    from psephos.roles.serve.main import run

    run(load_settings(), workers=workers, conduct=conduct)


def operator() -> None:
    """Look after every VotingSession of a cluster: prepare, run, heal, close and recount it.

    \b
      PSEPHOS_OPERATOR_KUBECONFIG=~/.kube/config PSEPHOS_OPERATOR_IMAGE=registry.example/psephos:1.0 \\
      PSEPHOS_OPERATOR_KAFKA_BOOTSTRAP=kafka:9092 psephos operator

    Runs until SIGTERM. Of several replicas one acts, by a Lease; the others stand by.
    """
    settings = import_module("psephos_operator.settings").load_operator_settings()
    import_module("psephos_operator.main").run(settings)
