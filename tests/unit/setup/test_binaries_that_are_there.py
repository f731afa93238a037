"""Which kube-apiserver, kubectl, etcd and helm the tests use where a machine has some, and what is built: by a Go
that only notes what it should build."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
SAYS = {
    "kube-apiserver": ("--version", "Kubernetes v{}"),
    "kubectl": ("version --client", "Client Version: v{}\nKustomize Version: v5.7.1"),
    "etcd": ("--version", "etcd Version: {}\nGit SHA: a061450\nGo Version: go1.24.7"),
    "helm": ("version --short", "v{}+gf6a2d1e"),
}
FITTING = {"kube-apiserver": "1.35.2", "kubectl": "1.35.2", "etcd": "3.6.4", "helm": "3.19.0"}
ENVTEST = {name: version for name, version in FITTING.items() if name != "helm"}
GO = """#!/bin/sh
[ "$1" != env ] || echo go1.99.0
[ "$1" = build ] || exit 0
while [ "$1" != -o ]; do
    [ $# -gt 0 ] || exit 0
    shift
done
[ "$3" != "$BROKEN" ] || { echo "it does not compile" >&2; exit 1; }
echo "$3" >> "$HOME/compiled"
sleep 0.2
printf '#!/bin/sh\n' > "$2"
chmod +x "$2"
"""


class Answer(NamedTuple):
    """Paths by name, and the lines for people."""

    paths: dict[str, Path]
    lines: list[str]


class Machine:
    """One that has nothing but a shell and what a test puts there."""

    def __init__(self, home: Path, shell: Path) -> None:
        self.shell = shell
        self.home = home
        self.built = home / "cache" / "psephos"
        self.path = home / "bin"
        self.path.mkdir()

    def put(self, folder: Path, versions: Mapping[str, str]) -> Path:
        """Executables that only say their versions, each to its own question alone."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, version in versions.items():
            question, words = SAYS[name]
            text = words.format(version)
            (folder / name).write_text(f"#!/bin/sh\n[ \"$*\" = '{question}' ] || exit 1\necho '{text}'\n")
            (folder / name).chmod(0o755)
        return folder

    def asked(self, *arguments: str, assets: Path | None = None, data: Path | None = None) -> Answer:
        done = self.run(*(arguments or ("where",)), assets=assets, data=data)
        assert done.returncode == 0, done.stderr
        paths = {name: Path(path) for name, path in (line.split(" ", 1) for line in done.stdout.splitlines())}
        return Answer(paths, done.stderr.splitlines())

    def run(
        self, *arguments: str, assets: Path | None = None, data: Path | None = None, broken: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """`broken`: the package that Go fails to compile."""
        environment = {
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "PATH": f"{self.path}:{self.shell}",
            "BROKEN": broken,
            **({"KUBEBUILDER_ASSETS": str(assets)} if assets else {}),
            **({"XDG_DATA_HOME": str(data)} if data else {}),
        }
        return subprocess.run(
            [ROOT / "scripts" / "apiserver.sh", *arguments],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def compiled(self) -> list[str]:
        """The packages that Go made a binary of, in no order."""
        noted = self.home / "compiled"
        return sorted(noted.read_text().split()) if noted.exists() else []


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This system's commands, without any that is asked for here."""
    folder = tmp_path_factory.mktemp("shell")
    for command in Path("/usr/bin").iterdir():
        if command.name not in (*SAYS, "go"):
            (folder / command.name).symlink_to(command)
    return folder


@pytest.fixture
def machine(tmp_path: Path, shell: Path) -> Machine:
    return Machine(tmp_path, shell)


def passed_over(answer: Answer, file: Path) -> str:
    """Why a file is not used; fails unless exactly one line says so."""
    (line,) = [line for line in answer.lines if f"passed over {file}: " in line]
    return line.partition(f"{file}: ")[2]


def test_what_kubebuilder_assets_names_comes_first_and_is_named_in_one_line(machine: Machine) -> None:
    assets = machine.put(machine.home / "assets", FITTING)
    machine.put(machine.path, FITTING)
    answer = machine.asked(assets=assets)
    assert {name: answer.paths[name] for name in FITTING} == {name: assets / name for name in FITTING}
    (line,) = answer.lines
    assert all(f"{assets / name} ({version})" in line for name, version in FITTING.items())


def test_an_executable_on_the_path_is_used_where_its_version_fits(machine: Machine) -> None:
    machine.put(machine.path, FITTING)
    answer = machine.asked()
    assert {name: answer.paths[name] for name in FITTING} == {name: machine.path / name for name in FITTING}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["~/.local/share", "XDG_DATA_HOME"])
def test_of_several_versions_that_envtest_fetched_the_newest_is_used(machine: Machine, elsewhere: bool) -> None:
    kind = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    data = machine.home / ("data" if elsewhere else ".local/share")
    store = data / "kubebuilder-envtest" / "k8s"
    for version in ("1.9.0", "1.34.0", "1.36.0", "1.35.2"):
        fetched = {**ENVTEST, "kube-apiserver": version, "kubectl": version}
        machine.put(store / f"{version}-linux-{kind}", fetched)
    machine.put(store / "1.40.0-linux-other", ENVTEST)
    answer = machine.asked(data=data if elsewhere else None)
    newest = store / f"1.36.0-linux-{kind}"
    assert {name: answer.paths[name] for name in ENVTEST} == {name: newest / name for name in ENVTEST}


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("kube-apiserver", "1.33.9", "it is 1.33.9, and has to be 1.34 or newer"),
        ("kube-apiserver", "2.0.0", "below 2"),
        ("etcd", "3.4.31", "it is 3.4.31, and has to be 3.5.13 or newer"),
        ("etcd", "3.5.12", "it is 3.5.12, and has to be 3.5.13 or newer"),
        ("helm", "3.17.4", "it is 3.17.4, and has to be 3.18.0 or newer"),
        ("helm", "4.0.1", "below 4"),
        ("kubectl", "1.32.1", "it is 1.32.1, and has to be 1.33 or newer"),
        ("kubectl", "1.36.0", "below 1.36"),
        ("etcd", "unknown", "does not say its version"),
    ],
)
def test_a_version_that_does_not_fit_is_passed_over_with_one_line_saying_why(
    machine: Machine, name: str, version: str, why: str
) -> None:
    assets = machine.put(machine.home / "assets", {name: version})
    answer = machine.asked(assets=assets)
    assert answer.paths[name] != assets / name
    assert why in passed_over(answer, assets / name)


def test_after_one_that_does_not_fit_the_next_place_is_looked_at(machine: Machine) -> None:
    assets = machine.put(machine.home / "assets", {"etcd": "3.3.0"})
    machine.put(machine.path, {"etcd": "3.5.13"})
    answer = machine.asked(assets=assets)
    assert answer.paths["etcd"] == machine.path / "etcd"
    assert passed_over(answer, assets / "etcd")


def test_kubectl_has_to_be_within_one_minor_version_of_the_server_that_is_used(machine: Machine) -> None:
    assets = machine.put(machine.home / "assets", {"kube-apiserver": "1.37.1", "kubectl": "1.38.0"})
    assert machine.asked(assets=assets).paths["kubectl"] == assets / "kubectl"
    machine.put(assets, {"kubectl": "1.35.0"})
    assert "has to be 1.36 or newer, below 1.39" in passed_over(machine.asked(assets=assets), assets / "kubectl")


def test_what_was_built_here_is_taken_before_all_but_what_kubebuilder_assets_names(machine: Machine) -> None:
    machine.put(machine.path, FITTING)
    built = machine.asked("where", "pinned").paths
    for name in FITTING:
        machine.put(built[name].parent, {name: FITTING[name]})
    assert machine.asked().paths == built
    assert machine.asked().lines == []
    assets = machine.put(machine.home / "assets", {"etcd": "3.6.4"})
    assert machine.asked(assets=assets).paths == {**built, "etcd": assets / "etcd"}


def test_a_cluster_is_made_of_the_pinned_versions_whatever_else_is_there(machine: Machine) -> None:
    assets = machine.put(machine.home / "assets", FITTING)
    answer = machine.asked("where", "pinned", assets=assets)
    assert all(answer.paths[name].is_relative_to(machine.built) for name in FITTING)
    assert answer.lines == []
    assert re.fullmatch(r"kubernetes-v1\.\d+\.\d+", answer.paths["kube-apiserver"].parent.name)


def test_where_all_four_are_found_only_what_is_no_part_of_an_api_server_is_missing(machine: Machine) -> None:
    machine.put(machine.path, FITTING)
    assert machine.run("there").returncode == 1
    paths = machine.asked().paths
    paths["versitygw"].parent.mkdir(parents=True)
    paths["versitygw"].touch(0o755)
    paths["crds"].mkdir()
    assert machine.asked("there").lines == []


def test_a_file_that_is_not_executable_and_a_folder_of_that_name_are_no_binaries(machine: Machine) -> None:
    assets = machine.put(machine.home / "assets", {"etcd": "3.6.4"})
    (assets / "etcd").chmod(0o644)
    (assets / "helm").mkdir()
    answer = machine.asked(assets=assets)
    assert not answer.paths["etcd"].is_relative_to(assets)
    assert not answer.paths["helm"].is_relative_to(assets)


@pytest.fixture
def go(machine: Machine) -> None:
    (machine.path / "go").write_text(GO)
    (machine.path / "go").chmod(0o755)


@pytest.mark.usefixtures("go")
def test_what_is_missing_is_built_once(machine: Machine) -> None:
    machine.put(machine.path, {"etcd": "3.6.4", "helm": "3.19.0"})
    first = machine.run("binaries")
    assert first.returncode == 0, first.stderr
    once = [
        "github.com/versity/versitygw/cmd/versitygw",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kubectl",
    ]
    assert machine.compiled() == once
    assert all(os.access(path, os.X_OK) for name, path in machine.asked().paths.items() if name != "crds")
    assert machine.run("binaries").returncode == 0
    assert machine.compiled() == once
    assert machine.run("pinned").returncode == 0
    assert len(machine.compiled()) == 5, "a cluster gets an etcd and a helm of its own"


@pytest.mark.usefixtures("go")
@pytest.mark.parametrize("name", ["kube-apiserver", "helm"])
def test_a_build_that_fails_is_named_after_all_the_others_have_ended(machine: Machine, name: str) -> None:
    package = {"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver", "helm": "helm.sh/helm/v3/cmd/helm"}[name]
    done = machine.run("binaries", broken=package)
    assert done.returncode == 1
    assert "it does not compile" in done.stderr
    assert f"{name} could not be built" in done.stderr
    begun = machine.compiled()
    assert package not in begun
    assert len(begun) == sum(f"built {each} in" in done.stderr for each in (*FITTING, "versitygw"))
    assert machine.run("binaries").returncode == 0
    assert len(machine.compiled()) == 5, "what was built before stays"
