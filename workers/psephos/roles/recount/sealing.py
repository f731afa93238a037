"""The sealing step: combines all verdicts into one result document, signed, written once, published."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.redis import Projection, redis_client
from psephos.control.keys import SessionKeys, read_lot_seed, read_signing_key
from psephos.domain.counting import CountingRules, count, outcome_json, totals
from psephos.domain.genesis import lot_commitment, require_match
from psephos.domain.results import (
    Document,
    cells_of,
    combine,
    decode_document,
    embargoed,
    encode_document,
    final_frame,
    option_sums,
    segments_json,
    sign_result,
    totals_json,
    turnout,
)
from psephos.domain.session import Session
from psephos.formats.control import Control, Phase
from psephos.formats.frames import encode_frame
from psephos.platform.clock import text_of
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.recount.errors import RecountError
from psephos.roles.recount.examine import merge_patterns
from psephos.roles.recount.report import recount_json
from psephos.roles.recount.verdicts import Verdict, decode_verdict, patterns_hash, read_patterns
from psephos.runtime.bootstrap import Context

FORMAT = 1
DECIDED = ("turnout", "totals", "segments", "outcome", "sealedEnds")  # by the log and the lot alone
_REDIS_TIMEOUT_S = 3.0
log = get_logger()


def seal(context: Context, run: str, control: Control, now_ms: int) -> tuple[Document, list[str]]:
    """Combines the verdicts of a run into the signed result.

    Returns the document that is then in the ledger, and the members in which an earlier one differs from what
    this run found.

    A result that agrees becomes the item `final`, of which there is only ever one. A disputed one is stored under
    `disputed#<run>`, so that a recount after a repair can still make the session final.

    Raises RecountError (a verdict is missing, patterns do not fit it), GenesisMismatch (another signing key or
    lot seed) or SettingsError.
    """
    verdicts = read_verdicts(context, run)
    patterns = merge_patterns(_patterns(context.ledger, run, verdict) for verdict in verdicts)
    keys = _keys(context)
    members = findings(context, verdicts, patterns, keys.lot_seed)
    state = Phase.FINAL if members["recount"]["match"] else Phase.DISPUTED
    document = sign_result(
        {
            "format": FORMAT,
            "session": context.session.name,
            "name": context.session.name,
            "uid": context.genesis.session,
            "epoch": context.genesis.epoch,
            "version": sum(members["sealedEnds"]) + control.number + (control.phase is not state),
            "state": state.value,
            **_visible(context.session, state, members),
            "sealedAt": text_of(now_ms),
        },
        keys.signing,
    )
    kind = "final" if state is Phase.FINAL else f"disputed#{run}"
    stored = decode_document(context.ledger.put_once(kind, encode_document(document)))
    log.info("result sealed", state=stored["state"], version=stored["version"], run=run)
    changed = [name for name in (*DECIDED, "chainHeads") if not same_json(document[name], stored[name])]
    return stored, changed


def same_json(ours: Any, theirs: Any) -> bool:
    """Returns whether both are the same JSON."""
    return encode_document({"": ours}) == encode_document({"": theirs})


def read_verdicts(context: Context, run: str) -> list[Verdict]:
    """Returns the verdicts of all partitions. Raises RecountError naming those that are missing."""
    verdicts = {partition: decode_verdict(item) for partition, item in context.ledger.items(f"verdict#{run}")}
    missing = [str(p) for p in range(context.genesis.partitions) if p not in verdicts]
    if missing:
        raise RecountError(
            f"no verdict of the recount {run!r} for partitions {', '.join(missing)}: run them first"
        )
    return [verdicts[partition] for partition in sorted(verdicts)]


def findings(
    context: Context, verdicts: Sequence[Verdict], patterns: Mapping[bytes, int], lot_seed: bytes | None
) -> dict[str, Any]:
    """Combines the verdicts of all partitions: returns the members of a result document that they decide.

    `outcome` is None if ties are broken by lot and there is no `lot_seed`.
    """
    session = context.session
    state = combine((verdict.state for verdict in verdicts), cells_of(session))
    rules = CountingRules.of(session)
    if totals(rules, patterns) != option_sums(session, state.tallies):
        raise RecountError("the ballots do not add up to the totals of the same log: this is an error in psephos")
    heads = [verdict.head for verdict in verdicts]
    by_lot = rules.tie_break == "lot"
    mixed = mix_lot(lot_seed, heads) if by_lot and lot_seed is not None else None
    differences = [difference for verdict in verdicts for difference in verdict.differences]
    return {
        "turnout": msgspec.to_builtins(turnout(state.classes, state.voters)),
        "totals": totals_json(session, state.tallies),
        "segments": segments_json(session, state.tallies),
        "outcome": None
        if by_lot and mixed is None
        else outcome_json(count(rules, patterns, lot_seed=mixed), session.option_ids),
        "recount": recount_json(
            sum(verdict.log_records for verdict in verdicts),
            differences,
            sum(verdict.difference_count for verdict in verdicts),
        ),
        "chainHeads": heads,
        "sealedEnds": [verdict.end for verdict in verdicts],
        "lotSeed": lot_seed.hex() if mixed is not None and lot_seed is not None else None,
    }


def mix_lot(seed: bytes, heads: Sequence[str]) -> bytes:
    """Returns the lot: SHA-256 of the seed, to which genesis committed, and the final chain heads (hex) in the
    order of their partitions. Neither the person who chose the seed nor the last voter could choose the lot."""
    return hashlib.sha256(seed + b"".join(bytes.fromhex(head) for head in heads)).digest()


def publish(settings: Settings, document: Document, as_of: int) -> bool:
    """Writes the final frame to Redis; returns whether Redis took it. The ledger has the result in any case."""
    frame = encode_frame(final_frame(document, as_of))
    try:
        asyncio.run(_publish(settings, document["epoch"], document["version"], frame))
    except Exception as error:  # whatever is wrong with Redis, the result stands
        log.warning("final frame not published", why=str(error) or type(error).__name__)
        return False
    return True


async def _publish(settings: Settings, epoch: str, version: int, frame: bytes) -> None:
    redis = redis_client(settings, _REDIS_TIMEOUT_S)
    try:
        await Projection(redis, settings.session_uid).write(epoch, version, frame)
    finally:
        await redis.aclose()


def _keys(context: Context) -> SessionKeys:
    """Returns the keys that sealing needs, checked against the genesis. The session key is not needed."""
    seed = b""
    if context.session.spec.ballot.tie_break == "lot":
        seed = read_lot_seed(context.settings)
        require_match(context.genesis, lot_commitment=lot_commitment(seed))
    keys = SessionKeys(b"", read_signing_key(context.settings), seed)
    require_match(context.genesis, public_key=keys.public_key)
    return keys


def _patterns(ledger: Ledger, run: str, verdict: Verdict) -> dict[bytes, int]:
    chunks = [item for _, item in ledger.items(f"patterns#{run}#{verdict.partition}")]
    if patterns_hash(chunks) != verdict.patterns:
        raise RecountError(f"partition {verdict.partition}: the ballot patterns are not those of its verdict")
    return read_patterns(chunks)


def _visible(session: Session, state: Phase, members: dict[str, Any]) -> dict[str, Any]:
    """Hides members: a disputed result names no winner, and under embargo no figures per option."""
    hidden = set() if state is Phase.FINAL else {"outcome", "lotSeed"}
    if embargoed(session, state):
        hidden |= {"totals", "segments"}
    return {name: None if name in hidden else value for name, value in members.items()}
