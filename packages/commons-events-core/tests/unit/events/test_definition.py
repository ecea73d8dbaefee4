"""What a class statement makes: type, version, registration (reading notes 1 and 10)."""

from __future__ import annotations

import sys
import threading
import types
import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from commons_events import Event, EventSchema
from commons_events.errors import DuplicateEventTypeError, EventDefinitionError
from commons_events.event import _json, registry


def test_event_type_without_an_annotation_is_a_class_attribute_and_no_field() -> None:
    class Registered(Event):
        event_type = "user.registered"
        user_id: str

    assert Registered.event_type == "user.registered"
    assert "event_type" not in Registered.model_fields
    event = Registered(user_id="u")
    assert event.event_type == "user.registered"
    assert "event_type" not in event.model_fields_set


def test_a_thread_that_uses_a_class_while_another_one_is_at_its_first_use_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Registered(Event):
        event_type = "user.registered"
        user_id: str

    data = b'{"event_type":"user.registered","version":"1.0.0","user_id":"u"}'
    results: list[bytes] = []
    other = threading.Thread(target=lambda: results.append(Registered.from_json(data).to_json()))
    made = _json.reader

    def slow(*args: Any, **options: Any) -> Any:
        other.start()
        other.join(0.1)  # it cannot end before this does
        return made(*args, **options)

    monkeypatch.setattr(_json, "reader", slow)
    assert Registered.from_json(data).user_id == "u"
    other.join()
    assert len(results) == 1


@pytest.mark.parametrize("annotation", [str, ClassVar[str], Literal["user.registered"]])
def test_event_type_with_an_annotation_is_a_class_attribute_all_the_same(annotation: object) -> None:
    namespace: dict[str, Any] = {
        "__annotations__": {"event_type": annotation},
        "__module__": __name__,
        "__qualname__": "Annotated",
        "event_type": "user.registered",
    }
    cls = type(Event)("Annotated", (Event,), namespace)
    assert cls.event_type == "user.registered"
    assert "event_type" not in cls.model_fields


def test_the_type_defaults_to_the_name_of_the_class() -> None:
    class SomethingHappened(Event):
        pass

    assert SomethingHappened.event_type == "SomethingHappened"
    assert SomethingHappened().event_type == "SomethingHappened"


def test_a_subclass_of_an_event_has_a_type_of_its_own() -> None:
    class Base(Event):
        event_type = "base"

    class Derived(Base):
        pass

    assert Derived.event_type == "Derived"
    assert registry.find("base") is Base
    assert registry.find("Derived") is Derived


def test_a_version_is_not_inherited_but_fields_are() -> None:
    @EventSchema(name="order.placed", version="3.1.0")
    class Placed(Event):
        order_id: str = "o"

    class PlacedAgain(Placed):
        pass

    assert Placed().version == "3.1.0"
    assert PlacedAgain().version == "1.0.0"
    assert PlacedAgain().order_id == "o"


def test_the_constructor_takes_the_own_event_type_and_refuses_another() -> None:
    class Known(Event):
        event_type = "known"

    assert Known(event_type="known").event_type == "known"
    with pytest.raises(ValueError, match="event_type"):
        Known(event_type="other")


@pytest.mark.parametrize("name", ["", " padded", "padded ", "two\nlines", "nul\0", 7, None, b"bytes"])
def test_an_event_type_that_cannot_be_one_is_refused_at_class_creation(name: Any) -> None:
    with pytest.raises(EventDefinitionError, match=r"Odd\.event_type: .*non-empty printable str"):
        type(Event)("Odd", (Event,), {"__module__": __name__, "__qualname__": "Odd", "event_type": name})


@pytest.mark.parametrize("name", ["", " a", "a\tb"])
def test_the_decorator_refuses_a_name_that_cannot_be_an_event_type(name: str) -> None:
    with pytest.raises(EventDefinitionError, match="EventSchema"):
        EventSchema(name=name)


@pytest.mark.parametrize("version", ["", "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.0.0 ", 1, None, "1.0.0\n"])
def test_a_version_that_is_not_semantic_is_refused(version: Any) -> None:
    with pytest.raises(EventDefinitionError, match=r"MAJOR\.MINOR\.PATCH"):
        EventSchema(name="a", version=version)


@pytest.mark.parametrize("version", ["0.0.1", "10.20.30", "1.0.0-rc.1", "1.0.0+build.5"])
def test_semantic_versions_are_taken(version: str) -> None:
    @EventSchema(name="a", version=version)
    class A(Event):
        pass

    assert A().version == version
    assert A.from_json(A().to_json()).version == version


def test_an_empty_schema_type_is_refused() -> None:
    with pytest.raises(EventDefinitionError, match="schema_type"):
        EventSchema(name="a", schema_type="")


def test_the_decorator_returns_the_same_class_and_zero_argument_super_works() -> None:
    seen: list[type] = []

    def spy(cls: type[Event]) -> type[Event]:
        seen.append(cls)
        return cls

    @EventSchema(name="with.super", version="2.0.0")
    @spy
    class WithSuper(Event):
        hits: int = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            self.hits = self.hits + 1

        @classmethod
        def make(cls) -> Any:
            return cls(hits=super().__hash__ is not None)

    assert seen == [WithSuper]
    assert WithSuper(hits=1).hits == 2
    assert registry.find("with.super", "2.0.0") is WithSuper


def test_the_decorator_states_type_version_format_and_description() -> None:
    @EventSchema(name="a.b", version="1.2.3", schema_type="avro", description="what it is")
    class A(Event):
        pass

    info = A.schema_info()
    assert (A.event_type, info.version, info.schema_type, info.description) == ("a.b", "1.2.3", "avro", "what it is")
    assert (A().version, A().event_type) == ("1.2.3", "a.b")


def test_the_undecorated_type_is_not_left_behind_in_the_registry() -> None:
    @EventSchema(name="decorated")
    class Plain(Event):
        pass

    assert registry.get("Plain") is None
    assert registry.get("decorated") is Plain


def test_a_type_in_the_body_and_another_in_the_decorator_is_an_error() -> None:
    with pytest.raises(EventDefinitionError, match="say it once"):

        @EventSchema(name="other")
        class _Twice(Event):
            event_type = "one"


def test_the_same_type_in_the_body_and_the_decorator_is_fine() -> None:
    @EventSchema(name="one", version="1.1.0")
    class Same(Event):
        event_type = "one"

    assert registry.find("one", "1.1.0") is Same


def test_a_decorator_without_a_name_keeps_the_body_s_type() -> None:
    @EventSchema(version="2.0.0")
    class Versioned(Event):
        event_type = "from.body"

    assert Versioned.event_type == "from.body"
    assert registry.find("from.body", "2.0.0") is Versioned
    assert registry.get("from.body", "1.0.0") is None


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("version", int),
        ("event_id", int),
        ("event_id", str | None),
        ("source", int),
        ("source", str | int),
        ("timestamp", str),
        ("timestamp", datetime | None),
        ("correlation_id", bytes),
        ("causation_id", list[str]),
        ("metadata", list[str]),
        ("metadata", str),
        ("timestamp", Any),
    ],
)
def test_an_envelope_name_with_a_type_that_does_not_fit_is_an_error_at_class_creation(
    name: str, annotation: object
) -> None:
    namespace = {"__module__": __name__, "__qualname__": "Bad", "__annotations__": {name: annotation}}
    with pytest.raises(EventDefinitionError, match=rf"Bad\.{name}: the envelope has this name"):
        type(Event)("Bad", (Event,), namespace)
    assert registry.get("Bad") is None, "a class that was refused must not stay registered"


def test_envelope_fields_may_be_redeclared_where_the_type_fits() -> None:
    class Narrow(Event):
        source: str = "here"
        correlation_id: str
        metadata: dict[str, Any] = {}
        timestamp: datetime = datetime(2020, 1, 1)

    event = Narrow(correlation_id="c")
    assert (event.source, event.correlation_id) == ("here", "c")
    assert event.timestamp.tzinfo is not None
    assert Narrow.from_json(event.to_json()) == event
    with pytest.raises(ValueError, match="correlation_id"):
        Narrow()


def test_a_version_in_the_body_is_the_class_s_version() -> None:
    class V(Event):
        version: str = "4.5.6"

    assert V().version == "4.5.6"
    assert registry.find("V", "4.5.6") is V
    with pytest.raises(ValueError, match="version"):
        V(version="1.0.0")


def test_a_frozen_config_is_refused_because_post_init_assigns() -> None:
    with pytest.raises(EventDefinitionError, match="frozen"):
        type(Event)(
            "Cold", (Event,), {"__module__": __name__, "__qualname__": "Cold", "model_config": {"frozen": True}}
        )


def test_event_itself_is_no_event() -> None:
    with pytest.raises(EventDefinitionError, match="subclass"):
        Event()


def test_defining_the_page_s_events_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Shadows(Event):
            schema_name: str = "s"
            model_name: str = "m"
            data: dict[str, Any] = {}
            type: str = "t"
            id: int = 1

    assert Shadows().data == {}


def test_schema_is_json_text_that_parses() -> None:
    import json

    class S(Event):
        event_type = "s"
        amount: int
        raw: bytes = b""

    schema = json.loads(S.schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["amount"]["type"] == "integer"
    assert schema["properties"]["raw"]["contentEncoding"] == "base64"
    assert "amount" in schema["required"]
    assert {"event_type", "event_id", "timestamp", "version"} <= set(schema["properties"])


def test_duplicate_error_names_both_classes_and_a_way_out() -> None:
    class First(Event):
        event_type = "taken"

    with pytest.raises(DuplicateEventTypeError) as caught:

        class Second(Event):
            event_type = "taken"

    text = str(caught.value)
    assert "First" in text
    assert "Second" in text
    assert "'taken'" in text
    assert "@EventSchema(version=" in text
    assert registry.find("taken") is First


FORWARD = """
@EventSchema(name="forward", version="1.1.0")
class Forward(Event):
    item: Item
    items: list[Item] = []
    again: Forward | None = None

class Item(BaseModel):
    x: int
"""


def defined(source: str) -> dict[str, Any]:
    """The names of a module whose annotations are all texts, as `from __future__ import annotations` makes them."""
    module = types.ModuleType("unit_forward")
    sys.modules[module.__name__] = module
    imports = "from commons_events import Event, EventSchema\nfrom pydantic import BaseModel\n"
    head = f"from __future__ import annotations\n{imports}"
    exec(compile(head + source, "<forward>", "exec"), module.__dict__)
    return module.__dict__


def test_a_forward_reference_is_resolved_at_the_first_use() -> None:
    for use in ("construct", "decode", "decode as Event"):
        with registry.isolated():
            forward = defined(FORWARD)["Forward"]
            data = b'{"event_type": "forward", "version": "1.1.0", "event_id": "i", "item": {"x": 1}}'
            if use == "construct":
                event = forward(item={"x": 1}, again=forward(item={"x": 2}))
            else:
                event = (forward if use == "decode" else Event).from_json(data)
            assert event.item.x == 1
            assert event.version == "1.1.0"
            assert forward.from_json(event.to_json()) == event
            with pytest.raises(ValueError, match="odd"):
                forward(item={"x": 1}, odd=1)


def test_a_name_that_is_nowhere_is_an_error_that_says_so() -> None:
    cls = defined("class Lost(Event):\n    item: Nowhere\n")["Lost"]
    with pytest.raises(Exception, match=r"Lost.*(Nowhere|fully defined)"):
        cls(item=1)
    with pytest.raises(Exception, match=r"Lost.*(Nowhere|fully defined)"):
        cls.from_json(b'{"item": 1}')


# --- a class is made ready on its first use --------------------------------------------------------------------


class _Later(Event):
    event_type = "made.later"
    number: int = 1


@pytest.mark.parametrize(
    "use",
    [
        lambda cls: cls(number=2),
        lambda cls: cls.from_json(b'{"number": 2}'),
        lambda cls: cls.model_validate({"number": 2}),
        lambda cls: cls.model_validate_json('{"number": 2}'),
        lambda cls: cls.model_construct(number=2),
        lambda cls: TypeAdapter(list[cls]).validate_python([{"number": 2}])[0],  # type: ignore[valid-type]
    ],
)
def test_whatever_the_first_use_is_the_class_is_ready(use: Callable[[type[_Later]], _Later]) -> None:
    @EventSchema(name="fresh", version="1.1.0")
    class Fresh(_Later):
        pass

    event = use(Fresh)
    assert (event.number, event.event_type, event.version) == (2, "fresh", "1.1.0")
    assert type(event) is Fresh
    with pytest.raises(AttributeError, match="fact"):
        event.number = 3
    assert Fresh.from_json(event.to_json()) == event


def test_the_first_use_forbids_no_more_than_later_ones() -> None:
    class Loose(BaseModel):
        model_config = ConfigDict(extra="allow")

    class Holding(Event):
        loose: Loose

    loose = Loose.model_validate({"more": 1})
    assert Holding(loose=loose).loose == Holding(loose=loose).loose == loose


def test_a_class_below_one_in_use_is_its_own() -> None:
    class Above(Event):
        one: int = 1

    above = Above()

    class Below(Above):
        two: int = 2

    assert type(Below.from_json(Below(two=3).to_json())) is Below
    with pytest.raises(ValidationError, match="three"):
        Below(three=3)
    assert Above.from_json(above.to_json()) == above


def test_a_class_below_one_in_use_that_lacks_a_name_says_so() -> None:
    class Complete(Event):
        one: int = 1

    Complete()

    class Lacking(Complete):
        other: _NotThereYet  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(EventDefinitionError, match="not fully defined"):
        Lacking()
    with pytest.raises(EventDefinitionError, match="not fully defined"):
        Lacking.from_json(b"{}")


def test_the_decorator_of_what_is_no_event_says_so() -> None:
    class Plain(BaseModel):
        a: int = 0

    for other in (Plain, Event, "Plain"):
        with pytest.raises(EventDefinitionError, match=r"is no event class.*subclass of commons_events\.Event"):
            EventSchema(name="unit.plain")(other)  # type: ignore[type-var]


def test_a_format_in_other_letters_is_an_error_when_the_class_is_created() -> None:
    class Shouted(Event):
        a: int = 0

    with pytest.raises(EventDefinitionError, match=r"no format 'JsonSchema'; write schema_type='jsonschema'"):
        EventSchema(name="unit.shouted", schema_type="JsonSchema")(Shouted)


@pytest.mark.parametrize("schema_type", ["jsonschema", "avro", "protobuf"])
def test_what_is_no_bytes_is_a_type_error(schema_type: str) -> None:
    @EventSchema(name="unit.bytes", schema_type=schema_type)
    class Made(Event):
        a: int = 0

    data = Made().serialize()
    assert Made.deserialize(bytearray(data)).a == 0  # type: ignore[arg-type]
    for other in (None, 5, [data]):
        with pytest.raises(TypeError, match=rf"deserialize takes bytes, not {type(other).__name__}\."):
            Made.deserialize(other)  # type: ignore[arg-type]
