"""From a request's parts to a record."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.ingest.test_verifier import SECRET, session, token

from psephos.domain.genesis import Genesis
from psephos.formats.receipts import Receipt, ReceiptVerifier, receipt_key
from psephos.formats.votes import WEIGHT_ONE, decode_vote, partition_of, record_digest, voter_key
from psephos.http.problems import TYPE_BASE
from psephos.platform.settings import environment, load_settings
from psephos.roles.ingest.batch import LineSplitter
from psephos.roles.ingest.intake import Intake, LineReader, Record, decode_object
from psephos.roles.ingest.problems import KINDS, Problem, busy
from psephos.roles.ingest.verifier import Electorate, Verifier, Voter
from psephos.roles.ingest.votelog import message_timeout_s, skew_ms

KEY = b"k" * 32
NOW_MS = 1_800_000_000_000
GENESIS = Genesis(
    session="u", name="final", partitions=7, topic_id="t", key_fingerprint="", rules_hash="", public_key="",
    receipt_key=receipt_key(KEY), lot_commitment="",
)  # fmt: skip
INTAKE = Intake(session(), GENESIS, KEY)
VERIFIER = ReceiptVerifier(receipt_key(KEY))


def receipt_of(record: Record, offset: int) -> Receipt:
    """What the voter's receipt has to say."""
    return Receipt(GENESIS.hash[:8], record.partition, offset, record_digest(record.key, record.value)[:16])


def reader(**tokens: Any) -> LineReader:
    parsed = session(**tokens)
    assert parsed.spec.voters.tokens is not None
    electorate = Electorate(parsed)
    verifier = Verifier(parsed.spec.voters.tokens, electorate, SECRET)
    return LineReader(Intake(parsed, GENESIS, KEY), verifier, electorate)


def refusal(call: Any, *arguments: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*arguments)
    return caught.value


@given(st.text(min_size=1, max_size=50), st.sampled_from(["ada", "bob"]), st.integers(0, NOW_MS))
def test_a_record_stands_in_its_voters_partition_and_its_receipt_names_it(
    subject: str, option: str, received_at: int
) -> None:
    record = INTAKE.record(Voter(subject, 5, 0), {"choices": [option]}, "key", received_at)
    assert record.key == voter_key(KEY, subject)
    assert record.partition == partition_of(record.key, GENESIS.partitions)
    vote = decode_vote(record.value)
    assert (vote.received_at, vote.weight, len(vote.nonce)) == (received_at, 5, 16)
    [receipt] = INTAKE.receipts(INTAKE.records([(record.key, record.value)]), [12])
    assert VERIFIER.decode(receipt) == receipt_of(record, 12)


def test_nonces_are_of_a_voter_and_a_key() -> None:
    def nonce(subject: str, key: str | None) -> bytes:
        return decode_vote(INTAKE.record(Voter(subject, 1, 0), {"choices": ["ada"]}, key, 1).value).nonce

    assert nonce("ann", None) == b""
    assert nonce("ann", "k") == nonce("ann", "k")
    assert len({nonce("ann", "k"), nonce("ann", "l"), nonce("ben", "k")}) == 3


@pytest.mark.parametrize("key", ["", '""', '"', "two words", "x" * 129, "tab\t", "é", 'a"b', "a\\b", 5, ["a"]])
def test_an_idempotency_key_has_a_form(key: object) -> None:
    assert refusal(INTAKE.check_key, key).slug == "malformed-request"


def test_quotes_around_a_key_are_no_part_of_it() -> None:
    assert INTAKE.check_key('"abc"') == INTAKE.check_key("abc") == "abc"
    assert INTAKE.check_key("~" * 128) == "~" * 128
    assert INTAKE.check_key(None) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_any_object_is_read_as_it_is(document: dict[str, Any]) -> None:
    assert decode_object(json.dumps(document).encode()) == document


@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=4), st.data())
def test_a_member_that_is_there_twice_is_refused_at_any_depth(
    document: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(document)))
    text = json.dumps(document)
    twice = f"{text[:-1]}, {json.dumps(name)}: 1}}"
    for written in (twice, f'{{"a": {twice}}}', f'{{"a": [{twice}]}}', f'{{"a": [":", {twice}]}}'):
        assert "more than once" in refusal(decode_object, written.encode()).detail


@given(st.binary(max_size=60))
def test_bytes_are_an_object_or_a_malformed_request(data: bytes) -> None:
    try:
        outcome = type(decode_object(data)).__name__
    except Problem as problem:
        outcome = problem.slug
    assert outcome in ("dict", "malformed-request")


def test_a_fraction_is_no_score_and_no_option_and_is_shown_as_written() -> None:
    problem = refusal(INTAKE.record, Voter("a", 1, 0), decode_object(b'{"choices": [1.50]}'), None, 1)
    assert (problem.slug, problem.members) == ("invalid-ballot", {"reason": "malformed"})
    rules = decode_object(b'{"scores": {"ada": 1.50}}')
    assert repr(rules["scores"]["ada"]) == "1.50"


def test_a_line_names_its_voter_by_token_or_subject() -> None:
    text = token(exp=NOW_MS // 1000 + 60)
    by_token = reader().record(json.dumps({"token": text, "choices": ["ada"]}).encode(), NOW_MS)
    by_subject = reader().record(b'{"subject": "ann", "choices": ["ada"]}', NOW_MS)
    assert by_token == by_subject
    assert decode_vote(by_subject.value).weight == WEIGHT_ONE


def test_a_gateway_vouches_for_weights_only_where_the_session_has_them() -> None:
    line = b'{"subject": "ann", "weight": 0.1, "choices": ["ada"]}'
    assert decode_vote(reader(weightClaim="w").record(line, NOW_MS).value).weight == 100_000
    assert refusal(reader().record, line, NOW_MS).members == {"reason": "wrong-member"}
    assert refusal(reader(weightClaim="w").record, b'{"subject": "a", "choices": []}', NOW_MS).slug == (
        "malformed-request"
    )


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=12), st.data())
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], data: st.DataObject) -> None:
    text = b"\n".join(lines)
    splitter, limit, got = LineSplitter(8), 8, []
    while text:
        size = data.draw(st.integers(1, len(text)))
        got += splitter.feed(text[:size])
        text = text[size:]
    got += splitter.end()
    expected = [
        (number, line if len(line) <= limit else None)
        for number, line in enumerate(lines, start=1)
        if line.strip() or len(line) > limit
    ]
    assert got == expected


def test_a_line_without_end_takes_no_memory() -> None:
    splitter = LineSplitter(10)
    for _ in range(1000):
        assert splitter.feed(b"x" * 100) == []
        assert len(splitter._rest) <= 10
    assert splitter.feed(b"\nnext\n") == [(1, None), (2, b"next")]


def test_every_problem_is_a_document_with_its_slug_at_the_end_of_its_type() -> None:
    for slug, kind in KINDS.items():
        document = json.loads(Problem(slug, "why", extra=1).encode())
        assert document == {
            "type": TYPE_BASE + slug, "title": kind.title, "status": kind.status, "detail": "why", "extra": 1,
        }  # fmt: skip
        assert 400 <= kind.status < 600
        assert kind.cause
        assert kind.remedy
    assert busy("overloaded", "why", 3).headers == {"Retry-After": "3"}


@pytest.mark.parametrize(("appended", "skew"), [(1_005, 0), (1_000, 0), (1_010, 0), (900, 100), (1_500, -490)])
def test_clocks_differ_by_what_the_way_of_a_vote_can_not_explain(appended: int, skew: int) -> None:
    assert skew_ms(sent_ms=1_000, appended_ms=appended, acked_ms=1_010) == skew


@given(st.floats(1, 600))
def test_a_vote_is_given_up_before_half_the_grace_is_over(grace_s: float) -> None:
    assert 0 < message_timeout_s(grace_s) < grace_s / 2


def test_a_child_reads_the_settings_of_its_parent() -> None:
    settings = load_settings(
        {
            "PSEPHOS_SESSION_FILE": "s.yaml", "PSEPHOS_SESSION_UID": "u", "PSEPHOS_KAFKA_BOOTSTRAP": "k:1",
            "PSEPHOS_INGEST_PROCESSES": "4",
        },
        ingest_queue=7,
    )  # fmt: skip
    child = load_settings(environment(settings, ingest_port=5, ingest_processes=1))
    assert child == settings.model_copy(update={"ingest_port": 5, "ingest_processes": 1})


def test_a_whole_number_may_be_written_with_a_point() -> None:
    found = decode_object(b'{"scores": {"a": 2.0, "b": 1e2, "c": -3.0, "d": 2.5, "e": 1e999999}}')["scores"]
    assert [type(found[name]) is int and found[name] for name in "abc"] == [2, 100, -3]
    assert not isinstance(found["d"], int)
    assert not isinstance(found["e"], int)


MEMBERS = {
    "subject": st.sampled_from(["ann", "", "a:b", "é", "x" * 2000, 5, None]),
    "token": st.sampled_from(["x.y.z", 5]),
    "choices": st.sampled_from([["ada"], ["bob"], [], ["ada", "bob"], ["eve"], [1], "ada", None]),
    "scores": st.just({"ada": 1}),
    "idempotencyKey": st.sampled_from(["one", '"one"', "two words", "", 7, None]),
    "weight": st.sampled_from([1, "1.25", 0, 0.5, None, "x"]),
    "segment": st.sampled_from(["no", "xx", 5, None]),
    "more": st.just(1),
}
USUAL = st.fixed_dictionaries({"subject": st.just("ann"), "choices": st.just(["ada"])})
LINES = st.builds(
    lambda usual, other: {**usual, **other}, USUAL | st.just({}), st.fixed_dictionaries({}, optional=MEMBERS)
)


@given(LINES, st.booleans(), st.booleans())
def test_a_plain_line_is_read_as_the_long_way_reads_it(
    members: dict[str, Any], weighted: bool, twice: bool
) -> None:
    text = json.dumps(members)
    if twice and members:
        text = f"{text[:-1]}, {json.dumps(next(iter(members)))}: 1}}"

    one = reader(**({"weightClaim": "w", "segmentClaim": "s"} if weighted else {}))

    def outcome(read: Any) -> object:
        try:
            return read()
        except Problem as problem:
            return problem.slug, problem.detail

    long = outcome(lambda: one._record_of_members(decode_object(text.encode()), NOW_MS))
    for _ in range(2):
        assert outcome(lambda: one.record(text.encode(), NOW_MS)) == long


TOKENS = [token(exp=NOW_MS // 1000 + 60), token(sub="ben", exp=NOW_MS // 1000 + 60), token(exp=1), "no.token", ""]
ANY_MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "subject": st.sampled_from(["ann", "ben:colon", "", "x" * 1025, 5, None, "\ud800"]) | st.text(max_size=3),
        "token": st.sampled_from([*TOKENS, 7]),
        "choices": st.sampled_from(
            [["ada"], ["bob"], [], ["eve"], ["ada", "bob"], ["ada"] * 20, [1], "ada", None]
        ),
        "scores": st.just({"ada": 1}),
        "idempotencyKey": st.sampled_from(["one", '"one"', "two words", "a:b", None, 3]),
        "weight": st.sampled_from([1, "0.5", 0, -1, None]),
        "segment": st.sampled_from(["no", "elsewhere", 1]),
    },
)
GOOD_MEMBERS = st.builds(
    lambda name, choice, more: {**name, "choices": [choice], **more},
    st.builds(lambda subject: {"subject": subject}, st.text(min_size=1, max_size=3))
    | st.just({"token": TOKENS[0]}),
    st.sampled_from(["ada", "bob"]),
    st.sampled_from(
        [{}, {}, {"idempotencyKey": "one"}, {"weight": 5}, {"segment": "no"}, {"weight": 0, "segment": ""}]
    ),
)


def written(members: dict[str, Any], compact: bool, twice: bool) -> bytes:
    text = json.dumps(members, separators=(",", ":") if compact else None)
    if twice and members:
        text = f"{text[:-1]},{json.dumps(members)[1:]}"
    return text.encode()


BATCHES = st.lists(
    st.builds(written, GOOD_MEMBERS | ANY_MEMBERS, st.booleans(), st.sampled_from([False, False, False, True]))
    | st.sampled_from(
        [b"{", b"[]", b'{"subject":"\xff","choices":["ada"]}', b'{"subject":"ann","choices":["ada"]}\r']
    ),
    max_size=8,
)
READERS = [reader(), reader(weightClaim="weight"), reader(segmentClaim="country")]


@settings(max_examples=200)
@given(BATCHES, st.sampled_from(READERS), st.integers(NOW_MS, NOW_MS + 10))
def test_lines_that_are_read_together_become_what_each_one_becomes(
    lines: list[bytes], one: LineReader, received_at: int
) -> None:
    def alone(line: bytes) -> object:
        try:
            _, key, value = one.record(line, received_at)
        except Problem as problem:
            return problem.document()
        return key, value

    def long_way(line: bytes) -> object:
        try:
            _, key, value = one._record_of_members(decode_object(line), received_at)
        except Problem as problem:
            return problem.slug
        return key, value

    together = one.read(lines, received_at)
    found = [outcome.document() if isinstance(outcome, Problem) else outcome for outcome in together]
    assert found == [alone(line) for line in lines]
    slugs = [outcome.slug if isinstance(outcome, Problem) else outcome for outcome in together]
    assert slugs == [long_way(line) for line in lines]


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=40), st.integers(0, NOW_MS))
def test_records_of_a_batch_have_the_receipts_that_each_one_has(subjects: list[str], received_at: int) -> None:
    singles = [
        INTAKE.record(Voter(subject, 1, 0), {"choices": ["ada"]}, None, received_at) for subject in subjects
    ]
    records = INTAKE.records([(record.key, record.value) for record in singles])
    assert list(zip(*records, strict=True)) == singles
    offsets = list(range(len(singles)))
    receipts = [VERIFIER.decode(text) for text in INTAKE.receipts(records, offsets)]
    assert receipts == list(map(receipt_of, singles, offsets))


@pytest.mark.parametrize(
    "body", [b'{"choices":["ada"]}', b'{"choices": ["bob"]}', b"{}", b"[]", b'{"choices":["eve"]}', b""]
)
def test_a_body_is_the_same_ballot_the_second_time(body: bytes) -> None:
    def outcome(read: Any) -> object:
        try:
            return read(body)
        except Problem as problem:
            return problem.slug, problem.detail

    def anew(data: bytes) -> bytes:
        return Intake(session(), GENESIS, KEY).ballot(data)

    assert outcome(anew) == outcome(INTAKE.ballot) == outcome(INTAKE.ballot)


def test_many_different_ballots_take_no_memory() -> None:
    intake = Intake(session(), GENESIS, KEY)
    for number in range(3_000):
        intake.ballot(b'{"choices":["ada"]' + b" " * (number % 600) + b"}")
        intake.ballot_of(("ada",))
    assert len(intake._ballots) <= 1024
    assert max(map(len, intake._ballots)) <= 512
