"""The electoral roll in a running process: built by a child process, and again when its source changes."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from psephos.adapters.s3 import Address, ObjectStore, ObjectStoreError, ObjectVersion, address_of
from psephos.domain.session import Session
from psephos.platform.logs import get_logger
from psephos.platform.settings import PREFIX, Settings, SettingsError, environment
from psephos.roles.ingest import metrics
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.rollbuilder import AWAY, SOUND
from psephos.roles.ingest.rollfile import RollAway, RollFile, UnusableRoll
from psephos.roles.ingest.watching import changes, mark

BUILD_TIMEOUT_S: Final = 300.0
STORE_EVERY_S: Final = 10.0  # a store charges for each poll
log = get_logger()


class Source(Protocol):
    """A place that holds the text of the roll."""

    def current(self) -> tuple[str, ...]:
        """Returns the builder's arguments for the present content. Blocks. Raises UnusableRoll."""

    def changes(self) -> AsyncIterator[object]:
        """Yields each time the content differs from what `current` last returned."""

    def try_again(self) -> None:
        """Makes `changes` yield once more: what `current` last returned could not be read."""


class FileSource:
    """A file: a mounted ConfigMap, or one of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._since = mark(path)

    def current(self) -> tuple[str, ...]:
        return (str(self._path),)

    def changes(self) -> AsyncIterator[object]:
        return changes(self._path, self._since)

    def try_again(self) -> None:
        """Does nothing: a file that could not be read comes back only by a change."""


class ObjectSource:
    """An object in a store: its ETag identifies the content."""

    def __init__(self, store: ObjectStore, address: Address) -> None:
        self._store, self._address = store, address
        self._told: ObjectVersion | None = None

    def current(self) -> tuple[str, ...]:
        try:
            self._told = self._store.version(self._address)
        except ObjectStoreError as error:
            raise RollAway(str(error)) from None
        return (str(self._address), self._told.etag, str(self._told.size))

    async def changes(self) -> AsyncIterator[object]:
        trouble = ""
        while True:
            # Jitter: the processes of a session must not all poll, and then build, at the same moment.
            await asyncio.sleep(STORE_EVERY_S * random.uniform(0.75, 1.25))  # noqa: S311
            try:
                now = await asyncio.to_thread(self._store.version, self._address)
            except ObjectStoreError as error:
                if str(error) != trouble:
                    metrics.count_roll("failed")
                    log.warning("the roll can't be looked for, the old one stays in force", why=str(error))
                trouble = str(error)
                continue
            trouble = ""
            if now != self._told:
                yield now

    def try_again(self) -> None:
        self._told = None


class Roll:
    """The voters on the roll at present."""

    def __init__(self, settings: Settings, source: Source) -> None:
        """Builds the roll, or finds it built. Raises SettingsError."""
        self._settings = settings
        self._source = source
        try:
            self._file = self._built()
        except UnusableRoll as error:
            raise SettingsError(f"the electoral roll: {error}") from None

    def require(self, voter: bytes) -> None:
        """Raises Problem not-eligible unless this pseudonym is on the roll."""
        if voter not in self._file:
            raise Problem("not-eligible", "the voter is not on this session's electoral roll")

    @property
    def voters(self) -> int:
        return self._file.voters

    async def follow(self) -> None:
        """Runs as a task: takes a new roll once the source has changed; a broken one leaves the old in force."""
        async for _ in self._source.changes():
            try:
                new = await asyncio.to_thread(self._built)
            except (UnusableRoll, OSError) as error:
                if isinstance(error, RollAway):
                    self._source.try_again()
                metrics.count_roll("failed")
                log.error("new roll is unusable, the old one stays in force", why=str(error), voters=self.voters)
                continue
            old, self._file = self._file, new
            old.close()

    def _built(self) -> RollFile:
        began = monotonic()
        roll = RollFile(_build_by_child(self._settings, self._source.current()))
        metrics.count_roll("loaded", roll.voters)
        log.info("roll loaded", voters=roll.voters, seconds=round(monotonic() - began, 2))
        return roll


def roll_source(settings: Settings, session: Session) -> Source:
    """Returns the source: PSEPHOS_ROLL_FILE, or the session's s3:// or file:// URL. Raises SettingsError."""
    if settings.roll_file is not None:
        return FileSource(settings.roll_file)
    url = session.spec.voters.roll.url or "" if session.spec.voters.roll is not None else ""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FileSource(Path(unquote(parts.path)))
    address = address_of(url)
    if address is None or not settings.s3_enabled:
        raise SettingsError(
            "PSEPHOS_ROLL_FILE is not set: name the file that holds (a copy of) the electoral roll"
        )
    try:
        return ObjectSource(ObjectStore.of(settings), address)
    except ObjectStoreError as error:
        raise SettingsError(f"the electoral roll: {error}") from None


def _build_by_child(settings: Settings, content: tuple[str, ...]) -> Path:
    """Builds in a child: sorting a million lines would hold the interpreter for seconds, its memory forever."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "psephos.roles.ingest.rollbuilder", *content],
            env={**others, **environment(settings)},
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnusableRoll(f"it could not be built within {BUILD_TIMEOUT_S:.0f} s") from None
    if child.returncode != SOUND:
        lines = child.stderr.strip().splitlines() or [f"its builder ended with {child.returncode}"]
        raise RollAway(lines[-1]) if child.returncode == AWAY else UnusableRoll(lines[-1])
    return Path(child.stdout.strip())
