"""`EventConsumer` for every broker; and each installed broker's own consumer class, found by its entry point."""

from typing import TYPE_CHECKING, Any

from commons_events.consumers._consumer import ConsumerConfig, EventConsumer
from commons_events.plugins import CONSUMERS, names

__all__ = ["ConsumerConfig", "EventConsumer"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """A broker's consumer class (PEP 562)."""
        from commons_events.plugins import import_class

        return import_class(CONSUMERS, name, __name__)

    def __dir__() -> list[str]:
        return sorted({*globals(), *names(CONSUMERS)})
