"""Which tokens are taken, and what they say of the voter."""

import base64
import json
from decimal import Decimal
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from psephos.client.tokens import signer
from psephos.domain.session import Session, parse_session
from psephos.formats.votes import MAX_WEIGHT, WEIGHT_ONE
from psephos.roles.ingest.keys import UnusableKey
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.verifier import LEEWAY_S, MAX_TOKEN, Electorate, Verifier, Voter, millionths

NOW = 1_800_000_000
SECRET = b"s" * 32
GOOD = {"sub": "ann", "iss": "https://id.example", "aud": "final", "exp": NOW + 60}
WEIGHTED: dict[str, Any] = {"weightClaim": "weight", "segmentClaim": "country"}


def session(segments: tuple[str, ...] = (), **tokens: Any) -> Session:
    return parse_session(
        {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "final"},
            "spec": {
                "ballot": {"type": "single", "options": [{"id": "ada"}, {"id": "bob"}]},
                "voters": {
                    "tokens": {"issuer": "https://id.example", "audience": "final", **tokens},
                    "segments": list(segments),
                },
            },
        }
    )


def verifier(key: bytes = SECRET, segments: tuple[str, ...] = (), **tokens: Any) -> Verifier:
    parsed = session(segments, **tokens)
    assert parsed.spec.voters.tokens is not None
    return Verifier(parsed.spec.voters.tokens, Electorate(parsed), key)


def token(**changes: Any) -> str:
    """A good HS256 token, but for changed claims; None takes one away."""
    claims = {**GOOD, **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, SECRET, "HS256")


def raw_token(header: bytes, payload: bytes, key: bytes = SECRET) -> str:
    """Any bytes, properly signed with HS256."""
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    signature = jwt.algorithms.get_default_algorithms()["HS256"].sign(signed, key)
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


HEADER = b'{"alg":"HS256","typ":"JWT"}'


def refusal(text: str, of: Verifier | None = None, now: float = NOW) -> Problem:
    with pytest.raises(Problem) as caught:
        (of or verifier()).verify(text, now)
    return caught.value


def test_a_good_token_names_its_voter() -> None:
    assert verifier().verify(token(), NOW) == Voter("ann", WEIGHT_ONE, 0)
    assert verifier().verify(token(aud=["other", "final"]), NOW).subject == "ann"
    assert verifier().verify(token(exp=NOW + 0.5), NOW).subject == "ann"


def test_what_the_local_stack_mints_is_taken() -> None:
    text = signer("HS256", SECRET)({**GOOD, "iat": NOW, "weight": "1.25", "country": "se"})
    assert verifier(segments=("no", "se"), **WEIGHTED).verify(text, NOW) == Voter("ann", 1_250_000, 1)


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"aud": "other"}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": ["other"]}, "aud"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"exp": None}, "exp"),
        ({"exp": NOW - LEEWAY_S}, "exp"),
        ({"exp": "soon"}, "exp"),
        ({"exp": True}, "exp"),
        ({"nbf": NOW + LEEWAY_S + 1}, "nbf"),
        ({"nbf": "then"}, "nbf"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": "x" * 2000}, "subject"),
    ],
)
def test_a_wrong_claim_is_named(changes: dict[str, Any], claim: str) -> None:
    text = raw_token(HEADER, json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not None}).encode())
    problem = refusal(text)
    assert problem.slug == "invalid-token"
    assert claim in problem.detail


def test_clocks_may_differ_by_the_leeway() -> None:
    assert verifier().verify(token(exp=NOW - LEEWAY_S + 1, nbf=NOW + LEEWAY_S), NOW).subject == "ann"


def test_a_token_expires_for_a_verifier_that_has_seen_it() -> None:
    one, text = verifier(), token()
    assert one.verify(text, NOW).subject == "ann"
    assert refusal(text, one, NOW + 60 + LEEWAY_S).slug == "invalid-token"


def test_no_signature_is_not_a_signature() -> None:
    unsigned = jwt.encode(GOOD, "", "none")
    stripped = unsigned.rpartition(".")[0]
    good_signature = token().rpartition(".")[2]
    for text in (unsigned, f"{stripped}.{good_signature}", token().rpartition(".")[0] + "."):
        assert refusal(text).slug == "invalid-token"
    for algorithm in (b"none", b"None", b"NONE", b"HS384", b"RS256"):
        assert "algorithm" in refusal(raw_token(b'{"alg":"' + algorithm + b'"}', json.dumps(GOOD).encode())).detail


def test_a_signature_by_another_key_or_over_other_claims_is_refused() -> None:
    assert "signature" in refusal(jwt.encode(GOOD, b"o" * 32, "HS256")).detail
    header, _, signature = token().split(".")
    other = token(sub="eve").split(".")[1]
    assert "signature" in refusal(f"{header}.{other}.{signature}").detail


@given(st.integers(0, 42), st.integers(1, 63))
def test_no_character_of_the_signature_is_free(position: int, shift: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    signed, _, signature = token().rpartition(".")
    changed = alphabet[(alphabet.index(signature[position]) + shift) % 64]
    forged = signature[:position] + changed + signature[position + 1 :]
    if position == 42 and alphabet.index(changed) >> 2 == alphabet.index(signature[42]) >> 2:
        return  # the last character has two bits that stand for nothing
    assert refusal(f"{signed}.{forged}").slug == "invalid-token"


@given(st.text(max_size=200))
def test_text_that_is_no_token_is_refused(text: str) -> None:
    assert refusal(text).slug == "invalid-token"


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_parts_that_are_no_json_objects_are_refused(header: bytes, payload: bytes) -> None:
    assert refusal(raw_token(header, payload)).slug == "invalid-token"
    assert refusal(raw_token(HEADER, payload)).slug == "invalid-token"


@pytest.mark.parametrize(
    "payload", [b"[]", b"null", b'{"exp": 1e99999999999999999999}', b"[" * 5000, b'{"exp": NaN}', b"{}", b""]
)
def test_strange_json_is_refused(payload: bytes) -> None:
    assert refusal(raw_token(HEADER, payload)).slug == "invalid-token"


def test_extensions_that_must_be_understood_are_refused() -> None:
    for header in (b'{"alg":"HS256","crit":["b64"],"b64":false}', b'{"alg":"HS256","b64":false}'):
        assert "extensions" in refusal(raw_token(header, json.dumps(GOOD).encode())).detail


def test_a_long_token_is_not_even_read() -> None:
    assert "at most" in refusal("x" * (MAX_TOKEN + 1)).detail


# --- Keys


def pem(private: Any) -> tuple[bytes, bytes]:
    """Private and public."""
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


RSA = pem(rsa.generate_private_key(65537, 2048))
EC = pem(ec.generate_private_key(ec.SECP256R1()))
ED = pem(ed25519.Ed25519PrivateKey.generate())


@pytest.mark.parametrize(("algorithm", "keys"), [("RS256", RSA), ("ES256", EC), ("EdDSA", ED)])
def test_public_keys_verify_their_own_algorithm(algorithm: str, keys: tuple[bytes, bytes]) -> None:
    one = verifier(keys[1], algorithms=[algorithm])
    good = jwt.encode(GOOD, keys[0], algorithm)
    assert one.verify(good, NOW).subject == "ann"
    signed, _, signature = good.rpartition(".")
    forged = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert "signature" in refusal(f"{signed}.{forged}", one).detail
    assert "signature" in refusal(f"{signed}.{signature[:40]}", one).detail
    assert "algorithm" in refusal(token(), one).detail


@pytest.mark.parametrize(("algorithm", "keys"), [("RS256", RSA), ("ES256", EC), ("EdDSA", ED)])
def test_a_public_key_is_never_a_secret(algorithm: str, keys: tuple[bytes, bytes]) -> None:
    """The classic: an HS256 token that is signed with the text of the public key."""
    confused = raw_token(HEADER, json.dumps(GOOD).encode(), keys[1])
    assert "algorithm" in refusal(confused, verifier(keys[1], algorithms=[algorithm])).detail
    lying = raw_token(b'{"alg":"' + algorithm.encode() + b'"}', json.dumps(GOOD).encode(), keys[1])
    assert "signature" in refusal(lying, verifier(keys[1], algorithms=[algorithm])).detail


def test_with_several_algorithms_the_key_says_which_one_it_is() -> None:
    one = verifier(EC[1], algorithms=["RS256", "ES256"])
    assert one.verify(jwt.encode(GOOD, EC[0], "ES256"), NOW).subject == "ann"
    assert "algorithm" in refusal(jwt.encode(GOOD, RSA[0], "RS256"), one).detail


SMALL_RSA = pem(rsa.generate_private_key(65537, 1024))[1]
OTHER_CURVE = pem(ec.generate_private_key(ec.SECP384R1()))[1]


@pytest.mark.parametrize(
    ("algorithm", "key", "expected"),
    [
        ("HS256", b"short", "32 or more"),
        ("HS256", RSA[1], "can't be used"),
        ("RS256", b"not a key", "no public key"),
        ("RS256", RSA[0], "no public key"),
        ("RS256", EC[1], "is for ES256"),
        ("RS256", SMALL_RSA, "2048 or more"),
        ("ES256", OTHER_CURVE, "no known algorithm"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_at_the_start(algorithm: str, key: bytes, expected: str) -> None:
    with pytest.raises(UnusableKey, match=expected) as caught:
        verifier(key, algorithms=[algorithm])
    assert "\n" not in str(caught.value)


# --- Weights and segments


@given(st.integers(1, MAX_WEIGHT))
def test_a_weight_is_exact_whatever_its_form(units: int) -> None:
    exact = Decimal(units) / WEIGHT_ONE
    payload = {**GOOD, "weight": "@"}
    plain = f"{exact:f}"
    for written in (plain, f'"{plain}"', f"{exact:.6f}"):
        text = raw_token(HEADER, json.dumps(payload).replace('"@"', written).encode())
        assert verifier(**WEIGHTED).verify(text, NOW).weight == units


@pytest.mark.parametrize(
    "weight", ["1.0000001", "-1", "1000000.000001", "NaN", "1e", "1_0", " 1", "٣", "1e7", True, [1], {}]
)
def test_what_is_no_weight_is_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight"):
        millionths(weight)


@pytest.mark.parametrize(
    "weight", [-1, 1_000_001, 10**400, Decimal("1E+999999"), Decimal("0.0000001"), Decimal(-1), None]
)
def test_numbers_out_of_bounds_are_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight"):
        millionths(weight)


@pytest.mark.parametrize("weight", [0, "0", "0.000000", Decimal("0E-999999"), Decimal("0E+999999"), Decimal("-0")])
def test_a_weight_of_nothing_gives_no_vote(weight: Any) -> None:
    with pytest.raises(Problem) as caught:
        millionths(weight)
    assert (caught.value.slug, caught.value.status) == ("not-eligible", 403)


def test_a_declared_weight_that_a_token_does_not_have_is_not_one() -> None:
    assert "weight" in refusal(token(), verifier(**WEIGHTED)).detail


def test_any_other_segment_counts_as_other() -> None:
    one = verifier(segments=("no", "se"), segmentClaim="country")
    for country, index in (("no", 0), ("se", 1), ("dk", 2), ("other", 2), (7, 2), (None, 2), ("", 2)):
        assert one.verify(token(country=country), NOW).segment == index
    assert verifier().verify(token(country="no"), NOW).segment == 0
