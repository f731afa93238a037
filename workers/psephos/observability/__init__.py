"""What SREs see of a role: structured logs, and an admin port with /livez, /readyz and /metrics."""

from psephos.observability.admin import AdminServer, Health, open_admin
from psephos.observability.logs import configure_logs, get_logger

__all__ = ["AdminServer", "Health", "configure_logs", "get_logger", "open_admin"]
