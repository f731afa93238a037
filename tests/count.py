"""`python -m tests.count`: how many tests and assertions each folder has, to compare before and after a change.

A test counts once for each set of parameters. What `make test` runs and what only `make long` adds stand apart.
"""

import ast
import contextlib
import io
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
CALLS = {"raises", "expect"}
"""Besides `assert`: `pytest.raises`, and what a browser's page is expected to show."""


class Collected:
    """A plugin that keeps what pytest collected, by folder."""

    def __init__(self) -> None:
        self.run: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.run.update(folder(item.path) for item in session.items)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.left_out.update(folder(item.path) for item in items)


def collect() -> Collected:
    """Raises ValueError where a test file cannot be read."""
    found = Collected()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT)], plugins=[found])
    if code != pytest.ExitCode.OK:
        raise ValueError(said.getvalue())
    return found


def assertions() -> Counter[str]:
    """Of all files, harnesses too."""
    return Counter(
        folder(path)
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if is_assertion(node)
    )


def is_assertion(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        called = node.func
        return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in CALLS
    return isinstance(node, ast.Assert)


def folder(path: Path) -> str:
    """`integration/tally` for a file in it."""
    return "/".join(path.relative_to(ROOT).parent.parts[:2]) or "."


def main() -> None:
    found, asserted = collect(), assertions()
    rows = [
        (name, found.run[name], found.left_out[name], asserted[name])
        for name in sorted({*found.run, *found.left_out, *asserted})
    ]
    rows.append(("all", found.run.total(), found.left_out.total(), asserted.total()))
    print(f"{'folder':<28}{'tests':>8}{'long':>8}{'assertions':>12}")
    for name, *figures in rows:
        print(
            f"{name:<28}"
            + "".join(f"{figure:>{width}}" for figure, width in zip(figures, (8, 8, 12), strict=True))
        )


if __name__ == "__main__":
    main()
