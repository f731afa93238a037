"""Preparing a session: once, and compared ever after."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.prepared import PARTITIONS, Prepared
from tests.waiting import wait_until

from psephos.adapters.kafka import LogAdmin, broker_time_ms, read_control, votes_topic
from psephos.control import LifecycleError, LocalController, make_keys, prepare, read_keys, set_phase
from psephos.domain.genesis import GenesisMismatch, decode_genesis
from psephos.formats.control import Phase
from psephos.platform.settings import SettingsError, load_settings
from psephos_lab.servers import Backends

Unique = Callable[[str], str]


@pytest.fixture
def prepared(backends: Backends, unique: Unique, tmp_path: Path) -> Prepared:
    return Prepared(backends, unique("p")[:60], tmp_path, closesAt=None)


def test_a_prepared_session_has_topics_a_genesis_and_is_open(prepared: Prepared) -> None:
    stored = prepared.ledger.get("genesis")
    assert stored is not None
    genesis = decode_genesis(stored)
    assert genesis == prepared.genesis
    assert (genesis.topic_id, genesis.partitions) == prepared.admin.describe_votes()
    assert genesis.public_key == prepared.keys.public_key
    control = read_control(prepared.settings)
    assert control is not None
    assert (control.phase, control.number, control.grace_ms) == (Phase.OPEN, 1, 1000)


def test_preparing_again_changes_nothing(prepared: Prepared) -> None:
    before = (prepared.ledger.get("genesis"), read_control(prepared.settings))
    assert prepare(prepared.settings, prepared.session, prepared.keys) == prepared.genesis
    assert (prepared.ledger.get("genesis"), read_control(prepared.settings)) == before


@pytest.mark.parametrize("member", ["session", "signing", "lot_seed"])
def test_other_keys_do_not_belong_to_the_session(prepared: Prepared, tmp_path: Path, member: str) -> None:
    files = make_keys(tmp_path / "others")
    others = read_keys(load_settings({**prepared.environ}, **files))
    keys = prepared.keys._replace(**{member: getattr(others, member)})
    with pytest.raises(GenesisMismatch):
        prepare(prepared.settings, prepared.session, keys)


def test_a_votes_topic_that_is_gone_is_never_made_a_second_time(prepared: Prepared) -> None:
    prepared.admin.delete_topics()
    admin = LogAdmin(prepared.settings)
    wait_until(lambda: admin.describe_votes() is None, "the topic is gone")
    with pytest.raises(GenesisMismatch, match="votes topic is gone"):
        prepare(prepared.settings, prepared.session, prepared.keys)
    assert admin.describe_votes() is None


def test_a_session_that_opens_later_is_pending_and_opens_when_it_is_due(
    backends: Backends, unique: Unique, tmp_path: Path
) -> None:
    opens = datetime.now(UTC) + timedelta(seconds=3)
    later = Prepared(backends, unique("p")[:60], tmp_path, opensAt=opens.isoformat(), closesAt=None)
    first = read_control(later.settings)
    assert first is not None
    assert first.phase is Phase.PENDING
    controller = LocalController(later.settings, lambda: Phase.FINAL)
    controller.start()
    try:
        wait_until(lambda: controller.control and controller.control.phase is Phase.OPEN, "the session opens")
    finally:
        controller.stop()
    assert datetime.now(UTC) >= opens


def test_only_phases_that_follow_can_be_set(prepared: Prepared) -> None:
    with pytest.raises(LifecycleError, match="Open can't become Final"):
        set_phase(prepared.settings, Phase.FINAL)
    paused = set_phase(prepared.settings, Phase.PAUSED, reason="a fire alarm")
    assert (paused.number, paused.reason) == (2, "a fire alarm")
    assert set_phase(prepared.settings, Phase.PAUSED) == paused
    assert set_phase(prepared.settings, Phase.OPEN).number == 3


def test_the_brokers_tell_their_time_without_touching_the_control_record(prepared: Prepared) -> None:
    before = read_control(prepared.settings)
    told = broker_time_ms(prepared.settings) / 1000
    assert abs(told - datetime.now(UTC).timestamp()) < 30  # one machine, one clock: the rest is its load
    assert read_control(prepared.settings) == before


def test_keys_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    made = make_keys(tmp_path / "keys")
    before = {path: path.read_bytes() for path in made.values()}
    assert make_keys(tmp_path / "keys") == made
    assert {path: path.read_bytes() for path in made.values()} == before
    assert all(path.stat().st_mode & 0o077 == 0 for path in before)


def test_a_signing_key_of_another_kind_is_refused_in_one_line(prepared: Prepared, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no key")
    with pytest.raises(SettingsError, match=r"PSEPHOS_SIGNING_KEY_FILE.*Ed25519"):
        read_keys(load_settings(prepared.environ, signing_key_file=wrong))


def test_votes_are_kept_for_ever_and_in_as_many_partitions_as_the_genesis_says(prepared: Prepared) -> None:
    assert votes_topic(prepared.settings.session_uid).endswith(".votes")
    assert len(prepared.admin.end_offsets(PARTITIONS)) == PARTITIONS
    assert prepared.admin.start_offsets(PARTITIONS) == [0] * PARTITIONS
