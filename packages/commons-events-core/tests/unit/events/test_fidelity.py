"""Types and settings of pydantic's by which an event would not equal its own round trip: they hold, or are refused."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AfterValidator,
    Base64Bytes,
    Base64Str,
    Base64UrlBytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
)
from typing_extensions import TypeAliasType

from commons_events import Event, EventSchema
from commons_events.errors import EventDefinitionError

FORMATS = ("json", "jsonschema", "avro", "protobuf")

Numbers = TypeAliasType("Numbers", "int | list[Numbers] | dict[str, Numbers]")  # type: ignore[misc]


class Role(str, enum.Enum):
    USER = "user"
    ADMIN = "admin"


class Point:
    """No type that pydantic knows."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.text == self.text

    __hash__ = None  # type: ignore[assignment]


def event_class(annotation: Any, schema_type: str, default: Any = ..., config: ConfigDict | None = None) -> type[Any]:
    base = type("Configured", (Event,), {"model_config": config, "__module__": __name__}) if config else Event
    fields: dict[str, Any] = {"value": (annotation, default)}
    made = create_model(f"Made{schema_type.title()}", __base__=base, __module__=__name__, **fields)
    return EventSchema("made.event", schema_type=schema_type)(made)


def holds(event: Any) -> Any:
    """The event as it comes back from its own format, which is as from JSON."""
    cls = type(event)
    assert cls.from_json(event.to_json()) == event
    assert Event.deserialize(event.serialize()) == event
    return cls.deserialize(event.serialize())


# --- secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (SecretStr, SecretStr("hush"), "hush"),
        (SecretStr | None, SecretStr("hush"), "hush"),
        (list[SecretStr], [SecretStr("hush")], "hush"),
        (SecretBytes, SecretBytes(b"\xff\xfe"), "//4="),
        (Secret[int], Secret(90210), "90210"),
    ],
    ids=str,
)
def test_a_secret_is_in_the_bytes_and_masked_in_all_else(
    annotation: Any, value: Any, text: str, schema_type: str
) -> None:
    event = event_class(annotation, schema_type)(value=value)
    assert holds(event).value == value
    assert text.encode() in event.to_json()
    for shown in (repr(event), str(event), event.model_dump_json()):
        assert "***" in shown
        assert text not in shown


@pytest.mark.parametrize("schema_type", FORMATS)
def test_a_default_that_is_secret_is_in_no_schema(schema_type: str) -> None:
    cls = event_class(SecretStr, schema_type, SecretStr("hush"))
    assert "hush" not in cls.schema
    assert holds(cls()).value == SecretStr("hush")


# --- defaults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize(
    ("annotation", "stated", "value"),
    [
        (int, "5", 5),
        (float, 1, 1.0),
        (Role, "admin", Role.ADMIN),
        (Role | None, "admin", Role.ADMIN),
        (tuple[int, int], [1, 2], (1, 2)),
        (set[int], [1, 1], {1}),
        (timedelta, 60, timedelta(minutes=1)),
        (Annotated[str, AfterValidator(str.upper)], "abc", "ABC"),
        (Annotated[str, AfterValidator(str.upper)] | None, "abc", "ABC"),
    ],
    ids=str,
)
def test_a_default_is_the_value_that_its_type_makes_of_it(
    annotation: Any, stated: Any, value: Any, schema_type: str
) -> None:
    event = event_class(annotation, schema_type, stated)()
    assert event.value == value
    assert type(event.value) is type(value)
    assert holds(event).value == value


@pytest.mark.parametrize("schema_type", FORMATS)
def test_a_validator_of_the_class_sees_defaults(schema_type: str) -> None:
    @EventSchema("defaults", schema_type=schema_type)
    class Greeted(Event):
        model_config = ConfigDict(str_to_lower=True)

        name: str | None = None
        tags: list[str] = []
        word: str = "LOUD"

        @field_validator("name")
        @classmethod
        def named(cls, name: str | None) -> str:
            return name or "nobody"

        @field_validator("tags")
        @classmethod
        def tagged(cls, tags: list[str]) -> list[str]:
            return tags or ["none"]

    event = Greeted()
    assert (event.name, event.tags, event.word) == ("nobody", ["none"], "loud")
    assert holds(event) == event


@pytest.mark.parametrize("schema_type", ["avro", "jsonschema"])
def test_a_schema_states_the_default_as_the_type_makes_it(schema_type: str) -> None:
    found = json.loads(event_class(Role, schema_type, "admin").schema)
    fields = found["fields"] if schema_type == "avro" else [{"name": k} | v for k, v in found["properties"].items()]
    assert next(item for item in fields if item["name"] == "value")["default"] == "admin"


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize(
    ("annotation", "default", "reason"),
    [
        (int, None, r"default None.*valid integer.*\| None"),
        (Annotated[int, Field(ge=5)], 1, "default 1.*greater than or equal to 5"),
        (Role, "nobody", "default 'nobody'.*'user' or 'admin'"),
        (list[int], ["a"], "default.*valid integer"),
    ],
    ids=str,
)
def test_a_default_that_is_no_value_of_the_type_is_refused(
    annotation: Any, default: Any, reason: str, schema_type: str
) -> None:
    with pytest.raises(EventDefinitionError, match=f"field 'value' {'' if reason[0] != 'd' else 'has the '}{reason}"):
        event_class(annotation, schema_type, default)


# --- types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        (Base64Bytes, "Use bytes, which is base64 in JSON"),
        (Base64UrlBytes, "Use bytes"),
        (Base64Str, "Use str"),
        (InstanceOf[Point], "BeforeValidator and PlainSerializer"),
        (type[int], "Use a str"),
        (Callable[[], int], "Use a str"),
    ],
    ids=str,
)
def test_a_type_that_no_bytes_would_bring_back_is_refused(annotation: Any, advice: str, schema_type: str) -> None:
    with pytest.raises(EventDefinitionError, match=rf"field 'value' is .*{advice}"):
        event_class(annotation, schema_type)


@pytest.mark.parametrize("schema_type", FORMATS)
def test_a_type_of_its_own_is_read_by_its_validator_and_written_by_its_serializer(schema_type: str) -> None:
    kind = Annotated[
        Point,
        BeforeValidator(lambda value: value if isinstance(value, Point) else Point(value)),
        PlainSerializer(lambda point: point.text, return_type=str),
    ]
    cls = event_class(kind, schema_type, config=ConfigDict(arbitrary_types_allowed=True))
    assert holds(cls(value=Point("1 2"))).value == Point("1 2")


def test_a_type_whose_json_is_not_known_has_no_json_schema() -> None:
    kind = Annotated[
        Point,
        BeforeValidator(lambda value: value if isinstance(value, Point) else Point(value)),
        PlainSerializer(lambda point: point.text),
    ]
    cls = event_class(kind, "jsonschema", config=ConfigDict(arbitrary_types_allowed=True))
    with pytest.raises(EventDefinitionError, match="return_type"):
        _ = cls.schema


@pytest.mark.parametrize("schema_type", FORMATS)
def test_bytes_may_have_a_form_of_their_own_in_json(schema_type: str) -> None:
    kind = Annotated[
        bytes,
        BeforeValidator(lambda value: bytes.fromhex(value) if isinstance(value, str) else value),
        PlainSerializer(bytes.hex, return_type=str, when_used="json"),
    ]
    event = event_class(kind, schema_type)(value=b"\xff\x00")
    assert b'"ff00"' in event.to_json()
    assert holds(event).value == b"\xff\x00"


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize("value", [1, [1, [2, []]], {"a": [1], "b": {}}], ids=str)
def test_a_type_may_be_inside_itself_without_a_class(value: Any, schema_type: str) -> None:
    assert holds(event_class(Numbers, schema_type)(value=value)).value == value
    assert holds(event_class(list[Numbers], schema_type)(value=[value])).value == [value]


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize(
    ("limits", "values"),
    [
        ({"ge": 0, "lt": 2**64}, [0, 2**64 - 1]),
        ({"le": 2**63}, [2**63, -(2**63), -(10**30)]),
        ({"gt": 2**63 - 1}, [2**63, 2**200]),
        ({"lt": -(2**63)}, [-(2**63) - 1, -(10**30)]),
        ({"ge": -(2**63), "le": 2**63 - 1}, [-(2**63), 2**63 - 1]),
        ({"gt": -(2**63) - 1, "lt": 2**63}, [-(2**63), 2**63 - 1]),
    ],
    ids=str,
)
def test_an_int_holds_as_far_as_its_limits_say(limits: Any, values: list[int], schema_type: str) -> None:
    number = Annotated[int, Field(**limits)]
    cls = event_class(number, schema_type)
    for value in values:
        assert holds(cls(value=value)).value == value
    several = event_class(dict[str, list[number | None]], schema_type)  # type: ignore[valid-type]
    assert holds(several(value={"a": [None, *values], "b": []})).value == {"a": [None, *values], "b": []}


@pytest.mark.parametrize("schema_type", ["avro", "protobuf"])
def test_a_constant_past_64_bits_is_refused_where_it_has_no_form(schema_type: str) -> None:
    with pytest.raises(EventDefinitionError, match=r"1180591620717411303424.* Use an Enum"):
        event_class(Literal[1180591620717411303424], schema_type)


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize("key", [float("inf"), float("nan")])
def test_a_key_that_json_has_no_number_for_is_refused(key: float, schema_type: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        event_class(dict[float, int], schema_type)(value={key: 1})


# --- serializers and settings of a class -----------------------------------------------------------------------


@pytest.mark.parametrize("schema_type", FORMATS)
def test_serializers_of_the_class_are_for_json(schema_type: str) -> None:
    @EventSchema("serializers", schema_type=schema_type)
    class Seen(Event):
        when: datetime
        count: int

        @field_serializer("when")
        def short(self, when: datetime) -> str:
            return when.isoformat(timespec="minutes")

        @model_serializer(mode="wrap")
        def whole(self, handler: Any) -> dict[str, Any]:
            return {**handler(self), "more": 1}

    event = Seen(when=datetime(2024, 2, 29, 12), count=1)
    assert json.loads(event.to_json())["when"] == "2024-02-29T12:00+00:00"
    assert json.loads(event.to_json())["more"] == 1
    assert holds(event) == event


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize("name", ["serialize", "to_json", "finished", "unread", "filler"])
def test_the_name_of_a_method_of_every_event_is_no_field(name: str, schema_type: str) -> None:
    fields: dict[str, Any] = {name: (int, 1)}
    with pytest.raises(EventDefinitionError, match=rf"\.{name}: every event has a method of this name"):
        EventSchema("taken", schema_type=schema_type)(create_model("Taken", __base__=Event, **fields))


def test_a_name_that_only_the_class_uses_may_be_a_fields() -> None:
    fields: dict[str, Any] = dict.fromkeys(("complete", "schema", "deserialize", "restate"), (int, 1))
    with pytest.warns(UserWarning, match="shadows"):  # pydantic's own
        made: Any = create_model("Free", __base__=Event, __module__=__name__, **fields)
    assert holds(made(complete=2)).complete == 2


@pytest.mark.parametrize("excluded", [Field(1, exclude=True), Field(1, exclude_if=lambda value: value == 1)])
def test_a_field_that_is_left_out_of_the_bytes_is_refused(excluded: Any) -> None:
    with pytest.raises(EventDefinitionError, match="field 'value' is excluded.*PrivateAttr"):
        event_class(int, "json", excluded)
    inner = create_model("Inner", x=(int, excluded))
    with pytest.raises(EventDefinitionError, match=r"field 'value\.x' is excluded"):
        event_class(inner, "json")


@pytest.mark.parametrize("setting", [{"ser_json_timedelta": "float"}, {"ser_json_temporal": "seconds"}], ids=str)
@pytest.mark.parametrize("schema_type", FORMATS)
def test_times_are_no_numbers_in_json(setting: Any, schema_type: str) -> None:
    with pytest.raises(EventDefinitionError, match=f"leave {next(iter(setting))} out"):
        event_class(int, schema_type, config=ConfigDict(**setting))
    inner = create_model("Inner", __config__=ConfigDict(**setting), length=(timedelta, ...), when=(datetime, ...))
    value = inner(length=timedelta.max, when=datetime(2024, 2, 29, 12, 0, 0, 123457))
    event = event_class(inner, schema_type)(value=value)
    assert holds(event).value.length == timedelta.max


@pytest.mark.parametrize("schema_type", FORMATS)
def test_enums_as_their_values_are_so_from_defaults_too(schema_type: str) -> None:
    class Held(BaseModel):
        model_config = ConfigDict(use_enum_values=True)

        role: Role = Role.ADMIN

    cls = event_class(Role, schema_type, Role.ADMIN, ConfigDict(use_enum_values=True))
    assert type(cls().value) is str
    assert type(holds(cls()).value) is str
    assert holds(event_class(Held, schema_type)(value={})).value.role == "admin"
    assert holds(event_class(Literal["a"], schema_type)(value="a")).value == "a"
