"""A machine's disk, and the part of LMDB that the store uses.

What was committed survives the end of a process. When the power goes, what was not synced may survive in part:
an old meta page beside newer or lost data pages. A disk may be full: then a commit fails and nothing of its
transaction is there.
"""

import copy
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import lmdb
from tests.model.processes import Process, point, process

from psephos.roles.tally.store import FolderInUse

_PAGE = 4096
Tables = dict[bytes, dict[bytes, bytes]]


class Environment:
    """One LMDB file."""

    def __init__(self) -> None:
        self.committed: Tables = {}
        self.missing = 0  # voters that the meta page counts, but whose pages a power loss took
        self.damaged = False
        self.writer: Process | None = None
        self._versions: list[Tables] = [{}]  # [0] is synced, the others followed it

    def commit(self, written: Tables) -> None:
        tables = {name: dict(table) for name, table in self.committed.items()}
        for name, table in written.items():
            tables.setdefault(name, {}).update(table)
        self.committed = tables
        self._versions.append(tables)

    def sync(self) -> None:
        self._versions = [self.committed]

    def lose_power(self, seed: int) -> None:
        """Keeps the meta page of some version since the last sync. Where voters changed since then, pages of their
        tree may be of any version, or lost.
        """
        self.writer = None
        meta = self._versions[seed % len(self._versions)]
        voters = dict(meta.get(b"voters", {}))
        pages = [version.get(b"voters", {}) for version in self._versions]
        if voters and any(page != pages[0] for page in pages):
            for number, voter in enumerate(sorted(pages[-1])):
                survived = pages[(seed >> number) % len(pages)].get(voter)
                if survived is None or (seed >> (number + 3)) % 3 == 0:
                    voters.pop(voter, None)
                else:
                    voters[voter] = survived
            self.missing += len(meta[b"voters"]) - len(voters)
        self.committed = {**meta, b"voters": voters}
        self._versions = [self.committed]


class Machine:
    """Where a worker of one ordinal runs, again and again: its disk and its boot id."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boots = 1
        self.holder: Process | None = None
        self.full = ""  # "commit": commits fail; "spill": so do writes inside of a transaction
        self.full_of_stores = False  # a deleted store makes room
        self.files: dict[str, Environment] = {}
        self.copy: dict[str, Environment] = {}  # a backup of the files

    @property
    def boot_id(self) -> str:
        return f"{self.name} boot {self.boots}"

    def lose_power(self, seed: int) -> None:
        self.boots += 1
        for file in self.files.values():
            file.lose_power(seed)

    def back_up(self) -> None:
        self.copy = copy.deepcopy({name: _idle(file) for name, file in self.files.items()})

    def restore(self) -> None:
        self.files = copy.deepcopy(self.copy)


def _idle(file: Environment) -> Environment:
    """The file as a backup has it: what was committed, no writer."""
    kept = Environment()
    kept.committed = file.committed
    kept.missing = file.missing
    kept.sync()
    return kept


class Transaction:
    """One LMDB transaction."""

    def __init__(self, handle: "Handle", db: bytes, write: bool) -> None:
        self._handle = handle
        self._file = handle.file
        self._db = db
        self._write = write
        self._written: Tables = {}
        self._open = True

    def get(self, key: bytes, db: bytes | None = None) -> bytes | None:
        name = db or self._db
        found = self._written.get(name, {}).get(key)
        return self._file.committed.get(name, {}).get(key) if found is None else found

    def put(  # the real one takes the flags as positions as well, in this order
        self,
        key: bytes,
        value: bytes,
        dupdata: bool = True,
        overwrite: bool = True,
        append: bool = False,
        db: bytes | None = None,
    ) -> bool:
        if not overwrite and self.get(key, db) is not None:
            return False
        self._written.setdefault(db or self._db, {})[key] = value
        if self._handle.machine.full == "spill" and db is None:
            raise lmdb.MapFullError("mdb_put: no space left to spill pages")
        return True

    def cursor(self) -> "Cursor":
        return Cursor(self)

    def stat(self, db: bytes) -> Mapping[str, int]:
        known = self._file.committed.get(db, {}).keys() | self._written.get(db, {}).keys()
        return {"entries": len(known) + self._file.missing}

    def commit(self) -> None:
        point("store commit begins")
        if self._handle.machine.full:
            self.abort()
            raise lmdb.DiskError("mdb_txn_commit: No space left on device")
        if self._open:
            self._file.commit(self._written)
        self.abort()
        point("store commit done")

    def abort(self) -> None:
        if self._open and self._write:
            self._file.writer = None
        self._open = False

    def __enter__(self) -> "Transaction":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._write:
            self.commit()
        else:
            self.abort()


class Cursor:
    """Of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def putmulti(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in items:
            self._transaction.put(key, value)

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None: ...


class Handle:
    """An open environment, as one process sees it."""

    def __init__(self, file: Environment) -> None:
        self.file = file
        self.machine: Machine = process().machine
        self._transactions: list[Transaction] = []

    def open_db(self, name: bytes) -> bytes:
        return name

    def begin(self, *, write: bool = False, db: bytes = b"") -> Transaction:
        if write:
            self._lock()
        transaction = Transaction(self, db, write)
        self._transactions = [*(each for each in self._transactions if each._open), transaction]
        return transaction

    def info(self) -> Mapping[str, int]:
        return {"last_pgno": 0}

    def stat(self) -> Mapping[str, int]:
        return {"psize": _PAGE}

    def sync(self, _force: bool) -> None:
        point("store sync begins")
        self.file.sync()
        point("store synced")

    def close(self) -> None:
        for transaction in self._transactions:
            transaction.abort()

    def _lock(self) -> None:
        """One writer a file; a writer that was killed lets it go."""
        assert self.file.writer is not process(), "a second write transaction in one thread waits for ever"
        while self.file.writer is not None and self.file.writer.alive:
            point("waiting for the store's lock")
        self.file.writer = process()


class Lmdb:
    """Stands in for the module `lmdb`."""

    Error = lmdb.Error

    def open(self, path: str, **_: Any) -> Handle:
        point("opening the store")
        file = process().machine.files.setdefault(path, Environment())
        if file.damaged:
            raise lmdb.InvalidError(f"{path}: MDB_INVALID: File is not an LMDB file")
        return Handle(file)


class Shutil:
    """Stands in for the module `shutil`."""

    def rmtree(self, path: "Folder", **_: Any) -> None:
        point("deleting the store")
        machine = process().machine
        machine.files.pop(str(path), None)
        if machine.full_of_stores:
            machine.full = ""


class Claim:
    """A machine's folder, held by the process that runs now as `flock` would hold it."""

    def __init__(self, _folder: object) -> None:
        point("claiming the folder")
        machine = process().machine
        if machine.holder is not None and machine.holder.alive:
            raise FolderInUse("the folder is in use")
        machine.holder = process()

    def close(self) -> None:
        process().machine.holder = None


class Folder:
    """Stands in for a Path below the data folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self._name}/{name}")

    def __str__(self) -> str:
        return self._name

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=_PAGE)

    def mkdir(self, **_: Any) -> None:
        """Folders are made with the files in them."""
