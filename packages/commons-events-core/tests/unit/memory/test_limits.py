"""The bounds of the in-process broker: where they are stated, what a full topic does, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from commons_events import Message
from commons_events.errors import (
    ClosedError,
    ConfigurationError,
    InvalidTopicError,
    MessageTooLargeError,
    PublishTimeoutError,
    TransactionError,
    UnknownTopicError,
)
from commons_events.memory import MemoryBroker, MemoryLimits, MemoryTransport
from commons_events.transport import TransportSettings


@pytest.fixture(autouse=True)
def no_named_brokers() -> Iterator[None]:
    MemoryBroker.reset_all()
    yield
    MemoryBroker.reset_all()


def opened(url: str, **options: object) -> MemoryBroker:
    return MemoryTransport.from_settings(TransportSettings(url=url, options=options)).broker


def test_limits_come_from_the_url_and_the_options() -> None:
    limits = opened("memory://a?max_messages=5&retain=0", partitions=3, revoke_timeout="1.5").limits
    assert (limits.max_messages, limits.retain, limits.partitions, limits.revoke_timeout) == (5, 0, 3, 1.5)
    assert limits.max_bytes == MemoryLimits().max_bytes


def test_a_name_is_one_broker_and_no_name_is_the_default_one() -> None:
    assert opened("memory://a") is opened("memory://a")
    assert opened("memory://a") is not opened("memory://b")
    assert opened("memory://") is opened("memory://default") is MemoryTransport().broker is MemoryBroker.get()
    assert MemoryBroker() is not MemoryBroker()


def test_the_limits_of_a_broker_that_exists_are_not_changed_by_asking() -> None:
    first = opened("memory://a?max_messages=5")
    assert opened("memory://a") is first
    assert opened("memory://a?max_messages=5") is first
    with pytest.raises(ConfigurationError, match="'a' exists with .*max_messages=5"):
        opened("memory://a?max_messages=6")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://a?max_mesages=5", ["max_mesages", "max_messages"]),
        ("memory://a?max_messages=", ["max_messages", "not a number"]),
        ("memory://a?max_messages=1.5", ["max_messages", "not a number"]),
        ("memory://a?max_messages=0", ["max_messages=0", "1 or more"]),
        ("memory://a?partitions=-1", ["partitions=-1"]),
        ("memory://a?retain=-1", ["retain=-1", "0 or more"]),
        ("memory://a?revoke_timeout=-0.5", ["revoke_timeout"]),
        ("memory://a?revoke_timeout=nan", ["revoke_timeout"]),
        ("memory://a/path", ["memory://NAME?OPTION=VALUE"]),
        ("memory://user@a", ["memory://NAME?OPTION=VALUE"]),
    ],
)
def test_a_limit_that_does_not_fit_is_a_configuration_error(url: str, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        opened(url)
    for word in words:
        assert word in str(caught.value)
    assert opened("memory://a").limits == MemoryLimits(), "a refused URL must leave no broker behind"


def test_reset_all_forgets_every_named_broker() -> None:
    first = opened("memory://a?max_messages=5")
    MemoryBroker.reset_all()
    assert opened("memory://a") is not first


@pytest.mark.asyncio
async def test_reset_closes_subscriptions_and_fails_those_who_wait_for_room(bench: Callable[..., Any]) -> None:
    b = bench(max_messages=1)
    subscription = await b.subscribe("other")
    receiving = asyncio.ensure_future(subscription.receive(1))
    await b.publish(b"1")
    waiting = b.transport.publish([Message("t", b"2", partition=0)])
    await asyncio.sleep(0)
    b.broker.reset()
    assert list(await receiving) == []
    with pytest.raises(ClosedError, match="reset"):
        await waiting
    assert b.broker.topics() == []
    await b.publish(b"3")
    assert b.stored() == [b"3"]


# --- a full topic --------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_full_topic_lets_publishers_wait_in_order_until_messages_are_finished(
    bench: Callable[..., Any], acknowledge: Any
) -> None:
    b = bench(max_messages=2)
    subscription = await b.subscribe()
    await b.publish(b"1", b"2")
    third = b.transport.publish([Message("t", b"3", partition=0)])
    fourth = b.transport.publish([Message("t", b"4", partition=0)])
    out = await b.take(subscription)
    assert not third.done()
    acknowledge(out[:1])
    assert third.done()
    assert not fourth.done()
    acknowledge(out[1:])
    assert fourth.done()
    assert await b.values(subscription) == [b"3", b"4"]


@pytest.mark.asyncio
async def test_a_full_topic_holds_up_no_other(bench: Callable[..., Any]) -> None:
    b = bench(max_messages=1)
    await b.publish(b"1")
    waiting = b.transport.publish([Message("t", b"2", partition=0)])
    await b.publish(b"x", topic="other")
    assert not waiting.done()
    waiting.cancel()


@pytest.mark.asyncio
async def test_one_batch_over_several_topics_waits_only_for_what_has_no_room(bench: Callable[..., Any]) -> None:
    b = bench(max_messages=1)
    await b.publish(b"1")
    batch = b.transport.publish([Message("t", b"2", partition=0), Message("u", b"3", partition=0)])
    assert b.stored("u") == [b"3"]
    assert not batch.done()
    subscription = await b.subscribe()
    (one,) = await b.take(subscription)
    one.ack()
    receipts = await batch
    assert [(receipt.topic, receipt.offset) for receipt in receipts] == [("t", 1), ("u", 0)]


@pytest.mark.asyncio
async def test_bytes_bound_a_topic_too(bench: Callable[..., Any], acknowledge: Any) -> None:
    b = bench(max_bytes=100)
    subscription = await b.subscribe()
    await b.publish(b"x" * 99)
    await b.publish(b"y" * 80)
    waiting = b.transport.publish([Message("t", b"z", partition=0)])
    out = await b.take(subscription)
    assert not waiting.done()
    acknowledge(out)
    assert waiting.done()


@pytest.mark.asyncio
async def test_a_publisher_that_gives_up_waiting_leaves_no_gap(bench: Callable[..., Any], acknowledge: Any) -> None:
    b = bench(max_messages=1)
    subscription = await b.subscribe()
    await b.publish(b"1")
    given_up = b.transport.publish([Message("t", b"2", partition=0)])
    kept = b.transport.publish([Message("t", b"3", partition=0)])
    given_up.cancel()
    acknowledge(await b.take(subscription))
    assert (await kept)[0].offset == 1
    assert await b.values(subscription) == [b"3"]


@pytest.mark.asyncio
async def test_closing_waits_for_room_within_its_timeout_on_the_runtime_s_clock(
    bench: Callable[..., Any], acknowledge: Any
) -> None:
    b = bench(max_messages=1)
    subscription = await b.subscribe()
    await b.publish(b"1")
    client = MemoryTransport(b.broker, close_timeout=60)
    given_up = client.publish([Message("t", b"2", partition=0)])
    closing = asyncio.ensure_future(client.close())
    await asyncio.sleep(0.05)
    b.clock.advance(59.9)
    await asyncio.sleep(0.05)
    assert not closing.done()
    b.clock.advance(0.2)
    await asyncio.wait_for(closing, 60)
    with pytest.raises(PublishTimeoutError, match=r"within 60 s \(close_timeout\)"):
        await given_up
    acknowledge(await b.take(subscription))
    await b.publish(b"3")
    assert await b.values(subscription) == [b"3"], "what was given up takes nobody's place"


@pytest.mark.asyncio
async def test_closing_returns_once_there_is_room(bench: Callable[..., Any], acknowledge: Any) -> None:
    b = bench(max_messages=1)
    subscription = await b.subscribe()
    await b.publish(b"1")
    client = MemoryTransport(b.broker)
    sent = client.publish([Message("t", b"2", partition=0)])
    closing = asyncio.ensure_future(client.close())
    acknowledge(await b.take(subscription))
    await asyncio.wait_for(closing, 60)
    assert (await sent)[0].offset == 1


@pytest.mark.asyncio
async def test_deleting_a_topic_fails_those_who_wait_for_room_in_it(bench: Callable[..., Any]) -> None:
    b = bench(max_messages=1)
    await b.publish(b"1")
    waiting = b.transport.publish([Message("t", b"2", partition=0)])
    await b.transport.delete("t")
    with pytest.raises(UnknownTopicError, match="deleted"):
        await waiting


@pytest.mark.asyncio
async def test_delayed_messages_take_their_room_at_once(bench: Callable[..., Any]) -> None:
    b = bench(max_messages=2)
    await b.transport.publish_delayed([Message("t", b"later", partition=0)], 10)
    await b.publish(b"1")
    waiting = b.transport.publish([Message("t", b"2", partition=0)])
    assert not waiting.done()
    waiting.cancel()


@pytest.mark.asyncio
async def test_a_message_over_the_limit_is_refused_alone_and_says_how_large_it_is(bench: Callable[..., Any]) -> None:
    b = bench(max_message_bytes=10)
    small, large = await b.transport.publish(
        [Message("t", b"1234567890"), Message("t", b"12345", b"k", headers=(("name", b"v"),))]
    )
    assert small.offset == 0
    assert isinstance(large, MessageTooLargeError)
    assert "11 bytes" in str(large)
    assert "10" in str(large)


@pytest.mark.asyncio
@pytest.mark.parametrize("partition", [-1, 3, 99])
async def test_a_partition_that_is_not_there_is_refused(bench: Callable[..., Any], partition: int) -> None:
    b = bench(partitions=3)
    (result,) = await b.transport.publish([Message("t", b"", partition=partition)])
    assert isinstance(result, InvalidTopicError)
    assert "0 to 2" in str(result)


@pytest.mark.asyncio
async def test_a_transaction_that_finds_no_room_does_nothing(bench: Callable[..., Any]) -> None:
    b = bench(max_messages=2)
    await b.publish(b"1")
    with pytest.raises(TransactionError, match="no room for 2"):
        async with b.transport.transaction() as transaction:
            transaction.publish([Message("t", b"2", partition=0), Message("t", b"3", partition=0)])
    assert b.stored() == [b"1"]


# --- retention -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_finished_messages_are_kept_about_as_many_as_stated(bench: Callable[..., Any], acknowledge: Any) -> None:
    b = bench(retain=100, partitions=2)
    subscription = await b.subscribe()
    for n in range(40):
        await b.publish(*(f"{n}-{i}".encode() for i in range(50)), partition=n % 2)
        acknowledge(await b.take(subscription))
    kept = len(b.stored())
    assert 100 <= kept <= 100 + 256 + 50 + 100
    late = await b.subscribe(group="late")
    assert len(await b.take(late, 10_000)) == kept


@pytest.mark.asyncio
async def test_what_one_group_has_not_finished_is_kept_whole(bench: Callable[..., Any], acknowledge: Any) -> None:
    b = bench(retain=0)
    quick, slow = await b.subscribe(), await b.subscribe(group="slow")
    for n in range(20):
        await b.publish(*(f"{n:02}-{i:03}".encode() for i in range(100)))
        acknowledge(await b.take(quick))
    assert len(b.stored()) == 2_000
    assert len(await b.take(slow, 5_000)) == 2_000


@pytest.mark.asyncio
async def test_without_any_group_everything_is_kept(bench: Callable[..., Any]) -> None:
    b = bench(retain=0)
    for n in range(10):
        await b.publish(*(f"{n}-{i}".encode() for i in range(100)))
    assert len(b.stored()) == 1_000


@pytest.mark.asyncio
async def test_offsets_go_on_after_messages_were_reclaimed(bench: Callable[..., Any], acknowledge: Any) -> None:
    b = bench(retain=0, partitions=1)
    subscription = await b.subscribe()
    for n in range(10):
        await b.publish(*(f"{n}-{i}".encode() for i in range(100)))
        out = await b.take(subscription)
        assert [delivery.offset for delivery in out] == list(range(n * 100, n * 100 + 100))
        acknowledge(out)
    assert len(b.stored()) < 1_000
    (first, *_) = b.broker.browse("t", 0, 0, 1) or [None]
    assert first is None or first.offset > 0
    await b.publish(b"last")
    assert [delivery.offset for delivery in await b.take(subscription)] == [1_000]


@pytest.mark.asyncio
async def test_seeking_before_what_is_kept_goes_to_the_first_that_is(
    bench: Callable[..., Any], acknowledge: Any
) -> None:
    b = bench(retain=0, partitions=1)
    subscription = await b.subscribe()
    for n in range(10):
        await b.publish(*(f"{n}-{i}".encode() for i in range(100)))
        acknowledge(await b.take(subscription))
    await b.publish(b"last")
    for target in ("beginning", 0, -5):
        await subscription.seek(target)
        out = await b.take(subscription, 10_000)
        assert [item.value for item in out] == b.stored()


@pytest.mark.asyncio
async def test_an_anonymous_group_s_end_frees_what_only_it_held(bench: Callable[..., Any], acknowledge: Any) -> None:
    b = bench(max_messages=1)
    named, anonymous = await b.subscribe(), await b.subscribe(group=None)
    await b.publish(b"1")
    waiting = b.transport.publish([Message("t", b"2", partition=0)])
    acknowledge(await b.take(named))
    assert not waiting.done()
    await anonymous.close()
    assert waiting.done()
