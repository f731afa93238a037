"""A retry gets its answer again, for a while; and the tokens of open sessions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ingest.test_verifier import NOW, refusal, session, token

from psephos.roles.ingest.anonymous import SHORTEST_TTL_S, AnonymousTokens
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.replays import KEPT_S, Replays
from psephos.roles.ingest.verifier import Electorate


def slug(replays: Replays, name: bytes, body: bytes) -> str:
    with pytest.raises(Problem) as caught:
        replays.begin(name, body)
    return caught.value.slug


def test_a_request_is_new_then_under_way_then_answered() -> None:
    replays = Replays()
    assert replays.begin(b"ann", b"1") is None
    assert slug(replays, b"ann", b"1") == "idempotency-key-in-use"
    assert slug(replays, b"ann", b"2") == "idempotency-key-reused"
    replays.end(b"ann", b"receipt", 0.0)
    assert replays.begin(b"ann", b"1") == b"receipt"
    assert slug(replays, b"ann", b"2") == "idempotency-key-reused"
    assert replays.begin(b"ben", b"2") is None


def test_a_request_that_failed_may_be_tried_again_with_another_body() -> None:
    replays = Replays()
    replays.begin(b"ann", b"1")
    replays.forget(b"ann")
    assert replays.begin(b"ann", b"2") is None


def test_answers_are_kept_for_a_while_and_no_longer() -> None:
    replays = Replays()

    def answered(name: bytes, now: float) -> None:
        replays.begin(name, b"1")
        replays.end(name, b"receipt", now)

    answered(b"first", 0.0)
    answered(b"second", KEPT_S + 1)
    assert replays.begin(b"first", b"1") == b"receipt"
    answered(b"third", 2 * KEPT_S + 2)
    assert replays.begin(b"first", b"1") is None
    assert replays.begin(b"second", b"1") == b"receipt"


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=300))
def test_memory_is_bounded(names: list[bytes]) -> None:
    replays = Replays(max_answers=10)
    for name in names:
        if replays.begin(name, b"1") is None:
            replays.end(name, b"receipt", 0.0)
        assert len(replays) <= 20


# --- Anonymous tokens

KEY = b"k" * 32


def anonymous(uid: str = "u", key: bytes = KEY) -> AnonymousTokens:
    return AnonymousTokens(uid, key, Electorate(session()))


@given(st.binary(min_size=16, max_size=16))
def test_a_token_of_ours_is_taken_by_every_process_of_the_session_and_by_no_other(random: bytes) -> None:
    text, expires = anonymous().mint(random, NOW, None)
    voter = anonymous().verifier.verify(text, NOW)
    assert voter == anonymous().verifier.verify(text, expires - 1)
    assert voter.subject == anonymous().verifier.verify(anonymous().mint(random, NOW + 5, None)[0], NOW).subject
    for other in (anonymous("v"), anonymous(key=b"o" * 32)):
        assert refusal(text, other.verifier).slug == "invalid-token"
    assert "signature" in refusal(token(), anonymous().verifier).detail  # signed with the session's token key


def test_different_randomness_is_a_different_voter() -> None:
    subjects = {
        anonymous().verifier.verify(anonymous().mint(bytes([number]) * 16, NOW, None)[0], NOW).subject
        for number in range(100)
    }
    assert len(subjects) == 100
    with pytest.raises(ValueError, match="16 random bytes"):
        anonymous().mint(b"short", NOW, None)


def test_it_lasts_until_the_session_closes_and_for_a_day_at_least() -> None:
    for closes_at, expected in ((None, SHORTEST_TTL_S), (NOW + 60, SHORTEST_TTL_S), (NOW + 10**6, 10**6)):
        text, expires = anonymous().mint(bytes(16), NOW, closes_at)
        assert expires == NOW + expected
        assert refusal(text, anonymous().verifier, expires + 10).slug == "invalid-token"
