"""Golden files: `pytest tests/unit/operator --write-golden` writes them anew; read the difference then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, list[dict[str, Any]]], None]:
    """Compares manifests with a golden file, or writes it."""

    def compare(name: str, manifests: list[dict[str, Any]]) -> None:
        text = yaml.safe_dump_all(manifests, sort_keys=False, width=110, allow_unicode=True)
        file = GOLDEN / f"{name}.yaml"
        if request.config.getoption("--write-golden"):
            file.write_text(text)
        assert file.exists(), f"no {file.name}: write it with --write-golden"
        assert text == file.read_text(), f"{file.name} is no longer what is built: see --write-golden"

    return compare
