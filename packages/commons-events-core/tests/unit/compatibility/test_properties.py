"""What holds for every schema: it reads what it wrote, and what a reader may add does no harm. No text breaks more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commons_events.compatibility import CompatibilityMode, Violation, compatibility
from commons_events.errors import CommonsEventsError

pytest.importorskip("avro", reason="the extra [avro] is not installed")
pytest.importorskip("proto_schema_parser", reason="the extra [protobuf] is not installed")

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
IDENTIFIERS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)


class AvroSchemas:
    """Draws schemas whose names are unique, and which may refer to each other and to themselves."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.names: list[str] = []

    def schema(self, depth: int = 3, *, in_union: bool = False) -> Any:
        kinds = ["primitive", "enum", "fixed"]
        if self.names and not in_union:
            kinds.append("name")
        if depth:
            kinds += ["record", "array", "map"] + (["union"] if not in_union else [])
        match self.draw(st.sampled_from(kinds)):
            case "name":
                return self.draw(st.sampled_from(self.names))
            case "enum":
                symbols = self.draw(st.lists(IDENTIFIERS, min_size=1, max_size=4, unique=True))
                more = {"default": symbols[0]} if self.draw(st.booleans()) else {}
                return {"type": "enum", "name": self.name(), "symbols": symbols, **more}
            case "fixed":
                return {"type": "fixed", "name": self.name(), "size": self.draw(st.integers(1, 20))}
            case "record":
                name = self.name()
                fields = self.draw(st.lists(IDENTIFIERS, max_size=4, unique=True))
                return {
                    "type": "record",
                    "name": name,
                    "fields": [{"name": field, "type": self.schema(depth - 1)} for field in fields],
                }
            case "array":
                return {"type": "array", "items": self.schema(depth - 1)}
            case "map":
                return {"type": "map", "values": self.schema(depth - 1)}
            case "union":
                return self.union(depth)
        return self.draw(st.sampled_from(PRIMITIVES))

    def union(self, depth: int) -> list[Any]:
        """No two branches of a type that has no name."""
        branches: dict[str, Any] = {}
        for _ in range(self.draw(st.integers(1, 4))):
            known = len(self.names)
            branch = self.schema(depth - 1, in_union=True)
            key = branch.get("name", branch["type"]) if isinstance(branch, dict) else branch
            if key in branches:
                del self.names[known:]  # what it defines is left out with it
            else:
                branches[key] = branch
        return list(branches.values())

    def name(self) -> str:
        self.names.append(f"space.N{len(self.names)}")
        return self.names[-1]


@st.composite
def avro_schemas(draw: Any) -> Any:
    return AvroSchemas(draw).schema()


@given(avro_schemas())
def test_an_avro_schema_reads_what_it_wrote(schema: Any) -> None:
    text = json.dumps(schema)
    assert compatibility([text, text], text, CompatibilityMode.FULL_TRANSITIVE, schema_type="avro")


@given(avro_schemas())
def test_a_union_of_more_reads_all_that_was_written(schema: Any) -> None:
    more = schema if isinstance(schema, list) else [schema]
    if "null" not in more:
        more = ["null", *more]
    assert compatibility(json.dumps(schema), json.dumps(more), schema_type="avro")


@given(avro_schemas(), avro_schemas())
def test_backward_and_forward_are_each_other_s_mirror(one: Any, other: Any) -> None:
    def stripped(violations: tuple[Violation, ...]) -> list[tuple[str, str, str]]:
        return [(violation.path, violation.rule, violation.message) for violation in violations]

    first, second = json.dumps(one), json.dumps(other)
    backward = compatibility(first, second, "BACKWARD", schema_type="avro")
    forward = compatibility(second, first, "FORWARD", schema_type="avro")
    assert stripped(backward.violations) == stripped(forward.violations)
    both = compatibility(first, second, "FULL", schema_type="avro")
    assert bool(both) is bool(backward and compatibility(second, first, "BACKWARD", schema_type="avro"))


# --- Protobuf --------------------------------------------------------------------------------------------------

SCALARS = ("int32", "sint64", "fixed32", "double", "bool", "string", "bytes")


@st.composite
def proto_messages(draw: Any, name: str = "M", depth: int = 2) -> str:
    inner = [draw(proto_messages(f"{name}{i}", depth - 1)) for i in range(draw(st.integers(0, 2)) if depth else 0)]
    types = [*SCALARS, name, *(f"{name}{i}" for i in range(len(inner)))]
    numbers = draw(st.lists(st.integers(1, 500), max_size=6, unique=True))
    lines = []
    for number in numbers:
        kind = draw(st.sampled_from(["", "optional ", "repeated ", "map", "oneof"]))
        type_ = draw(st.sampled_from(types))
        if kind == "map":
            lines.append(f"map<string, {type_}> f{number} = {number};")
        elif kind == "oneof":
            lines.append(f"oneof o{number} {{ {type_} f{number} = {number}; }}")
        else:
            lines.append(f"{kind}{type_} f{number} = {number};")
    return f"message {name} {{ {' '.join(lines + inner)} }}"


@given(proto_messages())
def test_a_proto_reads_what_it_wrote(message: str) -> None:
    text = f'syntax = "proto3"; package a.b; {message}'
    assert compatibility([text, text], text, CompatibilityMode.FULL_TRANSITIVE)


@given(proto_messages(), st.sampled_from(SCALARS))
def test_a_new_field_and_a_new_message_do_no_harm(message: str, scalar: str) -> None:
    text = f'syntax = "proto3"; {message}'
    more = f"message Before {{}} {message[:-1]} {scalar} another = 501; }} message After {{}}"
    result = compatibility(text, f'syntax = "proto3"; {more}', "BACKWARD")
    assert result, str(result)


# --- anything --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(PRIMITIVES),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "name", "fields", "items", "values", "symbols", "size", "default", "aliases", "namespace", "order",
             "logicalType", "precision", "scale", "doc"]
        ),
        inner | st.sampled_from(["record", "enum", "fixed", "array", "map", "error", "decimal", "date", "R"]),
        max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
@settings(max_examples=300)
def test_json_that_is_no_avro_schema_is_refused_and_nothing_else(document: Any) -> None:
    try:
        compatibility([], json.dumps(document), schema_type="avro")
    except CommonsEventsError as error:
        str(error).encode()


WORDS = st.sampled_from(
    [
        *"{}[]()<>=;,.-'\"\n",
        *("message", "enum", "oneof", "map", "group", "optional", "repeated", "required", "reserved", "extensions"),
        *("syntax", '"proto3"', '"proto2"', "package", "import", "option", "extend", "service", "rpc", "returns"),
        *("to", "max", "1", "2", "0x", "-1", "1.5", "A", "b", "int32", "string", "//", "/*", "*/", "é"),
    ]
)


@given(st.lists(WORDS, max_size=30).map(" ".join) | st.text(max_size=30))
@settings(max_examples=300)
def test_words_that_are_no_proto_text_are_refused_and_nothing_else(text: str) -> None:
    try:
        compatibility([], text, schema_type="protobuf")
    except CommonsEventsError as error:
        str(error).encode("utf-8", "surrogatepass")


@given(st.text(max_size=40))
def test_any_text_is_some_format_or_none(text: str) -> None:
    try:
        compatibility([], text)
    except CommonsEventsError as error:
        str(error).encode("utf-8", "surrogatepass")
