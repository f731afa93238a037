"""The fault table of the architecture and the suite are the same list."""

import ast
from pathlib import Path

from tests.faults.rows import ROWS

HERE = Path(__file__).parent
ARCHITECTURE = HERE.parents[1] / "docs" / "architecture.md"


def promised() -> set[str]:
    """First cells of the table under "What is survived"."""
    _, _, behind = ARCHITECTURE.read_text().partition("### What is survived")
    table = behind.partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    return set(rows[2:])


def covered() -> set[str]:
    """Rows named by `@pytest.mark.fault(row, name)`; a module's constant ROW may stand for its row."""
    found: set[str] = set()
    for module in HERE.glob("test_*.py"):
        tree = ast.parse(module.read_text())
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                row = node.args[0]
                found.add(str(constants[row.id] if isinstance(row, ast.Name) else ast.literal_eval(row)))
    return found


def test_every_row_of_the_table_is_known_to_the_suite() -> None:
    assert promised() == set(ROWS.values())


def test_every_row_has_a_test() -> None:
    assert covered() == set(ROWS)
