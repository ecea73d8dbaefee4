"""What a lock file is to say, from what it says and from the classes there are."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

from commons_events.event import Event
from commons_events.event._versions import version_order
from commons_events.protobuf._lock import LockedMessage, LockedTypes
from commons_events.protobuf._plan import File, package_of, plan_of

__all__ = ["updated"]

Names = dict[str, set[str]]
"""The names in use, by message or enum."""


def updated(locks: dict[str, LockedTypes], event_classes: Iterable[type[Event]]) -> dict[str, LockedTypes]:
    """The locks with the numbers of these classes, which should be all there are of their types and major versions.

    A number that was given away stays with its name. What no class has any more is reserved; what is renamed, by an
    alias, takes its number along. Types that none of the classes is of are left as they are.

    Raises:
        EventDefinitionError: numbers clash; the message says where.
    """
    result = deepcopy(locks)
    by_package: dict[str, list[type[Event]]] = {}
    for event_class in event_classes:
        by_package.setdefault(package_of(event_class), []).append(event_class)
    for package, classes in by_package.items():
        types = result.setdefault(package, LockedTypes())
        messages: Names = {}
        enums: Names = {}
        for event_class in sorted(classes, key=lambda cls: version_order(cls.schema_info().version)):
            _add(types, plan_of(event_class, deepcopy(types)), messages, enums)
        for found, used in ((types.messages, messages), (types.enums, enums)):
            for name, names in used.items():
                _reserve(found[name], names)
    return result


def _add(types: LockedTypes, file: File, messages: Names, enums: Names) -> None:
    for message in file.all_messages():
        if message.role not in ("record", "union"):
            continue  # the numbers of the others are the same for good
        key = message.key(file.root)
        entry = types.messages.setdefault(key, LockedMessage())
        names = messages.setdefault(key, set())
        for slot in message.slots:
            if slot.lock_name is not None:
                entry.numbers[slot.lock_name] = slot.number
                names.add(slot.lock_name)
    for enum in file.enums:
        entry = types.enums.setdefault(enum.name, LockedMessage())
        entry.numbers |= enum.values
        enums.setdefault(enum.name, set()).update(enum.values)


def _reserve(entry: LockedMessage, names: set[str]) -> None:
    in_use = {number for name, number in entry.numbers.items() if name in names}
    for name in entry.numbers.keys() - names:
        number = entry.numbers.pop(name)
        if number not in in_use:  # else it was renamed
            entry.reserved[name] = number
