"""Bytes that are no event: a DeserializationError with the place and the reason, quickly, in bounded memory."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from commons_events import Event
from commons_events.avro import AvroSerializer, read, write
from commons_events.avro._codec import codec_of
from commons_events.errors import CommonsEventsError, DeserializationError, UnknownSchemaError
from commons_events.serialization import SchemaStore

codec = AvroSerializer()


class Leaf(BaseModel):
    sku: str
    count: int = 1


class Branch(BaseModel):
    name: str
    under: list[Branch] = []


class Nothing(BaseModel):
    """A record that takes no bytes."""


class Captive(Event):
    event_type = "unit.avro.captive"
    n: int = 0
    ratio: float = 0.0
    text: str = ""
    flag: bool = False
    maybe: str | None = None
    items: list[Leaf] = []
    nothings: list[Nothing] = []
    tree: Branch | None = None
    anything: Any = None
    table: dict[str, int] = {}


EVENT = Captive(
    n=5, ratio=1.5, text="ü\n", maybe="there", items=[Leaf(sku="a")], tree=Branch(name="r", under=[Branch(name="s")]),
    anything=[1, {"a": None}], table={"k": 1}, event_id="id",
)  # fmt: skip
GOOD = codec.encode(EVENT)
HEAD = codec_of(Captive).head


def body(**fields: bytes) -> bytes:
    """A whole event of raw field bytes, the rest as they are by default."""
    plain = {
        "event_id": b"\x02i", "source": b"\0", "timestamp": b"\0", "correlation_id": b"\0", "causation_id": b"\0",
        "metadata": b"\0", "n": b"\0", "ratio": b"\0" * 8, "text": b"\0", "flag": b"\0", "maybe": b"\0",
        "items": b"\0", "nothings": b"\0", "tree": b"\0", "anything": b"\0", "table": b"\0",
    }  # fmt: skip
    return HEAD + b"".join((plain | fields).values())


HUGE = write(2**62, "long")
LEAST = write(-(2**63), "long")
BAD = {
    "a text of 4 EB": (body(text=HUGE), r"text, byte .*4,611,686,018,427,387,904"),
    "a text of a negative length": (body(text=b"\x01"), r"text, byte \d+ of \d+: a length of -1"),
    "a text that is longer than the bytes": (body(text=b"\x7e"), "past their end|bytes are left"),
    "an array of 2^62 records": (body(items=HUGE), r"items\[\], byte .* items where"),
    "an array of -2^63 records": (body(items=LEAST + b"\0"), r"items"),
    "200 million records without fields": (body(nothings=write(200_000_000, "long") + b"\0"), r"nothings.*no bytes"),
    "200 million of them in a sized block": (body(nothings=write(-200_000_000, "long") + b"\0\0"), r"nothings"),
    "blocks of them, again and again": (body(nothings=write(9_000, "long") * 1000 + b"\0"), "take no bytes"),
    "a map of 2^40 members": (body(table=write(2**40, "long")), r"table\[\]"),
    "a block size past the end": (body(items=b"\x01\x7e"), "items"),
    "a negative block size": (body(items=b"\x01\x01"), "items"),
    "a boolean of 2": (body(flag=b"\x02"), "flag, byte .*boolean"),
    "branch 2 of a union of 2": (body(maybe=b"\x04"), "maybe, byte .*branch 2 of a union of 2"),
    "a negative branch": (body(maybe=b"\x01"), "branch -1 of"),
    "branch 8 of a value": (body(anything=b"\x10"), "anything, byte .*branch 8"),
    "an over-long varint": (body(n=b"\xff" * 10 + b"\x01"), "n, byte .*10 bytes"),
    "a varint past 64 bits": (body(n=b"\xff" * 9 + b"\x02"), "64 bits"),
    "invalid UTF-8": (body(text=b"\x02\xff"), "text, byte .*not UTF-8"),
    "overlong UTF-8": (body(text=b"\x04\xc0\xaf"), "not UTF-8"),
    "an encoded surrogate": (body(text=b"\x06\xed\xa0\x80"), "not UTF-8"),
    "invalid UTF-8 in a value": (body(anything=b"\x08\x02\xff"), "anything, byte .*not UTF-8"),
    "invalid UTF-8 in a key": (body(metadata=b"\x02\x02\xff\0\0"), "metadata, byte .*not UTF-8"),
    "101 lists in each other": (body(anything=b"\x0c\x02" * 101 + b"\0" + b"\0" * 101), "100 levels"),
    "a million lists in each other": (body(anything=b"\x0c\x02" * 1_000_000), "100 levels"),
    "a million maps in each other": (body(anything=b"\x0e\x02\0" * 1_000_000), "100 levels"),
    "a million records in each other": (body(tree=b"\2" + b"\0\x02" * 1_000_000), "255 records|nested too deep"),
    "an int of more than 4,300 digits": (body(anything=b"\x0a" + write(b"\x7f" * 2000, "bytes")), "4300 digits"),
    "an int of a million bytes": (body(anything=b"\x0a" + write(b"\x7f" * 1_000_000, "bytes")), "4300 digits"),
    "a timestamp past year 9999": (body(timestamp=write(2**60, "long")), "timestamp, byte"),
    "a timestamp far out": (body(timestamp=LEAST), "timestamp, byte"),
    "a byte too many": (body() + b"\0", "1 bytes are left over"),
    "two events": (body() + body(), "left over"),
    "nothing behind the head": (HEAD, "event_id, byte .*end early"),
    "no bytes at all": (b"", "single-object encoding"),
    "JSON": (b'{"n": 1}', "single-object encoding"),
    "the magic alone": (b"\xc3\x01", "single-object encoding"),
    "Confluent's wire format": (b"\0\0\0\0\x01" + body(), "single-object encoding"),
}


def test_the_plain_body_is_an_event() -> None:
    assert codec.decode(body(), Captive).event_id == "i"
    assert codec.decode(GOOD, Captive) == EVENT


@pytest.mark.parametrize("name", BAD)
def test_bad_bytes_are_refused_with_the_place_quickly_and_in_little_memory(name: str) -> None:
    data, words = BAD[name]
    tracemalloc.start()
    start = time.thread_time()
    with pytest.raises(DeserializationError, match=words) as caught:
        codec.decode(data, Captive)
    assert "Captive" in str(caught.value)
    assert time.thread_time() - start < 10
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000 + 20 * len(data)
    assert len(str(caught.value)) < 1000


def test_an_unknown_fingerprint_is_its_own_error_and_says_where_it_was_looked_for() -> None:
    data = b"\xc3\x01" + b"\x01\x23\x45\x67\x89\xab\xcd\xef" + GOOD[10:]
    for wanted in (Captive, Event):
        with pytest.raises(UnknownSchemaError, match=r"0123456789abcdef.*registered event classes") as caught:
            codec.decode(data, wanted)
        assert isinstance(caught.value, LookupError)
    with pytest.raises(UnknownSchemaError, match="0123456789abcdef"):
        codec.identify(data)


@settings(max_examples=400, deadline=None)
@given(position=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7), cut=st.integers(0, 20))
def test_damage_raises_nothing_else(position: int, bit: int, cut: int) -> None:
    damaged = bytearray(GOOD)
    damaged[position] ^= 1 << bit
    with contextlib.suppress(DeserializationError):
        assert isinstance(codec.decode(bytes(damaged[: len(damaged) - cut]), Captive), Captive)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=120))
@example(b"\x80" * 50)
def test_any_body_raises_nothing_else(data: bytes) -> None:
    try:
        event = codec.decode(HEAD + data, Captive)
    except DeserializationError:
        return
    assert codec.decode(codec.encode(event), Captive).model_dump_json() == event.model_dump_json()


# --- under resolution, with a schema that another system wrote ---------------------------------------------------

FOREIGN = {
    "type": "record",
    "name": "captive",
    "namespace": "unit.avro",
    "eventType": "unit.avro.captive",
    "eventVersion": "1.0.9",
    "fields": [
        {"name": "unknown", "type": {"type": "array", "items": "null"}},
        {"name": "more", "type": {"type": "map", "values": {"type": "array", "items": ["null", "string"]}}},
        {"name": "loop", "type": ["null", {"type": "record", "name": "Loop", "fields": [
            {"name": "next", "type": ["null", "Loop"]}]}]},
        {"name": "self", "type": ["null", "captive"]},
        {"name": "n", "type": "int"},
        {"name": "text", "type": "bytes"},
    ],
}  # fmt: skip


def foreign_codec() -> tuple[AvroSerializer, bytes]:
    store = SchemaStore()
    fingerprint = store.add_text("avro", json.dumps(FOREIGN))
    return AvroSerializer(store), b"\xc3\x01" + fingerprint


def test_a_foreign_schema_is_resolved() -> None:
    foreign, head = foreign_codec()
    data = head + b"\4\0" + b"\0" + b"\0" + b"\0" + b"\x0a" + b"\x04hi"
    event = foreign.decode(data, Captive)
    assert (event.n, event.text, event.version, event.items) == (5, "hi", "1.0.0", [])
    assert foreign.identify(data) == ("unit.avro.captive", "1.0.9")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (write(200_000_000, "long") + b"\0", "take no bytes"),
        (b"\0" + HUGE, r"more\[?\]?, byte"),
        (b"\0\0" + b"\2" * 1_000_000, "loop.*(255 records|too deep)"),
        (b"\0\0\0" + b"\2\0\0\0" * 1_000_000, "255 records|too deep"),
        (b"\0\0\0\0\x0a\x02\xff", "text.*not UTF-8"),
        (b"\0\0\0\0" + write(2**40, "long"), "32 bits"),
        (b"", "unknown, byte .*end early"),
    ],
)
def test_hostile_bytes_of_a_foreign_schema(data: bytes, words: str) -> None:
    foreign, head = foreign_codec()
    start = time.thread_time()
    with pytest.raises(DeserializationError, match=words):
        foreign.decode(head + data, Captive)
    assert time.thread_time() - start < 10


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_body_of_a_foreign_schema_raises_nothing_else(data: bytes) -> None:
    foreign, head = foreign_codec()
    for wanted in (Captive, Event):
        try:
            foreign.decode(head + data, wanted)
        except CommonsEventsError as error:
            assert isinstance(error, DeserializationError)


def test_generic_reading_is_as_careful() -> None:
    start = time.thread_time()
    with pytest.raises(DeserializationError, match="no bytes"):
        read(bytes.fromhex("8088debe0100"), {"type": "array", "items": "null"})
    with pytest.raises(DeserializationError):
        read(b"", {"type": "record", "name": "A", "fields": [{"name": "a", "type": "A"}]})
    assert time.thread_time() - start < 10
