"""Kafka with TLS of a private authority and SCRAM users: operator and pods reach it by one properties file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization
from tests.apiserver.certificates import write_certificates
from tests.waiting import wait_until

from psephos.adapters.kafka import LogAdmin, LogUnavailable
from psephos.control import SessionKeys, prepare
from psephos.control.keys import new_keys, signing_key
from psephos.domain.session import parse_session
from psephos_lab.java import ensure_jars
from psephos_lab.ports import LOOPBACK, free_port
from psephos_lab.servers import Backends as Servers
from psephos_lab.servers import Kafka
from psephos_operator.reconcile.backends import Backends
from psephos_operator.settings import load_operator_settings

SESSION = {
    "apiVersion": "psephos.dev/v1alpha1",
    "kind": "VotingSession",
    "metadata": {"name": "lunch"},
    "spec": {
        "ballot": {"type": "single", "options": [{"id": "pizza"}, {"id": "soup"}]},
        "voters": {"tokens": {"issuer": "i", "audience": "a"}},
        "capacity": {"partitions": 1},
    },
}


class Guarded:
    """A broker with a second door that asks for a password behind TLS."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        write_certificates(folder)
        self.authority = (folder / "ca.crt").read_text()
        self.door = f"{LOOPBACK}:{free_port()}"
        self.kafka = Kafka([free_port()], folder / "kafka", folder, ensure_jars())
        (broker,) = self.kafka.brokers
        plain, controller = (
            f"PLAINTEXT://{broker.address}",
            f"CONTROLLER://{LOOPBACK}:{broker.node.controller_port}",
        )
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        broker.config = {
            "listeners": f"{plain},GUARDED://{self.door},{controller}",
            "advertised.listeners": f"{plain},GUARDED://{self.door}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL",
            "listener.name.guarded.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.guarded.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.guarded.ssl.keystore.type": "PEM",
            "listener.name.guarded.ssl.keystore.location": str(_keystore(folder)),
        }

    def let_in(self, user: str, password: str) -> None:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        self._alter(UserScramCredentialUpsertion(user, info, password.encode()))

    def shut_out(self, user: str) -> None:
        self._alter(UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512))

    def properties(self, user: str, password: str) -> str:
        pem = self.authority.replace("\n", "\\n")
        return (
            "security.protocol=SASL_SSL\nsasl.mechanisms=SCRAM-SHA-512\n"
            f"sasl.username={user}\nsasl.password={password}\nssl.ca.pem={pem}\n"
        )

    def _alter(self, change: UserScramCredentialAlteration) -> None:
        admin = AdminClient({"bootstrap.servers": self.kafka.address})
        for done in admin.alter_user_scram_credentials([change]).values():
            done.result(timeout=30)


def _keystore(folder: Path) -> Path:
    """Key and certificate as Kafka reads them: PKCS#8."""
    key = serialization.load_pem_private_key((folder / "tls.key").read_bytes(), None)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "keystore.pem"
    file.write_bytes(pem + (folder / "tls.crt").read_bytes())
    return file


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    server = Guarded(tmp_path_factory.mktemp("guarded") / "one")
    server.kafka.start()
    try:
        server.kafka.wait_ready()
        yield server
    finally:
        server.kafka.stop()


def test_a_session_is_prepared_and_looked_at_by_a_password_that_is_then_rotated(
    guarded: Guarded, backends: Servers, tmp_path: Path
) -> None:
    guarded.let_in("old", "old-password")
    file = tmp_path / "kafka.properties"
    file.write_text(guarded.properties("old", "old-password"))
    given = load_operator_settings(
        {},
        image="x",
        kafka_bootstrap=guarded.door,
        kafka_properties_file=file,
        kafka_replication=1,
        dynamodb_endpoint=backends.dynamodb_endpoint,
        redis_url=backends.redis_url,
    )
    uid, hands = "guarded-1", Backends(given)
    made = new_keys()
    keys = SessionKeys(made["session-key"], signing_key(made["signing-key"]), made["lot-seed"])
    prepare(given.role_settings(uid), parse_session(SESSION), keys)
    assert hands.observe(uid, "final").owned == 0

    guarded.let_in("new", "new-password")
    guarded.shut_out("old")
    file.write_text(guarded.properties("new", "new-password"))
    wait_until(lambda: hands.observe(uid, "final").owned == 0, "looked at by the new password")
    hands.delete_topics(uid)
    wait_until(lambda: not hands.has_topics(uid), "its topics are gone")


def test_a_wrong_password_is_a_log_that_is_away_and_said_so(guarded: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text(guarded.properties("nobody", "wrong"))
    given = load_operator_settings(
        {}, image="x", kafka_bootstrap=guarded.door, kafka_properties_file=file, redis_url="redis://x"
    )
    with pytest.raises(LogUnavailable, match="Authentication failed") as error:
        LogAdmin(given.role_settings("u")).require_brokers(timeout_s=3)
    assert "\n" not in str(error.value)
