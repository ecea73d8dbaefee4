"""The contract suite finds what it is for: each broker here breaks one sentence, and one named test must notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any, ClassVar, Self, TypeVar

import pytest

from commons_events.consumers import EventConsumer
from commons_events.errors import BatchError, CommonsEventsError, DeserializationError, MessageTooLargeError
from commons_events.event import Event
from commons_events.memory import MemoryBroker, MemoryLimits, MemoryTransport
from commons_events.message import Message, PublishResult, Receipt
from commons_events.producers import EventProducer
from commons_events.serialization import JsonSerializer
from commons_events.testing.contracts import (
    SHORT,
    ConsumerContract,
    Contract,
    ProducerContract,
    SerializerContract,
    TransportContract,
)
from commons_events.transport import (
    DONE,
    Capabilities,
    Delivery,
    Outcome,
    Settlement,
    SubscribeRequest,
    Subscription,
    Transport,
    TransportSettings,
)

E = TypeVar("E", bound=Event)
Results = asyncio.Future[Sequence[PublishResult]]


class SoundSubscription(Subscription):
    """Passes everything on."""

    def __init__(self, inner: Any, request: SubscribeRequest) -> None:
        self.inner = inner
        self.request = request

    async def receive(self, limit: int) -> Sequence[Delivery]:
        return self.mine(await self.inner.receive(limit))

    def mine(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        for delivery in batch:
            delivery.settler = self
        return batch

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        result: Awaitable[None] = self.inner.settle(settlements)
        return result

    async def flush(self) -> None:
        await self.inner.flush()

    async def close(self) -> None:
        await self.inner.close()

    def pause(self) -> None:
        self.inner.pause()

    def resume(self) -> None:
        self.inner.resume()

    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        await self.inner.seek(target, topic=topic, partition=partition)


class SoundTransport(Transport):
    """Passes everything on."""

    name: ClassVar[str] = "planted"
    subscription: ClassVar[type[SoundSubscription]] = SoundSubscription

    def __init__(self, broker: MemoryBroker) -> None:
        self.inner = MemoryTransport(broker)
        self.opened: list[SoundSubscription] = []

    @classmethod
    def from_settings(cls, settings: TransportSettings) -> Self:
        MemoryTransport.from_settings(settings)
        return cls(MemoryBroker())

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def publish(self, messages: Sequence[Message]) -> Results:
        return self.inner.publish(messages)

    async def subscribe(self, request: SubscribeRequest) -> Subscription:
        subscription = self.subscription(await self.inner.subscribe(request), request)
        self.opened.append(subscription)
        return subscription

    async def flush(self) -> None:
        await self.inner.flush()

    async def close(self) -> None:
        await self.inner.flush()
        for subscription in self.opened:
            await subscription.close()
        await self.inner.close()

    async def browse(self, topic: str, *, partition: int, offset: int = 0, limit: int = 100) -> Any:
        return await self.inner.browse(topic, partition=partition, offset=offset, limit=limit)

    async def declare(self, topic: str, *, partitions: int | None = None) -> Any:
        return await self.inner.declare(topic, partitions=partitions)

    async def topics(self) -> Any:
        return await self.inner.topics()

    async def delete(self, topic: str) -> None:
        await self.inner.delete(topic)

    def publish_delayed(self, messages: Sequence[Message], delay: float) -> Results:
        return self.inner.publish_delayed(messages, delay)

    def transaction(self) -> Any:
        return self.inner.transaction()


class OnSound:
    """A private in-process broker behind a wrapper."""

    scale = SHORT
    timeout = 60.0
    quiet = 0.03
    nack_delay = 0.06
    room = 100
    transport: ClassVar[type[SoundTransport]] = SoundTransport

    @property
    def broker(self) -> MemoryBroker:
        broker: MemoryBroker = self.__dict__.setdefault("_broker", MemoryBroker(limits=MemoryLimits(partitions=4)))
        return broker

    async def make_transport(self) -> Transport:
        return self.transport(self.broker)

    async def make_small_transport(self) -> Transport:
        return self.transport(MemoryBroker(limits=MemoryLimits(partitions=2, max_messages=50)))

    async def lose(self, subscription: Subscription) -> None:
        assert isinstance(subscription, SoundSubscription)
        self.broker.disconnect(subscription.inner)

    def misspelt_settings(self, name: str) -> list[TransportSettings]:
        return [TransportSettings(url="memory://planted?no_such_setting=1")]


class OnSoundTransport(OnSound, TransportContract):
    pass


class OnSoundProducer(OnSound, ProducerContract):
    producer: ClassVar[type[EventProducer]] = EventProducer

    def make_producer(self, transport: Transport, **settings: Any) -> EventProducer:
        return self.producer(transport=transport, **settings)


class OnSoundConsumer(OnSound, ConsumerContract):
    consumer: ClassVar[type[EventConsumer]] = EventConsumer

    def make_consumer(self, transport: Transport, *topics: str, **settings: Any) -> EventConsumer:
        return self.consumer(transport=transport, topics=topics, **settings)


class OnJson(SerializerContract):
    serializer: ClassVar[type[JsonSerializer]] = JsonSerializer

    def make_serializer(self) -> JsonSerializer:
        return self.serializer()


def verdict(contract: type[Contract], test: str) -> Exception | None:
    """Run one test of a contract: None where it passes, else its error."""

    async def run() -> None:
        await getattr(contract(), test)()

    try:
        asyncio.run(run())
    except pytest.skip.Exception as skipped:
        pytest.fail(f"{test} was skipped: {skipped}")
    except pytest.fail.Exception as failure:
        return AssertionError(str(failure))
    except Exception as error:  # noqa: BLE001  # whatever makes the test fail has noticed the bug
        return error
    return None


BUGS: list[tuple[type, str]] = []


def caught_by(*tests: str) -> Callable[[type], type]:
    """Note which tests have to notice the decorated transport or subscription."""

    def note(bug: type) -> type:
        BUGS.extend((bug, test) for test in tests)
        return bug

    return note


# --- subscriptions ---------------------------------------------------------------------------------------------


class OutcomesChange(SoundSubscription):
    def changed(self, settlement: Settlement) -> Settlement | None:
        return settlement

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        return self.inner.settle([new for old in settlements if (new := self.changed(old)) is not None])  # type: ignore[no-any-return]


@caught_by("test_a_nacked_message_comes_again", "test_goes_on_after_many_nacks")
class LosesNacked(OutcomesChange):
    def changed(self, settlement: Settlement) -> Settlement:
        return settlement._replace(outcome=Outcome.ACK)


@caught_by("test_the_delay_of_a_nack_is_kept")
class IgnoresTheDelay(OutcomesChange):
    def changed(self, settlement: Settlement) -> Settlement:
        return settlement._replace(delay=0.0)


@caught_by("test_a_release_counts_no_attempt")
class CountsReleases(OutcomesChange):
    def changed(self, settlement: Settlement) -> Settlement:
        return settlement._replace(outcome=Outcome.NACK) if settlement.outcome is Outcome.RELEASE else settlement


@caught_by("test_an_acknowledged_message_never_comes_again", "test_close_keeps_what_was_settled")
class ForgetsSomeAcks(OutcomesChange):
    def changed(self, settlement: Settlement) -> Settlement | None:
        return settlement if settlement.delivery.value != b"7" else None


@caught_by("test_attempts_are_counted")
class NeverCounts(SoundSubscription):
    def mine(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        for delivery in batch:
            delivery.attempt = 1
        return super().mine(batch)


@caught_by("test_keys_keep_their_order", "test_order_of_handling_is_the_order_of_the_list")
class SwapsWithinABatch(SoundSubscription):
    def mine(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        return super().mine(batch[::-1])


@caught_by("test_followers_do_not_overtake_a_nacked_message")
class LetsFollowersOvertake(SoundSubscription):
    """Keeps nacked messages to itself and brings them behind what is new."""

    def __init__(self, inner: Any, request: SubscribeRequest) -> None:
        super().__init__(inner, request)
        self.kept: list[Delivery] = []

    async def receive(self, limit: int) -> Sequence[Delivery]:
        try:
            async with asyncio.timeout(0.05 if self.kept else None):
                return await super().receive(limit)
        except TimeoutError:
            again = self.kept.pop(0)
            again.outcome = None
            return [again]

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        self.kept += [s.delivery for s in settlements if s.outcome is Outcome.NACK]
        return super().settle([s for s in settlements if s.outcome is not Outcome.NACK])


@caught_by("test_cancelling_receive_at_any_moment_loses_nothing")
class AcknowledgesOnCancel(SoundSubscription):
    async def receive(self, limit: int) -> Sequence[Delivery]:
        batch = await super().receive(limit)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await self.inner.settle([Settlement(delivery, Outcome.ACK) for delivery in batch])
            raise
        return batch


@caught_by("test_cancelling_receive_at_any_moment_loses_nothing")
class KeepsOutOnCancel(SoundSubscription):
    async def receive(self, limit: int) -> Sequence[Delivery]:
        batch = await super().receive(limit)
        await asyncio.sleep(0)
        return batch


@caught_by(
    "test_close_gives_back_in_order",
    "test_a_group_resumes_after_close",
    "test_a_stalled_handler_loses_nothing",
    "test_closing_the_transport_closes_its_subscriptions",
)
class ForgetsUnsettledOnClose(SoundSubscription):
    def __init__(self, inner: Any, request: SubscribeRequest) -> None:
        super().__init__(inner, request)
        self.out: list[Delivery] = []

    def mine(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        self.out += batch
        return super().mine(batch)

    async def close(self) -> None:
        await self.inner.settle([Settlement(delivery, Outcome.ACK) for delivery in self.out])
        await self.inner.close()


@caught_by("test_nothing_is_received_after_close", "test_closing_while_messages_are_under_way")
class HangsOnCloseWithMessagesOut(ForgetsUnsettledOnClose):
    async def close(self) -> None:
        if any(delivery.outcome is None for delivery in self.out):
            await asyncio.Event().wait()
        await self.inner.close()


@caught_by("test_a_lost_consumers_messages_come_again", "test_a_nacked_message_comes_again")
class AcknowledgesOnReceive(SoundSubscription):
    def mine(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        self.inner.settle([Settlement(delivery, Outcome.ACK) for delivery in batch])
        return super().mine(batch)


@caught_by("test_settling_twice_is_harmless")
class LastOutcomeWins(SoundSubscription):
    def __init__(self, inner: Any, request: SubscribeRequest) -> None:
        super().__init__(inner, request)
        self.said: dict[Delivery, Settlement] = {}

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        self.said.update({settlement.delivery: settlement for settlement in settlements})
        return DONE

    async def receive(self, limit: int) -> Sequence[Delivery]:
        await self.flush()
        return await super().receive(limit)

    async def flush(self) -> None:
        await self.inner.settle(list(self.said.values()))


@caught_by("test_flush_tells_the_broker")
class FlushesNothing(SoundSubscription):
    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        return DONE


@caught_by("test_a_redelivered_message_makes_the_earlier_delivery_stale", "test_seek_forgets_what_is_out")
class SettlesByOffset(SoundSubscription):
    """Takes the settlement of an earlier attempt for the one that is out."""

    def __init__(self, inner: Any, request: SubscribeRequest) -> None:
        super().__init__(inner, request)
        self.latest: dict[tuple[str, int | None, int | None], Delivery] = {}

    def mine(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        self.latest.update({(d.topic, d.partition, d.offset): d for d in batch})
        return super().mine(batch)

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        return super().settle(
            [
                s._replace(delivery=self.latest[s.delivery.topic, s.delivery.partition, s.delivery.offset])
                for s in settlements
            ]
        )


@caught_by("test_receive_returns_at_most_the_limit")
class ExceedsTheLimit(SoundSubscription):
    async def receive(self, limit: int) -> Sequence[Delivery]:
        return await super().receive(limit + 1)


@caught_by("test_receive_waits_for_messages")
class GivesUpWaiting(SoundSubscription):
    async def receive(self, limit: int) -> Sequence[Delivery]:
        try:
            async with asyncio.timeout(0.01):
                return await super().receive(limit)
        except TimeoutError:
            return []


@caught_by("test_receive_lets_other_tasks_run")
class StarvesTheLoop(SoundSubscription):
    def __init__(self, inner: Any, request: SubscribeRequest) -> None:
        super().__init__(inner, request)
        self.fetched: list[Delivery] = []

    async def receive(self, limit: int) -> Sequence[Delivery]:
        if not self.fetched:
            self.fetched = list(await super().receive(1000))
        batch, self.fetched = self.fetched[:limit], self.fetched[limit:]
        return batch


@caught_by("test_close_ends_a_waiting_receive", "test_nothing_is_received_after_close")
class RaisesAfterClose(SoundSubscription):
    async def receive(self, limit: int) -> Sequence[Delivery]:
        batch = await super().receive(limit)
        if not batch:
            raise CommonsEventsError("closed")
        return batch


@caught_by("test_closing_twice_is_harmless")
class ClosesOnlyOnce(SoundSubscription):
    closed = False

    async def close(self) -> None:
        if self.closed:
            raise CommonsEventsError("closed already")
        self.closed = True
        await super().close()


@caught_by("test_settling_after_close_is_passed_over", "test_stale_settlements_are_passed_over")
class RefusesAfterClose(ClosesOnlyOnce):
    async def close(self) -> None:
        self.closed = True
        await self.inner.close()

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        if self.closed:
            raise CommonsEventsError("closed")
        return super().settle(settlements)


@caught_by("test_a_paused_subscription_receives_nothing")
class NeverPauses(SoundSubscription):
    def pause(self) -> None:
        pass


@caught_by("test_pausing_keeps_membership_and_settlements")
class PausesSettlements(SoundSubscription):
    paused = False

    def pause(self) -> None:
        self.paused = True
        super().pause()

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        return DONE if self.paused else super().settle(settlements)


@caught_by("test_seek_to_an_offset", "test_seek_to_a_time", "test_seek_to_the_end")
class SeeksOnlyTheBeginning(SoundSubscription):
    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        await super().seek("beginning", topic=topic, partition=partition)


@caught_by("test_seek_refuses_what_is_no_place")
class SeeksWhatItUnderstands(SoundSubscription):
    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        with suppress(ValueError, TypeError, LookupError):
            await super().seek(target, topic=topic, partition=partition)


@caught_by("test_seek_to_a_time_before_everything")
class SeeksNoOldTimes(SoundSubscription):
    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        is_old = isinstance(target, datetime) and target.year < 1970
        await super().seek("end" if is_old else target, topic=topic, partition=partition)


@caught_by("test_a_cancelled_seek_loses_nothing")
class StaysSilentWithoutItsSeek(SoundSubscription):
    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        self.pause()
        await asyncio.sleep(0)
        await super().seek(target, topic=topic, partition=partition)
        self.resume()


@caught_by("test_the_latest_seek_counts")
class SeeksOnlyOnce(SoundSubscription):
    sought = False

    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        if not self.sought:
            self.sought = True
            await super().seek(target, topic=topic, partition=partition)


@caught_by("test_seek_in_one_topic_leaves_the_others")
class SeeksEverywhere(SoundSubscription):
    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        await super().seek(target)


# --- transports ------------------------------------------------------------------------------------------------


class RequestsChange(SoundTransport):
    def changed(self, request: SubscribeRequest) -> SubscribeRequest:
        return request

    async def subscribe(self, request: SubscribeRequest) -> Subscription:
        return await super().subscribe(self.changed(request))


@caught_by("test_receive_waits_at_max_unsettled", "test_max_unsettled_spans_batches")
class IgnoresMaxUnsettled(RequestsChange):
    def changed(self, request: SubscribeRequest) -> SubscribeRequest:
        return replace(request, max_unsettled=1_000_000)


@caught_by("test_a_group_shares_the_messages")
class EveryMemberGetsAll(RequestsChange):
    numbers = count()

    def changed(self, request: SubscribeRequest) -> SubscribeRequest:
        return replace(request, group_id=f"{request.group_id}-{next(self.numbers)}")


@caught_by("test_every_group_gets_all")
class AllGroupsAreOne(RequestsChange):
    def changed(self, request: SubscribeRequest) -> SubscribeRequest:
        return replace(request, group_id="one")


@caught_by("test_without_a_group_everyone_gets_all_from_the_start")
class NoGroupIsAGroup(RequestsChange):
    def changed(self, request: SubscribeRequest) -> SubscribeRequest:
        return replace(request, group_id=request.group_id or "nobody")


@caught_by("test_a_new_group_starts_where_it_is_claimed")
class AlwaysStartsAtTheLatest(RequestsChange):
    def changed(self, request: SubscribeRequest) -> SubscribeRequest:
        return replace(request, start="latest")


@caught_by("test_a_group_can_start_at_the_latest")
class NeverStartsAtTheLatest(RequestsChange):
    def changed(self, request: SubscribeRequest) -> SubscribeRequest:
        return replace(request, start="earliest")


class MessagesChange(SoundTransport):
    def changed(self, message: Message) -> Message:
        return message

    def publish(self, messages: Sequence[Message]) -> Results:
        return super().publish([self.changed(message) for message in messages])


@caught_by("test_repeated_headers_hold")
class HeadersAreADict(MessagesChange):
    def changed(self, message: Message) -> Message:
        return message._replace(headers=tuple(dict(message.headers).items()))


@caught_by("test_headers_hold")
class TruncatesHeaders(MessagesChange):
    def changed(self, message: Message) -> Message:
        return message._replace(headers=tuple((name, value[:1000]) for name, value in message.headers))


@caught_by("test_binary_headers_hold")
class HeadersAreText(MessagesChange):
    def changed(self, message: Message) -> Message:
        headers = tuple((name, value.decode(errors="replace").encode()) for name, value in message.headers)
        return message._replace(headers=headers)


@caught_by("test_binary_keys_hold")
class EmptyKeysAreNone(MessagesChange):
    def changed(self, message: Message) -> Message:
        return message._replace(key=message.key or None)


@caught_by("test_text_keys_hold")
class NoKeyIsEmpty(MessagesChange):
    def changed(self, message: Message) -> Message:
        return message._replace(key=message.key or b"")


@caught_by("test_tombstones_are_told_from_empty_values")
class TombstonesAreEmpty(MessagesChange):
    def changed(self, message: Message) -> Message:
        return message._replace(value=message.value or b"")


@caught_by("test_odd_values_hold")
class EmptyValuesAreTombstones(MessagesChange):
    def changed(self, message: Message) -> Message:
        return message._replace(value=message.value or None)


@caught_by("test_big_values_hold")
class TruncatesBigValues(MessagesChange):
    def changed(self, message: Message) -> Message:
        return message._replace(value=message.value and message.value[:65_536])


@caught_by("test_timestamps_are_aware")
class TimestampsAreNaive(SoundTransport):
    class subscription(SoundSubscription):  # noqa: N801
        def mine(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
            for delivery in batch:
                timestamp = delivery.message.timestamp
                delivery.message = delivery.message._replace(timestamp=timestamp and timestamp.replace(tzinfo=None))
            return super().mine(batch)


@caught_by("test_a_named_partition_is_kept")
class IgnoresPartitions(MessagesChange):
    def changed(self, message: Message) -> Message:
        return message._replace(partition=None)


@caught_by("test_publishes_and_receives_all", "test_concurrent_publishers_and_subscribers")
class LosesOneInThirty(SoundTransport):
    numbers = count(1)

    def publish(self, messages: Sequence[Message]) -> Results:
        kept = [message for message in messages if next(self.numbers) % 30]
        future: Results = asyncio.get_running_loop().create_future()
        super().publish(kept)
        future.set_result([Receipt(message.topic, id=str(next(self.numbers))) for message in messages])
        return future


@caught_by("test_publishes_and_receives_all")
class StoresTwice(SoundTransport):
    def publish(self, messages: Sequence[Message]) -> Results:
        super().publish(messages)
        return super().publish(messages)


@caught_by("test_each_receipt_names_a_place_of_its_own", "test_results_stand_in_the_order_of_the_messages")
class ReceiptsAreAllTheSame(SoundTransport):
    def publish(self, messages: Sequence[Message]) -> Results:
        future: Results = asyncio.get_running_loop().create_future()
        super().publish(messages)
        future.set_result([Receipt(message.topic, 0, 0) for message in messages])
        return future


class PublishesLate(SoundTransport):
    """Hands over in a callback that comes later."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.waiting: list[tuple[Sequence[Message], Results]] = []

    def publish(self, messages: Sequence[Message]) -> Results:
        self.inner._check_open()
        future: Results = asyncio.get_running_loop().create_future()
        self.waiting.append((messages, future))
        asyncio.get_running_loop().call_later(0.005, self.hand_over)
        return future

    def hand_over(self) -> None:
        if self.waiting and not self.inner._closed:
            messages, future = self.waiting.pop()
            inner = self.inner.publish(messages)
            inner.add_done_callback(lambda done: future.done() or future.set_result(done.result()))


caught_by("test_publish_hands_over_when_called", "test_flush_waits_for_every_message")(PublishesLate)
caught_by("test_closing_a_publisher_loses_nothing")(PublishesLate)


@caught_by("test_too_large_fails_alone")
class FailsTheWholeCall(SoundTransport):
    def publish(self, messages: Sequence[Message]) -> Results:
        future: Results = asyncio.get_running_loop().create_future()
        if any(message.size > (self.capabilities.max_message_bytes or 0) for message in messages):
            future.set_exception(MessageTooLargeError("one is too large"))
            return future
        return super().publish(messages)


@caught_by("test_key_and_headers_count_for_the_size")
class CountsTheValueAlone(SoundTransport):
    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(MemoryBroker(limits=replace(broker.limits, max_message_bytes=(64 << 20) + 100)))

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, max_message_bytes=64 << 20)


@caught_by("test_refuses_names_that_no_broker_takes")
class TakesAnyName(SoundTransport):
    def check_topic(self, topic: str) -> None:
        pass


@caught_by("test_a_closed_transport_refuses")
class WorksAfterClose(SoundTransport):
    async def close(self) -> None:
        pass


@caught_by("test_a_full_topic_makes_publishing_wait", "test_a_waiting_publish_can_be_cancelled")
class IsUnbounded(SoundTransport):
    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(MemoryBroker())


@caught_by("test_topics_are_apart", "test_many_topics_at_once")
class MixesTopics(RequestsChange):
    def publish(self, messages: Sequence[Message]) -> Results:
        return super().publish([message._replace(topic="all") for message in messages])

    def changed(self, request: SubscribeRequest) -> SubscribeRequest:
        return replace(request, topics=("all",))


@caught_by("test_claims_agree_with_what_is_there")
class ClaimsTooLittle(SoundTransport):
    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, seek=False)


@caught_by("test_claims_agree_with_what_is_there")
class ClaimsTooMuch(SoundTransport):
    browse = None  # type: ignore[assignment]


@caught_by("test_attempts_are_1_where_they_are_not_counted")
class CountsWithoutSayingSo(SoundTransport):
    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, attempts=False)


@caught_by("test_a_delayed_message_is_not_seen_sooner")
class PublishesAtOnce(SoundTransport):
    def publish_delayed(self, messages: Sequence[Message], delay: float) -> Results:
        return self.publish(messages)


@caught_by("test_browsing_shows_what_is_stored")
class BrowsesFromTheStart(SoundTransport):
    async def browse(self, topic: str, *, partition: int, offset: int = 0, limit: int = 100) -> Any:
        return await super().browse(topic, partition=partition, limit=limit)


@caught_by("test_declaring_a_topic")
class DeclaresAnything(SoundTransport):
    async def declare(self, topic: str, *, partitions: int | None = None) -> Any:
        return await self.inner.declare(topic, partitions=None)


@caught_by("test_deleting_a_topic")
class DeletesNothing(SoundTransport):
    async def delete(self, topic: str) -> None:
        pass


class OwnTransactions(SoundTransport):
    """Publishes at once what belongs to a transaction."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        transport = self

        class Transaction:
            def publish(self, messages: Sequence[Message]) -> None:
                transport.publish(messages)

            def settle(self, settlements: Sequence[Settlement]) -> None:
                for settlement in settlements:
                    settlement.delivery.settler.settle_delivery(settlement.delivery, settlement.outcome, 0)

        yield Transaction()


caught_by(
    "test_a_transaction_is_seen_when_it_commits",
    "test_an_aborted_transaction_is_never_seen",
    "test_a_cancelled_transaction_is_aborted",
    "test_settlements_belong_to_the_transaction",
    "test_stale_settlements_are_not_committed",
    "test_a_transaction_ends_with_its_block",
)(OwnTransactions)


# --- producers, consumers and serializers ----------------------------------------------------------------------


@caught_by("test_send_returns_only_when_confirmed", "test_a_refused_message_fails_its_future")
class ReportsTooEarly(EventProducer):
    def send(self, *args: Any, **kwargs: Any) -> asyncio.Future[Receipt]:
        super().send(*args, **kwargs).add_done_callback(lambda done: done.cancelled() or done.exception())
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        future.set_result(Receipt(args[0]))
        return future


@caught_by("test_send_hands_over_when_called", "test_many_sends_need_no_tasks")
class SendsInTasks(EventProducer):
    def send(self, *args: Any, **kwargs: Any) -> asyncio.Future[Receipt]:
        async def later() -> Receipt:
            await asyncio.sleep(kwargs["key"] and 0.01 / (args[1].number + 1))
            return await super(SendsInTasks, self).send(*args, **kwargs)

        return asyncio.create_task(later())


@caught_by("test_a_batch_says_what_failed", "test_a_batch_sends_what_can_be_sent")
class HidesFailures(EventProducer):
    async def send_batch(self, *args: Any, **kwargs: Any) -> Sequence[Receipt]:
        try:
            return await super().send_batch(*args, **kwargs)
        except BatchError as error:
            return [result for result in error.results if isinstance(result, Receipt)]


@caught_by("test_a_batch_is_looked_at_before_it_is_sent")
class LooksAtWhatItSendsNext(EventProducer):
    def _looked_at(self, events: Any, key: Any, headers: Any) -> tuple[Any, Any]:
        return key, headers


@caught_by("test_headers_that_the_event_fills_are_refused")
class TakesAnyHeader(EventProducer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._binding.check_headers = lambda headers: None  # type: ignore[method-assign]


@caught_by("test_the_source_is_stamped", "test_an_event_arrives_as_it_was_sent")
class StatesTheSourceAlways(EventProducer):
    def send(self, topic: str, event: Event, **kwargs: Any) -> asyncio.Future[Receipt]:
        return super().send(topic, event.with_source("urn:contract"), **kwargs)


@caught_by("test_nothing_is_finished_by_itself", "test_an_exception_gives_back_what_is_unsettled")
class CommitsOnClose(EventConsumer):
    async def close(self) -> None:
        if not self._closed:
            await self.commit()
        await super().close()


@caught_by("test_commit_finishes_one_message")
class CommitsAllBefore(EventConsumer):
    def commit(self, delivery: Delivery | None = None, *, wait: bool = False) -> Awaitable[None]:
        return super().commit(wait=wait)


@caught_by("test_commit_can_wait")
class CommitsLate(EventConsumer):
    def commit(self, delivery: Delivery | None = None, *, wait: bool = False) -> Awaitable[None]:
        asyncio.get_running_loop().call_later(5, super().commit)
        return DONE


@caught_by("test_a_nack_backs_off")
class NeverBacksOff(EventConsumer):
    def _backoff(self, attempt: int) -> float:
        return 0.0


@caught_by("test_a_dead_letter_is_confirmed_first", "test_a_failed_dead_letter_leaves_the_original")
class SettlesBeforeTheDeadLetter(EventConsumer):
    def reject_delivery(self, delivery: Delivery, reason: str, error: BaseException | None) -> Awaitable[None]:
        rejected = super().reject_delivery(delivery, reason, error)
        self._subscribed().settle([Settlement(delivery, Outcome.ACK)])
        return rejected


@caught_by("test_a_reject_becomes_a_dead_letter")
class DeadLettersLoseTheirHeaders(EventConsumer):
    def reject_delivery(self, delivery: Delivery, reason: str, error: BaseException | None) -> Awaitable[None]:
        delivery.message = delivery.message._replace(headers=())
        return super().reject_delivery(delivery, reason, error)


@caught_by("test_iterating_can_be_taken_up_again")
class DropsWhatItFetched(EventConsumer):
    def __aiter__(self) -> Self:
        self._buffer.clear()
        return self


@caught_by("test_seek_keeps_what_another_task_receives_behind_it")
class DropsWhatCameMeanwhile(EventConsumer):
    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        await super().seek(target, topic=topic, partition=partition)
        self._buffer.clear()


@caught_by("test_seek_drops_what_was_fetched")
class KeepsWhatItFetched(EventConsumer):
    async def seek(self, target: Any, *, topic: str | None = None, partition: int | None = None) -> None:
        fetched = self._buffer
        await super().seek(target, topic=topic, partition=partition)
        self._buffer = fetched


@caught_by("test_garbage_raises_nothing_else", "test_errors_are_value_errors")
class LetsErrorsOut(JsonSerializer):
    def decode(self, data: bytes, event_class: type[E]) -> E:
        fields = json.loads(data)
        fields.pop("event_type")
        return event_class(**fields)


@caught_by("test_picked_events_hold")
class StoresDoubles(JsonSerializer):
    def encode(self, event: Event) -> bytes:
        return json.dumps(json.loads(super().encode(event), parse_int=float)).encode()


@caught_by("test_picked_events_hold", "test_the_envelope_is_in_the_bytes")
class ForgetsTheEnvelope(JsonSerializer):
    def encode(self, event: Event) -> bytes:
        fields = json.loads(super().encode(event))
        return json.dumps({name: value for name, value in fields.items() if name != "event_id"}).encode()


@caught_by("test_truncated_bytes_are_refused")
class ReadsWhatIsThere(JsonSerializer):
    def decode(self, data: bytes, event_class: type[E]) -> E:
        try:
            return super().decode(data, event_class)
        except DeserializationError:
            return event_class()


# What a bug keeps from coming is not waited for long. What it lets come, or come too soon, does so in time, and is too
# soon, on a busy machine as well.
HASTE = {"timeout": 0.4, "hang_after": 1.5, "quiet": 0.3, "nack_delay": 60.0}


def contract_of(bug: type) -> type[Contract]:
    if issubclass(bug, EventProducer):
        return type("Planted", (OnSoundProducer,), {"producer": bug, **HASTE})
    if issubclass(bug, EventConsumer):
        return type("Planted", (OnSoundConsumer,), {"consumer": bug, **HASTE})
    if issubclass(bug, JsonSerializer):
        return type("Planted", (OnJson,), {"serializer": bug})
    if not issubclass(bug, SoundTransport):
        bug = type("PlantedTransport", (SoundTransport,), {"subscription": bug})
    return type("Planted", (OnSoundTransport,), {"transport": bug, **HASTE})


@pytest.mark.parametrize(("bug", "test"), BUGS, ids=[f"{bug.__name__}-{test}" for bug, test in BUGS])
def test_a_planted_bug_is_caught(bug: type, test: str) -> None:
    assert verdict(contract_of(bug), test) is not None, f"{test} passes although the broker {bug.__name__}"


SOUND = sorted({(contract_of(bug).__mro__[1].__name__, test) for bug, test in BUGS})


@pytest.mark.parametrize(("contract", "test"), SOUND)
def test_the_same_test_passes_without_the_bug(contract: str, test: str) -> None:
    error = verdict(globals()[contract], test)
    assert error is None, error


class Durable(SoundTransport):
    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, durability="broker")


class OnRestartingBroker(OnSound, TransportContract):
    transport = Durable

    async def restart_broker(self) -> None:
        await asyncio.sleep(0)


class OnForgetfulBroker(OnRestartingBroker):
    timeout = 0.4

    async def restart_broker(self) -> None:
        self.broker.reset()


def test_what_a_restart_loses_is_noticed() -> None:
    assert verdict(OnRestartingBroker, "test_a_restarted_broker_has_lost_nothing") is None
    assert verdict(OnForgetfulBroker, "test_a_restarted_broker_has_lost_nothing") is not None
