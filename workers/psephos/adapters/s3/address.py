"""Addresses of objects: s3://bucket/key. Pure.

NB: whatever follows the bucket is the literal key, as the cloud's own tools read it: nothing is percent-decoded,
and `?` and `#` are ordinary characters.
"""

from typing import NamedTuple

from psephos.domain.session import STORE_SCHEME


class Address(NamedTuple):
    """A location in a bucket: an object, or with `below` a name under it."""

    bucket: str
    key: str

    def below(self, *parts: str) -> "Address":
        """The address of this name under this one."""
        return Address(self.bucket, "/".join(part for part in (self.key.strip("/"), *parts) if part))

    def __str__(self) -> str:
        return f"{STORE_SCHEME}{self.bucket}/{self.key}"


def address_of(url: str | None) -> Address | None:
    """The address that an s3:// URL names; None for any other URL."""
    if url is None or not url.startswith(STORE_SCHEME):
        return None
    bucket, _, key = url.removeprefix(STORE_SCHEME).partition("/")
    return Address(bucket, key)


def exports_address(url: str | None, name: str, uid: str) -> Address | None:
    """The session's own address under its exports.url; None if that is not in an object store.

    It contains the uid, so sessions of the same name, in another namespace or later, never share an address.
    """
    address = address_of(url)
    return None if address is None else address.below(name, uid)
