"""The planned load of a local election, for ballots of every type."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.domain.ballots import BallotRules, InvalidBallot
from psephos.formats.errors import Malformed
from psephos.formats.votes import VOTER_BYTES, decode_vote, partition_of
from psephos.roles.ingest.intake import decode_object
from psephos.roles.ingest.problems import Problem
from psephos_lab.ballots import BallotKind
from psephos_lab.load import Load, another, plan_load, random_ballot
from psephos_lab.reference import Allowance

IDS = ("a", "b", "c", "d")
RULES = {
    "single": BallotRules("single", IDS, 1, 1),
    "approval": BallotRules("approval", IDS, 0, 3),
    "ranked": BallotRules("ranked", IDS, 0, 4),
    "score": BallotRules("score", IDS, 1, 2, (1, 3)),
}
KEY, PARTITIONS = b"k" * 32, 4


ONCE, LAST, FIVE = Allowance(1, last=False), Allowance(100, last=True), Allowance(5, last=False)


def _plan(rules: BallotRules, seed: int = 0, voters: int = 400, *, allowance: Allowance = ONCE) -> Load:
    rng = random.Random(seed)
    kinds = [BallotKind(10, random_ballot(rng, rules)) for _ in range(voters // 10)]
    return plan_load(
        kinds,
        rules,
        allowance=allowance,
        session_key=KEY,
        partitions=PARTITIONS,
        duplicates=0.1,
        extra=0.2 if allowance.several else 0.0,
        invalid=0.1,
        seed=seed,
    )


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_every_ballot_has_a_voter_of_its_own_and_some_vote_twice_differently(rules: BallotRules) -> None:
    load = _plan(rules)
    assert len({voter.subject for voter in load.voters}) == len(load.voters) == 400
    assert load.more == 40
    assert sum(voter.single for voter in load.voters) == 20
    for voter in load.voters:
        for vote in voter.more:
            assert vote.number == 2
            assert rules.encode(vote.body) != rules.encode(voter.body)


@pytest.mark.parametrize("allowance", [LAST, FIVE], ids=["last", "quota"])
def test_voters_with_several_votes_cast_extra_ones_and_repeat_some(allowance: Allowance) -> None:
    rules = RULES["ranked"]
    load = _plan(rules, allowance=allowance)
    extras = retries = 0
    for voter in load.voters:
        bodies = {1: voter.body}
        for vote in voter.more:
            if vote.number in bodies:
                assert vote.body == bodies[vote.number], "a retry repeats the very same body"
                assert voter.single, "only that door remembers a vote, so that another process has to take it"
                retries += 1
            else:
                assert vote.number == len(bodies) + 1
                assert rules.encode(vote.body) != rules.encode(bodies[vote.number - 1])
                bodies[vote.number] = vote.body
                extras += 1
    assert (extras, retries, load.more) == (80, 40, 120)
    most = max(len({vote.number for vote in voter.more} - {1}) for voter in load.voters)
    assert most > 4, "some go beyond a quota of five"


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_half_of_the_invalid_ballots_are_ones_that_ingest_refuses(rules: BallotRules) -> None:
    load = _plan(rules)
    assert len(load.refusable) == len(load.poison) == 20
    for each in load.refusable:
        with pytest.raises((Problem, InvalidBallot)):
            rules.encode(decode_object(each.body))


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_the_other_half_are_records_that_no_tally_may_count(rules: BallotRules) -> None:
    for record in _plan(rules).poison:
        assert _class_of(record.key, record.value, record.partition, rules) == record.reason


def _class_of(key: bytes | None, value: bytes | None, partition: int, rules: BallotRules) -> str:
    if key is None or len(key) != VOTER_BYTES or partition_of(key, PARTITIONS) != partition:
        return "malformed"
    try:
        rules.check(decode_vote(value).ballot)
    except Malformed:
        return "malformed"
    except InvalidBallot:
        return "invalid-ballot"
    return "valid"


def test_chance_comes_from_the_seed_alone() -> None:
    rules = RULES["ranked"]
    assert _plan(rules, seed=3) == _plan(rules, seed=3)
    assert _plan(rules, seed=3) != _plan(rules, seed=4)


@given(kind=st.sampled_from(sorted(RULES)), seed=st.integers(0, 10_000))
def test_random_ballots_are_valid_and_another_one_is_another(kind: str, seed: int) -> None:
    rules, rng = RULES[kind], random.Random(seed)
    one = random_ballot(rng, rules)
    rules.check(rules.encode(one))
    assert rules.encode(another(rng, rules, one)) != rules.encode(one)


def test_who_can_only_vote_one_way_votes_so_again() -> None:
    rules = BallotRules("single", ("only",), 1, 1)
    assert another(random.Random(0), rules, {"choices": ["only"]}) == {"choices": ["only"]}
