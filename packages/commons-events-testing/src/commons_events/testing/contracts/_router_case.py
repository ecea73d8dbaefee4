"""What the tests of handlers on a broker are written with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from commons_events.dead_letters import DeadLetter
from commons_events.producers import EventProducer
from commons_events.retries import Retry
from commons_events.router import EventRouter
from commons_events.testing.contracts._broker import BrokerContract
from commons_events.testing.contracts._contract import requires
from commons_events.testing.contracts._events import ContractEvent, mark_end
from commons_events.transport import Outcome, Settlement, Transport

__all__ = ["QUICK", "RouterCase"]

QUICK = Retry(attempts=2, delay=0.01, max_delay=0.02)


class RouterCase(BrokerContract, contract=True):
    """Topics, events and letters for a router."""

    _letter_group: str

    async def _places(self, transport: Transport) -> tuple[str, str, str]:
        """A topic, a group that has it before it, and a topic for dead letters."""
        requires(transport.capabilities, "consumer_groups")
        topic, letters = await self.make_topic(transport), await self.make_topic(transport)
        self._letter_group = await self.known_group(transport, letters)
        return topic, await self.known_group(transport, topic), letters

    async def _send(self, transport: Transport, topic: str, count: int, *, keys: int = 1, start: int = 0) -> None:
        async with EventProducer(transport=transport) as producer:
            for sent in [
                producer.send(topic, ContractEvent(number=number), key=f"key-{number % keys}")
                for number in range(start, start + count)
            ]:
                await sent

    async def _until(
        self, router: EventRouter, transport: Transport, condition: Callable[[], object], what: str
    ) -> None:
        """Run the router until ``condition()`` holds."""
        async with router.running(broker=transport, grace=self.timeout) as running:
            await self.eventually(lambda: condition() or running.error is not None, what)

    async def _left_over(self, transport: Transport, topic: str, group: str) -> list[int]:
        """The numbers of the events that the group has not finished, which finishes them."""
        left, marks = list[int](), await mark_end(transport, topic)
        subscription = await self.subscribe(transport, topic, group_id=group)
        while True:
            complete = marks <= set(left)
            try:
                # The marks may take as long as joining does; what nobody has finished lies before them.
                async with asyncio.timeout(self.quiet if complete else self.timeout):
                    batch = await subscription.receive(1000)
            except TimeoutError:
                assert complete, f"what was sent last did not come within {self.timeout:g} s"
                break
            left += [delivery.event(ContractEvent).number for delivery in batch]
            await subscription.settle([Settlement(delivery, Outcome.ACK) for delivery in batch])
        await subscription.close()
        return sorted(number for number in left if number not in marks)

    async def _letters(self, transport: Transport, topic: str, count: int) -> list[DeadLetter]:
        """The first letters of a topic; on a broker whose groups start at the latest message, each of them once."""
        late = transport.capabilities.new_group_start == "latest"
        group = self._letter_group if late else self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        return [DeadLetter.read(each.message) for each in await self.read(subscription, count)]
