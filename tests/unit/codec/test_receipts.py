"""Receipts: read back, verified with the public key alone, and never with anything changed."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from psephos.formats.errors import Malformed
from psephos.formats.receipts import (
    LONGEST_TEXT,
    MAX_TOGETHER,
    Receipt,
    ReceiptSigner,
    ReceiptVerifier,
    parse_receipt,
    receipt_key,
)

KEY = b"k" * 32
SIGNER, VERIFIER = ReceiptSigner(KEY), ReceiptVerifier(receipt_key(KEY))
FIXTURES = Path(__file__).parents[1] / "fixtures/receipts.json"
receipts = st.builds(
    Receipt,
    st.just(b"sessions"),
    st.integers(0, 63),
    st.integers(0, 1 << 60),
    st.binary(min_size=16, max_size=16),
)


def raw_of(text: str) -> bytearray:
    return bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def text_of(raw: bytes | bytearray) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@settings(max_examples=60)
@given(st.lists(receipts, min_size=1, max_size=70))
def test_receipts_signed_together_are_read_back_by_their_session_only(together: list[Receipt]) -> None:
    texts = SIGNER.sign(together)
    verifier = ReceiptVerifier(receipt_key(KEY))
    assert [verifier.decode(text) for text in texts] == together
    other = ReceiptVerifier(receipt_key(b"another key" * 3))
    for text in texts[:3]:
        with pytest.raises(Malformed, match="not issued by this session"):
            other.decode(text)
    assert len({parse_receipt(text).signature for text in texts}) == 1, "one signature for all"


@given(st.integers(1, 40), st.data())
def test_a_receipt_with_one_bit_changed_is_refused(number: int, data: st.DataObject) -> None:
    together = [Receipt(b"sessions", 1, offset, b"d" * 16) for offset in range(number)]
    raw = raw_of(data.draw(st.sampled_from(SIGNER.sign(together))))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Malformed):
        VERIFIER.decode(text_of(raw))


@given(st.data())
def test_a_receipt_that_was_cut_or_lengthened_is_refused(data: st.DataObject) -> None:
    text = SIGNER.sign([Receipt(b"sessions", 1, offset, b"d" * 16) for offset in range(5)])[3]
    cut = data.draw(st.integers(1, len(text)))
    for other in (text[:-cut], text + "A" * cut, text[cut:]):
        with pytest.raises(Malformed):
            VERIFIER.decode(other)


@given(st.text(max_size=600))
def test_arbitrary_text_is_no_receipt(text: str) -> None:
    with pytest.raises(Malformed):
        VERIFIER.decode(text)


@given(st.binary(min_size=102, max_size=360).map(lambda data: b"\2" + data[1:]))
def test_arbitrary_bytes_are_no_receipt(data: bytes) -> None:
    with pytest.raises(Malformed):
        VERIFIER.decode(text_of(data))


def test_an_inner_node_does_not_pass_for_a_vote() -> None:
    """The path of two leaves, cut by its lowest step, leads from the node above to the same root."""
    together = [Receipt(b"sessions", 0, offset, b"d" * 16) for offset in range(4)]
    raw = raw_of(SIGNER.sign(together)[0])
    shorter = raw[:35] + b"\x01\x00\x00" + raw[38 + 16 :]
    with pytest.raises(Malformed, match="not issued"):
        VERIFIER.decode(text_of(shorter))


def test_as_many_as_may_be_signed_together_have_the_longest_receipts() -> None:
    texts = SIGNER.sign([Receipt(b"sessions", 0, offset, b"d" * 16) for offset in range(MAX_TOGETHER)])
    assert len(texts[0]) == LONGEST_TEXT
    assert VERIFIER.decode(texts[-1]).offset == MAX_TOGETHER - 1


def test_the_key_is_derived_from_the_session_key_and_is_none_of_it() -> None:
    assert receipt_key(KEY) == receipt_key(KEY) != receipt_key(b"x" * 32)
    assert KEY.hex() not in receipt_key(KEY)
    with pytest.raises(ValueError, match=r"."):
        ReceiptVerifier("no key")


@pytest.mark.parametrize("example", json.loads(FIXTURES.read_text())["receipts"])
def test_receipts_of_this_format_stay_readable(example: dict[str, str | int]) -> None:
    """Written down once: whoever holds a receipt can verify it with every later version."""
    key = json.loads(FIXTURES.read_text())["receiptKey"]
    found = ReceiptVerifier(key).decode(str(example["receipt"]))
    assert (found.session_tag.hex(), found.partition, found.offset, found.digest.hex()) == (
        example["sessionTag"],
        example["partition"],
        example["offset"],
        example["digest"],
    )


def test_a_single_receipt_is_verified_by_hand() -> None:
    """With a hash, a key, and the page on byte formats."""
    from hashlib import sha256

    raw = raw_of(SIGNER.sign([Receipt(b"sessions", 3, 77, b"d" * 16)])[0])
    root = sha256(b"\0" + raw[:35]).digest()[:16]
    assert raw[35:38] == b"\0\0\0"
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(receipt_key(KEY)))
    public.verify(bytes(raw[38:]), b"psephos receipts 2" + bytes(raw[1:9]) + root)
