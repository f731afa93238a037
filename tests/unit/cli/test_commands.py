"""Each command teaches what it does; those for people refuse what can't be meant."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.cli.conftest import Done

from psephos.cli.app import app
from psephos.domain.results import encode_document, sign_result
from psephos.platform.settings import PREFIX, Settings
from psephos_lab.keys import make_door_keys

Psephos = Callable[..., Done]
SESSION = """
apiVersion: psephos.dev/v1alpha1
kind: VotingSession
metadata: {name: lunch}
spec:
  ballot: {type: single, options: [{id: pizza}, {id: soup}]}
  voters:
    tokens: {issuer: "https://id.example", audience: lunch, weightClaim: shares, segmentClaim: country}
"""


def _commands() -> Iterator[tuple[str, ...]]:
    for command in app.registered_commands:
        name = str(command.name or getattr(command.callback, "__name__", ""))
        yield (name,)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            yield (str(group.name), str(command.name or getattr(command.callback, "__name__", "")))


@pytest.mark.parametrize("command", list(_commands()), ids=" ".join)
def test_help_of_every_command_has_an_example(command: tuple[str, ...], psephos: Psephos) -> None:
    shown = psephos(*command, "--help")
    assert shown.returncode == 0
    examples = [line for line in shown.stdout.splitlines() if f"psephos {' '.join(command)}" in line]
    assert len(examples) >= 2, "the usage line and an example"


@pytest.mark.parametrize("role", ["ingest", "tally", "projector", "gateway", "recount", "serve"])
def test_help_of_a_role_lists_variables_that_are_settings(role: str, psephos: Psephos) -> None:
    shown = psephos(role, "--help").stdout
    listed = {
        line.strip() for line in shown.splitlines() if line.startswith(f"  {PREFIX}") and " " not in line.strip()
    }
    assert f"{PREFIX}SESSION_FILE" in listed
    assert listed <= {PREFIX + name.upper() for name in Settings.model_fields}


def test_the_version_is_told(psephos: Psephos) -> None:
    assert psephos("--version").stdout.startswith("psephos 0.")


@pytest.mark.parametrize("arguments", [("vot",), ("dev", "run"), ("serve", "--workers", "0"), ("tally", "--fast")])
def test_usage_errors_are_one_line_and_exit_code_2(arguments: tuple[str, ...], psephos: Psephos) -> None:
    done = psephos(*arguments)
    assert done.returncode == 2
    assert done.line.startswith("psephos: ")


# --- Tokens


@pytest.fixture
def session(tmp_path: Path) -> Path:
    path = tmp_path / "session.yaml"
    path.write_text(SESSION)
    return path


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_minted_tokens_are_what_an_independent_library_takes(
    algorithm: str, session: Path, tmp_path: Path, psephos: Psephos
) -> None:
    keys = make_door_keys(tmp_path / "keys", algorithm)
    options = ("--session", session, "--key-file", keys.token_signing, "--algorithm", algorithm, "--ttl", "15m")
    minted = psephos("tokens", "mint", "ada", "bob", *options, "--weight", "2.5", "--segment", "no")
    assert minted.returncode == 0, minted.stderr
    claims = [_claims(token, keys.token, algorithm) for token in minted.stdout.split()]
    assert [each["sub"] for each in claims] == ["ada", "bob"]
    for each in claims:
        assert each["iss"] == "https://id.example"
        assert each["aud"] == "lunch"
        assert each["shares"] == "2.5"
        assert each["country"] == "no"
        assert each["exp"] - each["iat"] == 900
        assert abs(each["iat"] - time.time()) < 60


def _claims(token: str, key: Path, algorithm: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, key.read_bytes(), algorithms=[algorithm], audience="lunch")
    return claims


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--ttl", "soon"), "--ttl is 'soon'; allowed: a duration such as 30s, 15m, 8h or 7d"),
        (("--weight", "heavy"), "--weight is 'heavy'"),
        (("--algorithm", "none"), "--algorithm is 'none'; allowed: HS256"),
        (("--key-file", "nowhere"), "--key-file: nowhere: No such file or directory"),
    ],
)
def test_tokens_that_can_not_be_minted(
    options: tuple[str, ...], says: str, session: Path, tmp_path: Path, psephos: Psephos
) -> None:
    key = make_door_keys(tmp_path / "keys").token_signing
    done = psephos("tokens", "mint", "ada", "--session", session, "--key-file", key, *options)
    assert done.returncode == 2
    assert says in done.line


def test_a_short_key_signs_nothing(session: Path, tmp_path: Path, psephos: Psephos) -> None:
    (tmp_path / "short").write_text("secret")
    done = psephos("tokens", "mint", "ada", "--session", session, "--key-file", tmp_path / "short")
    assert done.returncode == 2
    assert "an HS256 key has 32 bytes or more, this one has 6" in done.line


# --- Voting and results


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say what to vote for"),
        (("--choice", "a", "--blank"), "say what to vote for"),
        (("--score", "a=lots"), "--score is 'a=lots'"),
    ],
)
def test_votes_that_say_nothing(arguments: tuple[str, ...], says: str, psephos: Psephos) -> None:
    done = psephos("vote", "http://127.0.0.1:1/v1/sessions/lunch", "--token", "t", *arguments)
    assert done.returncode == 2
    assert says in done.line


def test_an_address_that_is_no_sessions(psephos: Psephos) -> None:
    done = psephos("results", "http://127.0.0.1:1/")
    assert done.returncode == 2
    assert "http://HOST:PORT/v1/sessions/NAME" in done.line


def test_nobody_there_is_one_line(psephos: Psephos) -> None:
    done = psephos("results", "http://127.0.0.1:1/v1/sessions/lunch")
    assert done.returncode == 1
    assert "Connection refused" in done.line


# --- Sessions that run here


def test_which_session_is_meant(tmp_path: Path, psephos: Psephos) -> None:
    for name in ("lunch", "dinner"):
        (tmp_path / name / "data" / "commands").mkdir(parents=True)
    for arguments, says in (
        (("pause",), "several sessions are in"),
        (("pause", "breakfast"), "does not hold the session breakfast; `psephos dev up` starts one"),
        (("pause", "lunch"), "session lunch does not run"),
        (("extend", "lunch"), "say until when: --to TIME, or --by DURATION"),
        (("extend", "lunch", "--to", "noon"), "--to is 'noon'; allowed: a time with its zone"),
        (("extend", "lunch", "--to", "2026-11-23T20:15:00"), "allowed: a time with its zone"),
        (("extend", "lunch", "--by", "soon"), "lunch has no end so far"),
        (("close", "lunch", "--at", "2020-01-01T00:00:00Z"), "--at: 2020-01-01T00:00:00Z is over"),
        (("void", "lunch", "--reason", " "), "say why it is void: --reason TEXT"),
    ):
        done = psephos("session", *arguments, "--data", tmp_path)
        assert done.returncode in (1, 2)
        (line,) = done.stderr.splitlines()
        assert says in line


# --- Results


def test_a_signed_result_is_verified_and_a_changed_one_is_not(tmp_path: Path, psephos: Psephos) -> None:
    document = sign_result(
        {"name": "lunch", "state": "Final", "totals": {"pizza": 3}}, Ed25519PrivateKey.generate()
    )
    result = tmp_path / "result.json"
    result.write_bytes(encode_document(document))
    whole = psephos("verify", result)
    assert whole.returncode == 0
    assert "whole" in whole.stdout
    assert psephos("verify", result, "--public-key", document["publicKey"]).returncode == 0
    other = psephos("verify", result, "--public-key", "00" * 32)
    assert other.returncode == 1
    assert "signed with another key" in other.line
    result.write_bytes(encode_document({**document, "totals": {"pizza": 4}}))
    changed = psephos("verify", result)
    assert changed.returncode == 1
    assert "wrong signature" in changed.line
    result.write_text("{")
    assert psephos("verify", result).returncode == 2
