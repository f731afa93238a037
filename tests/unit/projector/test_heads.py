"""The projector's memory: the newest state of each partition, in whatever order it hears of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.formats.blocks import NOTHING, RecordClass, State
from psephos.formats.errors import Malformed
from psephos.formats.tallies import TallyRecord
from psephos.roles.projector.heads import Heads

PARTITIONS, CELLS = 3, 2


def record(partition: int, end: int, cells: int = CELLS) -> TallyRecord:
    state = State((end,) * cells, (0,) * len(RecordClass), end, NOTHING)
    return TallyRecord(partition, 0, end, 0, state)


@given(st.lists(st.tuples(st.integers(0, PARTITIONS - 1), st.integers(0, 9)), max_size=30))
def test_the_largest_end_wins_in_any_order_and_however_often_it_is_heard(heard: list[tuple[int, int]]) -> None:
    heads = Heads(PARTITIONS, CELLS)
    for partition, end in heard:
        before = heads.ends()[partition]
        known = partition in heads.by_partition
        assert heads.take(record(partition, end)) is (not known or end > before)
    expected = [max((end for p, end in heard if p == partition), default=0) for partition in range(PARTITIONS)]
    assert heads.ends() == tuple(expected)
    assert all(head.state.tallies == (head.end,) * CELLS for head in heads.by_partition.values())


@pytest.mark.parametrize("foreign", [record(PARTITIONS, 1), record(-1, 1), record(0, 1, cells=CELLS + 1)])
def test_a_record_of_another_session_is_refused(foreign: TallyRecord) -> None:
    heads = Heads(PARTITIONS, CELLS)
    with pytest.raises(Malformed):
        heads.take(foreign)
    assert heads.by_partition == {}
