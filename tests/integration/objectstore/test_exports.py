"""The final result in a bucket: written once and whole, found there again, never at the price of the result."""

import csv
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.prepared import Prepared
from tests.s3 import S3

from psephos.adapters.s3 import Address, ObjectStore, ObjectStoreError, address_of, exports_address
from psephos.domain.results import decode_document, encode_document, verify_result
from psephos.formats.control import Phase
from psephos.platform.settings import Settings, load_settings
from psephos.roles.recount.errors import RecountError
from psephos.roles.recount.exporting import export_to_store
from psephos.roles.recount.main import run
from psephos_lab.servers import Backends

Unique = Callable[[str], str]


def settings_of(prepared: Prepared, s3: S3, **changes: str) -> Settings:
    return load_settings({**prepared.environ, **s3.environ, **changes})


def store_of(s3: S3, **changes: str) -> ObjectStore:
    common = {"PSEPHOS_SESSION_FILE": "s", "PSEPHOS_SESSION_UID": "u", "PSEPHOS_KAFKA_BOOTSTRAP": "k"}
    return ObjectStore.of(load_settings({**common, **s3.environ, **changes}))


@pytest.fixture
def counted(backends: Backends, bucket: str, unique: Unique, tmp_path: Path) -> Prepared:
    """A closed and counted session whose exports go into a bucket."""
    prepared = Prepared(backends, unique("x")[:60], tmp_path, exports={"url": f"s3://{bucket}/council/2026/"})
    prepared.produce([prepared.vote(f"voter-{number}") for number in range(30)])
    prepared.finish()
    return prepared


def place(prepared: Prepared) -> str:
    return f"council/2026/test/{prepared.settings.session_uid}"


def test_the_result_stands_in_the_bucket_as_json_and_csv(counted: Prepared, s3: S3, bucket: str) -> None:
    report = run(settings_of(counted, s3))
    assert (report.state, report.exit_code) == ("Final", 0)
    assert s3.keys(bucket) == [f"{place(counted)}/result.csv", f"{place(counted)}/result.json"]
    exported = s3.get(bucket, f"{place(counted)}/result.json")
    assert exported == counted.ledger.get("final")
    assert verify_result(decode_document(exported), counted.genesis.public_key)
    rows = list(csv.DictReader(io.StringIO(s3.get(bucket, f"{place(counted)}/result.csv").decode())))
    assert [(row["option"], row["total"]) for row in rows] == [("ada", "30"), ("bob", "0"), ("cyd", "0")]
    head = s3.client.head_object(Bucket=bucket, Key=f"{place(counted)}/result.json")
    assert head["ContentType"] == "application/json"


def test_a_second_sealing_step_writes_nothing_and_mends_what_was_lost(
    counted: Prepared, s3: S3, bucket: str
) -> None:
    settings = settings_of(counted, s3)
    run(settings)
    key = f"{place(counted)}/result.json"
    before = s3.client.head_object(Bucket=bucket, Key=key)
    assert run(settings, seal=True).state == "Final"
    again = s3.client.head_object(Bucket=bucket, Key=key)
    assert (again["ETag"], again["LastModified"]) == (before["ETag"], before["LastModified"])
    s3.client.delete_object(Bucket=bucket, Key=f"{place(counted)}/result.csv")
    s3.put(bucket, key, b"not what was sealed")
    run(settings, seal=True)
    assert s3.get(bucket, key) == counted.ledger.get("final")
    assert len(s3.keys(bucket)) == 2


FAULTS: dict[str, tuple[dict[str, str], str]] = {
    "no such bucket": ({}, "there is no such bucket"),
    "a key that is not known": ({"PSEPHOS_S3_ACCESS_KEY_ID": "nobody"}, "the access key is not known there"),
    "a wrong secret": ({"PSEPHOS_S3_SECRET_ACCESS_KEY": "wrong"}, "the secret access key is wrong"),
    "nobody listens": ({"PSEPHOS_S3_ENDPOINT": "http://127.0.0.1:9"}, "Could not connect to the endpoint URL"),
}


def test_an_export_that_fails_says_why_and_the_result_stands(counted: Prepared, s3: S3, bucket: str) -> None:
    s3.client.delete_bucket(Bucket=bucket)
    for changes, why in FAULTS.values():
        with pytest.raises(RecountError, match=f"the result is sealed, but can't be exported: .*{why}") as caught:
            run(settings_of(counted, s3, **changes))
        assert "\n" not in str(caught.value)
    sealed = counted.ledger.get("final")
    assert sealed is not None
    s3.bucket(bucket)
    assert run(settings_of(counted, s3), seal=True).state == "Final"
    assert s3.get(bucket, f"{place(counted)}/result.json") == sealed == counted.ledger.get("final")


def test_the_local_stack_keeps_exports_on_this_machine(counted: Prepared, s3: S3, bucket: str) -> None:
    settings = settings_of(counted, s3, PSEPHOS_S3_ENABLED="false")
    assert run(settings).state == "Final"
    assert (settings.exports_dir / "test" / "result.json").read_bytes() == counted.ledger.get("final")
    assert s3.keys(bucket) == []


# --- The order of two sealing steps


def document(counted: Prepared, state: Phase, version: int) -> dict[str, Any]:
    run(counted.settings.model_copy(update={"s3_enabled": False}))
    payload = counted.ledger.get("final")
    assert payload is not None
    return {**decode_document(payload), "state": state.value, "version": version}


def test_a_slow_sealing_step_of_before_a_repair_does_not_replace_the_final_result(
    counted: Prepared, s3: S3, bucket: str
) -> None:
    store, address = store_of(s3), Address(bucket, "a/b")
    disputed, final = document(counted, Phase.DISPUTED, 1), document(counted, Phase.FINAL, 2)
    key = "a/b/result.json"
    export_to_store(store, address, counted.session, disputed)
    assert s3.get(bucket, key) == encode_document(disputed)
    export_to_store(store, address, counted.session, final)
    export_to_store(store, address, counted.session, disputed)
    assert s3.get(bucket, key) == encode_document(final)


def test_of_many_writers_at_once_all_find_the_same_content(s3: S3, bucket: str) -> None:
    store, errors = store_of(s3), []

    def write() -> None:
        try:
            store.put_same(Address(bucket, "one"), b"the same", "text/plain")
        except ObjectStoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, s3.get(bucket, "one")) == ([], b"the same")


# --- Places


def test_sessions_of_the_same_name_have_places_of_their_own() -> None:
    assert str(exports_address("s3://b/", "lunch", "u1")) == "s3://b/lunch/u1"
    assert exports_address("s3://b", "lunch", "u1") == Address("b", "lunch/u1")
    assert exports_address("s3://b//x//", "lunch", "u2") == Address("b", "x/lunch/u2")
    assert exports_address("file:///x", "lunch", "u1") is None
    assert address_of("s3://b/a%20b?c#d") == Address("b", "a%20b?c#d")


def test_deleting_takes_what_is_below_a_place_and_nothing_beside_it(s3: S3, bucket: str) -> None:
    for key in ("x/lunch/u1/result.json", "x/lunch/u1/result.csv", "x/lunch/u12/result.json", "x/lunch/u1.txt"):
        s3.put(bucket, key, json.dumps(key).encode())
    store = store_of(s3)
    assert store.delete_below(Address(bucket, "x/lunch/u1")) == 2
    assert s3.keys(bucket) == ["x/lunch/u1.txt", "x/lunch/u12/result.json"]
    assert store.delete_below(Address(bucket, "x/lunch/u1")) == 0
    assert store.delete_below(Address("no-such-bucket-here", "x")) == 0
    with pytest.raises(ObjectStoreError, match="the secret access key is wrong"):
        store_of(s3, PSEPHOS_S3_SECRET_ACCESS_KEY="wrong").delete_below(Address(bucket, "x"))
