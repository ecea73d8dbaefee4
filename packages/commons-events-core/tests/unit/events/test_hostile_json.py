"""Bytes that are no event: a DeserializationError that says why, quickly, and nothing else (reading note 7)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from commons_events import Event
from commons_events.errors import CommonsEventsError, DeserializationError, SerializationError


class Item(BaseModel):
    sku: str
    count: int = 1


class Hostage(Event):
    event_type = "unit.hostage"
    n: int = 0
    ratio: float = 0.0
    text: str = ""
    raw: bytes = b""
    items: list[Item] = []
    anything: Any = None
    table: dict[str, Any] = {}


GOOD = Hostage(
    n=5, ratio=1.5, text="ü\n", raw=b"\0\xff", items=[Item(sku="a")], anything=[1, {"a": None}], event_id="id"
).to_json()

BAD = {
    "nothing": b"",
    "blank": b"  \n",
    "half": GOOD[: len(GOOD) // 2],
    "without its last byte": GOOD[:-1],
    "with more behind it": GOOD + b"}",
    "twice": GOOD + GOOD,
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a text": b'"text"',
    "a list": b"[]",
    "a list of events": b"[" + GOOD + b"]",
    "no JSON": b"n: 1",
    "single quotes": b"{'n': 1}",
    "a trailing comma": b'{"n": 1,}',
    "a comment": b'{"n": 1} // one',
    "a bare key": b"{n: 1}",
    "a leading zero": b'{"n": 01}',
    "hex": b'{"n": 0x1}',
    "a plus": b'{"n": +1}',
    "a control character": b'{"text": "a\nb"}',
    "a wrong escape": b'{"text": "\\x"}',
    "half an escape": b'{"text": "\\u12"}',
    "a lone surrogate": b'{"text": "\\ud800"}',
    "a lone surrogate in any": b'{"anything": ["\\udc00"]}',
    "a lone surrogate as key": b'{"table": {"\\ud800": 1}}',
    "invalid UTF-8": b'{"text": "\xff"}',
    "overlong UTF-8": b'{"text": "\xc0\xaf"}',
    "an encoded surrogate": b'{"text": "\xed\xa0\x80"}',
    "Latin-1": '{"text": "ü"}'.encode("latin-1"),
    "UTF-16": '{"n": 1}'.encode("utf-16"),
    "NaN in a float": b'{"ratio": NaN}',
    "Infinity in a float": b'{"ratio": Infinity}',
    "-Infinity in any": b'{"anything": [{"a": -Infinity}]}',
    "NaN in a table": b'{"table": {"a": NaN}}',
    "NaN in metadata": b'{"metadata": {"a": NaN}}',
    "NaN in a field that is not known": b'{"unknown": NaN}',
    "NaN as text for a float": b'{"ratio": "NaN"}',
    "inf as text for a float": b'{"ratio": "inf"}',
    "a float that overflows": b'{"ratio": 1e999}',
    "an int of too many digits": b'{"n": ' + b"9" * 4301 + b"}",
    "an int of too many digits in any": b'{"anything": ' + b"9" * 4301 + b"}",
    "an int of a million digits": b'{"n": ' + b"9" * 1_000_000 + b"}",
    "an unknown int of a million digits": b'{"anything": ' + b"9" * 1_000_000 + b"}",
    "10,000 lists": b'{"anything": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "10,000 lists that are not closed": b'{"anything": ' + b"[" * 10_000,
    "10,000 objects": b'{"anything": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
    "10,000 lists in a field that is not known": b'{"unknown": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "10,000 lists alone": b"[" * 10_000 + b"]" * 10_000,
    "10,000 lists and NaN": b'{"anything": ' + b"[" * 10_000 + b"NaN" + b"]" * 10_000 + b"}",
    "a million brackets": b"[" * 1_000_000,
    "an int as text": b'{"n": "five"}',
    "an int with a fraction": b'{"n": 1.5}',
    "an int that is null": b'{"n": null}',
    "an int that is a list": b'{"n": [1]}',
    "a text that is a number": b'{"text": 1}',
    "bytes that are a number": b'{"raw": 1}',
    "items that are an object": b'{"items": {"sku": "a"}}',
    "an item without its field": b'{"items": [{}]}',
    "a timestamp that is none": b'{"timestamp": "yesterday"}',
    "a timestamp that is null": b'{"timestamp": null}',
    "a timestamp past year 9999": b'{"timestamp": "12024-01-01T00:00:00Z"}',
    "a timestamp far out": b'{"timestamp": 1e300}',
    "an id that is a number": b'{"event_id": 5}',
    "metadata that is a list": b'{"metadata": []}',
    "a type that is null": b'{"event_type": null}',
    "another type": b'{"event_type": "other"}',
    "a version that is a number": b'{"version": 1}',
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_bad_bytes_are_a_deserialization_error_that_is_short_and_quick(data: bytes) -> None:
    start = time.thread_time()
    for read in (Hostage.from_json, Hostage.deserialize):
        with pytest.raises(DeserializationError, match="Hostage") as caught:
            read(data)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, CommonsEventsError)
        assert len(str(caught.value)) < 3_000
    with pytest.raises(DeserializationError):
        Event.from_json(data)
    assert time.thread_time() - start < 10


@pytest.mark.parametrize("data", [b for b in BAD.values() if b.isascii()][:60])
def test_bad_text_is_a_deserialization_error_too(data: bytes) -> None:
    with pytest.raises(DeserializationError):
        Hostage.from_json(data.decode())


def test_a_str_with_a_lone_surrogate_is_a_deserialization_error() -> None:
    with pytest.raises(DeserializationError):
        Hostage.from_json('{"text": "\ud800"}')
    with pytest.raises(DeserializationError):
        Event.from_json('{"event_type": "\udfff"}')


def test_a_number_past_all_floats_inside_any_is_infinity_and_cannot_be_written_again() -> None:
    """Known: looking at every number inside Any would cost each reader; the writer says it."""
    event = Hostage.from_json(b'{"anything": [-1e999]}')
    with pytest.raises(SerializationError, match=r"anything\[0\] is -Infinity"):
        event.to_json()


def test_a_byte_order_mark_is_refused_or_passed_over() -> None:
    try:
        event = Hostage.from_json(b"\xef\xbb\xbf" + GOOD)
    except DeserializationError:
        return
    assert event == Hostage.from_json(GOOD)


def test_of_duplicate_keys_the_last_wins_or_they_are_refused() -> None:
    """RFC 8259, section 4: the behaviour of receivers is unpredictable; ours is one of two, and the same everywhere."""
    try:
        event = Hostage.from_json(b'{"n": 1, "n": 2, "anything": {"a": 1, "a": 2}}')
    except DeserializationError:
        return
    assert (event.n, event.anything) == (2, {"a": 2})


def test_a_duplicate_event_type_does_not_smuggle_another_class_in() -> None:
    class Other(Event):
        event_type = "unit.other"

    with pytest.raises(DeserializationError):
        Hostage.from_json(b'{"event_type": "unit.hostage", "event_type": "unit.other"}')
    assert type(Event.from_json(b'{"event_type": "unit.hostage", "event_type": "unit.other"}')) is Other


def test_all_problems_are_named_with_their_place() -> None:
    with pytest.raises(DeserializationError) as caught:
        Hostage.from_json(b'{"n": "x", "items": [{"sku": "a"}, {"count": "y"}], "ratio": []}')
    text = str(caught.value)
    for place in ("n: ", "items.1.sku: ", "items.1.count: ", "ratio: "):
        assert place in text


def test_the_reason_stands_on_one_line() -> None:
    with pytest.raises(DeserializationError) as caught:
        Hostage.from_json(b'{"n": "x", "ratio": []}')
    assert "\n" not in str(caught.value)


def test_many_problems_do_not_make_an_endless_message() -> None:
    with pytest.raises(DeserializationError) as caught:
        Hostage.from_json(json.dumps({"items": [{} for _ in range(20_000)]}))
    assert len(str(caught.value)) < 10_000


def test_a_wide_object_is_read_quickly() -> None:
    data = json.dumps({f"unknown_{i}": i for i in range(50_000)})
    start = time.thread_time()
    assert Hostage.from_json(data).n == 0
    assert time.thread_time() - start < 10


@pytest.mark.parametrize("word", ["NaN", "Infinity"])
def test_texts_full_of_the_words_for_no_number_are_read_quickly(word: str) -> None:
    data = json.dumps({"text": word * 100_000, "anything": [word] * 50_000})
    start = time.thread_time()
    event = Hostage.from_json(data)
    assert event.to_json()
    assert time.thread_time() - start < 10


def read_either(data: bytes) -> None:
    for cls in (Hostage, Event):
        try:
            event = cls.from_json(data)
        except DeserializationError:
            continue
        try:
            data = event.to_json()
        except SerializationError as error:
            assert "Infinity" in str(error)
            continue
        assert cls.from_json(data) == event


@given(st.binary(max_size=80))
def test_any_bytes_give_an_event_or_a_deserialization_error(data: bytes) -> None:
    read_either(data)


@given(st.data())
def test_mutated_bytes_give_an_event_or_a_deserialization_error(data: st.DataObject) -> None:
    mutated = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        what = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if what == "flip" and at < len(mutated):
            mutated[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del mutated[at : at + data.draw(st.integers(1, 9))]
        elif what == "insert":
            mutated[at:at] = data.draw(
                st.sampled_from(
                    [b"[", b"]", b"{", b"}", b'"', b",", b":", b"NaN", b"1e999", b"\\", b"\xff", b"null", b"-"]
                )
            )
        else:
            mutated[at:at] = mutated[max(0, at - 7) : at]
    read_either(bytes(mutated))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Hostage.model_fields, "event_type", "odd"]), _JSON, max_size=6))
def test_any_json_in_any_field_gives_an_event_or_a_deserialization_error(fields: dict[str, Any]) -> None:
    read_either(json.dumps(fields).encode())


class Node(BaseModel):
    inner: Node | None = None


class Nested(Event):
    node: Node
    many: list[Node] = []


def test_what_nests_deeper_than_readers_go_is_not_written() -> None:
    def chain(length: int) -> Node:
        node = Node()
        for _ in range(length - 1):
            node = Node(inner=node)
        return node

    for length in (1, 100, 199):
        event = Nested(node=chain(length), many=[Node()] * 300)
        assert Nested.from_json(event.to_json()) == event
    for length in (200, 250):
        with pytest.raises(SerializationError, match="nested deeper than 200 levels"):
            Nested(node=chain(length)).to_json()
