"""Each Protobuf rule: what breaks it, what only looks like it, and where it is reported."""

from __future__ import annotations

import pytest

from commons_events.compatibility import SchemaText, compatibility

pytest.importorskip("proto_schema_parser", reason="the extra [protobuf] is not installed")


def proto(body: str, *, syntax: str = "proto3") -> str:
    return f'syntax = "{syntax}";\n{body}'


def broken(old: str | SchemaText, new: str | SchemaText) -> set[str]:
    """What keeps the new schema from reading what the old one wrote: ``RULE path``."""
    result = compatibility(old, new, schema_type="protobuf")
    assert all(violation.message and violation.advice for violation in result.violations)
    return {f"{violation.rule} {violation.path}" for violation in result.violations}


# --- fields ----------------------------------------------------------------------------------------------------

SCALARS_READ_FOR_EACH_OTHER = [
    {"int32", "int64", "uint32", "uint64", "bool", "Colour"},
    {"sint32", "sint64"},
    {"string", "bytes"},
    {"fixed32", "sfixed32"},
    {"fixed64", "sfixed64"},
    {"float"},
    {"double"},
]


@pytest.mark.parametrize("new", sorted(set().union(*SCALARS_READ_FOR_EACH_OTHER)))
@pytest.mark.parametrize("old", sorted(set().union(*SCALARS_READ_FOR_EACH_OTHER)))
def test_scalars_may_change_within_their_group(old: str, new: str) -> None:
    text = "message A {{ {} x = 1; }} enum Colour {{ RED = 0; }}"
    same = any({old, new} <= group for group in SCALARS_READ_FOR_EACH_OTHER)
    found = broken(proto(text.format(old)), proto(text.format(new)))
    assert found == (set() if same else {"FIELD_SCALAR_KIND_CHANGED #/A/1"})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("int32 a = 1;", "int32 a = 1; string b = 2;", set(), id="added"),
        pytest.param("int32 a = 1; string b = 2;", "int32 a = 1;", set(), id="removed"),
        pytest.param("int32 a = 1;", "int32 b = 1;", set(), id="renamed"),
        pytest.param("int32 a = 1;", "int32 a = 2;", set(), id="renumbered: one goes, one comes"),
        pytest.param("int32 a = 1;", "string b = 1;", {"FIELD_SCALAR_KIND_CHANGED #/A/1"}, id="number used again"),
        pytest.param("int32 a = 1;", "reserved 1; reserved 'a';", set(), id="reserved"),
        pytest.param("int32 a = 1;", "In a = 1;", {"FIELD_KIND_CHANGED #/A/1"}, id="scalar to message"),
        pytest.param("In a = 1;", "bytes a = 1;", {"FIELD_KIND_CHANGED #/A/1"}, id="message to bytes"),
        pytest.param("In a = 1;", "Other a = 1;", {"FIELD_NAMED_TYPE_CHANGED #/A/1"}, id="another message"),
        pytest.param("In a = 1;", ".shop.In a = 1;", set(), id="the same message, by its whole name"),
        pytest.param("In a = 1;", "shop.In a = 1;", set(), id="the same message, by a longer name"),
        pytest.param("Colour a = 1;", "Size a = 1;", set(), id="an enum is a number"),
        pytest.param("Colour a = 1;", "sint32 a = 1;", {"FIELD_SCALAR_KIND_CHANGED #/A/1"}, id="but no zigzag one"),
        pytest.param("In a = 1;", "repeated In a = 1;", set(), id="a message may be repeated"),
        pytest.param("optional string a = 1;", "repeated string a = 1;", set(), id="and so may a string"),
        pytest.param("string a = 1;", "optional string a = 1;", set(), id="presence of a string"),
        pytest.param("int32 a = 1;", "optional int32 a = 1;", set(), id="presence of a number"),
        pytest.param(
            "optional int32 a = 1;",
            "repeated int32 a = 1;",
            {"FIELD_NUMERIC_LABEL_CHANGED #/A/1"},
            id="a number to numbers",
        ),
        pytest.param(
            "repeated bool a = 1;",
            "bool a = 1;",
            {"FIELD_NUMERIC_LABEL_CHANGED #/A/1"},
            id="numbers to one, unlabelled",
        ),
        pytest.param(
            "repeated Colour a = 1;", "Colour a = 1;", {"FIELD_NUMERIC_LABEL_CHANGED #/A/1"}, id="and enums are numbers"
        ),
        pytest.param(
            "double a = 1;", "repeated double a = 1;", {"FIELD_NUMERIC_LABEL_CHANGED #/A/1"}, id="and doubles are, too"
        ),
        pytest.param("repeated int32 a = 1;", "repeated int32 a = 1 [packed = false];", set(), id="packed or not"),
    ],
)
def test_fields(old: str, new: str, expected: set[str]) -> None:
    text = (
        "package shop; message A {{ {} }} message In {{ int32 x = 1; }} message Other {{ int32 x = 1; }} "
        "enum Colour {{ RED = 0; }} enum Size {{ SMALL = 0; }}"
    )
    assert broken(proto(text.format(old)), proto(text.format(new))) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "map<string, int32> a = 1;", "map<string, int64> a = 1;", set(), id="values that are read the same"
        ),
        pytest.param("map<int32, In> a = 1;", "map<int64, In> a = 1;", set(), id="keys that are read the same"),
        pytest.param(
            "map<string, int32> a = 1;",
            "map<string, string> a = 1;",
            {"FIELD_SCALAR_KIND_CHANGED #/A/1"},
            id="other values",
        ),
        pytest.param(
            "map<string, In> a = 1;", "map<int32, In> a = 1;", {"FIELD_SCALAR_KIND_CHANGED #/A/1"}, id="other keys"
        ),
        pytest.param(
            "map<string, In> a = 1;",
            "map<string, Other> a = 1;",
            {"FIELD_NAMED_TYPE_CHANGED #/A/1"},
            id="other messages",
        ),
        pytest.param(
            "map<string, In> a = 1;", "map<string, bytes> a = 1;", {"FIELD_KIND_CHANGED #/A/1"}, id="messages to bytes"
        ),
        pytest.param("map<string, In> a = 1;", "repeated In a = 1;", {"FIELD_KIND_CHANGED #/A/1"}, id="map to list"),
        pytest.param("string a = 1;", "map<string, In> a = 1;", {"FIELD_KIND_CHANGED #/A/1"}, id="scalar to map"),
        pytest.param(
            "map<string, In> a = 1;",
            "repeated E a = 1; message E { option map_entry = true; string key = 1; In value = 2; }",
            set(),
            id="a map, as it is on the wire",
        ),
        pytest.param(
            "repeated E a = 1; message E { option map_entry = true; string key = 1; In value = 2; }",
            "map<string, int32> a = 1;",
            {"FIELD_KIND_CHANGED #/A/1"},
            id="and back, with other values",
        ),
    ],
)
def test_maps(old: str, new: str, expected: set[str]) -> None:
    text = "message A {{ {} }} message In {{ int32 x = 1; }} message Other {{ int32 x = 1; }}"
    assert broken(proto(text.format(old)), proto(text.format(new))) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("", "required int32 a = 1;", {"REQUIRED_FIELD_ADDED #/A/1"}, id="required comes"),
        pytest.param("required int32 a = 1;", "", {"REQUIRED_FIELD_REMOVED #/A/1"}, id="required goes"),
        pytest.param("optional int32 a = 1;", "", set(), id="optional goes"),
        pytest.param("repeated int32 a = 1;", "", set(), id="repeated goes"),
        pytest.param(
            "optional int32 a = 1;",
            "required int32 a = 1;",
            {"FIELD_NUMERIC_LABEL_CHANGED #/A/1"},
            id="becomes required",
        ),
        pytest.param(
            "required bool a = 1;",
            "optional bool a = 1;",
            {"FIELD_NUMERIC_LABEL_CHANGED #/A/1"},
            id="no longer required",
        ),
        pytest.param("optional bytes a = 1;", "required bytes a = 1;", set(), id="a string's label is free"),
        pytest.param("optional int32 a = 1 [default = 1];", "optional int32 a = 1 [default = 2];", set(), id="default"),
        pytest.param("", "optional group G = 1 { optional int32 x = 1; }", set(), id="a group comes"),
        pytest.param("optional group G = 1 { optional int32 x = 1; }", "", set(), id="a group goes"),
        pytest.param(
            "optional group G = 1 { optional int32 x = 1; }",
            "optional group G = 1 { optional string x = 1; }",
            {"FIELD_SCALAR_KIND_CHANGED #/A/G/1"},
            id="inside a group",
        ),
        pytest.param(
            "optional group G = 1 { optional int32 x = 1; }",
            "optional G g = 1; message G { optional int32 x = 1; }",
            {"FIELD_KIND_CHANGED #/A/1"},
            id="a group is delimited in another way than a message",
        ),
    ],
)
def test_proto2(old: str, new: str, expected: set[str]) -> None:
    text = "message A {{ {} }}"
    assert broken(proto(text.format(old), syntax="proto2"), proto(text.format(new), syntax="proto2")) == expected


def test_editions() -> None:
    text = 'edition = "2023"; message A {{ A a = 1{}; int32 b = 2{}; }}'
    assert broken(text.format("", ""), text.format("", "")) == set()
    assert broken(text.format("", ""), text.format(" [features.message_encoding = DELIMITED]", "")) == {
        "FIELD_KIND_CHANGED #/A/1"
    }
    assert broken(text.format("", ""), text.format("", " [features = { field_presence: LEGACY_REQUIRED }]")) == {
        "FIELD_NUMERIC_LABEL_CHANGED #/A/2"
    }


# --- oneofs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("oneof o { int32 a = 1; }", "oneof o { int32 a = 1; int32 b = 2; }", set(), id="one more"),
        pytest.param(
            "oneof o { int32 a = 1; int32 b = 2; }",
            "oneof o { int32 a = 1; }",
            {"ONEOF_FIELD_REMOVED #/A/o/2"},
            id="one less",
        ),
        pytest.param("oneof o { int32 a = 1; int32 b = 2; }", "", set(), id="gone as a whole"),
        pytest.param("", "oneof o { int32 a = 1; int32 b = 2; }", set(), id="come as a whole"),
        pytest.param(
            "oneof o { int32 a = 1; int32 b = 2; }", "oneof p { int32 a = 1; int32 b = 2; }", set(), id="renamed"
        ),
        pytest.param(
            "oneof o { int32 a = 1; int32 b = 2; }",
            "oneof p { int32 a = 1; }",
            {"ONEOF_FIELD_REMOVED #/A/o/2"},
            id="renamed, with one less",
        ),
        pytest.param("oneof o { int32 a = 1; int32 b = 2; }", "int32 a = 1; int32 b = 2;", set(), id="dissolved"),
        pytest.param(
            "oneof o { int32 a = 1; int32 b = 2; }",
            "int32 a = 1;",
            {"ONEOF_FIELD_REMOVED #/A/o/2"},
            id="dissolved, with one less",
        ),
        pytest.param(
            "oneof o { int32 a = 1; int32 b = 2; }", "oneof o { int32 a = 1; } int32 b = 2;", set(), id="one moves out"
        ),
        pytest.param(
            "oneof o { int32 a = 1; int32 b = 2; }",
            "oneof o { int32 a = 1; } string b = 2;",
            {"FIELD_SCALAR_KIND_CHANGED #/A/2"},
            id="one moves out, and changes",
        ),
        pytest.param("int32 a = 1;", "oneof o { int32 a = 1; }", set(), id="one moves into a new one"),
        pytest.param("int32 a = 1;", "oneof o { int32 a = 1; int32 b = 2; }", set(), id="and is joined by a new field"),
        pytest.param(
            "int32 a = 1;",
            "oneof o { string a = 1; }",
            {"FIELD_SCALAR_KIND_CHANGED #/A/o/1"},
            id="moves in, and changes",
        ),
        pytest.param(
            "int32 a = 1; int32 b = 2;",
            "oneof o { int32 a = 1; int32 b = 2; }",
            {"MULTIPLE_FIELDS_MOVED_TO_ONEOF #/A/o"},
            id="two move into a new one",
        ),
        pytest.param(
            "int32 a = 1; oneof o { int32 b = 2; }",
            "oneof o { int32 a = 1; int32 b = 2; }",
            {"FIELD_MOVED_TO_EXISTING_ONEOF #/A/o"},
            id="one moves into one that was there",
        ),
        pytest.param(
            "int32 a = 1; int32 c = 3; oneof o { int32 b = 2; }",
            "oneof o { int32 a = 1; int32 b = 2; int32 c = 3; }",
            {"MULTIPLE_FIELDS_MOVED_TO_ONEOF #/A/o"},
            id="two move into one that was there",
        ),
        pytest.param(
            "oneof o { int32 a = 1; } oneof p { int32 b = 2; }",
            "oneof o { int32 a = 1; int32 b = 2; }",
            {"FIELD_MOVED_TO_EXISTING_ONEOF #/A/o"},
            id="two become one",
        ),
        pytest.param(
            "oneof o { int32 a = 1; int32 b = 2; }",
            "oneof o { int32 a = 1; } oneof p { int32 b = 2; }",
            set(),
            id="one becomes two",
        ),
    ],
)
def test_oneofs(old: str, new: str, expected: set[str]) -> None:
    text = "message A {{ {} }}"
    assert broken(proto(text.format(old)), proto(text.format(new))) == expected


# --- messages, enums, the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("message A {}", "message A {} message B {}", set(), id="a message comes"),
        pytest.param("message A {} message B {}", "message A {}", {"MESSAGE_REMOVED #/B"}, id="a message goes"),
        pytest.param("message A {} message B {}", "message B {} message A {}", set(), id="in another order"),
        pytest.param("message A {}", "message B {}", {"MESSAGE_REMOVED #/A"}, id="renamed"),
        pytest.param("message A { message B {} }", "message A {}", {"MESSAGE_REMOVED #/A/B"}, id="an inner one goes"),
        pytest.param(
            "message A { message B {} }",
            "message A {} message B {}",
            {"MESSAGE_REMOVED #/A/B"},
            id="an inner one moves",
        ),
        pytest.param(
            "message A { message B { message C { int32 x = 7; } } }",
            "message A { message B { message C { float x = 7; } } }",
            {"FIELD_SCALAR_KIND_CHANGED #/A/B/C/7"},
            id="deep inside",
        ),
        pytest.param("enum E { X = 0; }", "enum E { X = 0; Y = 1; }", set(), id="an enum's value comes"),
        pytest.param("enum E { X = 0; Y = 1; }", "enum E { X = 0; }", set(), id="an enum's value goes"),
        pytest.param("enum E { X = 0; Y = 1; }", "enum E { X = 0; Z = 1; }", set(), id="an enum's value is renamed"),
        pytest.param("enum E { X = 0; }", "message A {}", set(), id="an enum goes"),
        pytest.param("message E {}", "enum E { X = 0; }", {"MESSAGE_REMOVED #/E"}, id="a message becomes an enum"),
        pytest.param("message A {}", "package p; message A {}", {"PACKAGE_CHANGED #/"}, id="a package comes"),
        pytest.param(
            "package p; message A {}", "package q; message A {}", {"PACKAGE_CHANGED #/"}, id="another package"
        ),
        pytest.param(
            "package p; message A { A a = 1; .p.A b = 2; }",
            "package p; message A { p.A a = 1; A b = 2; }",
            set(),
            id="the same type in other words",
        ),
        pytest.param(
            "message A { B b = 1; message B { int32 x = 1; } } message B { int32 x = 1; }",
            "message A { .B b = 1; message B { int32 x = 1; } } message B { int32 x = 1; }",
            {"FIELD_NAMED_TYPE_CHANGED #/A/1"},
            id="the inner name hides the outer one",
        ),
        pytest.param("message A { A a = 1; }", "message A { A a = 1; int32 b = 2; }", set(), id="of itself"),
        pytest.param(
            "message A {} service S { rpc Get(A) returns (A); } extend A { string x = 100; }",
            "message A {}",
            set(),
            id="services and extensions do not count",
        ),
        pytest.param(
            "option java_package = 'a'; message A { int32 a = 1 [deprecated = true]; }",
            "// comment\nmessage A { int32 a = 1; }",
            set(),
            id="nor do options and comments",
        ),
    ],
)
def test_files(old: str, new: str, expected: set[str]) -> None:
    assert broken(proto(old), proto(new)) == expected


# --- imports ---------------------------------------------------------------------------------------------------

MONEY = proto("package lib; message Money { int64 units = 1; Currency currency = 2; enum Currency { EUR = 0; } }")
ORDER = 'import "money.proto"; message Order { lib.Money total = 1; }'


def test_an_imported_type_is_compared_where_it_is_used() -> None:
    changed = MONEY.replace("int64 units", "string units")
    old, new = SchemaText(proto(ORDER), {"money.proto": MONEY}), SchemaText(proto(ORDER), {"money.proto": changed})

    assert broken(old, old) == set()
    assert broken(old, new) == {"FIELD_SCALAR_KIND_CHANGED #/Money/1", "FIELD_NAMED_TYPE_CHANGED #/Order/1"}


def test_what_an_import_imports_is_compared_too() -> None:
    outer = proto('package mid; import "money.proto"; message Price { lib.Money net = 1; }')
    text = proto('import "mid.proto"; message Order { mid.Price price = 1; map<string, mid.Price> more = 2; }')
    changed = MONEY.replace("int64 units", "bytes units")
    old = SchemaText(text, {"mid.proto": outer, "money.proto": MONEY})
    new = SchemaText(text, {"mid.proto": outer, "money.proto": changed})

    assert broken(old, new) == {
        "FIELD_SCALAR_KIND_CHANGED #/Money/1",
        "FIELD_NAMED_TYPE_CHANGED #/Price/1",
        "FIELD_NAMED_TYPE_CHANGED #/Order/1",
        "FIELD_NAMED_TYPE_CHANGED #/Order/2",
    }


def test_a_type_that_moves_to_an_import_is_missed_and_one_that_comes_from_there_is_not() -> None:
    local = proto("message Order { Money total = 1; } message Money { int64 units = 1; Currency currency = 2; "
                  "enum Currency { EUR = 0; } }")  # fmt: skip
    imported = SchemaText(proto(ORDER), {"money.proto": MONEY})

    assert broken(local, imported) == {"MESSAGE_REMOVED #/Money"}
    assert broken(imported, local) == set()


def test_the_package_of_an_import_may_change_as_long_as_the_type_is_the_same() -> None:
    other = SchemaText(
        proto(ORDER.replace("lib.", "lib2.")), {"money.proto": MONEY.replace("package lib", "package lib2")}
    )

    assert broken(SchemaText(proto(ORDER), {"money.proto": MONEY}), other) == set()


def test_an_imported_enum_is_a_number() -> None:
    old = SchemaText(proto('import "m.proto"; message A { lib.Money.Currency c = 1; }'), {"m.proto": MONEY})

    assert broken(old, proto("message A { int32 c = 1; }")) == set()


def test_imported_types_that_refer_to_each_other_end() -> None:
    ring = "package r; message X {{ Y y = 1; }} message Y {{ X x = 1; {} leaf = 2; }}"
    text = proto('import "r.proto"; message A { r.X x = 1; }')
    old = SchemaText(text, {"r.proto": proto(ring.format("int32"))})
    new = SchemaText(text, {"r.proto": proto(ring.format("float"))})

    assert broken(old, old) == set()
    assert broken(old, new) == {
        "FIELD_SCALAR_KIND_CHANGED #/Y/2",
        "FIELD_NAMED_TYPE_CHANGED #/X/1",
        "FIELD_NAMED_TYPE_CHANGED #/Y/1",
        "FIELD_NAMED_TYPE_CHANGED #/A/1",
    }


@pytest.mark.parametrize("name", ["google.protobuf.Timestamp", ".google.protobuf.Timestamp"])
def test_well_known_types_need_not_be_given(name: str) -> None:
    text = 'package shop; import "google/protobuf/timestamp.proto"; message A {{ {} at = 1; }}'
    old = proto(text.format(name))

    assert broken(old, proto(text.format("google.protobuf.Timestamp"))) == set()
    other = text.replace("timestamp.proto", "duration.proto").format("google.protobuf.Duration")
    assert broken(old, proto(other)) == {"FIELD_NAMED_TYPE_CHANGED #/A/1"}
    assert broken(old, proto(text.format("int64"))) == {"FIELD_KIND_CHANGED #/A/1"}


def test_a_well_known_enum_is_a_number() -> None:
    text = 'import "google/protobuf/struct.proto"; message A {{ {} x = 1; }}'
    assert broken(proto(text.format("google.protobuf.NullValue")), proto(text.format("int32"))) == set()
