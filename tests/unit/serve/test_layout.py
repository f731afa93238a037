"""Which processes serve a session, and where each tells how it is."""

from pathlib import Path

import pytest

from psephos.platform.settings import Settings, SettingsError, load_settings
from psephos.roles.serve import admin_ports, layout, own_admin_port


def _settings(**values: object) -> Settings:
    return load_settings(
        {}, session_file=Path("session.yaml"), session_uid="s-1", kafka_bootstrap="127.0.0.1:9092", **values
    )


def test_who_takes_votes_stops_first_and_who_counts_them_last() -> None:
    names = [role.name for role in layout(_settings(), workers=3)]
    assert names == ["ingest", "gateway", "projector", "tally-0", "tally-1", "tally-2"]


def test_every_process_has_an_admin_port_of_its_own_and_every_worker_an_ordinal() -> None:
    roles = layout(_settings(admin_port=9100, ingest_processes=2), workers=2)
    ports = [port for role in roles for port in role.admin_ports]
    ports.append(own_admin_port(_settings(admin_port=9100, ingest_processes=2), workers=2))
    assert ports == list(range(9100, 9100 + admin_ports(2, 2)))
    for role in roles:
        assert role.environment["PSEPHOS_ADMIN_PORT"] == str(role.admin_ports[0])
    assert [role.environment.get("PSEPHOS_WORKER") for role in roles if role.role == "tally"] == ["0", "1"]


@pytest.mark.parametrize("port", [0, 65_533])
def test_admin_ports_that_do_not_fit_are_refused(port: int) -> None:
    with pytest.raises(SettingsError, match="serve needs 6 ports in a row"):
        layout(_settings(admin_port=port), workers=2)
