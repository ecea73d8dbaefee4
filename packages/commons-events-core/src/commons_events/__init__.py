"""Commons Events: typed events over every broker. See https://cloudevents.io for the attributes' standard."""

from typing import TYPE_CHECKING

__path__ = __import__("pkgutil").extend_path(__path__, __name__)

if TYPE_CHECKING:
    from commons_events.consumers import ConsumerConfig as ConsumerConfig
    from commons_events.consumers import EventConsumer as EventConsumer
    from commons_events.event import Event as Event
    from commons_events.event import EventMetadata as EventMetadata
    from commons_events.event import EventSchema as EventSchema
    from commons_events.event import check_migrations as check_migrations
    from commons_events.event import migration as migration
    from commons_events.message import Message as Message
    from commons_events.producers import EventProducer as EventProducer
    from commons_events.producers import ProducerConfig as ProducerConfig
    from commons_events.retries import Retry as Retry
    from commons_events.router import EventRouter as EventRouter
    from commons_events.transport import Delivery as Delivery

_HOMES = {
    "ConsumerConfig": "consumers",
    "Delivery": "transport",
    "Event": "event",
    "EventConsumer": "consumers",
    "EventMetadata": "event",
    "EventProducer": "producers",
    "EventRouter": "router",
    "EventSchema": "event",
    "Message": "message",
    "ProducerConfig": "producers",
    "Retry": "retries",
    "check_migrations": "event",
    "migration": "event",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562): ``import commons_events`` itself loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
