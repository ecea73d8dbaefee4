"""`EventProducer` for every broker; and each installed broker's own producer class, found by its entry point."""

from typing import TYPE_CHECKING, Any

from commons_events.plugins import PRODUCERS, names
from commons_events.producers._producer import EventProducer, ProducerConfig

__all__ = ["EventProducer", "ProducerConfig"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """A broker's producer class (PEP 562)."""
        from commons_events.plugins import import_class

        return import_class(PRODUCERS, name, __name__)

    def __dir__() -> list[str]:
        return sorted({*globals(), *names(PRODUCERS)})
