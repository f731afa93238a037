"""Each command explains itself with an example, and the shell completes what has been typed so far."""

import pytest

from psephos.kubectl import main
from psephos.kubectl.access import Kubectl
from psephos.kubectl.completion import proposals

COMMANDS = ["close", "extend", "pause", "recount", "results", "resume", "tokens", "void", "watch"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    explained = capsys.readouterr().out.partition("Arguments:")[0].partition("\n")[2]
    assert f"kubectl psephos {command} " in explained


def test_an_order_without_its_arguments_is_explained_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["extend", "lunch"])
    assert capsys.readouterr().err == "kubectl psephos: one of --by and --to is needed\n"


asked: list[Kubectl] = []


def sessions(kubectl: Kubectl) -> list[str]:
    asked.append(kubectl)
    return ["final", "lunch"]


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        ([], COMMANDS),
        ([""], COMMANDS),
        (["re"], ["recount", "results", "resume"]),
        (["nonsense", ""], []),
        (["pause", ""], ["final", "lunch"]),
        (["pause", "lu"], ["lunch"]),
        (["pause", "lunch", ""], []),
        (["pause", "--reason", ""], []),
        (["pause", "--reason", "rain", ""], ["final", "lunch"]),
        (["close", "--yes", ""], ["final", "lunch"]),
        (["extend", "lunch", "--b"], ["--by"]),
        (["results", "lunch", "-o", ""], ["table", "json"]),
        (["results", "lunch", "--output", "j"], ["json"]),
    ],
)
def test_what_may_stand_next_is_proposed(words: list[str], proposed: list[str]) -> None:
    assert proposals(words, sessions) == proposed


@pytest.mark.parametrize("typed", [["-n", "team"], ["--namespace", "team"], ["--namespace=team"], ["-n=team"]])
def test_sessions_are_those_of_the_namespace_that_was_typed(typed: list[str]) -> None:
    proposals(["pause", *typed, ""], sessions)
    assert asked[-1] == Kubectl(namespace="team")
