"""Wall-clock times in milliseconds since 1970, as control records and ledger items hold them."""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """The present time by this machine's clock."""
    return time.time_ns() // 1_000_000


def ms_of(moment: datetime | None) -> int | None:
    """A session's time; None if it has none."""
    return None if moment is None else round(moment.timestamp() * 1000)


def text_of(moment_ms: int) -> str:
    """A time as text for people, in UTC."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
