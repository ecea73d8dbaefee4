"""What containers hold when an event is written, which may not be what they held when it was made."""

import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, PlainSerializer

from commons_events import Event
from commons_events.errors import SerializationError
from commons_events.event import _json
from commons_events.plugins import serializer


class Note(BaseModel):
    extra: dict[str, Any] = {}


class Tree(BaseModel):
    value: Any = None
    under: list["Tree"] = []


class Leaf(BaseModel):
    kind: Literal["leaf"] = "leaf"
    value: Any = None


class Stem(BaseModel):
    kind: Literal["stem"] = "stem"


class ContentsKept(Event):
    plain: dict[str, Any] = {}
    items: list[Any] = []
    optional: dict[str, Any] | None = None
    note: Note = Note()
    deep: dict[str, list[dict[str, Any]]] = {}
    either: Note | str = ""
    tree: Tree = Tree()
    pair: tuple[int, dict[str, Any]] = (0, {})
    tagged: Annotated[Leaf | Stem, Field(discriminator="kind")] = Stem()


def kept() -> ContentsKept:
    return ContentsKept(
        plain={"a": {"b": [1]}},
        items=[{"x": 1}],
        optional={"y": 1},
        note=Note(extra={"q": {}}),
        deep={"k": [{"z": {}}]},
        either=Note(),
        tree=Tree(under=[Tree(value={})]),
        pair=(1, {"a": None}),
        tagged=Leaf(value=[]),
    )


Change = Callable[[Any], object]
CHANGES: dict[str, tuple[str, Change]] = {
    "a tuple for a key": ("plain", lambda e: e.plain.__setitem__((1, 2), 3)),
    "an int for a key": ("plain", lambda e: e.plain.__setitem__(1, 3)),
    "None for a key": ("plain", lambda e: e.plain.__setitem__(None, 3)),
    "an int for a key below": ("plain", lambda e: e.plain["a"].__setitem__(1, 3)),
    "a tuple": ("plain", lambda e: e.plain.__setitem__("t", (1,))),
    "a set in a list": ("plain", lambda e: e.plain["a"]["b"].append({1})),
    "a tuple in a list": ("items", lambda e: e.items.append((1,))),
    "an int for a key in a list": ("items", lambda e: e.items[0].__setitem__(1, 1)),
    "None for a key of an optional dict": ("optional", lambda e: e.optional.__setitem__(None, 1)),
    "bytes": ("optional", lambda e: e.optional.__setitem__("v", b"x")),
    "an int for a key in a model": ("note", lambda e: e.note.extra["q"].__setitem__(2, 1)),
    "an int for a key, deep down": ("deep", lambda e: e.deep["k"][0]["z"].__setitem__(2, 1)),
    "a tuple in a member of a union": ("either", lambda e: e.either.extra.__setitem__("x", (2,))),
    "a tuple in a model that lies in itself": ("tree", lambda e: e.tree.under[0].value.__setitem__("x", (2,))),
    "a tuple in a tuple": ("pair", lambda e: e.pair[1].__setitem__("x", (2,))),
    "a tuple in a tagged member": ("tagged", lambda e: e.tagged.value.append((2,))),
    "a tuple in the metadata": ("metadata", lambda e: e.__dict__["metadata"].__setitem__("x", (2,))),
    "an int of too many digits": ("plain", lambda e: e.plain.__setitem__("x", 10**5000)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
def test_what_any_does_not_hold_is_refused_where_it_came_later(format: str, change: str) -> None:
    codec = serializer(format)
    field, apply = CHANGES[change]
    event = kept()
    assert codec.decode(codec.encode(event), ContentsKept) == event
    apply(event)
    with pytest.raises(SerializationError, match=field if "digits" not in change else "digits"):
        codec.encode(event)


def test_depth_is_bounded_where_it_came_later() -> None:
    event = kept()
    event.plain["a"]["b"] = event.plain  # a circle
    with pytest.raises(SerializationError):
        event.to_json()
    event = kept()
    inner: list[Any] = []
    for _ in range(110):
        inner = [inner]
    event.plain["a"]["b"] = inner
    with pytest.raises(SerializationError, match="deeper than 100"):
        event.to_json()


def test_a_field_with_a_serializer_of_its_own_holds_what_it_likes() -> None:
    class ContentsOwn(Event):
        own: Annotated[Any, PlainSerializer(lambda value: sorted(value), return_type=list)] = None

    event = ContentsOwn(own=[1])
    vars(event)["own"] = {2, 1}
    assert b'"own":[1,2]' in event.to_json()


class WarningsSeen(Event):
    tags: list[str] = []


def test_pydantics_warnings_are_errors_and_nobody_elses_affair() -> None:
    event = WarningsSeen(tags=["a"])
    event.tags.append(5)  # type: ignore[arg-type]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(2):
            with pytest.raises(SerializationError, match="Expected `str`"):
                event.to_json()
    assert not seen
    assert b'"tags":["b"]' in WarningsSeen(tags=["b"]).to_json()


def test_warnings_are_noticed_by_this_interpreter() -> None:
    """Else writing JSON is correct all the same, and slower."""
    assert _json._warnings_are_noticed()


def test_where_warnings_are_not_noticed_pydantic_is_told_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_json, "_warnings_are_noticed", lambda: False)

    class WarningsUnnoticed(Event):
        tags: list[str] = []

    event = WarningsUnnoticed(tags=["a"])
    assert b'"tags":["a"]' in event.to_json()
    event.tags.append(5)  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="Expected `str`"):
        event.to_json()
