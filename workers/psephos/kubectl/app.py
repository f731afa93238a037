"""The commands of `kubectl psephos`."""

from __future__ import annotations

import json
import sys
import time
from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

import typer

from psephos.cli.errors import InputError, run_command
from psephos.kubectl import frames, orders
from psephos.kubectl.access import RESOURCE, Kubectl

PROGRAM = "kubectl psephos"

app = typer.Typer(
    name="psephos",
    help="""Results and orders of VotingSessions.

    \b
      kubectl psephos results grand-final
      kubectl psephos watch grand-final -n television
      kubectl psephos extend grand-final --by 5m

    Everything goes through kubectl: your login, your rights.""",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Name = Annotated[str, typer.Argument(metavar="SESSION", help="Name of the VotingSession.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Its namespace; the context's by default.")]
Context = Annotated[str, typer.Option(help="The kubeconfig's context.")]
Kubeconfig = Annotated[str, typer.Option(help="The kubeconfig file.")]
Reason = Annotated[str, typer.Option(help="Why; voters and the status are told.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def results(
    name: Name,
    output: Annotated[str, typer.Option("-o", "--output", help="table or json.")] = "table",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Print the newest results.

    \b
      kubectl psephos results grand-final
      kubectl psephos results grand-final -o json
    """
    if output not in ("table", "json"):
        raise InputError(f"--output is {output!r}; allowed: table, json")
    kubectl = Kubectl(namespace, context, kubeconfig)
    session = kubectl.session(name)
    frame = frames.newest(kubectl, frames.address_of(session))
    if output == "json":
        typer.echo(json.dumps(frame, indent=2, ensure_ascii=False))
    else:
        _print(session, frame)


@app.command()
def watch(name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = "") -> None:
    """Show the results as they come, until the final ones or Ctrl-C.

    \b
      kubectl psephos watch grand-final
    """
    from rich.console import Console
    from rich.live import Live

    from psephos.client.bars import bars, result_line

    kubectl = Kubectl(namespace, context, kubeconfig)
    session = kubectl.session(name)
    coming = frames.follow(kubectl, frames.address_of(session))
    console = Console(highlight=False)
    if not console.is_terminal:
        for frame in coming:
            typer.echo(result_line(frame, _labels(session)))
        return
    with Live(console=console, auto_refresh=False) as live:
        for frame in coming:
            live.update(bars(frame, _labels(session), _title(session)), refresh=True)


@app.command()
def close(
    name: Name,
    reason: Reason = "",
    yes: Yes = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Begin to close now, whatever closesAt says. Nothing opens a closed session again.

    \b
      kubectl psephos close lunch --yes
    """
    kubectl = Kubectl(namespace, context, kubeconfig)
    change = orders.close(kubectl.session(name), reason)
    _ask(f"close {name} now, for good?", yes)
    kubectl.patch(name, change)
    typer.echo(f"{name} closes; `{PROGRAM} watch {name}` shows its end")


@app.command()
def extend(
    name: Name,
    by: Annotated[str, typer.Option(help="So much later: 90s, 10m, 2h, 1d.")] = "",
    to: Annotated[str, typer.Option(help="At this time, with its zone: 2026-11-23T20:30:00Z.")] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Move the end to later; possible until closing has begun.

    \b
      kubectl psephos extend grand-final --by 5m
      kubectl psephos extend grand-final --to 2026-11-23T20:30:00Z
    """
    if bool(by) == bool(to):
        raise InputError("one of --by and --to is needed")
    kubectl = Kubectl(namespace, context, kubeconfig)
    session = kubectl.session(name)
    until = orders.later(session, by) if by else orders.moment(to)
    kubectl.patch(name, orders.extend(session, until))
    typer.echo(f"{name} closes at {orders.text(until)}")


@app.command()
def pause(
    name: Name, reason: Reason = "", namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Take no votes for a while; voters are told to come again.

    \b
      kubectl psephos pause grand-final --reason "picture lost in the north"
    """
    kubectl = Kubectl(namespace, context, kubeconfig)
    kubectl.patch(name, orders.pause(kubectl.session(name), reason))
    typer.echo(f"{name} is being paused; `{PROGRAM} resume {name}` goes on")


@app.command()
def resume(name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = "") -> None:
    """Take votes again after a pause.

    \b
      kubectl psephos resume grand-final
    """
    kubectl = Kubectl(namespace, context, kubeconfig)
    kubectl.patch(name, orders.resume(kubectl.session(name)))
    typer.echo(f"{name} goes on")


@app.command()
def void(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; voters and the status are told.", show_default=False)],
    yes: Yes = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Declare the session void: it ends without a result, for good. Log and ledger stay.

    \b
      kubectl psephos void grand-final --reason "wrong candidates on the ballot" --yes
    """
    kubectl = Kubectl(namespace, context, kubeconfig)
    change = orders.void(kubectl.session(name), reason)
    _ask(f"declare {name} void, for good?", yes)
    kubectl.patch(name, change)
    typer.echo(f"{name} is void")


@app.command()
def tokens(
    name: Name,
    subjects: Annotated[list[str], typer.Argument(help="Who votes; `-`: from standard input, one a line.")],
    ttl: Annotated[str, typer.Option(help="How long a token is valid: 30s, 15m, 8h, 7d.")] = "1h",
    weight: Annotated[str | None, typer.Option(help="Weight of the vote, at most six places.")] = None,
    segment: Annotated[str | None, typer.Option(help="Segment of the voter.")] = None,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Sign voter tokens with the session's HS256 Secret, one a line. You need the right to read that Secret.

    \b
      kubectl psephos tokens board-chair ida jon --ttl 8h
      kubectl psephos tokens board-chair - < members.txt
    """
    from psephos.cli.tokens import parse_ttl, read_subjects, read_weight
    from psephos.client.tokens import signer, token_template
    from psephos.domain.session import parse_session

    kubectl = Kubectl(namespace, context, kubeconfig)
    session = kubectl.session(name)
    parsed = parse_session({member: value for member, value in session.items() if member != "status"})
    template = token_template(parsed, parse_ttl(ttl))
    accepted = parsed.spec.voters.tokens
    if accepted is None or accepted.secret_ref is None or accepted.algorithms != ("HS256",):
        raise InputError(f"{name} takes tokens of its issuer: only that can sign them")
    data = kubectl.get("secret", accepted.secret_ref.name).get("data") or {}
    if accepted.secret_ref.key not in data:
        raise InputError(f"the Secret {accepted.secret_ref.name} has no key {accepted.secret_ref.key}")
    # Roles read the key without trailing newlines.
    sign = signer("HS256", b64decode(data[accepted.secret_ref.key]).rstrip(b"\r\n"))
    now, amount = int(time.time()), read_weight(weight)
    for subject in read_subjects(subjects):
        typer.echo(sign(template.claims(subject, now, amount, segment)))


@app.command()
def recount(name: Name, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = "") -> None:
    """Audit an open session now; recount a disputed one again, after its repair.

    \b
      kubectl psephos recount grand-final
    """
    kubectl = Kubectl(namespace, context, kubeconfig)
    session = kubectl.session(name)
    phase = orders.phase_of(session)
    if phase == "Disputed":
        change, run = orders.recount_again(session)
        kubectl.patch(name, change)
        typer.echo(f"{name} is recounted again, as {run}")
    elif phase in ("Open", "Paused"):
        job = _audit(kubectl, name)
        typer.echo(f"audit started; its report: kubectl logs --follow job/{job}")
    else:
        raise orders.Refused(f"{name} is {phase or 'not seen by the operator yet'}: there is nothing to recount")


def _audit(kubectl: Kubectl, name: str) -> str:
    """Starts a Job from the CronJob of audits; returns its name."""
    selector = f"psephos.dev/session={name},app.kubernetes.io/component=audit"
    found = kubectl.run("get", "cronjobs", f"--selector={selector}", "-o", "name").split()
    if not found:
        raise orders.Refused(f"{name} has no CronJob of audits; is the operator running?")
    template = found[0].rpartition("/")[2]
    job = f"{template}-{time.strftime('%m%d%H%M%S', time.gmtime())}"
    kubectl.run("create", "job", job, f"--from=cronjob/{template}")
    return job


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("nobody is there to be asked: add --yes")
    typer.confirm(question, abort=True)


def _print(session: Mapping[str, Any], frame: Mapping[str, Any]) -> None:
    from rich.console import Console

    from psephos.client.bars import bars

    Console(highlight=False).print(bars(frame, _labels(session), _title(session)))


def _labels(session: Mapping[str, Any]) -> dict[str, str]:
    return {option["id"]: option.get("label", option["id"]) for option in session["spec"]["ballot"]["options"]}


def _title(session: Mapping[str, Any]) -> str:
    return str(session["spec"].get("title") or session["metadata"]["name"])


def names(kubectl: Kubectl) -> list[str]:
    """Names of the namespace's sessions. Raises KubectlError."""
    listed = kubectl.run("get", RESOURCE, "-o", "name", "--request-timeout=3s")
    return [line.rpartition("/")[2] for line in listed.split()]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command and ends the process: 0, 1 for a refusal, 2 for bad input."""
    run_command(PROGRAM, app, arguments)
