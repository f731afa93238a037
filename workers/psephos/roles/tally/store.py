"""The local dedup store of one partition: an LMDB environment, one write transaction per batch.

NB: all work on an environment happens in one thread: nothing else keeps two transactions apart. The store is a
cache of the ledger: if anything about it is in doubt, it is wiped and rebuilt from the blocks.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import IO, NamedTuple

import lmdb
import msgspec

from psephos.platform.errors import PsephosError

MAP_BYTES = 1 << 36  # address space, not disk: the file grows with its content
FORMAT = 1
_META = b"meta"


class StoreFailed(PsephosError):
    """The store could not take a transaction (disk full, damaged file): wipe it and rebuild it."""


class FolderInUse(PsephosError):
    """Another process uses this folder. The message is one line."""


def claim(folder: Path) -> IO[bytes]:
    """Locks the folder of a worker's stores for this process, until the file is closed or the process ends.

    Two processes in one store would each find voters in it whom only the other has counted. Raises FolderInUse.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FolderInUse(f"{folder} is in use: another process runs with this worker's ordinal") from None
    return file


@contextlib.contextmanager
def store_failing(path: Path) -> Iterator[None]:
    """Turns LMDB errors raised in the block into StoreFailed."""
    try:
        yield
    except lmdb.Error as error:
        raise StoreFailed(f"{path}: {error}") from None


class Meta(msgspec.Struct, array_like=True, frozen=True):
    """A store's record of itself. `clean`: it was closed properly, so that a later boot may trust it."""

    format: int
    session: str
    partition: int
    hash: bytes
    end: int
    boot_id: str
    clean: bool


class Identity(NamedTuple):
    """The session, partition and boot that a store must belong to."""

    session: str
    partition: int
    boot_id: str


class Transaction:
    """One open write transaction: the `Voters` that `decide` works on."""

    def __init__(self, transaction: "lmdb.Transaction") -> None:
        self._transaction = transaction
        # Bound once: an extra call per vote would be noticeable.
        self.get: Callable[[bytes], bytes | None] = transaction.get  # type: ignore[assignment]
        self.put: Callable[[bytes, bytes], object] = transaction.put

    def add(self, voter: bytes, value: bytes) -> bool:
        added: bool = self._transaction.put(voter, value, overwrite=False)
        return added

    def add_all(self, voters: Sequence[bytes], values: Iterable[bytes]) -> list[bool]:
        # NB: positional (dupdata, overwrite): as keyword arguments they cost as much as the rest of the call.
        return list(map(self._transaction.put, voters, values, repeat(True), repeat(False)))

    def put_all(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        with self._transaction.cursor() as cursor:
            cursor.putmulti(items)

    def abort(self) -> None:
        """Rolls back. May be called again."""
        self._transaction.abort()


class Store:
    """The voters of one partition up to the block whose hash is `meta.hash`."""

    def __init__(self, path: Path, identity: Identity, genesis_hash: bytes) -> None:
        """Opens the store, or creates an empty one if it is missing, damaged, foreign, or not to be trusted after
        a power loss. `was_wiped` says why it was not used as found, None if it was. Raises StoreFailed.
        """
        self.path = path
        self._identity = identity
        self._genesis_hash = genesis_hash
        self.was_wiped: str | None = None
        try:
            self._take_or_reset()
            self._mark_in_use()
        except (lmdb.Error, OSError) as error:
            self._close_file()
            raise StoreFailed(f"{path}: {error}") from None

    def begin(self) -> Transaction:
        """Opens the write transaction of a batch. Raises StoreFailed."""
        with store_failing(self.path):
            return Transaction(self._env.begin(write=True, db=self._voters))

    def commit(self, transaction: Transaction, block_hash: bytes, end: int) -> None:
        """Commits a batch together with the hash and end of its block. Raises StoreFailed."""
        with store_failing(self.path):
            self.meta = self._meta(block_hash, end, clean=False)
            transaction._transaction.put(_META, msgspec.msgpack.encode(self.meta), db=self._info)
            transaction._transaction.commit()

    def voters(self) -> int:
        """Returns the number of known voters. Raises StoreFailed."""
        with store_failing(self.path), self._env.begin() as transaction:
            return int(transaction.stat(self._voters)["entries"])

    def delete(self) -> None:
        """Deletes the store: the next one opened here starts from the first block."""
        self._close_file()
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Marks that everything is on disk, so that a later boot may trust it; without room for that, it won't."""
        with contextlib.suppress(lmdb.Error):
            self._env.sync(True)
            self._write_meta(clean=True)
            self._env.sync(True)
        self._close_file()

    def _mark_in_use(self) -> None:
        """Marks the store as in use.

        NB: on disk before anything else changes. Otherwise a power loss could leave a store that is torn but
        marked as closed properly.
        """
        self._write_meta(clean=False)
        self._env.sync(True)

    def _close_file(self) -> None:
        if hasattr(self, "_env"):
            self._env.close()

    def _take_or_reset(self) -> None:
        try:
            self._open()
        except (lmdb.Error, msgspec.DecodeError, OSError) as error:
            self._reset(f"unreadable: {error}")
        else:
            if (doubt := self._doubt()) is not None:
                self._reset(doubt)

    def _open(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._env = lmdb.open(
            str(self.path),
            map_size=MAP_BYTES,
            max_dbs=2,
            # A process crash loses nothing; a power loss shows in the boot id, and blocks rebuild the store.
            sync=False,
            metasync=False,
            readahead=False,
            # NB: the claim on the folder and the single thread exclude others. LMDB's own lock file is mapped
            # memory: touching it on a full disk ends the process (SIGBUS) instead of raising an error.
            lock=False,
        )
        _require_whole(self._env, self.path)
        self._voters = self._env.open_db(b"voters")
        self._info = self._env.open_db(b"info")
        with self._env.begin(db=self._info) as transaction:
            raw = transaction.get(_META)
        self.meta = msgspec.msgpack.decode(raw, type=Meta) if raw else self._meta(self._genesis_hash, 0)

    def _doubt(self) -> str | None:
        """Returns why this store can't be trusted, None if it can."""
        meta, identity = self.meta, self._identity
        if (meta.format, meta.session, meta.partition) != (FORMAT, identity.session, identity.partition):
            return f"of format {meta.format}, session {meta.session}, partition {meta.partition}"
        if meta.boot_id != identity.boot_id and not meta.clean:
            return "not closed in order before the machine started again"
        return None

    def _reset(self, why: str) -> None:
        self.was_wiped = why
        self.delete()
        self._open()

    def _meta(self, block_hash: bytes, end: int, *, clean: bool = False) -> Meta:
        identity = self._identity
        return Meta(FORMAT, identity.session, identity.partition, block_hash, end, identity.boot_id, clean)

    def _write_meta(self, *, clean: bool) -> None:
        self.meta = self._meta(self.meta.hash, self.meta.end, clean=clean)
        with self._env.begin(write=True, db=self._info) as transaction:
            transaction.put(_META, msgspec.msgpack.encode(self.meta))


def _require_whole(env: "lmdb.Environment", path: Path) -> None:
    """Raises lmdb.CorruptedError if the file ends before its last page: touching it would end the process."""
    wanted = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    found = (path / "data.mdb").stat().st_size
    if found < wanted:
        raise lmdb.CorruptedError(f"the file has {found} bytes, its pages need {wanted}")


def boot_id() -> str:
    """Returns an id that changes with each boot. The fault suite simulates a boot by `PSEPHOS_TEST_BOOT_ID`."""
    if (simulated := os.environ.get("PSEPHOS_TEST_BOOT_ID")) is not None:
        return simulated
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
