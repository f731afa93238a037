"""Structured logs on standard error: an event name and its fields, JSON or for a console."""

import logging
import sys
from types import ModuleType
from typing import Any, TextIO, cast

# structlog renders tracebacks with rich if that is installed: a tenth of a role's start, for what no role shows
_hidden = "rich" not in sys.modules
if _hidden:
    sys.modules["rich"] = cast("ModuleType", None)  # importing it now fails as if it were not installed
import structlog  # noqa: E402

if _hidden:
    del sys.modules["rich"]


class _StandardError:
    """Standard error as it is when a line is written: it may be replaced after logs are configured."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logs(*, role: str, level: str = "info", form: str = "json", **fields: Any) -> None:
    """Configures logs, once at a role's start. `fields` (session, worker) appear in every line."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role, **fields)


def get_logger() -> Any:
    """A logger; call it with an event name and fields."""
    return structlog.get_logger()
