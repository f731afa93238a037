"""Which frame a gateway holds, and when it says that it may be behind."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.formats.frames import Frame, Turnout, encode_frame
from psephos.roles.gateway.feed import Newest
from psephos.roles.gateway.view import View

EPOCH = "ab12"


def body(version: int, **members: Any) -> bytes:
    members = {"phase": "Open", "totals": {"ada": version}, "final": False, "epoch": EPOCH, **members}
    return encode_frame(
        Frame(session="s", version=version, as_of=1, lag_ms=0, turnout=Turnout(1, 1, 0, 0, {}, 1), **members)
    )


class Shown(list[View]):
    """Everything that was handed over, as (version, stale)."""

    def __init__(self, **how: Any) -> None:
        self.newest = Newest(EPOCH, self.append, **how)

    @property
    def seen(self) -> list[tuple[int, bool]]:
        return [(view.position.version, view.stale) for view in self]


def test_only_newer_frames_are_taken() -> None:
    shown = Shown()
    shown.newest.mark(stale=False)
    assert [shown.newest.offer(body(version)) for version in (5, 4, 5, 6)] == [True, False, False, True]
    assert shown.seen == [(5, False), (6, False)]


@given(st.lists(st.integers(0, 20)), st.lists(st.booleans()))
def test_versions_never_go_backwards(versions: list[int], marks: list[bool]) -> None:
    shown = Shown()
    for version, mark in zip(versions, marks, strict=False):
        shown.newest.offer(body(version))
        shown.newest.mark(mark)
    seen = shown.seen
    assert seen == sorted(seen, key=lambda pair: pair[0])
    assert all(before != after for before, after in itertools.pairwise(seen))


def test_a_frame_is_stale_until_a_projector_has_been_heard_of() -> None:
    shown = Shown()
    shown.newest.offer(body(5))
    shown.newest.mark(stale=False)
    shown.newest.mark(stale=False)
    shown.newest.mark(stale=True)
    assert shown.seen == [(5, True), (5, False), (5, True)]
    assert json.loads(shown[-1].body)["totals"] == {"ada": 5}, "the last results are still served"


def test_the_final_frame_never_becomes_stale() -> None:
    shown = Shown()
    shown.newest.offer(body(9, final=True, phase="Final"))
    for mark in (False, True, False, True):
        shown.newest.mark(mark)
    assert shown.seen == [(9, False)]


def test_a_frame_of_another_epoch_is_of_another_session() -> None:
    shown = Shown()
    assert not shown.newest.offer(body(99, epoch="ffff"))
    assert shown.newest.view is None


@pytest.mark.parametrize(
    "members",
    [{"totals": {"ada": 3}}, {"totals": None, "segments": {"no": {"ada": 3}}}, {"totals": None, "outcome": {}}],
)
def test_under_embargo_a_frame_with_figures_is_not_passed_on_whoever_wrote_it(members: dict[str, Any]) -> None:
    shown = Shown(embargoed=True)
    assert not shown.newest.offer(body(3, **members))
    assert shown.newest.offer(body(4, totals=None))
    assert shown.newest.offer(body(5, final=True, phase="Final"))
    assert [view.position.version for view in shown] == [4, 5]


def test_nonsense_in_redis_changes_nothing() -> None:
    shown = Shown()
    shown.newest.offer(body(5))
    assert not shown.newest.offer(b"nonsense")
    assert [view.position.version for view in shown] == [5]
