"""The peers that have to be made ready once, in the cache folder: programs of ours for other stream processors.

Each folder there is named by a hash of what it is made from, and appears by a rename: whole or not at all.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from psephos_lab.errors import StackError
from psephos_lab.folder import cache_folder
from psephos_lab.java import find_java

_HERE = Path(__file__).parent


def streams(brokers: str, votes: str, tallies: str, group: str, folder: Path, *, threads: int) -> list[str]:
    """The command of the Kafka Streams peer. Raises StackError if it can't be made ready."""
    jars = _made("streams", _make_streams)
    return [
        *(find_java(), "-Xmx2g", "-XX:-UsePerfData", "-cp", f"{jars / 'classes'}:{jars / 'jars'}/*", "Tally"),
        *(brokers, votes, tallies, group, str(folder), str(threads), "false"),
    ]


def quix(brokers: str, votes: str, group: str, folder: Path) -> list[str]:
    """The command of the Quix Streams peer. Raises StackError if it can't be made ready."""
    environment = _made("quix", _make_quix)
    return [
        str(environment / "bin" / "python"),
        str(_HERE / "quix" / "tally.py"),
        brokers,
        votes,
        group,
        str(folder),
    ]


def _make_streams(made: Path) -> None:
    # Maven writes beside its pom: it works on a copy.
    source = made / "source"
    shutil.copytree(_HERE / "streams", source)
    _run("mvn", "--batch-mode", "--quiet", "--file", f"{source}/pom.xml", f"-Djars.out={made}/jars", "package")
    classes = ("-cp", f"{made}/jars/*", "-d", f"{made}/classes", f"{source}/Tally.java")
    _run(find_java("javac"), "--release", "17", *classes)


def _make_quix(made: Path) -> None:
    _run("uv", "venv", "--quiet", "--relocatable", "--python", sys.executable, str(made))
    requirements = str(_HERE / "quix" / "requirements.txt")
    _run("uv", "pip", "sync", "--quiet", "--python", f"{made}/bin/python", requirements)


def _made(name: str, make: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256()
    for source in sorted(each for each in (_HERE / name).iterdir() if each.is_file()):
        digest.update(source.name.encode() + source.read_bytes())
    folder = cache_folder() / f"bench-{name}-{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=folder.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        make(made)
        made.rename(folder)
    return folder


def _run(*command: str) -> None:
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StackError(
            f"`{command[0]}` was not found: run `make setup`, which installs what is missing"
        ) from None
    if result.returncode != 0:
        said = (result.stdout + result.stderr).strip().splitlines() or [f"exit code {result.returncode}"]
        raise StackError(f"a peer of the benchmark could not be made ready: {' '.join(command[:3])}: {said[-1]}")
