"""The operator's settings: read once, and one line about what is wrong."""

import pytest
from tests.unit.operator.sessions import UID, VARIABLES, settings

from psephos.platform.settings import SettingsError
from psephos_operator.settings import load_operator_settings


def test_lists_are_comma_separated() -> None:
    assert settings(namespaces="one, two").namespaces == ("one", "two")
    assert settings().namespaces == ()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"IMAGE": ""}, "PSEPHOS_OPERATOR_IMAGE is not set"),
        ({"IMAGES": "x"}, "PSEPHOS_OPERATOR_IMAGES is not a setting"),
        ({"RESYNC_S": "soon"}, "PSEPHOS_OPERATOR_RESYNC_S='soon'"),
        ({"ROUTING": "ingress"}, "needs PSEPHOS_OPERATOR_HOST"),
        ({"ROUTING": "gateway", "HOST": "h"}, "needs PSEPHOS_OPERATOR_GATEWAY=namespace/name"),
        ({"STRIMZI_CLUSTER": "main"}, "go together"),
        ({"HOST": "{session}.example"}, "{name} and {namespace}"),
    ],
)
def test_what_is_wrong_is_one_line(more: dict[str, str], why: str) -> None:
    environ = {**VARIABLES, **{f"PSEPHOS_OPERATOR_{name}": value for name, value in more.items()}}
    with pytest.raises(SettingsError) as error:
        load_operator_settings(environ)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_adapters_get_the_sessions_uid_and_the_same_backends() -> None:
    given = settings(dynamodb_endpoint="http://dynamodb:8000").role_settings(UID)
    assert given.session_uid == UID
    assert given.kafka_bootstrap == "kafka:9092"
    assert given.dynamodb_endpoint == "http://dynamodb:8000"
