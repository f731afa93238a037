"""One reconcile pass of a session: deletion, pause, observe, validate, conduct, build, apply and prune, status.

Level-based: everything is derived again from what is there, so it does not matter what was missed or how often
this runs. Calls block; no two passes of one session run at once.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from psephos.adapters.dynamodb import LedgerMissing, LedgerUnavailable
from psephos.adapters.kafka import LogUnavailable
from psephos.adapters.redis import AWAY as REDIS_AWAY
from psephos.adapters.s3 import exports_address
from psephos.control import (
    Action,
    Advanced,
    Commands,
    Executor,
    LifecycleError,
    ObservedState,
    Step,
    prepare,
    recount_due,
)
from psephos.domain.genesis import GenesisMismatch, require_match
from psephos.domain.session import Session, SessionError, parse_session, rules_hash
from psephos.formats.control import Phase
from psephos.platform.clock import now_ms
from psephos.platform.logs import get_logger
from psephos.platform.settings import SettingsError
from psephos_operator import metrics
from psephos_operator.builders import Access, build, jobs, network, secrets, storage, workloads
from psephos_operator.builders.meta import COMPONENT_LABEL, UID_LABEL, Manifest
from psephos_operator.builders.plan import Api, Plan
from psephos_operator.kube.client import Kube
from psephos_operator.kube.events import NORMAL, WARNING, tell
from psephos_operator.kube.informer import Cache, Key
from psephos_operator.kube.kinds import BY_NAME, PODS, SESSION
from psephos_operator.reconcile import keys
from psephos_operator.reconcile import status as statuses
from psephos_operator.reconcile.annotations import (
    commands_of_control,
    commands_of_session,
    reconcile_paused,
    run_of,
    transition_at,
)
from psephos_operator.reconcile.apply import Converged, Seen, available, converge, failed, finished
from psephos_operator.reconcile.backends import Backends
from psephos_operator.reconcile.cleanup import clean_up, hold
from psephos_operator.reconcile.keys import KeysLost
from psephos_operator.reconcile.status import Condition, Report
from psephos_operator.settings import OperatorSettings

FRESH_S = 5.0  # how long figures from ledger and log are good enough for a status
MOVING_FRESH_S = 0.5  # the same while tally or recount are waited for
RETRY_S = 5.0
SETTLING_S = 2.0  # how often a session that is not yet ready is reconciled, in addition to the cluster's events
AWAY = (LogUnavailable, LedgerUnavailable, LedgerMissing, SettingsError)
"""Errors of backend calls while a backend is unavailable; the last one: Kafka's properties have become invalid."""
log = get_logger()


@dataclass
class Memory:
    """Facts remembered about a session from one pass to the next. Losing them costs requests and nothing else."""

    uid: str
    seen: dict[Key, Seen] = field(default_factory=dict)
    observed: ObservedState | None = None
    read_at: float = 0.0
    transition_at: int | None = None
    phase: str = ""
    keys_version: tuple[str, ...] = ()
    run: str = ""
    cleaned: set[str] = field(default_factory=set)
    export_failed: tuple[str | None, str] = (None, "")

    def is_fresh(self, run: str) -> bool:
        """Returns whether what was read for this run of the recount need not be read again in this pass."""
        moving = self.phase in (Phase.CLOSING, Phase.RECOUNTING, Phase.DISPUTED)
        due = self.transition_at is not None and self.transition_at <= now_ms()
        age_s = time.monotonic() - self.read_at
        return run == self.run and not due and age_s < (MOVING_FRESH_S if moving else FRESH_S)


@dataclass
class Look:
    """Findings of one reconcile pass so far."""

    resource: Manifest
    observed: ObservedState = field(default_factory=ObservedState)
    step: Step = field(default_factory=lambda: Step(Action.WAIT, Phase.PENDING))
    troubles: list[tuple[str, str]] = field(default_factory=list)
    progress: tuple[str, str] | None = None
    plan: Plan | None = None
    converged: Converged | None = None
    exported: str = ""

    def trouble(self, reason: str, message: object) -> None:
        """Adds a problem that needs human attention."""
        self.troubles.append((reason, str(message)))


class Reconciler:
    """Reconciles sessions. `apis`: which optional APIs the cluster has at present.

    `leading` raises NotLeading if another replica may be leading by now; it is called before anything is changed.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        kube: Kube,
        cache: Cache,
        backends: Backends,
        apis: Callable[[], frozenset[Api]],
        leading: Callable[[], None],
    ) -> None:
        self._settings, self._kube, self._cache = settings, kube, cache
        self._backends, self._apis, self._leading = backends, apis, leading
        self._memories: dict[tuple[str, str], Memory] = {}

    def reconcile(self, namespace: str, name: str) -> float | None:
        """Makes one pass. Returns in how many seconds the next one is due, None if the session is gone.

        Raises ApiError, Unreachable, NotLeading: the caller tries again, each time after a longer pause.
        """
        self._leading()
        resource = self._cache.get(SESSION.name, namespace, name)
        if resource is None:
            self._memories.pop((namespace, name), None)
            return None
        if resource["metadata"].get("deletionTimestamp"):
            done = self._memory(resource).cleaned
            return clean_up(self._settings, self._kube, self._cache, self._backends, resource, done)
        memory = self._memory(resource)
        if reconcile_paused(_annotations(resource)):
            self._write(resource, memory, _paused(resource))
            return self._settings.resync_s
        resource = hold(self._kube, self._cache, resource)
        look = Look(resource)
        self._observe(look, memory)
        session = self._validated(look)
        self._conduct(look, memory, session)
        if session is not None:
            self._converge(look, memory, session)
        self._write(resource, memory, self._report(look, session))
        return self._next_look(look, memory)

    def phases(self) -> Mapping[str, int]:
        """Returns how many sessions are in each phase."""
        counts: dict[str, int] = {phase.value: 0 for phase in Phase}
        for memory in list(self._memories.values()):
            if memory.phase:
                counts[memory.phase] += 1
        return counts

    def next_transition_s(self) -> float | None:
        """Returns the seconds until the next session opens or closes by the clock, below 0 if one is overdue."""
        due = [memory.transition_at for memory in list(self._memories.values()) if memory.transition_at]
        return (min(due) - now_ms()) / 1000 if due else None

    def _memory(self, resource: Manifest) -> Memory:
        metadata = resource["metadata"]
        key = (metadata["namespace"], metadata["name"])
        memory = self._memories.get(key)
        if memory is None or memory.uid != metadata["uid"]:
            memory = self._memories[key] = Memory(metadata["uid"])
        return memory

    # --- Observe

    def _observe(self, look: Look, memory: Memory) -> None:
        """Reads ledger and log, before the spec is even parsed: a broken spec does not stop what is under way."""
        if memory.observed is not None and memory.is_fresh(run_of(_annotations(look.resource))):
            look.observed = memory.observed
            return
        try:
            look.observed = self._read(look, memory)
        except AWAY as error:
            look.trouble("BackendUnavailable", error)
            look.observed = memory.observed or ObservedState()

    def _read(self, look: Look, memory: Memory) -> ObservedState:
        run = run_of(_annotations(look.resource))
        observed = self._backends.observe(memory.uid, run)
        memory.observed, memory.read_at, memory.run = observed, time.monotonic(), run
        if observed.control is not None:
            self._tell_phase(look.resource, memory, observed.control.phase)
        return observed

    def _tell_phase(self, resource: Manifest, memory: Memory, phase: Phase) -> None:
        """Records an event for each phase, also for those that are over before the status is written."""
        before = memory.phase or (resource.get("status") or {}).get("phase", "")
        memory.phase = phase.value
        if before != phase.value:
            kind = WARNING if phase in (Phase.DISPUTED, Phase.VOID) else NORMAL
            tell(self._kube, resource, phase.value, f"{before or 'New'} -> {phase.value}", kind)

    # --- Validate

    def _validated(self, look: Look) -> Session | None:
        """Returns the session, if it can be used. One whose rules are not those of the genesis can't."""
        try:
            session = parse_session(look.resource)
        except SessionError as error:
            look.trouble("InvalidSpec", error)
            return None
        for problem in cluster_problems(session):
            look.trouble("InvalidSpec", problem)
        genesis = look.observed.genesis
        if genesis is not None:
            try:
                require_match(genesis, rules_hash=rules_hash(session).hex())
            except GenesisMismatch as error:
                look.trouble("GenesisMismatch", error)
        return None if look.troubles and look.troubles[-1][0] != "BackendUnavailable" else session

    # --- Conduct

    def _conduct(self, look: Look, memory: Memory, session: Session | None) -> None:
        """Takes all steps of the session's life that are due. What can't be done now is tried again.

        An unusable spec does not keep a session from closing, only a new one from being prepared.
        """
        look.step = Step(Action.WAIT, _phase(look))
        unprepared = look.observed.genesis is None or look.observed.control is None
        if _away(look) or (session is None and unprepared):
            return
        commands = commands_of_control(look.observed.control, _annotations(look.resource))
        if session is not None:
            commands, wrong = commands_of_session(session)
            if wrong:
                look.trouble("OrderRefused", wrong)
        try:
            look.observed, look.step = self._steps(look, memory, session, commands)
        except AWAY as error:
            look.trouble("BackendUnavailable", error)
        except KeysLost as error:
            look.trouble("KeysLost", error)
        except (GenesisMismatch, LifecycleError) as error:
            look.trouble(type(error).__name__, error)
        else:
            if look.step.refused:
                look.trouble("OrderRefused", look.step.refused)

    def _steps(self, look: Look, memory: Memory, session: Session | None, commands: Commands) -> Advanced:
        uid, backends = memory.uid, self._backends
        executor = Executor(
            backends.role_settings(uid), backends.ledger(uid), lambda: self._read(look, memory), self._leading
        )
        advanced = executor.advance(lambda _: commands, look.observed)
        if advanced.step.action is not Action.PREPARE or session is None:
            return advanced
        if not self._prepare(look, memory, session):
            waiting = Step(Action.WAIT, Phase.PENDING, now_ms() + int(SETTLING_S * 1000))
            return Advanced(advanced.observed, waiting)
        return executor.advance(lambda _: commands, executor.observe())

    def _prepare(self, look: Look, memory: Memory, session: Session) -> bool:
        """Makes keys, table, topics, genesis, first control record. Returns False while Strimzi's topics are
        missing."""
        self._leading()
        plan = self._plan(look, session)
        if storage.by_strimzi(plan):
            self._apply(plan, memory, storage.topics(plan))
            look.progress = ("TopicsPending", "Strimzi is making the topics")
            if not self._backends.has_topics(memory.uid):
                return False
        log.info("step", action=Action.PREPARE.value, phase=Phase.PENDING.value)
        made = keys.keep_keys(self._kube, plan) if look.observed.genesis is None else None
        prepare(
            self._backends.role_settings(memory.uid),
            session,
            made or keys.read_keys(self._kube, plan),
            make_topics=not storage.by_strimzi(plan),
        )
        look.progress = None
        return True

    # --- Build, apply, prune

    def _plan(self, look: Look, session: Session) -> Plan:
        status, metadata = look.resource.get("status") or {}, look.resource["metadata"]
        observed = look.observed
        return Plan(
            session=session,
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            settings=self._settings,
            image=status.get("image") or self._settings.image,
            partitions=observed.partitions or session.partitions,
            phase=_phase(look),
            apis=self._apis(),
            run=run_of(session.metadata.annotations),
            recounting=recount_due(observed),
            sealing=bool(observed.verdicts) and len(observed.verdicts) == observed.partitions,
            sealed=observed.final is not None or observed.disputed is not None,
        )

    def _converge(self, look: Look, memory: Memory, session: Session) -> None:
        if look.observed.genesis is None or look.observed.control is None:
            return
        self._leading()
        plan = look.plan = self._plan(look, session)
        self._check_keys(look, memory, plan)
        self._restart_failed_jobs(look, plan)
        self._follow_export(look, memory, plan)
        look.converged = self._apply(plan, memory, build(plan, self._access(look, memory, plan)))
        for why in look.converged.failed.values():
            look.trouble("ApplyFailed", why)
        if look.converged.drifted:
            names = ", ".join(f"{kind} {name}" for kind, _, name in look.converged.drifted)
            tell(self._kube, look.resource, "DriftCorrected", names)
        self._warm(look, plan)

    def _apply(self, plan: Plan, memory: Memory, manifests: list[Manifest]) -> Converged:
        # A sealed result is in the ledger before its Job has exported and published it.
        let_jobs_end = plan.phase is not Phase.VOID
        return converge(self._kube, self._cache, memory.seen, manifests, plan.uid, let_jobs_end=let_jobs_end)

    def _check_keys(self, look: Look, memory: Memory, plan: Plan) -> None:
        """Checks the keys whenever a Secret has changed or is missing."""
        names = (secrets.session_key_name(plan), secrets.signing_key_name(plan))
        found = [self._cache.get("Secret", plan.namespace, name) for name in names]
        version = tuple("" if each is None else each["metadata"]["resourceVersion"] for each in found)
        if all(version) and version == memory.keys_version:
            return
        assert look.observed.genesis is not None
        try:
            keys.require_keys(self._kube, plan, look.observed.genesis)
            memory.keys_version = version
        except KeysLost as error:
            memory.keys_version = ()
            look.trouble("KeysLost", error)

    def _access(self, look: Look, memory: Memory, plan: Plan) -> Access:
        password = ""
        if self._settings.redis_acl:
            try:
                password = keys.keep_password(self._kube, plan)
                if not plan.ended:
                    self._backends.let_in(plan.uid, password)
            except (*REDIS_AWAY, KeysLost) as error:  # results wait, voting goes on
                look.trouble("RedisUnavailable", error)
        return Access(
            self._settings.kafka_properties(),
            self._backends.redis_url(plan.uid, password),
            aws_variables(),
            store_key(self._settings),
            self._settings.redis_ca(),
        )

    def _restart_failed_jobs(self, look: Look, plan: Plan) -> None:
        """Restarts a recount that gave up: its servers may be back."""
        if not plan.recounting:
            return
        for name in (jobs.recount_name(plan), jobs.seal_name(plan)):
            job = self._cache.get("Job", plan.namespace, name)
            why = None if job is None else failed(job)
            if job is not None and why is not None:
                look.trouble("RecountFailed", f"Job {name}: {why}")
                self._kube.delete(BY_NAME["Job"], plan.namespace, name, job["metadata"]["uid"])

    def _follow_export(self, look: Look, memory: Memory, plan: Plan) -> None:
        """Follows the seal's Job, which succeeds once the result is exported to the URL that the Job was made for.

        The reason of a failure is reported until the export succeeds or its URL changes, also during retries.
        """
        exports = plan.session.spec.exports
        if exports is not None and plan.exports_url is None:
            look.trouble(
                "ExportFailed", f"spec.exports.url: found {exports.url!r}; in a cluster: s3://bucket/folder"
            )
        job = self._cache.get("Job", plan.namespace, jobs.seal_name(plan)) if plan.exporting else None
        if job is not None:
            self._follow_seal(look, memory, plan, job)
        where, why = memory.export_failed
        if plan.exporting and why and where == plan.exports_url:
            look.trouble("ExportFailed", why)

    def _follow_seal(self, look: Look, memory: Memory, plan: Plan, job: Manifest) -> None:
        """Records how this Job ended; one that gave up, or was for another URL, is deleted to be created again."""
        there = job["metadata"].get("annotations", {}).get(jobs.EXPORTS_ANNOTATION) == plan.exports_url
        if there and finished(job) and failed(job) is None:
            look.exported = str(exports_address(plan.exports_url, plan.name, plan.uid))
            memory.export_failed = (None, "")
            return
        if there and job.get("status", {}).get("failed", 0):
            known = memory.export_failed[1] or "it is tried again"
            memory.export_failed = plan.exports_url, self._last_words(plan, "seal") or failed(job) or known
        if failed(job) is not None or not there:
            self._kube.delete(BY_NAME["Job"], plan.namespace, jobs.seal_name(plan), job["metadata"]["uid"])

    def _last_words(self, plan: Plan, component: str) -> str:
        """Returns why the last of a component's pods ended, in its own words; empty if unknown."""
        wanted = f"{UID_LABEL}={plan.uid},{COMPONENT_LABEL}={component}"
        pods, _ = self._kube.list(PODS, plan.namespace, wanted, whole=True)
        return last_words(pods)

    def _warm(self, look: Look, plan: Plan) -> None:
        try:
            self._backends.warm(plan.sizes.write_units)
        except (BotoCoreError, ClientError) as error:
            look.trouble("TableNotWarmed", error)

    # --- Status

    def _report(self, look: Look, session: Session | None) -> Report:
        generation, observed = look.resource["metadata"]["generation"], look.observed
        phase = _phase(look)
        conditions = {
            statuses.READY: self._ready(look),
            statuses.PROGRESSING: _progressing(look, phase),
            statuses.DEGRADED: _degraded(look),
            statuses.PAUSED: _voting_paused(observed, phase),
            statuses.FINAL: Condition(phase is Phase.FINAL, phase.value),
            statuses.DISPUTED: Condition(phase is Phase.DISPUTED, phase.value),
        }
        members: dict[str, Any] = {}
        if session is not None and observed.genesis is not None:
            members = statuses.figures(session, observed)
        if look.plan is not None:
            small = look.plan.sizes.small
            members |= {
                "endpoints": network.endpoints(look.plan),
                "image": look.plan.image,
                "layout": "serve" if small else "roles",
                **({"exports": look.exported} if look.exported else {}),
            }
        keep = session is None or _away(look)
        return Report(generation, phase, conditions, members, keep=keep)

    def _ready(self, look: Look) -> Condition:
        """Returns the Ready condition: true only when all runs as last applied and every partition is owned."""
        plan, observed = look.plan, look.observed
        if plan is None:
            reason = look.troubles[0][0] if look.troubles else "NotPrepared"
            return Condition(False, reason, "the session has not been prepared")
        waiting = [role.name for role in workloads.roles(plan) if not available(self._workload(plan, role.name))]
        if waiting:
            return Condition(False, "WorkloadsNotAvailable", f"not available: {', '.join(waiting)}")
        blocking = [reason for reason, _ in look.troubles if reason in ("ApplyFailed", "KeysLost")]
        if blocking:
            return Condition(False, blocking[0])
        if observed.control is not None and plan.counts and plan.phase is not Phase.DISPUTED:
            if observed.owned is None:
                return Condition(None, "OwnershipUnknown", "Kafka did not say who owns the partitions")
            if observed.owned < plan.partitions:
                return Condition(
                    False, "PartitionsNotOwned", f"{observed.owned} of {plan.partitions} partitions are owned"
                )
        return Condition(True, "Serving")

    def _workload(self, plan: Plan, role: str) -> Manifest | None:
        kind = "StatefulSet" if role == "tally" else "Deployment"
        return self._cache.get(kind, plan.namespace, plan.child(role))

    def _write(self, resource: Manifest, memory: Memory, report: Report) -> None:
        """Writes the status if it says anything new, and an event for every transition of the session."""
        before = resource.get("status") or {}
        after = statuses.status(report, before, datetime.now(UTC))
        self._tell_phase(resource, memory, report.phase)
        memory.transition_at = None
        if memory.observed is not None and report.phase is not Phase.VOID:
            memory.transition_at = _transition(resource, memory.observed)
        if after == before:
            return
        self._leading()
        metadata = resource["metadata"]
        written = self._kube.apply(
            SESSION,
            {
                "apiVersion": SESSION.api_version,
                "kind": SESSION.name,
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
                "status": after,
            },
            subresource="status",
        )
        metrics.STATUS_WRITES.inc()
        self._cache.put(SESSION, written)
        for reason, message, kind in turns(before, after):
            tell(self._kube, resource, reason, message, kind)

    def _next_look(self, look: Look, memory: Memory) -> float:
        wait_s = self._settings.resync_s
        if look.step.wake_at is not None:
            wait_s = min(wait_s, max(0.0, (look.step.wake_at - now_ms()) / 1000))
        retrying = {"BackendUnavailable", "ApplyFailed", "RecountFailed", "LifecycleError", "RedisUnavailable"}
        if retrying & {reason for reason, _ in look.troubles}:
            wait_s = min(wait_s, RETRY_S)
        status = (self._cache.get(SESSION.name, *_key(look.resource)) or {}).get("status") or {}
        ready = [each for each in status.get("conditions", ()) if each["type"] == statuses.READY]
        if ready and ready[0]["reason"] in ("PartitionsNotOwned", "OwnershipUnknown"):
            memory.read_at = 0.0  # no event reports when that changes
            wait_s = min(wait_s, SETTLING_S)
        return wait_s


# --- Small pure parts


def cluster_problems(session: Session) -> list[str]:
    """Returns what a session lacks that is optional on one machine, but required in a cluster."""
    voters, problems = session.spec.voters, []
    if voters.tokens is not None and voters.tokens.secret_ref is None and voters.tokens.jwks_url is None:
        problems.append("spec.voters.tokens: secretRef or jwksUrl is required in a cluster")
    if voters.roll is not None and voters.roll.config_map_ref is None and not session.roll_in_store:
        problems.append("spec.voters.roll: configMapRef or an s3:// URL is required in a cluster")
    return problems


def turns(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns (reason, message, type) of the events that a change of conditions calls for."""
    found: list[tuple[str, str, str]] = []
    old = {each["type"]: each for each in before.get("conditions", ())}
    for condition in after["conditions"]:
        known = old.get(condition["type"], {"status": "False", "reason": ""})
        changed = (known["status"], known["reason"]) != (condition["status"], condition["reason"])
        if condition["type"] == statuses.DEGRADED and condition["status"] == "True" and changed:
            found.append((condition["reason"], condition["message"], WARNING))
        if condition["type"] == statuses.READY and known["status"] != "True" and condition["status"] == "True":
            found.append(("Ready", "all workloads are available, every partition is owned", NORMAL))
    return found


def last_words(pods: Sequence[Manifest]) -> str:
    """Returns the last line from the container that failed last, or why it was ended. Pure."""
    ends = [
        ended
        for pod in pods
        for container in pod.get("status", {}).get("containerStatuses") or ()
        for ended in [(container.get("state") or {}).get("terminated")]
        if ended is not None and ended.get("exitCode", 0) != 0
    ]
    if not ends:
        return ""
    latest = max(ends, key=lambda ended: ended.get("finishedAt") or "")
    lines = (latest.get("message") or "").strip().splitlines()
    return str(lines[-1] if lines else latest.get("reason") or "").strip()


def store_key(settings: OperatorSettings) -> dict[str, str]:
    """Returns the object store's own key, for the pods; empty if it uses the ledger's, or a role."""
    key_id, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    return {} if key_id is None or secret is None else {secrets.S3_KEY_ID: key_id, secrets.S3_SECRET: secret}


def aws_variables() -> dict[str, str]:
    """Returns static credentials from the operator's own environment, for the pods; empty if it has a role."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _annotations(resource: Manifest) -> dict[str, str]:
    return resource["metadata"].get("annotations") or {}


def _key(resource: Manifest) -> tuple[str, str]:
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def _phase(look: Look) -> Phase:
    """Returns the phase in the control record or, before there is one, in the last status."""
    if look.observed.control is not None:
        return look.observed.control.phase
    known = (look.resource.get("status") or {}).get("phase")
    if look.step.phase is Phase.VOID:
        return Phase.VOID
    return Phase(known) if known else Phase.PENDING


def _away(look: Look) -> bool:
    return any(reason == "BackendUnavailable" for reason, _ in look.troubles)


def _transition(resource: Manifest, observed: ObservedState) -> int | None:
    try:
        return transition_at(parse_session(resource), observed)
    except SessionError:
        return None


def _paused(resource: Manifest) -> Report:
    """Returns the status of a session that the operator has to leave alone: as it was, and that it is paused."""
    status = resource.get("status") or {}
    known = {
        each["type"]: Condition(
            {"True": True, "False": False}.get(each["status"]), each["reason"], each["message"]
        )
        for each in status.get("conditions", ())
    }
    reason = Condition(True, "ReconcilePaused", "annotation psephos.dev/reconcile: paused")
    return Report(
        status.get("observedGeneration", 0),
        Phase(status.get("phase", Phase.PENDING.value)),
        {**known, statuses.PAUSED: reason},
        keep=True,
    )


def _voting_paused(observed: ObservedState, phase: Phase) -> Condition:
    paused = phase is Phase.PAUSED
    reason = observed.control.reason if observed.control is not None and paused else ""
    return Condition(paused, "VotingPaused" if paused else "NotPaused", reason)


def _progressing(look: Look, phase: Phase) -> Condition:
    if look.progress is not None:
        return Condition(True, *look.progress)
    match phase:
        case Phase.CLOSING if look.observed.sealed_whole:
            return Condition(
                True, phase.value, f"the tally has {sum(look.observed.missing.values())} records to go"
            )
        case Phase.CLOSING | Phase.RECOUNTING:
            return Condition(True, phase.value)
        case Phase.PENDING if look.plan is None:
            return Condition(False, "Scheduled" if look.step.wake_at else "NotPrepared")
        case _:
            return Condition(False, "Settled")


def _degraded(look: Look) -> Condition:
    if not look.troubles:
        return Condition(False, "AsExpected")
    reason, _ = look.troubles[0]
    return Condition(True, reason, "; ".join(dict.fromkeys(message for _, message in look.troubles)))
