"""The keyed hash is the library's."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from psephos.formats.keyed_hash import KeyedHash


@given(st.binary(max_size=200), st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_it_is_hmac_sha256_for_any_key_and_again_and_again(key: bytes, messages: list[bytes]) -> None:
    keyed = KeyedHash(key)
    for message in messages:
        assert keyed.digest(message) == hmac.digest(key, message, "sha256")
