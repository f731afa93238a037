"""The electoral roll: who is on it, what becomes of a broken one, and how files that change are seen."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.ingest.conftest import eventually
from tests.unit.ingest.test_verifier import session

from psephos.domain.session import Session, parse_session
from psephos.formats.votes import voter_key
from psephos.platform.settings import Settings, SettingsError, load_settings
from psephos.roles.ingest import watching
from psephos.roles.ingest.credentials import Credentials
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.roll import FileSource, Roll, roll_source
from psephos.roles.ingest.rollfile import FileText, RollFile, UnusableRoll, build, pseudonyms

KEY = b"k" * 32
MILLION = 1_000_000
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
SUBJECTS = st.sets(TEXT, min_size=1, max_size=50)


def made(text: bytes, folder: Path, key: bytes = KEY) -> RollFile:
    source = folder / "roll.txt"
    source.write_bytes(text)
    return RollFile(build(FileText(source), folder / "built", "u", key))


@given(SUBJECTS, SUBJECTS)
def test_exactly_the_subjects_of_the_text_are_on_the_roll(
    tmp_path_factory: pytest.TempPathFactory, listed: set[str], others: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("roll")
    with made("\n".join(listed).encode(), folder) as roll:
        assert roll.voters == len(listed)
        assert all(voter_key(KEY, subject) in roll for subject in listed)
        assert not any(voter_key(KEY, subject) in roll for subject in others - listed)
        assert bytes(16) not in roll
        assert b"\xff" * 16 not in roll


def test_blank_lines_repetitions_and_windows_line_ends_do_no_harm() -> None:
    text = b"\xef\xbb\xbfann\r\n\r\n  ben \nann\n\n"
    expected = sorted([voter_key(KEY, "ann"), voter_key(KEY, "ben")])
    assert pseudonyms([text], KEY) == expected
    assert pseudonyms([text[at : at + 1] for at in range(len(text))], KEY) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"ann\n\xff\n", "line 2 .* not UTF-8"),
        (b"x" * 1025, "line 1 .* longer than 1024"),
        (MILLION + 1, "at most 1000000"),
        (b"x" * 20_000, "line 1 .* longer than 1024"),
    ],
)
def test_a_roll_that_can_not_be_meant_is_refused_in_one_line(
    tmp_path: Path, text: bytes | int, expected: str
) -> None:
    """`text`: also a number of voters, of whom each process that collects tests would make the text."""
    if isinstance(text, int):
        text = b"\n".join(b"%d" % number for number in range(text))
    with pytest.raises(UnusableRoll, match=expected) as caught:
        made(text, tmp_path)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=100))
def test_any_bytes_as_a_built_roll_are_a_roll_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("roll") / "x.roll"
    for content in (data, b"PSEROLL1" + data):
        path.write_bytes(content)
        try:
            with RollFile(path) as roll:
                assert bytes(16) not in roll or roll.voters
        except UnusableRoll:
            continue


def test_one_built_roll_serves_all_processes_and_a_damaged_or_foreign_one_none(tmp_path: Path) -> None:
    first = made(b"ann\nben\n", tmp_path)
    again = made(b"ann\nben\n", tmp_path)
    assert first.path == again.path
    assert first.path.stat().st_ino == again.path.stat().st_ino
    first.path.write_bytes(first.path.read_bytes()[:-1])
    assert voter_key(KEY, "ben") in made(b"ann\nben\n", tmp_path)
    other = b"o" * 32
    foreign = made(b"ann\nben\n", tmp_path, other)
    assert voter_key(other, "ann") in foreign
    assert voter_key(KEY, "ann") not in foreign
    assert [path.name for path in (tmp_path / "built").glob("*.roll*")] == [foreign.path.name]
    assert b"ann" not in foreign.path.read_bytes()


# --- As a running process has it


def roll_session(url: str = "file:///nowhere") -> Session:
    document = session().model_dump(mode="json", by_alias=True, exclude_none=True)
    tokens = document["spec"]["voters"]["tokens"]
    voters = {"eligibility": "roll", "tokens": tokens, "roll": {"url": url}}
    return parse_session({**document, "spec": {**document["spec"], "voters": voters}})


def settings(folder: Path, **more: str) -> Settings:
    (folder / "session-key").write_bytes(KEY)
    return load_settings(
        {
            "PSEPHOS_SESSION_FILE": "s",
            "PSEPHOS_SESSION_UID": "u",
            "PSEPHOS_KAFKA_BOOTSTRAP": "k",
            "PSEPHOS_SESSION_KEY_FILE": str(folder / "session-key"),
            "PSEPHOS_DATA_DIR": str(folder / "data"),
            **more,
        }
    )


def test_the_roll_comes_from_the_setting_or_from_the_sessions_file_url(tmp_path: Path) -> None:
    own = settings(tmp_path)
    assert roll_source(own, roll_session("file:///some/where%20else/roll")).current() == ("/some/where else/roll",)
    named = settings(tmp_path, PSEPHOS_ROLL_FILE="/mounted/roll")
    assert roll_source(named, roll_session("s3://bucket/roll")).current() == ("/mounted/roll",)
    alone = settings(tmp_path, PSEPHOS_S3_ENABLED="false")
    with pytest.raises(SettingsError, match="PSEPHOS_ROLL_FILE is not set"):
        roll_source(alone, roll_session("s3://bucket/roll"))


def on(roll: Roll, subject: str) -> bool:
    try:
        roll.require(voter_key(KEY, subject))
    except Problem as problem:
        return (problem.slug, problem.status) != ("not-eligible", 403)
    return True


async def test_a_new_roll_is_taken_while_running_and_a_broken_one_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "EVERY_S", 0.05)
    source = tmp_path / "roll"
    source.write_text("ann\n")
    roll = Roll(settings(tmp_path), FileSource(source))
    assert (on(roll, "ann"), on(roll, "ben")) == (True, False)
    follow = asyncio.create_task(roll.follow())

    replace(source, b"ben\ncat\n")
    await eventually(lambda: on(roll, "ben"), "the new roll")
    assert (on(roll, "ann"), roll.voters) == (False, 2)

    replace(source, b"dan\n\xff\n")
    await eventually(lambda: told(capsys, "the old one stays in force"), "told of the broken roll")
    assert (on(roll, "ben"), on(roll, "dan")) == (True, False)
    source.unlink()
    replace(source, b"dan\n")
    await eventually(lambda: on(roll, "dan"), "the mended roll")
    follow.cancel()


def told(capsys: pytest.CaptureFixture[str], words: str) -> bool:
    """Whether these words stand in the log since this was last asked, wherever it goes."""
    return words in "".join(capsys.readouterr())


def replace(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    new.rename(path)


async def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"x")
    seen: list[int] = []

    async def watch() -> None:
        async for _ in watching.changes(path, watching.mark(path), every_s=0.05):
            seen.append(path.stat().st_size)

    watching_it = asyncio.create_task(watch())
    await asyncio.sleep(0)
    for size in range(2, 40):
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(size, size))
        await asyncio.sleep(0.01)
    await eventually(lambda: seen[-1:] == [39], "the finished file")
    assert len(seen) < 5
    watching_it.cancel()


async def test_a_credential_is_rotated_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "EVERY_S", 0.05)
    path = tmp_path / "credential"
    old, new = "old-credential-0123", "new-credential-0123"
    path.write_text(old + "\n")
    credentials = Credentials(path)
    follow = asyncio.create_task(credentials.follow())
    assert (credentials.accepts(old), credentials.accepts(new)) == (True, False)
    replace(path, f"{new}\n\n{old}\n".encode())
    await eventually(lambda: credentials.accepts(new), "both at once")
    assert credentials.accepts(old)
    replace(path, b"short\n")
    await eventually(lambda: told(capsys, "the old ones stay in force"), "told of unfit credentials")
    assert credentials.accepts(new)
    replace(path, f"{new}\n".encode())
    await eventually(lambda: not credentials.accepts(old), "the old one gone")
    assert (credentials.accepts(new), credentials.accepts("short"), credentials.accepts("")) == (
        True,
        False,
        False,
    )
    follow.cancel()
