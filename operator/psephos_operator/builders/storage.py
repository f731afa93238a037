"""Topics as KafkaTopic resources, if Strimzi manages the cluster's topics. Pure.

Otherwise the operator creates them by Kafka's own admin protocol, with the same settings:
`psephos.adapters.kafka.topics`.
"""

from psephos.adapters.kafka.topics import session_topics
from psephos_operator.builders.meta import Manifest, labels
from psephos_operator.builders.plan import Api, Plan

RETAINED = "strimzi.io/managed"


def by_strimzi(plan: Plan) -> bool:
    """Returns whether Strimzi manages the session's topics."""
    return plan.settings.strimzi_cluster is not None and Api.STRIMZI in plan.apis


def topics(plan: Plan) -> list[Manifest]:
    """Returns the session's topics in the namespace of their Kafka cluster.

    From closing on they are no longer managed: the seal is a setting of the votes topic that Strimzi would revert,
    and a retained topic must not be deleted with its resource.
    """
    if not by_strimzi(plan):
        return []
    released = {"annotations": {RETAINED: "false"}} if plan.closing else {}
    return [
        {
            "apiVersion": "kafka.strimzi.io/v1beta2",
            "kind": "KafkaTopic",
            "metadata": {
                "name": topic.name,
                "namespace": plan.settings.strimzi_namespace,
                "labels": {**labels(plan, "topic"), "strimzi.io/cluster": plan.settings.strimzi_cluster},
                **released,
            },
            "spec": {
                "topicName": topic.name,
                "partitions": topic.partitions,
                "replicas": topic.replication,
                "config": dict(topic.config),
            },
        }
        for topic in session_topics(plan.uid, plan.partitions, plan.settings.kafka_replication)
    ]
