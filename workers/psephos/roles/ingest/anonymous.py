"""Open sessions: anyone gets a signed token with a random subject, so that a browser has one vote.

This ensures one vote per browser, not per person. Anyone can discard a token and get another one, as often as
the per-address limit allows. Pure: time and randomness are arguments.
"""

import binascii
import hmac
from typing import Final

import msgspec

from psephos.domain.session import Tokens
from psephos.roles.ingest.keys import one_key
from psephos.roles.ingest.verifier import Electorate, Verifier

SUBJECT_BYTES: Final = 16
SHORTEST_TTL_S: Final = 24 * 3600
_LABEL: Final = b"psephos: anonymous tokens, version 1"
_encode = msgspec.json.Encoder().encode


class AnonymousTokens:
    """Mints the tokens of one open session, and verifies them."""

    def __init__(self, session_uid: str, session_key: bytes, electorate: Electorate) -> None:
        self._key = hmac.digest(session_key, _LABEL, "sha256")  # every process of the session has the same
        self._issuer = f"urn:psephos:session:{session_uid}"
        self._audience = session_uid
        self._header = _base64url(b'{"alg":"HS256","typ":"JWT"}')
        tokens = Tokens(algorithms=("HS256",), issuer=self._issuer, audience=self._audience)
        self.verifier = Verifier(tokens, electorate, one_key(("HS256",), self._key))

    def mint(self, random: bytes, now_s: int, closes_at_s: int | None) -> tuple[str, int]:
        """Returns a new token and its expiry, seconds since 1970. `random`: SUBJECT_BYTES of them, never reused.

        It is valid until the session closes, and for at least a day: extending a session must not make its voters
        ask for another token, and thus for another vote.
        """
        if len(random) != SUBJECT_BYTES:
            raise ValueError(f"a subject is made of {SUBJECT_BYTES} random bytes")
        expires = max(now_s + SHORTEST_TTL_S, closes_at_s or 0)
        claims = {
            "sub": _base64url(random).decode(),
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now_s,
            "exp": expires,
        }
        signed = self._header + b"." + _base64url(_encode(claims))
        return (signed + b"." + _base64url(hmac.digest(self._key, signed, "sha256"))).decode(), expires


def _base64url(data: bytes) -> bytes:
    text = binascii.b2a_base64(data, newline=False).rstrip(b"=")
    return text.replace(b"+", b"-").replace(b"/", b"_")
