"""`psephos dev run`: one whole election on a fresh stack, from the first vote to the recount, and its proof.

    read the inputs -> start a stack -> cast every ballot by HTTP -> close -> recount -> check -> stop

The result is good only if the recount matches, every acknowledged vote is in the log, a reference model gets the
same result from the voters' own journal, a sample of receipts agrees with that model, and the last published frame
agrees with the recount.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import uvloop
import yaml

from psephos.adapters.dynamodb import Ledger
from psephos.client.http import NoAnswer, request
from psephos.client.tokens import signer, token_template
from psephos.domain.ballots import BallotRules
from psephos.domain.results import Document, decode_document
from psephos.domain.session import Session
from psephos.formats.receipts import TAG_BYTES
from psephos.platform.errors import PsephosError
from psephos.platform.settings import read_key
from psephos_lab.ballots import BallotKind, read_ballots
from psephos_lab.display import Display, LiveResults
from psephos_lab.journal import Acknowledged, Journal, read_journal
from psephos_lab.load import Load, plan_load, voter_names
from psephos_lab.proof import Proof, place_of, prove
from psephos_lab.receipts import resolve, sample
from psephos_lab.reference import COUNTED, Allowance, Vote, differences, fates
from psephos_lab.report import result_json
from psephos_lab.stack import Stack, StackOptions
from psephos_lab.voters import Cast, Door, anonymous_tokens, cast

CLOSE_TIMEOUT_S = 600.0
LAST_FRAME_S = 15.0
_TOKEN_TTL_S = 6 * 3_600
_LOOK_S = 0.2
_SHOWN_PROBLEMS = 20
DEFAULT_STACK = StackOptions()
_T = TypeVar("_T")


class ElectionFailed(PsephosError):
    """The election did not come to its end. The message is one line."""


@dataclass(frozen=True)
class RunOptions:
    """Options for playing an election. rate: most ballots per second; grace_s: longest close grace."""

    duplicates: float = 0.0
    extra: float = 0.0
    invalid: float = 0.0
    seed: int = 0
    rate: float | None = None
    grace_s: float = 5.0
    live: bool = False
    stack: StackOptions = DEFAULT_STACK


class Inputs(NamedTuple):
    """A session as it will run, and the ballots. notes: what is done differently from the session's YAML."""

    session: Session
    source: bytes
    kinds: Sequence[BallotKind]
    notes: Sequence[str]


class Played(NamedTuple):
    """The outcome. `result` is the JSON object; `problems`: one line each, empty if everything holds."""

    result: dict[str, Any]
    problems: Sequence[str]


def read_inputs(session: Session, ballots: Path, options: RunOptions) -> Inputs:
    """Reads the input and finds all that can be wrong with it, before any server is started.

    Raises BallotsError, and ValueError for a session that can't be played.
    """
    if options.extra and not Allowance.of(session).several:
        raise ValueError("voters have one vote here, so there are no extra ones; --duplicates casts second votes")
    kinds = read_ballots(ballots, BallotRules.of(session))
    if not sum(kind.voters for kind in kinds):
        raise ValueError(f"{ballots}: there is no ballot in it")
    playable, notes = _playable(session, options)
    document = playable.model_dump(mode="json", by_alias=True, exclude_none=True)
    return Inputs(playable, yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode(), kinds, notes)


def _playable(session: Session, options: RunOptions) -> tuple[Session, list[str]]:
    """Returns the session changed to open now and close when all ballots are in, and notes on the changes."""
    spec, notes = session.spec, []
    if spec.opens_at or spec.closes_at:
        notes.append("opensAt and closesAt are not those of the YAML: opens now, closes when all ballots are in")
    grace = min(spec.close_grace, timedelta(seconds=options.grace_s))
    if grace != spec.close_grace:
        notes.append(f"closeGrace is {grace.total_seconds():g} s here")
    tokens = spec.voters.tokens
    if tokens and (tokens.secret_ref or tokens.jwks_url) and options.stack.token_key_file is None:
        notes.append("voter tokens are signed with a key made for this run")
    if tokens and tokens.jwks_url:
        voters = spec.voters.model_copy(update={"tokens": tokens.model_copy(update={"jwks_url": None})})
        spec = spec.model_copy(update={"voters": voters})
    if spec.voters.eligibility == "roll":
        notes.append("the electoral roll has the voters of this run")
    changes = {"opens_at": None, "closes_at": None, "close_grace": grace}
    return session.model_copy(update={"spec": spec.model_copy(update=changes)}), notes


def play(
    inputs: Inputs,
    folder: Path,
    options: RunOptions,
    display: Display,
    stopped: Callable[[], bool] = lambda: False,
    meanwhile: Callable[[Stack, Played], None] = lambda _stack, _played: None,
) -> Played:
    """Plays the election in `folder`. `meanwhile` is called with the result while the stack is still up.

    Raises ElectionFailed, Unanswered, RoleFailed, StackError and the errors of unavailable servers.
    """
    for note in inputs.notes:
        display.news("session", note)
    names = voter_names(sum(kind.voters for kind in inputs.kinds), options.invalid)
    stack = Stack(folder, inputs.session, inputs.source, _with_roll(inputs, folder, options, names), display.news)
    try:
        if not stack.start(stopped):
            raise ElectionFailed("stopped before voting began")
        tokens: Mapping[str, str] = {}
        if inputs.session.spec.voters.eligibility == "open":
            tokens = uvloop.run(anonymous_tokens(stack.ingest_url, len(names)))
            display.news("voting", f"{len(tokens):,} browsers have a token")
        played = _Election(inputs, stack, options, display, stopped, list(tokens) or names, tokens).play()
        meanwhile(stack, played)
    finally:
        stack.stop()
    return played


def _with_roll(inputs: Inputs, folder: Path, options: RunOptions, names: Sequence[str]) -> StackOptions:
    """Returns the stack's options, with all voters of this run on the roll if the session has one."""
    if inputs.session.spec.voters.eligibility != "roll":
        return options.stack
    folder.mkdir(parents=True, exist_ok=True)
    roll = folder / "roll.txt"
    roll.write_text("".join(f"{name}\n" for name in names))
    return replace(options.stack, roll_file=roll)


class _Election:
    def __init__(
        self,
        inputs: Inputs,
        stack: Stack,
        options: RunOptions,
        display: Display,
        stopped: Callable[[], bool],
        names: Sequence[str],
        tokens: Mapping[str, str],
    ) -> None:
        """`names`: of the voters; `tokens`: theirs, if the session is open and hands them out itself."""
        self._session = inputs.session
        self._stack = stack
        self._options = options
        self._display = display
        self._stopped = stopped
        self._journal = stack.folder / "journal.jsonl"
        self._allowance = Allowance.of(inputs.session)
        self._tokens = tokens
        self._load = self._plan(inputs.kinds, names)

    def play(self) -> Played:
        self._display.news("results", f"page http://127.0.0.1:{self._stack.settings.gateway_port}/")
        with ExitStack() as shown:
            if self._options.live:
                stack = self._stack
                shown.enter_context(
                    LiveResults(self._display, stack.gateway_url, self._session.labels, self._session.title)
                )
            seen = self._cast()
            document = self._close()
        return Played(result_json(document, seen), list(self._check(document, seen)))

    # --- Voting

    def _plan(self, kinds: Sequence[BallotKind], names: Sequence[str]) -> Load:
        options = self._options
        return plan_load(
            kinds,
            BallotRules.of(self._session),
            session_key=self._stack.session_keys.session,
            partitions=self._stack.genesis.partitions,
            allowance=self._allowance,
            duplicates=options.duplicates,
            extra=options.extra,
            invalid=options.invalid,
            seed=options.seed,
            names=names,
        )

    def _cast(self) -> Cast:
        load, begun, seen = self._load, time.monotonic(), Cast()
        self._display.news("voting", f"{len(load.voters):,} voters, {load.more:,} votes besides their first")
        with Journal(self._journal) as journal:
            casting = cast(self._door(), load, journal, self._stack.settings, rate=self._options.rate, seen=seen)
            uvloop.run(self._watched(casting))
        seconds = time.monotonic() - begun
        self._display.news(
            "voting",
            f"{seen.acknowledged:,} votes acknowledged in {seconds:.1f} s ({seen.more:,} second and further votes,"
            f" {seen.repeated:,} repeated, {seen.retries:,} tried again),"
            f" {sum(seen.refused.values()):,} ballots refused, {seen.poison:,} invalid records put into the log",
        )
        return seen

    def _door(self) -> Door:
        stack = self._stack
        credential = read_key(stack.door_keys.batch_credential, "BATCH_CREDENTIAL_FILE").decode()
        if self._tokens:
            return Door(stack.ingest_url, credential, self._tokens.__getitem__, anonymous=True)
        template, now = token_template(self._session, _TOKEN_TTL_S), int(time.time())
        tokens = self._session.spec.voters.tokens
        assert tokens is not None
        sign = signer(tokens.algorithms[0], read_key(stack.door_keys.token_signing, "TOKEN_KEY_FILE"))
        return Door(stack.ingest_url, credential, lambda subject: sign(template.claims(subject, now)))

    async def _watched(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs the work; breaks it off when a stop is requested or a role can't go on."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=_LOOK_S)
            try:
                self._require_going()
            except Exception:
                task.cancel()
                await asyncio.wait([task])
                raise
        return task.result()

    def _require_going(self) -> None:
        self._stack.supervisor.check()
        if self._stopped():
            raise ElectionFailed("stopped before the result was there")

    # --- The end

    def _close(self) -> Document:
        """Closes by the clock, as every session does; returns what the recount sealed."""
        controller, deadline = self._stack.controller, time.monotonic() + CLOSE_TIMEOUT_S
        controller.close()
        while controller.wait(_LOOK_S) is None:
            self._require_going()
            if time.monotonic() > deadline:
                raise ElectionFailed(f"no result within {CLOSE_TIMEOUT_S:.0f} s after closing; see {self._logs}")
        ledger = Ledger.of(self._stack.settings)
        payload = ledger.get("final") or ledger.get("disputed#final")
        if payload is None:
            raise ElectionFailed(f"the recount left no result; see {self._logs}")
        return decode_document(payload)

    @property
    def _logs(self) -> Path:
        return self._stack.folder / "logs"

    def _check(self, document: Document, seen: Cast) -> Iterator[str]:
        """Yields one line for everything that has gone wrong in this election."""
        yield from self._check_recount(document)
        if seen.accepted_invalid:
            yield f"{seen.accepted_invalid} invalid ballots were acknowledged by ingest"
        votes = self._votes_in_order()
        proof = self._prove(votes)
        yield from self._check_journal(document, proof)
        found = fates((Vote(vote.subject, vote.key, vote.body) for vote in votes), self._allowance)
        yield from self._check_reference(document, seen, votes, found)
        yield from self._check_receipts(votes, found, proof)
        yield from self._check_last_frame(document)

    def _check_recount(self, document: Document) -> Iterator[str]:
        if not document["recount"]["match"]:
            yield f"{document['recount']['differenceCount']} differences between log and ledger"
        elif document["state"] != "Final":
            yield f"the session is {document['state']}"

    def _prove(self, votes: Sequence[Acknowledged]) -> Proof:
        stack, genesis = self._stack, self._stack.genesis
        proof = prove(
            stack.settings, genesis.partitions, stack.session_keys.session, genesis.hash[:TAG_BYTES], votes
        )
        self._display.news("proof", f"{len(votes) - len(proof.missing):,} of {len(votes):,} votes are in the log")
        return proof

    def _check_journal(self, document: Document, proof: Proof) -> Iterator[str]:
        if proof.records != document["recount"]["logRecords"]:
            yield f"the log has {proof.records} records, the recount says {document['recount']['logRecords']}"
        yield from _some([f"acknowledged, but lost: {each.vote.subject}: {each.why}" for each in proof.missing])

    def _votes_in_order(self) -> list[Acknowledged]:
        """Returns the journal in the order of the log, partition by partition."""
        return sorted(read_journal(self._journal), key=place_of)

    def _check_reference(
        self, document: Document, seen: Cast, votes: Sequence[Acknowledged], found: Sequence[str]
    ) -> Iterator[str]:
        numbers = Counter(found)
        told = ", ".join(f"{number:,} {fate}" for fate, number in numbers.most_common())
        self._display.news("proof", f"reference model: {told}")
        counted = [vote.body for vote, fate in zip(votes, found, strict=True) if fate == COUNTED]
        yield from differences(self._session, document, counted, numbers, unknown=_unknown(document, seen))

    def _check_receipts(self, votes: Sequence[Acknowledged], found: Sequence[str], proof: Proof) -> Iterator[str]:
        chosen = sample(votes, self._options.seed)
        expected = {vote.receipt: fate for vote, fate in zip(votes, found, strict=True)}
        resolved = uvloop.run(resolve(self._stack.gateway_url, chosen, expected, proof.repeats))
        statuses = ", ".join(f"{number:,} {status}" for status, number in resolved.statuses.most_common())
        self._display.news("proof", f"{len(chosen):,} receipts asked for at the gateway: {statuses}")
        yield from _some(resolved.failures)

    def _check_last_frame(self, document: Document) -> Iterator[str]:
        """Checks that viewers see in the end what was recounted."""
        wanted = {name: document[name] for name in ("totals", "epoch", "version")}
        deadline, seen = time.monotonic() + LAST_FRAME_S, None
        while time.monotonic() < deadline:
            seen = self._frame()
            if seen is not None and not seen.get("stale") and all(seen[each] == wanted[each] for each in wanted):
                return
            time.sleep(_LOOK_S)
        shown = "nothing" if seen is None else f"version {seen['version']}, phase {seen['phase']}"
        yield f"viewers do not see the final result (version {document['version']}), but {shown}"

    def _frame(self) -> dict[str, Any] | None:
        try:
            answer = request(f"{self._stack.gateway_url}/results")
        except NoAnswer:
            return None
        return answer.body if answer.status == 200 else None


def _unknown(document: Document, seen: Cast) -> int:
    """Returns the number of records of votes that were not confirmed and then tried again: no journal has them."""
    return int(document["turnout"]["received"]) - seen.acknowledged - seen.poison


def _some(problems: Sequence[str]) -> Iterator[str]:
    yield from problems[:_SHOWN_PROBLEMS]
    if len(problems) > _SHOWN_PROBLEMS:
        yield f"and {len(problems) - _SHOWN_PROBLEMS} more"
