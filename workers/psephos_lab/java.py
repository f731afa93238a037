"""Java and the jars of the local stack's servers: found or fetched, or one line that says what is missing.

The jars are fetched once with Maven into a cache folder named by a hash of everything they are made from, so
another version of the poms never meets old jars. The folder appears by a rename: it is there whole or not at
all, and two processes that fetch at once do no harm.

A virtual machine that finds its classes in an archive, already loaded and verified, starts with half the CPU.
`class_archives.py` makes one next to the jars. The virtual machine ignores an archive that does not fit: one of
another JDK, or of other jars.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from psephos_lab.errors import StackError
from psephos_lab.folder import cache_folder, require_space

#: Called with progress: the part of the stack, and the news about it.
Progress = Callable[[str, str], None]

_SOURCES = Path(__file__).parent / "jars"

#: Changes when the layout of what is made from the same sources changes.
_LAYOUT = b"2"

#: Room for the jars themselves, in bytes (they take about 110 MB, and Maven's own cache as much again).
_SPACE_FOR_JARS = 500_000_000

_MANIFEST = "META-INF/MANIFEST.MF"

_JDK_HINT = (
    "run `make setup`, or install a JDK, 17 or newer (Debian, Ubuntu: apt-get install default-jdk-headless)"
    ", or point JAVA_HOME at one"
)
_MAVEN_HINT = "run `make setup`, or install Maven (Debian, Ubuntu: apt-get install maven)"


@dataclass(frozen=True)
class Jars:
    """Locations of the servers' class files."""

    folder: Path

    @property
    def kafka(self) -> str:
        """Class path of the broker."""
        return f"{self.folder}/launch/kafka.jar:{self.folder}/kafka/*"

    @property
    def kafka_archive(self) -> Path:
        """Archive of the broker's classes for the virtual machine, if `class_archives.py` has made it."""
        return self.folder / "kafka.jsa"

    @property
    def dynamodb(self) -> str:
        """Class path of DynamoDB Local."""
        return f"{self.folder}/launch/dynamodb.jar:{self.folder}/dynamodb/*"

    @property
    def dynamodb_archive(self) -> Path:
        """As `kafka_archive`, for DynamoDB Local."""
        return self.folder / "dynamodb.jsa"

    @property
    def native(self) -> Path:
        """Folder of the native libraries that DynamoDB Local needs."""
        return self.folder / "dynamodb"


def class_archive(archive: Path) -> list[str]:
    """Returns the options by which a virtual machine uses the archive; none if it has not been made."""
    return [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds*=off"] if archive.exists() else []


def silent(_part: str, _news: str) -> None:
    """Discards progress."""


def find_java(tool: str = "java") -> str:
    """Returns the path of a JDK tool, from JAVA_HOME, else from the PATH. Raises StackError if there is none."""
    home = os.environ.get("JAVA_HOME")
    found = (shutil.which(tool, path=f"{home}/bin") if home else None) or shutil.which(tool)
    if found is None:
        raise StackError(f"Kafka and DynamoDB Local need Java, and `{tool}` was not found: {_JDK_HINT}")
    return found


def jars_folder() -> Path:
    """Returns the cache folder that this version's jars are, or will be, in."""
    digest = hashlib.sha256(_LAYOUT)
    for source in sorted(path for path in _SOURCES.rglob("*") if path.suffix in {".xml", ".java"}):
        digest.update(f"{source.relative_to(_SOURCES)}\0".encode())
        digest.update(source.read_bytes())
    return cache_folder() / f"jars-{digest.hexdigest()[:16]}"


def ensure_jars(progress: Progress = silent) -> Jars:
    """Returns the jars; fetches them if they aren't there yet (a minute or two with a cold Maven cache).

    Raises StackError if the JDK or Maven is missing, or the download failed.
    """
    find_java()
    folder = jars_folder()
    if folder.is_dir():
        return Jars(folder)
    javac = find_java("javac")
    if shutil.which("mvn") is None:
        raise StackError(
            f"the jars of Kafka and DynamoDB Local are fetched with Maven, and `mvn` was not found: {_MAVEN_HINT}"
        )
    require_space(folder.parent, _SPACE_FOR_JARS)
    progress("jars", "fetching Kafka and DynamoDB Local with Maven, once (about 110 MB)")
    with tempfile.TemporaryDirectory(prefix="jars-", dir=folder.parent) as temporary:
        made = Path(temporary) / "jars"
        _fetch(made)
        _compile(javac, made)
        for jar in made.glob("dynamodb/DynamoDBLocal-*.jar"):
            _forget_class_path(jar)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster, with the same content
                raise
    progress("jars", f"in {folder}")
    return Jars(folder)


def _fetch(to: Path) -> None:
    # Maven reads its poms from a copy: the installed package may be read-only.
    with tempfile.TemporaryDirectory(prefix="poms-", dir=to.parent) as temporary:
        poms = Path(temporary) / "poms"
        shutil.copytree(_SOURCES, poms)
        _run(
            ["mvn", "--batch-mode", "--quiet", "--file", str(poms / "pom.xml"), f"-Djars.out={to}", "package"],
            "Maven could not fetch the jars",
        )


def _compile(javac: str, jars: Path) -> None:
    """Compiles the launchers. NB: into jars, since a class path with a folder in it can't have an archive."""
    (jars / "launch").mkdir()
    for server, launcher in (("kafka", "KafkaBroker"), ("dynamodb", "LoopbackDynamoDb")):
        with tempfile.TemporaryDirectory(dir=jars) as classes:
            _run(
                [
                    *(javac, "--release", "17", "-implicit:none", "-proc:none"),
                    *("-cp", f"{jars / server}/*", "-d", classes),
                    str(_SOURCES / "launch" / f"{launcher}.java"),
                ],
                f"the launcher of {server} could not be compiled (is the JDK older than 17?)",
            )
            with zipfile.ZipFile(jars / "launch" / f"{server}.jar", "w") as jar:
                for compiled in Path(classes).iterdir():
                    jar.write(compiled, compiled.name)


def _forget_class_path(path: Path) -> None:
    """Removes the Class-Path of DynamoDB Local's own jar: a class path with the folder that it adds can't have an
    archive.

    Everything else that it names is in folders that don't exist: Maven puts all jars side by side.
    """
    copy = path.with_suffix(".new")
    with zipfile.ZipFile(path) as jar, zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED) as changed:
        for entry in jar.infolist():
            content = jar.read(entry)
            changed.writestr(entry, without_class_path(content) if entry.filename == _MANIFEST else content)
    copy.replace(path)


def without_class_path(manifest: bytes) -> bytes:
    """Returns a jar's manifest without its Class-Path. Lines that begin with a space continue the previous one."""
    return re.sub(rb"(?m)^Class-Path:.*\n(?: .*\n)*", b"", manifest)


def _run(command: list[str], failure: str) -> None:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        output = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        errors = [line for line in output if "ERROR" in line or "error" in line]
        reason = (errors or output or [f"exit code {result.returncode}"])[0]
        raise StackError(f"{failure}: {reason}")


if __name__ == "__main__":  # `make setup`: progress to standard error, the folder to standard output
    try:
        ready = ensure_jars(lambda part, news: print(f"{part}: {news}", file=sys.stderr))  # noqa: T201
    except StackError as error:
        sys.exit(f"psephos: {error}")
    print(ready.folder)  # noqa: T201
