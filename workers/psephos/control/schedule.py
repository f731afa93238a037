"""When audits are due: a session's `recount.schedule`, five cron fields, in UTC. Pure: the time is an argument."""

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError


def next_due(schedule: str, after: datetime) -> datetime | None:
    """The first time behind `after`, to the minute; None for a schedule that never comes, such as 31 February.

    Where both day of month and day of week are restricted, either of them is enough, as Kubernetes has it.
    """
    try:
        return next(CronSim(schedule, after.astimezone(UTC)), None)
    except CronSimError:  # fields that the session's parser lets through: days that no month has
        return None
