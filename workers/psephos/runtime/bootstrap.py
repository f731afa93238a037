"""The first steps of every role: read its settings and the session, and compare them with the ledger's genesis."""

import time
from collections.abc import Callable
from typing import NamedTuple

from psephos.adapters.dynamodb import Ledger, LedgerMissing
from psephos.adapters.kafka import LogAdmin
from psephos.domain.genesis import Genesis, decode_genesis, key_fingerprint, require_match
from psephos.domain.session import Session, rules_hash
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings, SettingsError
from psephos.runtime.session_file import load_session

_RETRY_S = 0.5
log = get_logger()


class Context(NamedTuple):
    """A role's surroundings, checked: the session, its genesis and its ledger."""

    settings: Settings
    session: Session
    genesis: Genesis
    ledger: Ledger


def start(
    settings: Settings,
    *,
    session_key: bytes | None = None,
    waiting: Callable[[str], None] = lambda _why: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Context:
    """Waits until the session has a genesis, then compares. Blocks; `waiting` is called with the reason.

    Raises SettingsError, GenesisMismatch, LogUnavailable (no broker), or LedgerUnavailable.
    """
    session = load_session(settings)
    admin = LogAdmin(settings, isolated=False)  # used once, when an abort would lose nothing
    admin.require_brokers()
    ledger = Ledger.of(settings)
    genesis = _await_genesis(ledger, session, waiting, stopped)
    described = admin.describe_votes()
    topic_id, partitions = described or ("(none: the votes topic is gone)", 0)
    require_match(
        genesis,
        session=settings.session_uid,
        rules_hash=rules_hash(session).hex(),
        topic_id=topic_id,
        partitions=partitions,
    )
    if session_key is not None:
        require_match(genesis, key_fingerprint=key_fingerprint(session_key))
    return Context(settings, session, genesis, ledger)


def _await_genesis(
    ledger: Ledger, session: Session, waiting: Callable[[str], None], stopped: Callable[[], bool]
) -> Genesis:
    told = False
    while not stopped():
        try:
            payload = ledger.get("genesis")
        except LedgerMissing:
            payload = None
        if payload is not None:
            return decode_genesis(payload)
        if not told:
            log.info("waiting for genesis", name=session.name)
            waiting(f"session {session.name} has no genesis yet")
            told = True
        time.sleep(_RETRY_S)
    raise SettingsError(f"session {session.name}: stopped before it had a genesis")
