"""The decoders. A target takes any bytes, swallows what its decoder promises to raise, and asserts what must hold
for whatever was accepted. All else is a finding."""

import base64
import hmac
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tests.reference import build, make_session

from psephos.control import next_due
from psephos.domain.ballots import BallotRules, InvalidBallot
from psephos.domain.counting import CountingRules
from psephos.domain.genesis import Genesis, decode_genesis, encode_genesis
from psephos.domain.results import decode_document, encode_document, sign_result, verify_result
from psephos.domain.session import Session, SessionError, parse_session, rules_hash
from psephos.formats.blocks import (
    NOTHING,
    RecordClass,
    State,
    block_hash,
    decode_block,
    decode_state,
    encode_block,
    encode_state,
)
from psephos.formats.columns import pack_big_ints, unpack_big_ints, unpack_ints
from psephos.formats.control import Control, Phase, decode_control, encode_control
from psephos.formats.errors import Malformed
from psephos.formats.frames import Frame, Turnout, decode_frame, encode_frame
from psephos.formats.receipts import Receipt, ReceiptSigner, ReceiptVerifier, parse_receipt, receipt_key
from psephos.formats.tallies import TallyRecord, decode_tally, encode_tally
from psephos.formats.votes import (
    MARKER_KEY,
    decode_marker,
    decode_vote,
    encode_marker,
    encode_vote,
    partition_of,
    voter_key,
)
from psephos.http.rate_limit import client_of
from psephos.roles.gateway.view import parse_position, readable, view_of
from psephos.roles.ingest.batch import LINE_LIMIT, LineSplitter
from psephos.roles.ingest.intake import Intake, LineReader, decode_object
from psephos.roles.ingest.jwks import age_of
from psephos.roles.ingest.keys import UnusableKey, one_key, parse_jwks
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.rollfile import MAGIC, RollFile, UnusableRoll, pseudonyms
from psephos.roles.ingest.tracing import trace_of
from psephos.roles.ingest.verifier import Electorate, Verifier, Voter
from psephos.roles.recount.compare import Chain, LogRecord, compare
from psephos.roles.recount.examine import Examiner, RecordRules
from psephos.roles.recount.verdicts import Verdict, decode_verdict, encode_verdict, pattern_chunks, read_patterns
from psephos.roles.tally.decide import Head, Judge, Rules

KEY = b"k" * 32
PARTITIONS = 2
NOW_S = 1_800_000_000
VOTERS = [key for n in range(40) if partition_of(key := voter_key(KEY, f"v{n}"), PARTITIONS) == 0][:6]
EXAMPLES = Path(__file__).parents[2] / "manifests" / "examples"
SESSIONS = [
    make_session(segments=("no", "se"), weighted=True),
    make_session(ballot={"type": "single", "max": 1, "min": 1}),
    make_session(ballot={"type": "ranked", "max": 3}, voters={"revote": "last"}),
    make_session(ballot={"type": "score", "scale": {"min": -2, "max": 5}, "max": 3}, voters={"votesPerVoter": 2}),
]
GENESIS = Genesis(
    session="uid", name="test", partitions=PARTITIONS, topic_id="t", key_fingerprint="f", rules_hash="r",
    public_key="p", receipt_key=receipt_key(KEY), lot_commitment="l",
)  # fmt: skip


class Target(NamedTuple):
    """A decoder: its name, what is done with an input, and inputs that it accepts."""

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]


# --- HTTP


def _intakes() -> list[Intake]:
    return [Intake(session, GENESIS, KEY) for session in SESSIONS]


_INTAKES = _intakes()
_LINES = [
    LineReader(intake, Verifier(_tokens, electorate, b"s" * 32), electorate)
    for intake, session in zip(_INTAKES, SESSIONS, strict=True)
    if (_tokens := session.spec.voters.tokens) and (electorate := Electorate(session))
]


def http_body(data: bytes) -> None:
    """`POST votes`: whatever becomes a record is an accepted vote by the rules that tally and recount have."""
    for session, intake in zip(SESSIONS, _INTAKES, strict=True):
        with suppress(Problem):
            record = intake.record(Voter("ada", 1_000_000, 0), decode_object(data), "key-1", 5)
            BallotRules.of(session).check(decode_vote(record.value).ballot)
            json.loads(data)


def batch_body(data: bytes) -> None:
    """`POST votes:batch`, in chunks: every line is handed out once, and becomes what it becomes alone."""
    splitter, half = LineSplitter(), len(data) // 2
    lines = [line for part in (data[:half], data[half:], b"\n") for line in splitter.feed(part)]
    numbers = [number for number, _ in lines]
    assert numbers == sorted(set(numbers))
    assert all(line is None or len(line) <= LINE_LIMIT for _, line in lines)
    contents = [line or b"" for _, line in lines]
    for reader in _LINES:
        for line, outcome in zip(contents, reader.read(contents, NOW_S * 1000), strict=True):
            told = str(outcome) if isinstance(outcome, Problem) else outcome
            assert told == _alone(reader, line)


def _alone(reader: LineReader, line: bytes) -> object:
    try:
        return reader.record(line, NOW_S * 1000)[1:]
    except Problem as problem:
        return str(problem)


def idempotency_key(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for intake in _INTAKES:
        with suppress(Problem):
            key = intake.check_key(text)
            assert key is not None
            assert key.isascii()


def headers(data: bytes) -> None:
    """Forwarded addresses, positions of SSE, the lifetime of a key set."""
    text = data.decode("latin-1")
    client_of("10.0.0.1", {"X-Forwarded-For": text}, 2)
    assert age_of(text) > 0
    assert trace_of({"traceparent": text}) in (None, [("traceparent", data)])
    with suppress(Malformed):
        assert str(parse_position(text))


# --- Tokens


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _token(header: dict[str, Any], claims: dict[str, Any]) -> bytes:
    signed = b".".join(_b64(json.dumps(part).encode()) for part in (header, claims))
    return signed + b"." + _b64(hmac.digest(b"s" * 32, signed, "sha256"))


CLAIMS = {"sub": "ada", "iss": "https://id.example", "aud": "test", "exp": NOW_S + 60, "weight": "1.25"}
HS256 = {"alg": "HS256", "typ": "JWT"}
_VERIFIERS = [line._verifier for line in _LINES]


def token(data: bytes) -> None:
    """Any text as a token."""
    _verify(data.decode("utf-8", "replace"))


def signed_token(data: bytes) -> None:
    """Any claims, behind a signature that is right."""
    signed = _b64(json.dumps(HS256).encode()) + b"." + _b64(data)
    _verify((signed + b"." + _b64(hmac.digest(b"s" * 32, signed, "sha256"))).decode())


def _verify(text: str) -> None:
    for verifier in _VERIFIERS:
        with suppress(Problem):
            voter = verifier.verify(text, NOW_S)
            assert voter.subject
            assert voter.weight > 0


def _jwk(kid: str, public: Any) -> dict[str, Any]:
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

    kinds: list[tuple[type, Any]] = [
        (rsa.RSAPublicKey, RSAAlgorithm),
        (ec.EllipticCurvePublicKey, ECAlgorithm),
        (ed25519.Ed25519PublicKey, OKPAlgorithm),
    ]
    algorithm = next(found for kind, found in kinds if isinstance(public, kind))
    return {**json.loads(algorithm.to_jwk(public)), "kid": kid, "use": "sig"}


_PUBLIC = [
    rsa.generate_private_key(65_537, 2048).public_key(),
    ec.generate_private_key(ec.SECP256R1()).public_key(),
    ed25519.Ed25519PrivateKey.from_private_bytes(b"e" * 32).public_key(),
]
JWKS = json.dumps({"keys": [_jwk(f"k{n}", public) for n, public in enumerate(_PUBLIC)]}).encode()
_SIGNATURE = encode_dss_signature(5, 7)


def jwks(data: bytes) -> None:
    """An issuer's document, whatever it serves; a key that was taken refuses a wrong signature."""
    with suppress(UnusableKey):
        keys = parse_jwks(data, ("RS256", "ES256", "EdDSA"))
        for algorithm in ("RS256", "ES256", "EdDSA"):
            for kid in ("k0", "k1", "k2", None):
                with suppress(Problem):
                    assert not keys.check_for(algorithm, kid)(b"signed", _SIGNATURE)


def token_key(data: bytes) -> None:
    for algorithms in (("HS256",), ("RS256",), ("ES256",), ("EdDSA",)):
        with suppress(UnusableKey):
            one_key(algorithms, data)


# --- The log


def vote(data: bytes) -> None:
    with suppress(Malformed):
        found = decode_vote(data)
        assert encode_vote(found.ballot, found.received_at, found.weight, found.segment, found.nonce) == data


def marker(data: bytes) -> None:
    with suppress(Malformed):
        assert encode_marker(decode_marker(data).closes_at) == data


def pack_records(records: Sequence[tuple[bytes | None, bytes | None]]) -> bytes:
    """Records as one input of `records`."""
    return b"".join(_field(part) for record in records for part in record)


def _field(part: bytes | None) -> bytes:
    if part is None:
        return b"\xff"
    known = [MARKER_KEY, *VOTERS]
    return bytes([known.index(part)]) if part in known else b"\xf0" + len(part).to_bytes(2, "big") + part


def _fields(data: bytes) -> Iterator[bytes | None]:
    known, at = [MARKER_KEY, *VOTERS], 0
    while at < len(data):
        kind = data[at]
        at += 1
        if kind == 0xFF:
            yield None
        elif kind < 0xF0:
            yield known[kind % len(known)]
        else:
            length = int.from_bytes(data[at : at + 2], "big")
            yield data[at + 2 : at + 2 + length]
            at += 2 + length


class _Voters(dict[bytes, bytes]):
    def put(self, voter: bytes, value: bytes, /) -> None:
        self[voter] = value

    def add(self, voter: bytes, value: bytes, /) -> bool:
        return self.setdefault(voter, value) is value

    def add_all(self, voters: Sequence[bytes], values: Iterable[bytes], /) -> list[bool]:
        return list(map(self.add, voters, values))

    def put_all(self, items: Sequence[tuple[bytes, bytes]], /) -> None:
        self.update(items)


def records(data: bytes) -> None:
    """Any records in a partition: tally and recount, each by its own code, say the same of each; the block that
    the tally writes is read back, and the recount finds nothing wrong with it."""
    fields = list(_fields(data))
    raw = list(zip(fields[::2], fields[1::2], strict=False))
    if not raw:
        return
    for session in SESSIONS:
        judge = Judge(Rules.of(session, PARTITIONS), "uid", 0)
        head = Head(GENESIS.hash, 0, State.empty(judge.rules.cells))
        block = judge.block(head, raw, _Voters())
        taken = raw[: block.end]
        examiner = Examiner(RecordRules.of(session, PARTITIONS), 0)
        ours = [examiner.examine(offset, *record) for offset, record in enumerate(taken)]
        theirs = {vote.offset: vote for vote in block.accepted} | {
            at: RecordClass(code) for at, code in block.others
        }
        assert ours == [theirs[offset] for offset in range(block.end)]
        payload = encode_block(block)
        assert decode_block(payload) == block
        log = [LogRecord(offset, *record) for offset, record in enumerate(taken)]
        chain = Chain("uid", 0, GENESIS.hash)
        found = compare(RecordRules.of(session, PARTITIONS), chain, log, [(0, payload)], block.end, closed=False)
        assert found.verdict.differences == ()
        assert found.verdict.state == block.state


def ballot(data: bytes) -> None:
    """A ballot's bytes: refused, or counted by exactly these options."""
    for session in SESSIONS:
        rules = BallotRules.of(session)
        with suppress(InvalidBallot):
            rules.check(data)
            assert rules.encode(rules.to_choices(data)) == data


# --- Ledger, tallies, control, receipts


def block(data: bytes) -> None:
    """A stored block: refused by the decoder, or by the recount, but never more than that."""
    log = [LogRecord(0, VOTERS[0], encode_vote(b"\0\0", 1))]
    found = compare(
        RecordRules.of(SESSIONS[0], PARTITIONS), Chain("uid", 0, GENESIS.hash), log, [(0, data)], 1, closed=False
    )
    assert found.verdict.end == 1
    with suppress(Malformed):
        decoded = decode_block(data)
        assert decode_block(encode_block(decoded)) == decoded
        assert len(block_hash(data)) == 32


def state(data: bytes) -> None:
    with suppress(Malformed):
        decode_state(data)
    with suppress(Malformed):
        assert unpack_big_ints(pack_big_ints(found := unpack_big_ints(data))) == found
    for count in (0, 1, 3, 100):
        with suppress(Malformed):
            assert len(unpack_ints(data, count)) == count


def tally(data: bytes) -> None:
    with suppress(Malformed):
        found = decode_tally(data)
        assert decode_tally(encode_tally(found)) == found


def control(data: bytes) -> None:
    with suppress(Malformed):
        found = decode_control(data)
        assert decode_control(encode_control(found)) == found
        found.accepts_votes(0)


def receipt(data: bytes) -> None:
    """Nothing but what was signed is verified."""
    text = data.decode("utf-8", "replace")
    with suppress(Malformed):
        parse_receipt(text)
    with suppress(Malformed):
        assert ReceiptVerifier(GENESIS.receipt_key).decode(text) in _RECEIPTS


_RECEIPTS = [Receipt(GENESIS.hash[:8], 1, offset, b"d" * 16) for offset in range(5)]


def genesis(data: bytes) -> None:
    with suppress(Malformed):
        found = decode_genesis(data)
        assert decode_genesis(encode_genesis(found)) == found
        assert len(found.epoch) == 16


def verdict(data: bytes) -> None:
    with suppress(Malformed):
        found = decode_verdict(data)
        assert decode_verdict(encode_verdict(found)) == found
    with suppress(Malformed):
        read_patterns([data])


def document(data: bytes) -> None:
    """Nothing but the document that was signed is verified."""
    with suppress(ValueError):
        found = decode_document(data)
        if verify_result(found, _SIGNED["publicKey"]):
            assert encode_document(found) == encode_document(_SIGNED)
    verify_result(data)


_SIGNED = sign_result(
    {"session": "test", "totals": {"ada": 3}}, ed25519.Ed25519PrivateKey.from_private_bytes(b"r" * 32)
)


# --- Redis, files


def frame(data: bytes) -> None:
    """A frame from Redis: refused, or passed on as one line of JSON."""
    with suppress(Malformed):
        decode_frame(data)
    with suppress(Malformed):
        found = readable(data)
        view = view_of(found, data, stale=True)
        assert b"\n" not in view.body
        assert json.loads(view.body)["stale"] is True


def roll_text(data: bytes) -> None:
    with suppress(UnusableRoll):
        found = pseudonyms((data[:7], data[7:]), KEY)
        assert found == sorted(set(found))


def roll_file(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        with suppress(UnusableRoll), RollFile(Path(file.name)) as roll:
            assert VOTERS[0] in roll or VOTERS[0] not in roll


def session(data: bytes) -> None:
    """A session's YAML: one error with reasons, or a session that can be counted and audited."""
    with suppress(SessionError):
        found = parse_session(data)
        assert rules_hash(found)
        assert CountingRules.of(found)
        next_due(found.spec.recount.schedule, datetime(2026, 1, 1, tzinfo=UTC))


# --- Seeds


def _ballots(session: Session) -> list[dict[str, Any]]:
    if session.spec.ballot.type == "score":
        return [{"scores": {"ada": 3}}, {"scores": {"ada": -2, "bob": 5, "cyd": 0}}]
    return [{"choices": ["ada"]}, {"choices": ["bob", "ada"]}, {"choices": []}]


_BODIES = [json.dumps(body).encode() for session in SESSIONS for body in _ballots(session)]
_LINE = {"subject": "ada", "weight": 2, "segment": "no", "idempotencyKey": "k1", "choices": ["ada"]}
_GOOD = encode_vote(b"\0\0", 5, nonce=b"n" * 16)
_RECORDS: list[list[tuple[bytes | None, bytes | None]]] = [
    [(VOTERS[0], encode_vote(b"\0\0", 5)), (VOTERS[1], encode_vote(b"\0\0\0\1", 6)), (VOTERS[0], _GOOD)],
    [(VOTERS[0], _GOOD), (VOTERS[0], encode_vote(b"\0\1", 7, nonce=b"m" * 16)), (VOTERS[0], _GOOD)],
    [(None, None), (b"", b""), (VOTERS[2], None), (MARKER_KEY, encode_marker(9)), (VOTERS[3], _GOOD)],
    [(VOTERS[4], encode_vote(b"\0\0\0\3", 5, weight=2_000_000, segment=1, nonce=b"n" * 16))],
]
_BLOCK = build(SESSIONS[0], "uid", GENESIS.hash, PARTITIONS, 0, _RECORDS[0], [])[0]
_FRAME = encode_frame(
    Frame(
        session="test", epoch=GENESIS.epoch, version=7, phase="Open", totals={"ada": 3}, as_of=5, lag_ms=0,
        turnout=Turnout(3, 3, 0, 0, {"late": 0}, 3), final=False,
    )
)  # fmt: skip
_VERDICT = Verdict(
    partition=0, end=3, log_end=3, records=3, tallies=(3, 0), classes=(3, 0, 0, 0, 0, 0, 0, 0), voters=3,
    closed_at=NOTHING, head="00", differences=(), difference_count=0, patterns="",
)  # fmt: skip
_YAMLS = [path.read_bytes() for path in sorted(EXAMPLES.glob("*/session.yaml"))]

TARGETS = [
    Target("http-body", http_body, _BODIES),
    Target("http-batch", batch_body, [json.dumps(_LINE).encode() + b"\n" + _BODIES[0] + b"\n"]),
    Target("http-idempotency-key", idempotency_key, [b"key-1", b'"key"']),
    Target("http-headers", headers, [b"1.2.3.4, ::1", b"00ff00ff00ff00ff:17", b"public, max-age=600"]),
    Target("token", token, [_token(HS256, CLAIMS), _token({"alg": "none"}, CLAIMS)]),
    Target("token-claims", signed_token, [json.dumps(CLAIMS).encode(), b'{"exp":1e400,"weight":1.5}']),
    Target("token-jwks", jwks, [JWKS]),
    Target("token-key", token_key, [b"s" * 32]),
    Target("log-vote", vote, [_GOOD, encode_vote(b"", 0)]),
    Target("log-marker", marker, [encode_marker(9)]),
    Target("log-records", records, [pack_records(each) for each in _RECORDS]),
    Target("log-ballot", ballot, [b"\0\0", b"\0\1\0\0", b"\0\0\0\3"]),
    Target("log-tally", tally, [encode_tally(TallyRecord(1, 0, 3, 5, State.empty(6)))]),
    Target("log-control", control, [encode_control(Control(phase=Phase.OPEN, number=3, closes_at=9))]),
    Target("ledger-block", block, [encode_block(_BLOCK)]),
    Target("ledger-state", state, [encode_state(State.empty(6)), pack_big_ints([1, -5, 10**12])]),
    Target("ledger-genesis", genesis, [encode_genesis(GENESIS)]),
    Target("ledger-verdict", verdict, [encode_verdict(_VERDICT), *pattern_chunks({b"\0\0": 5, b"": 10**9})]),
    Target("receipt", receipt, [text.encode() for text in ReceiptSigner(KEY).sign(_RECEIPTS)]),
    Target("result-document", document, [encode_document(_SIGNED)]),
    Target("redis-frame", frame, [_FRAME]),
    Target("roll-text", roll_text, ["ada\nbob\nÅsa\n".encode()]),
    Target("roll-file", roll_file, [MAGIC + (2).to_bytes(8, "big") + b"i" * 16 + b"".join(sorted(VOTERS[:2]))]),
    Target("session-yaml", session, _YAMLS),
]
