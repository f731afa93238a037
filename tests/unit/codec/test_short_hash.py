"""It is SHA-256, whoever computes it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.formats import short_hash


@given(st.binary(max_size=300))
def test_it_says_what_the_library_says(message: bytes) -> None:
    assert short_hash.sha256(message).digest() == hashlib.sha256(message).digest()


def test_in_fips_mode_it_is_openssls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("_hashlib.get_fips_mode", lambda: 1)
    assert short_hash._fastest() is hashlib.sha256


def test_an_interpreter_without_one_of_its_own_takes_openssls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_hash, "_MODULES", ("_sha_of_no_interpreter",))
    assert short_hash._fastest() is hashlib.sha256
