"""A pod that reads the log and the ledger for the judge of the fault suite, with code that is none of the tally's.

It runs the product's image for its libraries alone; what runs in it is `tests/faults/oracle.py`, handed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from e2e.deploy import NAMESPACE, NODE_ONE, RELEASE, restricted
from e2e.kube import ROOT, apply, kubectl

PLACE = "reader"
_KAFKA = f"{RELEASE}-dev-kafka.{NAMESPACE}.svc:9092"
_DYNAMODB = f"http://{RELEASE}-dev-dynamodb.{NAMESPACE}.svc:8000"
_TABLE = "psephos"

_PRELUDE = f"""
import json, sys, hashlib
from pathlib import Path
sys.path.insert(0, "/tmp")
import boto3, oracle
asked = json.load(sys.stdin)
table = boto3.client("dynamodb", endpoint_url={_DYNAMODB!r}, region_name="eu-north-1",
                     aws_access_key_id="local", aws_secret_access_key="local")
def item(kind):
    key = {{"pk": {{"S": asked["uid"] + "#" + kind}}, "sk": {{"N": "0"}}}}
    return table.get_item(TableName={_TABLE!r}, Key=key, ConsistentRead=True)["Item"]["b"]["B"]
"""

_AUDIT = """
journal = Path("/tmp/journal")
journal.write_text(asked["journal"])
genesis = hashlib.sha256(item("genesis")).digest()
session = oracle.Session(KAFKA, DYNAMODB, TABLE, asked["uid"], asked["partitions"], genesis)
found = oracle.audit(session, journal)._asdict()
print(json.dumps({**found, "classes": {str(code): number for code, number in found["classes"].items()}}))
"""

_COUNTED = """
from confluent_kafka import Consumer, TopicPartition
consumer = Consumer({"bootstrap.servers": KAFKA, "group.id": "reader"})
topic = "psephos." + asked["uid"] + ".votes"
def head(partition):
    page = table.query(TableName=TABLE, ConsistentRead=True, ScanIndexForward=False, Limit=1,
        KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": {"S": f"{asked['uid']}#{partition}"}})
    return [oracle.msgspec.msgpack.decode(item["b"]["B"])[5] for item in page["Items"]]
for partition in range(asked["partitions"]):
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
    if (head(partition) or [0])[0] != end:
        print(f"partition {partition}: counted up to {head(partition)}, the log ends at {end}")
"""

_LEFT = """
from confluent_kafka.admin import AdminClient
topics = AdminClient({"bootstrap.servers": KAFKA}).list_topics(timeout=20).topics
pages = table.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True, ProjectionExpression="pk")
keys = {item["pk"]["S"] for page in pages for item in page["Items"]}
print(json.dumps({"topics": [name for name in topics if asked["uid"] in name],
                  "items": [key for key in keys if asked["uid"] in key]}))
"""


class Audit(NamedTuple):
    """What the judge found. `faults`: every difference in words."""

    records: int
    acknowledged: int
    lost: Sequence[str]
    double: Sequence[str]
    faults: Sequence[str]


class Reader:
    """Runs where brokers and table can be reached."""

    def __init__(self, image: str) -> None:
        self._image = image

    def start(self) -> None:
        apply(restricted(PLACE), self._pod())
        kubectl("wait", "-n", PLACE, "pod/reader", "--for=condition=Ready", "--timeout=120s", timeout=130)
        oracle = (ROOT / "tests" / "faults" / "oracle.py").read_text()
        kubectl("exec", "-i", "-n", PLACE, "reader", "--", "sh", "-c", "cat > /tmp/oracle.py", stdin=oracle)

    def audit(self, uid: str, partitions: int, *journals: Path) -> Audit:
        """Log, ledger and journals compared; the log must have been counted to its end."""
        lines = "".join(journal.read_text() for journal in journals)
        found = json.loads(self._ask(_AUDIT, uid=uid, partitions=partitions, journal=lines))
        return Audit(*(found[name] for name in Audit._fields))

    def uncounted(self, uid: str, partitions: int) -> str:
        """What of the log is not in the ledger, in words; empty if all of it is."""
        return self._ask(_COUNTED, uid=uid, partitions=partitions).strip()

    def left(self, uid: str) -> dict[str, list[str]]:
        """Topics and items of a session that are still there."""
        return dict(json.loads(self._ask(_LEFT, uid=uid)))

    def run(self, program: str, **asked: Any) -> str:
        """What a Python program prints that runs inside of the cluster; `asked` is its standard input, as JSON."""
        return kubectl(
            *("exec", "-i", "-n", PLACE, "reader", "--", "python", "-c", program), stdin=json.dumps(asked)
        )

    def _ask(self, program: str, **asked: Any) -> str:
        names = f"KAFKA, DYNAMODB, TABLE = {_KAFKA!r}, {_DYNAMODB!r}, {_TABLE!r}\n"
        return self.run(_PRELUDE + names + program, **asked)

    def _pod(self) -> dict[str, Any]:
        container = {
            "name": "reader",
            "image": self._image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "infinity"],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "reader", "namespace": PLACE},
            "spec": {
                "nodeName": NODE_ONE,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        }
