"""Rights granted by roles, and rights used according to the audit log, as sets that can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.apiserver.api import Manifest

CREATED = 201


class Right(NamedTuple):
    """`resource` with its subresource, such as `votingsessions/status`."""

    group: str
    resource: str
    verb: str


def granted(roles: Iterable[Manifest]) -> frozenset[Right]:
    """What Roles and ClusterRoles among the manifests grant, names of objects aside."""
    return frozenset(
        Right(group, resource, verb)
        for role in roles
        if role["kind"] in ("Role", "ClusterRole")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def used(events: Iterable[dict[str, Any]]) -> frozenset[Right]:
    """What was asked for and allowed. A server-side apply that makes an object takes `create` as well."""
    found = set()
    for event in events:
        about, code = event.get("objectRef"), event.get("responseStatus", {}).get("code", 0)
        if about is None or code in (401, 403):
            continue
        resource = "/".join(part for part in (about["resource"], about.get("subresource", "")) if part)
        found.add(Right(about.get("apiGroup", ""), resource, event["verb"]))
        if event["verb"] == "patch" and code == CREATED:
            found.add(Right(about.get("apiGroup", ""), resource, "create"))
    return frozenset(found)


def forbidden(events: Iterable[dict[str, Any]]) -> list[str]:
    """What was asked for and refused, a line each."""
    return sorted(
        {
            f"{event['verb']} {event['requestURI'].partition('?')[0]}"
            for event in events
            if event.get("responseStatus", {}).get("code") == 403
        }
    )
