"""`DomainEvent`: something that happened to one aggregate."""

from __future__ import annotations

from typing import Self

from commons_events.event import Event, registry

__all__ = ["DomainEvent"]


class DomainEvent(Event):
    """An `Event` of one aggregate: subclass it, as any event, and let `AggregateRoot.apply` take it.

    ``aggregate_version`` is its place in the aggregate's stream, from 1 on; it has nothing to do with ``version``,
    which is its schema's. It is 0 until the event was applied.
    """

    aggregate_id: str
    aggregate_version: int = 0

    def placed(self, version: int) -> Self:
        """This event, with its place in its stream, which is set here once: by `AggregateRoot.apply` and the store."""
        vars(self)["aggregate_version"] = version
        self.__pydantic_fields_set__.add("aggregate_version")
        return self


# It says that something happened and not what: nobody makes one, and no bytes are of it.
registry.unregister(DomainEvent)
