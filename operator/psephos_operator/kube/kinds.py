"""The kinds that the operator reads and writes, and their API paths. Pure.

The chart's roles grant what is used here and no more.
"""

from typing import NamedTuple

from psephos.domain.session import API_VERSION, KIND
from psephos_operator.builders.plan import Api


class Kind(NamedTuple):
    """A resource type. `whole`: its status is needed; for all others the cache holds only metadata.
    `generations`: the API server counts changes of its spec."""

    name: str
    api_version: str
    plural: str
    whole: bool = False
    generations: bool = True
    needs: Api | None = None

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Returns the path below the server's address; for all namespaces if `namespace` is None."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = [
            root,
            *(("namespaces", namespace) if namespace is not None else ()),
            self.plural,
            name,
            subresource,
        ]
        return "/".join(part for part in parts if part)


SESSION = Kind(KIND, API_VERSION, "votingsessions", whole=True)
CHILDREN = (
    Kind("ConfigMap", "v1", "configmaps", generations=False),
    Kind("Secret", "v1", "secrets", generations=False),
    Kind("Service", "v1", "services", generations=False),
    Kind("Deployment", "apps/v1", "deployments", whole=True),
    Kind("StatefulSet", "apps/v1", "statefulsets", whole=True),
    Kind("Job", "batch/v1", "jobs", whole=True),
    Kind("CronJob", "batch/v1", "cronjobs"),
    Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
    Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
    Kind("Ingress", "networking.k8s.io/v1", "ingresses"),
    Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers", generations=False),
    Kind("HTTPRoute", "gateway.networking.k8s.io/v1", "httproutes", needs=Api.GATEWAY),
    Kind("TriggerAuthentication", "keda.sh/v1alpha1", "triggerauthentications", needs=Api.KEDA),
    Kind("ScaledObject", "keda.sh/v1alpha1", "scaledobjects", needs=Api.KEDA),
    Kind("PodMonitor", "monitoring.coreos.com/v1", "podmonitors", needs=Api.PROMETHEUS),
    Kind("KafkaTopic", "kafka.strimzi.io/v1beta2", "kafkatopics", needs=Api.STRIMZI),
)
PODS = Kind("Pod", "v1", "pods")
EVENTS = Kind("Event", "v1", "events")
LEASES = Kind("Lease", "coordination.k8s.io/v1", "leases")
BY_NAME = {kind.name: kind for kind in (SESSION, *CHILDREN)}
