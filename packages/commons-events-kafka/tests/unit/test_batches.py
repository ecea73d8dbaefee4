"""Which of a batch's messages a delivery report is of."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import Message as Report
from hypothesis import example, given
from hypothesis import strategies as st

from commons_events.errors import PublishError, TransportError
from commons_events.kafka import _batches
from commons_events.kafka._batches import Batch, MessageBatch, ValueBatch
from commons_events.message import Message, Receipt, Receipts

if TYPE_CHECKING:
    from commons_events.kafka._publisher import Publisher

Callback = Callable[[KafkaError | None, Report], None]


class Client:
    """Stands for a publisher: keeps what is handed over, and lets a test report it in any order."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.topics = {"t"}
        self.header_names: set[str] = set()
        self.suspicious = 1_000
        self.polled_elsewhere = self.moving = False
        self.handed: list[tuple[bytes, Callback]] = []
        self.completed: list[Batch] = []

    def produce(self, topic: str, value: bytes, key: object, partition: int, callback: Callback, *more: Any) -> None:
        if len(self.handed) >= self.room:
            raise BufferError("full")
        self.handed.append((value, callback))

    def report(self, place: int, partition: int, offset: int, failed: bool) -> None:
        value, callback = self.handed[place]
        error = KafkaError(KafkaError._MSG_TIMED_OUT) if failed else None
        callback(error, Report(topic="t", partition=partition, offset=offset, value=value, error=error))

    def reported(self, batch: Batch) -> None:
        self.completed.append(batch)

    def failure_of(self, topic: str, error: Any) -> TransportError:
        return error if isinstance(error, TransportError) else PublishError(str(error))

    def complete(self, batch: Batch) -> None:
        self.completed.append(batch)


def value_batch(client: Client, values: list[bytes]) -> ValueBatch:
    batch = ValueBatch(cast("Publisher", client), "t", values, None, ())
    batch.begin(len(values), cast("asyncio.Future[Any]", None))
    return batch


@pytest.fixture(scope="module", params=["values", "messages"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@given(
    st.lists(st.tuples(st.sampled_from([b"", b"a", b"b"]), st.integers(0, 2), st.booleans()), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2, 3, 64]),
)
@example([(b"a", 0, False), (b"b", 0, False)], Random(1), True, False, 1)
@example([(b"a", 0, False), (b"b", 0, False), (b"b", 1, False)], Random(1), False, False, 2)
@example([(b"a", 0, False), (b"b", 1, False), (b"a", 0, True)], Random(1), True, True, 1)
def test_results_are_those_of_the_messages(
    kind: str, messages: list[tuple[bytes, int, bool]], random: Any, idempotent: bool, in_order: bool, block: int
) -> None:
    """Reports come in any order; messages that are alike in everything may stand for each other.

    Only an idempotent client stores the messages of a partition in the order of the batch.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_batches, "_BLOCK", block)
        _results_are_those_of_the_messages(kind, messages, random if not in_order else None, idempotent)


def _results_are_those_of_the_messages(
    kind: str, messages: list[tuple[bytes, int, bool]], random: Random | None, idempotent: bool
) -> None:
    client = Client()
    values = [value for value, _, _ in messages]
    batch: Batch
    if kind == "values":
        batch = value_batch(client, values)
    else:
        batch = MessageBatch(cast("Publisher", client), 16)
        batch.fill([Message("t", value) for value in values], {"t"}, cast("asyncio.Future[Any]", None))
    assert batch.hand_over(0) == len(values)
    order = list(range(len(values)))
    if random is not None:
        random.shuffle(order)
    ends: Counter[int] = Counter()
    expected: defaultdict[bytes, Counter[tuple[int, int] | None]] = defaultdict(Counter)
    for place in order:
        value, partition, failed = messages[place]
        offset = place if idempotent else ends[partition]
        ends[partition] += 1
        client.report(place, partition, offset, failed)
        expected[value][None if failed else (partition, offset)] += 1
    assert client.completed == [batch]
    found: defaultdict[bytes, Counter[tuple[int, int] | None]] = defaultdict(Counter)
    results = batch.results()
    for value, result in zip(values, results, strict=True):
        if isinstance(result, Receipt):
            assert result.partition is not None
            assert result.offset is not None
            found[value][result.partition, result.offset] += 1
        else:
            found[value][None] += 1
    assert found == expected
    assert isinstance(results, Receipts) == (not any(failed for _, _, failed in messages))


def test_values_that_found_no_room_are_handed_over_from_where_it_stopped() -> None:
    client = Client(room=3)
    batch = value_batch(client, [b"0", b"1", b"2", b"3", b"4"])
    assert batch.hand_over(0) == 3
    client.room = 5
    assert batch.hand_over(3) == 5
    for place in range(5):
        client.report(place, 0, 10 + place, failed=False)
    assert batch.results() == [Receipt("t", 0, 10 + place) for place in range(5)]


def test_a_value_that_was_refused_has_its_place() -> None:
    client = Client(room=2)
    batch = value_batch(client, [b"0", b"1", b"2"])
    assert batch.hand_over(0) == 2
    refusal = PublishError("no room")
    batch.refuse(2, refusal)
    client.report(1, 0, 6, failed=False)
    client.report(0, 0, 5, failed=False)
    assert batch.results() == [Receipt("t", 0, 5), Receipt("t", 0, 6), refusal]


@pytest.mark.parametrize("kind", ["values", "messages"])
def test_what_one_client_gave_back_is_confirmed_by_the_next(kind: str) -> None:
    client = Client()
    moved: list[tuple[Message, Callback]] = []
    client.move = lambda message, callback, report: moved.append((message, callback))  # type: ignore[attr-defined]
    values = [b"0", b"1", b"2"]
    batch: Batch
    if kind == "values":
        batch = value_batch(client, values)
    else:
        batch = MessageBatch(cast("Publisher", client), 16)
        batch.fill([Message("t", value) for value in values], {"t"}, cast("asyncio.Future[Any]", None))
    batch.hand_over(0)
    client.report(0, 0, 0, failed=False)
    client.moving = True
    client.report(2, 0, 0, failed=True)  # in another order than they were handed over in
    client.report(1, 0, 0, failed=True)
    client.moving = False
    assert [message.value for message, _ in moved] == [b"2", b"1"]
    for offset, (message, callback) in enumerate(moved, 1):
        callback(None, Report(topic="t", partition=0, offset=offset, value=message.value))
    assert batch.results() == [Receipt("t", 0, 0), Receipt("t", 0, 2), Receipt("t", 0, 1)]
