"""Whether a message of a key that stands still may be handled, has to wait in the dead-letter topic, or is known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from commons_events.dead_letters import REDRIVEN, Entry, Mark
from commons_events.errors import TransportError
from commons_events.log import logger
from commons_events.router._lanes import Lane
from commons_events.router._parking import Parking
from commons_events.transport import Delivery

__all__ = ["ParkedKeys", "Turn"]


@dataclass(slots=True)
class Turn:
    """What becomes of a message now."""

    head: Entry | None = None
    """The letter that it was redriven from, which stands first: it may be handled."""
    done: bool = False
    """Whether nothing is left to do but to wait."""
    wait: float | None = None


class ParkedKeys:
    """Decides by the letters that stand before a message.

    Args:
        parking: knows them.
        park: keeps a message behind the letter whose id is given, and finishes it; the seconds to wait where that
            failed.
        finish: finishes a message.
        backoff: the seconds to wait after a failure.
    """

    def __init__(
        self,
        parking: Parking,
        park: Callable[[Lane, str], Awaitable[float | None]],
        finish: Callable[[Delivery], Awaitable[None]],
        backoff: Callable[[Lane, Exception], float],
    ) -> None:
        self.parking = parking
        self._park = park
        self._finish = finish
        self._backoff = backoff

    async def turn(self, lane: Lane, delivery: Delivery, headers: dict[str, bytes]) -> Turn | None:
        """None where the message has nothing before it."""
        id = headers[REDRIVEN].decode(errors="replace") if REDRIVEN in headers else None
        try:
            standing = await self.parking.ahead(delivery)
            if id is not None and (not standing or standing[0].id != id):  # somebody may have cleared its way
                standing = await self.parking.look_again(delivery)
            if id is not None and self.parking.journal.is_gone(id):
                logger().debug("a redriven message was handled or discarded already", letter=id)
                await self._finish(delivery)
                return Turn(done=True)
            if not standing:
                return None
            head = standing[0]
            if id == head.id:
                return Turn(head=head)
            redriven = next((entry for entry in standing if entry.id == id), None)
            if redriven is not None:  # not its turn: its letter stands where it is, to be redriven again
                await self.parking.mark(redriven, Mark.RETURNED, delivery)
                await self._finish(delivery)
                return Turn(done=True)
            place = (delivery.partition, delivery.offset)
            if any(entry.origin_place == place for entry in standing):  # kept already, and not acknowledged then
                await self._finish(delivery)
                return Turn(done=True)
        except TransportError as error:
            return Turn(done=True, wait=self._backoff(lane, error))
        return Turn(done=True, wait=await self._park(lane, head.id))
