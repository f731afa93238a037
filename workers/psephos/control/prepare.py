"""Preparing a session: table, topics, genesis, first control record."""

import time
from collections.abc import Callable
from typing import TypeVar

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.kafka import LogAdmin, LogUnavailable, read_control, write_control
from psephos.control.keys import SessionKeys
from psephos.domain.genesis import (
    Genesis,
    decode_genesis,
    encode_genesis,
    key_fingerprint,
    lot_commitment,
    require_match,
)
from psephos.domain.session import Session, rules_hash
from psephos.formats.control import Control, Phase
from psephos.formats.receipts import receipt_key
from psephos.platform.clock import ms_of, now_ms
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings

_SETTLE_S = 30.0  # a newly created topic is known to every broker long before that
_RETRY_S = 0.2
_COMPARED = (  # the fields that say most about a difference come first
    "session",
    "name",
    "topic_id",
    "partitions",
    "key_fingerprint",
    "rules_hash",
    "public_key",
    "receipt_key",
    "lot_commitment",
)
_T = TypeVar("_T")
log = get_logger()


def prepare(settings: Settings, session: Session, keys: SessionKeys, *, make_topics: bool = True) -> Genesis:
    """Creates what a session needs before any role can start; whatever exists already is compared instead.

    If `make_topics` is false, another process creates the topics, and this one waits for them.

    Raises GenesisMismatch if the ledger holds another session under this uid, or if the votes topic is gone or
    is another one; LogUnavailable; LedgerUnavailable.
    """
    ledger = Ledger.of(settings)
    admin = LogAdmin(settings)
    admin.require_brokers()
    ledger.create_table()
    stored = ledger.get("genesis")
    if stored is None and make_topics:
        admin.create_topics(session.partitions)
    genesis = _genesis(settings, session, keys, admin, settle=stored is None)
    if stored is None:
        stored = ledger.put_once("genesis", encode_genesis(genesis))
    fixed = decode_genesis(stored)
    require_match(fixed, **{name: getattr(genesis, name) for name in _COMPARED})
    first = _first_control(settings, session)
    log.info("session prepared", name=session.name, partitions=fixed.partitions, phase=first.phase)
    return fixed


def _genesis(settings: Settings, session: Session, keys: SessionKeys, admin: LogAdmin, *, settle: bool) -> Genesis:
    described = _settled(admin.describe_votes) if settle else admin.describe_votes()
    topic_id, partitions = described or ("(none: the votes topic is gone)", 0)
    return Genesis(
        session=settings.session_uid,
        name=session.name,
        partitions=partitions,
        topic_id=topic_id,
        key_fingerprint=key_fingerprint(keys.session),
        rules_hash=rules_hash(session).hex(),
        public_key=keys.public_key,
        receipt_key=receipt_key(keys.session),
        lot_commitment=lot_commitment(keys.lot_seed),
    )


def _first_control(settings: Settings, session: Session) -> Control:
    """The state in the control topic; if there is none, writes the session's first state."""
    known = _settled_control(settings)
    if known is not None:
        return known
    opens_at = ms_of(session.spec.opens_at)
    pending = opens_at is not None and opens_at > now_ms()
    first = Control(
        phase=Phase.PENDING if pending else Phase.OPEN,
        number=1,
        opens_at=opens_at,
        closes_at=ms_of(session.spec.closes_at),
        grace_ms=round(session.spec.close_grace.total_seconds() * 1000),
    )
    write_control(settings, first)
    return first


def _settled_control(settings: Settings) -> Control | None:
    deadline = time.monotonic() + _SETTLE_S
    while True:
        try:
            return read_control(settings)
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)


def _settled(read: Callable[[], _T | None]) -> _T | None:
    """The result of `read` once it knows of a newly created topic."""
    deadline = time.monotonic() + _SETTLE_S
    while (answer := read()) is None and time.monotonic() < deadline:
        time.sleep(_RETRY_S)
    return answer
