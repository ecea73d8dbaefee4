"""`JsonSchemaSerializer`: nothing becomes an event that the class's own schema forbids."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from commons_events import Event, EventSchema, Message
from commons_events.binding import BinaryBinding, StructuredBinding, to_event
from commons_events.errors import DeserializationError, EventDefinitionError, MissingDistributionError
from commons_events.plugins import serializer
from commons_events.serialization import JsonSchemaSerializer, JsonSerializer
from commons_events.testing.contracts import SerializerContract

CODEC = JsonSchemaSerializer()


class Line(BaseModel):
    sku: str
    count: Annotated[int, Field(ge=1)] = 1


@EventSchema(name="unit.checked", version="1.1.0", schema_type="jsonschema")
class Checked(Event):
    number: int
    flag: bool = False
    text: Annotated[str, Field(pattern=r"^(a+)+$", max_length=60)] = "a"
    maybe: str | None = None
    day: date | None = None
    raw: bytes = b""
    price: Decimal = Decimal(1)
    kind: Literal["x", 1, True] = "x"
    pair: tuple[int, str] = (1, "a")
    tags: set[int] = set()
    lines: list[Line] = []
    extra: Any = None


@EventSchema(name="unit.checked", version="2.0.0", schema_type="jsonschema")
class CheckedV2(Event):
    number: str


def written(**members: Any) -> bytes:
    """A document of `Checked` with other members."""
    return json.dumps({**json.loads(Checked(number=1).to_json()), **members}).encode()


def refusal(data: bytes, event_class: type[Event] = Checked) -> str:
    with pytest.raises(DeserializationError) as caught:
        event_class.deserialize(data)
    return str(caught.value)


def test_a_class_asks_for_it_by_its_schema_type() -> None:
    assert type(serializer("jsonschema")) is JsonSchemaSerializer
    event = Checked(number=3, raw=b"\xff", lines=[Line(sku="s")])
    assert event.serialize() == event.to_json()
    assert Checked.deserialize(event.serialize()) == event
    assert json.loads(Checked.schema)["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize(
    ("members", "place"),
    [
        ({"number": "1"}, "number: must be integer"),
        ({"number": 1.0}, "number: must be integer"),
        ({"number": True}, "number: must be integer"),
        ({"number": None}, "number: must be integer"),
        ({"flag": 1}, "flag: must be boolean"),
        ({"flag": "true"}, "flag: must be boolean"),
        ({"text": "b"}, "text: must match pattern"),
        ({"text": "a" * 61}, "text: must be shorter"),
        ({"maybe": 5}, "maybe: must be"),
        ({"day": 0}, "day: must be"),
        ({"price": 1}, "price: must be string"),
        ({"kind": True - 1}, "kind: must be one of"),
        ({"kind": 1.5}, "kind: must be one of"),
        ({"pair": [1]}, "pair: must contain at least 2 items"),
        ({"pair": [1, "a", 2]}, "pair: must contain less than or equal to 2 items"),
        ({"pair": [1, 2]}, "pair[1]: must be string"),
        ({"tags": [1, 1]}, "tags: must contain unique items"),
        ({"lines": [{"sku": "s"}, {"sku": 5}]}, "lines[1].sku: must be string"),
        ({"lines": [{"sku": "s", "count": 0}]}, "lines[0].count: must be bigger than or equal to 1"),
        ({"lines": [{}]}, "lines[0]: must contain ['sku'] properties"),
        ({"metadata": []}, "metadata: must be object"),
    ],
)
def test_what_the_schema_forbids_is_refused_with_its_place(members: dict[str, Any], place: str) -> None:
    assert f"Checked: the bytes do not fit its JSON Schema: {place}" in refusal(written(**members))


def test_what_the_class_alone_forbids_is_refused_by_it() -> None:
    assert "base64" in refusal(written(raw="!"))
    assert "day" in refusal(written(day="not a day"))


def test_unknown_members_come_from_a_newer_writer() -> None:
    assert Checked.deserialize(written(added={"by": "tomorrow"})).number == 1


def test_a_class_may_forbid_them() -> None:
    @EventSchema(schema_type="jsonschema")
    class Strict(Event):
        model_config = ConfigDict(extra="forbid")

    assert "must not contain" in refusal(b'{"more": 1}', Strict)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"number": 1} {}', "not JSON"),
        (b"[" * 100_000, "nests too deeply"),
        (b'{"number": 1, "extra": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nests too deeply"),
        (b'{"number": NaN}', "NaN is no JSON"),
        (b'{"number": -Infinity}', "-Infinity is no JSON"),
        (b'{"number": 1, "extra": 1e999}', "1e999 is beyond the range"),
        (b'{"number": ' + b"9" * 5_000 + b"}", "not JSON"),
        (b'{"number": 1, "number": 2}', "the member 'number' twice"),
        (b'{"number": 1, "extra": {"a": 1, "\\u0061": 2}}', "the member 'a' twice"),
        (b"[]", "must be object"),
        (b"null", "must be object"),
        (b'{"event_type": 5, "number": 1}', "event_type: must be same as const"),
        (b'{"version": 5, "number": 1}', "version: must be string"),
    ],
)
def test_hostile_bytes(data: bytes, reason: str) -> None:
    message = refusal(data)
    assert reason in message
    assert len(message) < 700


def test_a_reason_does_not_repeat_what_a_stranger_wrote_without_end() -> None:
    assert len(refusal(written(kind="x" * 100_000, pair={"k" * 100_000: 1}))) < 700


def test_a_pattern_takes_linear_time() -> None:
    assert "text: must match pattern" in refusal(written(text="a" * 59 + "!"))


# --- which class's schema --------------------------------------------------------------------------------------


def test_a_base_class_checks_by_the_class_that_is_found() -> None:
    for read in (JsonSerializer().decode, CODEC.decode):
        data = written()
        assert read(data, Event) == Checked.from_json(data)
        with pytest.raises(DeserializationError, match="number: must be integer"):
            read(written(number="1"), Event)


def test_bytes_of_another_minor_version_are_read_and_checked() -> None:
    assert Checked.deserialize(written(version="1.7.0")).version == "1.1.0"
    assert "number: must be integer" in refusal(written(version="1.7.0", number="1"))


def test_bytes_of_another_major_version_fit_that_version_s_schema() -> None:
    assert "CheckedV2: the bytes do not fit its JSON Schema: number: must be string" in refusal(
        written(version="2.0.0")
    )
    assert "version 1.1.0" in refusal(written(version="2.0.0", number="1"))


def test_bytes_of_something_else_say_so() -> None:
    assert "the bytes are an event of type 'unit.nothing'" in refusal(written(event_type="unit.nothing"))
    with pytest.raises(DeserializationError, match=r"the bytes are|No event class is known"):
        CODEC.decode(b'{"event_type": "unit.nothing"}', Event)
    with pytest.raises(DeserializationError, match="no event_type"):
        CODEC.decode(b"{}", Event)


def test_a_subclass_is_checked_by_its_own_schema() -> None:
    class Base(Event):
        event_type = "unit.base"

    class Sub(Base):
        event_type = "unit.sub"
        number: int

    assert CODEC.decode(Sub(number=1).to_json(), Base).event_type == "unit.sub"
    with pytest.raises(DeserializationError, match="Sub: .* number: must be integer"):
        CODEC.decode(b'{"event_type": "unit.sub", "number": "1"}', Base)


@pytest.mark.parametrize("binding", [BinaryBinding(), StructuredBinding()])
def test_a_message_is_checked_though_its_content_type_is_that_of_json(binding: Any) -> None:
    event = Checked(number=1, source="urn:x")
    message = binding.to_message(event, "topic")
    assert to_event(message, Checked) == to_event(message, Event) == event
    damaged = Message("topic", message.value.replace(b'"number":1', b'"number":"1"'), headers=message.headers)
    for event_class in (Checked, Event):
        with pytest.raises(DeserializationError, match="number: must be integer"):
            to_event(damaged, event_class)


def test_bytes_are_checked_alone_where_that_is_asked_for() -> None:
    CODEC.validate(written(), Checked)
    with pytest.raises(DeserializationError, match="number: must be integer"):
        CODEC.validate(written(number="1"), Checked)


def test_a_class_that_is_decorated_later_is_checked_as_it_is_then() -> None:
    class Late(Event):
        number: int

    assert CODEC.decode(b'{"event_type": "Late", "number": 1}', Late).number == 1
    EventSchema(name="unit.late", version="3.0.0")(Late)
    assert CODEC.decode(b'{"event_type": "unit.late", "version": "3.0.0", "number": 1}', Late).number == 1
    with pytest.raises(DeserializationError):
        CODEC.decode(b'{"event_type": "Late", "number": 1}', Late)


def test_a_recursive_class() -> None:
    event_class = define_tree()
    deep: dict[str, Any] = {"event_type": "unit.tree", "name": "leaf"}
    for _ in range(20):
        deep = {"event_type": "unit.tree", "name": "node", "below": [deep]}
    assert CODEC.decode(json.dumps(deep).encode(), event_class).event_type == "unit.tree"
    deep["below"][0]["below"][0]["name"] = 5
    with pytest.raises(DeserializationError, match=r"below\[0\].below\[0\].name: must be string"):
        CODEC.decode(json.dumps(deep).encode(), event_class)


def define_tree() -> type[Event]:
    class TreeEvent(Event):
        event_type = "unit.tree"
        name: str
        below: list[TreeEvent] = []

    TreeEvent.model_rebuild(_types_namespace={"TreeEvent": TreeEvent})
    return TreeEvent


# --- schemas that a class adds to ------------------------------------------------------------------------------


def of_schema(schema: dict[str, Any]) -> type[Event]:
    class Added(Event):
        event_type = "unit.added"
        field: Annotated[Any, WithJsonSchema(schema)] = None

    return Added


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "object", "properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
        ({"prefixItems": [{}], "unevaluatedItems": False}, [1], [1, 2]),
        ({"contains": {"const": 1}, "minContains": 2}, [1, 1], [1, 2]),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "null"}}, ["a", None], ["a", 1]),
        ({"prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", 1]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"dependentSchemas": {"a": {"minProperties": 2}}}, {"b": 1}, {"a": 1}),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, "ab", "a"),
        ({"not": {"type": "null"}}, 1, None),
        ({"pattern": r"^\p{Lu}"}, "Éa", "éa"),
        ({"pattern": "^(?!x-)"}, "a", "x-a"),
        ({"patternProperties": {r"^\p{Lu}": {"type": "null"}}}, {"É": None}, {"É": 1}),
        ({"patternProperties": {r"^\p{Lu}": {}}, "additionalProperties": False}, {"É": 1}, {"é": 1}),
        ({"multipleOf": 0.1}, 0.3, 0.35),
        ({"multipleOf": 0.1, "pattern": r"^\p{Lu}"}, 0.3, 0.35),
        ({"const": 1}, 1, True),
        ({"enum": [0, [False]]}, [False], [0]),
        ({"uniqueItems": True}, [1, True, [0], [False]], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
    ],
)
def test_keywords_that_pydantic_does_not_check(schema: Any, good: Any, bad: Any) -> None:
    event_class = of_schema(schema)
    CODEC.validate(json.dumps({"field": good}).encode(), event_class)
    with pytest.raises(DeserializationError, match="field"):
        CODEC.validate(json.dumps({"field": bad}).encode(), event_class)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "text"}, "'text' is not valid"),
        ({"pattern": "("}, r"missing \)|unclosed group|unterminated subpattern"),
        ({"properties": {"a": {"$ref": "http://example.test/other.json"}}}, "other documents are not fetched"),
    ],
)
def test_a_schema_that_cannot_be_checked_with_is_the_class_s_fault(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(EventDefinitionError, match=reason):
        CODEC.decode(b'{"event_type": "unit.added", "field": {"a": 1}}', of_schema(schema))


# --- against the library that knows 2020-12 --------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None, max_examples=100)
@given(SerializerContract.strategy, st.data())
def test_whatever_the_library_refuses_is_refused(event: Event, data: st.DataObject) -> None:
    event_class = type(event)
    document = json.loads(event.to_json())
    for name in data.draw(st.lists(st.sampled_from(sorted(document)), min_size=1, max_size=2)):
        change = data.draw(st.sampled_from(["replace", "as text", "wrap", "drop"]))
        if change == "drop":
            document.pop(name, None)
        elif name in document:
            old = document[name]
            document[name] = {"replace": data.draw(values), "as text": str(old), "wrap": [old]}[change]
    written = json.dumps(document).encode()
    fits = jsonschema.Draft202012Validator(json.loads(event_class.schema)).is_valid(document)
    try:
        CODEC.decode(written, event_class)
    except DeserializationError:
        return
    assert fits


keywords = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["integer", "number", "string", "array", "object", ["string", "null"]]),
        "enum": st.lists(values, min_size=1, max_size=3),
        "const": values,
        "minimum": st.integers(-2, 2),
        "maxLength": st.integers(0, 2),
        "multipleOf": st.sampled_from([1, 2]),
        "pattern": st.sampled_from(["^a", "b$"]),
        "uniqueItems": st.booleans(),
        "minItems": st.integers(0, 2),
        "required": st.lists(st.sampled_from(["a", "b"]), max_size=1),
        "dependentRequired": st.just({"a": ["b"]}),
        "maxProperties": st.integers(0, 2),
        "contains": st.just({"type": "integer"}),
        "minContains": st.integers(0, 2),
        "unevaluatedProperties": st.booleans(),
    },
)
schemas = st.recursive(
    keywords | st.booleans(),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=2), "type": st.just("integer")}),
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"prefixItems": st.lists(inner, min_size=1, max_size=2)}, optional={"items": inner}),
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)}),
        st.fixed_dictionaries({"$ref": st.just("#/$defs/more"), "allOf": st.lists(inner, min_size=1, max_size=1)}),
        st.fixed_dictionaries({"if": inner, "then": inner}, optional={"else": inner}),
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=100)
@given(schemas, keywords, values)
def test_any_schema_is_checked_as_the_library_does(schema: Any, more: dict[str, Any], value: Any) -> None:
    from commons_events.serialization._checks import Mismatch, compile_check, parse

    whole = {"type": "object", "properties": {"v": schema}, "$defs": {"more": more}}
    document = json.dumps({"v": value}).encode()
    fits = jsonschema.Draft202012Validator(whole).is_valid(json.loads(document))
    try:
        compile_check(whole)(parse(document))
    except Mismatch:
        # only a number with a fraction of zero may be judged otherwise: it is no integer here
        assert not fits or _has_whole_float(value)
    else:
        assert fits or _has_whole_float(value)


def _has_whole_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_whole_float, value.values()))
    return any(map(_has_whole_float, value)) if isinstance(value, list) else type(value) is float and value.is_integer()


# --- without the extra -----------------------------------------------------------------------------------------


def test_importing_the_formats_imports_no_validator() -> None:
    code = "import commons_events.serialization, sys; print({'fastjsonschema', 'jsonschema'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("missing", ["fastjsonschema", "jsonschema"])
def test_without_the_extra_the_error_has_the_line_to_type(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, globals, locals, fromlist, level)

    monkeypatch.delitem(sys.modules, "commons_events.serialization._checks", raising=False)
    monkeypatch.delattr("commons_events.serialization._checks", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDistributionError, match=r'pip install "commons-events-core\[jsonschema\]"') as caught:
        JsonSchemaSerializer()
    assert isinstance(caught.value, ImportError)
    assert missing in str(caught.value)


def test_dates_are_read_by_the_class_as_ever() -> None:
    assert Checked.deserialize(written(day="2024-02-29")).day == date(2024, 2, 29)
    assert (
        Checked.deserialize(written(timestamp="2024-02-29T12:00:00Z")).timestamp.date() == datetime(2024, 2, 29).date()
    )
