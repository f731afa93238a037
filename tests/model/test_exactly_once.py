"""No history of crashes, lost answers, stale owners and broken disks breaks what must always hold."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.model.explore import explore
from tests.model.mutants import CAUGHT, HARMLESS

DOCS = Path(__file__).parents[2] / "docs/exactly-once.md"
ENOUGH = 20_000  # histories in which a mutant must be caught; most take fewer than 300, the slowest some 1,300
SHARE = 1_000  # histories of one test, enough to take every path: processes share the work by tests
Tell = Callable[[str], None]
Count = Callable[[Mapping[str, int]], None]

PATHS = {
    "block written": "blocks written",
    "ADOPTED": "another owner's blocks adopted",
    "LOST_ANSWERS": "own blocks recognised whose answers were lost",
    "late put arrived": "puts that arrived after their caller had given up",
    "LEDGER_RETRIES": "puts tried again",
    "RECOVERED": "blocks applied in recovery",
    "REBUILT": "stores deleted and rebuilt",
    "power lost": "machines that lost power",
    "TRANSACTIONS committed": "transactions committed",
    "TRANSACTIONS aborted": "transactions aborted",
    "transaction fenced by the group": "transactions fenced by a newer generation",
    "transaction timed out": "transactions ended by the coordinator",
    "call stuck": "calls of the client that never came back",
    "abort without end": "aborts that came to no end",
    "coordinator silent": "answers of the coordinator missing",
    "worker fenced": "workers ended by a newer process of their ordinal",
    "GAPS": "records out of order, sought again",
    "session closed": "sessions closed and sealed",
    "late record": "records behind the close marker",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "share" in metafunc.fixturenames:
        shares = -(-int(metafunc.config.getoption("--histories")) // SHARE)
        metafunc.parametrize("share", range(shares))


@pytest.mark.timeout(900)
def test_whatever_happens_each_vote_counts_once(share: int, seed: str, histories: int, count: Count) -> None:
    size = min(SHARE, histories - share * SHARE)
    found = explore(f"{seed} {share}" if share else seed, size, {}, shrink=True)
    count({"histories": found.histories, **{name: found.seen[path] for path, name in PATHS.items()}})
    if found.violation is not None:
        raise found.violation
    missing = [name for path, name in PATHS.items() if not found.seen[path]]
    assert not missing or size < SHARE, f"paths that no history took: {missing}"


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("mutant", CAUGHT)
def test_a_mistake_is_caught(mutant: str, seed: str, tell: Tell) -> None:
    found = explore(seed, ENOUGH, CAUGHT[mutant])
    assert found.violation is not None, f"{mutant}: not caught in {found.histories} histories"
    tell(f"caught after {found.histories:>5} histories: {mutant}: {str(found.violation).splitlines()[0]}")


def test_every_mistake_is_described() -> None:
    _, _, behind = DOCS.read_text().partition("| rule that is broken |")
    table = behind.partition("\n\n")[0].splitlines()[2:]
    assert [line.split("|")[1].strip().replace("`", "") for line in table] == list(CAUGHT)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutant", HARMLESS)
def test_one_of_two_guards_alone_is_enough(mutant: str, seed: str, histories: int, tell: Tell) -> None:
    """Both together are among the mistakes that are caught."""
    found = explore(seed, histories // 5, HARMLESS[mutant])
    if found.violation is not None:
        raise found.violation
    tell(f"harmless in {found.histories:>5} histories: {mutant}")
