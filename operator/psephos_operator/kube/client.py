"""A thin client of the Kubernetes API: requests with timeouts, server-side apply, lists, watches. Calls block.

The official client reads the configuration and keeps tokens fresh; requests go through its connection pool as
plain JSON, without its thousands of model classes.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import kubernetes.client
import kubernetes.config
import urllib3

from psephos.platform.errors import PsephosError
from psephos.platform.settings import SettingsError
from psephos_operator import metrics
from psephos_operator.builders.meta import MANAGER, Manifest
from psephos_operator.builders.plan import Api
from psephos_operator.kube.kinds import CHILDREN, Kind
from psephos_operator.settings import PREFIX, OperatorSettings

CONNECT_S = 3.0
WATCH_S = 120  # the server then ends a watch, and a new one begins where it ended
WATCH_SLACK_S = 15.0
PAGE = 500
_APPLY = "application/apply-patch+yaml"
_ESCAPED = re.compile("[\x7f-\uffff]")
_MERGE = "application/merge-patch+json"
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"


class ApiError(PsephosError):
    """The API server refused. `status`: the HTTP status; `reason`: the server's one-word reason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message or reason)
        self.status = status
        self.reason = reason


class Unreachable(PsephosError):
    """The API server can't be reached, or did not answer in time."""


class Gone(PsephosError):
    """The watch can't continue from that version: list again."""


class Kube:
    """The API server. Threads may share it. Methods raise ApiError and Unreachable."""

    def __init__(self, settings: OperatorSettings) -> None:
        """Raises SettingsError if there is no configuration."""
        self.configuration = _configuration(settings)
        """The official client's configuration."""
        self._request_s = settings.request_s
        # Every watch holds a connection, and so does every worker.
        self.configuration.connection_pool_maxsize = 64
        self.client = kubernetes.client.ApiClient(self.configuration)
        self._pool = self.client.rest_client.pool_manager

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Returns an object, None if it does not exist."""
        return _none_if_missing(lambda: self._json("GET", kind.path(namespace, name)))

    def list(
        self, kind: Kind, namespace: str | None, selector: str = "", *, whole: bool | None = None
    ) -> tuple[list[Manifest], str]:
        """Returns all objects that a label selector matches, and the version at which they were listed."""
        accept = _accept(kind.whole if whole is None else whole, "List")
        items: list[Manifest] = []
        ask: dict[str, Any] = {"limit": PAGE, "labelSelector": selector}
        while True:
            answer = self._json("GET", kind.path(namespace), query=ask, accept=accept)
            items += answer["items"] or ()  # NB: an empty list of metadata arrives as null
            ask["continue"] = answer["metadata"].get("continue", "")
            if not ask["continue"]:
                return items, answer["metadata"]["resourceVersion"]

    def create(self, kind: Kind, manifest: Manifest) -> Manifest | None:
        """Creates an object; returns None if one of this name exists."""
        try:
            return self._json("POST", kind.path(manifest["metadata"]["namespace"]), body=manifest)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Replaces the object at the version in its metadata; raises ApiError Conflict if that is another one."""
        metadata = manifest["metadata"]
        return self._json("PUT", kind.path(metadata["namespace"], metadata["name"]), body=manifest)

    def find(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Returns an object's metadata, None if it does not exist. By a list, which needs no right to get one."""
        query = {"fieldSelector": f"metadata.name={name}"}
        answer = self._json("GET", kind.path(namespace), query=query, accept=_accept(False, "List"))
        return next(iter(answer["items"] or ()), None)

    def apply(
        self, kind: Kind, manifest: Manifest, *, manager: str = MANAGER, subresource: str = "", force: bool = True
    ) -> Manifest:
        """Server-side apply: a manager gives up the fields that it no longer names. Without `force` raises
        ApiError Conflict if others have set a field to something else."""
        metadata = manifest["metadata"]
        return self._json(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"], subresource),
            body=manifest,
            query={"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"},
            content=_APPLY,
        )

    def merge(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> Manifest | None:
        """Applies a JSON merge patch; returns None if the object is gone."""
        path = kind.path(namespace, name)
        return _none_if_missing(lambda: self._json("PATCH", path, body=patch, content=_MERGE))

    def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Deletes exactly this object, and its own children after it; ignores one that is already gone."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            self._json("DELETE", kind.path(namespace, name), body=body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def watch(
        self, kind: Kind, namespace: str | None, selector: str, version: str
    ) -> Iterator[tuple[str, Manifest]]:
        """Yields (type, object) for each change after `version`, for two minutes at most. Raises Gone."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": selector,
            "resourceVersion": version,
            "timeoutSeconds": WATCH_S,
        }
        response = self._send(
            "GET",
            kind.path(namespace),
            query=query,
            accept=_accept(kind.whole, ""),
            read_s=WATCH_S + WATCH_SLACK_S,
        )
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    if event["object"].get("code") in (410, 504):
                        raise Gone
                    raise ApiError(event["object"].get("code", 500), "Watch", event["object"].get("message", ""))
                yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(str(error)) from None
        finally:
            response.close()

    def apis(self) -> frozenset[Api]:
        """Returns the optional APIs that this cluster has, with every kind that is used, in the version used.

        NB: a group alone says little. Some clusters have it only with other kinds or versions, and a watch of a
        kind that does not exist waits forever.
        """
        groups = {group["name"] for group in self._json("GET", "/apis")["groups"]}
        return frozenset(api for api in Api if api.value in groups and self._serves(api))

    def _serves(self, api: Api) -> bool:
        kinds = [kind for kind in CHILDREN if kind.needs is api]
        return all(kind.plural in self._resources(kind.api_version) for kind in kinds)

    def _resources(self, api_version: str) -> set[str]:
        found = _none_if_missing(lambda: self._json("GET", f"/apis/{api_version}"))
        return set() if found is None else {each["name"] for each in found["resources"]}

    def _json(self, method: str, path: str, **how: Any) -> Manifest:
        response = self._send(method, path, **how)
        try:
            answer: Manifest = json.loads(response.data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error}") from None
        return answer

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        content: str = "application/json",
        accept: str = "application/json",
        read_s: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        metrics.REQUESTS.labels(method).inc()
        given = {name: value for name, value in (query or {}).items() if value != ""}
        headers = {"Accept": accept, "User-Agent": MANAGER, **self.authorization()}
        if body is not None:
            headers["Content-Type"] = content
        try:
            response = self._pool.request(
                method,
                f"{self.configuration.host}{path}{'?' if given else ''}{urlencode(given)}",
                body=None if body is None else encoded(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=read_s or self._request_s),
                retries=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{method} {path}: {error}") from None
        if response.status >= 400:
            raise _api_error(response)
        return response

    def authorization(self) -> dict[str, str]:
        """Returns headers that authenticate this process, with a token that is still valid."""
        given = self.configuration.auth_settings().values()
        return {each["key"]: each["value"] for each in given if each["in"] == "header" and each["value"]}


def _configuration(settings: OperatorSettings) -> Any:
    load_kube_config: Any = kubernetes.config.load_kube_config
    load_incluster_config: Any = kubernetes.config.load_incluster_config
    configuration = kubernetes.client.Configuration()
    try:
        if settings.kubeconfig is not None:
            load_kube_config(str(settings.kubeconfig), client_configuration=configuration)
        else:
            load_incluster_config(client_configuration=configuration)
    except (kubernetes.config.ConfigException, OSError) as error:
        raise SettingsError(
            f"no access to Kubernetes: {error}; run in a pod with a ServiceAccount, or set {PREFIX}KUBECONFIG"
        ) from None
    return configuration


def _accept(whole: bool, what: str) -> str:
    return "application/json" if whole else _METADATA.format(what)


def encoded(body: Any) -> bytes:
    r"""Returns JSON that is valid YAML as well: the server reads applied objects as YAML.

    NB: that reader refuses characters beyond 16 bits (emoji) as JSON escapes them, and takes some others (U+0085,
    U+2028) for line breaks unless they are escaped. Such characters occur only inside strings, so each can be
    escaped by itself.
    """
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(body, ensure_ascii=False)).encode()


def _none_if_missing(call: Any) -> Manifest | None:
    try:
        found: Manifest = call()
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return found


def _api_error(response: urllib3.BaseHTTPResponse) -> ApiError:
    try:
        status = json.loads(response.data)
    except (ValueError, urllib3.exceptions.HTTPError, OSError):
        status = {}
    return ApiError(response.status, status.get("reason", ""), status.get("message", f"status {response.status}"))


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(amt=None, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)
