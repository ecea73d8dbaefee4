"""`OutboxRelay`: publishes stored events over a transport, in order for each stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from commons_events.binding import BinaryBinding, Binding
from commons_events.errors import ConfigurationError, LeaseLostError, StoreUnavailableError, TransportError
from commons_events.event import Event
from commons_events.log import logger
from commons_events.message import Message, PublishResult, Receipt
from commons_events.runtime import current_runtime
from commons_events.sourcing._backend import Lease
from commons_events.sourcing._groups import lost
from commons_events.sourcing._store import BaseEventStore
from commons_events.sourcing._store_transaction import log_query
from commons_events.sourcing._subscription import Subscription
from commons_events.sourcing._types import StoredEvent, check_interval, check_name, check_position
from commons_events.transport import Transport

__all__ = ["OutboxRelay"]

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 30.0
"""Seconds between attempts, doubled with each."""


class OutboxRelay:
    """Publishes what is stored: saving an event and publishing it are then one thing, without a transaction over both.

    Each stream's events are published in its order, under the stream's id as the key; the next one goes out once the
    one before is confirmed, and different streams go side by side. After a crash the last page comes again, with the
    same event ids: at least once. Of several relays of one name, one works and the others stand by.

    Args:
        store: where the events come from.
        transport: where they go; who made it closes it.
        topic: a topic, or a function that gives each event's, and None for those that are to stay.
        name: under which it saves how far it has come; relays that publish different events have different ones.
        source: CloudEvents' ``source`` of events that have none; by default a URN with the name.
        binding: how events become messages; by default CloudEvents' binary mode.
        after: where a new relay begins.
        categories: only of streams of one of these categories.
        types: only events that were stored as one of these types, or are read as one of these classes.
        tags: only events that have all of these tags.
        lease_seconds: how long a silent relay stays in charge.
    """

    def __init__(
        self,
        store: BaseEventStore,
        transport: Transport,
        *,
        topic: str | Callable[[StoredEvent], str | None],
        name: str = "outbox",
        source: str | None = None,
        binding: Binding | None = None,
        after: int = 0,
        categories: Iterable[str] = (),
        types: Iterable[str | type[Event]] = (),
        tags: Iterable[str] = (),
        lease_seconds: float = 30.0,
    ) -> None:
        check_interval(lease_seconds, "lease_seconds")
        check_name(name, "relay's name")
        self.name = name
        check_name(self._group, "relay's name in full")
        given: Any = store
        if not isinstance(given, BaseEventStore):
            raise ConfigurationError(f"OutboxRelay's store is a {type(given).__name__}; it is an EventStore.")
        given = transport
        if not isinstance(given, Transport):
            raise ConfigurationError(
                f"OutboxRelay's transport is a {type(given).__name__}; it is a Transport, such as "
                "commons_events.config.open_transport(ProducerConfig(…)) gives."
            )
        given = topic
        if isinstance(topic, str):
            transport.check_target(topic)
        elif not callable(given):
            raise ConfigurationError(f"topic is {given!r:.100}; it is a topic, or a function that gives each event's.")
        self.published = 0
        """How many messages this object has had confirmed."""
        self._store = store
        self._transport = transport
        self._topic = topic
        self._source = source or f"urn:commons-events:{name}"
        self._binding = binding or BinaryBinding(transport.header_prefix, outside=True)
        self._after = check_position(after, "after")
        self._query = log_query(categories, types, tags)
        self._seconds = lease_seconds
        self._worker = current_runtime().new_id()
        self._renewed = 0.0
        """When the lease was last renewed."""

    async def run(self) -> None:
        """Publish what there is and what comes, until cancelled. While the database is out of reach it waits.

        Raises:
            TransportError: the broker refuses a message for good; it, and what follows it, is not skipped.
            UnknownEventTypeError: no class is known for a stored event.
            UndecodableEventError: a stored event cannot be read.
        """
        failures = 0
        try:
            while True:
                try:
                    lease = await self._lease()
                    failures = 0
                    if lease is None:
                        await current_runtime().sleep(min(1.0, self._seconds / 3))
                        continue
                    await self._work(lease, forever=True)
                except LeaseLostError:
                    continue  # another relay has taken over; stand by
                except StoreUnavailableError as error:
                    delay = min(_FIRST_DELAY * 2.0 ** min(failures, 10), _LONGEST_DELAY)
                    failures += 1
                    logger().warning("a relay waits for its database", relay=self.name, error=str(error), seconds=delay)
                    await current_runtime().sleep(delay)
        finally:
            with suppress(StoreUnavailableError):  # then others take over once the lease has run out
                await self._give_back()

    async def run_once(self) -> int:
        """Publish all that is there now, and return how many messages that were; 0 where another relay is in charge."""
        before = self.published
        lease = await self._lease()
        try:
            if lease is not None:
                with suppress(LeaseLostError):  # another one has taken over, and publishes the rest
                    await self._work(lease, forever=False)
        finally:
            await self._give_back()
        return self.published - before

    @property
    def _group(self) -> str:
        return f"relay {self.name}"

    async def _lease(self) -> Lease | None:
        backend = await self._store._writable()
        asked = current_runtime().monotonic()
        held = await backend.lease(self._group, 1, self._worker, self._seconds)
        self._renewed = asked
        return held[0] if held else None

    async def _give_back(self) -> None:
        backend = await self._store._writable()
        await backend.lease(self._group, 1, self._worker, 0.0, [0])

    async def _work(self, lease: Lease, *, forever: bool) -> None:
        start = await self._start(lease)
        subscription = self._store.subscribe(
            after=start, categories=self._query.categories, types=self._query.types, tags=self._query.tags
        )
        saved = start
        while True:
            page = await self._page(subscription, forever)
            if page:
                await self._publish(page, lease)
            elif not forever:
                return
            if subscription.position > saved:
                async with self._store.transaction() as transaction:
                    await transaction.check_lease(lease)
                    await transaction.save_checkpoint(self._group, subscription.position)
                saved = subscription.position
            await self._keep(lease)

    async def _start(self, lease: Lease) -> int:
        """Where to go on; at the first start it is saved at once."""
        saved = (await self._store.checkpoints(self._group)).get(self._group)
        if saved is not None:
            return saved
        # What has had the lease before, and yet saved nothing, is a relay of older code, which saved under its bare
        # name: a name that any other reader may have, too.
        start = (await self._store.checkpoint(self.name) if lease.epoch > 1 else 0) or self._after
        async with self._store.transaction() as transaction:
            await transaction.check_lease(lease)
            await transaction.save_checkpoint(self._group, start, backwards=True)
        return start

    async def _page(self, subscription: Subscription, forever: bool) -> Sequence[StoredEvent]:
        page = await subscription.next_page(wait=False)
        if not page and forever:
            backend = await self._store._ready()
            await backend.wait(subscription.position, min(1.0, self._seconds / 3))
        return page

    def _due(self) -> float:
        """In how many seconds the lease is to be renewed: once a third of it is over."""
        return self._renewed + self._seconds / 3 - current_runtime().monotonic()

    async def _keep(self, lease: Lease) -> None:
        if await self._lease() != lease:
            raise lost(lease)

    async def _publish(self, page: Sequence[StoredEvent], lease: Lease) -> None:
        """Rounds of one message for each stream: where one fails, none after it is out before it.

        The lease is renewed meanwhile, however long the broker takes: another relay would come past this one, and what
        this one had left would then follow what is newer.
        """
        waiting: dict[object, list[Message]] = {}
        for stored in page:
            topic = self._topic if isinstance(self._topic, str) else self._topic(stored)
            if topic is None:
                continue
            event = stored.event()
            if not event.source:
                event = event.with_source(self._source)
            message = self._binding.to_message(event, topic, key=stored.stream.id.encode(), timestamp=event.timestamp)
            waiting.setdefault(stored.stream, []).append(message)
        failures = 0
        while waiting:
            if self._due() <= 0:
                await self._keep(lease)
            streams = list(waiting)
            results = await self._send([waiting[stream][0] for stream in streams], lease)
            failure: TransportError | None = None
            for stream, result in zip(streams, results, strict=True):
                if not isinstance(result, Receipt):
                    failure = result
                    continue
                self.published += 1
                del waiting[stream][0]
                if not waiting[stream]:
                    del waiting[stream]
            if failure is None:
                failures = 0
                continue
            if not failure.retriable:
                raise failure
            delay = min(_FIRST_DELAY * 2.0 ** min(failures, 10), _LONGEST_DELAY)
            await current_runtime().sleep(min(delay, self._seconds / 3))
            failures += 1

    async def _send(self, messages: Sequence[Message], lease: Lease) -> Sequence[PublishResult]:
        """Publish a round, and renew the lease for as long as that takes."""
        sending = asyncio.ensure_future(self._transport.publish(messages))
        try:
            while not sending.done():
                with suppress(TimeoutError):
                    async with current_runtime().timeout(self._due()):
                        await asyncio.wait([sending])
                if not sending.done():
                    await self._keep(lease)
            return sending.result()
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.wait([sending])  # the transport may be closed after this, or another relay begin
