"""Ballot files, published figures, and the journal."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from psephos.domain.ballots import BallotRules
from psephos_lab.ballots import BallotKind, BallotsError, read_ballots
from psephos_lab.journal import Acknowledged, Journal, read_journal
from psephos_lab.published import Published, read_published
from psephos_lab.receipts import sample

RANKED = BallotRules("ranked", ("ada", "bob", "cyd"), 0, 3)
TEXT = "count,choices\n3,ada>bob\n1,\n\n2,cyd\n"
EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"


@pytest.mark.parametrize("name", ["ballots.csv", "ballots.csv.gz"])
def test_ballots_are_read_in_their_order_plain_or_packed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith(".gz") else TEXT.encode())
    assert read_ballots(path, RANKED) == [
        BallotKind(3, {"choices": ["ada", "bob"]}),
        BallotKind(1, {"choices": []}),
        BallotKind(2, {"choices": ["cyd"]}),
    ]


def test_a_file_as_spreadsheets_write_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ballots.csv"
    path.write_bytes(b'\xef\xbb\xbfcount,choices\r\n3,"ada>bob"\r\n')
    assert read_ballots(path, RANKED) == [BallotKind(3, {"choices": ["ada", "bob"]})]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"count,choices\n-1,ada\n", b"count,choices\n1,ada,bob\n"])
def test_other_files_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ballots.csv"
    path.write_bytes(content)
    with pytest.raises(BallotsError, match=r"ballots\.csv"):
        read_ballots(path, RANKED)


def _result(**tally: int) -> dict[str, Any]:
    return {"totals": tally, "outcome": {"rounds": [{"tally": tally}]}}


def test_published_figures_that_differ_are_told_one_by_one() -> None:
    published = Published([{"ada": 5, "bob": 4}], {})
    assert published.differences(_result(ada=5, bob=4, cyd=1)) == []
    assert published.differences(_result(ada=5, bob=3)) == ["round 1, bob: published 4, counted 3"]
    assert Published([], {"ada": 5}).differences(_result(ada=4)) == ["ada: published 5, counted 4"]
    assert Published([{}, {}], {}).differences(_result()) == ["published 2 rounds, counted 1"]


@pytest.mark.parametrize("folder", sorted(EXAMPLES.glob("*-20*")), ids=lambda path: path.name)
def test_what_was_published_is_found_beside_the_ballots(folder: Path) -> None:
    published = read_published(folder / "ballots.csv")
    assert published is not None
    assert published.rounds or published.totals


def test_the_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    votes = [
        Acknowledged("ada", "single", "r1", "ada-1", {"choices": ["a", "b"]}),
        Acknowledged("bob", "retry", "r2", "bob-1", {"scores": {"a": 3}}, uncertain=True),
    ]
    with Journal(tmp_path / "journal") as journal:
        for vote in votes:
            journal.append(vote)
        journal.sync()
        assert list(read_journal(journal.path)) == votes
    assert journal.written == 2


def test_a_sample_has_every_kind_and_is_as_large_as_it_can_be() -> None:
    votes = [Acknowledged(str(n), "single" if n % 50 == 0 else "batch", "", "", {}) for n in range(2_000)]
    chosen = sample(votes, seed=1, size=1_000)
    kinds = [vote.kind for vote in chosen]
    assert len({vote.subject for vote in chosen}) == 1_000
    assert kinds.count("single") == 40
    assert len(sample(votes[:300], seed=1, size=1_000)) == 300
