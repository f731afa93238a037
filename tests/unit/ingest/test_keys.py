"""What keeps ingest from starting, each in one line."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.ingest.test_verifier import session

from psephos.domain.session import Session, parse_session
from psephos.platform.settings import Settings, SettingsError, load_settings
from psephos.roles.ingest.main import read_keys


def settings(folder: Path, **paths: str | bytes | None) -> Settings:
    """Good key files, but for those that are given: their content, or None for no file."""
    files: dict[str, Any] = {"session_key_file": b"k" * 32, "token_key_file": b"t" * 32, **paths}
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    named = {
        f"PSEPHOS_{name.upper()}": str(folder / name) for name, content in files.items() if content is not None
    }
    return load_settings(
        {
            "PSEPHOS_SESSION_FILE": "s",
            "PSEPHOS_DATA_DIR": str(folder / "data"),
            "PSEPHOS_SESSION_UID": "u",
            "PSEPHOS_KAFKA_BOOTSTRAP": "k",
            **named,
        }
    )


def other_voters(**voters: Any) -> Session:
    document = session().model_dump(mode="json", by_alias=True, exclude_none=True)
    return parse_session({**document, "spec": {**document["spec"], "voters": voters}})


def test_keys_are_read_from_their_files(tmp_path: Path) -> None:
    keys = read_keys(settings(tmp_path, batch_credential_file=b"c" * 16 + b"\n"), session())
    assert keys.session_key == b"k" * 32
    assert keys.credentials is not None
    assert [keys.credentials.accepts(given) for given in ("c" * 16, "c" * 15, "", "c" * 17)] == [
        True,
        False,
        False,
        False,
    ]
    assert read_keys(settings(tmp_path), session()).credentials is None


def test_no_token_key_is_needed_where_keys_are_published_or_tokens_are_ours(tmp_path: Path) -> None:
    published = {**TOKENS, "algorithms": ["RS256"], "jwksUrl": "https://id.example/keys"}
    keys = read_keys(settings(tmp_path, token_key_file=None), other_voters(tokens=published))
    assert (keys.eligibility.issuer is not None, keys.anonymous) == (True, None)
    keys = read_keys(settings(tmp_path, token_key_file=None), other_voters(eligibility="open"))
    assert (keys.eligibility.issuer, keys.anonymous is not None) == (None, True)


TOKENS = {"issuer": "i", "audience": "a"}
ROLL = {"eligibility": "roll", "tokens": TOKENS}


@pytest.mark.parametrize(
    ("paths", "voters", "expected"),
    [
        ({"token_key_file": b"short"}, None, "PSEPHOS_TOKEN_KEY_FILE: .* holds 5 bytes, it needs 32"),
        ({"token_key_file": None}, None, "PSEPHOS_TOKEN_KEY_FILE is not set"),
        ({"session_key_file": b"short"}, None, "PSEPHOS_SESSION_KEY_FILE: .* holds 5 bytes, it needs 32"),
        ({"session_key_file": None}, None, "PSEPHOS_SESSION_KEY_FILE is not set"),
        (
            {"batch_credential_file": b"short"},
            None,
            "PSEPHOS_BATCH_CREDENTIAL_FILE: .* holds 5 bytes, it needs 16",
        ),
        ({}, {"tokens": {**TOKENS, "algorithms": ["RS256"]}}, "PSEPHOS_TOKEN_KEY_FILE: .*no public key in PEM"),
        ({"batch_credential_file": b"c" * 16 + b"\nshort"}, None, "holds 5 bytes, it needs 16 in each"),
        ({"batch_credential_file": b"\n\n"}, None, "has 0 lines"),
        ({}, {**ROLL, "roll": {"url": "file:///no/such/roll"}}, "electoral roll: /no/such/roll: No such file"),
        ({}, {**ROLL, "roll": {"configMapRef": {"name": "roll"}}}, "PSEPHOS_ROLL_FILE is not set"),
        ({"roll_file": b"\n"}, {**ROLL, "roll": {"url": "s3://bucket/roll"}}, "the roll is empty"),
        ({"roll_file": b"ann\n\xff\n"}, {**ROLL, "roll": {"url": "s3://b/r"}}, "line 2 of the roll is not UTF-8"),
    ],
)
def test_what_is_missing_or_unfit_is_one_line(
    tmp_path: Path, paths: dict[str, Any], voters: dict[str, Any] | None, expected: str
) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        read_keys(settings(tmp_path, **paths), other_voters(**voters) if voters else session())
    assert "\n" not in str(caught.value)
