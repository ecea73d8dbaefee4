"""`Batch`: deliveries that are made as they are looked at."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from typing import Self, overload

from commons_events.transport._delivery import Delivery

__all__ = ["Batch"]


class Batch(Sequence[Delivery]):
    """Deliveries in their order, each made when it is looked at: most are settled together, and are never kept.

    What a transport may return of `Subscription.receive` in place of a list. Looking at one place twice gives two
    objects that are equal, and of which what is said of one is said of the other. They are settled by the
    `SubscribeRequest.settler` that was asked for.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as a list has none

    @overload
    def __getitem__(self, place: int) -> Delivery: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Delivery]: ...

    @abstractmethod
    def __getitem__(self, place: int | slice) -> Delivery | Sequence[Delivery]:
        """One delivery, or some of them."""

    @abstractmethod
    def pop_each(self) -> Iterator[Delivery]:
        """Take one after the other out of the batch."""

    @abstractmethod
    def popped(self) -> Self:
        """What `pop_each` has taken so far, as another batch."""

    @abstractmethod
    def take(self, limit: int) -> Self:
        """Take the first ``limit`` out, or all where there are fewer, as another batch."""

    @abstractmethod
    def by_topic(self) -> Iterable[tuple[str, Sequence[Delivery]]]:
        """Those that follow each other and are of one topic, together."""

    @property
    @abstractmethod
    def has_unsettled(self) -> bool:
        """Whether there are any of which nothing was said."""

    @abstractmethod
    def unsettled(self) -> list[Delivery]:
        """Those of which nothing was said."""

    @abstractmethod
    def ack_unsettled(self) -> Awaitable[None]:
        """Acknowledge those of which nothing was said; see `Subscription.settle`."""

    def __eq__(self, other: object) -> bool:
        """Whether they are the same deliveries as those of another batch or list."""
        if not isinstance(other, Batch | list):
            return NotImplemented
        return len(self) == len(other) and all(mine == one for mine, one in zip(self, other, strict=True))

    def __add__(self, other: Iterable[Delivery]) -> list[Delivery]:
        """A list of these deliveries and others."""
        return [*self, *other]

    def __radd__(self, other: Iterable[Delivery]) -> list[Delivery]:
        """A list of other deliveries and these."""
        return [*other, *self]

    def __repr__(self) -> str:
        return repr(list(self))
