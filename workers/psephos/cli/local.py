"""Runs a session on this machine until Ctrl-C, and prints what a person has to know about it."""

import time
from collections.abc import Iterator
from pathlib import Path

from psephos.cli.inputs import read_session
from psephos.formats.control import Control, Phase
from psephos.platform.logs import configure_logs
from psephos.platform.signals import StopRequest, stop_requests
from psephos_lab.display import Display
from psephos_lab.stack import Stack, StackOptions

_POLL_S = 0.1


def run_stack(session_file: Path, data_dir: Path | None, options: StackOptions) -> None:
    """Runs `psephos dev up`. Raises InputError, and errors that keep a stack from starting."""
    session, source = read_session(session_file)
    configure_logs(role="dev", level="warning", form="console")
    display = Display()
    stack = Stack(data_dir or Path(".psephos") / session.name, session, source, options, display.news)
    with stop_requests() as stop:
        try:
            if stack.start(lambda: bool(stop)):
                tell_addresses(stack, display)
                stay(stack, display, stop)
        finally:
            display.news("Psephos", "stopping")
            stack.stop()


def tell_addresses(stack: Stack, display: Display) -> None:
    """Prints where everything is, and how to vote."""
    folder = _short(stack.folder)
    admin = ", ".join(f"{name} {url}" for name, url in stack.admin_urls.items())
    score = stack.session.spec.ballot.type == "score"
    choice = f"--{'score' if score else 'choice'} {stack.session.option_ids[0]}{'=1' if score else ''}"
    page = f"http://127.0.0.1:{stack.settings.gateway_port}"
    token = "" if stack.session.spec.voters.tokens is None else "#token=TOKEN"
    for part, text in (
        ("results", f"{page}/"),
        ("ballot", f"{page}/vote{token}"),
        ("votes", stack.ingest_url),
        ("admin", admin),
        ("shell", f"source {folder}/env"),
        *_token_hint(stack, folder),
        ("vote", f"psephos vote {stack.ingest_url} --token TOKEN {choice}"),
        ("watch", f"psephos results {stack.gateway_url} --watch"),
        ("stop", "Ctrl-C"),
    ):
        display.news(part, text)


def _token_hint(stack: Stack, folder: Path) -> Iterator[tuple[str, str]]:
    """Yields a hint on getting a token, only if tokens come from this stack."""
    tokens = stack.session.spec.voters.tokens
    if tokens is not None and tokens.jwks_url is None:
        key = _short(stack.door_keys.token_signing)
        yield "token", f"psephos tokens mint ada --session {folder}/session.yaml --key-file {key}"
    if tokens is None:
        yield "token", f"curl -X POST {stack.ingest_url}/tokens"


def stay(stack: Stack, display: Display, stop: StopRequest) -> None:
    """Waits until a stop is requested. Raises RoleFailed, and the error that made the controller fail."""
    told = False
    while not stop:
        stack.supervisor.check()
        ended = stack.controller.wait(_POLL_S) if not told else None
        if ended is not None:
            told = True
            display.news("session", _outcome(stack, ended))
        time.sleep(_POLL_S)


def _outcome(stack: Stack, ended: Control) -> str:
    if ended.phase is Phase.VOID:
        return f"{ended.phase}, because: {ended.reason}"
    return f"{ended.phase}; the result is in {_short(stack.settings.exports_dir)}"


def _short(path: Path) -> Path:
    """The path relative to the working directory, if it is below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
