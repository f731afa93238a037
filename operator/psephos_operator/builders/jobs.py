"""Audits while a session is open; at its end the recount, one index per share of the log, and the seal. Pure."""

from typing import Any

from psephos.domain.sizing import Pods
from psephos.formats.control import Phase
from psephos_operator.builders.meta import Manifest, child
from psephos_operator.builders.plan import Plan
from psephos_operator.builders.pods import Role, job_template
from psephos_operator.builders.secrets import Access

INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
SEALING_SIZE = Pods(1, 1, 500, 1_024)
DRAIN_S = 30
RETRIES = 20
EXPORTS_ANNOTATION = "psephos.dev/exports"
"""Where a sealing Job exports to. One that has succeeded has done so."""

KEPT_S = 7 * 24 * 3_600  # how long a finished audit is kept for inspection


def jobs(plan: Plan, access: Access) -> list[Manifest]:
    """Returns, by phase, the audits, then the recount, and its seal once all verdicts are there. A seal that has
    to export stays wanted: the result is sealed, and the session Final, before it has exported."""
    if plan.phase in (Phase.OPEN, Phase.PAUSED):
        return [_audits(plan, access)]
    if plan.recounting:
        return [_recount(plan, access), *([_seal(plan, access)] if plan.sealing else [])]
    return [_seal(plan, access)] if plan.exporting else []


def recount_name(plan: Plan) -> str:
    """Returns the name of this run's Indexed Job."""
    return plan.child(f"recount-{plan.run}")


def seal_name(plan: Plan) -> str:
    """Returns the name of this run's sealing Job."""
    return plan.child(f"seal-{plan.run}")


def _audits(plan: Plan, access: Access) -> Manifest:
    size = plan.sizes.recount
    arguments = ("recount", "--audit", "--json", "--parallelism", "1")
    role = Role("audit", size, arguments, (), drain_s=DRAIN_S)
    job: dict[str, Any] = {
        "backoffLimit": 1,
        "ttlSecondsAfterFinished": KEPT_S,
        "activeDeadlineSeconds": 6 * 3_600,
        "template": job_template(plan, access, role),
    }
    spec = {
        "schedule": plan.session.spec.recount.schedule,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 300,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": job["template"]["metadata"]["labels"]}, "spec": job},
    }
    return child(plan, "batch/v1", "CronJob", "audit", "audit", spec=spec)


def _recount(plan: Plan, access: Access) -> Manifest:
    """Returns the Job whose index i takes the partitions p with p % parallelism = i. A difference is a verdict,
    not a failure."""
    count = plan.sizes.recount.replicas
    arguments = (
        *("recount", "--index", "$(JOB_INDEX)", "--parallelism", str(count)),
        *("--name", plan.run, "--json", "--tolerate-differences"),
    )
    role = Role("recount", plan.sizes.recount, arguments, (), drain_s=DRAIN_S)
    template = job_template(plan, access, role)
    index = {"name": "JOB_INDEX", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}}
    template["spec"]["containers"][0]["env"].append(index)
    spec: dict[str, Any] = {
        "completions": count,
        "parallelism": count,
        "completionMode": "Indexed",
        "backoffLimit": RETRIES * count,
        "template": template,
    }
    return child(plan, "batch/v1", "Job", f"recount-{plan.run}", "recount", spec=spec)


def _seal(plan: Plan, access: Access) -> Manifest:
    arguments = ("recount", "--seal", "--name", plan.run, "--json", "--tolerate-differences")
    stores = plan.session.exports_in_store
    role = Role("seal", SEALING_SIZE, arguments, (), drain_s=DRAIN_S, signs=True, projects=True, stores=stores)
    template = job_template(plan, access, role)
    template["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError"  # its last line is why
    spec = {"backoffLimit": RETRIES, "template": template}
    job = child(plan, "batch/v1", "Job", f"seal-{plan.run}", "seal", spec=spec)
    if plan.exports_url is not None:
        job["metadata"]["annotations"] = {EXPORTS_ANNOTATION: plan.exports_url}
    return job
