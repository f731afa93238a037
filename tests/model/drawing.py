"""Draws the sequence of docs/exactly-once.md from a history that the real workers make.

`python -m tests.model.drawing docs/images/exactly-once.svg`: two owners of one partition, the stale one resumed
after the other has counted its records.
"""

import sys
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from tests.model.processes import Process, listening
from tests.model.world import UID, World, enter, simulated

from psephos.formats.blocks import decode_block

LIFELINES = ("votes (Kafka)", "worker A", "ledger (DynamoDB)", "worker B", "tallies (Kafka)")
VOTES, LEDGER, TALLIES = 0, 2, 4
PARTITION = 0
_LEFT, _APART, _TOP, _ROW = 90, 215, 70, 30
_WIDTH = 2 * _LEFT + _APART * (len(LIFELINES) - 1)


class Arrow(NamedTuple):
    """A message from one lifeline to another, or a note where both are the same."""

    source: int
    target: int
    text: str


class Band(NamedTuple):
    """Something that concerns everybody."""

    text: str


class Story:
    """Turns what processes do into arrows, for one partition."""

    def __init__(self) -> None:
        self.rows: list[Arrow | Band] = []
        self.lifelines: dict[Process, int] = {}

    def hear(self, process: Process, name: str, about: Any) -> None:
        at = self.lifelines.get(process)
        tell = getattr(self, "_" + name.replace(" ", "_").replace("'", ""), None)
        if at is not None and tell is not None:
            tell(at, about)

    def _records(self, at: int, about: list[tuple[int, int]]) -> None:
        offsets = [offset for partition, offset in about if partition == PARTITION]
        if offsets:
            which = f"records {offsets[0]} to {offsets[-1]}" if offsets[1:] else f"record {offsets[0]}"
            self.rows.append(Arrow(VOTES, at, which))

    def _query_answered(self, at: int, about: tuple[str, int | None, list[tuple[int, bytes]]]) -> None:
        pk, limit, page = about
        if pk == f"{UID}#{PARTITION}" and limit == 1:
            self.rows.append(Arrow(LEDGER, at, f"head: {_block(page[0][1])}" if page else "head: none yet"))

    def _decided(self, at: int, _about: object) -> None:
        self.rows.append(Arrow(at, at, "decides; its store's transaction stays open"))

    def _put_on_its_way(self, at: int, about: tuple[tuple[str, int], bytes]) -> None:
        (_, base), payload = about
        self.rows.append(Arrow(at, LEDGER, f"put {_block(payload)} if none is at {base}"))

    def _put_answered(self, at: int, about: tuple[tuple[str, int], bytes | None]) -> None:
        stored = about[1]
        answer = "written" if stored is None else f"no: {_block(stored)} is there"
        self.rows.append(Arrow(LEDGER, at, answer))

    def _committed(self, at: int, _about: object) -> None:
        self.rows.append(Arrow(at, at, "commits its store"))

    def _adopted_another_owners_block(self, at: int, about: dict[str, int]) -> None:
        self.rows.append(Arrow(at, at, f"rolls back, applies that block, goes on at {about['end']}"))

    def _offsets_on_their_way(self, at: int, about: list[tuple[int, int]]) -> None:
        offset = dict(about).get(PARTITION)
        if offset:
            self.rows.append(Arrow(at, TALLIES, f"transaction: tallies and offset {offset}"))

    def _commit_answered(self, at: int, _about: object) -> None:
        if isinstance(last := self.rows[-1], Arrow) and last.target == TALLIES:
            self.rows.append(Arrow(TALLIES, at, "committed"))

    def _transaction_refused(self, at: int, _about: object) -> None:
        self.rows.append(Arrow(TALLIES, at, "refused: of an older generation"))


def two_owners() -> Story:
    """A decides on three records and is silent; B counts five; A goes on where it was."""
    story = Story()
    with simulated(), listening(story.hear):
        world = World("first")
        enter(world)
        votes = [voter << 1 | PARTITION for voter in range(7)]
        first = world.start_worker(world.machines[0])
        _until(first, "published")  # it owns both partitions; from here on it waits for records
        while world.cluster.consumers[0].next_fetch() < 3:
            first.step()
        story.lifelines[first] = 1
        _vote(world, votes[:3])
        _until(first, "decided")
        while first.at != "waiting for puts":  # it has polled while its put is on its way
            first.step(-1)
        story.rows.append(Band("A is stopped longer than its session lasts: the group gives the partition to B"))
        world.cluster.group.expel("tally-0")
        _vote(world, votes[3:5])
        second = world.start_worker(world.machines[1])
        story.lifelines[second] = 3
        _until(second, "published")
        _until(second, "published")
        story.rows.append(Band("A goes on, and knows of nothing"))
        for _ in range(20):
            first.step()
            if first.at == "poll":
                break
        story.rows.append(Band("at its next poll A hears that it has lost the partition, and lets go of it"))
        world.close()
    return story


def draw(story: Story) -> str:
    """The story as SVG."""
    height = _TOP + _ROW * (len(story.rows) + 1)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="13">',
        "<title>Two owners of one partition: one chain</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="#1f4e79"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, name in enumerate(LIFELINES):
        x = _x(number)
        out.append(f'<line x1="{x}" y1="48" x2="{x}" y2="{height - 10}" stroke="#b8b8b8" stroke-dasharray="4 4"/>')
        out.append(f'<rect x="{x - 75}" y="16" width="150" height="30" rx="4" fill="#e8eef5" stroke="#1f4e79"/>')
        out.append(_text(x, 36, name, "middle"))
    for number, row in enumerate(story.rows):
        y = _TOP + _ROW * number + 14
        out += _band(y, row.text) if isinstance(row, Band) else _arrow(y, row)
    return "\n".join([*out, "</svg>", ""])


def _arrow(y: int, arrow: Arrow) -> list[str]:
    source, target = _x(arrow.source), _x(arrow.target)
    if source == target:
        dot = f'<circle cx="{source}" cy="{y - 4}" r="5" fill="#1f4e79"/>'
        return [dot, _text(source + 12, y, arrow.text, "start")]
    line = f'<line x1="{source}" y1="{y}" x2="{target}" y2="{y}" stroke="#1f4e79" marker-end="url(#tip)"/>'
    beside_its_target = target + (_APART // 2 if source > target else -_APART // 2)
    return [line, _text(beside_its_target, y - 5, arrow.text, "middle")]


def _band(y: int, text: str) -> list[str]:
    box = f'<rect x="10" y="{y - 14}" width="{_WIDTH - 20}" height="22" fill="#fdf3d7" stroke="#c9a227"/>'
    return [box, _text(_WIDTH // 2, y + 1, text, "middle")]


def _text(x: int, y: int, text: str, anchor: str) -> str:
    halo = 'stroke="#ffffff" stroke-width="4" paint-order="stroke"'
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#1a1a1a" {halo}>{escape(text)}</text>'


def _x(lifeline: int) -> int:
    return _LEFT + _APART * lifeline


def _block(payload: bytes) -> str:
    block = decode_block(payload)
    return f"block [{block.base}, {block.end})"


def _vote(world: World, votes: list[int]) -> None:
    for byte in votes:
        world.vote(byte, "acked")


def _until(process: Process, at: str) -> None:
    process.step()
    while process.at != at:
        assert process.alive, f"{process.name} ended before {at}: {process.failure!r}"
        process.step()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(two_owners()))
