"""Commands for voters and viewers: `psephos vote`, `psephos results` and `psephos verify`."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from psephos.cli.errors import InputError, Unsuccessful

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psephos.client.bars import Frame

_WATCH_S = 1.0
_LOST_AFTER_S = 30.0
_ENDED = frozenset({"Final", "Disputed", "Void"})
SessionUrl = Annotated[
    str, typer.Argument(help="The session's address: http://HOST:PORT/v1/sessions/NAME", metavar="URL")
]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    for command in (vote, results, verify):
        app.command()(command)


def vote(
    url: SessionUrl,
    token: Annotated[str, typer.Option(help="The voter's token; `-` reads it from standard input.")],
    choice: Annotated[
        list[str] | None, typer.Option(help="An option's id; repeat it for several, ranked ones in order.")
    ] = None,
    score: Annotated[list[str] | None, typer.Option(help="An option's score: ada=3; repeat it.")] = None,
    blank: Annotated[bool, typer.Option("--blank", help="A ballot that names no option.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key makes the same vote; a new one without it.")
    ] = None,
) -> None:
    """Cast a vote and print its receipt.

    \b
      psephos vote http://127.0.0.1:8080/v1/sessions/lunch --token "$TOKEN" --choice pizza
      psephos vote http://127.0.0.1:8080/v1/sessions/songs --token "$TOKEN" --score ada=3 --score bob=1

    The receipt says later what became of the vote: GET URL/receipts/RECEIPT at the gateway.
    """
    import secrets

    from psephos.client.http import request

    body = json.dumps(_ballot(choice or [], score or [], blank=blank)).encode()
    headers = {
        "Authorization": f"Bearer {_given(token)}",
        "Content-Type": "application/json",
        "Idempotency-Key": idempotency_key or secrets.token_hex(16),
    }
    answer = request(f"{_session_url(url)}/votes", body=body, headers=headers)
    if answer.status != 202:
        raise Unsuccessful(_problem(answer.status, answer.body))
    typer.echo(answer.body["receipt"])


def results(
    url: SessionUrl,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the final result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each frame as a line of JSON.")] = False,
) -> None:
    """Show the results as viewers see them.

    \b
      psephos results http://127.0.0.1:8081/v1/sessions/lunch
      psephos results http://127.0.0.1:8081/v1/sessions/lunch --watch
    """
    url = _session_url(url)
    if not watch:
        _print(_frame(url), {} if as_json else _labels(url), url, as_json=as_json)
    elif as_json or not sys.stdout.isatty():
        _watch_lines(url, as_json=as_json)
    else:
        _watch_bars(url)


def verify(
    what: Annotated[
        str, typer.Argument(help="The signed result's file; or the word `receipt`.", metavar="RESULT")
    ],
    receipt: Annotated[str | None, typer.Argument(help="With `receipt`: the receipt.")] = None,
    public_key: Annotated[
        str | None,
        typer.Option(help="The session's publicKey, for a receipt its receiptKey, hex: says who signed."),
    ] = None,
    session_url: Annotated[
        str | None, typer.Option(help="For a receipt: the session at its gateway, which is asked as well.")
    ] = None,
) -> None:
    """Check the signature of a final result, or of a receipt.

    \b
      psephos verify .psephos/lunch/data/exports/lunch/result.json --public-key 3b6a...
      psephos verify receipt RECEIPT --public-key 9f02...
      psephos verify receipt RECEIPT --session-url http://127.0.0.1:8081/v1/sessions/lunch
      curl -s http://127.0.0.1:8081/v1/sessions/lunch | jq -r .publicKey,.receiptKey

    Without --public-key a result is only said to be whole, not who signed it. A receipt is verified offline by its
    key; --session-url takes the key from the gateway and asks what became of the vote.
    """
    if receipt is not None:
        if what != "receipt":
            raise InputError(f"{what!r} is followed by {receipt!r}: write `psephos verify receipt RECEIPT`")
        _verify_receipt(receipt.strip(), public_key, session_url)
    elif what == "receipt":
        raise InputError("say which receipt: psephos verify receipt RECEIPT")
    else:
        _verify_result(Path(what), public_key)


# --- Verifying


def _verify_result(path: Path, public_key: str | None) -> None:
    from psephos.domain.results import decode_document, verify_result

    try:
        document = decode_document(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is no result document: {error}") from None
    if not verify_result(document, public_key):
        fits = verify_result(document)
        raise Unsuccessful(
            f"{path}: signed with another key, {document['publicKey']}" if fits else f"{path}: wrong signature"
        )
    by = "signed with this key" if public_key else f"whole; signed with {document['publicKey']}"
    typer.echo(f"{document['name']}: {document['state']}, {by}")


def _verify_receipt(text: str, public_key: str | None, session_url: str | None) -> None:
    from psephos.client.http import request
    from psephos.formats.errors import Malformed
    from psephos.formats.receipts import ReceiptVerifier

    if public_key is None and session_url is None:
        raise InputError(
            "say whose receipt it is: --public-key HEX, the session's receiptKey, or --session-url URL"
        )
    url = None if session_url is None else _session_url(session_url)
    key = public_key or _receipt_key(str(url))
    try:
        verifier = ReceiptVerifier(key)
    except ValueError:
        raise InputError(f"{key!r} is no key: the session's receiptKey has 64 hex digits") from None
    try:
        receipt = verifier.decode(text)
    except Malformed as error:
        raise Unsuccessful(f"not genuine: {error}") from None
    typer.echo(
        f"genuine: session {receipt.session_tag.hex()}, partition {receipt.partition}, offset {receipt.offset},"
        f" record {receipt.digest.hex()}"
    )
    if url is not None:
        answer = request(f"{url}/receipts/{text}")
        if answer.status != 200:
            raise Unsuccessful(_problem(answer.status, answer.body))
        typer.echo(" ".join(filter(None, (answer.body["status"], answer.body.get("reason")))))


def _receipt_key(url: str) -> str:
    from psephos.client.http import request

    answer = request(url)
    if answer.status != 200 or not isinstance(answer.body, dict) or "receiptKey" not in answer.body:
        raise Unsuccessful(_problem(answer.status, answer.body))
    return str(answer.body["receiptKey"])


# --- Voting


def _ballot(choices: list[str], scores: list[str], *, blank: bool) -> dict[str, Any]:
    if sum((bool(choices), bool(scores), blank)) != 1:
        raise InputError("say what to vote for: --choice, --score, or --blank, one kind of them")
    if not scores:
        return {"choices": choices}
    return {"scores": dict(map(_score, scores))}


def _given(token: str) -> str:
    from_input = token == "-"  # noqa: S105 - a sign, no secret
    return sys.stdin.readline().strip() if from_input else token


def _score(text: str) -> tuple[str, int]:
    option, _, value = text.partition("=")
    try:
        return option, int(value)
    except ValueError:
        raise InputError(f"--score is {text!r}; it is written option=number, such as ada=3") from None


def _session_url(url: str) -> str:
    """The session's address, taken from it or from an address below it."""
    for end in ("/", "/results", "/votes"):
        url = url.removesuffix(end)
    if "/v1/sessions/" not in url:
        raise InputError(f"{url!r} is no session's address; it is written http://HOST:PORT/v1/sessions/NAME")
    return url


def _problem(status: int, body: Any) -> str:
    """An RFC 9457 problem as one line."""
    if not isinstance(body, dict) or "title" not in body:
        return f"status {status}, and no word why"
    return f"{body['title']}: {body.get('detail', '')} ({str(body.get('type', '')).rsplit('/', 1)[-1]})"


# --- Results


def _frame(url: str) -> "Frame":
    from psephos.client.http import request

    answer = request(f"{url}/results")
    if answer.status != 200:
        raise Unsuccessful(_problem(answer.status, answer.body))
    frame: Frame = answer.body
    return frame


def _labels(url: str) -> "Mapping[str, str]":
    """Labels for people to read, by option id; empty, so that ids are shown, if the gateway returns none."""
    from psephos.client.http import request

    body = request(url).body
    options = body.get("ballot", {}).get("options", []) if isinstance(body, dict) else []
    return {option["id"]: option["label"] for option in options}


def _print(frame: "Frame", labels: "Mapping[str, str]", url: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(frame))
        return
    from rich.console import Console

    from psephos.client.bars import bars

    Console(highlight=False).print(bars(frame, labels, frame.get("session", url)))


def _watch_lines(url: str, *, as_json: bool) -> None:
    from psephos.client.bars import result_line

    labels = {} if as_json else _labels(url)
    before = None
    for frame in _frames(url):
        if frame != before:
            typer.echo(json.dumps(frame) if as_json else result_line(frame, labels))
            sys.stdout.flush()
        before = frame


def _watch_bars(url: str) -> None:
    from rich.live import Live

    from psephos.client.bars import bars

    labels = _labels(url)
    with Live(auto_refresh=False) as live:
        for frame in _frames(url):
            live.update(bars(frame, labels, str(frame.get("session", url))), refresh=True)


def _frames(url: str) -> "Any":
    """The newest frame each second until the last one; waits for a gateway that is unavailable for a while."""
    from psephos.client.http import NoAnswer

    heard = time.monotonic()
    while True:
        try:
            frame = _frame(url)
        except (NoAnswer, Unsuccessful):
            if time.monotonic() - heard > _LOST_AFTER_S:
                raise
        else:
            heard = time.monotonic()
            yield frame
            if frame["phase"] in _ENDED and not frame.get("stale"):
                return
        time.sleep(_WATCH_S)
