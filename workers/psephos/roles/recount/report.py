"""The report of a recount's run, for people and programs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from psephos.domain.results import Document
from psephos.formats.control import Phase
from psephos.roles.recount.verdicts import Difference

DIFFERS = 3  # exit code: not 1, as for a crash of the interpreter, nor 2, as for bad usage
PARTIAL = "Recounting"  # the state of a report on only some partitions


class RecountReport(msgspec.Struct, frozen=True, kw_only=True):
    """state: Final or Disputed; for an audit while open the session's phase or Disputed; for a part Recounting.

    log_records: records of the log without control records; difference_count: includes differences that were not
    kept. Figures are None if the report may not or can't have them: under embargo, or for a part. document: the
    signed result, once there is one.
    """

    session: str
    state: str
    log_records: int
    differences: tuple[Difference, ...]
    difference_count: int
    turnout: Mapping[str, Any] | None = None
    totals: Mapping[str, Any] | None = None
    segments: Mapping[str, Any] | None = None
    outcome: Mapping[str, Any] | None = None
    document: Document | None = None

    @property
    def match(self) -> bool:
        """True if log and ledger agree in everything that was compared."""
        return self.difference_count == 0

    @property
    def phase(self) -> Phase:
        """The phase of the session after its final recount."""
        return Phase.FINAL if self.match and self.state == Phase.FINAL else Phase.DISPUTED

    @property
    def exit_code(self) -> int:
        """0 if everything agrees, else DIFFERS."""
        return 0 if self.match and self.state != Phase.DISPUTED else DIFFERS

    def to_json(self) -> dict[str, Any]:
        """Returns the report in plain JSON types; amounts are int or Decimal."""
        return {
            "session": self.session,
            "state": self.state,
            "turnout": self.turnout,
            "totals": self.totals,
            "segments": self.segments,
            "outcome": self.outcome,
            "recount": recount_json(self.log_records, self.differences, self.difference_count),
        }


def recount_json(log_records: int, differences: Sequence[Difference], count: int) -> dict[str, Any]:
    """Returns the member `recount` of reports and of the result document."""
    return {
        "match": count == 0,
        "logRecords": log_records,
        "differences": [msgspec.to_builtins(difference) for difference in differences],
        "differenceCount": count,
    }
