"""Verifies voter tokens (JWT, RFC 7519). Pure: the key and the time are arguments.

The signature algorithms are PyJWT's, see `keys`; the rest is written out, for two reasons: a weight must be read
from the token's text without ever being a float, and the library's own path costs eight times more.
"""

import binascii
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from psephos.domain.session import Session, Tokens
from psephos.formats.votes import MAX_WEIGHT, WEIGHT_ONE
from psephos.roles.ingest.keys import Check, KeySet, one_key
from psephos.roles.ingest.problems import Problem, invalid_token

LEEWAY_S: Final = 5  # clocks of issuers differ by this much
MAX_TOKEN: Final = 8192
MAX_SUBJECT: Final = 1024
_WEIGHT_PLACES: Final = 6
_KNOWN_HEADERS: Final = 64  # one issuer has a handful of different headers; a bound for all others

_WEIGHT_TEXT: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")

_claims = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


class Voter(NamedTuple):
    """A voter. weight: millionths; segment: index, see `formats.votes.Vote`."""

    subject: str
    weight: int
    segment: int


class Electorate:
    """A session's reading of the weights and segments that an issuer or a gateway vouches for."""

    def __init__(self, session: Session) -> None:
        names = session.segment_names
        self.weighted = session.weighted
        self.segmented = bool(names)
        self._segments = {name: index for index, name in enumerate(names)}
        self._other = max(0, len(names) - 1)

    def voter(self, subject: object, weight: object, segment: object) -> Voter:
        """Returns the voter. Raises Problem not-eligible for a weight of 0, ValueError for impossible values."""
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
            raise ValueError(f"the subject must be a text of 1 to {MAX_SUBJECT} characters")
        if not self.weighted and not self.segmented:
            return Voter(subject, WEIGHT_ONE, self._other)
        index = self._segments.get(segment, self._other) if isinstance(segment, str) else self._other
        return Voter(subject, millionths(weight) if self.weighted else WEIGHT_ONE, index)


class Verifier:
    """Verifies tokens of one session."""

    def __init__(self, tokens: Tokens, electorate: Electorate, keys: KeySet | bytes) -> None:
        """Raises UnusableKey. `keys`: a set, or one key: HS256 secret, or public key in PEM."""
        self._electorate = electorate
        self._issuer = tokens.issuer
        self._audience = tokens.audience
        self._weight_claim = tokens.weight_claim
        self._segment_claim = tokens.segment_claim
        self.use(one_key(tokens.algorithms, keys) if isinstance(keys, bytes) else keys)

    def use(self, keys: KeySet) -> None:
        """Verifies with these keys, and no others, from now on."""
        self._keys = keys
        self._known_headers: dict[str, Check] = {}

    def verify(self, token: str, now_s: float) -> Voter:
        """Returns the voter whom the token names. Raises Problem: invalid-token (or UnknownKey), not-eligible."""
        if len(token) > MAX_TOKEN or not token.isascii():
            raise invalid_token(f"a token is ASCII text of at most {MAX_TOKEN} characters")
        signed, _, signature = token.rpartition(".")
        header, _, payload = signed.partition(".")
        check = self._known_headers.get(header) or self._check_of(header)
        if not check(signed.encode(), _base64url(signature)):
            raise invalid_token("the token's signature is wrong: it was not signed with this session's key")
        if len(self._known_headers) < _KNOWN_HEADERS:
            self._known_headers[header] = check
        return self._voter(_object(payload, "payload"), now_s)

    def _check_of(self, header: str) -> Check:
        members = _object(header, "header")
        check = self._keys.check_for(members.get("alg"), members.get("kid"))
        if "crit" in members or "b64" in members:
            raise invalid_token("the token's header has extensions (crit, b64), which are not allowed here")
        return check

    def _voter(self, claims: Mapping[str, Any], now_s: float) -> Voter:
        if claims.get("iss") != self._issuer:
            raise invalid_token("the token was not issued by this session's issuer (iss)")
        audience = claims.get("aud")
        if audience != self._audience and not (isinstance(audience, list) and self._audience in audience):
            raise invalid_token("the token is meant for another audience (aud)")
        expires, begins = _time(claims, "exp"), _time(claims, "nbf")
        if expires is None:
            raise invalid_token("the token has no time of expiry (exp)")
        if expires <= now_s - LEEWAY_S:
            raise invalid_token("the token has expired (exp): get a new one")
        if begins is not None and begins > now_s + LEEWAY_S:
            raise invalid_token("the token is not valid yet (nbf)")
        weight = claims.get(self._weight_claim) if self._weight_claim else None
        segment = claims.get(self._segment_claim) if self._segment_claim else None
        try:
            return self._electorate.voter(claims.get("sub"), weight, segment)
        except ValueError as error:
            raise invalid_token(f"the token's claims: {error}") from None


def millionths(value: object) -> int:
    """Converts a weight exactly: a whole number, a decimal, or either as text, with at most six places.

    Raises Problem not-eligible for 0, ValueError for anything that is not a weight.
    """
    exact = _decimal(value)
    if exact is None or exact < 0:
        raise ValueError("the weight must be a number such as 2 or 1.25")
    if exact == 0:
        raise Problem("not-eligible", "the voter's weight is 0")
    if exact > MAX_WEIGHT // WEIGHT_ONE:
        raise ValueError(f"the weight must be at most {MAX_WEIGHT // WEIGHT_ONE}")
    _, digits, exponent = exact.as_tuple()
    if not isinstance(exponent, int) or exponent < -_WEIGHT_PLACES:
        raise ValueError(f"the weight must have at most {_WEIGHT_PLACES} places")
    scale: int = 10 ** (exponent + _WEIGHT_PLACES)
    return int("".join(map(str, digits))) * scale


def _decimal(value: object) -> Decimal | None:
    is_number = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
    is_text = isinstance(value, str) and _WEIGHT_TEXT.fullmatch(value)
    return Decimal(value) if is_number or is_text else None  # type: ignore[arg-type]


def _object(segment: str, what: str) -> dict[str, Any]:
    try:
        return _claims.decode(_base64url(segment))
    except (ValueError, ArithmeticError, RecursionError):  # not JSON, numbers too large, nested too deeply
        raise invalid_token(f"the token's {what} is no JSON object") from None


def _base64url(text: str) -> bytes:
    standard = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    try:
        if "+" in text or "/" in text:
            raise ValueError
        return binascii.a2b_base64(standard, strict_mode=True)
    except ValueError:
        raise invalid_token("this is no token: three parts in base64url, with dots between, are needed") from None


def _time(claims: Mapping[str, Any], name: str) -> int | Decimal | None:
    """Returns seconds since 1970, None if the claim is missing."""
    value = claims.get(name)
    if value is not None and (not isinstance(value, (int, Decimal)) or isinstance(value, bool)):
        raise invalid_token(f"the token's {name} is not a number")
    return value
