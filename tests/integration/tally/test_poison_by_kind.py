"""Every kind of record that no ingest would write, on a real topic: its class, and that nothing stops at it.

The order of judgement is that of docs/architecture.md, section 2. The recount, by code of its own, agrees.
"""

from collections.abc import Callable, Iterator

import msgspec
import pytest
from tests.harness import PARTITIONS, Record, Running

from psephos.formats.blocks import RecordClass
from psephos.formats.votes import MARKER_KEY, MAX_WEIGHT, encode_marker, encode_vote, partition_of, voter_key
from psephos.roles.recount.job import audit

Kind = tuple[str, Record, RecordClass]
PLACE = 1  # the partition that is poisoned
pack = msgspec.msgpack.encode
MALFORMED, INVALID = RecordClass.MALFORMED, RecordClass.INVALID_BALLOT
ADA, BOB = b"\x00\x00", b"\x00\x01"
NONCES = [bytes([number]) * 16 for number in range(1, 9)]
WEIGHTED = {
    "tokens": {"issuer": "i", "audience": "a", "weightClaim": "w", "segmentClaim": "s"},
    "segments": ["no", "se"],
    "votesPerVoter": 2,
}


def at_home(name: str, partition: int = PLACE) -> bytes:
    """The pseudonym of a voter in this partition."""
    keys = (voter_key(b"k" * 32, f"{name}-{number}") for number in range(1_000))
    return next(key for key in keys if partition_of(key, PARTITIONS) == partition)


def unreadable(voter: bytes, good: bytes, elsewhere: bytes) -> Iterator[Kind]:
    """Malformed in every session: `good` is a vote that would count."""
    for name, key in (
        ("no key", None),
        ("empty key", b""),
        ("key of 15 bytes", voter[:15]),
        ("key of 17 bytes", voter + b"\0"),
        ("huge key", voter * 6_000),
        ("text as key", "избиратель".encode()),
        ("another partition's voter", elsewhere),
        ("nearly the marker's key", b"Psephos.control"),
        ("marker's key with a zero", MARKER_KEY + b"\0"),
    ):
        yield name, (key, good), MALFORMED
    fields = msgspec.msgpack.decode(good)
    for name, value in (
        ("no value", None),
        ("empty value", b""),
        ("noise", b"\xc1"),
        ("cut off", good[:-1]),
        ("a byte more", good + b"\0"),
        ("twice", good * 2),
        ("huge", b"\x96\x01\xc6\x00\x0d\xbb\xa0" + b"\0" * 900_000),
        ("JSON", b'{"choices": ["ada"]}'),
        ("text", "Ада, пожалуйста".encode()),
        ("not UTF-8", pack([1, "x", "x"])[:-1] + b"\xff"),
        ("a map", pack({"version": 1, "ballot": ADA})),
        ("version 0", pack([0, *fields[1:]])),
        ("version of the future", pack([2, *fields[1:], "more"])),
        ("next version, same fields", pack([2, *fields[1:]])),
        ("a field too few", pack(fields[:-1])),
        ("a field too many", pack([*fields, 0])),
        ("ballot as text", pack([1, "ada", *fields[2:]])),
        ("ballot null", pack([1, None, *fields[2:]])),
        ("long form of a length", good.replace(b"\xc4\x02", b"\xc5\x00\x02", 1)),
        ("time before 1970", pack([*fields[:2], -1, *fields[3:]])),
        ("time as a float", pack([*fields[:2], 5.5, *fields[3:]])),
        ("time without end", pack([*fields[:2], 1 << 53, *fields[3:]])),
        ("weight 0", pack([*fields[:3], 0, *fields[4:]])),
        ("weight below 0", pack([*fields[:3], -1_000_000, *fields[4:]])),
        ("weight above all", pack([*fields[:3], MAX_WEIGHT + 1, *fields[4:]])),
        ("weight as a float", pack([*fields[:3], 1e6, *fields[4:]])),
        ("weight of 64 bits", pack([*fields[:3], (1 << 64) - 1, *fields[4:]])),
        ("segment below 0", pack([*fields[:4], -1, fields[5]])),
        ("segment nobody declared", pack([*fields[:4], 3, fields[5]])),
        ("nonce of 5 bytes", pack([*fields[:5], b"short"])),
        ("nonce null", pack([*fields[:5], None])),
        ("a close marker", encode_marker(1)),
    ):
        yield name, (voter, value), MALFORMED


def no_marker(good: bytes) -> Iterator[Kind]:
    """Under the marker's key."""
    for name, value in (
        ("marker: no value", None),
        ("marker: empty", b""),
        ("marker: noise", b"?"),
        ("marker: a vote", good),
        ("marker: of the future", pack([2, "close", 1])),
        ("marker: another word", pack([1, "open", 1])),
        ("marker: time as text", pack([1, "close", "now"])),
        ("marker: a byte more", encode_marker(1) + b"\0"),
        ("marker: not UTF-8", b"\x93\x01\xa5clos\xff\x01"),
    ):
        yield name, (MARKER_KEY, value), MALFORMED


def bad_ballots(voter: bytes, nonce: bytes) -> Iterator[Kind]:
    """Well-formed, but no ballot of a session with two options, one of them to be chosen."""
    for name, ballot in (
        ("blank", b""),
        ("unknown option", b"\x00\x02"),
        ("option 65535", b"\xff\xff"),
        ("two options", ADA + BOB),
        ("one twice", ADA + ADA),
        ("an odd byte", b"\x00"),
        ("three bytes", ADA + b"\x00"),
        ("a long one", ADA * 4_000),
    ):
        yield f"ballot: {name}", (voter, encode_vote(ballot, 1, nonce=nonce)), INVALID


def after_the_marker(voter: bytes, good: bytes) -> Iterator[Kind]:
    """The first marker closes; behind it all is late but what bears its key."""
    yield "the marker", (MARKER_KEY, encode_marker(1)), RecordClass.CONTROL
    yield "a second marker", (MARKER_KEY, encode_marker(2)), RecordClass.CONTROL
    yield "behind: no marker", (MARKER_KEY, b"?"), MALFORMED
    for name, record in (
        ("a vote", (voter, good)),
        ("nothing", (None, None)),
        ("noise", (voter, b"\xc1")),
        ("a bad ballot", (voter, encode_vote(b"\xff\xff", 1))),
    ):
        yield f"behind: {name}", record, RecordClass.LATE


def first_vote_counts() -> Iterator[Kind]:
    ada, bob, elsewhere = at_home("ada"), at_home("bob"), at_home("eve", 2)
    good = encode_vote(ADA, 5)
    yield from unreadable(ada, good, elsewhere)
    yield "weight 2 where all have 1", (ada, encode_vote(ADA, 5, weight=2_000_000)), MALFORMED
    yield "a segment where there is none", (ada, encode_vote(ADA, 5, segment=1)), MALFORMED
    yield from no_marker(good)
    yield from bad_ballots(ada, b"")
    yield "ada's vote, after all this", (ada, good), RecordClass.ACCEPTED
    yield "ada's second vote", (ada, encode_vote(BOB, 6, nonce=NONCES[0])), RecordClass.DUPLICATE
    yield "bob's vote, with a nonce", (bob, encode_vote(BOB, 5, nonce=NONCES[0])), RecordClass.ACCEPTED
    yield from after_the_marker(ada, good)


def two_votes_with_weights() -> Iterator[Kind]:
    ada, elsewhere = at_home("ada"), at_home("eve", 2)
    good = encode_vote(ADA, 5, nonce=NONCES[0])
    yield from unreadable(ada, good, elsewhere)
    yield "no nonce where one is needed", (ada, encode_vote(ADA, 5)), MALFORMED
    yield from no_marker(good)
    yield from bad_ballots(ada, NONCES[1])
    heavy = encode_vote(ADA, 5, weight=MAX_WEIGHT, segment=2, nonce=NONCES[2])
    yield "the greatest weight, of a voter from elsewhere", (ada, heavy), RecordClass.ACCEPTED
    yield "the same nonce again", (ada, encode_vote(BOB, 9, nonce=NONCES[2])), RecordClass.DUPLICATE
    yield (
        "the nonce of a refused ballot",
        (ada, encode_vote(BOB, 9, nonce=NONCES[1])),
        RecordClass.ACCEPTED,
    )
    yield "a third vote of two", (ada, encode_vote(BOB, 9, nonce=NONCES[3])), RecordClass.QUOTA
    yield "the nonce of the vote above the quota", (ada, encode_vote(BOB, 9, nonce=NONCES[3])), RecordClass.QUOTA
    yield from after_the_marker(ada, good)


@pytest.mark.parametrize(
    ("running", "kinds", "nonce"),
    [({}, first_vote_counts, 0), (WEIGHTED, two_votes_with_weights, 7)],
    indirect=["running"],
    ids=["first", "quota"],
)
def test_each_kind_of_record_has_its_class_and_none_stops_a_partition(
    running: Running, kinds: Callable[[], Iterator[Kind]], nonce: int
) -> None:
    running.open()
    worker = running.start_worker(0)
    poison = list(kinds())
    healthy = [running.vote(f"voter-{number}", 0, nonce) for number in range(60)]
    others = [record for record in healthy if partition_of(record[0] or b"", PARTITIONS) != PLACE]
    running.produce(others[: len(others) // 2])
    running.produce([record for _, record, _ in poison], PLACE)
    running.produce(others[len(others) // 2 :])
    running.wait_counted()
    found: dict[int, RecordClass] = {}
    for block in running.blocks(PLACE):
        found |= {vote.offset: RecordClass.ACCEPTED for vote in block.accepted}
        found |= {offset: RecordClass(code) for offset, code in block.others}
    wrong = [
        f"{name}: {found[offset].name}, not {wanted.name}"
        for offset, (name, _, wanted) in enumerate(poison)
        if found[offset] is not wanted
    ]
    print(f"{len(poison)} kinds of records: {[f'{name}: {wanted.name}' for name, _, wanted in poison]}")
    assert wrong == []
    assert running.classes()[RecordClass.ACCEPTED] == len(others) + sum(
        wanted is RecordClass.ACCEPTED for _, _, wanted in poison
    )
    assert worker.events("partition stopped") == []
    assert worker.reasons() == {}
    report = audit(running.settings)
    assert report.differences == ()
    running.check_chains()
