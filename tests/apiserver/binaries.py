"""Where `make setup` found or put kube-apiserver, etcd, kubectl, helm and other projects' definitions."""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


@functools.cache
def _where() -> dict[str, Path]:
    answer = subprocess.run(
        [ROOT / "scripts" / "apiserver.sh", "where"], capture_output=True, text=True, check=True
    )
    return {name: Path(path) for name, path in (line.split(" ", 1) for line in answer.stdout.splitlines())}


def binary(name: str) -> Path:
    """`kube-apiserver`, `kubectl`, `etcd`, `helm` or `versitygw`; `crds` is the folder of definitions."""
    path = _where()[name]
    assert path.exists(), f"{name} is not in {path.parent}: run `make setup` (it builds it once, some minutes)"
    return path
