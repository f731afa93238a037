"""An issuer's key set: which of its keys verify what, and how long it is kept."""

import json
from contextlib import suppress
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms
from tests.unit.ingest.test_verifier import GOOD, NOW, raw_token, refusal, session

from psephos.roles.ingest import jwks
from psephos.roles.ingest.jwks import LONGEST_AGE_S, SHORTEST_AGE_S, age_of
from psephos.roles.ingest.keys import JWKS_LIMIT, MAX_JWKS_KEYS, KeySet, UnknownKey, UnusableKey, parse_jwks
from psephos.roles.ingest.verifier import Electorate, Verifier

ALGORITHMS = ("RS256", "ES256", "EdDSA")
PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def jwk(algorithm: str, kid: str | None, key: Any = None, **changes: Any) -> dict[str, Any]:
    """A published key; None takes a member away."""
    public = (key or PRIVATE[algorithm]).public_key()
    document = get_default_algorithms()[algorithm].to_jwk(public, as_dict=True)
    members = {**document, "kid": kid, **changes}
    members.pop("key_ops", None) if "key_ops" not in changes else None
    return {name: value for name, value in members.items() if value is not None}


def published(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def verifier(keys: KeySet, algorithms: tuple[str, ...] = ALGORITHMS) -> Verifier:
    parsed = session(algorithms=list(algorithms), jwksUrl="https://id.example/keys")
    assert parsed.spec.voters.tokens is not None
    return Verifier(parsed.spec.voters.tokens, Electorate(parsed), keys)


def signed(algorithm: str, kid: str | None, key: Any = None) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(GOOD, key or PRIVATE[algorithm], algorithm, headers=headers)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_is_verified_with_the_key_that_it_names(algorithm: str) -> None:
    one = verifier(parse_jwks(published(*(jwk(each, each) for each in ALGORITHMS)), ALGORITHMS))
    assert one.verify(signed(algorithm, algorithm), NOW).subject == "ann"
    for _ in range(2):  # a header that is known by now as well
        assert one.verify(signed(algorithm, algorithm), NOW).subject == "ann"
    other = {"RS256": "ES256", "ES256": "EdDSA", "EdDSA": "RS256"}[algorithm]
    assert isinstance(refusal(signed(algorithm, other), one), UnknownKey)


def test_two_keys_at_once_verify_while_an_issuer_rotates() -> None:
    new = ec.generate_private_key(ec.SECP256R1())
    one = verifier(parse_jwks(published(jwk("ES256", "old"), jwk("ES256", "new", new)), ALGORITHMS))
    assert one.verify(signed("ES256", "old"), NOW).subject == "ann"
    assert one.verify(signed("ES256", "new", new), NOW).subject == "ann"
    assert "signature" in refusal(signed("ES256", "old", new), one).detail
    one.use(parse_jwks(published(jwk("ES256", "new", new)), ALGORITHMS))
    assert isinstance(refusal(signed("ES256", "old"), one), UnknownKey)  # also a header that was known before


def test_without_a_name_only_the_single_key_of_an_algorithm_is_taken() -> None:
    one = verifier(parse_jwks(published(jwk("ES256", "a"), jwk("EdDSA", None)), ALGORITHMS))
    assert one.verify(signed("ES256", None), NOW).subject == "ann"
    assert one.verify(signed("EdDSA", "anything"), NOW).subject == "ann"
    other = jwk("ES256", "b", ec.generate_private_key(ec.SECP256R1()))
    one = verifier(parse_jwks(published(jwk("ES256", "a"), other), ALGORITHMS))
    problem = refusal(signed("ES256", None), one)
    assert "kid" in problem.detail
    assert not isinstance(problem, UnknownKey)


def test_the_session_pins_the_algorithms_whatever_is_published() -> None:
    keys = published(jwk("ES256", "a"), jwk("RS256", "b"))
    one = verifier(parse_jwks(keys, ("ES256",)), ("ES256",))
    assert "algorithm" in refusal(signed("RS256", "b"), one).detail
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}
    with pytest.raises(UnusableKey):
        parse_jwks(published(secret), ("HS256",))
    public = json.dumps(jwk("ES256", "a")).encode()
    confused = raw_token(b'{"alg":"HS256","kid":"a"}', json.dumps(GOOD).encode(), public)
    assert "algorithm" in refusal(confused, one).detail
    unsigned = jwt.encode(GOOD, "", "none", headers={"kid": "a"})
    assert "algorithm" in refusal(unsigned, one).detail


P384 = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    "entry",
    [
        jwk("RS256", "a", use="enc"),
        jwk("RS256", "a", alg="RS512"),
        jwk("RS256", "a", alg="PS256"),
        jwk("RS256", "a", rsa.generate_private_key(65537, 1024)),
        jwk("RS256", "a", key_ops=["encrypt"]),
        jwk("RS256", "a", n="!"),
        jwk("RS256", "a", n=None),
        jwk("RS256", "a", n=5),
        jwk("ES256", "a", crv="P-384"),
        jwk("ES256", "a", crv=["P-256"]),
        jwk("ES256", "a", x="AAAA"),
        {**jwk("ES256", "a"), "kid": 7},
        jwk("EdDSA", "a", crv="X25519"),
        json.loads(get_default_algorithms()["ES256"].to_jwk(PRIVATE["ES256"])),
        "text",
        None,
    ],
)
def test_a_key_for_another_purpose_or_a_broken_one_is_passed_over(entry: Any) -> None:
    with pytest.raises(UnusableKey, match="no key to verify"):
        parse_jwks(json.dumps({"keys": [entry]}).encode(), ALGORITHMS)
    good = parse_jwks(json.dumps({"keys": [entry, jwk("EdDSA", "good")]}).encode(), ALGORITHMS)
    assert [key.kid for key in good.keys] == ["good"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no JSON object"),
        (b'{"keys": {}}', "no JSON object"),
        (b'{"keys": []}', "no key to verify"),
        (b" " * (JWKS_LIMIT + 1), "larger than"),
        (published(*[jwk("EdDSA", str(n)) for n in range(MAX_JWKS_KEYS + 1)]), "at most"),
        (published(jwk("EdDSA", "a"), jwk("EdDSA", "a")), "two keys of one name"),
    ],
)
def test_what_is_no_usable_set_is_said_in_one_line(data: bytes, expected: str) -> None:
    with pytest.raises(UnusableKey, match=expected) as caught:
        parse_jwks(data, ALGORITHMS)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["keys", "kty", "kid", "crv", "n", "e", "x", "y", "use", "alg", "d"]), inner
            )
        ),
    )
)
def test_any_json_is_a_set_or_refused(value: Any) -> None:
    for document in (value, {"keys": value}, {"keys": [value]}):
        with suppress(UnusableKey):
            assert parse_jwks(json.dumps(document).encode(), ALGORITHMS).keys


def test_an_issuers_age_is_respected_within_bounds() -> None:
    assert age_of("public, max-age=600, must-revalidate") == 600
    assert age_of("MAX-AGE = 600") == 600
    assert age_of("max-age=0, no-store") == SHORTEST_AGE_S
    assert age_of("max-age=999999999") == LONGEST_AGE_S
    assert age_of("s-maxage=900") == age_of(None) == age_of("max-age=soon") == jwks.DEFAULT_AGE_S
