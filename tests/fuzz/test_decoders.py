"""No bytes from outside make a decoder do anything but accept or refuse them: a short run of each."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.targets import TARGETS, Target


@st.composite
def mutants(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good input with some places changed, cut out, doubled or filled with something else."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = begin + draw(st.sampled_from([0, 1, 2, 8, 100]))
        piece = draw(st.sampled_from([b"", data[begin:end] * 2, None]))
        data = data[:begin] + (draw(NOISE) if piece is None else piece) + data[end:]
    return data


NOISE = st.one_of(
    st.binary(max_size=8), st.text(max_size=8).map(str.encode), st.sampled_from([b"1e999", b"{" * 99])
)


def test_every_seed_is_accepted_without_a_finding() -> None:
    for target in TARGETS:
        for seed in target.seeds:
            target.run(seed)


def _signed_in_capitals() -> bytes:
    seed = next(target.seeds[0] for target in TARGETS if target.name == "result-document")
    head, mark, rest = seed.partition(b'"signature":"')
    return head + mark + rest.replace(b"a", b"A", 1)


FOUND = [  # by earlier runs, and mended since
    ("log-control", b'{"\x80":', "a broken control record ended the thread of ingest that follows the topic"),
    ("ledger-genesis", b'{"\x80":', "and every role that read it at its start"),
    ("redis-frame", b'{"\xff":1,', "a frame that is not UTF-8 was passed on, and closed every viewer's WebSocket"),
    ("result-document", b'{"totals": 1e' + b"9" * 60 + b"}", "a number beyond Decimal's bounds was no ValueError"),
    ("result-document", _signed_in_capitals(), "a second text of the same signature was verified"),
]


@pytest.mark.parametrize(("name", "data", "was"), FOUND)
def test_what_was_found_once_is_not_found_again(name: str, data: bytes, was: str) -> None:
    target = next(target for target in TARGETS if target.name == name)
    target.run(data)
    if name == "redis-frame":
        target.run(data + target.seeds[0][1:])


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
@settings(max_examples=100)
@given(data=st.data())
def test_any_bytes_are_accepted_or_refused(target: Target, data: st.DataObject) -> None:
    target.run(data.draw(st.one_of(st.binary(max_size=400), mutants(list(target.seeds)))))
