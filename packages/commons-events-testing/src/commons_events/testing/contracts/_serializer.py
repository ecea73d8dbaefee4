"""`SerializerContract`: everything that `commons_events.serialization.Serializer` says about a format."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from commons_events.errors import DeserializationError, UnknownSchemaError
from commons_events.event import Event
from commons_events.plugins import serializer as registered
from commons_events.serialization import Serializer
from commons_events.testing.contracts._contract import Contract
from commons_events.testing.contracts._events import ODD_EVENTS, Color, Money, OddEvent

__all__ = ["SerializerContract", "odd_events"]

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_numbers = st.integers(-(2**63), 2**63 - 1)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_decimals = st.decimals(allow_nan=False, allow_infinity=False, places=6)
_money = st.builds(Money, amount=_decimals, currency=st.sampled_from(["EUR", "JPY"]))
_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | _floats | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=10,
)

odd_events: st.SearchStrategy[Event] = st.builds(
    OddEvent,
    event_id=_text.filter(bool),
    correlation_id=st.none() | _text,
    metadata=st.dictionaries(_text, _anything, max_size=3),
    text=_text,
    integer=_numbers,
    real=_floats,
    truth=st.booleans(),
    decimal=_decimals,
    uuid=st.uuids(),
    color=st.sampled_from(Color),
    day=st.dates(),
    moment=st.datetimes(timezones=st.timezones() | st.none()),
    clock=st.times(),
    span=st.timedeltas(),
    raw=st.binary(max_size=30),
    money=_money,
    maybe=st.none() | _text,
    either=_numbers | _text,
    literal=st.sampled_from(["a", "b"]),
    numbers=st.lists(_numbers, max_size=5),
    nested=st.lists(_money, max_size=3),
    table=st.dictionaries(_text, _numbers, max_size=3),
    anything=_anything,
)
"""Events with any values in all kinds of fields."""


class SerializerContract(Contract, contract=True):
    """The contract of a `Serializer`: subclass it, give it `make_serializer`, and run pytest.

    A format that by its own statement cannot hold some fields gives its own ``event_class``, ``examples`` and
    ``strategy``, without those.
    """

    examples: ClassVar[Sequence[Event]] = ODD_EVENTS
    """Events that have to hold, all of one class."""
    strategy: ClassVar[st.SearchStrategy[Event]] = odd_events
    """Where further ones come from, of the same class."""
    max_examples: ClassVar[int] = 100

    def make_serializer(self) -> Serializer:
        """A serializer of the kind that is tested."""
        raise NotImplementedError(f"{type(self).__name__}.make_serializer has to return a Serializer.")

    def _examples(self, test: Any, strategy: st.SearchStrategy[Any]) -> None:
        """Run ``test`` for examples from ``strategy``, the same ones every time."""
        check = given(strategy)(test)
        settings(
            max_examples=self.max_examples,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        )(check)()

    async def test_states_what_it_is(self) -> None:
        """A name, and the media type of its bytes."""
        codec = self.make_serializer()
        assert codec.name
        kind, _, subtype = codec.content_type.partition("/")
        assert kind, codec.content_type
        assert subtype, codec.content_type

    async def test_is_registered_under_its_name(self) -> None:
        """An event class that says ``schema_type=<name>`` gets this serializer."""
        codec = self.make_serializer()
        assert type(registered(codec.name)) is type(codec)

    async def test_picked_events_hold(self) -> None:
        """Odd values come back equal, of the same types, and with the same bytes a second time."""
        codec = self.make_serializer()
        for event in self.examples:
            data = codec.encode(event)
            assert isinstance(data, bytes)
            read = codec.decode(data, type(event))
            assert read == event
            _assert_same_types(read.model_dump(), event.model_dump(), type(event).__name__)
            assert codec.decode(codec.encode(read), type(event)) == event

    async def test_any_event_holds(self) -> None:
        """Whatever event can be made comes back equal."""
        codec = self.make_serializer()

        def check(event: Event) -> None:
            assert codec.decode(codec.encode(event), type(event)) == event

        self._examples(check, self.strategy)

    async def test_what_is_made_for_a_class_does_the_same(self) -> None:
        """An `encoder` writes what ``encode`` does, also with a source for events without; a `decoder` reads it."""
        codec = self.make_serializer()
        for event in self.examples:
            cls = type(event)
            sourceless = event.with_source("")
            assert codec.encoder(cls)(event) == codec.encode(event)
            assert codec.encoder(cls, source='ü"{}')(sourceless) == codec.encode(event.with_source('ü"{}'))
            assert codec.decoder(cls)(codec.encode(event)) == event

        def check(event: Event) -> None:
            written = codec.encoder(type(event), source="urn:x")(event)
            assert codec.decoder(type(event))(written) == event.with_source("urn:x")

        self._examples(check, self.strategy)

    async def test_the_envelope_is_in_the_bytes(self) -> None:
        """Id, source, time, correlation and metadata are read from the bytes alone, and so is which event it is."""
        codec = self.make_serializer()
        event = self.examples[0].model_copy(
            update={"source": "urn:x", "correlation_id": "c", "causation_id": "d", "metadata": {"a": [1, None]}}
        )
        data = codec.encode(event)
        read = codec.decode(data, type(event))
        assert (read.event_id, read.source, read.timestamp) == (event.event_id, "urn:x", event.timestamp)
        assert (read.correlation_id, read.causation_id, dict(read.metadata)) == ("c", "d", {"a": [1, None]})
        identity = codec.identify(data)
        assert identity is None or identity == (event.event_type, event.version)

    async def test_a_base_class_reads_by_the_bytes(self) -> None:
        """Where the bytes say which event they are, `Event` itself is enough to read them."""
        codec = self.make_serializer()
        event = self.examples[0]
        data = codec.encode(event)
        if codec.identify(data) is not None:
            read = codec.decode(data, Event)
            assert type(read) is type(event)
            assert read == event
        else:
            with pytest.raises(DeserializationError):
                codec.decode(data, Event)

    async def test_truncated_bytes_are_refused(self) -> None:
        """Bytes that end too early are a `DeserializationError`, wherever they are cut."""
        codec = self.make_serializer()
        event = self.examples[-1]
        data = codec.encode(event)
        for length in range(len(data)):
            self._refuses_or_reads(codec, data[:length], type(event), may_read=length > 0)
        with pytest.raises(DeserializationError):
            codec.decode(b"", type(event))

    async def test_damaged_bytes_raise_nothing_else(self) -> None:
        """A flipped bit gives another valid event or a `DeserializationError`, and never any other error."""
        codec = self.make_serializer()
        event = self.examples[-1]
        data = codec.encode(event)
        for position in range(len(data)):
            for bit in (0, 3, 7):
                damaged = bytearray(data)
                damaged[position] ^= 1 << bit
                self._refuses_or_reads(codec, bytes(damaged), type(event))

    async def test_garbage_raises_nothing_else(self) -> None:
        """Whatever the bytes are: deep, long, text, another format, nothing at all."""
        codec = self.make_serializer()
        event_class = type(self.examples[0])
        garbage = [
            b"", b"\0", b"\xff" * 100, b"null", b"[]", b"{}", b'"text"', b"0", b"NaN", b'{"event_type": 1}',
            b"[" * 10_000, b"{" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"\xef\xbb\xbf{}",
            b"9" * 100_000, b'{"event_id": NaN}', pickle.dumps({"a": 1}), b"\xc3\x01" + b"\0" * 8,
        ]  # fmt: skip
        for data in garbage:
            self._refuses_or_reads(codec, data, event_class)
            self._refuses_or_reads(codec, data, Event)
            with suppress(UnknownSchemaError):
                codec.identify(data)

        def check(data: bytes) -> None:
            self._refuses_or_reads(codec, data, event_class)
            with suppress(UnknownSchemaError):
                codec.identify(data)

        self._examples(check, st.binary(max_size=200))

    async def test_errors_are_value_errors(self) -> None:
        """What decoding raises is a `DeserializationError` (a ValueError) that names the class it was read as."""
        codec = self.make_serializer()
        event = self.examples[0]
        with pytest.raises(ValueError, match=type(event).__name__) as caught:
            codec.decode(b"\xff\xff", type(event))
        assert isinstance(caught.value, DeserializationError)

    async def test_has_a_schema(self) -> None:
        """A text that is the same each time."""
        codec = self.make_serializer()
        event_class = type(self.examples[0])
        schema = codec.schema(event_class)
        assert isinstance(schema, str)
        assert schema.strip()
        assert codec.schema(event_class) == schema

    async def test_serves_several_threads(self) -> None:
        """One instance encodes and decodes in many threads at once."""
        codec = self.make_serializer()

        def work() -> bool:
            return all(codec.decode(codec.encode(event), type(event)) == event for event in self.examples)

        assert all(await asyncio.gather(*(asyncio.to_thread(work) for _ in range(8))))

    def _refuses_or_reads(
        self, codec: Serializer, data: bytes, event_class: type[Event], *, may_read: bool = True
    ) -> None:
        try:
            event = codec.decode(data, event_class)
        except DeserializationError:
            return
        assert may_read, f"{data[:40]!r} was read as {event!r}"
        assert isinstance(event, event_class)


def _assert_same_types(read: Any, sent: Any, place: str) -> None:
    """1, 1.0 and True are equal, and yet not the same."""
    inner: Any = sent
    assert type(read) is type(sent), f"{place}: {sent!r} came back as {read!r}"
    if isinstance(sent, dict):
        for name, value in inner.items():
            _assert_same_types(read[name], value, f"{place}.{name}")
    elif isinstance(sent, list):
        for position, (one, other) in enumerate(zip(read, inner, strict=True)):
            _assert_same_types(one, other, f"{place}[{position}]")
