"""Pauses between tries."""

from psephos.platform.backoff import Backoff, spread


def test_pauses_double_up_to_a_limit_and_are_short_again_after_a_success() -> None:
    backoff = Backoff(first_s=1, longest_s=60)
    pauses = [backoff.next_s() for _ in range(2_000)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert set(pauses[7:]) == {60}
    backoff.reset()
    assert backoff.next_s() == 1


def test_the_share_of_a_pause_that_chance_decides_is_bounded() -> None:
    assert all(5 <= spread(10) <= 10 for _ in range(100))
    assert all(0 <= spread(10, 1.0) <= 10 for _ in range(100))
