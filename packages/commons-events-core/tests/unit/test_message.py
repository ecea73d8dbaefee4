"""`Message`, `Receipt` and topic names."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from commons_events import Message
from commons_events.dead_letters import dead_letter
from commons_events.errors import InvalidTopicError
from commons_events.message import Receipt, Receipts
from commons_events.transport import Capabilities, Delivery, Outcome, check_topic_name


def test_a_message_s_header_is_the_first_of_that_name_as_text() -> None:
    message = Message("t", b"", headers=(("a", "ü".encode()), ("a", b"second"), ("b", b"\xff")))
    assert message.header("a") == "ü"
    assert message.header("none") is None
    with pytest.raises(UnicodeDecodeError):
        message.header("b")


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (Message("topic", None), 0),
        (Message("topic", b""), 0),
        (Message("topic", b"abc", b"kk", (("n", b"vv"), ("n", b""))), 3 + 2 + 3 + 1),
    ],
)
def test_the_size_counts_value_key_and_headers(message: Message, size: int) -> None:
    assert message.size == size


def test_a_receipt_s_id_is_the_broker_s_or_its_place_on_the_log() -> None:
    assert Receipt("t", id="x-1").message_id == "x-1"
    assert Receipt("t", 3, 0).message_id == "t/3/0"


@pytest.mark.parametrize("name", ["a", "user-events", "a.b_c-d", "ü", "x" * 249, "dead/letters", "#"])
def test_topic_names_that_are_taken(name: str) -> None:
    check_topic_name(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a\n", "tab\t", "nul\0", "x" * 250, "\u200b", "a\u2028", None, 5, b"a"]
)
def test_topic_names_that_are_refused(name: Any) -> None:
    with pytest.raises(InvalidTopicError, match="topic name"):
        check_topic_name(name)


class _Recorder:
    """Notes what deliveries ask for."""

    header_prefix = "ce_"

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Any:
        self.seen.append((outcome, delay))
        return delivery

    def reject_delivery(self, delivery: Delivery, reason: str, error: BaseException | None) -> Any:
        self.seen.append(("reject", reason, error))
        delivery.outcome = Outcome.ACK
        return delivery


def test_settling_twice_is_harmless_and_the_first_one_wins() -> None:
    for first in ("ack", "nack", "reject"):
        recorder = _Recorder()
        delivery = Delivery(Message("t", b"v"), recorder, 0, 5)
        getattr(delivery, first)(*(["why"] if first == "reject" else []))
        delivery.ack()
        delivery.nack(3)
        delivery.reject("again")
        assert len(recorder.seen) == 1


def test_a_delivery_shows_payload_under_three_names_and_tells_a_tombstone() -> None:
    delivery = Delivery(Message("t", b"v", b"k", (("h", b"1"),)), _Recorder(), 2, 7, 3)
    assert delivery.value == delivery.data == delivery.body == b"v"
    assert (delivery.topic, delivery.key, delivery.headers, delivery.attempt) == ("t", b"k", (("h", b"1"),), 3)
    tombstone = Delivery(Message("t", None), _Recorder())
    assert (tombstone.value, tombstone.message.value) == (b"", None)
    assert "t/2/7" in repr(delivery)
    assert "unsettled" in repr(delivery)


@pytest.mark.parametrize("delay", [-1, -0.001, float("nan"), float("inf")])
def test_a_nack_s_delay_has_to_be_a_time(delay: float) -> None:
    delivery = Delivery(Message("t", b""), _Recorder())
    with pytest.raises(ValueError, match="delay"):
        delivery.nack(delay)
    assert delivery.outcome is None


# --- dead letters ------------------------------------------------------------------------------------------------


def letter(message: Message, reason: str = "bad", error: BaseException | None = None, **place: Any) -> Message:
    return dead_letter(Delivery(message, _Recorder(), **place), "dead", reason, error)


def test_a_dead_letter_keeps_bytes_key_and_headers_and_says_why_and_where_from() -> None:
    original = Message("orders", b"\xff", b"k", (("x", b"\xfe"), ("x", b"2")), partition=4)
    made = letter(original, "no such order", ValueError("ü is bad"), partition=4, offset=17, attempt=3)
    assert (made.topic, made.value, made.key, made.partition) == ("dead", b"\xff", b"k", None)
    assert made.headers[:2] == original.headers
    assert {name: value.decode() for name, value in made.headers[2:] if name != "deadletter-id"} == {
        "deadletter-reason": "no such order",
        "deadletter-attempts": "3",
        "deadletter-topic": "orders",
        "deadletter-partition": "4",
        "deadletter-offset": "17",
        "deadletter-error-type": "builtins.ValueError",
        "deadletter-error-message": "ü is bad",
    }
    assert UUID(made.header("deadletter-id")).version == 7


def test_a_dead_letter_that_dies_again_tells_its_last_death_once() -> None:
    again = letter(letter(Message("orders", b"v"), "first"), "second")
    names = [name for name, _ in again.headers]
    assert len(names) == len(set(names))
    assert again.header("deadletter-reason") == "second"
    assert again.header("deadletter-topic") == "dead"


def test_a_dead_letter_of_a_tombstone_is_one() -> None:
    assert letter(Message("orders", None, b"k")).value is None


def test_texts_in_a_dead_letter_are_bounded_and_utf_8_whatever_they_hold() -> None:
    made = letter(Message("t", b""), "\ud800" + "x" * 100_000, ValueError("\udfff" + "y" * 100_000))
    assert made.size < 8_000
    for _, value in made.headers:
        value.decode()


def test_an_error_whose_text_fails_makes_a_dead_letter_all_the_same() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert letter(Message("t", b""), "bad", Broken()).header("deadletter-reason") == "bad"


def test_capabilities_have_to_state_every_field_of_their_version() -> None:
    with pytest.raises(ValueError, match=r"version 1 leave out: .*ordering.*State each one"):
        Capabilities(contract=1)
    with pytest.raises(ValueError, match="transactions"):
        Capabilities(contract=1, ordering="key", durability="process")


def test_receipts_are_a_sequence_of_what_they_say() -> None:
    one_place = Receipts("t", 2, [5, 6, None])
    assert one_place == [Receipt("t", 2, 5), Receipt("t", 2, 6), Receipt("t", 2)]
    assert one_place != [Receipt("t", 2, 5), Receipt("t", 2, 6), Receipt("t", 3)]
    assert one_place != [Receipt("t", 2, 5)]
    assert one_place != 3
    assert (one_place[0], one_place[-1], one_place[1:]) == (
        Receipt("t", 2, 5),
        Receipt("t", 2),
        [Receipt("t", 2, 6), Receipt("t", 2)],
    )
    with pytest.raises(IndexError):
        one_place[3]
    assert repr(Receipts("t", 0, [1])) == repr([Receipt("t", 0, 1)])


@pytest.mark.parametrize(
    "parts",
    [
        [Receipts("t", 0, [1])],
        [Receipts("t", 0, [1, 2]), Receipts("t", 0, [3])],
        [Receipts("t", 0, [1, 2]), Receipts("t", 1, [3])],
        [Receipts("t", 0, [1, 2]), Receipts("t", [2, 1], [3, 4]), Receipts(["u", "t"], 0, [5, 6])],
    ],
)
def test_receipts_joined_are_those_of_each_part(parts: list[Receipts]) -> None:
    assert Receipts.joined(parts) == [receipt for part in parts for receipt in part]
