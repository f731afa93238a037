"""A run in which a test process dies or hangs ends soon, failed, says what happened, and leaves nothing."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.guards import leftovers

ROOT = Path(__file__).parents[3]
INNER = Path(__file__).with_name("inner.py")
ENDS_S = 60.0
PARALLEL = ("-n", "2", "--dist", "loadfile")
SKIPS = """
import pytest

def test_plain(): pass

@pytest.mark.skip(reason="quarantined")
def test_marked(): pass

def test_says_so(): pytest.skip("no server")

@pytest.mark.xfail(reason="to be mended")
def test_fails(): assert False

@pytest.mark.xfail(reason="to be mended", strict=False)
def test_passes(): pass
"""
QUICK = "import pytest\n@pytest.mark.parametrize('number', range(3))\ndef test_quick(number): pass\n"
LONG = """
import os, pathlib, time
def test_long():
    deadline = time.monotonic() + 300
    while os.environ.get("WHEN") in ("a test", "between tests") and time.monotonic() < deadline:
        time.sleep(0.05)
def test_never_run_where_it_waits(): pass
"""
VICTIM = """
import importlib, os, pathlib, subprocess, sys
import pytest
from conftest import die
from psephos.platform.child_process import ChildProcess

WAIT = [sys.executable, "-c", "import time; time.sleep(300)"]

@pytest.mark.timeout(1)
def test_that_starts_processes():
    child = ChildProcess("role", WAIT, pathlib.Path("role.log"))
    child.start()
    plain = subprocess.Popen(WAIT)
    orphan = subprocess.run(["sh", "-c", 'setsid "$@" >/dev/null & echo $!', "sh", *WAIT], stdout=subprocess.PIPE)
    pathlib.Path("pids").write_text(f"{child.pid} {plain.pid} {orphan.stdout.decode()}")
    print("a word of the test")
    os.system("echo a word of a program >&2")
    die("a test")

def test_after_it(): pass
"""


class Run(NamedTuple):
    """How an inner run ended."""

    code: int
    said: str
    left: list[int]
    """Processes that its tests had started and that are still there."""


def inner(folder: Path, *arguments: str, **variables: str) -> Run:
    """Runs the tests of a folder to their end."""
    (folder / "pytest.ini").write_text(
        "[pytest]\ntimeout = 60\npythonpath = .\naddopts = --import-mode=importlib -ra\n"
    )
    (folder / "conftest.py").write_text(INNER.read_text())
    plugins = ("xdist", "pytest_timeout")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *(f"-p{plugin}" for plugin in plugins), "-pno:cacheprovider", *arguments],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    print(done.stdout)
    pids = (folder / "pids").read_text().split() if (folder / "pids").exists() else ()
    return Run(done.returncode, done.stdout, [int(pid) for pid in pids if int(pid) in leftovers.parents()])


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Files of which some stay together, one is long, and one has the test that starts processes."""
    files = {f"tests/unit/test_{number}.py": QUICK for number in range(4)}
    files |= {
        "tests/apiserver/test_a.py": QUICK,
        "tests/faults/test_long.py": LONG,
        "tests/unit/test_zz.py": VICTIM,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("when", "number", "said"),
    [
        ("a test", "SIGABRT", "died by SIGABRT while running tests/unit/test_zz.py::test_that_starts_processes\n"),
        ("a test", "SIGKILL", "died by SIGKILL while running tests/unit/test_zz.py::test_that_starts_processes\n"),
        (
            "a test",
            "SIGSTOP",
            "died by SIGABRT while running tests/unit/test_zz.py::test_that_starts_processes, which took too long",
        ),
        (
            "between tests",
            "SIGKILL",
            "died by SIGKILL between tests, after tests/unit/test_zz.py::test_that_starts_processes\n",
        ),
        ("collecting", "SIGABRT", "died by SIGABRT while starting\n"),
        ("after its end", "SIGABRT", "died by SIGABRT while ending\n"),
    ],
    ids=["abort", "kill", "stop", "kill-between-tests", "abort-collecting", "abort-after-its-end"],
)
def test_a_test_process_that_dies_ends_the_run_by_name_and_leaves_nothing(
    many: Path, when: str, number: str, said: str
) -> None:
    run = inner(many, *PARALLEL, WHEN=when, NUMBER=number)
    assert time.time() - (many / "died").stat().st_mtime < ENDS_S
    assert run.code != 0
    assert re.search(rf"test process gw\d \(process \d+\) {re.escape(said)}", run.said)
    if number != "SIGKILL":
        assert "Fatal Python error: Aborted" in run.said, "where its threads stood"
    assert f"last output of each test process: {many}/psephos-test-processes-" in run.said
    if when == "a test":
        assert "FAILED tests/unit/test_zz.py::test_that_starts_processes" in run.said
        assert "a word of the test" in run.said
        assert "a word of a program" in run.said
    assert run.left == []


@pytest.mark.parametrize("arguments", [PARALLEL, ()], ids=["parallel", "alone"])
def test_a_process_that_is_left_running_fails_the_run_by_the_name_of_its_test_and_is_ended(
    many: Path, arguments: tuple[str, ...]
) -> None:
    run = inner(many, *arguments, "tests/unit/test_zz.py", "tests/unit/test_0.py")
    assert run.code == pytest.ExitCode.TESTS_FAILED
    assert "5 passed" in run.said
    lines = re.findall(
        r"^process \d+, started in (.*?) \(call\): \S*python\S* -c import time", run.said, re.MULTILINE
    )
    assert lines == ["tests/unit/test_zz.py::test_that_starts_processes"] * 3
    assert run.left == []


def test_what_is_skipped_or_expected_to_fail_counts_as_failed(tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPS)
    (tmp_path / "test_whole_file.py").write_text(
        "import pytest\npytest.skip('all of it', allow_module_level=True)\n"
    )
    run = inner(tmp_path, "--continue-on-collection-errors")
    assert run.code == pytest.ExitCode.TESTS_FAILED
    assert "= 3 failed, 1 passed, 2 errors in" in run.said
    assert all(f"{why}\nA test that is skipped" in run.said for why in ("quarantined", "no server", "all of it"))
    assert run.said.count("\nexpected to fail: to be mended\n") == 2


def test_a_run_that_passes_leaves_no_folder_of_its_processes(many: Path) -> None:
    (many / "tests/unit/test_zz.py").unlink()
    run = inner(many, *PARALLEL, WHEN="never")
    assert run.code == 0
    assert "17 passed" in run.said
    assert list(many.glob("psephos-test-processes-*")) == []
