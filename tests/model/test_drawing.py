"""The sequence in the docs is one that the workers make."""

from pathlib import Path

from tests.model.drawing import draw, two_owners

FIGURE = Path(__file__).parents[2] / "docs/images/exactly-once.svg"


def test_the_drawn_sequence_is_what_the_workers_do() -> None:
    assert draw(two_owners()) == FIGURE.read_text(), "run make figures, and look at what changed"
