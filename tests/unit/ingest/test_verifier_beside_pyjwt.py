"""Tokens that are mangled in every way: the own check of HS256 decides as the library's does."""

import json
import random
import time
from collections import Counter
from typing import Any

import jwt
from jwt.algorithms import get_default_algorithms
from tests.unit.ingest.test_verifier import HEADER, SECRET, raw_token, session, verifier

from psephos.roles.ingest.keys import KeySet, TokenKey
from psephos.roles.ingest.problems import Problem
from psephos.roles.ingest.verifier import LEEWAY_S, Electorate, Verifier, Voter

TOKENS = 6_000
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=.é \n\x00"
HEADERS = (
    b'{"alg":"HS384"}',
    b'{"alg":"none"}',
    b"{}",
    b"[]",
    b'{"alg":"HS256","crit":["b64"]}',
    b'{"alg":"HS256","kid":"x"}',
)
GOOD = {"sub": "ann", "iss": "https://id.example", "aud": "final"}


def by_the_library() -> Verifier:
    """A verifier whose signature check is PyJWT's."""
    algorithm = get_default_algorithms()["HS256"]
    key = algorithm.prepare_key(SECRET)
    keys = KeySet(
        [TokenKey(None, "HS256", lambda signed, signature: bool(algorithm.verify(signed, key, signature)))],
        allowed=["HS256"],
        published=False,
    )
    parsed = session()
    assert parsed.spec.voters.tokens is not None
    return Verifier(parsed.spec.voters.tokens, Electorate(parsed), keys)


def claims(rng: random.Random, now: int) -> dict[str, Any]:
    found: dict[str, Any] = {**GOOD, "exp": now + rng.choice([-3600, 3600, 3600, 3600])}
    if rng.random() < 0.3:
        found[rng.choice(["sub", "iss", "aud", "exp", "nbf"])] = rng.choice(
            [None, "", "final", ["final", "x"], ["x"], 7, now + 3600, now - 3600, {}, "ann" * 400]
        )
    return {name: value for name, value in found.items() if value is not None}


def mangled(rng: random.Random, text: str) -> str:
    """One to three changes: characters exchanged, taken away or put in, parts exchanged or repeated."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:at] + rng.choice(ALPHABET) + text[at + 1 :]
        elif kind == 1:
            text = text[:at] + text[at + 1 :]
        elif kind == 2:
            text = text[:at] + rng.choice(ALPHABET) + text[at:]
        elif kind == 3:
            parts = text.split(".")
            rng.shuffle(parts)
            text = ".".join(parts)
        else:
            text = text[:at] + rng.choice(["", text, "." + text])
    return text


def outcome(of: Verifier, token: str, now: float) -> Any:
    try:
        return of.verify(token, now)
    except Problem as problem:
        return problem.slug, problem.status, problem.detail


def test_thousands_of_tokens_get_the_same_answer() -> None:
    rng, now = random.Random(8), int(time.time())
    ours, theirs = verifier(), by_the_library()
    seen: Counter[str] = Counter()
    for number in range(TOKENS):
        secret = SECRET if rng.random() < 0.9 else b"o" * 32
        header = HEADER if rng.random() < 0.95 else rng.choice(HEADERS)
        token = raw_token(header, json.dumps(claims(rng, now)).encode(), secret)
        if number % 2:
            token = mangled(rng, token)
        found = outcome(ours, token, now)
        assert found == outcome(theirs, token, now), token
        if not isinstance(found, Voter):
            seen[found[0]] += 1
        else:
            seen["voter"] += 1
            jwt.decode(  # raises unless the library takes it too, with all its claims
                token, SECRET, algorithms=["HS256"], audience="final", issuer="https://id.example", leeway=LEEWAY_S
            )
    assert seen["voter"] > TOKENS / 5
    assert seen["invalid-token"] > TOKENS / 5
