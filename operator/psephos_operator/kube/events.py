"""Events for transitions, for `kubectl describe`. Calls block; an event that can't be written is only logged."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from psephos.domain.session import API_VERSION, KIND
from psephos.platform.logs import get_logger
from psephos_operator.builders.meta import MANAGER
from psephos_operator.kube.client import ApiError, Kube, Unreachable
from psephos_operator.kube.kinds import EVENTS

WARNING, NORMAL = "Warning", "Normal"
_LONGEST = 1000
log = get_logger()


def tell(kube: Kube, resource: Mapping[str, Any], reason: str, message: str, kind: str = NORMAL) -> None:
    """Records one event about a session."""
    metadata = resource["metadata"]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": kind,
        "reason": reason,
        "message": message[:_LONGEST] or reason,
        "source": {"component": MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    log.info("event", name=metadata["name"], reason=reason, message=message)
    try:
        kube.create(EVENTS, event)
    except (ApiError, Unreachable) as error:
        log.warning("event not written", reason=reason, why=str(error))
