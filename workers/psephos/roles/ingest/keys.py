"""The keys with which voter tokens are verified: a secret, a public key, or an issuer's published set. Pure.

A key fits only one algorithm, given by its own type, and the session pins the algorithms: so nothing accepts
`none`, a public key passed off as an HMAC secret, or a key meant for encryption.
"""

from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Any, Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError, PyJWTError

from psephos.formats.keyed_hash import KeyedHash
from psephos.platform.errors import PsephosError
from psephos.roles.ingest.problems import Problem, invalid_token

HS256_KEY_BYTES: Final = 32  # RFC 7518, 3.2
RSA_KEY_BITS: Final = 2048  # RFC 7518, 3.3
MAX_RSA_KEY_BITS: Final = 8192  # a larger one would only slow down verification
JWKS_LIMIT: Final = 256 * 1024
MAX_JWKS_KEYS: Final = 64

_ALGORITHMS: Final = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}  # by kty, crv

Check = Callable[[bytes, bytes], bool]
"""Returns whether a signature (second argument) is this key's over the signed bytes (first)."""


class UnusableKey(PsephosError, ValueError):
    """A token key or a published set does not fit the session. The message: one line, never revealing the key."""


class UnknownKey(Problem):
    """A token was signed by a key that is not known here; the issuer may have published it since."""

    def __init__(self) -> None:
        problem = invalid_token("the token names a key (kid) that its issuer has not published")
        super().__init__(problem.slug, problem.detail, headers=problem.headers)


class TokenKey(NamedTuple):
    """One key. kid: its name in an issuer's set, None if it has none."""

    kid: str | None
    algorithm: str
    check: Check


class KeySet:
    """The keys of a session's issuer at one time."""

    def __init__(self, keys: Sequence[TokenKey], *, allowed: Sequence[str], published: bool) -> None:
        """`published`: in a set that may change, so that tokens must name the key they are signed with."""
        self.keys = tuple(keys)
        self._allowed = tuple(allowed)
        self._published = published

    def check_for(self, algorithm: object, kid: object) -> Check:
        """Returns the check that a token's header asks for. Raises Problem invalid-token, or UnknownKey."""
        if algorithm not in self._allowed:
            allowed = ", ".join(self._allowed)
            raise invalid_token(f"the token's algorithm is not allowed here: allowed is {allowed}")
        fitting = [key for key in self.keys if key.algorithm == algorithm]
        if kid is not None and self._published:
            fitting = [key for key in fitting if key.kid == kid] or [key for key in fitting if key.kid is None]
        if not fitting:
            raise UnknownKey
        if len(fitting) > 1:
            raise invalid_token("the token does not say which of its issuer's keys it is signed with (kid)")
        return fitting[0].check


def one_key(algorithms: Sequence[str], key: bytes) -> KeySet:
    """Returns the set of a single key: the HS256 secret, or a public key in PEM. Raises UnusableKey."""
    if "HS256" in algorithms:
        if len(key) < HS256_KEY_BYTES:
            raise UnusableKey(f"the HS256 secret has {len(key)} bytes; {HS256_KEY_BYTES} or more are needed")
        return KeySet([TokenKey(None, "HS256", _check_with("HS256", key))], allowed=["HS256"], published=False)
    try:
        public = load_pem_public_key(key)
    except ValueError:
        raise UnusableKey("the token key is no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    algorithm = _algorithm_of(public)
    if algorithm is None or algorithm not in algorithms:
        allowed = ", ".join(algorithms)
        raise UnusableKey(
            f"the token key is for {algorithm or 'no known algorithm'}; the session allows {allowed}"
        )
    _require_size(public)
    return KeySet(
        [TokenKey(None, algorithm, _check_with(algorithm, public))], allowed=[algorithm], published=False
    )


def no_keys(algorithms: Sequence[str]) -> KeySet:
    """Returns what is known of an issuer before its set has been fetched: no keys."""
    return KeySet([], allowed=algorithms, published=True)


def parse_jwks(data: bytes, algorithms: Sequence[str]) -> KeySet:
    """Returns the usable keys of a published set (RFC 7517); those for other purposes are skipped.

    Raises UnusableKey for data that is not such a set, and for a set without a key that this session could use.
    """
    if len(data) > JWKS_LIMIT:
        raise UnusableKey(f"the key set is larger than {JWKS_LIMIT} bytes")
    try:
        members = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        raise UnusableKey("the key set is not JSON") from None
    entries = members.get("keys") if isinstance(members, dict) else None
    if not isinstance(entries, list):
        raise UnusableKey('the key set is no JSON object with a list of "keys"')
    if len(entries) > MAX_JWKS_KEYS:
        raise UnusableKey(f"the key set has {len(entries)} keys; at most {MAX_JWKS_KEYS} are taken")
    keys = [key for entry in entries if (key := _published_key(entry, algorithms)) is not None]
    if not keys:
        raise UnusableKey(f"the key set has no key to verify {', '.join(algorithms)} signatures with")
    names = [(key.kid, key.algorithm) for key in keys if key.kid is not None]
    if len(set(names)) < len(names):
        raise UnusableKey("the key set has two keys of one name (kid)")
    return KeySet(keys, allowed=algorithms, published=True)


def _published_key(entry: object, algorithms: Sequence[str]) -> TokenKey | None:
    """Returns a key, None if by type, curve, use or algorithm it is not for verifying tokens of this session."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    operations, kid = entry.get("key_ops", ["verify"]), entry.get("kid")
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(kid, str | None):
        return None
    algorithm = _ALGORITHMS.get((str(entry.get("kty")), str(entry.get("crv", ""))))
    if algorithm is None or algorithm not in algorithms or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        public = PyJWK(entry, algorithm).key
        _require_size(public)
        return TokenKey(kid, algorithm, _check_with(algorithm, public)) if _algorithm_of(public) else None
    except (PyJWTError, UnusableKey, ValueError, TypeError, KeyError):
        return None


def _algorithm_of(public: object) -> str | None:
    if isinstance(public, RSAPublicKey):
        return "RS256"
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(public, Ed25519PublicKey) else None


def _require_size(public: object) -> None:
    if isinstance(public, RSAPublicKey) and not RSA_KEY_BITS <= public.key_size <= MAX_RSA_KEY_BITS:
        bounds = f"{RSA_KEY_BITS} or more, up to {MAX_RSA_KEY_BITS},"
        raise UnusableKey(f"the RSA key has {public.key_size} bits; {bounds} are needed")


def _check_with(name: str, key: Any) -> Check:
    algorithm: Algorithm = get_default_algorithms()[name]
    try:
        prepared = algorithm.prepare_key(key)
    except InvalidKeyError as error:
        raise UnusableKey(f"the token key can't be used for {name}: {error}") from None
    if name == "HS256":
        return _hs256(prepared)
    return lambda signed, signature: algorithm.verify(signed, prepared, signature)


def _hs256(key: bytes) -> Check:
    """Returns a check that decides as the library's own, also in constant time, at a quarter of its cost."""
    keyed = KeyedHash(key).digest
    return lambda signed, signature: compare_digest(keyed(signed), signature)
