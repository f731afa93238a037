"""Access to Kubernetes by running kubectl, with its contexts, logins and messages."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from psephos.domain.session import API_VERSION
from psephos.platform.errors import FAILED, PsephosError

RESOURCE = f"votingsessions.{API_VERSION.split('/')[0]}"
REQUEST_S = 30
_SERVER_SAYS = "Error from server"


class KubectlError(PsephosError):
    """kubectl is missing, or it failed. The message is one line."""

    exit_code = FAILED


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the user's options; empty: as in the kubeconfig."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    def run(self, *arguments: str, given: str = "") -> str:
        """Runs kubectl and returns its output; `given`: its standard input.

        Raises:
            KubectlError: if it failed.
        """
        done = subprocess.run(self._command(arguments), input=given, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KubectlError(reason(done.stderr))
        return done.stdout

    def get(self, resource: str, name: str) -> dict[str, Any]:
        """An object. Raises KubectlError."""
        return dict(json.loads(self.run("get", resource, name, "-o", "json", f"--request-timeout={REQUEST_S}s")))

    def session(self, name: str) -> dict[str, Any]:
        """A VotingSession. Raises KubectlError."""
        return self.get(RESOURCE, name)

    def patch(self, name: str, change: dict[str, Any]) -> None:
        """Merge-patches a session. Raises KubectlError."""
        self.run("patch", RESOURCE, name, "--type=merge", f"--patch={json.dumps(change)}")

    @contextmanager
    def stream(self, path: str) -> Iterator[IO[str]]:
        """A GET through the API server with a streamed response. Raises KubectlError if it ended badly."""
        with subprocess.Popen(
            self._command(("get", "--raw", path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            try:
                yield running.stdout
            finally:
                stopped = running.poll() is None
                running.terminate()
                said = running.stderr.read()
            if running.wait() != 0 and not stopped:
                raise KubectlError(reason(said))

    def _command(self, arguments: Sequence[str]) -> list[str]:
        program = shutil.which("kubectl")
        if program is None:
            raise KubectlError(
                "kubectl is not on the PATH: install it from https://kubernetes.io/docs/tasks/tools"
            )
        chosen = {"namespace": self.namespace, "context": self.context, "kubeconfig": self.kubeconfig}
        return [program, *(f"--{name}={value}" for name, value in chosen.items() if value), *arguments]


def reason(said: str) -> str:
    """The line of kubectl's standard error that gives the reason, without its prefix."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith((_SERVER_SAYS, "error:", "Unable to connect"))]
    line = (told or lines or ["kubectl failed and did not say why"])[-1]
    if line.startswith(_SERVER_SAYS):
        line = line.partition("): ")[2] or line.partition(": ")[2]
    return line.removeprefix("error: ").strip()
