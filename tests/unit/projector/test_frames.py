"""What a live frame says, and what it keeps to itself."""

from decimal import Decimal
from typing import Any

import pytest

from psephos.domain.genesis import Genesis
from psephos.domain.session import Session, parse_session
from psephos.formats.blocks import NOTHING, RecordClass, State
from psephos.formats.control import Control, Phase
from psephos.formats.frames import decode_frame, encode_frame
from psephos.roles.projector.frames import build_frame, version_of
from psephos.roles.projector.heads import Head

VOTE = 1_000_000


def session(visibility: str = "live", segments: tuple[str, ...] = ()) -> Session:
    tokens: dict[str, Any] = {"issuer": "i", "audience": "a"}
    if segments:
        tokens["segmentClaim"] = "country"
    return parse_session(
        {
            "apiVersion": "psephos.dev/v1alpha1",
            "kind": "VotingSession",
            "metadata": {"name": "final"},
            "spec": {
                "ballot": {"type": "single", "options": [{"id": "ada"}, {"id": "bob"}]},
                "voters": {"tokens": tokens, "segments": list(segments)},
                "results": {"visibility": visibility},
            },
        }
    )


GENESIS = Genesis(
    session="u", name="final", partitions=2, topic_id="t", key_fingerprint="k", rules_hash="r", public_key="p",
    receipt_key="q", lot_commitment="l",
)  # fmt: skip
OPEN = Control(phase=Phase.OPEN, number=3, closes_at=5_000)


def state(*tallies: int, **classes: int) -> State:
    counts = [0] * len(RecordClass)
    for name, number in classes.items():
        counts[RecordClass[name.upper()]] = number
    return State(tallies, tuple(counts), 7, NOTHING)


def frame(heads: dict[int, Head], of: Session | None = None, control: Control = OPEN) -> Any:
    return build_frame(of or session(), GENESIS, heads, control, lag_ms=12, now_ms=1_000)


def test_totals_are_sums_over_partitions() -> None:
    built = frame({0: Head(5, state(3 * VOTE, VOTE)), 1: Head(4, state(2 * VOTE, 0))})
    assert built.totals == {"ada": 5, "bob": 1}
    assert (built.session, built.epoch, built.phase, built.as_of) == ("final", GENESIS.epoch, "Open", 1_000)
    assert (built.lag_ms, built.closes_at, built.final, built.outcome) == (12, 5_000, False, None)


def test_totals_are_sums_over_segments_and_each_segment_is_shown() -> None:
    cells = state(1 * VOTE, 2 * VOTE, 3 * VOTE, 10 * VOTE, 20 * VOTE, 30 * VOTE)
    built = frame({0: Head(9, cells)}, session(segments=("no", "se")))
    assert built.totals == {"ada": 6, "bob": 60}
    assert built.segments == {
        "no": {"ada": 1, "bob": 10},
        "se": {"ada": 2, "bob": 20},
        "other": {"ada": 3, "bob": 30},
    }


def test_a_weighted_total_stays_exact_through_json() -> None:
    built = frame({0: Head(2, state(1_250_000, VOTE))})
    assert built.totals == {"ada": Decimal("1.25"), "bob": 1}
    assert b'"ada":1.25,"bob":1' in encode_frame(built)


def test_turnout_counts_every_record_but_control_records() -> None:
    head = state(
        VOTE,
        VOTE,
        accepted=6,
        superseded=2,
        duplicate=3,
        malformed=1,
        invalid_ballot=1,
        quota=1,
        late=1,
        control=2,
    )
    turnout = frame({0: Head(15, head)}).turnout
    assert turnout.received == 13
    assert (turnout.accepted, turnout.superseded, turnout.duplicate, turnout.voters) == (6, 2, 3, 7)
    assert turnout.rejected == {"malformed": 1, "invalid-ballot": 1, "quota": 1, "late": 1}


def test_the_version_grows_with_every_record_and_every_phase() -> None:
    heads = {0: Head(5, state(0, 0)), 1: Head(7, state(0, 0))}
    assert version_of(heads, OPEN) == 15
    assert version_of({**heads, 1: Head(8, state(0, 0))}, OPEN) == 16
    assert version_of(heads, Control(phase=Phase.CLOSING, number=4)) == 16


@pytest.mark.parametrize("phase", list(Phase))
def test_under_embargo_no_live_frame_has_a_figure_by_option(phase: Phase) -> None:
    control = Control(phase=phase, number=4)
    hidden = session("afterClose", segments=("no",))
    built = frame({0: Head(5, state(9_876_000_000, 5_432_000_000, 0, 0, accepted=5))}, hidden, control)
    assert (built.totals, built.segments, built.outcome) == (None, None, None)
    assert built.turnout.accepted == 5
    written = encode_frame(built)
    assert b"9876" not in written
    assert b"5432" not in written
    assert b"ada" not in written


def test_before_the_first_block_there_are_zeros() -> None:
    built = frame({})
    assert built.totals == {"ada": 0, "bob": 0}
    assert (built.version, built.turnout.received) == (3, 0)
    assert decode_frame(encode_frame(built)) == built
