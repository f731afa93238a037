"""The order of a session's steps stands in one place: no module but the executor calls a step."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
STEPS = {
    "fix_closing_time": "psephos.control.executor",
    "announce_closing_time": "psephos.control.executor",
    "ms_by_brokers": "psephos.control.executor",
    "closing_steps.seal": "psephos.control.executor",
    "set_phase": "psephos.control.executor",
    "apply_commands": "psephos.control.executor",
    "mark_closed": "psephos.control.closing_steps",
    "seal_votes": "psephos.control.closing_steps",
    "refusing_partitions": "psephos.control.closing_steps",
}
ASKS_WITHOUT_DOING = {
    ("apply_commands", "psephos.control.desired_state"),
    ("apply_commands", "psephos.control.state_machine"),
}


def _calls(path: Path) -> Iterator[str]:
    """Names of what a module calls: bare, and with what they are an attribute of."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id=name)):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=of), attr=name)):
                yield from (name, f"{of}.{name}")
            case ast.Call(func=ast.Attribute(attr=name)):
                yield name


def test_each_step_has_one_caller() -> None:
    callers: defaultdict[str, set[str]] = defaultdict(set)
    for folder in (ROOT / "workers", ROOT / "operator"):
        for path in folder.rglob("*.py"):
            module = ".".join(path.relative_to(folder).with_suffix("").parts)
            for name in STEPS.keys() & set(_calls(path)):
                if (name, module) not in ASKS_WITHOUT_DOING:
                    callers[name].add(module)
    assert callers == {name: {module} for name, module in STEPS.items()}
