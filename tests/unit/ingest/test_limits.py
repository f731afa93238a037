"""Token buckets: how much they let through, what they say, and how little they keep."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from psephos.http.rate_limit import Limit, LimitReached, client_key, client_of


def taken(limit: Limit[str], key: str, now: float) -> bool:
    try:
        limit.take(key, now)
    except LimitReached:
        return False
    return True


@given(
    st.integers(1, 20),
    st.integers(1, 10),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 8)), max_size=200),
)
def test_it_lets_through_what_a_bucket_of_its_size_holds(
    burst: int, rate: int, asked: list[tuple[str, int]]
) -> None:
    """Against the textbook's bucket: it fills at a rate up to its size, and each request takes one."""
    limit: Limit[str] = Limit("voter", rate, burst)
    level, seen, now = {"a": float(burst), "b": float(burst)}, {"a": 0.0, "b": 0.0}, 1000.0
    for key, eighths in asked:
        now += eighths / 8
        level[key] = min(burst, level[key] + (now - seen[key]) * rate) if seen[key] else float(burst)
        seen[key] = now
        expected = level[key] >= 1 - 1e-6
        if abs(level[key] - 1) > 1e-6 or expected:
            assert taken(limit, key, now) == expected
        if expected:
            level[key] -= 1


@given(st.integers(1, 5), st.lists(st.integers(0, 10), min_size=1, max_size=300))
def test_however_it_is_asked_no_window_has_more_than_burst_and_rate_allow(burst: int, steps: list[int]) -> None:
    limit: Limit[str] = Limit("address", 2, burst)
    now, through = 5000.0, deque[float]()
    for step in steps:
        now += step / 10
        if taken(limit, "a", now):
            through.append(now)
    times = list(through)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + 2 * (times[last] - times[first]) + 1e-6


def test_the_fields_say_what_is_left_and_when_it_is_whole_again() -> None:
    limit: Limit[str] = Limit("voter", 2, 10)
    assert limit.policy == '"voter";q=10;w=5'
    assert limit.take("a", 100.0) == '"voter";r=9;t=1'
    for _ in range(8):
        limit.take("a", 100.0)
    assert limit.take("a", 100.0) == '"voter";r=0;t=5'
    with pytest.raises(LimitReached) as caught:
        limit.take("a", 100.0)
    assert caught.value.headers == {
        "Retry-After": "1",
        "RateLimit": '"voter";r=0;t=5',
        "RateLimit-Policy": limit.policy,
    }
    assert limit.take("b", 100.0) == '"voter";r=9;t=1'
    assert limit.take("a", 100.5) == '"voter";r=0;t=5'
    assert limit.take("a", 200.0) == '"voter";r=9;t=1'


def test_waiting_as_long_as_told_is_enough() -> None:
    limit: Limit[str] = Limit("voter", 0.1, 1)
    limit.take("a", 100.0)
    with pytest.raises(LimitReached) as caught:
        limit.take("a", 101.0)
    assert caught.value.headers["Retry-After"] == "9"
    limit.take("a", 110.0)


def test_memory_is_bounded_whoever_asks() -> None:
    limit: Limit[str] = Limit("address", 1, 10, max_buckets=100)
    for number in range(10_000):
        limit.take(str(number), 1000.0)
        assert len(limit) <= 200


def test_buckets_that_are_full_again_are_forgotten() -> None:
    limit: Limit[str] = Limit("address", 1, 10)
    for number in range(1000):
        limit.take(str(number), 1000.0)
    for step in range(3):
        limit.take("a", 1020.0 + 20 * step)
    assert len(limit) <= 2


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:8080", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002::/64"),
        ("[2001:db8:1:2::9]:443", "20010db800010002::/64"),
        ("2001:db8:1:3::9", "20010db800010003::/64"),
        ("fe80::1%eth0", "fe80000000000000::/64"),
        ("127.0.0.1", None),
        ("127.9.9.9", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("unknown", ""),
        ("", ""),
        ("999.1.1.1", ""),
    ],
)
def test_an_address_is_one_client_and_an_ipv6_network_is_one_too(text: str, key: str | None) -> None:
    assert client_key(text) == key


def forwarded(*fields: str) -> CIMultiDict[str]:
    return CIMultiDict([("X-Forwarded-For", field) for field in fields])


def test_without_trusted_proxies_what_clients_say_of_themselves_is_not_read() -> None:
    assert client_of("192.0.2.9", forwarded("203.0.113.1"), 0) == "192.0.2.9"
    assert client_of("192.0.2.9", CIMultiDict(), 1) == "192.0.2.9"


@pytest.mark.parametrize(
    ("fields", "proxies", "expected"),
    [
        (["203.0.113.1"], 1, "203.0.113.1"),
        (["6.6.6.6, 203.0.113.1"], 1, "203.0.113.1"),
        (["6.6.6.6", "203.0.113.1"], 1, "203.0.113.1"),
        (["6.6.6.6, 203.0.113.1, 10.0.0.1"], 2, "203.0.113.1"),
        (["203.0.113.1"], 2, "203.0.113.1"),
        (["rubbish"], 1, "10.0.0.7"),
        ([""], 1, "10.0.0.7"),
        (["127.0.0.1"], 1, "127.0.0.1"),  # nobody gets out of the limits by saying that he is this machine
        (["2001:db8:1:2::9"], 1, "20010db800010002::/64"),
    ],
)
def test_behind_proxies_the_client_is_whom_the_outermost_trusted_one_has_seen(
    fields: list[str], proxies: int, expected: str
) -> None:
    assert client_of("10.0.0.7", forwarded(*fields), proxies) == expected
