"""Results as people and programs read them: totals, turnout, the final frame, and the signed result document.

Pure: no I/O, no clock. Projector and recount share it, so a live frame and the final one have the same shape.

The result document is JSON. Its signature is Ed25519 over the document's canonical form: members sorted by
name at every level, no spaces, UTF-8, without the member `signature`. Anyone with the document can check it with
`verify_result`, and its `publicKey` against the genesis of the session.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from psephos.domain.counting import amount
from psephos.domain.session import Session
from psephos.formats.blocks import NOTHING, REJECTED, RecordClass, State
from psephos.formats.control import Phase
from psephos.formats.frames import Amount, Frame, Turnout

Document = dict[str, Any]
"""The result document: see docs/architecture.md, "The result document"."""

_canonical = msgspec.json.Encoder(order="sorted", decimal_format="number")


def cells_of(session: Session) -> int:
    """Length of a state's tallies: options x segments (1 if none are declared)."""
    return len(session.option_ids) * max(1, len(session.segment_names))


def combine(states: Iterable[State], cells: int) -> State:
    """The state of all partitions together; `closed_at` has no meaning in it."""
    tallies, classes, voters = [0] * cells, [0] * len(RecordClass), 0
    for state in states:
        tallies = [mine + more for mine, more in zip(tallies, state.tallies, strict=True)]
        classes = [mine + more for mine, more in zip(classes, state.classes, strict=True)]
        voters += state.voters
    return State(tuple(tallies), tuple(classes), voters, NOTHING)


def option_sums(session: Session, tallies: Sequence[int]) -> tuple[int, ...]:
    """Millionths by option index, all segments together."""
    width = max(1, len(session.segment_names))
    return tuple(sum(tallies[at : at + width]) for at in range(0, len(tallies), width))


def totals_json(session: Session, tallies: Sequence[int]) -> dict[str, Amount]:
    """The totals by option id: votes (single, approval), first preferences (ranked), sums (score)."""
    return dict(zip(session.option_ids, map(amount, option_sums(session, tallies)), strict=True))


def segments_json(session: Session, tallies: Sequence[int]) -> dict[str, dict[str, Amount]] | None:
    """The totals of each segment, by its name; None for a session without segments."""
    names = session.segment_names
    if not names:
        return None
    return {
        segment: {
            option: amount(tallies[place * len(names) + index]) for place, option in enumerate(session.option_ids)
        }
        for index, segment in enumerate(names)
    }


def turnout(classes: Sequence[int], voters: int) -> Turnout:
    """Numbers of records by class; `received` covers all except control records."""
    received = sum(classes) - classes[RecordClass.SUPERSEDED] - classes[RecordClass.CONTROL]
    return Turnout(
        received=received,
        accepted=classes[RecordClass.ACCEPTED],
        duplicate=classes[RecordClass.DUPLICATE],
        superseded=classes[RecordClass.SUPERSEDED],
        rejected={reason: classes[code] for code, reason in REJECTED.items()},
        voters=voters,
    )


def embargoed(session: Session, phase: Phase) -> bool:
    """Returns whether totals per option must stay hidden: `afterClose`, and the result is not final."""
    return session.spec.results.visibility == "afterClose" and phase is not Phase.FINAL


def final_frame(document: Mapping[str, Any], as_of: int) -> Frame:
    """The last frame of a session, from its result document. `as_of`: milliseconds since 1970."""
    return Frame(
        session=document["session"],
        epoch=document["epoch"],
        version=document["version"],
        phase=document["state"],
        totals=document["totals"],
        turnout=msgspec.convert(document["turnout"], Turnout),
        as_of=as_of,
        lag_ms=0,
        final=document["state"] == Phase.FINAL,
        segments=document["segments"],
        outcome=document["outcome"],
    )


# --- The document, signed


def encode_document(document: Mapping[str, Any]) -> bytes:
    """The document's canonical bytes."""
    return _canonical.encode(document)


def decode_document(data: bytes) -> Document:
    """The document with exact amounts: numbers with a decimal point become Decimal. Raises ValueError."""
    try:
        document = json.loads(data, parse_float=Decimal)
    except (ArithmeticError, RecursionError):  # an endless exponent, endless brackets
        raise ValueError("not a result document: a number or its nesting is beyond all bounds") from None
    if not isinstance(document, dict):
        raise ValueError("a result document is a JSON object")
    return document


def sign_result(document: Mapping[str, Any], key: Ed25519PrivateKey) -> Document:
    """The document with `publicKey` and `signature` (hex) added."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    unsigned = {**document, "publicKey": public}
    unsigned.pop("signature", None)
    return {**unsigned, "signature": key.sign(encode_document(unsigned)).hex()}


def verify_result(document: Mapping[str, Any] | bytes, public_key: str | None = None) -> bool:
    """Returns whether the signature is valid for all members of the document.

    `public_key` (hex, from the genesis) must be the one that the document names; without it, the result only says
    that the document is intact, not who signed it.
    """
    try:
        members = decode_document(document) if isinstance(document, bytes) else dict(document)
        text = members.pop("signature")
        signature = bytes.fromhex(text)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(members["publicKey"]))
        key.verify(signature, encode_document(members))
    except (InvalidSignature, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False
    if signature.hex() != text:  # one document, one text
        return False
    return public_key is None or members["publicKey"] == public_key


def result_csv(session: Session, document: Mapping[str, Any]) -> str:
    """One line per option: id, label, total, one column per segment, and whether it won."""
    segments = document["segments"] or {}
    winners = (document["outcome"] or {}).get("winners", [])
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["option", "label", "total", *segments, "winner"])
    for option, label in session.labels.items():
        total = (document["totals"] or {}).get(option, "")
        parts = [segments[name][option] for name in segments]
        table.writerow([option, label, total, *parts, "yes" if option in winners else "no"])
    return out.getvalue()
