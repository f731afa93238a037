"""The electoral roll as an object: streamed, taken anew when its ETag is another one, named when it is unfit."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.integration.ingest.conftest import eventually
from tests.integration.ingest.test_roll import KEY, on, roll_session, told
from tests.s3 import S3

from psephos.formats.votes import voter_key
from psephos.platform.settings import Settings, SettingsError, load_settings
from psephos.roles.ingest import roll as rolls
from psephos.roles.ingest.roll import Roll, roll_source

MILLION = 1_000_000


def settings(folder: Path, s3: S3, **changes: str) -> Settings:
    (folder / "session-key").write_bytes(KEY)
    return load_settings(
        {
            "PSEPHOS_SESSION_FILE": "s",
            "PSEPHOS_SESSION_UID": "u",
            "PSEPHOS_KAFKA_BOOTSTRAP": "k",
            "PSEPHOS_SESSION_KEY_FILE": str(folder / "session-key"),
            "PSEPHOS_DATA_DIR": str(folder / "data"),
            **s3.environ,
            **changes,
        }
    )


def roll_of(settings: Settings, bucket: str, key: str = "rolls/town.txt") -> Roll:
    return Roll(settings, roll_source(settings, roll_session(f"s3://{bucket}/{key}")))


async def test_a_new_object_is_taken_while_running_and_a_broken_or_missing_one_leaves_the_old(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rolls, "STORE_EVERY_S", 0.05)
    s3.put(bucket, "rolls/town.txt", b"\xef\xbb\xbfann\r\n\r\nben\n")
    roll = roll_of(settings(tmp_path, s3), bucket)
    assert (on(roll, "ann"), on(roll, "ben"), on(roll, "cat"), roll.voters) == (True, True, False, 2)
    follow = asyncio.create_task(roll.follow())

    s3.put(bucket, "rolls/town.txt", b"cat\n")
    await eventually(lambda: on(roll, "cat"), "the new roll")
    assert not on(roll, "ann")

    s3.put(bucket, "rolls/town.txt", b"dan\n\xff\n")
    await eventually(lambda: told(capsys, "line 2 of the roll is not UTF-8"), "told of the broken roll")
    s3.client.delete_object(Bucket=bucket, Key="rolls/town.txt")
    await eventually(lambda: told(capsys, "there is no such object"), "told that it is gone")
    assert (on(roll, "cat"), on(roll, "dan")) == (True, False)
    s3.put(bucket, "rolls/town.txt", b"dan\n")
    await eventually(lambda: on(roll, "dan"), "the mended roll")
    follow.cancel()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert not any(subject in kept for subject in (b"ann", b"ben", b"cat", b"dan")), "no subject touched the disk"


async def test_a_roll_that_could_not_be_fetched_is_tried_again(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rolls, "STORE_EVERY_S", 0.05)
    s3.put(bucket, "rolls/town.txt", b"ann\n")
    own = settings(tmp_path, s3)
    roll = roll_of(own, bucket)
    follow = asyncio.create_task(roll.follow())
    broken = own.model_copy(update={"s3_secret_access_key": "wrong"})  # of the builder alone: it can't fetch
    monkeypatch.setattr(roll, "_settings", broken)
    s3.put(bucket, "rolls/town.txt", b"ben\n")
    await eventually(lambda: told(capsys, "the secret access key is wrong"), "told why")
    assert (on(roll, "ann"), on(roll, "ben")) == (True, False)
    monkeypatch.setattr(roll, "_settings", own)
    await eventually(lambda: on(roll, "ben"), "the same object, tried again")
    follow.cancel()


def test_what_keeps_a_roll_from_being_read_is_one_line(s3: S3, bucket: str, tmp_path: Path) -> None:
    s3.put(bucket, "empty", b"\n")
    own = settings(tmp_path, s3)
    elsewhere = settings(tmp_path, s3, PSEPHOS_S3_ENDPOINT="http://127.0.0.1:9")
    for given, where, key, why in (
        (own, bucket, "no/such", f"the electoral roll: s3://{bucket}/no/such: there is no such object"),
        (own, bucket, "empty", "the electoral roll: the roll is empty"),
        (own, "no-such-bucket-here", "x", "there is no such object"),
        (elsewhere, bucket, "empty", "Could not connect to the endpoint URL"),
    ):
        with pytest.raises(SettingsError, match=why) as caught:
            roll_of(given, where, key)
        assert "\n" not in str(caught.value)


def test_a_million_subjects_stream_through(s3: S3, bucket: str, tmp_path: Path) -> None:
    text = "\n".join(f"citizen-{number:07d}@town.example" for number in range(MILLION))
    s3.put(bucket, "large", text.encode())
    before = os.times()
    roll = roll_of(settings(tmp_path, s3), bucket, "large")
    after = os.times()
    assert roll.voters == MILLION
    assert on(roll, "citizen-0000000@town.example")
    assert on(roll, f"citizen-{MILLION - 1:07d}@town.example")
    assert not on(roll, f"citizen-{MILLION:07d}@town.example")
    print(f"{after.children_user - before.children_user:.1f} s of CPU in the builder")


def test_a_second_process_finds_the_roll_built(s3: S3, bucket: str, tmp_path: Path) -> None:
    s3.put(bucket, "town", b"ann\n")
    first, second = (
        roll_of(settings(tmp_path, s3), bucket, "town"),
        roll_of(settings(tmp_path, s3), bucket, "town"),
    )
    (built,) = (tmp_path / "data" / "roll").glob("*.roll")
    assert built.read_bytes()[32:] == voter_key(KEY, "ann")
    assert on(first, "ann")
    assert on(second, "ann")
