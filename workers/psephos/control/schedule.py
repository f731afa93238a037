"""The times of audits: a session's `recount.schedule`, five cron fields, in UTC. Pure: the time is an argument."""

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError


def next_due(schedule: str, after: datetime) -> datetime | None:
    """The first due time after `after`, to the minute; None if the schedule is never due, such as 31 February.

    If both day of month and day of week are restricted, matching either is enough, as in Kubernetes.
    """
    try:
        return next(CronSim(schedule, after.astimezone(UTC)), None)
    except CronSimError:  # fields that the session's parser accepts: days that no month has
        return None
