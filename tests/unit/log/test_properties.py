"""librdkafka's properties from a file: what it would refuse is told in one line, with the file's name."""

from pathlib import Path

import pytest

from psephos.adapters.kafka import client_config
from psephos.platform.settings import Settings, SettingsError, load_settings

SCRAM = "# of the brokers\nsecurity.protocol = SASL_SSL\n\nsasl.mechanisms=SCRAM-SHA-512\nsasl.username=u\n"


def settings(file: Path) -> Settings:
    given = {
        "SESSION_FILE": "s",
        "SESSION_UID": "u",
        "KAFKA_BOOTSTRAP": "k:9092",
        "KAFKA_PROPERTIES_FILE": str(file),
    }
    return load_settings({f"PSEPHOS_{name}": value for name, value in given.items()})


def test_properties_are_taken_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text(f"{SCRAM}sasl.password=p=1#2\n")
    config = client_config(settings(file))
    assert (config["security.protocol"], config["sasl.password"]) == ("SASL_SSL", "p=1#2")
    assert config["bootstrap.servers"] == "k:9092"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("security.protocl=SSL\n", 'No such configuration property: "security.protocl"'),
        ("sasl.mechanisms=NOPE\nsecurity.protocol=SASL_SSL\n", "Unsupported SASL mechanism: NOPE"),
        ("security.protocol=SSL\nssl.ca.location=/nowhere/ca.pem\n", "ssl.ca.location failed"),
        ("socket.timeout.ms=soon\n", "socket.timeout.ms"),
    ],
)
def test_what_the_client_would_refuse_is_one_line(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text(text)
    with pytest.raises(SettingsError) as error:
        client_config(settings(file))
    assert f"PSEPHOS_KAFKA_PROPERTIES_FILE: {file}: " in str(error.value)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no-such: No such file or directory"):
        client_config(settings(tmp_path / "no-such"))
