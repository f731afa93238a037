"""Whatever is wrong with the input is said in one line, at once, before any server is started."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Done

EXAMPLE = Path(__file__).parents[3] / "manifests" / "examples" / "burlington-2009-irv"
SESSION, BALLOTS = EXAMPLE / "session.yaml", EXAMPLE / "ballots.csv"
Psephos = Callable[..., Done]


def _edited(tmp_path: Path, old: str, new: str) -> Path:
    text = SESSION.read_text()
    assert old in text
    path = tmp_path / "session.yaml"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("title: Mayor", "title: [Mayor", "line "),
        ("ballot:\n", "ballot:\n    types: ranked\n", "spec.ballot.types: unknown field; did you mean type?"),
        ("elimination: batch", "elimination: all", "spec.ballot.elimination: found 'all'; allowed: single, batch"),
        ("eligibility: token", "eligibility: open", "spec.voters.tokens"),
    ],
    ids=["broken YAML", "unknown field", "unknown value", "fields that do not fit"],
)
@pytest.mark.parametrize("command", ["up", "run"])
def test_a_session_that_can_not_be_used(
    command: str, old: str, new: str, says: str, tmp_path: Path, psephos: Psephos
) -> None:
    session = _edited(tmp_path, old, new)
    ballots = ("--ballots", BALLOTS) if command == "run" else ()
    done = psephos("dev", command, session, *ballots, "--data-dir", tmp_path / "data")
    line = done.line
    assert done.returncode == 2
    assert str(session) in line
    assert says in line
    assert done.stdout == ""
    assert not (tmp_path / "data").exists(), "no server was started"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("count,choices\n3,bob-kiss\nmany,bob-kiss\n", "line 3: the count is 'many'; a whole number is needed"),
        ("count,choices\n3,bob-kiss>nobody\n", "line 2: found the option 'nobody'; allowed: andy-montroll"),
        ("count,choices\n3\n", "line 2: found 1 columns"),
        ("count,choices\n3,bob-kiss>bob-kiss\n", "line 2: 'bob-kiss' is named more than once"),
        ('count,choices\n3,"bob-kiss\n', "line 2: unexpected end of data"),
        ("votes\n3,bob-kiss\n", "line 1: found 'votes'; the first line has to be 'count,choices'"),
        ("count,choices\n", "there is no ballot in it"),
    ],
    ids=["count", "unknown option", "columns", "twice", "quotes", "header", "empty"],
)
def test_ballots_that_can_not_be_read(text: str, says: str, tmp_path: Path, psephos: Psephos) -> None:
    ballots = tmp_path / "ballots.csv"
    ballots.write_text(text)
    done = psephos("dev", "run", SESSION, "--ballots", ballots, "--data-dir", tmp_path / "data")
    line = done.line
    assert done.returncode == 2
    assert str(ballots) in line
    assert says in line
    assert not (tmp_path / "data").exists()


def test_a_cut_off_archive_of_ballots(tmp_path: Path, psephos: Psephos) -> None:
    ballots = tmp_path / "ballots.csv.gz"
    ballots.write_bytes(gzip.compress(BALLOTS.read_bytes())[:-20])
    done = psephos("dev", "run", SESSION, "--ballots", ballots)
    assert done.returncode == 2
    assert str(ballots) in done.line


def test_files_that_are_not_there(tmp_path: Path, psephos: Psephos) -> None:
    for arguments in (
        ("up", "no.yaml"),
        ("run", "no.yaml", "--ballots", BALLOTS),
        ("run", SESSION, "--ballots", "no.csv"),
    ):
        done = psephos("dev", *arguments, "--data-dir", tmp_path / "data")
        assert done.returncode == 2
        assert "No such file or directory" in done.line


def test_a_folder_that_is_in_use_is_not_played_on(tmp_path: Path, psephos: Psephos) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    done = psephos("dev", "run", SESSION, "--ballots", BALLOTS, "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "is not an empty folder" in done.line


@pytest.mark.parametrize("role", ["ingest", "tally", "projector", "gateway", "recount", "serve"])
def test_a_role_without_settings_names_what_is_missing(role: str, psephos: Psephos) -> None:
    done = psephos(role)
    line = done.line
    assert done.returncode == 2
    assert "PSEPHOS_SESSION_FILE is not set" in line


def test_an_unknown_variable_stops_a_role(psephos: Psephos) -> None:
    done = psephos("tally", env={"PSEPHOS_KAFKA_BOOTSTRAPS": "127.0.0.1:9092"})
    assert done.returncode == 2
    assert "PSEPHOS_KAFKA_BOOTSTRAPS is not a setting" in done.line
