"""An event class has the envelope's fields just as pydantic hands fields down to any other model."""

from collections.abc import Iterator
from datetime import datetime
from types import new_class
from typing import Any

import pytest
from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, create_model, field_validator, model_validator
from pydantic.alias_generators import to_camel

from commons_events import Event
from commons_events.event import registry

pytestmark = pytest.mark.usefixtures("isolated")


@pytest.fixture(name="isolated")
def _isolated() -> Iterator[None]:
    with registry.isolated():
        yield


_ENVELOPE: dict[str, Any] = {name: (info.annotation, info) for name, info in Event.model_fields.items()}
Plain = create_model("Plain", __config__=ConfigDict(**Event.model_config), **_ENVELOPE)


class Mixin:
    source = "from the mixin"


class ModelMixin(BaseModel):
    correlation_id: str = "from the mixin"


BODIES: dict[str, tuple[tuple[type[Any], ...], dict[str, Any]]] = {
    "fields": ((), {"__annotations__": {"name": str, "age": int}, "age": 3}),
    "redeclared": ((), {"__annotations__": {"name": str, "source": str}, "source": "orders"}),
    "redeclared last": ((), {"__annotations__": {"name": str, "metadata": dict[str, Any]}}),
    "aliases": ((), {"__annotations__": {"user_name": str}, "model_config": {"alias_generator": to_camel}}),
    "aliases for bytes alone": (
        (),
        {"model_config": {"alias_generator": AliasGenerator(serialization_alias=to_camel)}},
    ),
    "titles": ((), {"model_config": {"field_title_generator": lambda name, info: name.upper()}}),
    "a value of a mixin": ((Mixin,), {"__annotations__": {"name": str}}),
    "a field of a mixin": ((ModelMixin,), {"__annotations__": {"name": str}}),
}


def _made(name: str, bases: tuple[type[Any], ...], namespace: dict[str, Any]) -> type[BaseModel]:
    return new_class(name, bases, exec_body=lambda body: body.update({"__module__": __name__, **namespace}))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("below", [False, True], ids=["subclass", "subclass of a subclass"])
def test_fields_are_handed_down_as_in_a_plain_model(body: str, below: bool) -> None:
    mixins, namespace = BODIES[body]
    event_class, plain = (
        _made("Made", (*mixins, base), {"__qualname__": "Made", **namespace}) for base in (Event, Plain)
    )
    if below:
        event_class, plain = (
            _made("Below", (base,), {"__annotations__": {"more": int}}) for base in (event_class, plain)
        )
    assert {name: repr(info) for name, info in event_class.model_fields.items()} == {
        name: repr(info) for name, info in plain.model_fields.items()
    }


def test_a_field_is_the_class_s_own() -> None:
    class Sent(Event):
        pass

    class Received(Event):
        pass

    for name in Event.model_fields:
        assert len({id(cls.model_fields[name]) for cls in (Event, Sent, Received)}) == 3

    Sent.model_fields["source"].default = "somewhere"
    Sent.model_rebuild(force=True)
    assert (Sent().source, Received().source) == ("somewhere", None)


def test_a_class_that_waits_for_a_name_has_them_too() -> None:
    class Waiting(Event):
        later: "Later | None" = None

    assert list(Waiting.model_fields) == [*Event.model_fields, "later"]

    class Later(BaseModel):
        number: int

    Waiting.model_rebuild(_types_namespace={"Later": Later})
    event = Waiting(later=Later(number=1), source="here")
    assert Waiting.from_json(event.to_json()) == event


class Node(Event):
    inner: "Node | None" = None


def test_a_class_inside_itself_has_them_at_every_level() -> None:
    event = Node(source="outer", inner=Node(source="inner"))
    read = Node.from_json(event.to_json())
    assert read == event
    assert read.inner is not None
    assert (read.inner.source, read.inner.timestamp) == ("inner", event.inner.timestamp if event.inner else None)


def test_validators_of_a_subclass_see_what_it_inherits() -> None:
    class Checked(Event):
        size: int

        @field_validator("source")
        @classmethod
        def short(cls, source: str | None) -> str | None:
            return source and source[:3]

        @model_validator(mode="after")
        def early(self) -> "Checked":
            assert self.timestamp < datetime.fromisoformat("2100-01-01T00:00:00+00:00")
            return self

    assert Checked(size=1, source="somewhere").source == "som"


def test_settings_of_a_subclass_hold_for_what_it_inherits() -> None:
    class Camel(Event):
        model_config = ConfigDict(alias_generator=to_camel, str_strip_whitespace=True)
        user_name: str = Field(default="")

    event = Camel(eventId=" 1 ", userName="x ")  # type: ignore[call-arg]
    assert (event.event_id, event.user_name) == ("1", "x")
    assert Camel.model_validate_json('{"correlationId": "2"}').correlation_id == "2"
