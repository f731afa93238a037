"""How long records wait: seen from samples of the log's ends, against a model that remembers every record."""

from hypothesis import given
from hypothesis import strategies as st

from psephos.roles.projector.lag import Lag


def test_nothing_waits_in_a_quiet_session_however_old_its_last_vote_is() -> None:
    lag = Lag(0.0)
    for second in range(1, 4_000):
        lag.sample([5, 7], float(second))
        assert lag.seconds([5, 7], float(second)) == 0.0


def test_records_wait_since_the_first_sample_that_saw_them() -> None:
    lag = Lag(0.0)
    lag.sample([5, 7], 1.0)
    lag.sample([5, 9], 2.0)
    lag.sample([5, 9], 3.0)
    assert lag.seconds([5, 7], 3.5) == 1.5
    assert lag.seconds([5, 9], 3.5) == 0.0


def test_one_partition_that_waits_is_not_hidden_by_another_that_is_ahead() -> None:
    lag = Lag(0.0)
    lag.sample([5, 7], 1.0)
    assert lag.seconds([4, 100], 4.0) == 3.0


def test_a_log_that_does_not_answer_counts_as_waiting() -> None:
    lag = Lag(0.0)
    lag.sample([5], 1.0)
    assert lag.seconds([5], 5.5) == 0.0
    assert lag.seconds([5], 21.0) == 20.0


def test_a_long_outage_is_remembered_from_its_beginning_in_bounded_memory() -> None:
    lag = Lag(0.0)
    for second in range(1, 10_000):
        lag.sample([second], float(second))
    assert lag.seconds([0], 10_000.0) == 9_999.0
    assert len(lag._waiting) <= 512


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_the_lag_is_that_of_the_oldest_waiting_record_to_the_second(steps: list[tuple[int, int]]) -> None:
    lag, arrived, counted = Lag(0.0), [], 0
    for second, (new, done) in enumerate(steps, start=1):
        arrived += [float(second)] * new
        counted = min(len(arrived), counted + done)
        lag.sample([len(arrived)], float(second))
        expected = second - arrived[counted] if counted < len(arrived) else 0.0
        assert lag.seconds([counted], float(second)) == expected
