"""The newest known state of every partition. Pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from psephos.formats.blocks import Block, State
from psephos.formats.errors import Malformed
from psephos.formats.tallies import TallyRecord


class Head(NamedTuple):
    """State of a partition after the record at `end - 1`."""

    end: int
    state: State


class Heads:
    """Keeps the head with the largest `end` per partition: tallies are absolute, so older ones add nothing."""

    def __init__(self, partitions: int, cells: int) -> None:
        """`cells`: length of a state's tallies."""
        self._partitions = partitions
        self._cells = cells
        self._heads: dict[int, Head] = {}

    @property
    def by_partition(self) -> Mapping[int, Head]:
        return MappingProxyType(self._heads)

    def ends(self) -> tuple[int, ...]:
        """Returns the end of each partition, 0 if nothing is known."""
        return tuple(self._heads[index].end if index in self._heads else 0 for index in range(self._partitions))

    def take(self, news: TallyRecord | Block) -> bool:
        """Returns whether this was newer than what was known. Raises Malformed if it can't be this session's."""
        if not 0 <= news.partition < self._partitions:
            raise Malformed(f"partition {news.partition}; this session has {self._partitions}")
        if len(news.state.tallies) != self._cells:
            raise Malformed(f"{len(news.state.tallies)} tallies; this session has {self._cells}")
        known = self._heads.get(news.partition)
        if known is not None and known.end >= news.end:
            return False
        self._heads[news.partition] = Head(news.end, news.state)
        return True

    def states(self) -> Iterable[State]:
        return (head.state for head in self._heads.values())
