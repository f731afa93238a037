"""Genesis: what may never change in a session, fixed by one conditional ledger item before it opens.

Every role compares it with its own configuration when it starts, and refuses to run if they differ: a wrong key
would give voters second pseudonyms, another partition count would separate a voter from earlier votes.
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
    """The genesis item. Bytes are hex in JSON. public_key (for the final result) and receipt_key: Ed25519, 32
    bytes each; lot_commitment: SHA-256 of the lot's seed."""

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
        """The epoch of frames, derived and never random: every projector of this session uses the same one."""
        return self.hash[:8].hex()


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Genesis)


def encode_genesis(genesis: Genesis) -> bytes:
    """The genesis as canonical JSON: members sorted, no spaces."""
    return _encoder.encode(genesis)


def decode_genesis(data: bytes) -> Genesis:
    """The inverse of `encode_genesis`. Raises Malformed."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise Malformed(f"not a genesis: {error}") from None


def key_fingerprint(session_key: bytes) -> str:
    """Identifies a key without revealing it."""
    return hashlib.sha256(b"psephos session key" + session_key).hexdigest()[:32]


def lot_commitment(seed: bytes) -> str:
    """The commitment to the lot's seed, as genesis publishes it."""
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
