"""`kubectl_complete-psephos`: the program that kubectl asks for completions while a user types.

kubectl runs it with the words after `kubectl psephos`, the last of which is unfinished, and reads one proposal per
line, then `:` and a number: 4 means no file names (cobra's ShellCompDirectiveNoFileComp).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

import click
import typer.main

from psephos.kubectl.access import Kubectl, KubectlError
from psephos.kubectl.app import app, names

NO_FILES = ":4"
_CHOICES = {"--output": ("table", "json"), "-o": ("table", "json")}
_KUBECTL = {"-n": "namespace", "--namespace": "namespace", "--context": "context", "--kubeconfig": "kubeconfig"}


def proposals(words: Sequence[str], sessions: Callable[[Kubectl], list[str]] = names) -> list[str]:
    """The possible completions of the last word. Raises KubectlError."""
    *before, started = words or [""]
    commands = _commands()
    if not before:
        return sorted(name for name in commands if name.startswith(started))
    command = commands.get(before[0])
    if command is None:
        return []
    if before[-1] in _CHOICES:
        found = list(_CHOICES[before[-1]])
    elif started.startswith("-"):
        found = sorted(option for each in command.params for option in each.opts if option.startswith("--"))
    elif before[-1] in _valued(command) or _positions(before[1:], command) > 0:
        return []
    else:
        found = sessions(_chosen(before))
    return [each for each in found if each.startswith(started)]


def _commands() -> dict[str, click.Command]:
    group = typer.main.get_command(app)
    return dict(getattr(group, "commands", {}))


def _valued(command: click.Command) -> set[str]:
    """The options that take a value."""
    return {option for each in command.params if not getattr(each, "is_flag", True) for option in each.opts}


def _positions(words: Sequence[str], command: click.Command) -> int:
    """Number of words that are neither options nor their values."""
    valued, count, value = _valued(command), 0, False
    for word in words:
        if not value and not word.startswith("-"):
            count += 1
        value = word in valued
    return count


def _chosen(words: Sequence[str]) -> Kubectl:
    """kubectl with the namespace, context and kubeconfig that have already been typed."""
    chosen = {}
    for word, value in pairwise(words):
        if word in _KUBECTL:
            chosen[_KUBECTL[word]] = value
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in _KUBECTL:
            chosen[_KUBECTL[name]] = value
    return Kubectl(**chosen)


def main() -> None:
    """Prints the proposals; if the cluster does not answer, none, and nothing else."""
    try:
        found = proposals(sys.argv[1:])
    except KubectlError:
        found = []
    sys.stdout.write("".join(f"{each}\n" for each in found) + NO_FILES + "\n")
