"""Why a service isn't there."""

from __future__ import annotations

from collections.abc import Mapping

from commons_events.errors import CommonsEventsError

__all__ = ["ServiceError", "ServiceStartError", "ServiceUnavailableError", "WayUnavailableError"]


class ServiceError(CommonsEventsError):
    """A server for tests can't be had, started or used that way."""


class ServiceStartError(ServiceError):
    """A server that is installed did not start; its log's last lines are in the message."""


class WayUnavailableError(ServiceError):
    """This machine lacks what one way to a service needs; the message says what."""


class ServiceUnavailableError(ServiceError):
    """This machine has no way to a service; ``reasons`` says for each way why not."""

    def __init__(self, service: str, reasons: Mapping[str, str]) -> None:
        self.service = service
        self.reasons = dict(reasons)
        tried = "; ".join(f"{way}: {reason}" for way, reason in reasons.items())
        super().__init__(f"no {service} here ({tried})")
