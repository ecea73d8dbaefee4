"""How far a partition is finished, against a model that holds every offset in a dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from confluent_kafka import TIMESTAMP_CREATE_TIME
from confluent_kafka import Message as ClientMessage
from hypothesis import given
from hypothesis import strategies as st

from commons_events.kafka._deliveries import KafkaBatch, KafkaDelivery
from commons_events.kafka._partition import PartitionState
from commons_events.transport import TopicPartition

if TYPE_CHECKING:
    from commons_events.kafka._raw import RawMessage
    from commons_events.kafka._subscription import KafkaSubscription

ID = TopicPartition("orders", 3)


class Subscription:
    """What a partition asks of its subscription."""

    def __init__(self) -> None:
        self.settler = self
        self.header_prefix = "ce_"


def hand_out(partition: PartitionState, raws: list[RawMessage]) -> KafkaBatch:
    return KafkaBatch([partition.hand_out(raws)])


def state() -> PartitionState:
    return PartitionState(ID, cast("KafkaSubscription", Subscription()))


def part(first: int, values: list[bytes | None], key: bytes | None = None, headers: bool = False) -> list[RawMessage]:
    raws = [
        ClientMessage(
            topic=ID.topic,
            partition=ID.partition,
            offset=offset,
            key=key,
            value=value,
            headers=[("n", b"1")] if headers else None,
            timestamp=(TIMESTAMP_CREATE_TIME, 1_700_000_000_000),
        )
        for offset, value in enumerate(values, first)
    ]
    return cast("list[RawMessage]", raws)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), st.integers(1, 6), st.integers(0, 3)),
        st.tuples(st.sampled_from(["finish", "put back", "hand out again"]), st.integers(0, 50), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_position_is_the_first_unfinished_offset(steps: list[tuple[str, int, int]]) -> None:
    partition, end, now = state(), 0, 0.0
    unfinished: set[int] = set()
    out: list[KafkaDelivery] = []
    for step, number, gap in steps:
        if step == "receive":
            first = end + gap  # a log has gaps
            batch = hand_out(partition, part(first, [b"x"] * number))
            end = partition.next = first + number
            unfinished.update(range(first, end))
            out += batch
        elif step == "hand out again":
            now += 1
            again = partition.pop_due(now)
            if again is not None:
                out.append(again)
        elif out:
            delivery = out.pop(number % len(out))
            if step == "finish":
                partition.close(delivery)
                unfinished.discard(delivery.offset)
            else:
                partition.put_back(delivery, now + 1, delivery.attempt + 1)
            assert not delivery.is_open
        assert list(partition.unfinished()) == sorted(unfinished)
        assert partition.position() == min(unfinished, default=partition.next)
        assert partition.out == len(out)


def test_what_is_forgotten_is_stale_and_has_no_position() -> None:
    partition = state()
    deliveries = list(hand_out(partition, part(0, [b"a", b"b"])))
    partition.next = 2
    partition.put_back(deliveries[0], 0.0, 2)
    again = partition.pop_due(1.0)
    assert again is not None
    partition.forget()
    assert not deliveries[1].is_open
    assert not again.is_open
    assert partition.position() is None
    assert partition.out == 0


def test_a_delivery_has_what_the_clients_message_has() -> None:
    for headers in (False, True):
        plain, empty, tombstone = hand_out(state(), part(7, [b"x", b"", None], key=b"k", headers=headers))
        assert [d.value for d in (plain, empty, tombstone)] == [b"x", b"", b""]
        assert [d.message.value for d in (plain, empty, tombstone)] == [b"x", b"", None]
        assert [d.offset for d in (plain, empty, tombstone)] == [7, 8, 9]
        assert plain.data == plain.body == b"x"
        assert plain.key == plain.message.key == b"k"
        assert plain.headers == ((("n", b"1"),) if headers else ())
        assert plain.timestamp is not None
        assert plain.timestamp.timestamp() == 1_700_000_000
        assert (plain.topic, plain.partition, plain.attempt) == ("orders", 3, 1)


def test_what_comes_again_keeps_its_message() -> None:
    partition = state()
    _, _, tombstone = hand_out(partition, part(0, [b"x", b"", None], key=b"k", headers=True))
    partition.put_back(tombstone, 0.0, 2)
    again = partition.pop_due(1.0)
    assert again is not None
    assert again.message == tombstone.message
    assert (again.offset, again.attempt) == (2, 2)


def test_new_messages_wait_behind_what_comes_again_of_their_key() -> None:
    partition = state()
    (first,) = hand_out(partition, part(0, [b"x"], key=b"k"))
    partition.next = 1
    partition.put_back(first, 0.0, 2)
    assert partition.admit(part(1, [b"y"], key=b"k")) == []
    assert [raw.offset() for raw in partition.admit(part(2, [b"z"], key=b"other"))] == [2]
    assert partition.admit(part(0, [b"x", b"y", b"z"], key=b"other")) == []  # it had them before
    again = [partition.pop_due(1.0), partition.pop_due(1.0)]
    assert [d.value for d in again if d is not None] == [b"x", b"y"]
