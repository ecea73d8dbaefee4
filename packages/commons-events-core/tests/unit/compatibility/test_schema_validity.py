"""What is no schema is refused, with the place and the reason; quickly, whatever it is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from commons_events.compatibility import compatibility
from commons_events.errors import CommonsEventsError, InvalidSchemaError

pytest.importorskip("avro", reason="the extra [avro] is not installed")
pytest.importorskip("proto_schema_parser", reason="the extra [protobuf] is not installed")

Python = Callable[..., str]


def refused(text: str, schema_type: str) -> str:
    with pytest.raises(InvalidSchemaError) as caught:
        compatibility([], text, schema_type=schema_type)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CommonsEventsError)
    assert str(caught.value).startswith("the new schema: ")
    return str(caught.value)


def with_field(schema: object, **more: object) -> object:
    return {"type": "record", "name": "R", "fields": [{"name": "f", "type": schema, **more}]}


# --- Avro ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("Missing", "Missing"),
        (None, "#: a schema is a name, an object or a list, not null"),
        (3, "#: a schema is a name"),
        ({}, "#: an object needs a type"),
        ({"type": {"type": "int"}}, "#: the type is a name, not"),
        ({"type": "panda"}, "panda"),
        ({"type": "array"}, "#/items: a schema is a name, an object or a list, not null"),
        ({"type": "map", "values": 1}, "#/values: a schema is a name"),
        ({"type": "record", "name": "R"}, "#: a record has a list of fields"),
        ({"type": "record", "name": "R", "fields": [1]}, "#/fields/0: a field is an object"),
        ({"type": "record", "name": "R", "fields": [{"type": "int"}]}, "#/fields/0: a field's name"),
        (with_field("int", name="a-b"), "#/fields/0: a field's name has"),
        ({"type": "record", "name": "R", "fields": [{"name": "a"}]}, "#/fields/0/type: a schema is a name"),
        ({"type": "record", "name": "1R", "fields": []}, "#/name: a name has letters"),
        ({"type": "record", "name": "a..R", "fields": []}, "#/name: a name has letters"),
        ({"type": "record", "fields": []}, "#/name: a name has letters"),
        ({"type": "record", "name": "R", "aliases": "S", "fields": []}, "#/aliases: aliases are a list"),
        ({"type": "record", "name": "R", "aliases": ["ok", "n o"], "fields": []}, "#/aliases/1: an alias is a name"),
        (with_field("int", aliases=["a.b"]), "#/fields/0/aliases/0: an alias is a name"),
        (with_field("int", order="up"), "order"),
        (with_field({"type": "fixed", "name": "R", "size": 1}), '"R" is already in use'),
        ({"type": "fixed", "name": "F"}, "size"),
        ({"type": "fixed", "name": "F", "size": -1}, "size"),
        ({"type": "fixed", "name": "F", "size": "1"}, "size"),
        ({"type": "enum", "name": "E"}, "#/symbols: an enum has a list of symbols"),
        ({"type": "enum", "name": "E", "symbols": ["A", "b c"]}, "#/symbols/1: a symbol has letters"),
        ({"type": "enum", "name": "E", "symbols": ["A", "A"]}, "Duplicate"),
        ({"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}, "default"),
        ({"type": "enum", "name": "int", "symbols": ["A"]}, "reserved"),
        (["int", "int"], "int"),
        (["null", ["int"]], "Unions cannot contain other unions"),
        ([{"type": "map", "values": "int"}, {"type": "map", "values": "string"}], "map"),
    ],
    ids=str,
)  # fmt: skip
def test_avro_schemas_that_are_none(schema: object, said: str) -> None:
    assert said in refused(json.dumps(schema), "avro")


GOOD_DEFAULTS: list[tuple[object, object]] = [
    ("null", None),
    ("boolean", True),
    ("int", 2**31 - 1),
    ("long", -(2**63)),
    ("float", 1),
    ("double", 1.5),
    ("string", "é"),
    ("bytes", "\xff"),
    ({"type": "fixed", "name": "F", "size": 2}, "\x00\xff"),
    ({"type": "enum", "name": "E", "symbols": ["A"]}, "A"),
    ({"type": "array", "items": "int"}, [1, 2]),
    ({"type": "map", "values": ["null", "int"]}, {"a": None, "b": 1}),
    (["null", "int"], None),
    (["null", "int"], 1),
    ({"type": "record", "name": "I", "fields": [{"name": "x", "type": "int"}]}, {"x": 1}),
    ({"type": "record", "name": "I", "fields": [{"name": "x", "type": "int", "default": 0}]}, {}),
]
BAD_DEFAULTS: list[tuple[object, object]] = [
    ("null", 0),
    ("boolean", 1),
    ("int", True),
    ("int", 1.0),
    ("int", "1"),
    ("int", 2**31),
    ("long", 2**63),
    ("float", "1"),
    ("double", None),
    ("string", 1),
    ("bytes", "Ā"),
    ("bytes", [1]),
    ({"type": "fixed", "name": "F", "size": 2}, "abc"),
    ({"type": "enum", "name": "E", "symbols": ["A"]}, "B"),
    ({"type": "enum", "name": "E", "symbols": ["A"]}, ["A"]),
    ({"type": "array", "items": "int"}, [1, "2"]),
    ({"type": "array", "items": "int"}, {}),
    ({"type": "map", "values": "int"}, {"a": "b"}),
    (["null", "int"], "x"),
    ({"type": "record", "name": "I", "fields": [{"name": "x", "type": "int"}]}, {}),
    ({"type": "record", "name": "I", "fields": [{"name": "x", "type": "int"}]}, {"x": "1"}),
    ({"type": "record", "name": "I", "fields": []}, []),
]


@pytest.mark.parametrize(("schema", "default"), GOOD_DEFAULTS, ids=str)
def test_avro_defaults_that_fit(schema: object, default: object) -> None:
    assert compatibility([], json.dumps(with_field(schema, default=default)), schema_type="avro")


@pytest.mark.parametrize(("schema", "default"), BAD_DEFAULTS, ids=str)
def test_avro_defaults_that_do_not(schema: object, default: object) -> None:
    message = refused(json.dumps(with_field(schema, default=default)), "avro")
    assert "#/fields/0/default: the default of field 'f' does not fit" in message


def test_a_default_deep_inside_is_found() -> None:
    inner = with_field("int", default="x")
    schema = {"type": "map", "values": {"type": "array", "items": ["null", inner]}}
    assert "#/values/items/1/fields/0/default" in refused(json.dumps(schema), "avro")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "int", "logicalType": "panda"},
        {"type": "int", "logicalType": "time-micros"},
        {"type": "bytes", "logicalType": "decimal", "precision": -1},
        {"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 100},
        {"type": "record", "name": "record", "fields": []},
        {"type": "record", "name": "a.int", "fields": []},
        {"type": "fixed", "name": "F", "namespace": "", "size": 1, "doc": "d", "more": {"type": 1}},
    ],
    ids=str,
)
def test_logical_types_that_do_not_fit_are_ignored(schema: object) -> None:
    assert compatibility([], json.dumps(schema), schema_type="avro")


# --- Protobuf --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("message A {", "line 1, column 12"),
        ('syntax = "proto3";\nmessage A {\n  int32 a = ;\n}', "line 3, column 13"),
        ("panda", "line 1, column 1"),
        ('syntax = "proto4"; message A {}', "no syntax 'proto4'"),
        ("message A { optional int32 a = 1; optional int32 b = 1; }", "A.b: the number 1 is 'a''s already"),
        ("message A { oneof o { int32 a = 1; } optional int32 b = 1; }", "A.b: the number 1"),
        ("message A { optional int32 a = 0; }", "A.a: a field's number is 1 to"),
        ("message A { optional int32 a = 19500; }", "A.a: a field's number"),
        ("message A { optional int32 a = 536870912; }", "A.a: a field's number"),
        ('syntax = "proto3"; message A { message B { required int32 a = 1; } }', "A.B.a: proto3 has no required"),
        ("message A {} enum A { X = 0; }", "the name 'A' is defined twice"),
        ("message A { oneof o { int32 a = 1; } oneof o { int32 b = 2; } }", "two oneofs 'o'"),
        ("message A { map<double, int32> a = 1; }", "line 1, column 17"),
        ("package p; message A { optional B b = 1; }", "p.A: B is not defined"),
        ('import "b.proto"; message A { optional B b = 1; }', "it may come from b.proto"),
    ],
)
def test_proto_texts_that_are_none(text: str, said: str) -> None:
    assert said in refused(text, "protobuf")


@pytest.mark.parametrize("field", ["Foo x = 1;", "map<string, Foo> x = 1;", "oneof o { Foo x = 1; }"])
def test_a_type_that_is_not_defined_is_an_error_where_nothing_is_compared_with_it(field: str) -> None:
    start = 'syntax = "proto3"; message A { '
    for old, new in ((f"{start}{field} }}", f"{start}}}"), (f"{start}}}", f"{start}{field} }}")):
        with pytest.raises(InvalidSchemaError, match="A: Foo is not defined"):
            compatibility(old, new)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffsyntax = 'proto3';\r\nmessage A { // {{{{\r\n int32 a = 0x1F; }\r\n/* [[[ */",
        'option x = "{{{{"; message A { optional int32 a = 017 [default = -1, (x.y) = { a: [1, 2] b { c: "d" } }]; }',
        "message A { optional string message = 1; optional bool optional = 2; reserved 5 to max; extensions 3, 4; }",
        "enum E { option allow_alias = true; A = 0; B = 0; C = -1; reserved 'D'; } ;",
        "service S { rpc Get(stream A) returns (A) { option deprecated = true; } } message A {}",
    ],
)
def test_proto_texts_in_all_their_forms(text: str) -> None:
    assert compatibility([], text, schema_type="protobuf")


# --- hostile ones ----------------------------------------------------------------------------------------------

DEEP = 10_000


@pytest.mark.parametrize(
    ("text", "schema_type", "said"),
    [
        pytest.param("", "avro", "empty", id="empty"),
        pytest.param(" \n", "protobuf", "empty", id="blank"),
        pytest.param("\x00\x01", "avro", "line 1, column 1", id="binary"),
        pytest.param("message A {}\n\x00", "protobuf", "line 2, column 1", id="a zero byte"),
        pytest.param("{", "avro", "line 1, column 2", id="cut off"),
        pytest.param("[" * DEEP, "avro", "nested more than", id="deep lists"),
        pytest.param('{"type":"array","items":' * DEEP + '"a"' + "}" * DEEP, "avro", "nested more than", id="arrays"),
        pytest.param("message A {" * DEEP + "}" * DEEP, "protobuf", "nested more than", id="deep messages"),
        pytest.param("option a = " + "{a:" * DEEP, "protobuf", "nested more than", id="deep options"),
        pytest.param('"' + "x" * (1 << 21) + '"', "avro", "characters", id="long"),
        pytest.param(";" * (1 << 18), "protobuf", "words and signs", id="many statements"),
        pytest.param('{"type":"fixed","name":"F","size":' + "9" * 5_000 + "}", "avro", "digits", id="a long number"),
        pytest.param(
            '{"type":"fixed","name":"F","logicalType":"decimal","precision":4,"size":' + "9" * 400 + "}",
            "avro",
            "too large",
            id="a number beyond all floats",
        ),
        pytest.param(
            json.dumps(
                {"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": "int"} for i in range(10_001)]}
            ),
            "avro",
            "10,000 fields",
            id="many fields",
        ),
        pytest.param(json.dumps(with_field("double", default=float("nan"))), "avro", "NaN", id="no JSON"),
        pytest.param('"\\ud800"', "avro", "\\ud800", id="half a character"),
    ],
)  # fmt: skip
def test_hostile_texts(text: str, schema_type: str, said: str) -> None:
    message = refused(text, schema_type)
    assert said in message
    assert len(message) < 1_000
    message.encode()


def test_a_chain_of_names_is_as_long_as_it_likes() -> None:
    def chain(last: str) -> str:
        first = {"type": "record", "name": "R0", "fields": [{"name": "f", "type": last}]}
        others = [
            {"type": "record", "name": f"R{i}", "fields": [{"name": "f", "type": f"R{i - 1}"}]} for i in range(1, 1_100)
        ]
        return json.dumps([first, *others])

    assert compatibility(chain("int"), chain("long"), schema_type="avro")
    assert len(compatibility(chain("long"), chain("int"), schema_type="avro").violations) == 1_100


def test_a_chain_of_imports_is_too() -> None:
    from commons_events.compatibility import SchemaText

    size = 1_100

    def chain(last: str) -> SchemaText:
        names = [f"message R{i} {{ optional {f'R{i - 1}' if i else last} f = 1; }}" for i in range(size)]
        return SchemaText(
            f'import "lib.proto"; message A {{ optional lib.R{size - 1} f = 1; }}',
            {"lib.proto": f"package lib; {' '.join(names)}"},
        )

    assert compatibility(chain("int32"), chain("int64"), schema_type="protobuf")
    assert len(compatibility(chain("int32"), chain("float"), schema_type="protobuf").violations) == size + 1


def test_large_enums() -> None:
    symbols = [f"S{i}" for i in range(50_000)]
    old = json.dumps({"type": "enum", "name": "E", "symbols": symbols})
    assert compatibility(old, json.dumps({"type": "enum", "name": "E", "symbols": symbols[::-1]}))
    (violation,) = compatibility(old, json.dumps({"type": "enum", "name": "E", "symbols": symbols[:1]})).violations
    assert len(violation.message) < 200


# --- extras ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "text", "extra"),
    [
        ("avro", '"int"', "avro"),
        ("proto_schema_parser", 'syntax = "proto3"; message A {}', "protobuf"),
        ("antlr4", 'syntax = "proto3"; message A {}', "protobuf"),
    ],
)
def test_without_the_extra_there_is_the_line_to_type(python: Python, missing: str, text: str, extra: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from commons_events.compatibility import compatibility
try:
    compatibility([], {text!r})
except ImportError as error:
    print(type(error).__name__, error)
"""
    printed = python(code)
    assert printed.startswith("MissingDistributionError")
    assert f'pip install "commons-events-core[{extra}]"' in printed


def test_a_library_is_imported_only_when_its_format_is_compared(python: Python) -> None:
    code = "import commons_events.compatibility, sys; print(*sorted(sys.modules))"
    assert not {"avro", "proto_schema_parser", "antlr4"} & set(python(code).split())
