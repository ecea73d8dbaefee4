"""Protobuf: may the bytes of one .proto be read with another one, by the rules of Confluent's registry?

Fields are compared by their numbers, messages by their names and the place where they are nested. What may change
freely is not reported: fields and messages that come, fields that go or are renamed, enums and their values.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass

from commons_events.compatibility._proto_file import Field, Message
from commons_events.compatibility._proto_types import Resolved, Types
from commons_events.compatibility._violation import Violation

__all__ = ["violations"]

_NUMBER = "number"
_TEXT = "string or bytes"
_GROUPS = {
    **dict.fromkeys(("int32", "int64", "uint32", "uint64", "bool"), _NUMBER),
    **dict.fromkeys(("sint32", "sint64"), "zigzag number"),
    **dict.fromkeys(("fixed32", "sfixed32"), "fixed32"),
    **dict.fromkeys(("fixed64", "sfixed64"), "fixed64"),
    **dict.fromkeys(("string", "bytes"), _TEXT),
    "float": "float",
    "double": "double",
}
"""Scalars that are read for each other (protobuf.dev, "Updating A Message Type"); an enum is a number."""

_ADVICE = {
    "PACKAGE_CHANGED": "Keep the package; a new one is a new schema, under a new subject.",
    "MESSAGE_REMOVED": "Keep the message, under its name and where it is; mark it deprecated.",
    "FIELD_KIND_CHANGED": "Keep the field as it is, and add one with a new number for the new type.",
    "FIELD_SCALAR_KIND_CHANGED": "Keep the type, or one that is read the same; add a field with a new number.",
    "FIELD_NAMED_TYPE_CHANGED": "Keep the message type and what is in it, or add a field with a new number.",
    "FIELD_NUMERIC_LABEL_CHANGED": "Keep the label, or add a field with a new number.",
    "REQUIRED_FIELD_ADDED": "Make the field optional.",
    "REQUIRED_FIELD_REMOVED": "Keep the field; readers of the other schema insist on it.",
    "ONEOF_FIELD_REMOVED": "Keep the field in the oneof; mark it deprecated.",
    "MULTIPLE_FIELDS_MOVED_TO_ONEOF": "Leave the fields outside; the last one on the wire would erase the others.",
    "FIELD_MOVED_TO_EXISTING_ONEOF": "Leave the field where it was; it and the oneof's others may both be on the wire.",
}

_Types = tuple[str, str, str, str]
"""A pair of messages by file and full name, of the writer and of the reader."""


def violations(
    reader: str,
    writer: str,
    *,
    reader_imports: Mapping[str, str] | None = None,
    writer_imports: Mapping[str, str] | None = None,
) -> list[Violation]:
    """Why a reader with the first schema cannot read all that was written with the second; empty where it can.

    Args:
        reader: a .proto text.
        writer: another one.
        reader_imports: the texts that the reader's imports name, and those name in turn; google/… need not be there.
        writer_imports: the same for the writer.

    Raises:
        InvalidSchemaError: one of them is no .proto text, or a type in it is not defined.
        MissingDistributionError: the parser is not installed.
    """
    return _Comparison(Types(writer, writer_imports or {}), Types(reader, reader_imports or {})).run()


@dataclass(frozen=True, slots=True)
class _Task:
    """Two messages that are to be compared."""

    path: str
    old: Message
    new: Message
    old_scope: str
    new_scope: str
    owner: _Types | None = None
    """The imported pair that they belong to; None for the texts' own messages."""


class _Comparison:
    def __init__(self, old: Types, new: Types) -> None:
        self._old = old
        self._new = new
        self._found: list[Violation] = []
        self._tasks: deque[_Task] = deque()
        self._imported: set[_Types] = set()
        self._broken: deque[_Types] = deque()
        self._used_by: dict[_Types, list[tuple[str, str, _Types | None]]] = defaultdict(list)
        """Which fields have an imported pair as their type: path, description, owner."""

    def run(self) -> list[Violation]:
        old, new = self._old.file, self._new.file
        if old.package != new.package:
            message = f"the package is {new.package or 'none'} at the reader, {old.package or 'none'} at the writer"
            self._report(None, "#/", "PACKAGE_CHANGED", message)
        self._inner(_Task("#", old.root, new.root, old.package, new.package))
        while self._tasks:
            task = self._tasks.popleft()
            self._oneofs(task)
            self._fields(task)
            self._inner(task)
        self._spread()
        return self._found

    def _report(self, owner: _Types | None, path: str, rule: str, message: str) -> None:
        self._found.append(Violation(path=path, rule=rule, message=message, advice=_ADVICE[rule]))
        if owner is not None:
            self._broken.append(owner)

    def _spread(self) -> None:
        """A field whose imported type is broken is broken, and so is what imports that."""
        done: set[_Types] = set()
        while self._broken:
            if (pair := self._broken.popleft()) in done:
                continue
            done.add(pair)
            for path, field, owner in self._used_by[pair]:
                self._report(
                    owner,
                    path,
                    "FIELD_NAMED_TYPE_CHANGED",
                    f"{field}: its type {pair[3]} cannot read what {pair[1]} allows",
                )

    # --- a message -------------------------------------------------------------------------------------------

    def _inner(self, task: _Task) -> None:
        """The messages inside these two, by name."""
        for name, old in task.old.messages.items():
            path = f"{task.path}/{name}"
            new = task.new.messages.get(name)
            if new is not None:
                self._tasks.append(
                    _Task(path, old, new, _join(task.old_scope, name), _join(task.new_scope, name), task.owner)
                )
            elif not (old.is_group or old.is_entry):
                self._report(task.owner, path, "MESSAGE_REMOVED", f"the reader has no message {name} here any more")

    def _oneofs(self, task: _Task) -> None:
        """Fields that could be on the wire together must not exclude each other."""
        for name, numbers in task.new.oneofs.items():
            before = [task.old.fields[number] for number in numbers if number in task.old.fields]
            outside = [field for field in before if field.oneof is None]
            if len(outside) + len({field.oneof for field in before} - {None}) < 2:
                continue
            names = ", ".join(f"{field.name} ({field.number})" for field in before)
            rule = "MULTIPLE_FIELDS_MOVED_TO_ONEOF" if len(outside) > 1 else "FIELD_MOVED_TO_EXISTING_ONEOF"
            self._report(
                task.owner,
                f"{task.path}/{name}",
                rule,
                f"the reader's oneof {name} joins fields that the writer may set at the same time: {names}",
            )

    def _fields(self, task: _Task) -> None:
        deleted = {
            name
            for name, numbers in task.old.oneofs.items()
            if name not in task.new.oneofs and not any(number in task.new.fields for number in numbers)
        }
        for number in sorted(task.old.fields.keys() | task.new.fields.keys()):
            old, new = task.old.fields.get(number), task.new.fields.get(number)
            if new is None:
                assert old is not None
                self._gone(task, old, is_deleted_oneof=old.oneof in deleted)
            elif old is None:
                if new.label == "required":
                    message = f"the reader insists on {_described(new)}, which the writer does not have"
                    self._report(task.owner, _place(task, new), "REQUIRED_FIELD_ADDED", message)
            else:
                _FieldComparison(self, task, old, new).run()

    def _gone(self, task: _Task, old: Field, *, is_deleted_oneof: bool) -> None:
        if old.oneof is None:
            if old.label == "required":
                message = f"the reader lacks {_described(old)}, which is required at the writer"
                self._report(task.owner, _place(task, old), "REQUIRED_FIELD_REMOVED", message)
        elif not is_deleted_oneof:  # a oneof that goes as a whole goes as any field does
            message = f"the reader lacks {_described(old)}, which the writer's oneof {old.oneof} has"
            self._report(task.owner, _place(task, old), "ONEOF_FIELD_REMOVED", message)

    # --- an imported type ------------------------------------------------------------------------------------

    def imported(self, task: _Task, path: str, field: str, old: Resolved, new: Resolved) -> None:
        """Compare what two imported types hold, once, and remember that a field depends on it."""
        if old.message is None or new.message is None:
            return  # a well-known type, which is the same everywhere
        pair = (old.file, old.full, new.file, new.full)
        self._used_by[pair].append((path, field, task.owner))
        if pair not in self._imported:
            self._imported.add(pair)
            path = "#/" + new.local.replace(".", "/")
            self._tasks.append(_Task(path, old.message, new.message, old.full, new.full, pair))

    def old_types(self) -> Types:
        return self._old

    def new_types(self) -> Types:
        return self._new

    def report(self, task: _Task, path: str, rule: str, message: str) -> None:
        self._report(task.owner, path, rule, message)


class _FieldComparison:
    """The two fields of one number."""

    def __init__(self, comparison: _Comparison, task: _Task, old: Field, new: Field) -> None:
        self._comparison = comparison
        self._task = task
        self._path = _place(task, new)
        self._fields = (old, new)

    def run(self) -> None:
        old, new = self._fields
        old = self._comparison.old_types().entry_of(old, self._task.old_scope) or old
        new = self._comparison.new_types().entry_of(new, self._task.new_scope) or new
        if (old.key is None) != (new.key is None):
            self._report("FIELD_KIND_CHANGED", f"is {_type(new)} at the reader, {_type(old)} at the writer")
        elif old.key is not None and new.key is not None:
            self._types(Field(old.name, old.number, old.key), Field(new.name, new.number, new.key), "key of the map ")
            self._types(old, new, "value of the map ")
        else:
            self._types(old, new)

    def _types(self, old: Field, new: Field, part: str = "") -> None:
        before = self._comparison.old_types().resolve(old.type, self._task.old_scope)
        after = self._comparison.new_types().resolve(new.type, self._task.new_scope)
        if (kind := _kind(new, after)) != _kind(old, before):
            self._report(
                "FIELD_KIND_CHANGED",
                f"{part}is the {kind} {new.type} at the reader, the {_kind(old, before)} {old.type} at the writer",
            )
        elif kind == "scalar":
            self._scalars(old, new, before, after, part)
        else:
            assert before is not None
            assert after is not None
            self._messages(before, after, part)

    def _scalars(self, old: Field, new: Field, before: Resolved | None, after: Resolved | None, part: str) -> None:
        group = _NUMBER if after is not None else _GROUPS[new.type]
        if group != (_NUMBER if before is not None else _GROUPS[old.type]):
            self._report(
                "FIELD_SCALAR_KIND_CHANGED",
                f"{part}is {new.type} at the reader, {old.type} at the writer, which is written in another way",
            )
        elif group != _TEXT and (new.label or "optional") != (old.label or "optional"):
            # A field without a label is a single one, as an optional field is.
            self._report(
                "FIELD_NUMERIC_LABEL_CHANGED",
                f"is {new.label or 'single'} at the reader, {old.label or 'single'} at the writer",
            )

    def _messages(self, before: Resolved, after: Resolved, part: str) -> None:
        if before.local != after.local:
            self._report(
                "FIELD_NAMED_TYPE_CHANGED",
                f"{part}has the message {after.full} at the reader, {before.full} at the writer",
            )
        elif before.file or after.file:
            self._comparison.imported(self._task, self._path, _described(self._fields[1]), before, after)

    def _report(self, rule: str, message: str) -> None:
        self._comparison.report(self._task, self._path, rule, f"{_described(self._fields[1])} {message}")


def _kind(field: Field, type_: Resolved | None) -> str:
    if type_ is None or type_.is_enum:
        return "scalar"
    return "group" if field.is_group else "message"


def _type(field: Field) -> str:
    return field.type if field.key is None else f"map<{field.key}, {field.type}>"


def _described(field: Field) -> str:
    return f"field {field.name} ({field.number})"


def _place(task: _Task, field: Field) -> str:
    inner = f"{field.oneof}/{field.number}" if field.oneof is not None else str(field.number)
    return f"{task.path}/{inner}"


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
