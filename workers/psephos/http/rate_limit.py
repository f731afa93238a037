"""Rate limits per client and per voter: token buckets, and the header fields about them. Pure.

A bucket is one number: the time at which it is full again (the generic cell rate algorithm, ITU-T I.371). A bucket
whose time has passed is equivalent to none, so buckets are kept in two generations, and the older one is discarded
as a whole: no sweeping, and memory is bounded.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import ceil
from typing import Final, Generic, TypeVar

from psephos.platform.errors import PsephosError

MAX_BUCKETS: Final = 50_000  # per generation; there are two
IPV6_PREFIX_BITS: Final = 64  # the least that one customer has, so that its addresses count as one client
_KNOWN_ADDRESSES: Final = 8192
_LONGEST_ADDRESS: Final = 64  # characters that are kept of a claimed address

Key = TypeVar("Key", str, bytes)


class LimitReached(PsephosError):
    """The limit is used up. headers: for the response to the client."""

    def __init__(self, detail: str, headers: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.headers = headers


class Limit(Generic[Key]):
    """A limit on the requests of each key, per second and at once."""

    def __init__(self, name: str, rate: float, burst: int, *, max_buckets: int = MAX_BUCKETS) -> None:
        """`rate`: per second, above 0; `name`: of the policy, as clients see it."""
        self.policy = f'"{name}";q={burst};w={ceil(burst / rate)}'
        self._name = name
        self._interval = 1 / rate
        self._window = burst / rate
        self._max_buckets = max_buckets
        self._young: dict[Key, float] = {}
        self._old: dict[Key, float] = {}
        self._began = float("-inf")

    def take(self, key: Key, now: float) -> str:
        """Takes one; returns the RateLimit field for the response. Raises LimitReached if none is left."""
        young = self._young
        full_at = young.get(key) or self._old.get(key, now)
        if full_at < now:
            full_at = now
        after = full_at + self._interval - now
        if after > self._window + 1e-9:
            raise self._used_up(after - self._window, full_at - now)
        if now - self._began > self._window or len(young) >= self._max_buckets:
            self._old, self._young, self._began = young, {}, now
            young = self._young
        young[key] = full_at + self._interval
        return f'"{self._name}";r={int((self._window - after) / self._interval + 1e-6)};t={ceil(after)}'

    def __len__(self) -> int:
        """Number of buckets that are kept."""
        return len(self._young) + len(self._old)

    def _used_up(self, wait_s: float, full_in_s: float) -> LimitReached:
        headers = {
            "Retry-After": str(max(1, ceil(wait_s))),
            "RateLimit": f'"{self._name}";r=0;t={ceil(full_in_s)}',
            "RateLimit-Policy": self.policy,
        }
        return LimitReached(f"too many requests of one {self._name}: wait and try again", headers)


def client_of(peer: str | None, headers: Mapping[str, str], trusted_proxies: int) -> str | None:
    """The client of a request: an IPv4 address, or the first half of an IPv6 one; None for this machine.

    Behind proxies it is the address that the outermost trusted one has seen: each appends to X-Forwarded-For, and
    anything to the left of that may be forged by the client.
    """
    if trusted_proxies:
        hops = _forwarded(headers)
        if hops:
            named = client_key(hops[-min(trusted_proxies, len(hops))].strip()[:_LONGEST_ADDRESS])
            if named != "":
                return named or "127.0.0.1"
    return client_key(peer or "")


def _forwarded(headers: Mapping[str, str]) -> list[str]:
    every = headers.getall("X-Forwarded-For", ()) if hasattr(headers, "getall") else ()
    return ",".join(every).split(",") if every else []


@lru_cache(_KNOWN_ADDRESSES)
def client_key(text: str) -> str | None:
    """The key of an address: for IPv6 its network; None for this machine's own; empty if it is not an address."""
    address = _address(text)
    if address is None:
        return ""
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is None:
            network = int(address) >> (128 - IPV6_PREFIX_BITS)
            return None if address.is_loopback else f"{network:x}::/{IPV6_PREFIX_BITS}"
        address = mapped
    return None if address.is_loopback else str(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Parses an address with or without a port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1]:80."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
