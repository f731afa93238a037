"""The model check's table is held against DynamoDB Local: the real ledger hears the same of both."""

from collections.abc import Callable
from typing import Any

from tests.model.dynamodb import Table

from psephos.adapters.dynamodb import Conflict, Ledger
from psephos.platform.settings import load_settings
from psephos_lab.servers import Backends


def heard(ledger: Ledger) -> list[Any]:
    """What a ledger answers to everything that the tally and the closing protocol ask."""
    answers: list[Any] = [ledger.head(0), ledger.block_at(0, 5), list(ledger.blocks(0)), ledger.get("closing")]
    for base in (0, 3, 7, 12, 20):
        ledger.put_block(0, base, b"block at %d" % base)
    ledger.put_block(1, 4, b"of another partition")
    try:
        ledger.put_block(0, 7, b"another block")
    except Conflict as conflict:
        answers.append(conflict.payload)
    answers += [ledger.head(0), ledger.head(2), *(ledger.block_at(0, offset) for offset in (0, 2, 3, 11, 12, 99))]
    answers += [list(ledger.blocks(0)), list(ledger.blocks(0, 7)), list(ledger.blocks(0, 8))]
    answers += [ledger.put_once("sealed", b"first", sort=1), ledger.put_once("sealed", b"second", sort=1)]
    return [*answers, ledger.put_once("sealed", b"third"), list(ledger.items("sealed")), ledger.get("sealed", 1)]


def test_the_simulated_table_answers_as_dynamodb_does(backends: Backends, unique: Callable[[str], str]) -> None:
    settings = load_settings(
        {
            "PSEPHOS_SESSION_FILE": "none",
            "PSEPHOS_SESSION_UID": unique("s")[:40],
            "PSEPHOS_KAFKA_BOOTSTRAP": "none",
            "PSEPHOS_DYNAMODB_ENDPOINT": backends.dynamodb_endpoint,
            "PSEPHOS_DYNAMODB_TABLE": unique("t"),
        }
    )
    real = Ledger.of(settings)
    real.create_table()
    table: Any = Table(lambda _key, _sort, _payload: None)
    assert heard(Ledger(table, "simulated", settings.session_uid)) == heard(real)
