"""Each rule of a session has its test, with the message that people get to read."""

import copy
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.domain.session import (
    SOURCE_LIMIT,
    Capacity,
    Problem,
    Session,
    SessionError,
    parse_session,
    partitions_for,
)

TOKENS = {"issuer": "https://id.example", "audience": "final"}


def document(**spec: Any) -> dict[str, Any]:
    """A small sound session; the keywords replace members of its spec."""
    ballot = {"type": "single", "options": [{"id": "ada"}, {"id": "bob"}, {"id": "cy"}]}
    return {
        "apiVersion": "psephos.dev/v1alpha1",
        "kind": "VotingSession",
        "metadata": {"name": "final"},
        "spec": {"ballot": ballot, "voters": {"tokens": dict(TOKENS)}} | spec,
    }


def ballot(kind: str, **members: Any) -> dict[str, Any]:
    return document(ballot={"type": kind, "options": [{"id": i} for i in ("ada", "bob", "cy")]} | members)


def voters(**members: Any) -> dict[str, Any]:
    return document(voters={"tokens": dict(TOKENS)} | members)


def tokens(**members: Any) -> dict[str, Any]:
    return voters(tokens=TOKENS | members)


def problems(source: Any) -> list[tuple[str, str]]:
    with pytest.raises(SessionError) as caught:
        parse_session(source)
    return [(problem.field, problem.message) for problem in caught.value.problems]


WHOLE = """
apiVersion: psephos.dev/v1alpha1
kind: VotingSession
metadata: {name: grand-final, namespace: tv, uid: 3f6c, creationTimestamp: null, generation: 3,
           labels: {team: shows}, annotations: {note: hi}}
spec:
  title: Grand Final
  opensAt: 2026-11-23T20:00:00Z
  closesAt: 2026-11-23T21:15:00+01:00
  closeGrace: 1s
  ballot:
    type: ranked
    options: [{id: ada, label: Ada}, {id: bob, label: Bob}]
    min: 0
    max: 2
    method: irv
    elimination: batch
    stop: majority
    tieBreak: lot
  voters:
    eligibility: roll
    tokens:
      algorithms: [RS256, EdDSA]
      jwksUrl: https://id.example/keys
      issuer: https://id.example
      audience: grand-final
      weightClaim: weight
      segmentClaim: country
    segments: [no, se, DK]
    roll: {configMapRef: {name: roll}}
    revote: last
    votesPerVoter: 1
  results: {visibility: afterClose}
  capacity: {votesPerSecond: 250000, viewers: 1000000}
  recount: {schedule: "*/15 8-18/2 1,15 jan-mar mon", parallelism: 8}
  exports: {url: "s3://results/final"}
  deletionPolicy: Delete
status: {phase: Open, anything: [1]}
"""


def test_every_field_of_the_spec_is_read() -> None:
    session = parse_session(WHOLE)
    spec = session.spec
    assert (session.name, session.title, session.metadata.uid) == ("grand-final", "Grand Final", "3f6c")
    assert spec.opens_at == datetime(2026, 11, 23, 20, tzinfo=UTC)
    assert spec.closes_at == datetime(2026, 11, 23, 20, 15, tzinfo=UTC)
    assert spec.closes_at is not None
    assert spec.closes_at.tzinfo is UTC
    assert spec.close_grace == timedelta(seconds=1)
    assert (spec.ballot.elimination, spec.ballot.stop, spec.ballot.tie_break) == ("batch", "majority", "lot")
    assert (session.option_ids, dict(session.labels)) == (("ada", "bob"), {"ada": "Ada", "bob": "Bob"})
    assert session.segment_names == ("no", "se", "DK", "other")
    assert session.weighted
    assert session.needs_idempotency_key
    assert session.partitions == 63
    assert spec.voters.roll is not None
    assert spec.voters.roll.config_map_ref is not None
    assert spec.voters.roll.config_map_ref.key == "roll"
    assert (spec.results.visibility, spec.deletion_policy) == ("afterClose", "Delete")
    assert spec.exports is not None
    assert spec.exports.url == "s3://results/final"


def test_what_is_silent_gets_a_default() -> None:
    session = parse_session(document())
    spec = session.spec
    assert (session.title, dict(session.labels)["ada"]) == ("final", "ada")
    assert (spec.opens_at, spec.closes_at, spec.close_grace) == (None, None, timedelta(seconds=10))
    assert (spec.ballot.min, spec.ballot.max, spec.ballot.method) == (1, 1, "plurality")
    assert (spec.ballot.scale, spec.ballot.elimination, spec.ballot.stop) == (None, None, None)
    assert spec.ballot.tie_break == "declared"
    assert spec.voters.eligibility == "token"
    assert spec.voters.tokens is not None
    assert (spec.voters.tokens.algorithms, spec.voters.tokens.secret_ref) == (("HS256",), None)
    assert (spec.voters.revote, spec.voters.votes_per_voter) == ("first", 1)
    assert (session.segment_names, session.weighted, session.needs_idempotency_key) == ((), False, False)
    assert (spec.results.visibility, spec.deletion_policy, spec.exports) == ("live", "Retain", None)
    assert (spec.recount.schedule, spec.recount.parallelism) == ("*/15 * * * *", 4)


@pytest.mark.parametrize(
    ("kind", "members", "method", "most", "elimination", "stop"),
    [
        ("single", {}, "plurality", 1, None, None),
        ("approval", {}, "approval", 3, None, None),
        ("ranked", {}, "irv", 3, "single", "two"),
        ("ranked", {"method": "borda"}, "borda", 3, None, None),
        ("ranked", {"method": "plurality", "max": 2}, "plurality", 2, None, None),
        ("score", {"scale": {"min": 0, "max": 5}}, "sum", 3, None, None),
        ("score", {"scale": {"min": -2, "max": 5}, "method": "mean"}, "mean", 3, None, None),
    ],
)
def test_the_ballot_type_decides_the_other_defaults(
    kind: str, members: dict[str, Any], method: str, most: int, elimination: str | None, stop: str | None
) -> None:
    found = parse_session(ballot(kind, **members)).spec.ballot
    assert (found.method, found.max, found.elimination, found.stop) == (method, most, elimination, stop)


@pytest.mark.parametrize("source", [WHOLE, document(), ballot("score", scale={"min": 0, "max": 3})])
def test_a_session_written_out_reads_as_the_same_session(source: Any) -> None:
    session = parse_session(source)
    assert parse_session(session.model_dump(mode="json", by_alias=True, exclude_none=True)) == session


def test_text_bytes_and_objects_read_alike() -> None:
    assert parse_session(WHOLE.encode()) == parse_session(b"\xef\xbb\xbf" + WHOLE.encode()) == parse_session(WHOLE)


def test_a_session_can_not_be_changed() -> None:
    session = parse_session(document())
    with pytest.raises(ValueError, match="frozen"):
        session.spec.ballot.max = 3  # type: ignore[misc]


def test_a_null_is_as_good_as_absent() -> None:
    assert parse_session(document(closesAt=None, capacity=None)) == parse_session(document())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500ms", 0.5), ("10s", 10), ("2m", 120), ("1h", 3600)],
)
def test_durations_have_four_units(text: str, expected: float) -> None:
    source = document(closeGrace=text)
    if not 1 <= expected <= 600:
        assert problems(source)[0][0] == "spec.closeGrace"
    else:
        assert parse_session(source).spec.close_grace == timedelta(seconds=expected)


# --- Reading the text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b", "broken YAML at line 1, column 6: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "found the key 'c' a second time at line 4, column 3; keep one"),
        ("a: 1\n---\nb: 1\n", "broken YAML at line 2, column 1: but found another document"),
        ("- a", "found a list; allowed: a mapping with apiVersion, kind, ..."),
        ("", "found an empty document; allowed: a mapping with apiVersion, kind, ..."),
        ("12", "found a single value; allowed: a mapping with apiVersion, kind, ..."),
        ("1: a", "found a key at line 1, column 1 that is no text; put it in quotes"),
        ("? [a]\n: b", "found a key at line 1, column 3 that is no text; put it in quotes"),
        ("a: &x [1]\nb: *x", "found an alias of the value at line 1, column 4; write the value out"),
        (
            "a: !!python/name:os.system x",
            "found the tag tag:yaml.org,2002:python/name:os.system at line 1, column 4; allowed: plain values",
        ),
        ("a: !!int many", "broken YAML: invalid literal for int() with base 10: 'many'"),
        (b"a: \xff", "byte 3 is not UTF-8"),
        ("[" * 5000, "nested too deeply; a session has a few levels only"),
        (b"#" * (SOURCE_LIMIT + 1), "found 4194305 bytes; allowed: at most 4194304"),
    ],
)
def test_text_that_can_not_be_read_is_told_with_its_place(text: str | bytes, message: str) -> None:
    assert problems(text) == [("", message)]


def test_an_object_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert problems(document(ballot=deep)) == [("", "nested too deeply; a session has a few levels only")]


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_makes_the_parser_crash(source: str | bytes) -> None:
    with pytest.raises(SessionError):
        parse_session(source)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
PATHS = [
    ("apiVersion",),
    ("metadata",),
    ("metadata", "labels"),
    ("spec",),
    ("spec", "closesAt"),
    ("spec", "closeGrace"),
    ("spec", "ballot"),
    ("spec", "ballot", "options"),
    ("spec", "ballot", "scale"),
    ("spec", "ballot", "max"),
    ("spec", "voters", "tokens"),
    ("spec", "voters", "tokens", "algorithms"),
    ("spec", "voters", "segments"),
    ("spec", "capacity"),
    ("spec", "recount"),
    ("spec", "recount", "schedule"),
]


@given(st.sampled_from(PATHS), JSON)
def test_whatever_a_field_holds_the_answer_is_a_session_or_a_session_error(
    path: tuple[str, ...], value: Any
) -> None:
    source = copy.deepcopy(document(recount={}))
    place = source
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    try:
        found: Session | SessionError = parse_session(source)
    except SessionError as error:
        found = error
    if isinstance(found, SessionError):
        assert found.problems
        assert all(len(problem.message) < 1000 for problem in found.problems)


def test_plain_words_of_old_yaml_stay_texts() -> None:
    text = textwrap.dedent("""
        apiVersion: psephos.dev/v1alpha1
        kind: VotingSession
        metadata: {name: on}
        spec:
          ballot: {type: single, options: [{id: yes, label: 2026-11-23}, {id: no}, {id: 010}]}
          voters: {segments: [no, 1:30], eligibility: open}
        """)
    assert problems(text) == [
        (
            "spec.voters.segments[1]",
            "found '1:30'; allowed: 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', with a letter or digit at both ends",
        )
    ]
    session = parse_session(text.replace("1:30", "on"))
    assert session.option_ids == ("yes", "no", "010")
    assert session.segment_names == ("no", "on", "other")


# --- Fields by themselves

ID_RULE = "1 to 64 of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends"
TIME_RULE = "allowed: a time with its zone, such as 2026-11-23T20:00:00Z"
OPTIONS = [{"id": "ada"}, {"id": "bob"}]


@pytest.mark.parametrize(
    ("source", "field", "message"),
    [
        (document() | {"kind": "Vote"}, "kind", "found 'Vote'; allowed: VotingSession"),
        (document() | {"apiVersion": "v1"}, "apiVersion", "found 'v1'; allowed: psephos.dev/v1alpha1"),
        (
            document() | {"sepc": {}},
            "sepc",
            "unknown field; did you mean spec? allowed: apiVersion, kind, metadata, spec",
        ),
        (document() | {"metadata": {}}, "metadata.name", "is required"),
        (
            document() | {"metadata": {"name": "Final!"}},
            "metadata.name",
            "found 'Final!'; allowed: 1 to 50 of a-z, 0-9, '-', with a letter or digit at both ends",
        ),
        (document() | {"spec": 3}, "spec", "found 3; allowed: a mapping"),
        (document(title=""), "spec.title", "found 0 characters; allowed: at least 1"),
        (document(title=7), "spec.title", "found 7; allowed: a text (put it in quotes if it looks like a number)"),
        (document(opensAt="tomorrow"), "spec.opensAt", f"found 'tomorrow'; {TIME_RULE}"),
        (document(opensAt="2026-11-23T20:00:00"), "spec.opensAt", f"found '2026-11-23T20:00:00'; {TIME_RULE}"),
        (
            document(closesAt="2026-13-23T20:00:00Z"),
            "spec.closesAt",
            "found '2026-13-23T20:00:00Z': month must be in 1..12",
        ),
        (
            document(closeGrace="10 seconds"),
            "spec.closeGrace",
            "found '10 seconds'; allowed: a duration such as 500ms, 10s, 2m or 1h",
        ),
        (document(closeGrace=10), "spec.closeGrace", "found 10; allowed: a duration such as 500ms, 10s, 2m or 1h"),
        (
            document(deletionPolicy="Keep"),
            "spec.deletionPolicy",
            "found 'Keep'; allowed: Retain, Delete",
        ),
        (
            document(closedAt="2026-11-23T20:00:00Z"),
            "spec.closedAt",
            "unknown field; did you mean closesAt? allowed: title, opensAt, closesAt, closeGrace, ballot, voters, "
            "results, capacity, recount, exports, deletionPolicy",
        ),
        (ballot("plural"), "spec.ballot.type", "found 'plural'; allowed: single, approval, ranked, score"),
        (ballot("single", options=[]), "spec.ballot.options", "found 0 entries; allowed: at least 1"),
        (
            ballot("single", options=[{"id": f"o{i}"} for i in range(1001)]),
            "spec.ballot.options",
            "found 1001 entries; allowed: at most 1000",
        ),
        (ballot("single", options={"id": "a"}), "spec.ballot.options", "found a mapping; allowed: a list"),
        (
            ballot("single", options=[*OPTIONS, {"id": "Cy Young"}]),
            "spec.ballot.options[2].id",
            f"found 'Cy Young'; allowed: {ID_RULE}",
        ),
        (
            ballot("single", options=[*OPTIONS, {"id": "a" * 65}]),
            "spec.ballot.options[2].id",
            f"found '{'a' * 65}'; allowed: {ID_RULE}",
        ),
        (
            ballot("single", options=[*OPTIONS, {"id": 2024}]),
            "spec.ballot.options[2].id",
            "found 2024; allowed: a text (put it in quotes if it looks like a number)",
        ),
        (
            ballot("single", options=[{"id": "a", "lable": "A"}]),
            "spec.ballot.options[0].lable",
            "unknown field; did you mean label? allowed: id, label",
        ),
        (ballot("single", min=-1), "spec.ballot.min", "found -1; allowed: at least 0"),
        (ballot("single", max=0), "spec.ballot.max", "found 0; allowed: at least 1"),
        (ballot("single", max="1"), "spec.ballot.max", "found '1'; allowed: a whole number"),
        (ballot("single", max=True), "spec.ballot.max", "found true; allowed: a whole number"),
        (ballot("single", max=1.0), "spec.ballot.max", "found 1.0; allowed: a whole number"),
        (
            ballot("score", scale={"min": 0, "max": 32768}),
            "spec.ballot.scale.max",
            "found 32768; allowed: at most 32767",
        ),
        (
            ballot("score", scale={"min": -32769, "max": 0}),
            "spec.ballot.scale.min",
            "found -32769; allowed: at least -32768",
        ),
        (voters(eligibility="all"), "spec.voters.eligibility", "found 'all'; allowed: token, roll, open"),
        (voters(votesPerVoter=0), "spec.voters.votesPerVoter", "found 0; allowed: at least 1"),
        (voters(revote="never"), "spec.voters.revote", "found 'never'; allowed: first, last"),
        (
            voters(segments=["n o"]),
            "spec.voters.segments[0]",
            "found 'n o'; allowed: 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', with a letter or digit at both ends",
        ),
        (voters(tokens={"issuer": "a"}), "spec.voters.tokens.audience", "is required"),
        (
            tokens(algorithms=["none"]),
            "spec.voters.tokens.algorithms[0]",
            "found 'none'; allowed: HS256, RS256, ES256, EdDSA",
        ),
        (tokens(algorithms=[]), "spec.voters.tokens.algorithms", "found 0 entries; allowed: at least 1"),
        (
            tokens(secret_ref={"name": "a", "key": "b"}),
            "spec.voters.tokens.secret_ref",
            "unknown field; did you mean secretRef? allowed: algorithms, secretRef, jwksUrl, issuer, audience, "
            "weightClaim, segmentClaim",
        ),
        (
            document(results={"visibility": "never"}),
            "spec.results.visibility",
            "found 'never'; allowed: live, afterClose",
        ),
        (document(capacity={"viewers": 0}), "spec.capacity.viewers", "found 0; allowed: at least 1"),
        (document(capacity={"partitions": 65}), "spec.capacity.partitions", "found 65; allowed: at most 64"),
        (document(recount={"parallelism": 0}), "spec.recount.parallelism", "found 0; allowed: at least 1"),
    ],
)
def test_a_field_that_is_wrong_by_itself(source: dict[str, Any], field: str, message: str) -> None:
    assert problems(source) == [(field, message)]


# --- Fields together

FILE_RULE = "allowed: s3://bucket/key or a file:// URL"
FOLDER_RULE = "allowed: s3://bucket/folder or a file:// URL"


@pytest.mark.parametrize(
    ("source", "field", "message"),
    [
        (
            document(opensAt="2026-11-23T20:00:00Z", closesAt="2026-11-23T20:00:00Z"),
            "spec.closesAt",
            "found 2026-11-23T20:00:00+00:00; allowed: after opensAt, which is 2026-11-23T20:00:00+00:00",
        ),
        (document(closeGrace="999ms"), "spec.closeGrace", "found 999ms; allowed: 1s to 10m"),
        (document(closeGrace="11m"), "spec.closeGrace", "found 660s; allowed: 1s to 10m"),
        (
            ballot("single", options=[*OPTIONS, {"id": "ada"}]),
            "spec.ballot.options[2].id",
            "found 'ada' a second time; allowed: ids that are unique",
        ),
        (ballot("approval", max=4), "spec.ballot.max", "found 4; allowed: at most 3, one an option"),
        (ballot("single", max=2), "spec.ballot.max", "found 2; allowed: 1 for type single"),
        (ballot("approval", min=3, max=2), "spec.ballot.min", "found 3; allowed: at most max, which is 2"),
        (ballot("score"), "spec.ballot.scale", "is required for type score, such as {min: 0, max: 5}"),
        (
            ballot("ranked", scale={"min": 0, "max": 5}),
            "spec.ballot.scale",
            "allowed for type score only; the type is ranked",
        ),
        (
            ballot("score", scale={"min": 5, "max": 5}),
            "spec.ballot.scale.max",
            "found 5; allowed: above min, which is 5",
        ),
        (
            ballot("ranked", method="sum"),
            "spec.ballot.method",
            "found 'sum'; allowed: irv, borda, plurality for type ranked",
        ),
        (
            ballot("single", method="approval"),
            "spec.ballot.method",
            "found 'approval'; allowed: plurality for type single",
        ),
        (
            ballot("ranked", method="borda", elimination="batch"),
            "spec.ballot.elimination",
            "allowed for method irv only; the method is borda",
        ),
        (ballot("single", stop="two"), "spec.ballot.stop", "allowed for method irv only; the method is plurality"),
        (document(voters={}), "spec.voters.tokens", "is required for eligibility token"),
        (
            voters(eligibility="open"),
            "spec.voters.tokens",
            "allowed for eligibility token and roll only; found open",
        ),
        (voters(eligibility="roll"), "spec.voters.roll", "is required for eligibility roll"),
        (
            voters(roll={"url": "s3://a/b"}),
            "spec.voters.roll",
            "allowed for eligibility roll only; found token",
        ),
        (
            voters(eligibility="roll", roll={}),
            "spec.voters.roll",
            "allowed: exactly one of configMapRef and url",
        ),
        (
            voters(eligibility="roll", roll={"url": "s3://a/b", "configMapRef": {"name": "a"}}),
            "spec.voters.roll",
            "allowed: exactly one of configMapRef and url",
        ),
        (
            voters(eligibility="roll", roll={"url": "https://a/b"}),
            "spec.voters.roll.url",
            f"found 'https://a/b'; {FILE_RULE}",
        ),
        (
            tokens(algorithms=["RS256", "RS256"]),
            "spec.voters.tokens.algorithms[1]",
            "found 'RS256' a second time; keep one",
        ),
        (
            tokens(algorithms=["HS256", "RS256"]),
            "spec.voters.tokens.algorithms",
            "allowed: HS256 alone, or the others without it",
        ),
        (
            tokens(algorithms=["RS256"], secretRef={"name": "a", "key": "b"}, jwksUrl="https://id.example/k"),
            "spec.voters.tokens.jwksUrl",
            "allowed: secretRef or jwksUrl, not both",
        ),
        (
            tokens(jwksUrl="https://id.example/k"),
            "spec.voters.tokens.jwksUrl",
            "allowed for RS256, ES256 and EdDSA only; HS256 needs secretRef",
        ),
        (
            tokens(algorithms=["ES256"], jwksUrl="http://id.example/k"),
            "spec.voters.tokens.jwksUrl",
            "found 'http://id.example/k'; allowed: an https:// URL",
        ),
        (
            voters(revote="last", votesPerVoter=2),
            "spec.voters.votesPerVoter",
            "found 2; allowed: 1 with revote last",
        ),
        (
            voters(segments=["no", "se", "no"]),
            "spec.voters.segments[2]",
            "found 'no' a second time; allowed: names that are unique",
        ),
        (
            voters(segments=["other"]),
            "spec.voters.segments[0]",
            "found 'other', which is reserved for all values that are not declared",
        ),
        (
            voters(segments=[f"s{i}" for i in range(1365)]),
            "spec.voters.segments",
            "found 1365 segments; allowed: at most 1364 with 3 options (options x (segments + 1) <= 4096)",
        ),
        (
            document(recount={"schedule": "@hourly"}),
            "spec.recount.schedule",
            "found '@hourly'; allowed: five cron fields, such as '*/15 * * * *'",
        ),
        (
            document(recount={"schedule": "60 * * * *"}),
            "spec.recount.schedule",
            "found '60' as minute; allowed: 0 to 59, ranges a-b, steps */n, lists a,b",
        ),
        (
            document(recount={"schedule": "* * * foo *"}),
            "spec.recount.schedule",
            "found 'foo' as month; allowed: 1 to 12, ranges a-b, steps */n, lists a,b",
        ),
        (
            document(recount={"schedule": "*/0 * * * *"}),
            "spec.recount.schedule",
            "found '*/0' as minute; allowed: 0 to 59, ranges a-b, steps */n, lists a,b",
        ),
        (
            document(recount={"schedule": "* 5-3 * * *"}),
            "spec.recount.schedule",
            "found '5-3' as hour; allowed: 0 to 23, ranges a-b, steps */n, lists a,b",
        ),
        (document(exports={"url": "/tmp/x"}), "spec.exports.url", f"found '/tmp/x'; {FOLDER_RULE}"),
        (document(exports={"url": "s3:///x"}), "spec.exports.url", f"found 's3:///x'; {FOLDER_RULE}"),
        (
            voters(eligibility="roll", roll={"url": "s3://bucket"}),
            "spec.voters.roll.url",
            f"found 's3://bucket'; {FILE_RULE}",
        ),
    ],
)
def test_fields_that_do_not_go_together(source: dict[str, Any], field: str, message: str) -> None:
    assert problems(source) == [(field, message)]


def test_the_limit_of_counters_itself_is_allowed() -> None:
    assert len(parse_session(voters(segments=[f"s{i}" for i in range(1364)])).segment_names) == 1365


def test_public_keys_may_be_read_over_http_on_this_machine_only() -> None:
    url = "http://127.0.0.1:8080/keys"
    found = parse_session(tokens(algorithms=["RS256"], jwksUrl=url)).spec.voters.tokens
    assert found is not None
    assert found.jwks_url == url


def test_all_problems_of_a_stage_are_told_at_once_one_a_line() -> None:
    source = ballot("approval", max=9, min=-1)
    source["spec"]["voters"]["revote"] = "x"
    with pytest.raises(SessionError) as caught:
        parse_session(source)
    assert caught.value.problems[0] == Problem("spec.ballot.min", "found -1; allowed: at least 0")
    assert str(caught.value).splitlines() == [
        "spec.ballot.min: found -1; allowed: at least 0",
        "spec.voters.revote: found 'x'; allowed: first, last",
    ]


@pytest.mark.parametrize(
    ("votes", "partitions", "expected"),
    [(None, None, 4), (16_000, None, 4), (16_001, None, 5), (250_000, None, 63), (10**9, None, 64), (10**9, 1, 1)],
)
def test_partitions_follow_from_the_capacity(votes: int | None, partitions: int | None, expected: int) -> None:
    source = document(capacity={"votesPerSecond": votes, "partitions": partitions})
    capacity = parse_session(source).spec.capacity
    assert isinstance(capacity, Capacity)
    assert partitions_for(capacity) == expected


def test_a_segment_claim_alone_makes_the_segment_other() -> None:
    assert parse_session(tokens(segmentClaim="country")).segment_names == ("other",)


@pytest.mark.parametrize(
    ("members", "needed"), [({}, False), ({"revote": "last"}, True), ({"votesPerVoter": 2}, True)]
)
def test_several_records_of_a_voter_need_an_idempotency_key(members: dict[str, Any], needed: bool) -> None:
    assert parse_session(voters(**members)).needs_idempotency_key is needed
