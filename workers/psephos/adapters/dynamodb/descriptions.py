"""The data from which botocore makes clients: descriptions of DynamoDB and all endpoints, 10 MB as Python objects.

They are read once per process. A fork server reads them before it forks (it imports
`psephos.adapters.dynamodb.described`), so that its children share them; this creates no session or client and
looks for no credentials.
"""

from functools import cache

import boto3
import botocore.session
from botocore.loaders import Loader, create_loader

_OF_EVERY_SERVICE = ("endpoints", "partitions", "sdk-default-configuration")
_OF_DYNAMODB = ("service-2", "endpoint-rule-set-1")
# The ledger, and the services that provide credentials for it.
_REACHED = frozenset({"dynamodb", "sts", "sso", "portal.sso", "oidc"})


def read_descriptions() -> None:
    """Reads all that a DynamoDB client is made from, and drops the endpoints of 300 other services."""
    for name in _OF_EVERY_SERVICE:
        _loader().load_data_with_path(name)
    for partition in _loader().load_data("endpoints")["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in services.keys() & _REACHED}
    for kind in _OF_DYNAMODB:
        _loader().load_service_model("dynamodb", kind, api_version=None)  # cached by botocore's own arguments


@cache
def boto_session() -> boto3.Session:
    """The process's session. It looks for credentials when it makes its first client."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    return boto3.Session(botocore_session=session)


@cache
def _loader() -> Loader:
    return create_loader()
