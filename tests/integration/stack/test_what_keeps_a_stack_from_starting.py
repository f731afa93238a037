"""Each obstacle is one readable line that says what, where, and what to do."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from psephos_lab.folder import owned, temporary_folder
from psephos_lab.java import ensure_jars, jars_folder
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends, StackError

HOLD = Path(__file__).with_name("hold.py")


def refusal(backends: Backends) -> str:
    with pytest.raises(StackError) as error:
        backends.start()
    assert "\n" not in str(error.value)
    return str(error.value)


def programs(folder: Path, *names: str) -> str:
    """A PATH that has only these programs."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, f"{name} is not installed: run `make setup`"
        (folder / name).symlink_to(found)
    return str(folder)


def test_a_taken_port_is_named_with_its_owner(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal(Backends(tmp_path, redis_port=port))
    assert f"port {port} on 127.0.0.1, wanted for Redis, is taken by" in said
    assert f"(process {os.getpid()})" in said
    assert "choose another port" in said


def test_what_was_started_before_a_taken_port_is_stopped_again(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        backends = Backends(tmp_path, redis_port=taken.getsockname()[1])
        refusal(backends)
    assert not backends.kafka.brokers[0].process.running
    assert not backends.dynamodb.process.running
    with owned(tmp_path):
        pass  # the folder is free for the next one


def test_a_port_out_of_range_is_refused(tmp_path: Path) -> None:
    assert "port 70000 for Redis is out of range" in refusal(Backends(tmp_path, redis_port=70_000))


def test_a_missing_jdk_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    said = refusal(Backends(tmp_path))
    assert "`java` was not found" in said
    assert "make setup" in said
    assert "default-jdk-headless" in said


def test_a_missing_maven_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", "java", "javac"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty-cache"))
    said = refusal(Backends(tmp_path / "stack"))
    assert "`mvn` was not found" in said
    assert "apt-get install maven" in said


def test_a_missing_redis_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_jars()
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", "java", "setpriv"))
    said = refusal(Backends(tmp_path / "stack"))
    assert "Redis can't start: `redis-server` is not installed" in said
    assert "make setup" in said


def test_a_failed_download_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin"
    path = programs(broken, "java", "javac")
    (broken / "mvn").write_text("#!/bin/sh\necho '[ERROR] Could not transfer artifact: no network'\nexit 1\n")
    (broken / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = refusal(Backends(tmp_path / "stack"))
    assert "Maven could not fetch the jars" in said
    assert "Could not transfer artifact" in said
    assert list(jars_folder().parent.iterdir()) == []


def test_a_nearly_full_disk_is_refused_before_anything_starts(tmp_path: Path) -> None:
    said = refusal(Backends(tmp_path, min_free_bytes=1 << 60))
    assert f"the disk below {tmp_path} is nearly full" in said
    assert "make room or choose another data folder" in said
    assert not (tmp_path / "logs").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    said = refusal(Backends(tmp_path / "file" / "stack"))
    assert f"{tmp_path}/file/stack can't be used as data folder" in said


def test_two_stacks_in_one_folder_are_refused(tmp_path: Path) -> None:
    with owned(tmp_path):
        ended = subprocess.run(
            [sys.executable, str(HOLD), str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"psephos: another stack (process {os.getpid()}) runs in {tmp_path}:"
        " stop it or choose another data folder\n"
    )


def test_a_temporary_folder_is_gone_after_its_run_and_takes_abandoned_ones_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = tmp_path / "psephos" / "runs"
    abandoned, held, recent = (runs / name for name in ("run-abandoned", "run-held", "run-recent"))
    for folder in (abandoned, held, recent):
        folder.mkdir(parents=True)
    with owned(held):
        for folder in (abandoned, held):
            os.utime(folder, (0, 0))
        with temporary_folder() as mine:
            assert set(runs.iterdir()) == {held, recent, mine}
    assert set(runs.iterdir()) == {held, recent}


def test_free_ports_are_never_given_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)


def test_a_free_port_is_given_to_one_process_only_as_long_as_that_lives() -> None:
    """Twelve at once, each of which holds a fortieth of all ports: by chance some would be the same."""
    program = (
        "from psephos_lab.ports import free_port; print(*(free_port() for _ in range(300)), flush=True); input()"
    )
    held = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(12)
    ]
    given = [int(port) for each in held if each.stdout is not None for port in each.stdout.readline().split()]
    for each in held:
        each.communicate("\n")
    assert len(set(given)) == len(given) == 3_600


def test_ports_in_a_row_are_all_given_away() -> None:
    first = free_port(row=6)
    later = {free_port() for _ in range(200)}
    assert later.isdisjoint(range(first, first + 6))
