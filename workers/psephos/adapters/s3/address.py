"""Addresses of objects: s3://bucket/key. Pure.

NB: what follows the bucket is the key as it is, as the cloud's own tools read it: nothing is percent-decoded, and
`?` and `#` are characters like others.
"""

from typing import NamedTuple

from psephos.domain.session import STORE_SCHEME


class Address(NamedTuple):
    """A place in a bucket: an object, or with `below` what is named under it."""

    bucket: str
    key: str

    def below(self, *parts: str) -> "Address":
        """The place of this name under this one."""
        return Address(self.bucket, "/".join(part for part in (self.key.strip("/"), *parts) if part))

    def __str__(self) -> str:
        return f"{STORE_SCHEME}{self.bucket}/{self.key}"


def address_of(url: str | None) -> Address | None:
    """What an s3:// URL names, None for any other one."""
    if url is None or not url.startswith(STORE_SCHEME):
        return None
    bucket, _, key = url.removeprefix(STORE_SCHEME).partition("/")
    return Address(bucket, key)


def exports_address(url: str | None, name: str, uid: str) -> Address | None:
    """The session's own place under its exports.url, None if that is not in an object store.

    With its uid: sessions of the same name, in another namespace or after it, never share a place.
    """
    address = address_of(url)
    return None if address is None else address.below(name, uid)
