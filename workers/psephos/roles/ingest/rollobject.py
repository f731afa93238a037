"""The text of an electoral roll as an object in a store. None of its subjects touches a disk."""

import hmac
from collections.abc import Iterator

from psephos.adapters.s3 import Address, ObjectStore, ObjectStoreError, ObjectVersion, address_of
from psephos.platform.settings import Settings
from psephos.roles.ingest.rollfile import MAX_SOURCE, RollAway, UnusableRoll


class ObjectText:
    """An object in a store, identified by address and ETag: if its roll is built already, it need not be read."""

    def __init__(self, store: ObjectStore, address: Address, version: ObjectVersion) -> None:
        self._store, self._address, self._version = store, address, version

    def identity(self, session_key: bytes) -> bytes:
        return hmac.digest(session_key, f"{self._address}\n{self._version.etag}".encode(), "sha256")[:16]

    def chunks(self) -> Iterator[bytes]:
        if self._version.size > MAX_SOURCE:
            raise UnusableRoll(f"{self._address} is larger than {MAX_SOURCE} bytes")
        try:
            yield from self._store.chunks(self._address, self._version.etag)
        except ObjectStoreError as error:
            raise RollAway(str(error)) from None


def object_text(settings: Settings, url: str, etag: str, size: int) -> ObjectText:
    """Returns the text of this version of an object. Raises RollAway."""
    address = address_of(url)
    assert address is not None
    try:
        return ObjectText(ObjectStore.of(settings), address, ObjectVersion(etag, size))
    except ObjectStoreError as error:
        raise RollAway(str(error)) from None
