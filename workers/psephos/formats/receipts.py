"""Receipts: what a voter gets with a 202. Anyone can verify one offline with the session's public receipt key.

    version ‖ session tag(8) ‖ partition u16 ‖ offset u64 ‖ record digest(16)      the body
    ‖ depth u8 ‖ sides u16 ‖ depth x 16 bytes                                      a Merkle path to a root
    ‖ Ed25519 signature(64) over "psephos receipts 2" ‖ session tag ‖ root

as base64url. One signature serves all votes that were acknowledged together: signing costs 50 µs, hashing 1 µs.
Bit k of `sides` says that the k-th node of the path is on the left. A single vote has an empty path: its root is
its leaf. Nodes are 16 bytes of SHA-256; leaves (after a 0) and inner nodes (after a 1) are hashed in separate
domains, so no node passes for a vote.

The session tag is the start of the genesis hash. The private key is derived from the session key, so ingest needs
no further secret, and a verifier needs none at all.
"""

import base64
import binascii
import hmac
import struct
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import add
from typing import Final, NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from psephos.formats.errors import Malformed
from psephos.formats.short_hash import sha256

VERSION: Final = 2
TAG_BYTES: Final = 8
DIGEST_BYTES: Final = 16
NODE_BYTES: Final = 16
SIGNATURE_BYTES: Final = 64
MAX_DEPTH: Final = 16
MAX_TOGETHER: Final = 1 << MAX_DEPTH
_DOMAIN: Final = b"psephos receipts 2"
_KEY_LABEL: Final = b"psephos receipt key"
_BODY: Final = struct.Struct(f">B{TAG_BYTES}sHQ{DIGEST_BYTES}s")
_PATH: Final = struct.Struct(">BH")
_SHORTEST: Final = _BODY.size + _PATH.size + SIGNATURE_BYTES
LONGEST_TEXT: Final = -(-(_SHORTEST + MAX_DEPTH * NODE_BYTES) * 4 // 3)
_HEAD: Final = _BODY.size + _PATH.size + NODE_BYTES  # of a receipt, with its sibling: shared with no other one
_MIDDLE: Final = 3 * NODE_BYTES  # after it: shared with its sibling; what comes after that, sixteen share
_HEAD_TEXT: Final = _HEAD * 4 // 3  # 54 and 48 bytes are whole groups of three: base64 can be cut there
_MIDDLE_TEXT: Final = _MIDDLE * 4 // 3
_GROUP_DEPTH: Final = 4
_GROUP: Final = 1 << _GROUP_DEPTH
_KNOWN_ROOTS: Final = 4096
_Item = TypeVar("_Item")


class Receipt(NamedTuple):
    """A vote's place in the log, and the first 16 bytes of its record digest."""

    session_tag: bytes
    partition: int
    offset: int
    digest: bytes


class SignedReceipt(NamedTuple):
    """A receipt as it was read, not yet verified: it is genuine if the session's key has signed `root`."""

    receipt: Receipt
    root: bytes
    signature: bytes


class ReceiptSigner:
    """Issues a session's receipts."""

    def __init__(self, session_key: bytes) -> None:
        self._key = _private_key(session_key)

    def sign(self, receipts: Sequence[Receipt]) -> list[str]:
        """Encodes one to MAX_TOGETHER receipts of one session, as voters get them, under one signature."""
        _, partitions, offsets, digests = zip(*receipts, strict=True)
        return self.sign_columns(receipts[0].session_tag, partitions, offsets, digests)

    def sign_columns(
        self, session_tag: bytes, partitions: Sequence[int], offsets: Sequence[int], digests: Sequence[bytes]
    ) -> list[str]:
        """Like `sign`, by columns; the first DIGEST_BYTES of each record digest count."""
        columns = repeat(VERSION), repeat(session_tag), partitions, offsets, digests
        bodies = list(map(_BODY.pack, *columns))
        levels = _tree([sha256(b"\0" + body).digest()[:NODE_BYTES] for body in bodies])  # `_leaf`, inlined
        return _texts(bodies, levels, self._key.sign(_signed(session_tag, levels[-1][0])))


class ReceiptVerifier:
    """Distinguishes receipts of one session from all others, without a secret. Threads may share it."""

    def __init__(self, public_key: str) -> None:
        """`public_key`: the `receiptKey` of the session's genesis, hex. Raises ValueError if it is not a key."""
        self._key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        self._known: dict[tuple[bytes, bytes, bytes], None] = {}

    def decode(self, text: str) -> Receipt:
        """Returns a genuine receipt. Raises Malformed for anything that this session did not issue."""
        signed = parse_receipt(text)
        self.verify(signed)
        return signed.receipt

    def verify(self, signed: SignedReceipt) -> None:
        """Raises Malformed unless the session's key has signed it."""
        name = signed.receipt.session_tag, signed.root, signed.signature
        if name in self._known:
            return
        try:
            self._key.verify(signed.signature, _signed(signed.receipt.session_tag, signed.root))
        except InvalidSignature:
            raise Malformed("this receipt was not issued by this session") from None
        if len(self._known) >= _KNOWN_ROOTS:
            self._known = {}
        self._known[name] = None


def receipt_key(session_key: bytes) -> str:
    """The public receipt key that genesis publishes: Ed25519, hex."""
    return _private_key(session_key).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def parse_receipt(text: str) -> SignedReceipt:
    """Parses a receipt without verifying its signature. Raises Malformed if it is not a receipt at all."""
    raw = _bytes(text)
    if raw[0] != VERSION:
        raise Malformed(f"receipt of version {raw[0]}, known is {VERSION}")
    _, tag, partition, offset, digest = _BODY.unpack_from(raw)
    depth, sides = _PATH.unpack_from(raw, _BODY.size)
    if depth > MAX_DEPTH or sides >> depth or len(raw) != _SHORTEST + depth * NODE_BYTES:
        raise Malformed("the receipt is cut off, or something was added to it")
    node, at = _leaf(raw[: _BODY.size]), _BODY.size + _PATH.size
    for step in range(depth):
        sibling = raw[at : at + NODE_BYTES]
        node = _inner(sibling, node) if sides >> step & 1 else _inner(node, sibling)
        at += NODE_BYTES
    return SignedReceipt(Receipt(tag, partition, offset, digest), node, raw[at:])


def _bytes(text: str) -> bytes:
    if len(text) > LONGEST_TEXT:
        raise Malformed(f"a receipt has at most {LONGEST_TEXT} characters")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("a receipt is base64url text") from None
    if len(raw) < _SHORTEST or _text(raw) != text:
        raise Malformed(f"a receipt has {_SHORTEST} bytes or more")
    return raw


def _base64url(raw: bytes) -> str:
    encoded = binascii.b2a_base64(raw, newline=False)  # replaced twice: cheaper than one translation
    return encoded.replace(b"+", b"-").replace(b"/", b"_").decode()


def _text(raw: bytes) -> str:
    return _base64url(raw).rstrip("=")


def _private_key(session_key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hmac.digest(session_key, _KEY_LABEL, "sha256"))


def _signed(session_tag: bytes, root: bytes) -> bytes:
    return _DOMAIN + session_tag + root


def _leaf(body: bytes) -> bytes:
    return sha256(b"\0" + body).digest()[:NODE_BYTES]


def _inner(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()[:NODE_BYTES]


def _tree(leaves: list[bytes]) -> list[list[bytes]]:
    """The levels, leaves first; a node without a sibling moves up as it is."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)  # one without a sibling is left out
        above = [sha256(b"\1" + left + right).digest()[:NODE_BYTES] for left, right in pairs]
        levels.append(above + level[len(level) & ~1 :])
    return levels


def _paths(levels: list[list[bytes]]) -> list[tuple[bytes, int]]:
    """Each leaf's (path, sides), built from the root down, so that what two nodes share is joined once."""
    paths: list[tuple[bytes, int]] = [(b"", 0)]
    for level in reversed(levels[:-1]):
        below = []
        for at in range(len(level)):
            path, sides = paths[at >> 1]
            sibling = at ^ 1
            alone = sibling == len(level)
            below.append((path, sides) if alone else (level[sibling] + path, sides << 1 | at & 1))
        paths = below
    return paths


def _texts(bodies: list[bytes], levels: list[list[bytes]], signature: bytes) -> list[str]:
    """The receipts of these bodies: whole groups of sixteen leaves together, the remaining ones one by one."""
    whole = len(bodies) // _GROUP
    upper = _paths(levels[_GROUP_DEPTH:])[:whole] if whole else []
    texts = _texts_of_groups(bodies, levels, upper, signature) if whole else []
    for at in range(whole * _GROUP, len(bodies)):
        path, sides = _path(levels, at)
        texts.append(_text(bodies[at] + _PATH.pack(len(path) // NODE_BYTES, sides) + path + signature))
    return texts


def _path(levels: list[list[bytes]], at: int) -> tuple[bytes, int]:
    """(path, sides) of the leaf at this index."""
    path, sides, depth = b"", 0, 0
    for level in levels[:-1]:
        if (at ^ 1) < len(level):
            path, sides, depth = path + level[at ^ 1], sides | (at & 1) << depth, depth + 1
        at >>= 1
    return path, sides


def _texts_of_groups(
    bodies: list[bytes], levels: list[list[bytes]], upper: list[tuple[bytes, int]], signature: bytes
) -> list[str]:
    """The receipts of whole groups. `upper`: (path, sides) of each group's root. Encodes shared parts once."""
    leaves, pairs, fours, eights = (
        _siblings(level[: len(upper) * _GROUP >> height]) for height, level in enumerate(levels[:_GROUP_DEPTH])
    )
    forks: list[bytes] = []
    tails: list[str] = []
    for path, sides in upper:
        depth = _GROUP_DEPTH + len(path) // NODE_BYTES
        forks += [_PATH.pack(depth, sides << _GROUP_DEPTH | place) for place in range(_GROUP)]
        tails.append(_text(path + signature))
    heads = _parts(zip(bodies, forks, leaves), _HEAD_TEXT)  # noqa: B905 - the bodies may be more
    middles = _parts(zip(pairs, _twice(fours), _twice(_twice(eights)), strict=True), _MIDDLE_TEXT)
    ends = map(add, middles, _twice(_twice(_twice(tails))))
    return list(map(add, heads, _twice(list(ends))))


def _siblings(nodes: list[bytes]) -> list[bytes]:
    """The sibling of each node; their number is even."""
    siblings = nodes.copy()
    siblings[::2], siblings[1::2] = nodes[1::2], nodes[::2]
    return siblings


def _twice(items: list[_Item]) -> list[_Item]:
    """Each element, repeated twice."""
    doubled = items + items
    doubled[::2], doubled[1::2] = items, items
    return doubled


def _parts(rows: Iterable[tuple[bytes, ...]], size: int) -> list[str]:
    """The base64 text of each row, `size` characters long."""
    text = _base64url(b"".join(chain.from_iterable(rows)))
    return [text[at : at + size] for at in range(0, len(text), size)]
