"""The operator as a real process against the real API server, and a session's pods as processes here."""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer
from tests.apiserver.api import Api, Manifest, Refused
from tests.apiserver.cluster import Cluster
from tests.apiserver.kubelet import set_complete, set_failed
from tests.roles import program
from tests.waiting import READY_S, wait_until

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.kafka import client_config, tally_group, votes_topic
from psephos.formats.votes import encode_vote, partition_of, voter_key
from psephos.platform.settings import Settings
from psephos_lab.ports import free_port
from psephos_lab.servers import Backends
from psephos_operator.settings import OperatorSettings, load_operator_settings

SESSION = ("psephos.dev/v1alpha1", "VotingSession")
IMAGE = "psephos:tests"
TOKEN_KEY = b"t" * 32


class Operator:
    """`python -m psephos_operator` for one namespace. Its log holds every start."""

    def __init__(
        self, cluster: Cluster, backends: Backends, namespace: str, folder: Path, name: str = "one", **more: str
    ) -> None:
        """`more`: settings without their prefix."""
        self.admin_port = free_port()
        values = {
            "namespace": namespace,
            "namespaces": namespace,
            "identity": name,
            "kubeconfig": str(cluster.kubeconfig()),
            "image": IMAGE,
            "kafka_bootstrap": backends.kafka_bootstrap,
            "kafka_replication": "1",
            "dynamodb_endpoint": backends.dynamodb_endpoint,
            "redis_url": backends.redis_url,
            "admin_port": str(self.admin_port),
            "listen": "127.0.0.1",
            "lease_s": "3",
            "resync_s": "5",
            **more,
        }
        self.environ = {f"PSEPHOS_OPERATOR_{name.upper()}": value for name, value in values.items()}
        self.settings: OperatorSettings = load_operator_settings(self.environ)
        self.log = folder / f"operator-{name}.log"
        self.process = program("operator", "psephos_operator", self.log, self.environ)

    def __enter__(self) -> Operator:
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop(20)

    def metric(self, name: str) -> float:
        """A sample by name and labels, 0 where there is none, or nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=30) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return next(
            (float(value) for sample, _, value in (line.rpartition(" ") for line in lines) if sample == name), 0
        )

    @property
    def memory_mb(self) -> float:
        """Resident memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def requests(self) -> dict[str, int]:
        """Requests to the API server so far, by verb."""
        verbs = ("GET", "POST", "PATCH", "PUT", "DELETE")
        return {verb: int(self.metric(f'psephos_operator_requests_total{{verb="{verb}"}}')) for verb in verbs}

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def steps(self) -> list[str]:
        """The steps of sessions' lives that it began, over all its starts."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line)["action"] for line in lines if '"event": "step"' in line and line.endswith("}")]

    @property
    def leads(self) -> bool:
        return self.metric("psephos_operator_leader") == 1


class Vote:
    """One VotingSession in the cluster."""

    def __init__(self, cluster: Cluster, namespace: str, name: str = "lunch", **spec: Any) -> None:
        self.api: Api = cluster.admin
        self.namespace, self.name = namespace, name
        tokens = {
            "secretRef": {"name": "tokens", "key": "hs256"},
            "issuer": "https://id.example",
            "audience": name,
        }
        self.manifest: Manifest = {
            "apiVersion": SESSION[0],
            "kind": SESSION[1],
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "ballot": {"type": "single", "options": [{"id": "pizza"}, {"id": "soup"}]},
                "voters": {"tokens": tokens},
                "capacity": {"partitions": 2},
                "closeGrace": "1s",
                **spec,
            },
        }

    def create(self) -> Vote:
        self.uid = str(self.api.create(self.manifest)["metadata"]["uid"])
        return self

    @property
    def now(self) -> Manifest:
        return self.api.get(*SESSION, self.name, self.namespace)

    @property
    def gone(self) -> bool:
        return self.api.find(*SESSION, self.name, self.namespace) is None

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.now.get("status") or {})

    @property
    def phase(self) -> str:
        return str(self.status.get("phase"))

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition, empty where it is not there."""
        return next((dict(c) for c in self.status.get("conditions", ()) if c["type"] == kind), {})

    def is_(self, kind: str, status: str = "True", reason: str = "") -> bool:
        """Whether a condition is so, at the present generation."""
        now = self.now
        for found in (now.get("status") or {}).get("conditions", ()):
            if found["type"] == kind:
                current = found["observedGeneration"] == now["metadata"]["generation"]
                return bool(current and found["status"] == status and reason in ("", found["reason"]))
        return False

    def wait_phase(self, phase: str) -> None:
        """Several processes may have to start, one after the other, before it is."""
        wait_until(lambda: self.phase == phase, f"{self.name} is {phase}; {self.status}", READY_S)

    def wait_(self, kind: str, status: str = "True", reason: str = "") -> None:
        wait_until(lambda: self.is_(kind, status, reason), f"{self.name}: {kind} is {status} {reason}")

    def change(self, **spec: Any) -> None:
        """Merges members into the spec."""
        self.api.patch(self.manifest, {"spec": spec})

    def annotate(self, **annotations: str | None) -> None:
        """psephos.dev/<name>: value; None takes it away."""
        named = {f"psephos.dev/{name}": value for name, value in annotations.items()}
        self.api.patch(self.manifest, {"metadata": {"annotations": named}})

    def delete(self) -> None:
        self.api.delete(*SESSION, self.name, self.namespace)

    def children(self) -> dict[str, Manifest]:
        """Everything in the namespace that bears this session's label, by `Kind/name`."""
        kinds = {
            "v1": ("ConfigMap", "Secret", "Service"),
            "apps/v1": ("Deployment", "StatefulSet"),
            "batch/v1": ("Job", "CronJob"),
            "policy/v1": ("PodDisruptionBudget",),
            "networking.k8s.io/v1": ("NetworkPolicy", "Ingress"),
            "autoscaling/v2": ("HorizontalPodAutoscaler",),
            "keda.sh/v1alpha1": ("ScaledObject",),
            "monitoring.coreos.com/v1": ("PodMonitor",),
        }
        return {
            key: found
            for version, names in kinds.items()
            for kind in names
            for key, found in self.children_of(version, kind).items()
        }

    def children_of(self, version: str, kind: str) -> dict[str, Manifest]:
        """The same of one kind."""
        selector = f"psephos.dev/session={self.name}"
        found = self.api.list(version, kind, self.namespace, selector)
        return {f"{kind}/{each['metadata']['name']}": each for each in found}

    def events(self) -> list[str]:
        """Reasons, in the order in which they happened."""
        found = [
            event
            for event in self.api.list("v1", "Event", self.namespace)
            if event["involvedObject"]["name"] == self.name
        ]
        return [
            event["reason"] for event in sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))
        ]

    def settings(self, operator: Operator) -> Settings:
        """How the adapters reach what this session has outside the cluster."""
        return operator.settings.role_settings(self.uid)

    def ledger(self, operator: Operator) -> Ledger:
        return Ledger.of(self.settings(operator))


def add_token_key(cluster: Cluster, namespace: str) -> None:
    """The Secret that sessions of these tests name."""
    data = {"hs256": base64.b64encode(TOKEN_KEY).decode()}
    metadata = {"name": "tokens", "namespace": namespace}
    cluster.admin.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


class Pod:
    """What a kubelet would do with a pod template: its variables and files, its command as a process."""

    def __init__(self, api: Api, namespace: str, template: Manifest, folder: Path, name: str, **own: str) -> None:
        """`own`: variables without their prefix that replace the template's, ports above all."""
        self.folder = folder / name
        self._api, self._namespace = api, namespace
        (container,) = template["spec"]["containers"]
        for volume in template["spec"]["volumes"]:
            self._mount(volume)
        environ = {each["name"]: self._value(each, name, own) for each in container["env"]}
        given = {name: value for name, value in environ.items() if value is not None}
        self.environ = {
            **{name: value.replace("/etc/psephos", str(self.folder)) for name, value in given.items()},
            "PSEPHOS_DATA_DIR": str(self.folder / "data"),
            "PSEPHOS_HOST": "127.0.0.1",
            **{f"PSEPHOS_{name}": value for name, value in own.items() if name.isupper() and name != "JOB_INDEX"},
        }
        arguments = [each.replace("$(JOB_INDEX)", given.get("JOB_INDEX", "")) for each in container["args"]]
        self.environ.pop("JOB_INDEX", None)
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        self.process = program(name, "psephos.cli", self.folder / "log", self.environ, arguments)

    def __enter__(self) -> Pod:
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop(20)

    def _mount(self, volume: Mapping[str, Any]) -> None:
        target = self.folder / volume["name"]
        target.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            found = self._api.get("v1", "ConfigMap", volume["configMap"]["name"], self._namespace)
            files = {key: value.encode() for key, value in found["data"].items()}
            items = volume["configMap"].get("items")
        elif "secret" in volume:
            found = self._api.get("v1", "Secret", volume["secret"]["secretName"], self._namespace)
            files = {key: base64.b64decode(value) for key, value in found["data"].items()}
            items = volume["secret"].get("items")
        else:
            return
        paths = {key: key for key in files} if items is None else {item["key"]: item["path"] for item in items}
        for key, path in paths.items():
            (target / path).write_bytes(files[key])

    def _value(self, variable: Mapping[str, Any], name: str, own: Mapping[str, str]) -> str | None:
        if "value" in variable:
            return str(variable["value"])
        source = variable["valueFrom"]
        if "secretKeyRef" in source:
            ref = source["secretKeyRef"]
            data = self._api.get("v1", "Secret", ref["name"], self._namespace).get("data", {})
            if ref["key"] not in data:
                assert ref.get("optional"), f"Secret {ref['name']} has no {ref['key']}"
                return None
            return base64.b64decode(data[ref["key"]]).decode()
        return own.get("JOB_INDEX", "") if variable["name"] == "JOB_INDEX" else name


def tally(api: Api, vote: Vote, folder: Path) -> Pod:
    """A tally worker, run as the pod template of the combined workload says, but for its command."""
    deployment = api.get("apps/v1", "Deployment", f"{vote.name}-serve", vote.namespace)
    template = deployment["spec"]["template"]
    template["spec"]["containers"][0]["args"] = ["tally"]
    return Pod(api, vote.namespace, template, folder, "tally-0", ADMIN_PORT=str(free_port()))


def cast(operator: Operator, vote: Vote, voters: int) -> None:
    """Puts votes into the log as ingest does: all for pizza but every fourth."""
    name = f"{vote.name}-{vote.uid.split('-')[0]}-session-key"
    key = base64.b64decode(vote.api.get("v1", "Secret", name, vote.namespace)["data"]["session-key"])
    producer = Producer(client_config(vote.settings(operator)))
    for number in range(voters):
        voter = voter_key(key, f"voter-{number}")
        option = (number % 4 == 0).to_bytes(2, "big")
        producer.produce(votes_topic(vote.uid), encode_vote(option, 1_000), voter, partition_of(voter, 2))
    assert producer.flush(30) == 0


@contextmanager
def _unless_gone() -> Iterator[None]:
    """A Job may be deleted while it runs."""
    try:
        yield
    except Refused as error:
        if "NotFound" not in str(error):
            raise


@contextmanager
def jobs_run(
    api: Api, namespace: str, folder: Path, lag: Callable[[Manifest], object] = lambda _job: None
) -> Iterator[None]:
    """For the time of the block, every Job of a namespace is run, once. `lag`: waits between the end of a Job's
    pods and the status that tells of it, as a controller that is busy does."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.2):
            for job in api.list("batch/v1", "Job", namespace):
                if not job.get("status", {}).get("conditions"):
                    with _unless_gone():
                        run_job(api, job, folder, lag)

    thread = threading.Thread(target=work, name="jobs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run_job(api: Api, job: Manifest, folder: Path, lag: Callable[[Manifest], object] = lambda _job: None) -> None:
    """Runs every index of a Job as a process, and sets its status by their exit codes."""
    spec, metadata = job["spec"], job["metadata"]
    for index in range(spec.get("completions", 1)):
        name = f"{metadata['name']}-{index}"
        with Pod(api, metadata["namespace"], spec["template"], folder, name, JOB_INDEX=str(index)) as pod:
            code = pod.process.wait(120)
        if code != 0:
            set_failed(api, job, f"{name}: exit code {code}: {pod.process.last_words()}")
            return
    lag(job)
    set_complete(api, job)


class Owners:
    """Members of sessions' groups of tally workers, so that somebody owns the partitions; they count nothing."""

    def __init__(self, operator: Operator, *votes: Vote) -> None:
        self._consumers = [self._consumer(operator, vote) for vote in votes]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def _consumer(self, operator: Operator, vote: Vote) -> Consumer:
        consumer = Consumer(
            {
                **client_config(vote.settings(operator)),
                "group.id": tally_group(vote.uid),
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe([votes_topic(vote.uid)])
        return consumer

    def __enter__(self) -> Owners:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for consumer in self._consumers:
            consumer.close()

    def _poll(self) -> None:
        while not self._over.wait(0.5):
            for consumer in self._consumers:
                consumer.poll(0)


def versions(children: Mapping[str, Manifest]) -> dict[str, tuple[str, object]]:
    """What of each object changes when somebody asks it for something else; its status alone changes nothing."""
    return {
        key: (found["metadata"]["uid"], found["metadata"].get("generation", found["metadata"]["resourceVersion"]))
        for key, found in children.items()
    }
