"""What a receipt says, from real blocks in a real ledger."""

import base64
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from tests.integration.readside.conftest import Answer, ReadSide, Role, fetch, running
from tests.integration.readside.relay import Relay
from tests.waiting import wait_until

from psephos.cli import main
from psephos.formats.blocks import RecordClass
from psephos.formats.receipts import Receipt, ReceiptSigner
from psephos_lab.servers import Backends

NOWHERE = b"\0" * 16
REVOTES = {"voters": {"tokens": {"issuer": "i", "audience": "a"}, "revote": "last"}}


@pytest.fixture(scope="module")
def readside(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadSide]:
    """One session for all tests here: each appends blocks of its own."""
    with running(backends, tmp_path_factory.mktemp("receipts"), REVOTES) as session:
        yield session


@pytest.fixture(scope="module")
def gateway(readside: ReadSide) -> Role:
    return readside.start("gateway").wait_ready()


def look(gateway: Role, text: str) -> Answer:
    return fetch(gateway.v1(f"/receipts/{quote(text, safe='')}"))


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == answer.status
    return answer.status, answer.json["type"].rpartition("/")[2]


async def test_each_class_of_record_has_its_answer(readside: ReadSide, gateway: Role) -> None:
    others = [
        RecordClass.DUPLICATE, RecordClass.MALFORMED, RecordClass.INVALID_BALLOT, RecordClass.QUOTA,
        RecordClass.CONTROL, RecordClass.LATE,
    ]  # fmt: skip
    readside.append(1, [0, 1])
    counted = readside.append(1, [1], others)[0]
    at = counted.offset
    assert look(gateway, readside.receipt(counted)).json == {"status": "counted", "partition": 1, "offset": at}
    expected = {
        1: ("duplicate", None),
        2: ("rejected", "malformed"),
        3: ("rejected", "invalid-ballot"),
        4: ("rejected", "quota"),
        6: ("rejected", "late"),
    }
    for distance, (status, reason) in expected.items():
        answer = look(gateway, readside.receipt(counted._replace(offset=at + distance, digest=NOWHERE)))
        assert (answer.status, answer.json["status"], answer.json.get("reason")) == (200, status, reason)
        assert answer.headers["cache-control"] == "no-store"
    control = look(gateway, readside.receipt(counted._replace(offset=at + 5)))
    assert problem(control) == (409, "log-mismatch"), "nobody holds a receipt of a close marker"
    assert gateway.metric('psephos_gateway_receipts_total{status="rejected"}') == 4


async def test_a_receipt_is_pending_until_its_block_is_there(readside: ReadSide, gateway: Role) -> None:
    first = readside.append(0, [0])[0]
    ahead = first.offset + 2
    pending = readside.receipt(first._replace(offset=ahead))
    assert look(gateway, pending).json == {"status": "pending", "partition": 0, "offset": ahead}
    receipts = readside.append(0, [1, 1])
    wait_until(lambda: look(gateway, readside.receipt(receipts[1])).json["status"] == "counted", "counted")
    assert look(gateway, readside.receipt(first)).json["status"] == "counted"


async def test_another_record_in_the_ledger_than_the_receipt_names_is_an_alarm(
    readside: ReadSide, gateway: Role
) -> None:
    receipt = readside.append(0, [0, 1])[0]
    before = gateway.metric("psephos_gateway_log_mismatches_total")
    answer = look(gateway, readside.receipt(receipt._replace(digest=NOWHERE)))
    assert problem(answer) == (409, "log-mismatch")
    assert (answer.json["partition"], answer.json["offset"]) == (0, receipt.offset)
    assert gateway.metric("psephos_gateway_log_mismatches_total") == before + 1
    assert b'"event": "log mismatch"' in gateway.log.read_bytes()


async def test_forged_and_foreign_receipts_are_told_from_pending_ones(readside: ReadSide, gateway: Role) -> None:
    receipt = readside.append(0, [0])[0]
    genuine = readside.receipt(receipt)
    forged = ReceiptSigner(b"x" * 32).sign([receipt])[0]
    raw = bytearray(base64.urlsafe_b64decode(genuine + "=" * (-len(genuine) % 4)))
    raw[12] ^= 1
    moved = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
    for text in (forged, moved, genuine[:-2], genuine + "A", "nonsense", "ä", "a" * 5_000):
        assert problem(look(gateway, text)) == (400, "invalid-receipt"), text[:60]
    foreign = readside.receipt(Receipt(b"\1" * 8, 0, 0, receipt.digest))
    assert problem(look(gateway, foreign)) == (404, "foreign-receipt")
    beyond = readside.receipt(receipt._replace(partition=60_000))
    assert problem(look(gateway, beyond)) == (400, "invalid-receipt")
    assert look(gateway, genuine).json["status"] == "counted"


async def test_who_asks_too_often_is_told_to_wait(readside: ReadSide) -> None:
    gateway = readside.start(
        "gateway", gateway_receipt_rate=0.5, gateway_receipt_burst=3, trusted_proxies=1
    ).wait_ready()
    url = gateway.v1("/receipts/" + readside.receipt(readside.append(1, [0])[0]))
    answers = [fetch(url, X_Forwarded_For="192.0.2.7") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert problem(answers[-1]) == (429, "rate-limited")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3
    assert fetch(url, X_Forwarded_For="192.0.2.8").status == 200, "another address has a share of its own"
    assert fetch(url).status == 200, "this machine is not limited"


async def test_anyone_verifies_a_receipt_with_the_public_key_alone(
    readside: ReadSide, gateway: Role, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = readside.append(0, [0])[0]
    text, key = readside.receipt(receipt), fetch(gateway.v1()).json["receiptKey"]
    assert key == readside.genesis.receipt_key

    def verify(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["verify", "receipt", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    offline = verify(text, "--public-key", key)
    named = f"partition 0, offset {receipt.offset}, record {receipt.digest.hex()}"
    assert offline == (0, f"genuine: session {readside.genesis.epoch}, {named}\n", "")
    code, said, _ = verify(text, "--session-url", gateway.v1())
    assert (code, said.splitlines()[-1]) == (0, "counted")
    forged = ReceiptSigner(b"x" * 32).sign([receipt])[0]
    for wrong in (forged, text[:-3], "nonsense"):
        code, said, why = verify(wrong, "--public-key", key)
        assert (code, said) == (1, "")
        assert why.startswith("psephos: not genuine: ")
    assert verify(text, "--public-key", "00" * 31)[0] == 2
    assert verify(text)[0] == 2


async def test_a_vote_is_superseded_by_a_later_one_of_its_voter_in_any_later_block(
    readside: ReadSide, gateway: Role
) -> None:
    first = readside.append(0, [0, 1, 0])

    def statuses(receipts: list[Receipt]) -> list[str]:
        return [look(gateway, readside.receipt(receipt)).json["status"] for receipt in receipts]

    assert statuses(first) == ["counted"] * 3
    second = readside.append(0, [1], supersedes={0: first[1].offset})
    assert statuses([*first, *second]) == ["counted", "superseded", "counted", "counted"]
    third = readside.append(0, [0, 0], supersedes={0: second[0].offset, 1: first[2].offset})
    assert statuses([*first, *second, *third]) == [
        "counted", "superseded", "superseded", "superseded", "counted", "counted",
    ]  # fmt: skip
    other = readside.append(1, [0, 0])
    assert statuses(other) == ["counted", "counted"], "offsets of another partition are others"


async def test_receipts_are_found_in_long_chains(readside: ReadSide, gateway: Role) -> None:
    receipts = [receipt for _ in range(80) for receipt in readside.append(0, [0, 1, 0], tell=False)]
    found = [look(gateway, readside.receipt(receipt)).json for receipt in (*receipts[::7], *receipts[::-11])]
    assert {answer["status"] for answer in found} == {"counted"}


async def test_a_ledger_that_is_away_is_a_problem_that_passes(readside: ReadSide) -> None:
    receipt = readside.append(0, [0])[0]
    host, _, port = readside.environ["PSEPHOS_DYNAMODB_ENDPOINT"].removeprefix("http://").partition(":")
    with Relay((host, int(port))) as relay:
        cut_off = readside.start("gateway", dynamodb_endpoint=f"http://127.0.0.1:{relay.port}").wait_ready()
        relay.close()
        answer = look(cut_off, readside.receipt(receipt))
        assert problem(answer) == (503, "ledger-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        relay.open()
        assert look(cut_off, readside.receipt(receipt)).json["status"] == "counted"
