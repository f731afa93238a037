"""`psephos tokens`: voter tokens for tests and small votes, without an identity provider."""

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from psephos.cli.errors import InputError
from psephos.platform.durations import parse_duration

if TYPE_CHECKING:
    from psephos.domain.session import Session

app = typer.Typer(help="Voter tokens.", no_args_is_help=True, rich_markup_mode=None)

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")


@app.callback()
def _tokens() -> None:
    pass


@app.command()
def mint(
    subjects: Annotated[list[str], typer.Argument(help="Who votes; `-`: from standard input, one a line.")],
    key_file: Annotated[Path, typer.Option(help="HS256: the secret; else the private key in PEM.")],
    session: Annotated[
        Path | None, typer.Option(help="The session's YAML: says issuer, audience, algorithm and claims.")
    ] = None,
    algorithm: Annotated[str | None, typer.Option(help=f"One of {', '.join(ALGORITHMS)}.")] = None,
    issuer: Annotated[str | None, typer.Option(help="The iss claim.")] = None,
    audience: Annotated[str | None, typer.Option(help="The aud claim.")] = None,
    ttl: Annotated[str, typer.Option(help="How long a token is valid: 30s, 15m, 8h, 7d.")] = "1h",
    weight: Annotated[str | None, typer.Option(help="Weight of the vote, at most six places.")] = None,
    segment: Annotated[str | None, typer.Option(help="Segment of the voter.")] = None,
    weight_claim: Annotated[str | None, typer.Option(help="Claim of the weight, without --session.")] = None,
    segment_claim: Annotated[str | None, typer.Option(help="Claim of the segment, without --session.")] = None,
) -> None:
    """Sign voter tokens and print them, one a line.

    \b
      psephos tokens mint ada bob --session my-session.yaml --key-file tokens.key
      seq 1000 | psephos tokens mint - --session my-session.yaml --key-file tokens.key --ttl 8h

    A local session keeps its key in its folder: .psephos/my-session/keys/tokens-hs256
    """
    from psephos.client.tokens import TokenTemplate, signer, token_template
    from psephos.platform.settings import SettingsError, read_key

    seconds = parse_ttl(ttl)
    if session is not None:
        parsed = _read_session(session)
        template = token_template(parsed, seconds)
        template = TokenTemplate(
            issuer or template.issuer,
            audience or template.audience,
            seconds,
            weight_claim or template.weight_claim,
            segment_claim or template.segment_claim,
        )
        tokens = parsed.spec.voters.tokens
        algorithm = algorithm or (tokens.algorithms[0] if tokens else None)
    elif issuer is None or audience is None:
        raise InputError("--session is needed, or --issuer and --audience")
    else:
        template = TokenTemplate(issuer, audience, seconds, weight_claim, segment_claim)
    algorithm = algorithm or "HS256"
    if algorithm not in ALGORITHMS:
        raise InputError(f"--algorithm is {algorithm!r}; allowed: {', '.join(ALGORITHMS)}")
    try:
        key = read_key(key_file, "TOKEN_KEY_FILE")
    except SettingsError as error:
        raise InputError(str(error).replace("PSEPHOS_TOKEN_KEY_FILE", "--key-file")) from None
    sign, now, amount = signer(algorithm, key), int(time.time()), read_weight(weight)
    for subject in read_subjects(subjects):
        try:
            claims = template.claims(subject, now, amount, segment)
        except ValueError as error:
            raise InputError(str(error)) from None
        typer.echo(sign(claims))


def parse_ttl(text: str) -> int:
    """The seconds of a duration such as `30s`, `15m`, `8h`, `7d`. Raises InputError."""
    found = parse_duration(text)
    if not found:
        raise InputError(f"--ttl is {text!r}; allowed: a duration such as 30s, 15m, 8h or 7d")
    return found // timedelta(seconds=1)


def read_weight(text: str | None) -> Decimal | None:
    """A weight as it was typed. Raises InputError."""
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation:
        raise InputError(f"--weight is {text!r}; allowed: a number with at most six places") from None


def read_subjects(arguments: list[str]) -> Iterator[str]:
    """The arguments; for `-` the lines of standard input."""
    for argument in arguments:
        if argument != "-":
            yield argument
            continue
        yield from (line.strip() for line in sys.stdin if line.strip())


def _read_session(path: Path) -> "Session":
    from psephos.cli.inputs import read_session

    session, _ = read_session(path)
    if session.spec.voters.tokens is None:
        raise InputError(f"{path}: the session takes no tokens: its eligibility is open")
    return session
