"""Gateway credentials of the batch endpoint: one per line, so that a new one is taken before the old one goes."""

import hashlib
import hmac
from pathlib import Path
from typing import Final

from psephos.platform.logs import get_logger
from psephos.platform.settings import SettingsError
from psephos.roles.ingest.watching import changes, mark

MIN_BYTES: Final = 16
MAX_CREDENTIALS: Final = 16
log = get_logger()


class Credentials:
    """The credentials that the file holds at present."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises SettingsError, which never reveals a credential."""
        self._path = path
        self._since = mark(path)
        self._digests = self._read()

    def accepts(self, credential: str) -> bool:
        """Returns whether this is a credential, in a time that does not depend on how much of it is right."""
        digest = hashlib.sha256(credential.encode(errors="surrogateescape")).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    async def follow(self) -> None:
        """Runs as a task: takes new credentials once the file has changed; unfit ones leave the old in force."""
        async for _ in changes(self._path, self._since):
            try:
                self._digests = self._read()
            except SettingsError as error:
                log.error("new batch credentials are unusable, the old ones stay in force", why=str(error))
            else:
                log.info("batch credentials loaded", credentials=len(self._digests))

    def _read(self) -> tuple[bytes, ...]:
        name = "PSEPHOS_BATCH_CREDENTIAL_FILE"
        try:
            lines = [line.strip() for line in self._path.read_bytes().splitlines()]
        except OSError as error:
            raise SettingsError(f"{name}: {self._path}: {error.strerror}") from None
        found = [line for line in lines if line]
        if not 0 < len(found) <= MAX_CREDENTIALS:
            raise SettingsError(f"{name}: {self._path} has {len(found)} lines, it needs 1 to {MAX_CREDENTIALS}")
        shortest = min(map(len, found))
        if shortest < MIN_BYTES:
            raise SettingsError(
                f"{name}: {self._path} holds {shortest} bytes, it needs {MIN_BYTES} in each of its lines"
            )
        return tuple(hashlib.sha256(line).digest() for line in found)
