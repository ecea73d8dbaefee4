"""The framework's logger: structlog's, silent until the program configures logging."""

from __future__ import annotations

import logging

import structlog

__all__ = ["logger"]

_NAME = "commons_events"
logging.getLogger(_NAME).addHandler(logging.NullHandler())


def logger() -> structlog.typing.FilteringBoundLogger | structlog.stdlib.BoundLogger:
    """The program's structlog where it has configured that, else the standard logger ``commons_events``."""
    if structlog.is_configured():
        configured: structlog.typing.FilteringBoundLogger = structlog.get_logger(_NAME)
        return configured
    quiet: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(_NAME),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return quiet
