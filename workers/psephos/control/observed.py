"""The observed state of a session: what its ledger and its log say now. Pure; `observation` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from psephos.domain.genesis import Genesis
from psephos.domain.results import Document
from psephos.formats.blocks import State
from psephos.formats.control import Control

UNREADABLE_END = 2**63
"""The end of a chain whose head can't be read. No tally can follow it, so nothing should wait for more."""


class Closing(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The ledger item `closing`. Times in milliseconds since 1970 and milliseconds."""

    closes_at: int
    grace_ms: int


@dataclass(frozen=True)
class ObservedState:
    """How far a session is. None or empty: not yet.

    control_at: when the brokers appended the control record, ms since 1970; sealed: the sealed end of each
    partition; states: of each partition's head; ends: where each chain ends;
    verdicts: partitions that the recount's run has a verdict for; final, disputed: result documents;
    result_sealed: whether there is a final result, readable or not; owned: partitions that tally workers own, None
    where Kafka did not say or nobody asked.
    """

    genesis: Genesis | None = None
    control: Control | None = None
    control_at: int | None = None
    closing: Closing | None = None
    sealed: Mapping[int, int] = field(default_factory=dict)
    states: tuple[State, ...] = ()
    ends: tuple[int, ...] = ()
    verdicts: frozenset[int] = frozenset()
    final: Document | None = None
    disputed: Document | None = None
    result_sealed: bool = False
    owned: int | None = None

    @property
    def partitions(self) -> int:
        """Partitions of the votes topic, 0 before genesis."""
        return 0 if self.genesis is None else self.genesis.partitions

    @property
    def markers_at(self) -> int | None:
        """When the close markers are due, ms since 1970: no acknowledged vote can still be on its way then.

        None before the closing time is fixed. The control record has a longer grace period if it announced the
        closing time late.
        """
        if self.closing is None:
            return None
        announced = 0 if self.control is None else self.control.grace_ms
        return self.closing.closes_at + max(self.closing.grace_ms, announced)

    @property
    def sealed_whole(self) -> bool:
        """Whether every partition's end is fixed."""
        return self.genesis is not None and len(self.sealed) == self.partitions

    @property
    def counted(self) -> bool:
        """Whether the tally has reached every sealed end."""
        return self.sealed_whole and not self.missing

    @property
    def missing(self) -> dict[int, int]:
        """Records that the tally has yet to count up to the sealed ends that are known, by partition."""
        left = {partition: end - self.ends[partition] for partition, end in self.sealed.items()}
        return {partition: records for partition, records in left.items() if records > 0}
