"""Older and newer bytes: defaults, unknown fields, other types and versions, migrations."""

from __future__ import annotations

import copy
import pickle
from enum import Enum
from ipaddress import IPv4Address
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from commons_events import Event, EventSchema
from commons_events.compatibility import compatibility
from commons_events.errors import DeserializationError, EventDefinitionError, UnknownEventTypeError
from commons_events.event import migration, registry
from commons_events.protobuf import FieldNumber, ProtobufSerializer, message_class
from commons_events.protobuf.locking import unsettled

codec = ProtobufSerializer()


class InnerOld(BaseModel):
    a: int = 0


class InnerNew(BaseModel):
    a: int = 0
    b: str = ""


@EventSchema(name="versioned", version="1.0.0")
class Old(Event):
    name: str
    inner: InnerOld = InnerOld()
    either: InnerOld | int = 0


@EventSchema(name="versioned", version="1.1.0")
class New(Event):
    name: str
    inner: InnerNew = InnerNew()
    either: InnerNew | int = 0
    added: list[str] = ["by default"]
    more: dict[str, Any] = {"x": 1}
    note: str | None = "none given"
    nothing: str | None = None
    label: str = Field(default_factory=lambda: "made")


@pytest.fixture(autouse=True)
def registered(own_registry: None) -> None:
    registry.register(Old)
    registry.register(New)


def new(**fields: Any) -> New:
    return New(event_id="e", name="n", **fields)


def test_what_an_older_writer_did_not_know_is_the_default() -> None:
    read = codec.decode(codec.encode(Old(event_id="e", name="n", inner=InnerOld(a=3))), New)
    assert (read.event_id, read.name, read.inner.a, read.inner.b) == ("e", "n", 3, "")
    assert (read.added, read.more, read.note, read.nothing) == (["by default"], {"x": 1}, "none given", None)
    assert read.label == "made"
    assert read.version == "1.1.0"
    assert "label" not in read.model_fields_set
    read.added.append("mine")
    assert codec.decode(codec.encode(Old(name="n")), New).added == ["by default"]


def clashing() -> dict[str, type[Event]]:
    @EventSchema("reordered", version="1.0.0", schema_type="protobuf")
    class First(Event):
        kept: str
        gone: str = "g"

    with unsettled():

        @EventSchema("reordered", version="1.1.0", schema_type="protobuf")
        class Second(Event):
            kept: str
            new: list[str] = ["n"]

        @EventSchema("reordered", version="1.2.0", schema_type="protobuf")
        class Third(Event):
            first: int = 0
            kept: Annotated[str, FieldNumber(7)]

    return {cls.__name__: cls for cls in (First, Second, Third)}


def test_a_number_that_another_version_has_for_something_else_is_no_field_of_this_one() -> None:
    classes = clashing()
    data = classes["First"](kept="k").serialize()
    with pytest.raises(DeserializationError, match=r"the number 2 of Reordered is 'gone' there, and 'new' here.*lock"):
        classes["Second"].deserialize(data)
    with pytest.raises(DeserializationError, match=r"'kept' of Reordered has the number 1 there, and 7 here|is 'kept'"):
        classes["Third"].deserialize(data)
    assert Event.deserialize(data) == classes["First"].deserialize(data)


def test_a_clash_with_another_version_is_an_error_when_the_class_is_created() -> None:
    @EventSchema("reordered", version="1.0.0", schema_type="protobuf")
    class First(Event):
        kept: str
        gone: str = "g"

    with pytest.raises(
        EventDefinitionError, match=r"Second 'reordered' 1\.1\.0 could .*First 1\.0\.0 .*the number 2 .*lock"
    ):

        @EventSchema("reordered", version="1.1.0", schema_type="protobuf")
        class Second(Event):
            kept: str
            new: list[str] = ["n"]

    @EventSchema("reordered", version="1.2.0", schema_type="protobuf")
    class Third(Event):
        called: Annotated[str, FieldNumber(1)] = Field(alias="kept")
        gone: Annotated[str, FieldNumber(2)] = "g"

    @EventSchema("reordered", version="2.0.0", schema_type="protobuf")
    class Another(Event):  # another major version has numbers of its own
        other: int

    assert Third.deserialize(First(kept="k").serialize()).called == "k"


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Sizes(Enum):
    MIDDLE = "m"
    SMALL = "s"
    LARGE = "l"


Sizes.__name__ = "Size"  # the same enum, one version later


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (list[int], list[int] | None, "'f' of UnitTyped is repeated sint64 there, and a message around it here"),
        (Any, dict[str, int], "Value there, and repeated message here"),
        (dict[str, int], str, "repeated message there, and string here"),
        (bytes | None, list[str] | None, "bytes there, and a message around it here"),
        (str, list[str], "string there, and repeated string here"),
        (int, float, "sint64 there, and double here"),
        (IPv4Address, str, "JSON text there, and string here"),
        (list[dict[str, int]], list[dict[str, str]], "'value' of .* is sint64 there, and string here"),
        (InnerOld | int, int | InnerOld, "'int_value' of FUnion has the number 2 there, and 1 here"),
        (Size, Sizes, "'SMALL' of the enum Size has the number 1 there, and 2 here.*schema lock"),
    ],
)
def test_another_type_on_the_same_number_is_an_error_when_the_class_is_created(
    before: Any, after: Any, problem: str
) -> None:
    def define(version: str, annotation: Any) -> Any:
        space = {"__annotations__": {"f": annotation}, "__module__": __name__, "__qualname__": "Typed"}
        return EventSchema("unit.typed", version=version, schema_type="protobuf")(type(Event)("Typed", (Event,), space))

    define("1.0.0", before)
    with pytest.raises(EventDefinitionError, match=rf"1\.1\.0 could not read what .* 1\.0\.0 writes.*{problem}"):
        define("1.1.0", after)
    define("2.0.0", after)


def test_none_and_empty_are_not_the_default() -> None:
    event = new(added=[], more={}, note=None, nothing="")
    assert codec.decode(codec.encode(event), New) == event


def test_a_foreign_writer_that_leaves_fields_out(tmp_path: object) -> None:
    message = message_class(New)(event_type="versioned", version="1.1.0", event_id="f", name="")
    read = codec.decode(message.SerializeToString(), New)
    assert (read.name, read.added, read.note) == ("", ["by default"], "none given")
    message.blank_fields.extend([4, 6])
    read = codec.decode(message.SerializeToString(), New)
    assert (read.added, read.note) == ([], None)


def test_unknown_fields_survive_a_read_and_write_of_an_older_class() -> None:
    event = new(
        inner=InnerNew(a=1, b="deep"), either=InnerNew(a=2, b="in a union"), added=["x"], more={"y": [1]}, note="kept",
        label="l",
    )  # fmt: skip
    read = codec.decode(codec.encode(event), Old)
    assert (read.name, read.inner.a) == ("n", 1)
    assert codec.resolve(codec.encode(read), New) == event
    again = codec.decode(codec.encode(read), Old)
    assert codec.encode(again) == codec.encode(read)


def test_what_is_not_known_is_no_part_of_the_value() -> None:
    read = codec.decode(codec.encode(new(label="l")), Old)
    plain = Old(**{name: value for name, value in vars(read).items() if name != "event_type"})
    assert read == plain
    assert read.model_dump() == plain.model_dump()
    for kept in (copy.copy(read), copy.deepcopy(read), read.model_copy(), read.with_source("s")):
        assert codec.resolve(codec.encode(kept), New).label == "l"
    for made in (pickle.loads(pickle.dumps(read)), read.model_copy(update={"name": "m"})):
        assert codec.resolve(codec.encode(made), New).label == "made"
    assert codec.encode(plain) == codec.encode(copy.copy(plain))
    assert b"label" not in read.to_json()


def test_a_required_field_that_is_missing_is_named() -> None:
    class Needs(Event):
        event_type = "versioned"
        version: str = "1.2.0"
        name: str
        must: Annotated[int, FieldNumber(50)]

    with pytest.raises(DeserializationError, match=r"Needs 'versioned' 1\.2\.0 .*: must: it is missing"):
        codec.decode(codec.encode(Old(name="n")), Needs)


def test_another_major_version_needs_a_migration() -> None:
    @EventSchema(name="versioned", version="2.0.0")
    class Next(Event):
        name: str
        size: int

    data = codec.encode(Old(event_id="e", name="abc"))
    with pytest.raises(DeserializationError, match=r"the bytes are version 1\.0\.0"):
        codec.decode(data, Next)

    @migration(from_=Old, to=Next)
    def grow(old: Old) -> Next:
        return Next(name=old.name, size=len(old.name))

    read = codec.decode(data, Next)
    assert (read.event_id, read.name, read.size) == ("e", "abc", 3)
    assert type(codec.decode(data, Event)) is Old


def test_a_base_class_and_a_subclass() -> None:
    class Special(Old):
        event_type = "versioned.special"
        extra: int = 0

    data = codec.encode(Special(name="n", extra=5))
    assert type(codec.decode(data, Old)) is Special
    assert codec.decode(data, Event) == codec.decode(data, Special)
    with pytest.raises(DeserializationError, match="an event of type 'versioned'"):
        codec.decode(codec.encode(Old(name="n")), Special)
    with pytest.raises(UnknownEventTypeError, match="field 2040"):
        codec.decode(b"\x0a\x01n", Event)
    with pytest.raises(UnknownEventTypeError, match="unheard"):
        codec.decode(b"\xc2\x7f\x07unheard", Event)


def test_bytes_without_an_envelope_are_the_class_s_own() -> None:
    """A system that knows no events sends the message alone."""
    read = codec.decode(b"\x0a\x01n", Old)
    assert read.name == "n"
    assert read.event_id
    assert "event_id" not in read.model_fields_set


def test_fields_that_a_class_keeps() -> None:
    class Keeping(Event):
        model_config = {"extra": "allow"}
        name: str

    read = Keeping.from_json(b'{"event_type": "Keeping", "version": "1.0.0", "name": "n", "more": [1, {"a": null}]}')
    again = codec.decode(codec.encode(read), Keeping)
    assert again == read
    assert again.model_extra == {"more": [1, {"a": None}]}
    assert codec.decode(codec.encode(Keeping(name="n")), Keeping).model_extra == {}


def test_a_member_of_an_enum_that_the_reader_does_not_know_is_refused() -> None:
    class Before(Enum):
        A = "a"

    class After(Enum):
        A = "a"
        B = "b"

    class Reader(Event):
        event_type = "with-enum"
        state: Before

    class Writer(Event):
        event_type = "with-enum"
        version: str = "1.1.0"
        state: After

    with pytest.raises(DeserializationError, match=r"state: 2 is none of its values"):
        codec.decode(codec.encode(Writer(state=After.B)), Reader)


def test_a_nested_event_keeps_its_own_identity() -> None:
    class Outer(Event):
        inside: Old

    event = Outer(inside=Old(name="n", event_id="inner"))
    read = codec.decode(codec.encode(event), Outer)
    assert read == event
    with pytest.raises(AttributeError, match="fact"):
        read.inside.name = "m"


def test_a_minor_version_in_a_class_of_another_name_is_compatible() -> None:
    @EventSchema(name="thing.made", version="1.0.0", schema_type="protobuf")
    class MadeV1(Event):
        name: str

    @EventSchema(name="thing.made", version="1.1.0", schema_type="protobuf")
    class MadeV11(Event):
        name: str
        label: str | None = None

    assert "message ThingMade {" in MadeV1.schema
    assert compatibility(MadeV1, MadeV11, "FULL")
    read = MadeV11.deserialize(MadeV1(name="n").serialize())
    assert (read.name, read.label) == ("n", None)
