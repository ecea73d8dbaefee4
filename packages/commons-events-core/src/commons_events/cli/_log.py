"""What a command that goes on for long tells of itself."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum

__all__ = ["LogLevel", "show_log"]


class LogLevel(StrEnum):
    """From what level on."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def show_log(level: LogLevel) -> None:
    """Write the log to stderr, from ``level`` on, unless the program has configured structlog or logging already."""
    import structlog  # only here: other commands write none

    if structlog.is_configured() or logging.getLogger().handlers:
        return
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # The brokers' clients write to the standard library's.
    logging.basicConfig(
        stream=sys.stderr,
        level=max(number, logging.WARNING),
        format="%(asctime)s [%(levelname)s] %(name)s: %(message)s",
    )
