"""The recount of real logs and ledgers: what it seals, and that it finds each tampering where it is."""

import asyncio
import csv
import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from tests.prepared import PARTITIONS, Prepared
from tests.reference import counted_twice, with_other_choice
from tests.waiting import wait_until

from psephos.adapters.kafka import read_control
from psephos.adapters.redis import Projection
from psephos.control import make_keys
from psephos.domain.genesis import GenesisMismatch, lot_commitment
from psephos.domain.results import decode_document, encode_document, verify_result
from psephos.formats.blocks import RecordClass, block_hash, decode_block, encode_block
from psephos.formats.control import Phase
from psephos.formats.frames import Frame, decode_frame
from psephos.formats.votes import encode_vote
from psephos.platform.settings import load_settings
from psephos.roles.recount.errors import RecountError
from psephos.roles.recount.main import run
from psephos.roles.recount.report import DIFFERS, RecountReport
from psephos.roles.recount.sealing import mix_lot
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends

Unique = Callable[[str], str]
Expected = tuple[str, int, int]  # kind, partition, offset
ADA, BOB = b"\x00\x00", b"\x00\x01"


def cast(prepared: Prepared) -> None:
    """120 votes: 80 for ada, 39 for bob, one blank; 12 duplicates; some poison."""
    votes = [prepared.vote(f"voter-{number}", ADA if number < 80 else BOB) for number in range(119)]
    duplicates = [prepared.vote(f"voter-{number}", BOB) for number in range(12)]
    unknown_option = prepared.vote("voter-200", b"\x00\x07")
    heavy = prepared.vote("voter-201")[0], encode_vote(ADA, 1, weight=5_000_000)
    prepared.produce([*votes, prepared.vote("voter-119", b""), *duplicates, unknown_option, heavy])
    prepared.produce([(None, None), (b"key", b"value"), prepared.vote("voter-0")], partition=1)


@pytest.fixture(scope="module")
def final(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, RecountReport]:
    """A session that was recounted and is Final; nobody may change it."""
    prepared = Prepared(backends, f"final-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("final"))
    cast(prepared)
    prepared.finish()
    report = run(prepared.settings)
    prepared.conclude(Phase.FINAL)
    return prepared, report


@pytest.fixture
def finished(backends: Backends, unique: Unique, tmp_path: Path) -> Prepared:
    """A closed and counted session in phase Recounting."""
    prepared = Prepared(backends, unique("r")[:60], tmp_path)
    cast(prepared)
    prepared.finish()
    return prepared


def frame_of(prepared: Prepared) -> Frame | None:
    async def read() -> bytes | None:
        redis = Redis.from_url(prepared.settings.redis_url)
        try:
            return await Projection(redis, prepared.settings.session_uid).read()
        finally:
            await redis.aclose()

    body = asyncio.run(read())
    return None if body is None else decode_frame(body)


# --- Log and ledger agree


def test_a_clean_session_becomes_final_with_the_totals_of_the_log(final: tuple[Prepared, RecountReport]) -> None:
    finished, report = final
    assert (report.state, report.exit_code, report.differences) == ("Final", 0, ())
    assert report.totals == {"ada": 80, "bob": 39, "cyd": 0}
    assert report.turnout is not None
    assert {name: report.turnout[name] for name in ("received", "accepted", "duplicate", "voters")} == {
        "received": 137,
        "accepted": 120,
        "duplicate": 12 + (finished.home(finished.vote("voter-0")) == 1),
        "voters": 120,
    }
    assert report.turnout["rejected"]["invalid-ballot"] == 1
    assert report.log_records == 137
    assert report.outcome is not None
    assert report.outcome["winners"] == ["ada"]
    assert report.outcome["rounds"][0]["exhausted"] == 1


def test_the_result_is_signed_written_once_exported_and_published(final: tuple[Prepared, RecountReport]) -> None:
    finished, _ = final
    ends = finished.ends()
    stored = finished.ledger.get("final")
    assert stored is not None
    document = decode_document(stored)
    assert verify_result(document, finished.genesis.public_key)
    heads = [finished.ledger.head(partition) for partition in range(PARTITIONS)]
    assert document["chainHeads"] == [block_hash(head.payload).hex() for head in heads if head is not None]
    assert document["sealedEnds"] == list(ends)
    folder = finished.settings.exports_dir / "test"
    assert (folder / "result.json").read_bytes() == stored
    rows = list(csv.DictReader((folder / "result.csv").open()))
    assert [(row["option"], row["total"], row["winner"]) for row in rows] == [
        ("ada", "80", "yes"),
        ("bob", "39", "no"),
        ("cyd", "0", "no"),
    ]
    frame = frame_of(finished)
    assert frame is not None
    assert (frame.final, frame.phase, frame.totals) == (True, "Final", document["totals"])
    known = read_control(finished.settings)
    assert known is not None
    assert frame.version == document["version"] == sum(ends) + known.number
    assert frame.epoch == finished.genesis.epoch


def test_a_second_run_adopts_the_first_result(final: tuple[Prepared, RecountReport]) -> None:
    finished, first = final
    stored = finished.ledger.get("final")
    again = run(finished.settings)
    assert (again.state, again.exit_code, again.document) == ("Final", 0, first.document)
    assert finished.ledger.get("final") == stored


def test_an_audit_of_a_final_session_agrees_with_its_result(final: tuple[Prepared, RecountReport]) -> None:
    finished, first = final
    report = run(finished.settings, audit=True)
    assert (report.state, report.exit_code, report.differences) == ("Final", 0, ())
    assert (report.totals, report.outcome, report.document) == (first.totals, first.outcome, first.document)


def test_indexes_of_a_job_and_then_the_sealing_step_find_the_same(finished: Prepared) -> None:
    first = run(finished.settings, index=0, parallelism=2)
    assert (first.state, first.exit_code, first.totals) == ("Recounting", 0, None)
    with pytest.raises(RecountError, match="for partitions 1: run them first"):
        run(finished.settings, seal=True)
    run(finished.settings, index=1, parallelism=2)
    sealed = run(finished.settings, seal=True)
    assert (sealed.state, sealed.totals, sealed.log_records) == ("Final", {"ada": 80, "bob": 39, "cyd": 0}, 137)


def test_processes_side_by_side_find_what_one_finds(finished: Prepared) -> None:
    report = run(finished.settings, parallelism=2)
    assert (report.state, report.totals) == ("Final", {"ada": 80, "bob": 39, "cyd": 0})


def test_redis_being_away_takes_nothing_from_the_result(finished: Prepared) -> None:
    away = load_settings(finished.environ, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert run(away).state == "Final"
    assert finished.ledger.get("final") is not None


def test_a_tie_is_settled_by_the_committed_seed_and_the_chain_heads(
    backends: Backends, unique: Unique, tmp_path: Path
) -> None:
    options = [{"id": name} for name in ("ada", "bob", "cyd")]
    tied = Prepared(
        backends, unique("r")[:60], tmp_path, ballot={"type": "single", "tieBreak": "lot", "options": options}
    )
    tied.produce([tied.vote("one", ADA), tied.vote("two", BOB)])
    tied.finish()
    document = run(tied.settings).document
    assert document is not None
    seed = bytes.fromhex(document["lotSeed"])
    assert lot_commitment(seed) == tied.genesis.lot_commitment
    drawn = mix_lot(seed, document["chainHeads"])
    preferred = min(("ada", "bob"), key=lambda name: hashlib.sha256(drawn + name.encode()).digest())
    assert document["outcome"]["winners"] == [preferred]
    assert document["outcome"]["tieBreaks"][0]["rule"] == "lot"
    tied.conclude(Phase.FINAL)
    assert run(tied.settings, audit=True).differences == ()


def test_last_ballots_with_nonces_count_in_the_recount(backends: Backends, unique: Unique, tmp_path: Path) -> None:
    tokens = {"issuer": "i", "audience": "a"}
    prepared = Prepared(backends, unique("r")[:60], tmp_path, voters={"tokens": tokens, "revote": "last"})
    prepared.produce([prepared.vote(f"v-{n}", ADA, "first") for n in range(30)])
    prepared.produce([prepared.vote(f"v-{n}", BOB, "second") for n in range(10)])
    prepared.finish()
    report = run(prepared.settings)
    assert (report.state, report.totals) == ("Final", {"ada": 20, "bob": 10, "cyd": 0})
    assert report.turnout is not None
    assert (report.turnout["accepted"], report.turnout["superseded"], report.turnout["voters"]) == (40, 10, 30)


# --- Tampering, each alone


def change_a_choice(prepared: Prepared) -> Expected:
    """A choice in a block, and the whole chain rehashed with totals that fit."""
    blocks = prepared.chain(0)
    offset = blocks[1].accepted[3].offset
    for block in with_other_choice(prepared.session, prepared.genesis.hash, blocks, offset):
        prepared.overwrite("0", block.base, encode_block(block))
    return "accepted-differs", 0, offset


def delete_a_block(prepared: Prepared) -> Expected:
    base = prepared.chain(1)[1].base
    prepared.delete("1", base)
    return "missing-block", 1, base


def insert_a_block(prepared: Prepared) -> Expected:
    blocks = prepared.chain(0)
    base = blocks[1].base + 7
    extra = blocks[1]._replace(base=base, end=base + 2, accepted=[], others=[(base, 2), (base + 1, 2)])
    prepared.overwrite("0", base, encode_block(extra))
    return "overlap", 0, base


def append_to_the_log(prepared: Prepared) -> Expected:
    """A record behind the ledger's back, by someone who can take the seal away."""
    end = prepared.ends()[1]
    prepared.admin.unseal_votes()
    wait_until(lambda: prepared.takes(prepared.vote("voter-300"), 1), "the seal is gone")
    assert prepared.ends()[1] > end
    return "log-beyond-seal", 1, end


def count_a_voter_twice(prepared: Prepared) -> Expected:
    """A duplicate becomes accepted, and the whole chain is consistent in itself."""
    partition = next(p for p in range(PARTITIONS) if duplicates(prepared, p))
    offset = duplicates(prepared, partition)[0]
    record = prepared.records(partition)[offset]
    blocks = prepared.chain(partition)
    for block in counted_twice(prepared.session, prepared.genesis.hash, blocks, offset, record):
        prepared.overwrite(str(partition), block.base, encode_block(block))
    return "class-differs", partition, offset


def duplicates(prepared: Prepared, partition: int) -> list[int]:
    others = [other for block in prepared.chain(partition) for other in block.others]
    return [offset for offset, code in others if code == RecordClass.DUPLICATE]


TAMPERINGS = [change_a_choice, delete_a_block, insert_a_block, append_to_the_log, count_a_voter_twice]


def differences(report: dict[str, Any]) -> list[Expected]:
    return [(d["kind"], d["partition"], d["offset"]) for d in report["recount"]["differences"]]


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_tampering_before_the_recount_makes_the_session_disputed(
    finished: Prepared, tamper: Callable[[Prepared], Expected]
) -> None:
    expected = tamper(finished)
    process = finished.recount_process()
    report = json.loads(process.stdout)
    assert process.returncode == DIFFERS, process.stderr
    assert report["state"] == "Disputed"
    assert differences(report) == [expected]
    assert report["recount"]["match"] is False
    assert report["outcome"] is None
    assert finished.ledger.get("final") is None
    disputed = finished.ledger.get("disputed#final")
    assert disputed is not None
    assert verify_result(disputed, finished.genesis.public_key)
    frame = frame_of(finished)
    assert frame is not None
    assert (frame.phase, frame.final, frame.outcome) == ("Disputed", False, None)


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_tampering_after_the_result_is_found_by_an_audit_and_by_another_recount(
    finished: Prepared, tamper: Callable[[Prepared], Expected]
) -> None:
    assert run(finished.settings).state == "Final"
    finished.conclude(Phase.FINAL)
    sealed = finished.ledger.get("final")
    expected = tamper(finished)
    report = run(finished.settings, audit=True)
    assert (report.state, report.exit_code) == ("Disputed", DIFFERS)
    assert [(d.kind, d.partition, d.offset) for d in report.differences] == [expected]
    again = run(finished.settings)
    assert (again.state, again.exit_code) == ("Disputed", DIFFERS)
    assert [(d.kind, d.partition, d.offset) for d in again.differences] == [expected]
    assert finished.ledger.get("final") == sealed


def test_a_chain_written_anew_with_the_same_votes_is_told_from_the_one_that_was_sealed(finished: Prepared) -> None:
    run(finished.settings)
    finished.conclude(Phase.FINAL)
    for stored in list(finished.ledger.blocks(0)):
        finished.delete("0", stored.base)
    finished.write(0, finished.chain(0, cut=33))
    report = run(finished.settings, audit=True)
    assert [(d.kind, d.partition) for d in report.differences] == [("head-differs", 0)]
    again = run(finished.settings)
    assert [(d.kind, d.partition) for d in again.differences] == [("verdict-differs", 0)]
    assert again.exit_code == DIFFERS


def test_a_changed_final_result_is_told_by_an_audit(finished: Prepared) -> None:
    document = run(finished.settings).document
    assert document is not None
    finished.conclude(Phase.FINAL)
    finished.overwrite("final", 0, encode_document({**document, "totals": {"ada": 1, "bob": 99, "cyd": 0}}))
    report = run(finished.settings, audit=True)
    assert [d.kind for d in report.differences] == ["signature-broken"]
    again = run(finished.settings)
    assert (again.state, again.exit_code) == ("Disputed", DIFFERS)
    assert ("result-differs", "totals") in [(d.kind, d.detail) for d in again.differences]


def test_after_a_repair_another_recount_makes_the_session_final(finished: Prepared) -> None:
    lost = finished.chain(1)[1]
    finished.delete("1", lost.base)
    assert run(finished.settings).state == "Disputed"
    finished.conclude(Phase.DISPUTED)
    finished.overwrite("1", lost.base, encode_block(lost))
    first_name = run(finished.settings)
    assert [d.kind for d in first_name.differences] == ["verdict-differs"]
    repaired = run(finished.settings, name="final-2")
    assert (repaired.state, repaired.exit_code) == ("Final", 0)
    frame = frame_of(finished)
    assert frame is not None
    assert frame.final


# --- Audits


@pytest.fixture
def still_open(backends: Backends, unique: Unique, tmp_path: Path, request: pytest.FixtureRequest) -> Prepared:
    """Votes are counted up to some offset, more stand in the log."""
    spec = getattr(request, "param", {})
    prepared = Prepared(backends, unique("r")[:60], tmp_path, closesAt=None, **spec)
    cast(prepared)
    prepared.write_chains()
    prepared.produce([prepared.vote(f"late-{number}") for number in range(20)])
    return prepared


def test_an_audit_of_an_open_session_compares_up_to_the_heads(still_open: Prepared) -> None:
    report = run(still_open.settings, audit=True)
    assert (report.state, report.exit_code, report.differences) == ("Open", 0, ())
    assert report.log_records == 137
    assert report.totals == {"ada": 80, "bob": 39, "cyd": 0}
    assert (report.document, report.outcome) == (None, None)
    assert still_open.ledger.get("final") is None


def test_an_audit_of_an_open_session_finds_a_changed_choice(still_open: Prepared) -> None:
    blocks = [decode_block(stored.payload) for stored in still_open.ledger.blocks(0)]
    offset = blocks[0].accepted[0].offset
    for block in with_other_choice(still_open.session, still_open.genesis.hash, blocks, offset):
        still_open.overwrite("0", block.base, encode_block(block))
    report = run(still_open.settings, audit=True)
    assert (report.state, report.exit_code) == ("Disputed", DIFFERS)
    assert [(d.kind, d.partition, d.offset) for d in report.differences] == [("accepted-differs", 0, offset)]


@pytest.mark.parametrize("still_open", [{"results": {"visibility": "afterClose"}}], indirect=True)
def test_under_embargo_an_audit_tells_no_figure_by_option(still_open: Prepared) -> None:
    process = still_open.recount_process("--audit")
    report = json.loads(process.stdout)
    assert process.returncode == 0, process.stderr
    assert (report["totals"], report["segments"], report["outcome"]) == (None, None, None)
    assert report["turnout"]["accepted"] == 120
    assert b"80" not in process.stdout
    assert b"tallies" not in process.stdout + process.stderr


def test_a_disputed_result_under_embargo_shows_no_figure_anywhere(
    backends: Backends, unique: Unique, tmp_path: Path
) -> None:
    hidden = Prepared(backends, unique("r")[:60], tmp_path, results={"visibility": "afterClose"})
    cast(hidden)
    hidden.finish()
    delete_a_block(hidden)
    report = run(hidden.settings)
    assert (report.state, report.totals, report.outcome) == ("Disputed", None, None)
    exported = json.loads((hidden.settings.exports_dir / "test" / "result.json").read_bytes())
    assert (exported["totals"], exported["outcome"]) == (None, None)
    frame = frame_of(hidden)
    assert frame is not None
    assert (frame.totals, frame.outcome) == (None, None)


# --- What can't be recounted


def test_a_session_that_is_not_closed_is_refused_in_one_line(still_open: Prepared) -> None:
    process = still_open.recount_process()
    assert process.returncode == 2
    assert b"not sealed: close the session first" in process.stderr.splitlines()[-1]
    assert b"Traceback" not in process.stderr


def test_a_session_that_nobody_knows_is_refused_in_one_line(finished: Prepared) -> None:
    finished.environ["PSEPHOS_SESSION_UID"] = "nobody-knows-me"
    process = finished.recount_process()
    assert process.returncode == 2
    assert b"no session nobody-knows-me" in process.stderr.splitlines()[-1]


def test_another_signing_key_cannot_seal_a_session(finished: Prepared, tmp_path: Path) -> None:
    other = make_keys(tmp_path / "others")["signing_key_file"]
    with pytest.raises(GenesisMismatch, match="public key"):
        run(load_settings(finished.environ, signing_key_file=other))
    assert finished.ledger.get("final") is None
