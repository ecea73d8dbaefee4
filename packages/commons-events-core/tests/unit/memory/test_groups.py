"""Groups of the in-process broker beyond the contract: stickiness, draining, deadlines, losing members."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from commons_events import EventConsumer, Message
from commons_events.memory import MemorySubscription
from commons_events.transport import Outcome, Settlement, TopicPartition

Bench = Callable[..., Any]


def owned(subscription: MemorySubscription) -> set[int]:
    return {state.partition.id.partition for state in subscription.member.owned}


@pytest.mark.asyncio
@pytest.mark.parametrize("members", [1, 2, 3, 5, 8, 11])
async def test_partitions_are_shared_evenly_and_each_has_one_owner(bench: Bench, members: int) -> None:
    b = bench(partitions=8)
    subscriptions = [await b.subscribe() for _ in range(members)]
    shares = [owned(subscription) for subscription in subscriptions]
    assert Counter(p for share in shares for p in share) == Counter(range(8))
    sizes = sorted(len(share) for share in shares)
    assert sizes[-1] - sizes[0] <= 1


@pytest.mark.asyncio
async def test_a_member_that_joins_or_leaves_moves_no_more_partitions_than_needed(bench: Bench) -> None:
    b = bench(partitions=8)
    one, two = await b.subscribe(), await b.subscribe()
    before = owned(one), owned(two)
    three = await b.subscribe()
    assert owned(one) <= before[0]
    assert owned(two) <= before[1]
    assert len(owned(three)) == 2
    during = owned(one), owned(two)
    await three.close()
    assert owned(one) >= during[0]
    assert owned(two) >= during[1]
    assert sorted(map(len, (owned(one), owned(two)))) == [4, 4]


@pytest.mark.asyncio
async def test_a_partition_with_messages_out_moves_once_they_are_settled(bench: Bench) -> None:
    b = bench(partitions=2)
    one = await b.subscribe()
    for partition in (0, 1):
        await b.publish(b"a", b"b", partition=partition)
    out = await b.take(one)
    two = await b.subscribe()
    assert owned(two) == set()
    moving = {delivery.partition for delivery in out} & {
        state.partition.id.partition for state in one.member.owned if state.next_owner is two.member
    }
    assert len(moving) == 1
    (partition,) = moving
    await b.publish(b"c", partition=partition)
    assert await b.values(one) == [], "the owner gets nothing more of what moves away"
    assert await b.values(two) == [], "and the next one nothing yet"
    first, second = [delivery for delivery in out if delivery.partition == partition]
    first.ack()
    assert owned(two) == set()
    second.nack(0)
    assert owned(two) == {partition}
    assert await b.values(two) == [b"b", b"c"]


@pytest.mark.asyncio
async def test_what_a_leaving_owner_had_out_goes_to_a_waiting_member_as_its_next_attempt(bench: Bench) -> None:
    b = bench(partitions=1)
    one = await b.subscribe()
    await b.publish(b"a", b"b")
    early, late = await b.take(one)
    two = await b.subscribe()
    assert await b.values(two) == []
    early.ack()
    await one.close()
    (again,) = await b.take(two)
    assert (again.value, again.attempt) == (b"b", 2)
    late.ack()
    again.nack(0)
    assert await b.values(two) == [b"b"], "the ack after closing was stale"


@pytest.mark.asyncio
async def test_a_member_that_does_not_drain_in_time_loses_the_partition(bench: Bench) -> None:
    b = bench(partitions=2, revoke_timeout=30)
    slow = await b.subscribe()
    for partition in (0, 1):
        await b.publish(b"v", partition=partition)
    out = {delivery.partition: delivery for delivery in await b.take(slow)}
    quick = await b.subscribe()
    b.clock.advance(29.9)
    assert await b.take(quick) == []
    b.clock.advance(0.2)
    (again,) = await b.take(quick)
    assert (again.value, again.attempt) == (b"v", 2)
    out[again.partition].ack()
    again.nack(0)
    (third,) = await b.take(quick)
    assert third.attempt == 3, "the late ack of the former owner was stale"
    kept = out[1 - again.partition]
    kept.ack()
    await slow.close()
    third.ack()
    assert await b.take(quick) == []


@pytest.mark.asyncio
async def test_a_waiting_receive_wakes_by_itself_at_the_deadline(bench: Bench) -> None:
    b = bench(partitions=2, revoke_timeout=5)
    slow = await b.subscribe()
    for partition in (0, 1):
        await b.publish(b"v", partition=partition)
    await b.take(slow)
    quick = await b.subscribe()
    receiving = asyncio.ensure_future(quick.receive(10))
    for _ in range(3):
        await asyncio.sleep(0)
    b.clock.advance(5)
    assert [delivery.value for delivery in await asyncio.wait_for(receiving, 60)] == [b"v"]


@pytest.mark.asyncio
async def test_on_revoke_is_told_the_partitions_that_are_about_to_go(bench: Bench) -> None:
    b = bench(partitions=4)
    told: list[frozenset[TopicPartition]] = []
    one = await b.subscribe(on_revoke=told.append)
    for partition in range(4):
        await b.publish(b"v", partition=partition)
    await b.take(one)
    await b.subscribe()
    await asyncio.sleep(0)
    (revoked,) = told
    assert len(revoked) == 2
    assert revoked <= {TopicPartition("t", partition) for partition in range(4)}


@pytest.mark.asyncio
async def test_on_revoke_is_not_told_where_nothing_is_out(bench: Bench) -> None:
    b = bench(partitions=4)
    told: list[frozenset[TopicPartition]] = []
    await b.subscribe(on_revoke=told.append)
    await b.subscribe()
    await asyncio.sleep(0)
    assert told == []


@pytest.mark.asyncio
async def test_a_next_owner_that_leaves_again_takes_nothing_along(bench: Bench) -> None:
    b = bench(partitions=1)
    one = await b.subscribe()
    await b.publish(b"a")
    (delivery,) = await b.take(one)
    two = await b.subscribe()
    await two.close()
    delivery.ack()
    await b.publish(b"b")
    assert owned(one) == {0}
    assert await b.values(one) == [b"b"]


@pytest.mark.asyncio
async def test_a_subscription_that_is_dropped_gives_its_messages_back(bench: Bench) -> None:
    b = bench()
    dropped = await b.subscribe()
    other = await b.subscribe()
    await b.publish(*(b"v" for _ in range(4)), partition=next(iter(owned(dropped))))
    deliveries = await b.take(dropped)
    assert len(deliveries) == 4
    deliveries.clear()
    del dropped
    gc.collect()
    assert len(await b.take(other)) == 4


@pytest.mark.asyncio
async def test_a_consumer_that_is_dropped_gives_its_messages_back_whenever_memory_is_cleaned_up(bench: Bench) -> None:
    b = bench()
    dropped = EventConsumer(transport=b.transport, topics=["t"], group_id="g")
    await dropped.start()
    await b.publish(b"a", b"b")
    assert (await dropped.receive(1))[0].value == b"a"  # the other one is fetched, too
    del dropped
    with b.broker.lock:  # as in the midst of whatever the broker does
        gc.collect()
    other = await b.subscribe()
    await asyncio.sleep(0)
    assert await b.values(other) == [b"a", b"b"]


@pytest.mark.asyncio
async def test_members_with_different_topics_get_only_their_own(bench: Bench) -> None:
    b = bench(partitions=2)
    both, one = await b.subscribe("a", "b"), await b.subscribe("b")
    for topic in ("a", "b"):
        for partition in (0, 1):
            await b.publish(f"{topic}{partition}".encode(), topic=topic, partition=partition)
    got_both, got_one = await b.values(both), await b.values(one)
    assert {b"a0", b"a1"} <= set(got_both)
    assert all(value.startswith(b"b") for value in got_one)
    assert sorted(got_both + got_one) == [b"a0", b"a1", b"b0", b"b1"]


@pytest.mark.asyncio
async def test_disconnect_is_a_lost_consumer(bench: Bench) -> None:
    b = bench()
    lost, other = await b.subscribe(), await b.subscribe()
    await b.publish(b"v", partition=next(iter(owned(lost))))
    (delivery,) = await b.take(lost)
    b.broker.disconnect(lost)
    delivery.ack()
    (again,) = await b.take(other)
    assert (again.value, again.attempt) == (b"v", 2)
    assert list(await lost.receive(1)) == []


@pytest.mark.asyncio
async def test_a_topic_that_was_deleted_and_made_anew_is_received_from_its_start(bench: Bench) -> None:
    b = bench(partitions=1)
    subscription = await b.subscribe()
    await b.publish(b"old", b"older")
    old, _ = await b.take(subscription)
    await b.transport.delete("t")
    await b.publish(b"new")
    (new,) = await b.take(subscription)
    assert (new.value, new.offset, new.attempt) == (b"new", 0, 1)
    old.ack()
    new.nack(0)
    assert await b.values(subscription) == [b"new"]


# --- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_nack_s_delay_is_kept_to_the_moment(bench: Bench) -> None:
    b = bench()
    subscription = await b.subscribe()
    await b.publish(b"v")
    (delivery,) = await b.take(subscription)
    delivery.nack(60)
    b.clock.advance(59.999)
    assert await b.take(subscription) == []
    b.clock.advance(0.001)
    (again,) = await b.take(subscription)
    assert again.attempt == 2


@pytest.mark.asyncio
async def test_a_nacked_message_holds_up_its_key_and_no_other(bench: Bench) -> None:
    b = bench(partitions=1)
    subscription = await b.subscribe()
    for key, value in ((b"a", b"a1"), (b"b", b"b1")):
        await b.publish(value, key=key)
    first, second = await b.take(subscription)
    first.nack(10)
    second.ack()
    for key, value in ((b"a", b"a2"), (b"b", b"b2"), (b"a", b"a3")):
        await b.publish(value, key=key)
    assert await b.values(subscription) == [b"b2"]
    b.clock.advance(10)
    assert await b.values(subscription) == [b"a1", b"a2", b"a3"]


@pytest.mark.asyncio
async def test_a_delayed_message_shows_at_its_time_and_in_the_log_only_then(bench: Bench) -> None:
    b = bench(partitions=1)
    subscription = await b.subscribe()
    (receipt,) = await b.transport.publish_delayed([Message("t", b"later")], 5)
    assert receipt.message_id.startswith("delayed-")
    await b.publish(b"now")
    assert await b.values(subscription) == [b"now"]
    b.clock.advance(4.9)
    assert await b.values(subscription) == []
    assert b.stored() == [b"now"]
    b.clock.advance(0.1)
    assert await b.values(subscription) == [b"later"]


@pytest.mark.asyncio
async def test_delayed_messages_of_a_deleted_topic_never_show(bench: Bench) -> None:
    b = bench(partitions=1)
    await b.transport.publish_delayed([Message("t", b"later")], 5)
    await b.transport.delete("t")
    b.clock.advance(5)
    subscription = await b.subscribe()
    assert await b.values(subscription) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf")])
async def test_a_delay_that_is_no_time_is_refused(bench: Bench, delay: float) -> None:
    b = bench()
    with pytest.raises(ValueError, match="delay"):
        b.transport.publish_delayed([Message("t", b"")], delay)


@pytest.mark.asyncio
async def test_seeking_to_a_time_goes_to_the_first_message_from_then_on(bench: Bench) -> None:
    b = bench(partitions=1)
    subscription = await b.subscribe()
    start = b.clock.now()
    for value in (b"0", b"10", b"20"):
        await b.publish(value)
        b.clock.advance(10)
    await b.take(subscription)
    for seconds, expected in ((0, [b"0", b"10", b"20"]), (10, [b"10", b"20"]), (11, [b"20"]), (21, [])):
        await subscription.seek(start + timedelta(seconds=seconds))
        assert await b.values(subscription) == expected
    with pytest.raises(ValueError, match="naive"):
        await subscription.seek(start.replace(tzinfo=None))


@pytest.mark.asyncio
async def test_messages_of_several_partitions_come_in_the_order_of_publishing(bench: Bench) -> None:
    b = bench(partitions=4)
    subscription = await b.subscribe()
    order = [3, 0, 0, 2, 1, 3, 2, 2, 0, 1]
    for n, partition in enumerate(order):
        await b.publish(str(n).encode(), partition=partition)
    assert await b.values(subscription) == [str(n).encode() for n in range(len(order))]


@pytest.mark.asyncio
async def test_settling_what_came_from_a_deleted_topic_does_nothing(bench: Bench) -> None:
    b = bench()
    subscription = await b.subscribe("t", "u", max_unsettled=2)
    await b.publish(b"1", b"2")
    old = await b.take(subscription)
    await b.transport.delete("t")
    for delivery in old:
        await delivery.ack()
    await b.publish(b"3", b"4", b"5", topic="u")
    assert await b.values(subscription) == [b"3", b"4"]


@pytest.mark.asyncio
@pytest.mark.parametrize("outcome", list(Outcome))
async def test_one_settlement_is_as_one_in_a_list(bench: Bench, outcome: Outcome) -> None:
    shown = []
    for alone in (True, False):
        b = bench()
        subscription = await b.subscribe(max_unsettled=2)
        await b.publish(b"1", b"2", b"3")
        first, second = await b.take(subscription)
        for _ in range(2):  # the second time it is stale
            if alone:
                await subscription.settle_delivery(first, outcome, 0.0)
            else:
                await subscription.settle([Settlement(first, outcome, 0.0)])
        batch = await b.take(subscription)
        await second.ack()
        batch += await b.take(subscription)
        shown.append([(delivery.value, delivery.attempt) for delivery in batch])
    assert shown[0] == shown[1]
    assert shown[0]
