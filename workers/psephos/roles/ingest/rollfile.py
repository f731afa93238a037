"""The electoral roll as a file that is searched without being read: sorted pseudonyms, 16 bytes each, mapped.

All processes on a machine share one copy in the page cache, and none holds it in its own memory. The file contains
no subjects, only what the session key makes of them, like the log.

| bytes | what |
|---|---|
| 0 to 7 | `PSEROLL1` |
| 8 to 15 | number of voters, big endian |
| 16 to 31 | identity of the roll: the start of an HMAC with the session key over its text, or an object's ETag |
| from 32 on | pseudonyms, ascending |

Building takes seconds and about 150 MB for a million voters, so a separate process does it, `rollbuilder`.
"""

import fcntl
import hmac
import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, Self

from psephos.formats.votes import VOTER_BYTES, voter_key
from psephos.platform.errors import PsephosError
from psephos.platform.files import write_whole

MAGIC: Final = b"PSEROLL1"
HEADER_BYTES: Final = 32
MAX_VOTERS: Final = 1_000_000
MAX_SOURCE: Final = 256 * 1024 * 1024
MAX_SUBJECT: Final = 1024  # characters, as in tokens
MAX_LINE: Final = 8 * MAX_SUBJECT  # bytes; anything longer is not a text of subjects
CHUNK: Final = 1024 * 1024


class UnusableRoll(PsephosError, ValueError):
    """The roll can't be used. The message is one line: where and why."""


class RollAway(UnusableRoll):
    """The roll can't be read at present: it may be tried again."""


class Text(Protocol):
    """The source of a roll's text, fixed to one content. Methods raise UnusableRoll."""

    def identity(self, session_key: bytes) -> bytes:
        """Returns 16 bytes that differ for different contents."""

    def chunks(self) -> Iterator[bytes]:
        """Yields the text, piece by piece."""


class FileText:
    """A file, identified by its content: one that was merely written again is the same roll.

    NB: read only once, otherwise a file replaced meanwhile would give one content's name to another's roll.
    """

    def __init__(self, path: Path) -> None:
        try:
            if path.stat().st_size > MAX_SOURCE:
                raise UnusableRoll(f"{path} is larger than {MAX_SOURCE} bytes")
            self._text = path.read_bytes()
        except OSError as error:
            raise UnusableRoll(f"{path}: {error.strerror}") from None

    def identity(self, session_key: bytes) -> bytes:
        return hmac.digest(session_key, self._text, "sha256")[:16]

    def chunks(self) -> Iterator[bytes]:
        return (self._text[at : at + CHUNK] for at in range(0, len(self._text), CHUNK))


def build(text: Text, folder: Path, session_uid: str, session_key: bytes) -> Path:
    """Returns the roll of this text, built unless it exists already; one process builds, others wait for it.

    Raises UnusableRoll.
    """
    identity = text.identity(session_key)
    target = folder / f"{session_uid}-{identity.hex()}.roll"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f"{session_uid}.lock"):
            if not _is_whole(target, identity):
                _write(target, identity, pseudonyms(text.chunks(), session_key))
            for old in folder.glob(f"{session_uid}-*.roll*"):
                if old != target:
                    old.unlink(missing_ok=True)  # a process that has it mapped keeps it until it takes the new one
    except OSError as error:
        raise UnusableRoll(f"{folder}: the roll can't be kept there: {error.strerror}") from None
    return target


def pseudonyms(chunks: Iterable[bytes], session_key: bytes) -> list[bytes]:
    """Returns the subjects' pseudonyms, sorted, without repeats. Ignores blank lines. Raises UnusableRoll."""
    found: set[bytes] = set()
    for number, line in enumerate(_lines(chunks), start=1):
        raw = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if not raw:
            continue
        try:
            subject = raw.decode()
        except UnicodeDecodeError:
            raise UnusableRoll(f"line {number} of the roll is not UTF-8") from None
        if len(subject) > MAX_SUBJECT:
            raise UnusableRoll(f"line {number} of the roll is longer than {MAX_SUBJECT} characters")
        found.add(voter_key(session_key, subject))
        if len(found) > MAX_VOTERS:
            raise UnusableRoll(f"the roll has more than {MAX_VOTERS} subjects; at most {MAX_VOTERS} are taken")
    if not found:
        raise UnusableRoll("the roll is empty: it needs a subject a line")
    return sorted(found)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    number, rest = 0, b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        number += len(lines)
        yield from lines
        if len(rest) > MAX_LINE:
            raise UnusableRoll(f"line {number + 1} of the roll is longer than {MAX_SUBJECT} characters")
    yield rest


class RollFile:
    """A roll, mapped into memory."""

    def __init__(self, path: Path) -> None:
        """Maps the file. Raises UnusableRoll."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UnusableRoll(f"{path}: {error}") from None
        self.voters = int.from_bytes(self._map[8:16], "big")
        if self._map[:8] != MAGIC or len(self._map) != HEADER_BYTES + self.voters * VOTER_BYTES:
            self._map.close()
            raise UnusableRoll(f"{path} is damaged")

    def __contains__(self, voter: bytes) -> bool:
        """Returns whether this pseudonym is on the roll: about 20 steps for a million voters."""
        table, low, high = self._map, 0, self.voters
        while low < high:
            middle = (low + high) >> 1
            at = HEADER_BYTES + (middle << 4)
            found = table[at : at + VOTER_BYTES]
            if found < voter:
                low = middle + 1
            elif found > voter:
                high = middle
            else:
                return True
        return False

    def close(self) -> None:
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_whole(path: Path, identity: bytes) -> bool:
    try:
        with RollFile(path), path.open("rb") as file:
            return file.read(HEADER_BYTES)[16:] == identity
    except UnusableRoll:
        return False


def _write(target: Path, identity: bytes, voters: list[bytes]) -> None:
    write_whole(target, MAGIC + len(voters).to_bytes(8, "big") + identity, b"".join(voters))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a lock. The kernel releases it when this process ends, however it ends."""
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
