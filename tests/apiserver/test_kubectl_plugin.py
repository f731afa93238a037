"""`kubectl psephos` as people run it: the real kubectl finds the plugin, and all goes through the API server."""

import base64
import importlib
import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from tests.apiserver.api import Manifest
from tests.apiserver.binaries import ROOT, binary
from tests.apiserver.cluster import Cluster
from tests.apiserver.operators import TOKEN_KEY, Vote
from tests.integration.readside.conftest import ReadSide, running
from tests.waiting import wait_until

from psephos_lab.servers import Backends


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    error: str


Plugin = Callable[..., Done]


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with kubectl and the plugin's two programs."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "kubectl").symlink_to(binary("kubectl"))
    for name, module in (("kubectl-psephos", "kubectl"), ("kubectl_complete-psephos", "kubectl.completion")):
        script = folder / name
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom psephos.{module} import main\nsys.exit(main())\n")
        script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def runner(path: str, kubeconfig: Path) -> Plugin:
    def run(*arguments: str, given: str = "", verb: tuple[str, ...] = ("psephos",)) -> Done:
        environ = {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig), "COLUMNS": "100"}
        environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        done = subprocess.run(
            ["kubectl", *verb, *arguments],
            input=given, capture_output=True, text=True, env=environ, check=False, timeout=120,
            executable=str(binary("kubectl")),
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def psephos(cluster: Cluster, namespace: str, path: str) -> Plugin:
    """Runs `kubectl psephos ARGUMENTS` as an administrator, in the test's namespace."""
    return runner(path, cluster.kubeconfig(namespace))


@pytest.fixture
def lunch(cluster: Cluster, namespace: str) -> Vote:
    """An open session that closes at eight."""
    vote = Vote(cluster, namespace, closesAt="2027-05-22T20:00:00Z").create()
    tell(vote, phase="Open")
    return vote


def tell(vote: Vote, **status: Any) -> None:
    """Sets members of the status, as the operator would."""
    vote.api.patch(vote.manifest, {"status": status}, subresource="status")


def annotations(vote: Vote) -> dict[str, str]:
    return dict(vote.now["metadata"].get("annotations") or {})


# --- Commands


def test_a_pause_with_its_reason_and_the_end_of_it(psephos: Plugin, lunch: Vote) -> None:
    assert psephos("pause", "lunch", "--reason", "no picture").code == 0
    assert annotations(lunch) == {"psephos.dev/voting": "paused", "psephos.dev/reason": "no picture"}
    assert psephos("resume", "lunch").out == "lunch goes on\n"
    assert annotations(lunch) == {}


def test_a_session_that_is_not_paused_can_not_be_resumed(psephos: Plugin, lunch: Vote) -> None:
    assert psephos("resume", "lunch") == Done(1, "", "kubectl psephos: lunch is not paused\n")


def test_a_close_has_to_be_confirmed(psephos: Plugin, lunch: Vote) -> None:
    assert psephos("close", "lunch") == Done(2, "", "kubectl psephos: nobody is there to be asked: add --yes\n")
    assert annotations(lunch) == {}
    assert psephos("close", "lunch", "--yes").code == 0
    assert annotations(lunch) == {"psephos.dev/voting": "closed"}


def test_a_void_needs_a_reason(psephos: Plugin, lunch: Vote) -> None:
    assert "--reason" in psephos("void", "lunch", "--yes").error
    assert psephos("void", "lunch", "--yes", "--reason", "wrong ballot").code == 0
    assert annotations(lunch) == {"psephos.dev/voting": "void", "psephos.dev/reason": "wrong ballot"}


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (("--by", "10m"), "2027-05-22T20:10:00Z"),
        (("--to", "2027-05-22T23:30:00+02:00"), "2027-05-22T21:30:00Z"),
    ],
)
def test_the_end_moves_to_later(psephos: Plugin, lunch: Vote, arguments: tuple[str, ...], end: str) -> None:
    assert psephos("extend", "lunch", *arguments) == Done(0, f"lunch closes at {end}\n", "")
    assert lunch.now["spec"]["closesAt"] == end


def test_a_session_that_is_closing_takes_no_such_order(psephos: Plugin, lunch: Vote) -> None:
    tell(lunch, phase="Closing")
    done = psephos("extend", "lunch", "--by", "1h")
    assert done == Done(1, "", "kubectl psephos: lunch is Closing: its end is fixed\n")
    assert lunch.now["spec"]["closesAt"] == "2027-05-22T20:00:00Z"


# --- Who may, and what is not there


def test_who_may_not_change_sessions_is_told_so_in_one_line(
    cluster: Cluster, namespace: str, lunch: Vote, path: str
) -> None:
    grant(cluster, namespace, ["get", "list", "watch"])
    done = runner(path, cluster.kubeconfig(namespace, "default"))("pause", "lunch")
    assert done.code == 1
    (line,) = done.error.splitlines()
    assert 'cannot patch resource "votingsessions"' in line


def grant(cluster: Cluster, namespace: str, verbs: list[str]) -> None:
    rbac, named = "rbac.authorization.k8s.io", {"name": "people", "namespace": namespace}
    rules = [{"apiGroups": ["psephos.dev"], "resources": ["votingsessions"], "verbs": verbs}]
    cluster.admin.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": named, "rules": rules})
    role = {"apiGroup": rbac, "kind": "Role", "name": "people"}
    subjects = [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}]
    binding = {"metadata": named, "roleRef": role, "subjects": subjects}
    cluster.admin.create({"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", **binding})
    someone = cluster.service_account(namespace, "default")
    review = {"resourceAttributes": {"namespace": namespace, "verb": "get", "group": "psephos.dev"}}
    review["resourceAttributes"]["resource"] = "votingsessions"
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": review}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    wait_until(lambda: someone.request("POST", path, body)["status"]["allowed"], "the role is in force")


def test_a_session_that_is_not_there(psephos: Plugin) -> None:
    done = psephos("results", "dinner")
    assert done == Done(1, "", 'kubectl psephos: votingsessions.psephos.dev "dinner" not found\n')


def test_a_session_without_results_yet(psephos: Plugin, lunch: Vote) -> None:
    assert psephos("results", "lunch") == Done(1, "", "kubectl psephos: lunch has no results yet: it is Open\n")


def test_a_server_that_does_not_answer_is_one_line(psephos: Plugin, tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "current-context": "c",
    }
    (tmp_path / "nowhere").write_text(json.dumps(config))
    done = psephos("results", "lunch", "--kubeconfig", str(tmp_path / "nowhere"))
    assert done.code == 1
    (line,) = done.error.splitlines()
    assert "connection" in line.lower()


# --- Tokens, recounts


def test_tokens_are_signed_with_the_sessions_secret(
    psephos: Plugin, cluster: Cluster, namespace: str, lunch: Vote
) -> None:
    from_a_file = base64.b64encode(TOKEN_KEY + b"\n").decode()  # `kubectl create secret --from-file` keeps it
    secret = {"metadata": {"name": "tokens", "namespace": namespace}, "data": {"hs256": from_a_file}}
    cluster.admin.create({"apiVersion": "v1", "kind": "Secret", **secret})
    done = psephos("tokens", "lunch", "ada", "-", "--ttl", "2h", given="bob\n\neve\n")
    assert done.code == 0, done.error
    claims = [
        jwt.decode(token, TOKEN_KEY, algorithms=["HS256"], audience="lunch", issuer="https://id.example")
        for token in done.out.split()
    ]
    assert [claim["sub"] for claim in claims] == ["ada", "bob", "eve"]
    assert {claim["exp"] - claim["iat"] for claim in claims} == {7200}


def test_tokens_of_an_issuer_are_its_own_to_sign(psephos: Plugin, cluster: Cluster, namespace: str) -> None:
    tokens = {"algorithms": ["ES256"], "jwksUrl": "https://id.example/jwks", "issuer": "i", "audience": "a"}
    Vote(cluster, namespace, "final", voters={"tokens": tokens}).create()
    done = psephos("tokens", "final", "ada")
    assert done == Done(2, "", "kubectl psephos: final takes tokens of its issuer: only that can sign them\n")


def test_an_open_session_is_audited_by_a_job_of_its_cron_job(
    psephos: Plugin, cluster: Cluster, lunch: Vote
) -> None:
    done = psephos("recount", "lunch")
    assert done == Done(1, "", "kubectl psephos: lunch has no CronJob of audits; is the operator running?\n")
    cluster.admin.create(audits(lunch))
    done = psephos("recount", "lunch")
    assert done.code == 0, done.error
    (job,) = cluster.admin.list("batch/v1", "Job", lunch.namespace)
    assert done.out.endswith(f"kubectl logs --follow job/{job['metadata']['name']}\n")
    assert job["metadata"]["ownerReferences"][0]["name"] == "lunch-audit"


def audits(vote: Vote) -> Manifest:
    labels = {"psephos.dev/session": vote.name, "app.kubernetes.io/component": "audit"}
    pod = {"containers": [{"name": "psephos", "image": "psephos:1"}], "restartPolicy": "Never"}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": f"{vote.name}-audit", "namespace": vote.namespace, "labels": labels},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": pod}}}},
    }


def test_a_disputed_session_is_recounted_under_a_new_name_each_time(psephos: Plugin, lunch: Vote) -> None:
    tell(lunch, phase="Disputed")
    for run in ("final-2", "final-3"):
        assert psephos("recount", "lunch") == Done(0, f"lunch is recounted again, as {run}\n", "")
        assert annotations(lunch)["psephos.dev/recount"] == run


# --- Results


@pytest.fixture
def readside(backends: Backends, tmp_path: Path) -> Iterator[ReadSide]:
    """A session with a real projector; its gateway is started by the test."""
    with running(backends, tmp_path, {}) as session:
        session.append(0, [0, 0, 1])
        session.start("projector").wait_ready()
        yield session


def own_address() -> str:
    """An address of this machine that is not loopback: API servers forward to no other. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def behind_a_service(cluster: Cluster, vote: Vote, address: str, port: int) -> None:
    """What kubelet and controllers would make of the gateway: a pod with an address, behind the Service."""
    named = {"name": f"{vote.name}-results", "namespace": vote.namespace}
    ports = [{"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"}]
    cluster.admin.create({"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": {"ports": ports}})
    containers = [{"name": "gateway", "image": "psephos:1"}]
    pod = cluster.admin.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": {"containers": containers}}
    )
    running = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    cluster.admin.patch(pod, {"status": running}, subresource="status")
    ready = {"ip": address, "targetRef": {"kind": "Pod", **named}}
    subsets = [{"addresses": [ready], "ports": [{"name": "http", "port": port, "protocol": "TCP"}]}]
    cluster.admin.create({"apiVersion": "v1", "kind": "Endpoints", "metadata": named, "subsets": subsets})


def test_results_come_through_the_api_server_where_only_pods_reach_the_gateway(
    psephos: Plugin, cluster: Cluster, namespace: str, readside: ReadSide
) -> None:
    vote = Vote(cluster, namespace, "test", title="A test").create()
    address = own_address()
    gateway = readside.start("gateway", host=address)
    behind_a_service(cluster, vote, address, gateway.port)
    results = f"http://test-results.{namespace}.svc/v1/sessions/test"
    tell(vote, phase="Open", endpoints={"results": results, "votes": results})
    wait_until(lambda: counted(psephos) == {"ada": 2, "bob": 1}, "the gateway shows what was counted")
    table = psephos("results", "test")
    assert table.code == 0
    assert "A test" in table.out
    assert "66.7 %" in table.out
    readside.finish()
    lines = psephos("watch", "test").out.splitlines()
    assert lines[-1].startswith("Final: ada 2, bob 1")


def test_results_come_from_the_public_address_where_there_is_one(
    psephos: Plugin, cluster: Cluster, namespace: str, readside: ReadSide
) -> None:
    vote = Vote(cluster, namespace, "test").create()
    gateway = readside.start("gateway").wait_ready()
    tell(vote, phase="Open", endpoints={"results": gateway.v1()})
    wait_until(lambda: counted(psephos) == {"ada": 2, "bob": 1}, "the gateway shows what was counted")
    readside.finish()
    assert psephos("watch", "test").out.splitlines()[-1].startswith("Final: ada 2, bob 1")
    gateway.kill()
    done = psephos("results", "test")
    assert done.code == 1
    assert done.error == f"kubectl psephos: {gateway.v1()}/results: Connection refused\n"


def counted(psephos: Plugin) -> Any:
    done = psephos("results", "test", "-o", "json")
    return json.loads(done.out)["totals"] if done.code == 0 else done.error


# --- Completion


def test_kubectl_completes_commands_and_sessions(psephos: Plugin, lunch: Vote) -> None:
    complete = ("__complete", "psephos")
    assert psephos("re", verb=complete).out.splitlines()[:3] == ["recount", "results", "resume"]
    assert psephos("pause", "-n", lunch.namespace, "", verb=complete).out.splitlines()[0] == "lunch"


def test_the_package_installs_both_programs() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in ("kubectl-psephos", "kubectl_complete-psephos"):
        module, _, function = scripts[name].partition(":")
        assert callable(getattr(importlib.import_module(module), function))
