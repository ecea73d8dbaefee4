"""The .proto text of a class: its descriptor in the language that `protoc` reads, with the class's own words."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from commons_events.protobuf._descriptor import describe_file
from commons_events.protobuf._numbers import BLANK, ENVELOPE_NUMBERS
from commons_events.protobuf._plan import File, Message

__all__ = ["render"]

_ENVELOPE_DOCS = {
    "event_type": "CloudEvents' type.",
    "version": "The version of this schema.",
    "event_id": "CloudEvents' id.",
    "source": "CloudEvents' source.",
    "timestamp": "CloudEvents' time.",
    "correlation_id": "What this event belongs to.",
    "causation_id": "What caused it.",
    "metadata": "What the sender put beside the facts.",
}
_BLANK_DOC = "The numbers of fields that are absent because they are None or empty, and not because of their default."
_VALUE_DOC = "Any value: exact, where google.protobuf.Value has doubles."
_BIG_INT_DOC = "Decimal digits, for what 64 bits do not hold."
_WORDS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_FIXED = frozenset({"Value", "ValueList", "ValueMap"})
_texts: dict[str, tuple[str, ...]] = {}
"""The lines of those messages, which are the same in every file."""


def render(file: File) -> str:
    """The text of ``file``."""
    return "\n".join(_Renderer(file).lines()) + "\n"


class _Renderer:
    def __init__(self, file: File) -> None:
        self._file = file
        self._proto: FileDescriptorProto = describe_file(file)
        self._messages = {message.path: message for message in file.all_messages()}
        tops = {message.name for message in self._proto.message_type} | {enum.name for enum in self._proto.enum_type}
        inner = {nested.name for message in file.all_messages() for nested in message.nested}
        self._ambiguous = tops & inner
        self._google = ".google" if "google" in file.package.split(".") else "google"

    def lines(self) -> Iterator[str]:
        cls = self._file.event_class
        yield f"// {cls.event_type} {cls.schema_info().version}"
        yield 'syntax = "proto3";'
        yield ""
        yield f"package {self._proto.package};"
        if self._proto.dependency:
            yield ""
            for imported in self._proto.dependency:
                yield f'import "{imported}";'
        for message in self._proto.message_type:
            yield ""
            if message.name in _FIXED and message.name not in self._messages and not self._ambiguous:
                lines = _texts.get(message.name)
                if lines is None:
                    lines = _texts[message.name] = tuple(self._message(message, message.name, ""))
                yield from lines
            else:
                yield from self._message(message, message.name, "")
        for enum in self._proto.enum_type:
            yield ""
            yield from self._enum(enum)

    def _message(self, proto: DescriptorProto, path: str, indent: str) -> Iterator[str]:
        message = self._messages.get(path)
        yield from _comment(self._doc(proto, message), indent)
        inner = f"{indent}  "
        content: list[str] = []
        if proto.reserved_range:
            numbers = ", ".join(str(r.start) for r in proto.reserved_range)
            names = ", ".join(f'"{name}"' for name in proto.reserved_name)
            content += [f"{inner}reserved {numbers};", *([f"{inner}reserved {names};"] if names else []), ""]
        entries = {nested.name: nested for nested in proto.nested_type if nested.options.map_entry}
        for nested in proto.nested_type:
            if nested.name not in entries:
                content += [*self._message(nested, f"{path}.{nested.name}", inner), ""]
        fields = list(proto.field)
        is_in_oneof = [field.HasField("oneof_index") and not field.proto3_optional for field in fields]
        if any(is_in_oneof):
            content.append(f"{inner}oneof kind {{")
            for field, inside in zip(fields, is_in_oneof, strict=True):
                if inside:
                    content += self._field(field, path, f"{inner}  ", entries, message)
            content.append(f"{inner}}}")
        for field, inside in zip(fields, is_in_oneof, strict=True):
            if not inside:
                content += self._field(field, path, inner, entries, message)
        while content and not content[-1]:
            content.pop()
        yield f"{indent}message {proto.name} {{" + ("" if content else "}")
        if content:
            yield from content
            yield f"{indent}}}"

    def _field(
        self,
        field: FieldDescriptorProto,
        path: str,
        indent: str,
        entries: dict[str, DescriptorProto],
        message: Message | None,
    ) -> list[str]:
        entry = entries.get(field.type_name.rpartition(".")[2]) if field.type_name else None
        if entry is not None and field.type_name.endswith(f".{path}.{entry.name}"):
            key, value = (self._type(part, path) for part in entry.field)
            type_ = f"map<{key}, {value}>"
        else:
            label = "optional " if field.proto3_optional else ""
            if field.label == FieldDescriptorProto.LABEL_REPEATED:
                label = "repeated "
            type_ = label + self._type(field, path)
        return [*_comment(self._field_doc(field, message), indent), f"{indent}{type_} {field.name} = {field.number};"]

    def _type(self, field: FieldDescriptorProto, path: str) -> str:
        if not field.type_name:
            return _WORDS[field.type]
        if field.type_name in (".google.protobuf.Duration", ".google.protobuf.Timestamp"):
            return self._google + field.type_name.removeprefix(".google")
        name = field.type_name.removeprefix(f".{self._proto.package}.")
        if name.startswith(f"{path}."):
            return name.removeprefix(f"{path}.")
        return field.type_name if name.split(".")[0] in self._ambiguous else name

    def _enum(self, proto: EnumDescriptorProto) -> Iterator[str]:
        own = next((enum for enum in self._file.enums if enum.name == proto.name), None)
        yield from _comment(own.doc if own is not None else None, "")
        yield f"enum {proto.name} {{"
        if proto.reserved_range:
            yield f"  reserved {', '.join(str(r.start) for r in proto.reserved_range)};"
            names = ", ".join(f'"{name}"' for name in proto.reserved_name)
            if names:
                yield f"  reserved {names};"
        for value in proto.value:
            yield f"  {value.name} = {value.number};"
        yield "}"

    def _doc(self, proto: DescriptorProto, message: Message | None) -> str | None:
        if message is None:
            return _VALUE_DOC if proto.name == "Value" else None
        if message is self._file.root:
            described = self._file.event_class.schema_info().description
            if described:
                return described
        return message.record.doc if message.record is not None else None

    @staticmethod
    def _field_doc(field: FieldDescriptorProto, message: Message | None) -> str | None:
        number = field.number
        if number == BLANK and field.name == "blank_fields":
            return _BLANK_DOC
        if message is None:
            return _BIG_INT_DOC if field.name == "big_int_value" else None
        slot = next((slot for slot in message.slots if slot.number == number), None)
        if slot is None or slot.field is None:
            return None
        envelope = _ENVELOPE_DOCS if ENVELOPE_NUMBERS.get(slot.field.name) == number else {}
        return slot.field.doc or envelope.get(slot.field.name)


def _comment(text: str | None, indent: str) -> Iterator[str]:
    if not text:
        return
    for line in text.strip().splitlines():
        printable = line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)
        yield f"{indent}// {printable}".rstrip()
