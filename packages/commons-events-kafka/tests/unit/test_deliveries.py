"""Batches that make their deliveries when they are looked at, against lists of what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from confluent_kafka import Message as ClientMessage
from hypothesis import given
from hypothesis import strategies as st

from commons_events.kafka._deliveries import KafkaBatch
from commons_events.kafka._partition import PartitionState
from commons_events.transport import DONE, Outcome, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from commons_events.kafka._deliveries import KafkaDelivery, Piece
    from commons_events.kafka._raw import RawMessage
    from commons_events.kafka._subscription import KafkaSubscription
    from commons_events.transport import Delivery


class Subscription:
    """What deliveries and their batches ask of their subscription; it counts what is finished."""

    def __init__(self) -> None:
        self.settler = self
        self.header_prefix = "ce_"

    def settle_delivery(self, delivery: KafkaDelivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        delivery.run.state.close(delivery)
        return DONE

    def ack_unsettled(self, pieces: Sequence[Piece]) -> Awaitable[None]:
        for piece in pieces:
            if count := piece.run.close_unsettled(piece.start, piece.stop):
                piece.run.state.finished(piece.run, count)
        return DONE


def batch_of(sizes: Sequence[int]) -> tuple[KafkaBatch, list[PartitionState]]:
    """A batch of runs of these sizes, each of a partition of its own; its values are numbers from 0 on."""
    subscription, pieces, states, number = Subscription(), [], [], 0
    for partition, size in enumerate(sizes):
        state = PartitionState(
            TopicPartition(f"topic {partition // 2}", partition), cast("KafkaSubscription", subscription)
        )
        raws = [
            ClientMessage(topic=state.id.topic, partition=partition, offset=place, value=b"%d" % (number + place))
            for place in range(size)
        ]
        pieces.append(state.hand_out(cast("list[RawMessage]", raws)))
        states.append(state)
        number += size
    return KafkaBatch(pieces), states


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.value) for delivery in deliveries]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pop", "take", "look", "slice", "ack", "nack", "ack unsettled", "topics"]), st.integers(0, 9)
    ),
    max_size=15,
)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), STEPS)
def test_a_batch_is_as_the_list_of_its_deliveries(sizes: list[int], steps: list[tuple[str, int]]) -> None:
    batch, states = batch_of(sizes)
    model, said, popped = list(range(sum(sizes))), dict[int, Outcome](), list[int]()
    for step, number in steps:
        if step == "pop":
            for count, delivery in enumerate(batch.pop_each(), 1):
                popped.append(model.pop(0))
                assert int(delivery.value) == popped[-1]
                if count >= number:
                    break
        elif step == "take":
            assert numbers(batch.take(number)) == model[:number]
            popped += model[:number]
            del model[:number]
        elif step == "look" and number < len(model):
            assert int(batch[number].value) == int(batch[number - len(model)].value) == model[number]
        elif step == "slice":
            assert numbers(batch[number // 2 : number]) == model[number // 2 : number]
        elif step == "topics":
            assert [n for _, some in batch.by_topic() for n in numbers(some)] == model
            assert all({d.topic for d in some} == {topic} for topic, some in batch.by_topic())
        elif step == "ack unsettled":
            batch.ack_unsettled()  # type: ignore[unused-awaitable]  # it is done
            said = dict.fromkeys(model, Outcome.ACK) | said
        elif number < len(model) and model[number] not in said:
            delivery = batch[number]
            settled = delivery.ack() if step == "ack" else delivery.nack()
            assert settled is DONE
            said[model[number]] = Outcome.ACK if step == "ack" else Outcome.NACK
        assert numbers(batch) == model
        assert len(batch) == len(model)
        assert numbers(batch.popped()) == popped
        assert numbers(batch.unsettled()) == [n for n in model if n not in said]
        assert batch.has_unsettled == any(n not in said for n in model)
        assert [d.outcome for d in batch] == [said.get(n) for n in model]
        assert sum(state.out for state in states) == sum(sizes) - len(said)


def test_one_place_looked_at_twice_is_one_delivery() -> None:
    batch, _ = batch_of([2, 1])
    first, again, other = batch[0], batch[0], batch[1]
    assert first == again
    assert hash(first) == hash(again)
    assert first != other
    assert first in batch
    assert len({first, again, other}) == 2
    again.ack()  # type: ignore[unused-awaitable]  # it is done
    assert first.outcome is Outcome.ACK
    assert not first.is_open


def test_a_batch_equals_and_extends_lists() -> None:
    batch, _ = batch_of([2, 1])
    assert batch == list(batch)
    assert batch != list(batch)[1:]
    more = [batch[0]]
    assert batch + more == [*batch, *more]
    assert more + batch == [*more, *batch]
    assert repr(batch) == repr(list(batch))
    assert batch[-1] == list(batch)[-1]
    assert list(reversed(batch)) == list(batch)[::-1]
    for place in (3, -4):
        with pytest.raises(IndexError, match="in a batch of 3"):
            _ = batch[place]


def test_a_delivery_that_is_kept_does_not_keep_the_others() -> None:
    """A run forgets its messages once all are finished; who keeps one keeps that alone."""
    batch, _ = batch_of([3])
    kept = batch[1]
    batch.ack_unsettled()  # type: ignore[unused-awaitable]  # it is done
    assert len(kept.run.raws) == 0
    assert kept.value == b"1"
    assert kept.offset == 1
    assert numbers(batch) == [0, 1, 2]
