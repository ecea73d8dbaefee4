"""What the parts of `EventStoreContract` share: the store under test, and what they put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from commons_events.event import Event
from commons_events.testing.contracts._contract import Contract

if TYPE_CHECKING:
    from commons_events.sourcing import BaseEventStore, StoredEvent

__all__ = ["WAIT", "Counted", "EventStoreCase", "Noted", "TaggedEvent", "counted", "ids", "listed", "sourcing"]

WAIT = 60.0
"""Seconds after which what is waited for does not come any more."""


class Counted(Event):
    """What the tests store."""

    event_type = "commons-events.contract.counted"
    number: int = 0
    text: str = ""


class Noted(Event):
    """Another type."""

    event_type = "commons-events.contract.noted"
    text: str = ""


class TaggedEvent(Event):
    """Says its tags by itself."""

    event_type = "commons-events.contract.tagged"
    customer: str

    def event_tags(self) -> list[str]:
        """One."""
        return [f"customer:{self.customer}"]


def sourcing() -> Any:
    """The package that the contract is of; imported when a test runs, since this one does not depend on it."""
    return import_module("commons_events.sourcing")


def counted(count: int, start: int = 0) -> list[Counted]:
    """So many events."""
    return [Counted(number=number) for number in range(start, start + count)]


def ids(events: Sequence[Any]) -> list[str]:
    """Their event ids."""
    return [event.event_id for event in events]


async def listed(events: AsyncIterator[StoredEvent]) -> list[StoredEvent]:
    """All of them."""
    return [stored async for stored in events]


class EventStoreCase(Contract, contract=True):
    """The store under test; see `EventStoreContract`."""

    has_sql: ClassVar[bool] = True
    writers: ClassVar[int] = 20
    max_examples: ClassVar[int] = 25

    async def make_store(self, **settings: Any) -> BaseEventStore:
        """A store, not yet opened, on the test's database: empty at the test's beginning, and the same at each call."""
        raise NotImplementedError(f"{type(self).__name__}.make_store has to return an event store.")

    async def store(self, **settings: Any) -> BaseEventStore:
        """A store that is closed at the test's end."""
        made = await self.make_store(**settings)
        self.__dict__.setdefault("_stores", []).append(made)
        return made

    async def clean_up(self) -> None:
        """Close the test's stores."""
        for made in self.__dict__.pop("_stores", ()):
            await made.close()
