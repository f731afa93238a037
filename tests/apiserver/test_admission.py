"""What the webhook refuses is refused at apply, through a real API server; also after its certificate changed."""

import base64
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from kubernetes import client, config
from tests.apiserver.api import Manifest, Refused
from tests.apiserver.cluster import Cluster
from tests.waiting import wait_until

from psephos_operator.admission.certificates import Bundle, renewed
from psephos_operator.admission.webhook import PATH, CertificateStore, Webhook
from psephos_operator.settings import OperatorSettings, load_operator_settings

BAD_CRON = {"schedule": "often"}


def session(namespace: str, name: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": "psephos.dev/v1alpha1",
        "kind": "VotingSession",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "ballot": {"type": "single", "options": [{"id": "ada"}, {"id": "bob"}]},
            "voters": {"tokens": {"issuer": "i", "audience": "a"}},
            **spec,
        },
    }


def settings(namespace: str, **values: Any) -> OperatorSettings:
    given = {
        "namespace": namespace, "image": "psephos:1", "kafka_bootstrap": "kafka:9092", "listen": "127.0.0.1",
        "webhook": "self-signed", "webhook_name": f"webhook-{namespace}", "webhook_hosts": "127.0.0.1",
        "webhook_port": 0, **values,
    }  # fmt: skip
    return load_operator_settings({}, **given)


def store(cluster: Cluster, chosen: OperatorSettings) -> CertificateStore:
    loaded = client.Configuration()
    load_kube_config: Any = config.load_kube_config  # has no types
    load_kube_config(str(cluster.kubeconfig()), client_configuration=loaded)
    return CertificateStore(chosen, client.ApiClient(loaded))


def register(cluster: Cluster, namespace: str, port: int, path: str = PATH, policy: str = "Fail") -> None:
    """The registration as the chart makes it, for one namespace."""
    hook = {
        "name": "sessions.psephos.dev",
        "clientConfig": {"url": f"https://127.0.0.1:{port}{path}"},
        "rules": [
            {
                "apiGroups": ["psephos.dev"],
                "apiVersions": ["v1alpha1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["votingsessions"],
                "scope": "Namespaced",
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "failurePolicy": policy,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 30,  # the most: an API server that is only slow is no refusal
    }
    cluster.admin.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": f"webhook-{namespace}"},
            "webhooks": [hook],
        }
    )


@pytest.fixture
def webhook(cluster: Cluster, namespace: str) -> Iterator[Webhook]:
    """A self-signed webhook that looks at its certificate ten times a second, registered, trusted and asked."""
    chosen = settings(namespace)
    with Webhook(chosen, store(cluster, chosen), check_s=0.1) as running:
        register(cluster, namespace, running.port)
        wait_until(lambda: refusal(cluster, namespace) is not None, "the webhook is asked")
        yield running
    cluster.admin.delete(
        "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", f"webhook-{namespace}"
    )


def refusal(cluster: Cluster, namespace: str) -> str | None:
    """What the webhook says to a bad session; None while the API server lets it in, or can't reach the webhook."""
    try:
        cluster.admin.create(session(namespace, "bad", recount=BAD_CRON), dry_run=True)
    except Refused as refused:
        return refused.message if "denied the request" in refused.message else None
    return None


def shown(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port))


def test_what_no_schema_sees_is_refused_with_field_and_reason(
    cluster: Cluster, namespace: str, webhook: Webhook
) -> None:
    wait_until(lambda: webhook.ready, "the webhook says that it has a certificate")
    with pytest.raises(Refused) as refused:
        cluster.admin.create(session(namespace, "final", recount=BAD_CRON))
    assert refused.value.code == 422
    assert 'webhook "sessions.psephos.dev" denied the request: spec.recount.schedule: ' in refused.value.message
    cluster.admin.create(session(namespace, "final"))


def test_a_bad_change_of_a_good_session_is_refused(cluster: Cluster, namespace: str, webhook: Webhook) -> None:
    good = cluster.admin.create(session(namespace, "final"))
    with pytest.raises(Refused, match=r"spec\.recount\.schedule"):
        cluster.admin.patch(good, {"spec": {"recount": BAD_CRON}})
    cluster.admin.patch(good, {"metadata": {"annotations": {"psephos.dev/voting": "paused"}}})


def test_a_lost_certificate_is_made_anew_and_a_bad_apply_is_still_refused(
    cluster: Cluster, namespace: str, webhook: Webhook
) -> None:
    before = shown(webhook.port)
    cluster.admin.delete("v1", "Secret", f"webhook-{namespace}", namespace)
    wait_until(lambda: shown(webhook.port) != before, "another certificate is shown")
    wait_until(lambda: refusal(cluster, namespace) is not None, "a bad session is refused")
    hook = cluster.admin.get(
        "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", f"webhook-{namespace}"
    )
    authorities = base64.b64decode(hook["webhooks"][0]["clientConfig"]["caBundle"])
    assert authorities.count(b"BEGIN CERTIFICATE") == 2, "the authority before is trusted as well"


def test_no_apply_fails_while_the_certificate_changes(cluster: Cluster, namespace: str) -> None:
    chosen = settings(namespace)
    with Webhook(chosen, store(cluster, chosen), check_s=2) as running:
        register(cluster, namespace, running.port)
        wait_until(lambda: refusal(cluster, namespace) is not None, "the webhook is asked")
        before, answers = shown(running.port), []
        cluster.admin.delete("v1", "Secret", f"webhook-{namespace}", namespace)
        while shown(running.port) == before:
            answers.append(refusal(cluster, namespace))
        answers += [refusal(cluster, namespace) for _ in range(20)]
    assert None not in answers


def test_a_certificate_from_elsewhere_is_shown_as_soon_as_it_changes(cluster: Cluster, namespace: str) -> None:
    """As cert-manager does it: the Secret and the registration change, the operator only reads."""
    chosen = settings(namespace, webhook="provided")
    with Webhook(chosen, store(cluster, chosen), check_s=0.1) as running:
        register(cluster, namespace, running.port)
        first = renewed(None, ["127.0.0.1"], datetime.now(UTC))
        for bundle in (first, renewed(first, ["127.0.0.1"], datetime.now(UTC))):
            provide(cluster, namespace, bundle)
            wait_until(partial(_shows, running.port, bundle), "the provided certificate is shown")
            wait_until(lambda: refusal(cluster, namespace) is not None, "a bad session is refused")


def provide(cluster: Cluster, namespace: str, bundle: Bundle) -> None:
    parts = {"tls.crt": bundle.certificate, "tls.key": bundle.key}
    cluster.admin.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"webhook-{namespace}", "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": {name: base64.b64encode(value).decode() for name, value in parts.items()},
        }
    )
    admission = "admissionregistration.k8s.io/v1"
    registered = cluster.admin.get(admission, "ValidatingWebhookConfiguration", f"webhook-{namespace}")
    registered["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(bundle.authorities).decode()
    cluster.admin.replace(registered)


def _shows(port: int, bundle: Bundle) -> bool:
    try:
        return shown(port).strip() == bundle.certificate.decode().strip()
    except OSError:
        return False  # no handshake without a certificate


def test_a_path_that_nobody_serves_is_not_allowed_silently(
    cluster: Cluster, namespace: str, webhook: Webhook
) -> None:
    register(cluster, namespace, webhook.port, path="/mutate")
    webhook.refresh()
    wait_until(lambda: "failed calling webhook" in to_a_good_one(cluster, namespace), "nothing is let in")


def to_a_good_one(cluster: Cluster, namespace: str) -> str:
    """What the API server says to a good session, empty if it lets it in."""
    try:
        cluster.admin.create(session(namespace, "good"), dry_run=True)
    except Refused as refused:
        return refused.message
    return ""


def test_with_the_policy_ignore_a_webhook_that_is_away_holds_up_nobody(
    cluster: Cluster, namespace: str, webhook: Webhook
) -> None:
    register(cluster, namespace, webhook.port, policy="Ignore")
    webhook.close()
    wait_until(lambda: refusal(cluster, namespace) is None, "the webhook is not asked any more")
    cluster.admin.create(session(namespace, "good"))
