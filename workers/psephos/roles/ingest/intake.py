"""Turns a request's parts into a record of the votes topic, and its offset into a receipt. Pure.

JSON is read strictly: a repeated member is refused, since two readers could take it for two ballots.
"""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from psephos.domain.ballots.rules import BallotRules, InvalidBallot
from psephos.domain.genesis import Genesis
from psephos.domain.session import Session
from psephos.formats.keyed_hash import KeyedHash
from psephos.formats.receipts import TAG_BYTES, ReceiptSigner
from psephos.formats.votes import (
    VOTER_BYTES,
    encode_vote,
    nonce_of,
    partition_of,
    partitions_of,
    record_digests,
    with_nonce,
)
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.roll import Roll
from psephos.roles.ingest.verifier import MAX_SUBJECT, Electorate, Verifier, Voter

_IDEMPOTENCY_KEY: Final = re.compile(r"[!#-\[\]-~]{1,128}")  # visible ASCII without quotes and backslashes


_KNOWN_BODY: Final = 512  # bytes
_KNOWN_BODIES: Final = 1024
_KNOWN_CHOICES: Final = 16  # of one ballot
_MOST_WHOLE: Final = 10**15  # nothing that is sent here counts beyond this


class Record(NamedTuple):
    """A vote as it goes into the log."""

    partition: int
    key: bytes
    value: bytes


class Records(NamedTuple):
    """Votes as they go into the log, one list per field."""

    partitions: list[int]
    keys: list[bytes]
    values: list[bytes]

    def only(self, indexes: Sequence[int]) -> "Records":
        """Returns the records at these indexes."""
        return Records(
            [self.partitions[index] for index in indexes],
            [self.keys[index] for index in indexes],
            [self.values[index] for index in indexes],
        )


Content = tuple[bytes, bytes]
"""Key and value of a record."""


class Intake:
    """One session's rules for what becomes a record."""

    def __init__(self, session: Session, genesis: Genesis, session_key: bytes, roll: Roll | None = None) -> None:
        self._rules = BallotRules.of(session)
        self._needs_key = session.needs_idempotency_key
        self._partitions = genesis.partitions
        self._tag = genesis.hash[:TAG_BYTES]
        self._keyed = KeyedHash(session_key)
        self._signer = ReceiptSigner(session_key)
        self._roll = roll
        self._ballots: dict[bytes, bytes] = {}
        self._choices: dict[tuple[str, ...], bytes] = {}

    def pseudonym(self, voter: Voter) -> bytes:
        """Returns the voter's id in the log. Raises Problem not-eligible if the voter is not on the roll."""
        return self.pseudonym_of(voter.subject)

    def pseudonym_of(self, subject: str) -> bytes:
        """As `pseudonym`, by the voter's subject."""
        key = self._keyed.digest(subject.encode())[:VOTER_BYTES]  # `voter_key`, at half its cost
        if self._roll is not None:
            self._roll.require(key)
        return key

    def check_key(self, idempotency_key: object) -> str | None:
        """Returns the Idempotency-Key without surrounding quotes, None if there is none. Raises Problem."""
        if idempotency_key is None:
            if self._needs_key:
                detail = "voters of this session may vote again: send a new Idempotency-Key with each new vote"
                raise Problem("idempotency-key-required", detail)
            return None
        key = idempotency_key if isinstance(idempotency_key, str) else ""
        if len(key) > 1 and key[0] == key[-1] == '"':
            key = key[1:-1]
        if not _IDEMPOTENCY_KEY.fullmatch(key):
            raise Problem(
                "malformed-request",
                "an Idempotency-Key is 1 to 128 visible ASCII characters without spaces, quotes and backslashes",
            )
        return key

    def record(
        self,
        voter: Voter,
        ballot: Mapping[str, object],
        idempotency_key: str | None,
        received_at: int,
        pseudonym: bytes | None = None,
    ) -> Record:
        """Returns the record of a vote; `received_at`: milliseconds since 1970. `pseudonym`: the voter's if known.

        Raises Problem: invalid-ballot or not-eligible.
        """
        key = self.pseudonym(voter) if pseudonym is None else pseudonym
        return self.record_of(voter, self._encoded(ballot), idempotency_key, received_at, key)

    def ballot(self, body: bytes) -> bytes:
        """Returns the canonical ballot of a request's body. Raises Problem: malformed-request or invalid-ballot.

        The rules never change, so the same body is the same ballot; and a few bodies make up most votes.
        """
        raw = self._ballots.get(body)
        if raw is None:
            raw = self._encoded(decode_object(body))
            if len(body) <= _KNOWN_BODY:
                if len(self._ballots) >= _KNOWN_BODIES:
                    self._ballots = {}
                self._ballots[body] = raw
        return raw

    def ballot_of(self, choices: tuple[str, ...]) -> bytes:
        """As `ballot`, for choices alone. Raises Problem invalid-ballot."""
        raw = self._choices.get(choices)
        if raw is None:
            raw = self._encoded({"choices": choices})
            if len(choices) <= _KNOWN_CHOICES:
                if len(self._choices) >= _KNOWN_BODIES:
                    self._choices = {}
                self._choices[choices] = raw
        return raw

    def _encoded(self, ballot: Mapping[str, object]) -> bytes:
        try:
            return self._rules.encode(ballot)
        except InvalidBallot as error:
            raise Problem("invalid-ballot", str(error), reason=error.reason) from None

    def record_of(
        self, voter: Voter, raw: bytes, idempotency_key: str | None, received_at: int, key: bytes
    ) -> Record:
        """Returns the record of a canonical ballot; `key`: the voter's pseudonym."""
        nonce = nonce_of(key, idempotency_key) if idempotency_key is not None else b""
        value = encode_vote(raw, received_at, voter.weight, voter.segment, nonce)
        return Record(partition_of(key, self._partitions), key, value)

    def records(self, contents: Sequence[Content]) -> Records:
        """Returns the records of votes of this session, in order."""
        keys = [key for key, _ in contents]
        return Records(partitions_of(keys, self._partitions), keys, [value for _, value in contents])

    def receipts(self, records: Records, offsets: Sequence[int]) -> list[str]:
        """Returns the receipts for records at these offsets."""
        digests = record_digests(records.keys, records.values)
        return self._signer.sign_columns(self._tag, records.partitions, offsets, digests)


class LineReader:
    """Reads batch lines: `{"token"} | {"subject", "weight"?, "segment"?}`, a ballot, and an "idempotencyKey"?"""

    def __init__(self, intake: Intake, verifier: Verifier, electorate: Electorate) -> None:
        self._intake = intake
        self._verifier = verifier
        self._electorate = electorate
        self._alike = not electorate.weighted and not electorate.segmented

    def read(self, lines: Sequence[bytes], received_at: int) -> list[Content | Problem]:
        """Returns, for each line, what `record` returns without the partition, or the Problem that it raises.

        The simplest lines, voters by name, share everything that is the same in each: they cost half as much here.
        """
        check_key, pseudonym_of = self._intake.check_key, self._intake.pseudonym_of
        outcomes: list[Content | Problem] = []
        values: dict[tuple[str, ...], bytes] = {}
        for line in lines:
            plain = _plain(line)
            try:
                if plain is None or not self._by_name_alone(plain):
                    outcomes.append(self._record(line, plain, received_at)[1:])
                    continue
                idempotency_key = check_key(plain.idempotencyKey)
                value = values.get(plain.choices)
                if value is None:
                    value = values[plain.choices] = self._value(plain.choices, received_at)
                key = pseudonym_of(plain.subject)
                if idempotency_key is not None:
                    value = with_nonce(value, nonce_of(key, idempotency_key))
                outcomes.append((key, value))
            except Problem as problem:
                outcomes.append(problem)
        return outcomes

    def record(self, line: bytes, received_at: int) -> Record:
        """Returns the record of a line. Raises Problem."""
        return self._record(line, _plain(line), received_at)

    def _record(self, line: bytes, plain: "_Line | None", received_at: int) -> Record:
        if plain is not None:
            if plain.token:
                return self._record_of_token(plain, received_at)
            if (plain.weight is UNSET or self._electorate.weighted) and (
                plain.segment is UNSET or self._electorate.segmented
            ):
                return self._record_of(plain, received_at)
        return self._record_of_members(decode_object(line), received_at)

    def _by_name_alone(self, line: "_Line") -> bool:
        """Returns whether the voter is given by a subject alone, of a valid length."""
        return (
            self._alike and 0 < len(line.subject) <= MAX_SUBJECT and line.weight is UNSET and line.segment is UNSET
        )

    def _value(self, choices: tuple[str, ...], received_at: int) -> bytes:
        """Returns the value, without a nonce, of a vote by a voter that has neither weight nor segment."""
        everybody = self._electorate.voter("anybody", None, None)
        return encode_vote(self._intake.ballot_of(choices), received_at, everybody.weight, everybody.segment)

    def _record_of_members(self, members: dict[str, Any], received_at: int) -> Record:
        key = self._intake.check_key(members.pop("idempotencyKey", None))
        voter = self._voter(members, received_at)
        return self._intake.record(voter, members, key, received_at)

    def _record_of(self, line: "_Line", received_at: int) -> Record:
        key = self._intake.check_key(line.idempotencyKey)
        try:
            voter = self._electorate.voter(line.subject, line.weight, line.segment)
        except ValueError as error:
            raise Problem("malformed-request", str(error)) from None
        raw = self._intake.ballot_of(line.choices)
        return self._intake.record_of(voter, raw, key, received_at, self._intake.pseudonym(voter))

    def _record_of_token(self, line: "_Line", received_at: int) -> Record:
        key = self._intake.check_key(line.idempotencyKey)
        voter = self._verifier.verify(line.token, received_at / 1000)
        pseudonym = self._intake.pseudonym(voter)
        return self._intake.record_of(voter, self._intake.ballot_of(line.choices), key, received_at, pseudonym)

    def _voter(self, members: dict[str, Any], received_at: int) -> Voter:
        """Takes the members that name the voter; the rest is the ballot."""
        if "token" in members:
            token = members.pop("token")
            if not isinstance(token, str) or "subject" in members:
                raise Problem("malformed-request", "a line has a token (a text) or a subject, not both")
            return self._verifier.verify(token, received_at / 1000)
        if "subject" not in members:
            raise Problem("malformed-request", "a line needs a token or a subject")
        subject = members.pop("subject")
        weight = members.pop("weight", None) if self._electorate.weighted else None
        segment = members.pop("segment", None) if self._electorate.segmented else None
        try:
            return self._electorate.voter(subject, weight, segment)
        except ValueError as error:
            raise Problem("malformed-request", str(error)) from None


class _Number(Decimal):
    """A number with a decimal point or an exponent, as it was written; no ballot takes one."""

    def __repr__(self) -> str:
        return str(self)


def _number(text: str) -> int | Decimal:
    """Converts 2.0 to the integer 2, as in JSON Schema; what is not an integer stays as it was written."""
    number = _Number(text)
    whole = abs(number) < _MOST_WHOLE and number == number.to_integral_value()
    return int(number) if whole else number


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The simplest lines: a voter by name or by token, options by their ids."""

    choices: tuple[str, ...]
    subject: str = ""
    token: str = ""
    idempotencyKey: str | None = None  # noqa: N815 - the name in the line
    weight: Any = UNSET
    segment: Any = UNSET


_lines = msgspec.json.Decoder(_Line, float_hook=_number)


def _plain(line: bytes) -> _Line | None:
    """Returns a plain line without repeated members; None for any other, which is read the long way."""
    try:
        plain = _lines.decode(line)
    except (ValueError, ArithmeticError, RecursionError):
        return None
    members = 2
    if plain.idempotencyKey is not None:
        members += 1
    if plain.weight is not UNSET or plain.segment is not UNSET:
        if plain.token:
            return None  # the token gives both: such members are not part of a ballot
        members += (plain.weight is not UNSET) + (plain.segment is not UNSET)
    return plain if line.count(b":") == members and bool(plain.subject) != bool(plain.token) else None


_decoder = msgspec.json.Decoder(dict[str, Any], float_hook=_number)


def decode_object(data: bytes) -> dict[str, Any]:
    """Decodes a JSON object. Raises Problem malformed-request, also for a repeated member."""
    try:
        members = _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise Problem("malformed-request", f"byte {error.start} is not UTF-8") from None
    except (ValueError, ArithmeticError) as error:
        raise Problem("malformed-request", f"not the JSON object that is needed: {error}") from None
    except RecursionError:
        raise Problem("malformed-request", "the JSON is nested too deeply") from None
    nested = sum(len(member) for member in members.values() if type(member) is dict)
    # Each member has a colon of its own: as many colons as different members means that none is repeated.
    if data.count(b":") != len(members) + nested:
        json.loads(data, object_pairs_hook=_without_repetition)
    return members


def _without_repetition(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise Problem("malformed-request", f"the member {repeated[:64]!r} is there more than once")
