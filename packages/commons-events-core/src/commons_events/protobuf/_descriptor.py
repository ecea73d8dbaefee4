"""Descriptors (google/protobuf/descriptor.proto) of a class's messages, made without protoc."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, duration_pb2, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.message import Message as ProtoMessage

from commons_events.protobuf._numbers import BLANK
from commons_events.protobuf._plan import Enum, File, Message, Slot

__all__ = ["codec_classes", "describe_file", "proto_class"]

_TYPES = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "sint64": FieldDescriptorProto.TYPE_SINT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
}
_OPTIONAL, _REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
_IMPORTS = {
    "google.protobuf.Duration": "google/protobuf/duration.proto",
    "google.protobuf.Timestamp": "google/protobuf/timestamp.proto",
}
_VALUE = (
    ("null_value", ".NullValue"), ("bool_value", "bool"), ("int_value", "sint64"), ("big_int_value", "string"),
    ("double_value", "double"), ("string_value", "string"), ("list_value", ".ValueList"), ("map_value", ".ValueMap"),
)  # fmt: skip


# --- for everybody ---------------------------------------------------------------------------------------------


def describe_file(file: File) -> FileDescriptorProto:
    """The descriptor of the file that ``SomeEvent.schema`` is the text of."""
    proto = FileDescriptorProto(name=f"{file.package.replace('.', '/')}.proto", package=file.package, syntax="proto3")
    describer = _Describer(file.package)
    proto.message_type.extend(describer.message(message) for message in file.messages)
    proto.enum_type.extend(describer.enum(enum) for enum in file.enums)
    if file.uses_value:
        _add_value(proto, describer)
    if file.uses_null:
        proto.message_type.add(name="Null")
    proto.dependency.extend(sorted(describer.imports))
    return proto


def proto_class(file: File) -> type[ProtoMessage]:
    """A message class of `google.protobuf` for the event's message."""
    pool = descriptor_pool.DescriptorPool()
    for known in (duration_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(describe_file(file).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{file.root.path}"))


class _Describer:
    def __init__(self, package: str) -> None:
        self._package = package
        self.imports: set[str] = set()

    def type_of(self, field: FieldDescriptorProto, type_: str | Message | Enum) -> None:
        if isinstance(type_, Enum):
            field.type, field.type_name = FieldDescriptorProto.TYPE_ENUM, f".{self._package}.{type_.name}"
            return
        name = type_ if isinstance(type_, str) else f".{type_.path}"
        if name in _TYPES:
            field.type = _TYPES[name]
            return
        field.type = FieldDescriptorProto.TYPE_ENUM if name == ".NullValue" else FieldDescriptorProto.TYPE_MESSAGE
        if name in _IMPORTS:
            self.imports.add(_IMPORTS[name])
            field.type_name = f".{name}"
        else:
            field.type_name = f".{self._package}.{name.removeprefix('.')}"

    def message(self, message: Message) -> DescriptorProto:
        proto = DescriptorProto(name=message.name)
        in_map = message.role == "entry" and message.parent is not None and any(
            slot.form is message and slot.many == "map" for slot in message.parent.slots
        )  # fmt: skip
        proto.nested_type.extend(self.message(nested) for nested in message.nested)
        if in_map:
            proto.options.map_entry = True
        if message.role == "union":
            proto.oneof_decl.add(name="kind")
        for slot in message.slots:
            field = proto.field.add(name=slot.name, number=slot.number, label=_OPTIONAL)
            self.type_of(field, slot.form)
            if message.role == "union":
                field.oneof_index = 0
            elif slot.many != "one":
                field.label = _REPEATED
            elif field.type != FieldDescriptorProto.TYPE_MESSAGE and not in_map:
                _make_optional(proto, field)
        if message.blanks:
            proto.field.add(name="blank_fields", number=BLANK, label=_REPEATED, type=FieldDescriptorProto.TYPE_UINT32)
        for name, number in sorted(message.reserved.items(), key=lambda item: item[1]):
            proto.reserved_range.add(start=number, end=number + 1)
            if _is_name(name) and name not in {slot.name for slot in message.slots}:
                proto.reserved_name.append(name)
        return proto

    def enum(self, enum: Enum) -> EnumDescriptorProto:
        proto = EnumDescriptorProto(name=enum.name)
        proto.value.add(name=enum.unspecified, number=0)
        for name, number in sorted(enum.values.items(), key=lambda item: item[1]):
            proto.value.add(name=enum.names[name], number=number)
        for name, number in sorted(enum.reserved.items(), key=lambda item: item[1]):
            proto.reserved_range.add(start=number, end=number)  # an enum's range includes its end
            former = f"{enum.prefix}_{name.upper()}"
            if _is_name(former) and former not in {*enum.names.values(), enum.unspecified}:
                proto.reserved_name.append(former)
        return proto


def _is_name(text: str) -> bool:
    return text.isidentifier() and text.isascii()


def _make_optional(proto: DescriptorProto, field: FieldDescriptorProto) -> None:
    """Proto3's ``optional``: presence is known, by a oneof of its own."""
    field.proto3_optional = True
    field.oneof_index = len(proto.oneof_decl)
    proto.oneof_decl.add(name=f"_{field.name}")


def _add_value(file: FileDescriptorProto, describer: _Describer) -> None:
    null = file.enum_type.add(name="NullValue")
    null.value.add(name="NULL_VALUE", number=0)
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="kind")
    for number, (name, type_) in enumerate(_VALUE, 1):
        describer.type_of(value.field.add(name=name, number=number, label=_OPTIONAL, oneof_index=0), type_)
    items = file.message_type.add(name="ValueList")
    describer.type_of(items.field.add(name="items", number=1, label=_REPEATED), ".Value")
    entries = file.message_type.add(name="ValueMap")
    entry = entries.nested_type.add(name="EntriesEntry")
    entry.options.map_entry = True
    describer.type_of(entry.field.add(name="key", number=1, label=_OPTIONAL), "string")
    describer.type_of(entry.field.add(name="value", number=2, label=_OPTIONAL), ".Value")
    describer.type_of(entries.field.add(name="entries", number=1, label=_REPEATED), ".ValueMap.EntriesEntry")


# --- for the codec ---------------------------------------------------------------------------------------------


def codec_classes(messages: list[Message]) -> list[Any]:
    """A message class for each of the ``messages``, as the codec reads them.

    On the wire a message inside another one is the same as bytes, and an enum the same as an int32. So each message is
    parsed by itself: a limit on nesting is ours to state, the order of a map's entries is kept, and what is wrong is
    known with its place. A message that comes twice has to be merged, which joining its bytes does; so there may be
    several. Fields are called after their numbers: ``f1``.
    """
    file = FileDescriptorProto(name="codec.proto", package="codec", syntax="proto3")
    moment = file.message_type.add(name="Moment")  # Timestamp and Duration are alike
    moment.field.add(name="seconds", number=1, label=_OPTIONAL, type=_TYPES["int64"])
    moment.field.add(name="nanos", number=2, label=_OPTIONAL, type=_TYPES["int32"])
    for index, message in enumerate(messages):
        proto = file.message_type.add(name=f"M{index}")
        if message.role == "union":
            proto.oneof_decl.add(name="kind")
        for slot in message.slots:
            field = proto.field.add(name=f"f{slot.number}", number=slot.number, label=_OPTIONAL)
            _codec_type(field, slot)
            if message.role == "union":
                field.oneof_index = 0
            elif slot.many != "one" or slot.merges:
                field.label = _REPEATED
            elif field.type != FieldDescriptorProto.TYPE_MESSAGE:
                _make_optional(proto, field)
        if message.blanks:
            proto.field.add(name=f"f{BLANK}", number=BLANK, label=_REPEATED, type=_TYPES["uint32"])
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"codec.M{index}")) for index in range(len(messages))
    ]


def _codec_type(field: FieldDescriptorProto, slot: Slot) -> None:
    if isinstance(slot.form, Enum):
        field.type = _TYPES["int32"]
    elif slot.form in _IMPORTS:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, ".codec.Moment"
    else:
        field.type = _TYPES.get(slot.form if isinstance(slot.form, str) else "", _TYPES["bytes"])
