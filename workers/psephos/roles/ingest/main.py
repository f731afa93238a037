"""`psephos ingest`: one process of the write side's endpoint, or several behind one port."""

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any, NamedTuple

import uvloop

from psephos.adapters.kafka import ControlFollower, LogUnavailable
from psephos.domain.session import Session, Tokens
from psephos.formats.control import Control
from psephos.platform.clock import now_ms
from psephos.platform.health import AdminServer, Health
from psephos.platform.logs import configure_logs, get_logger
from psephos.platform.settings import Settings, SettingsError, read_key
from psephos.platform.signals import StopRequest, stop_requests
from psephos.roles.ingest import metrics, supervisor
from psephos.roles.ingest.anonymous import AnonymousTokens
from psephos.roles.ingest.batch import BatchDoor
from psephos.roles.ingest.credentials import Credentials
from psephos.roles.ingest.doors import Doors
from psephos.roles.ingest.eligibility import Eligibility
from psephos.roles.ingest.fairness import Fairness
from psephos.roles.ingest.gate import Gate
from psephos.roles.ingest.intake import Intake, LineReader
from psephos.roles.ingest.jwks import PublishedKeys
from psephos.roles.ingest.keys import HS256_KEY_BYTES, UnusableKey, no_keys
from psephos.roles.ingest.listener import Listener, bind
from psephos.roles.ingest.openapi import openapi
from psephos.roles.ingest.roll import Roll, roll_source
from psephos.roles.ingest.verifier import Electorate, Verifier
from psephos.roles.ingest.votelog import VoteLog, message_timeout_s
from psephos.runtime.bootstrap import Context, start
from psephos.runtime.session_file import load_session

SESSION_KEY_BYTES = 32
HEARTBEAT_S = 0.25
MARGIN_S = 1.5  # librdkafka checks once per second for votes that have timed out
CURRENT_SHARE = 8  # the state is confirmed this many times per grace period, and at least once per second
SKEW_SHARE = 4  # a clock that is off by more than grace/4 is not ready
# Number of new objects after which the collector looks for cycles. A part of a batch creates thousands of objects
# without any cycle: collecting after every 700, which is Python's default, took a quarter of a batch's time.
_COLLECT_AFTER = 10_000
log = get_logger()


class Keys(NamedTuple):
    """Secrets, and objects made from them."""

    session_key: bytes
    electorate: Electorate
    eligibility: Eligibility
    anonymous: AnonymousTokens | None
    roll: Roll | None
    credentials: Credentials | None

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Returns the tasks that keep all of this current while the process runs, by name."""
        issuer = self.eligibility.issuer
        return {
            **({"token keys": issuer.run()} if issuer else {}),
            **({"roll": self.roll.follow()} if self.roll else {}),
            **({"credentials": self.credentials.follow()} if self.credentials else {}),
        }


def run(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT, then answers requests in progress and returns.

    Raises SettingsError, GenesisMismatch, LogUnavailable or LedgerUnavailable at startup, and LogUnavailable if
    the producer can't go on.
    """
    if settings.ingest_processes == 1:
        serve(settings)
    else:
        _configure_logs(settings)
        read_keys(settings, load_session(settings))
        supervisor.run(settings)


def serve(settings: Settings, *, index: int | None = None) -> None:
    """Runs one process; `index`: among several that share the port, each with its own admin port."""
    _configure_logs(settings, **({} if index is None else {"process": index}))
    keys = read_keys(settings, load_session(settings))
    health = Health()
    with (
        stop_requests() as stop,
        bind(settings, shared=index is not None) as door,
        closing(_admin(settings, index or 0, health)),
    ):
        context = _started(settings, keys, health, stop)
        if context is not None:
            gc.freeze()  # imported objects stay: no collection in this process visits them again
            gc.set_threshold(_COLLECT_AFTER)
            uvloop.run(_serve(context, keys, door, health, stop))


def _started(settings: Settings, keys: Keys, health: Health, stop: StopRequest) -> Context | None:
    """Returns the context, None if this process was asked to stop before the session had a genesis."""

    def stopped() -> bool:
        health.beat()
        return bool(stop)

    try:
        return start(
            settings,
            session_key=keys.session_key,
            waiting=partial(health.not_ready, "start"),
            stopped=stopped,
        )
    except SettingsError:
        if stop:
            return None
        raise


def read_keys(settings: Settings, session: Session) -> Keys:
    """Reads all keys. Raises SettingsError for a key, a roll or a credential that is missing or unfit."""
    session_key = read_key(settings.session_key_file, "SESSION_KEY_FILE", SESSION_KEY_BYTES)
    electorate = Electorate(session)
    tokens, anonymous = session.spec.voters.tokens, None
    if tokens is None:
        anonymous = AnonymousTokens(settings.session_uid, session_key, electorate)
        eligibility = Eligibility(anonymous.verifier)
    else:
        eligibility = _eligibility(settings, tokens, electorate)
    credential = settings.batch_credential_file
    on_roll = session.spec.voters.eligibility == "roll"
    return Keys(
        session_key,
        electorate,
        eligibility,
        anonymous,
        Roll(settings, roll_source(settings, session)) if on_roll else None,
        None if credential is None else Credentials(credential),
    )


def _eligibility(settings: Settings, tokens: Tokens, electorate: Electorate) -> Eligibility:
    if tokens.jwks_url is not None:
        verifier = Verifier(tokens, electorate, no_keys(tokens.algorithms))
        return Eligibility(verifier, PublishedKeys(tokens.jwks_url, tokens.algorithms, verifier.use))
    at_least = HS256_KEY_BYTES if "HS256" in tokens.algorithms else 1
    key = read_key(settings.token_key_file, "TOKEN_KEY_FILE", at_least)
    try:
        return Eligibility(Verifier(tokens, electorate, key))
    except UnusableKey as error:
        raise SettingsError(f"PSEPHOS_TOKEN_KEY_FILE: {error}") from None


async def _serve(context: Context, keys: Keys, door: socket.socket, health: Health, stop: StopRequest) -> None:
    grace_s = context.session.spec.close_grace.total_seconds()
    gate = Gate()
    votelog = VoteLog(context.settings, gate, grace_s)
    listener = Listener(_doors(context, keys, gate, votelog), door, context.settings)
    async with _following(context.settings, gate, grace_s), _beside(keys.tasks()):
        await listener.start()
        health.not_ready("log", "the control topic has not been heard yet")
        health.ready()
        log.info("listening", port=door.getsockname()[1], partitions=context.genesis.partitions)
        await _beat_until_stopped(gate, votelog, keys.eligibility.issuer, health, grace_s, stop)
        health.not_ready("stop", "this process is to end")
        log.info("draining", in_flight=votelog.in_flight)
        await listener.drain(message_timeout_s(grace_s) + MARGIN_S)
        left = await votelog.flush(message_timeout_s(grace_s))
    log.info("stopped", in_flight=left)
    if votelog.fatal is not None:
        raise LogUnavailable(f"the producer of the votes topic can't go on: {votelog.fatal}")


def _doors(context: Context, keys: Keys, gate: Gate, votelog: VoteLog) -> Doors:
    intake = Intake(context.session, context.genesis, keys.session_key, keys.roll)
    batch = None
    if keys.credentials is not None:
        batch = BatchDoor(
            keys.credentials,
            gate=gate,
            intake=intake,
            eligibility=keys.eligibility,
            reader=LineReader(intake, keys.eligibility.verifier, keys.electorate),
            votelog=votelog,
        )
    return Doors(
        context.session.name,
        description=openapi(context.session),
        gate=gate,
        intake=intake,
        eligibility=keys.eligibility,
        fairness=Fairness(context.settings),
        votelog=votelog,
        batch=batch,
        anonymous=keys.anonymous,
    )


async def _beat_until_stopped(
    gate: Gate,
    votelog: VoteLog,
    issuer: PublishedKeys | None,
    health: Health,
    grace_s: float,
    stop: StopRequest,
) -> None:
    """Runs until a signal, or until the producer is beyond recovery."""
    while not stop and votelog.fatal is None:
        health.beat()
        votelog.poll()
        gate.tighten(wall_ms=now_ms(), mono=time.monotonic())
        _tell(health, "log", gate.is_current(time.monotonic()), "the control topic is not heard")
        if issuer is not None:
            _tell(health, "keys", issuer.known, f"the issuer's keys have not been fetched: {issuer.trouble}")
        skew_s = votelog.skew_s
        metrics.set_skew(skew_s)
        why = f"this clock and the brokers' differ by {abs(skew_s):.1f} s"
        _tell(health, "clock", abs(skew_s) <= grace_s / SKEW_SHARE, why)
        await asyncio.sleep(HEARTBEAT_S)


def _tell(health: Health, cause: str, well: bool, why: str) -> None:
    health.ready(cause) if well else health.not_ready(cause, why)


@asynccontextmanager
async def _beside(coroutines: Mapping[str, Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs tasks until the block is left. One that fails is a bug: it is logged, and voting goes on."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task has failed", what=task.get_name(), exc_info=error)

    tasks = [asyncio.create_task(each, name=name) for name, each in coroutines.items()]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def _following(settings: Settings, gate: Gate, grace_s: float) -> AsyncIterator[None]:
    """Keeps the gate informed of each state of the session and how fresh that is, in the order of the topic."""
    loop = asyncio.get_running_loop()

    def learn(control: Control) -> None:
        gate.learn(control, wall_ms=now_ms(), mono=time.monotonic())
        metrics.show_phase(control.phase)
        metrics.show_end(control.closes_at)
        log.info("session", phase=control.phase, number=control.number, closes_at=control.closes_at)

    def on_change(control: Control) -> None:
        loop.call_soon_threadsafe(learn, control)

    def on_current(mono: float) -> None:
        loop.call_soon_threadsafe(gate.heard, mono)

    metrics.show_phase(gate.phase)
    every_s = min(1.0, grace_s / CURRENT_SHARE)
    follower = ControlFollower(settings, on_change, on_current=on_current, current_every_s=every_s)
    try:
        yield
    finally:
        await asyncio.to_thread(follower.close)


def _admin(settings: Settings, index: int, health: Health) -> AdminServer:
    port = settings.admin_port + index if settings.admin_port else 0
    try:
        return AdminServer(settings.host, port, health, metrics.REGISTRY)
    except OSError as error:
        raise SettingsError(
            f"PSEPHOS_ADMIN_PORT: can't listen on {settings.host}:{port}: {error.strerror}"
        ) from None


def _configure_logs(settings: Settings, **fields: object) -> None:
    configure_logs(
        role="ingest", level=settings.log_level, form=settings.log_format, session=settings.session_uid, **fields
    )
