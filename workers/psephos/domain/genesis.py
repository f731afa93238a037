"""Genesis: what may never change in a session, fixed by one conditional ledger item before it opens.

Every role compares it with its own configuration at its start and refuses to run on a difference: a wrong key
would give voters second pseudonyms, another partition count would part a voter from earlier votes.
"""

import hashlib

import msgspec

from psephos.formats import blocks, votes
from psephos.formats.errors import UNREADABLE, Malformed
from psephos.platform.errors import BAD_INPUT, PsephosError

RULES_VERSION = 1


class GenesisMismatch(PsephosError):
    """This role's configuration does not belong to the session that the ledger holds."""

    exit_code = BAD_INPUT


class Genesis(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Bytes are hex in JSON. public_key, of the final result, and receipt_key: Ed25519, 32 bytes each;
    lot_commitment: SHA-256 of the lot's seed."""

    session: str
    name: str
    partitions: int
    topic_id: str
    key_fingerprint: str
    rules_hash: str
    public_key: str
    receipt_key: str
    lot_commitment: str
    rules_version: int = RULES_VERSION
    record_version: int = votes.VERSION
    block_version: int = blocks.VERSION

    @property
    def hash(self) -> bytes:
        """SHA-256 of the stored bytes: the `previous` of each partition's first block."""
        return hashlib.sha256(encode_genesis(self)).digest()

    @property
    def epoch(self) -> str:
        """Derived, never random: every projector of this session names the same epoch."""
        return self.hash[:8].hex()


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Genesis)


def encode_genesis(genesis: Genesis) -> bytes:
    """Canonical JSON: members sorted, no spaces."""
    return _encoder.encode(genesis)


def decode_genesis(data: bytes) -> Genesis:
    """The inverse of `encode_genesis`. Raises Malformed."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise Malformed(f"not a genesis: {error}") from None


def key_fingerprint(session_key: bytes) -> str:
    """Tells keys apart without telling the key."""
    return hashlib.sha256(b"psephos session key" + session_key).hexdigest()[:32]


def lot_commitment(seed: bytes) -> str:
    """What genesis publishes of the lot's seed."""
    return hashlib.sha256(b"psephos lot" + seed).hexdigest()


def require_match(genesis: Genesis, **expected: object) -> None:
    """Raises GenesisMismatch with the first member of `expected` that differs from the ledger's genesis."""
    versions = {
        "rules_version": RULES_VERSION,
        "record_version": votes.VERSION,
        "block_version": blocks.VERSION,
    }
    for name, value in {**versions, **expected}.items():
        fixed = getattr(genesis, name)
        if fixed != value:
            raise GenesisMismatch(
                f"session {genesis.name}: {name.replace('_', ' ')} is {value} here, but the ledger's genesis "
                f"fixed {fixed}; this role would count another session"
            )
