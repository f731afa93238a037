"""kubectl and helm, as users type them, against the suite's own cluster."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "e2e" / "cluster"
TIMEOUT_S = 120.0


class Failed(AssertionError):
    """A command said no. The message is what was run, and what it said last."""


@contextmanager
def told() -> Iterator[None]:
    """A command that said no ends this process with one line."""
    try:
        yield
    except Failed as error:
        sys.exit(f"e2e: {error}")


@cache
def environment() -> dict[str, str]:
    """Variables by which kubectl, helm and the container engine find the cluster."""
    said = subprocess.run(
        ["bash", "-c", f'eval "$({shlex.quote(str(CLUSTER / "env"))})" && env -0'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return dict(line.split("=", 1) for line in said.split("\0") if "=" in line)


def run(*command: str, stdin: str | bytes | None = None, timeout: float = TIMEOUT_S, check: bool = True) -> str:
    """The command's standard output.

    Raises:
        Failed: it failed, unless `check` is off, or took too long.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(
            command,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            env=environment(),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: not done after {timeout:.0f} s") from None
    if done.returncode and check:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise Failed(f"{' '.join(command)}: {said[-2_000:]}")
    return done.stdout.decode(errors="replace")


def kubectl(
    *arguments: str, stdin: str | bytes | None = None, timeout: float = TIMEOUT_S, check: bool = True
) -> str:
    """What kubectl says. Raises Failed."""
    return run("kubectl", *arguments, stdin=stdin, timeout=timeout, check=check)


def apply(*manifests: Mapping[str, Any] | str) -> None:
    """`kubectl apply`, of objects or of YAML. Raises Failed."""
    for manifest in manifests:
        kubectl("apply", "-f", "-", stdin=manifest if isinstance(manifest, str) else json.dumps(manifest))


def get(kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
    """An object, None where there is none."""
    where = ("-n", namespace) if namespace else ()
    text = kubectl("get", kind, name, *where, "-o", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else None


def items(kind: str, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
    """Objects of a kind, in all namespaces or in one."""
    where = ("-n", namespace) if namespace else ("-A",)
    chosen = ("-l", selector) if selector else ()
    listed: list[dict[str, Any]] = json.loads(kubectl("get", kind, *where, *chosen, "-o", "json"))["items"]
    return listed


def kill_pods(namespace: str, selector: str) -> list[str]:
    """Ends pods at once, without a word to them. Their uids: a StatefulSet's next pod has the same name."""
    pods = [pod["metadata"] for pod in items("pods", namespace, selector)]
    assert pods, f"no pod in {namespace} is {selector}"
    names = [pod["name"] for pod in pods]
    kubectl("delete", "pod", "-n", namespace, *names, "--grace-period=0", "--force", "--wait=false")
    return [pod["uid"] for pod in pods]


def rolled_out(kind_and_name: str, namespace: str, timeout: float = 180.0) -> None:
    """Waits until a workload is as it was asked for. Raises Failed."""
    kubectl("rollout", "status", kind_and_name, "-n", namespace, f"--timeout={timeout:.0f}s", timeout=timeout + 10)


def helm(*arguments: str, values: Mapping[str, Any] | None = None, timeout: float = 300.0) -> str:
    """What helm says; `values` go to its standard input. Raises Failed."""
    more = ("--values", "-") if values is not None else ()
    return run("helm", *arguments, *more, stdin=json.dumps(values or {}), timeout=timeout)


def node_exec(node: str, command: Sequence[str]) -> str:
    """A command on a node, which is a container of the engine. Raises Failed."""
    return run(engine(), "exec", node, *command)


def engine() -> str:
    """docker or podman."""
    return environment()["PSEPHOS_CLUSTER_ENGINE"]


def script(name: str, *arguments: str, timeout: float = 600.0) -> str:
    """Runs a script of e2e/cluster or e2e/images; its progress goes to standard error, its answer is returned."""
    done = subprocess.run(
        [str(ROOT / "e2e" / name), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ,
    )
    if done.returncode:
        raise Failed(f"e2e/{name} {' '.join(arguments)} ended with {done.returncode}; what it said stands above")
    return done.stdout


class Watch:
    """Seconds since it was made, for the tables."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
