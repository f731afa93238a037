"""What is built for a session, kind by kind, compared with files that people have read."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.operator.sessions import ACCESS, UID, plan, session, settings

from psephos.formats.control import Phase
from psephos.platform.settings import Settings
from psephos_operator.builders import (
    Access,
    build,
    config,
    jobs,
    monitoring,
    network,
    scaling,
    secrets,
    storage,
    workloads,
)
from psephos_operator.builders.meta import stamped
from psephos_operator.builders.plan import LONGEST_NAME, Api, Plan, shortened

Golden = Callable[[str, list[dict[str, Any]]], None]
LARGE = {"votesPerSecond": 250_000, "viewers": 1_000_000}
EVERYTHING = frozenset(Api)
SASL = "security.protocol=SASL_SSL\nsasl.mechanisms=SCRAM-SHA-512\nsasl.username=u\nsasl.password=p=1\n# x=y\n"


def large(phase: Phase = Phase.OPEN, **members: Any) -> Plan:
    return plan(session("grand-final", capacity=LARGE), phase=phase, **members)


def test_a_small_session_is_one_pod(golden: Golden) -> None:
    golden("workloads-small", workloads.workloads(plan(phase=Phase.OPEN), ACCESS))


def test_a_large_session_has_a_workload_for_each_role(golden: Golden) -> None:
    golden("workloads-large", workloads.workloads(large(), ACCESS))


def test_tally_stores_on_volumes_that_go_with_their_set(golden: Golden) -> None:
    given = settings(tally_volume="persistent", storage_class="fast", autoscaling="false")
    golden("workloads-persistent", workloads.workloads(large(given=given), ACCESS)[1:2])


def test_a_roll_and_published_keys(golden: Golden) -> None:
    voters = {
        "eligibility": "roll",
        "roll": {"configMapRef": {"name": "people", "key": "list"}},
        "tokens": {"algorithms": ["ES256"], "jwksUrl": "https://id.example/jwks", "issuer": "i", "audience": "a"},
    }
    golden("workloads-roll", workloads.workloads(plan(session(voters=voters)), ACCESS))


STORED: dict[str, Any] = {
    "voters": {
        "eligibility": "roll",
        "roll": {"url": "s3://town/roll.txt"},
        "tokens": {"secretRef": {"name": "keys", "key": "hs256"}, "issuer": "i", "audience": "a"},
    },
    "exports": {"url": "s3://results/council"},
}
STORE = {"s3_endpoint": "https://s3.example", "s3_access_key_id": "id", "s3_secret_access_key": "secret"}
STORE_ACCESS = Access(redis_url="redis://redis:6379/0", s3={secrets.S3_KEY_ID: "id", secrets.S3_SECRET: "secret"})


def test_a_roll_and_exports_in_an_object_store(golden: Golden) -> None:
    given = settings(**STORE)
    wanted = plan(session(**STORED), given=given, phase=Phase.FINAL, sealed=True)
    golden("store", [*workloads.workloads(wanted, STORE_ACCESS), *jobs.jobs(wanted, STORE_ACCESS)])
    access = secrets.backends(wanted, STORE_ACCESS)["data"]
    assert {"s3-access-key-id", "s3-secret-access-key"} <= set(access)


def test_only_what_reads_or_writes_objects_gets_the_key_of_the_store() -> None:
    given = settings(**STORE)
    wanted = plan(session(**{**STORED, "capacity": LARGE}), given=given, phase=Phase.RECOUNTING, recounting=True)
    wanted = replace(wanted, sealing=True)
    built = build(wanted, STORE_ACCESS)
    having = {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in built if "S3_" in str(each)}
    assert having == {"ingest", "seal"}
    plain = build(plan(given=given, phase=Phase.OPEN), STORE_ACCESS)
    assert not any("S3_" in str(each) for each in plain), "who uses no store has none"


def test_an_object_store_in_the_settings_restarts_nobody_who_does_not_use_it() -> None:
    before = workloads.workloads(large(), ACCESS)
    assert workloads.workloads(large(given=settings(**STORE)), STORE_ACCESS) == before


@pytest.mark.parametrize("phase", list(Phase))
def test_a_result_is_exported_once_it_is_sealed_and_not_before(phase: Phase) -> None:
    to_store = session(exports={"url": "s3://results"})
    kinds = [each["metadata"]["name"] for each in jobs.jobs(plan(to_store, phase=phase, sealed=True), ACCESS)]
    assert ("lunch-seal-final" in kinds) is (phase in (Phase.FINAL, Phase.DISPUTED))
    for other in (session(), session(exports={"url": "file:///results"})):
        assert jobs.jobs(plan(other, phase=Phase.FINAL, sealed=True), ACCESS) == []
    assert jobs.jobs(plan(to_store, phase=Phase.DISPUTED, sealed=False), ACCESS) == []


def test_topics_of_strimzi(golden: Golden) -> None:
    given = settings(strimzi_cluster="main", strimzi_namespace="kafka")
    golden("storage-strimzi", storage.topics(plan(given=given, apis=EVERYTHING, phase=Phase.OPEN)))


def test_topics_that_are_being_sealed_are_no_longer_strimzis_to_change() -> None:
    given = settings(strimzi_cluster="main", strimzi_namespace="kafka")
    for phase in Phase:
        (votes, *_) = storage.topics(plan(given=given, apis=EVERYTHING, phase=phase))
        released = votes["metadata"].get("annotations", {}).get("strimzi.io/managed") == "false"
        assert released is (phase not in (Phase.PENDING, Phase.OPEN, Phase.PAUSED)), phase


def test_without_strimzi_no_topic_is_a_resource() -> None:
    assert storage.topics(plan(apis=EVERYTHING)) == []
    assert storage.topics(plan(given=settings(strimzi_cluster="main", strimzi_namespace="kafka"))) == []


def test_secrets(golden: Golden) -> None:
    known = Access("security.protocol=ssl", "redis://u:p@redis:6379/0", {"AWS_ACCESS_KEY_ID": "k"})
    keys = secrets.made_once(plan(), secrets.session_key_name(plan()), {secrets.SESSION_KEY: b"k" * 32})
    golden("secrets", [keys, secrets.backends(plan(), known)])


def test_the_session_as_its_pods_read_it(golden: Golden) -> None:
    golden("config", [config.session_file(plan(session(closesAt="2030-01-01T00:00:00Z")))])


def test_services_policies_and_budgets(golden: Golden) -> None:
    wanted = large()
    golden("network", [*network.services(wanted), *network.policies(wanted), *network.disruption_budgets(wanted)])


def test_an_ingress(golden: Golden) -> None:
    given = settings(routing="ingress", host="{name}.{namespace}.example", ingress_class="nginx", tls_secret="tls")
    wanted = plan(given=given)
    golden("network-ingress", network.routes(wanted))
    assert network.endpoints(wanted)["votes"] == "https://lunch.votes.example/v1/sessions/lunch"


def test_another_port_is_in_every_address_that_is_told() -> None:
    wanted = plan(given=settings(routing="ingress", host="{name}.example", public_port="8443", tls_secret="tls"))
    assert network.endpoints(wanted)["results"] == "https://lunch.example:8443/v1/sessions/lunch"
    (route,) = network.routes(wanted)
    assert route["spec"]["rules"][0]["host"] == "lunch.example", "a rule knows no ports"


def test_pages_and_what_they_load_are_routed_also_where_sessions_share_a_host() -> None:
    def prefixes(host: str) -> list[str]:
        (route,) = network.routes(plan(given=settings(routing="ingress", host=host)))
        paths = route["spec"]["rules"][0]["http"]["paths"]
        return [path["path"] for path in paths if path["pathType"] == "Prefix"]

    assert prefixes("{name}.example") == ["/"]
    assert prefixes("vote.example") == ["/v1/sessions/lunch", "/sessions/lunch", "/assets"]


def test_an_http_route(golden: Golden) -> None:
    given = settings(routing="gateway", host="votes.example", gateway="infra/public")
    golden("network-gateway", network.routes(plan(given=given)))


def test_autoscalers(golden: Golden) -> None:
    golden("scaling", scaling.autoscalers(large(apis=EVERYTHING), ACCESS))


def test_autoscalers_of_a_kafka_with_passwords(golden: Golden) -> None:
    known = Access(SASL)
    wanted = large(apis=frozenset({Api.KEDA}))
    golden("scaling-sasl", [*scaling.authentication_secret(wanted, known), *scaling.autoscalers(wanted, known)])
    assert scaling.kafka_credentials(SASL) == {
        "tls": "enable",
        "sasl": "scram_sha512",
        "username": "u",
        "password": "p=1",
    }


def test_audits_while_open(golden: Golden) -> None:
    golden("jobs-open", jobs.jobs(plan(phase=Phase.OPEN), ACCESS))


def test_recount_and_seal(golden: Golden) -> None:
    wanted = large(Phase.RECOUNTING, recounting=True)
    golden("jobs-recounting", jobs.jobs(large(Phase.RECOUNTING, recounting=True, sealing=True), ACCESS))
    assert [job["metadata"]["name"] for job in jobs.jobs(wanted, ACCESS)] == [jobs.recount_name(wanted)]


def test_monitors(golden: Golden) -> None:
    golden("monitoring", monitoring.monitors(plan(apis=EVERYTHING)))
    assert monitoring.monitors(plan()) == []


def test_pods_ask_for_the_share_of_their_cpu_that_is_told() -> None:
    def asked(**given: str) -> list[str]:
        built = pod_specs(workloads.workloads(large(given=settings(**given)), ACCESS))
        return [spec["containers"][0]["resources"]["requests"]["cpu"] for spec in built]

    assert asked() == ["1000m", "1000m", "200m", "800m"]
    assert asked(cpu_percent="5") == ["50m", "50m", "10m", "40m"]


# --- What holds for all of them


def every_plan() -> list[Plan]:
    routed = settings(routing="ingress", host="votes.example")
    strimzi = settings(strimzi_cluster="main", strimzi_namespace="kafka")
    return [
        plan(
            session("x" * 50, capacity=capacity),
            phase=phase,
            given=given,
            apis=apis,
            recounting=late,
            sealing=late,
        )
        for capacity in ({}, LARGE)
        for phase in Phase
        for given in (routed, strimzi)
        for apis in (frozenset[Api](), EVERYTHING)
        for late in (False, True)
    ]


def pod_specs(manifest: Any) -> list[dict[str, Any]]:
    if isinstance(manifest, list):
        return [spec for each in manifest for spec in pod_specs(each)]
    if not isinstance(manifest, dict):
        return []
    own = [manifest] if "containers" in manifest else []
    return [*own, *(spec for each in manifest.values() for spec in pod_specs(each))]


def test_names_are_unique_and_short_enough_for_every_kind() -> None:
    for wanted in every_plan():
        manifests = build(wanted, ACCESS)
        names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
        assert len(set(names)) == len(names)
        for kind, name in names:
            assert kind == "KafkaTopic" or len(name) <= LONGEST_NAME
            assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)


def test_shortened_names_of_different_sessions_differ() -> None:
    one, other = shortened("x" * 49 + "a", "tally"), shortened("x" * 49 + "b", "tally")
    assert one != other
    assert len(one) == LONGEST_NAME


def test_every_pod_is_restricted() -> None:
    """By the pod security standard `restricted`, and with a root filesystem that nobody writes to."""
    seen = 0
    for wanted in every_plan():
        for spec in pod_specs(build(wanted, ACCESS)):
            seen += 1
            pod = spec["securityContext"]
            assert pod["runAsNonRoot"]
            assert pod["runAsUser"] > 0
            assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not spec["automountServiceAccountToken"]
            assert not spec["enableServiceLinks"]
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
            for volume in spec["volumes"]:
                assert set(volume) - {"name"} <= {"configMap", "secret", "emptyDir"}
            (container,) = spec["containers"]
            rights = container["securityContext"]
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert not rights["allowPrivilegeEscalation"]
            assert rights["readOnlyRootFilesystem"]
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert seen > 100


def test_pods_are_given_settings_that_exist() -> None:
    known = {f"PSEPHOS_{name.upper()}" for name in Settings.model_fields}
    for wanted in every_plan():
        for spec in pod_specs(build(wanted, ACCESS)):
            names = [each["name"] for each in spec["containers"][0]["env"]]
            assert len(set(names)) == len(names)
            assert {name for name in names if name.startswith("PSEPHOS_")} <= known


def test_only_the_sealing_step_sees_the_signing_key() -> None:
    for wanted in every_plan():
        for manifest in build(wanted, ACCESS):
            if secrets.signing_key_name(wanted) in json.dumps(manifest):
                assert manifest["metadata"]["name"] == jobs.seal_name(wanted)


@pytest.mark.parametrize("capacity", [{}, LARGE])
def test_nothing_that_runs_changes_when_times_sizes_or_policies_do(capacity: dict[str, Any]) -> None:
    before = plan(session(capacity=capacity), phase=Phase.OPEN)
    other = session(
        capacity=capacity,
        closesAt="2030-01-01T00:00:00Z",
        deletionPolicy="Delete",
        recount={"schedule": "0 * * * *", "parallelism": 2},
    )
    after = plan(other, phase=Phase.OPEN)
    assert workloads.workloads(before, ACCESS) == workloads.workloads(after, ACCESS)


def test_a_new_title_restarts_who_shows_it_and_nobody_else() -> None:
    before = large()
    after = plan(session("grand-final", capacity=LARGE, title="Other"), phase=Phase.OPEN)
    changed = [
        one["metadata"]["name"]
        for one, two in zip(workloads.workloads(before, ACCESS), workloads.workloads(after, ACCESS), strict=True)
        if one != two
    ]
    assert changed == ["grand-final-gateway"]


def test_who_ended_counts_no_more() -> None:
    kinds = [each["kind"] for each in build(large(Phase.FINAL, apis=EVERYTHING), ACCESS)]
    assert "StatefulSet" not in kinds
    assert "HorizontalPodAutoscaler" not in kinds
    assert "CronJob" not in kinds
    assert kinds.count("Deployment") == 3


def test_owners_stay_inside_the_namespace() -> None:
    for wanted in every_plan():
        for manifest in build(wanted, ACCESS):
            metadata = manifest["metadata"]
            owned = "ownerReferences" in metadata
            assert owned is (metadata["namespace"] == "votes"), manifest["kind"]


def test_a_stamp_changes_with_the_manifest_and_with_nothing_else() -> None:
    (one,) = workloads.workloads(plan(), ACCESS)
    assert stamped(one) == stamped(json.loads(json.dumps(one)))
    other = {**one, "spec": {**one["spec"], "replicas": 2}}
    assert stamped(one)["metadata"]["annotations"] != stamped(other)["metadata"]["annotations"]


def test_keys_outlive_their_session_and_are_not_found_by_its_namesake() -> None:
    keys = secrets.made_once(plan(), secrets.session_key_name(plan()), {})
    assert "ownerReferences" not in keys["metadata"]
    assert UID.split("-")[0] in keys["metadata"]["name"]
