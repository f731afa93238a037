"""The load of a local election: who votes what, all planned before the first vote. Pure; randomness is seeded."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from psephos.domain.ballots import BallotRules
from psephos.formats.votes import NONCE_BYTES, VOTER_BYTES, encode_vote, partition_of, voter_key
from psephos_lab.ballots import BallotKind
from psephos_lab.reference import Allowance

SINGLE_SHARE = 0.05  # of the ballots go to the endpoint that people use, one per request
MOST_EXTRAS = 8  # per voter
_ATTEMPTS = 100

Body = Mapping[str, object]


class Again(NamedTuple):
    """A further vote of a voter who has voted. `number`: which one of the voter's votes, the first is 1.

    A number that has occurred before is a retry: the same body with the same Idempotency-Key.
    """

    number: int
    body: Body


class Voter(NamedTuple):
    """One voter. `single`: votes alone, not in a batch. `more`: votes cast afterwards, one after the other."""

    subject: str
    body: Body
    single: bool
    more: tuple[Again, ...] = ()


class Refusable(NamedTuple):
    """A ballot that ingest has to refuse: raw bytes of a request, by a voter who may vote."""

    subject: str
    body: bytes


class Poison(NamedTuple):
    """A record that no ingest would write, straight into the log. `reason`: why the tally has to reject it."""

    partition: int
    key: bytes | None
    value: bytes | None
    reason: str


class Load(NamedTuple):
    """All that is cast, in the order in which it is cast."""

    voters: Sequence[Voter]
    refusable: Sequence[Refusable]
    poison: Sequence[Poison]

    @property
    def more(self) -> int:
        """Number of votes that come from voters who have voted."""
        return sum(len(voter.more) for voter in self.voters)


def plan_load(
    kinds: Sequence[BallotKind],
    rules: BallotRules,
    *,
    allowance: Allowance,
    session_key: bytes,
    partitions: int,
    duplicates: float = 0.0,
    extra: float = 0.0,
    invalid: float = 0.0,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Load:
    """Plans a voter for every ballot, in random order; `names`: theirs, if they are not `voter_names`.

    `duplicates`: share of the voters whose second vote must not count: one with another valid ballot if voters
    have one vote, else a retry of one they have cast. `extra`: votes with other ballots by voters who may have
    several, as a share of the number of ballots; some go beyond a quota. `invalid`: invalid ballots as a share of
    the valid ones, half of them by HTTP and the other half straight into the log.
    """
    rng = random.Random(seed)  # noqa: S311 - which voter does what is no secret
    bodies = [kind.body for kind in kinds for _ in range(kind.voters)]
    rng.shuffle(bodies)
    singles = _chosen(rng, len(bodies), SINGLE_SHARE, at_least=1)
    names = voter_names(len(bodies), invalid) if names is None else names
    repeating = _chosen(rng, len(bodies), duplicates)
    extras = _extras(rng, len(bodies), extra, allowance)
    if allowance.several:
        singles |= repeating  # only that endpoint recognises the vote, so a retry has to go to another process
    voters = []
    for number, body in enumerate(bodies):
        more = _more(rng, rules, body, extras[number], retries=allowance.several and number in repeating)
        if number in repeating and not allowance.several:
            more = (Again(2, another(rng, rules, body)),)
        voters.append(Voter(names[number], body, number in singles, more))
    bad, of_refused = round(len(bodies) * invalid), names[len(bodies) :]
    return Load(
        voters,
        [_refusable(rng, rules, number, name) for number, name in enumerate(of_refused)],
        [
            _poison(rng, rules, session_key, partitions, names[: len(bodies)], number)
            for number in range(bad - bad // 2)
        ],
    )


def voter_names(ballots: int, invalid: float) -> list[str]:
    """Returns the names of all voters: one for each ballot, then one for each ballot that ingest has to refuse."""
    refused = round(ballots * invalid) // 2
    return [*map(subject, range(ballots)), *(f"invalid-{number:06d}" for number in range(refused))]


def subject(number: int) -> str:
    """Returns the name of a voter."""
    return f"voter-{number:07d}"


def _chosen(rng: random.Random, voters: int, share: float, *, at_least: int = 0) -> frozenset[int]:
    wanted = max(at_least, -int(-voters * share // 1))  # rounded up
    return frozenset(rng.sample(range(voters), min(wanted, voters)))


def _extras(rng: random.Random, voters: int, share: float, allowance: Allowance) -> Counter[int]:
    """Returns how many more votes each voter casts, at most one more than a quota allows."""
    wanted, most = -int(-voters * share // 1), min(allowance.votes + 1, MOST_EXTRAS)
    extras: Counter[int] = Counter()
    for number in rng.sample(range(voters), voters):
        if not wanted:
            break
        extras[number] = min(wanted, rng.randint(1, most))
        wanted -= extras[number]
    return extras


def _more(rng: random.Random, rules: BallotRules, body: Body, extras: int, *, retries: bool) -> tuple[Again, ...]:
    """Returns ballots, each different from the previous one, then a retry of any of them."""
    votes = [Again(1, body)]
    for number in range(2, extras + 2):
        votes.append(Again(number, another(rng, rules, votes[-1].body)))
    return (*votes[1:], rng.choice(votes)) if retries else tuple(votes[1:])


# --- Ballots


def another(rng: random.Random, rules: BallotRules, body: Body) -> Body:
    """Returns a random valid ballot that is not this one; the same one if the session knows no other."""
    own = rules.encode(body)
    for _ in range(_ATTEMPTS):
        other = random_ballot(rng, rules)
        if rules.encode(other) != own:
            return other
    return body


def random_ballot(rng: random.Random, rules: BallotRules) -> Body:
    """Returns a random valid ballot."""
    return _body(rng, rules, rng.sample(rules.option_ids, rng.randint(rules.min, rules.max)))


def _body(rng: random.Random, rules: BallotRules, options: Sequence[str]) -> Body:
    if rules.type != "score":
        return {"choices": list(options)}
    low, high = rules.scale or (0, 0)
    return {"scores": {option: rng.randint(low, high) for option in options}}


# --- Invalid ballots by HTTP


def _refusable(rng: random.Random, rules: BallotRules, number: int, name: str) -> Refusable:
    make = _INVALID[number % len(_INVALID)]
    return Refusable(name, make(rng, rules))


def _unknown_option(rng: random.Random, rules: BallotRules) -> bytes:
    return _json(_body(rng, rules, ["nobody"]))


def _too_many(rng: random.Random, rules: BallotRules) -> bytes:
    """Returns more options than allowed, unknown ones among them if all known ones are allowed."""
    extra = [f"nobody-{number}" for number in range(rules.max + 1)]
    return _json(_body(rng, rules, [*rules.option_ids, *extra][: rules.max + 1]))


def _wrong_member(_rng: random.Random, rules: BallotRules) -> bytes:
    wrong = {"choices": [rules.option_ids[0]]} if rules.type == "score" else {"scores": {rules.option_ids[0]: 1}}
    return _json(wrong)


def _not_an_option(_rng: random.Random, rules: BallotRules) -> bytes:
    return _json({"scores": {rules.option_ids[0]: "best"}} if rules.type == "score" else {"choices": [[]]})


def _not_json(rng: random.Random, rules: BallotRules) -> bytes:
    return _json(random_ballot(rng, rules))[:-2]


_INVALID = (_unknown_option, _too_many, _wrong_member, _not_an_option, _not_json)


def _json(body: Body) -> bytes:
    return json.dumps(body).encode()


# --- Invalid records straight into the log


def _poison(
    rng: random.Random, rules: BallotRules, session_key: bytes, partitions: int, voters: Sequence[str], number: int
) -> Poison:
    """Returns a record. Every other one has the key of a voter who has a vote: it must not cost that vote."""
    own = number % 2 and voters
    key = voter_key(session_key, rng.choice(voters)) if own else rng.randbytes(VOTER_BYTES)
    home = partition_of(key, partitions)
    nonce = rng.randbytes(NONCE_BYTES)  # sessions with revotes reject a record without one
    valid = encode_vote(rules.encode(random_ballot(rng, rules)), 0, nonce=nonce)
    kinds = list(_kinds(rules, key, home, partitions, valid, nonce))
    return kinds[number % len(kinds)]


def _kinds(
    rules: BallotRules, key: bytes, home: int, partitions: int, valid: bytes, nonce: bytes
) -> Iterator[Poison]:
    yield Poison(home, key, valid[:-2], "malformed")  # cut off
    yield Poison(home, key, _vote(rules, [len(rules.option_ids)], nonce), "invalid-ballot")  # unknown option
    yield Poison(home, None, valid, "malformed")
    yield Poison(home, key, _vote(rules, range(rules.max + 1), nonce), "invalid-ballot")  # more than allowed
    yield Poison(home, b"", valid, "malformed")
    yield Poison(home, key, encode_vote(b"\0", 0, nonce=nonce), "invalid-ballot")  # not a whole number of choices
    yield Poison(home, key, None, "malformed")
    if partitions > 1:
        yield Poison((home + 1) % partitions, key, valid, "malformed")


def _vote(rules: BallotRules, indexes: Sequence[int], nonce: bytes) -> bytes:
    low = (rules.scale or (0, 0))[0].to_bytes(2, "big", signed=True) if rules.type == "score" else b""
    return encode_vote(b"".join(index.to_bytes(2, "big") + low for index in indexes), 0, nonce=nonce)
