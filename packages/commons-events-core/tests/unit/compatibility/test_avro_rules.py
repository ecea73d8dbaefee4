"""Avro's schema resolution: what breaks each rule, what only looks like it, and where it is reported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commons_events.compatibility import SchemaText, compatibility

pytest.importorskip("avro", reason="the extra [avro] is not installed")


def broken(old: Any, new: Any) -> list[str]:
    """What keeps the new schema from reading what the old one wrote: ``RULE path``, in order."""
    result = compatibility(json.dumps(old), json.dumps(new), schema_type="avro")
    assert all(violation.message and violation.advice for violation in result.violations)
    return [f"{violation.rule} {violation.path}" for violation in result.violations]


def record(*fields: Any, name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, schema: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": schema, **more}


def enum(*symbols: str, name: str = "E", **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F", **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **more}


PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "bytes": {"string"},
    "string": {"bytes"},
}


@pytest.mark.parametrize("new", PRIMITIVES)
@pytest.mark.parametrize("old", PRIMITIVES)
def test_primitive_types_are_promoted(old: str, new: str) -> None:
    reads = new == old or new in PROMOTIONS.get(old, set())
    assert broken(old, new) == ([] if reads else ["TYPE_MISMATCH #"])
    assert broken({"type": "array", "items": old}, {"type": "array", "items": new}) == (
        [] if reads else ["TYPE_MISMATCH #/items"]
    )
    assert broken([old], [new]) == ([] if reads else ["MISSING_UNION_BRANCH #"])


def test_a_decimal_is_not_promoted_to_text_and_back() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    no_decimal = {"type": "bytes", "logicalType": "decimal", "precision": 1, "scale": 2}
    assert broken("string", decimal) == broken(decimal, "string") == ["TYPE_MISMATCH #"]
    assert broken(["null", "string"], ["null", decimal]) == ["MISSING_UNION_BRANCH #"]
    assert broken("bytes", decimal) == broken(decimal, "bytes") == broken(no_decimal, "string") == []


COMPLEX = [record(), enum("A"), fixed(1), {"type": "array", "items": "int"}, {"type": "map", "values": "int"}, "string"]


@pytest.mark.parametrize("new", COMPLEX, ids=str)
@pytest.mark.parametrize("old", COMPLEX, ids=str)
def test_complex_types_are_not(old: Any, new: Any) -> None:
    assert broken(old, new) == ([] if old == new else ["TYPE_MISMATCH #"])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(record(field("a", "int")), record(), [], id="a field goes"),
        pytest.param(record(), record(field("a", "int", default=1)), [], id="a field comes, with a default"),
        pytest.param(
            record(),
            record(field("a", "int")),
            ["READER_FIELD_MISSING_DEFAULT_VALUE #/fields/0"],
            id="a field comes, without one",
        ),
        pytest.param(
            record(field("a", ["null", "int"])), record(field("b", ["null", "int"], default=None)), [], id="null is one"
        ),
        pytest.param(
            record(),
            record(field("a", ["null", "int"])),
            ["READER_FIELD_MISSING_DEFAULT_VALUE #/fields/0"],
            id="to be optional is none",
        ),
        pytest.param(
            record(),
            record(field("a", enum("X", default="X"))),
            ["READER_FIELD_MISSING_DEFAULT_VALUE #/fields/0"],
            id="nor is an enum's own default",
        ),
        pytest.param(record(field("a", "int")), record(field("b", "long", aliases=["a"])), [], id="renamed by alias"),
        pytest.param(
            record(field("a", "string")),
            record(field("b", "int", aliases=["a"])),
            ["TYPE_MISMATCH #/fields/0/type"],
            id="renamed by alias, and changed",
        ),
        pytest.param(
            record(field("a", "int"), field("b", "int")),
            record(field("b", "int", aliases=["a"])),
            ["NAME_MISMATCH #/fields/0"],
            id="a name and an alias that are both there",
        ),
        pytest.param(
            record(field("a", "int"), field("b", "null")),
            record(field("b", "null"), field("a", "int")),
            [],
            id="reordered",
        ),
        pytest.param(
            record(field("a", "int"), field("b", "int")),
            record(field("a", "boolean"), field("c", "int"), field("b", "null")),
            ["READER_FIELD_MISSING_DEFAULT_VALUE #/fields/1", "TYPE_MISMATCH #/fields/0/type",
             "TYPE_MISMATCH #/fields/2/type"],
            id="all that is wrong is said",
        ),
        pytest.param({"type": "map", "values": "int"}, {"type": "map", "values": "null"}, ["TYPE_MISMATCH #/values"],
                     id="a map's values"),
        pytest.param(record() | {"type": "error"}, record(), [], id="an error is a record"),
    ],
)  # fmt: skip
def test_records(old: Any, new: Any, expected: list[str]) -> None:
    assert broken(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(record(name="a.R"), record(name="b.R"), [], id="namespaces do not count"),
        pytest.param(record(name="a.R"), record(name="a.S"), ["NAME_MISMATCH #/name"], id="names do"),
        pytest.param(record(name="a.R"), record(name="a.S", aliases=["R"]), [], id="an alias in the namespace"),
        pytest.param(record(name="a.R"), record(name="b.S", aliases=["a.R"]), [], id="an alias by its whole name"),
        pytest.param(
            record(name="a.R"), record(name="b.S", aliases=["R"]), ["NAME_MISMATCH #/name"], id="in another namespace"
        ),
        pytest.param(record(name="a.R", aliases=["S"]), record(name="a.S"), ["NAME_MISMATCH #/name"],
                     id="the writer's alias is none of the reader's"),
        pytest.param(enum("A"), enum("A", name="G"), ["NAME_MISMATCH #/name"], id="an enum's name"),
        pytest.param(enum("A"), enum("A", name="G", aliases=["E"]), [], id="an enum's alias"),
        pytest.param(fixed(4), fixed(8), ["FIXED_SIZE_MISMATCH #/size"], id="a size"),
        pytest.param(fixed(4), fixed(8, name="G"), ["NAME_MISMATCH #/name", "FIXED_SIZE_MISMATCH #/size"],
                     id="a size and a name"),
        pytest.param(fixed(4), fixed(4, name="G", aliases=["F"]), [], id="a fixed's alias"),
        pytest.param(fixed(4, logicalType="decimal", precision=4), fixed(4, logicalType="decimal", precision=2), [],
                     id="logical types do not count"),
    ],
)  # fmt: skip
def test_names_and_sizes(old: Any, new: Any, expected: list[str]) -> None:
    assert broken(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(enum("A", "B"), enum("B", "A"), [], id="reordered"),
        pytest.param(enum("A"), enum("A", "B"), [], id="one more"),
        pytest.param(enum("A", "B"), enum("A"), ["MISSING_ENUM_SYMBOLS #/symbols"], id="one less"),
        pytest.param(enum("A", "B"), enum("A", default="A"), [], id="one less, with a default for it"),
        pytest.param(enum("A", "B", default="A"), enum("A"), ["MISSING_ENUM_SYMBOLS #/symbols"],
                     id="the writer's default is no help"),
        pytest.param(record(field("e", enum("A", "B"))), record(field("e", enum("A"), default="A")),
                     ["MISSING_ENUM_SYMBOLS #/fields/0/type/symbols"], id="nor is the field's"),
    ],
)  # fmt: skip
def test_enums(old: Any, new: Any, expected: list[str]) -> None:
    assert broken(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("int", ["null", "int"], [], id="into a union"),
        pytest.param("int", ["null", "double"], [], id="into a union, promoted"),
        pytest.param("int", ["null", "boolean"], ["MISSING_UNION_BRANCH #"], id="into none of it"),
        pytest.param(["int"], "int", [], id="out of a union of one"),
        pytest.param(["int", "float"], "double", [], id="out of a union, all promoted"),
        pytest.param(["null", "int"], "int", ["TYPE_MISMATCH #"], id="out of a union, null left behind"),
        pytest.param(["int", "string"], ["string", "int", "null"], [], id="one more, reordered"),
        pytest.param(["null", "int", "string"], ["null"], ["MISSING_UNION_BRANCH #"] * 2, id="two less"),
        pytest.param([], [], [], id="of nothing"),
        pytest.param("int", [], ["MISSING_UNION_BRANCH #"], id="into nothing"),
        pytest.param(record(field("a", "int")), ["null", record(field("a", "string"))], ["MISSING_UNION_BRANCH #"],
                     id="a branch that does not fit inside"),
        pytest.param([record(name="A"), record(name="B")], [record(name="B"), record(name="A")], [], id="by name"),
        pytest.param(record(name="a.A"), [record(name="C"), record(name="B", aliases=["a.A"])], [], id="by alias"),
        pytest.param({"type": "array", "items": "int"}, ["null", {"type": "array", "items": "long"}], [], id="a list"),
    ],
)  # fmt: skip
def test_unions(old: Any, new: Any, expected: list[str]) -> None:
    assert broken(old, new) == expected


def linked(value: Any, **more: Any) -> dict[str, Any]:
    return record(field("value", value), field("next", ["null", "Node"]), name="Node", **more)


def test_a_schema_that_refers_to_itself() -> None:
    assert broken(linked("int"), linked("long")) == []
    assert broken(linked("long"), linked("int")) == [
        "TYPE_MISMATCH #/fields/0/type",
        "MISSING_UNION_BRANCH #/fields/1/type",
    ]


def test_a_doubt_that_is_in_progress_is_no_verdict() -> None:
    """B is asked about first inside A, while A is still being answered; A then fails, and B holds an A."""

    def pair(value: str) -> Any:
        inner = record(field("a", ["null", "A"]), name="B")
        return [
            "null",
            record(field("b", ["null", inner]), field("value", value), name="A"),
            record(field("b", "B"), name="C"),
        ]

    assert broken(pair("int"), pair("int")) == []
    assert broken(pair("string"), pair("int")).count("MISSING_UNION_BRANCH #") == 2  # A, and C through B


def test_types_of_other_texts() -> None:
    money = json.dumps(record(field("units", "long"), name="lib.Money"))
    changed = json.dumps(record(field("units", "string"), name="lib.Money"))
    order = json.dumps(record(field("total", "lib.Money"), name="Order"))

    def against(new: str) -> list[str]:
        old = SchemaText(order, {"money": money})
        result = compatibility(old, SchemaText(order, {"money": new}), schema_type="avro")
        return [f"{violation.rule} {violation.path}" for violation in result.violations]

    assert against(money) == []
    assert against(changed) == ["TYPE_MISMATCH #/fields/0/type/fields/0/type"]
