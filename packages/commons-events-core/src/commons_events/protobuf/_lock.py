"""The lock file ``events.lock.json``: the numbers that a package's events have, for good.

It stands in the package that holds the event classes (the outermost one that has an ``__init__.py``), so that it is
installed with it; beside the module where that is in no package. Only ``commons-events schema lock`` writes it. It is
sorted and has one number a line, so that two branches merge; a number that both have given away is then an error
when the class is created.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from pkgutil import get_data
from typing import Any

from commons_events.errors import EventDefinitionError
from commons_events.event import Event
from commons_events.protobuf._numbers import is_free

__all__ = ["LOCK_NAME", "LockedMessage", "LockedTypes", "forget", "lock_path", "locked_types", "parse", "render"]

LOCK_NAME = "events.lock.json"
_FORMAT = 1


@dataclass(slots=True)
class LockedMessage:
    """Numbers by name, of a message's fields or an enum's members; ``reserved`` are those of such as are gone."""

    numbers: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class LockedTypes:
    """What is locked for one event type in one major version."""

    messages: dict[str, LockedMessage] = field(default_factory=dict)
    enums: dict[str, LockedMessage] = field(default_factory=dict)


Locks = dict[str, LockedTypes]
"""By the Protobuf package: event type and major version."""


def locked_types(event_class: type[Event], package: str) -> LockedTypes:
    """What the lock file of the class's package says about it; nothing where there is none.

    Raises:
        EventDefinitionError: the file is no lock file.
    """
    return _of_package(_home(event_class.__module__)).get(package) or LockedTypes()


def lock_path(module: str) -> Path:
    """Where the lock file of an imported module's events is, or is to be.

    Raises:
        EventDefinitionError: the module is no file.
    """
    home = _home(module)
    file = getattr(sys.modules.get(home), "__file__", None)
    if file is None:
        raise EventDefinitionError(f"The module {module!r} is no file, so that no {LOCK_NAME} can stand beside it.")
    return Path(file).parent / LOCK_NAME


def forget() -> None:
    """Read the lock files again when they are next asked for."""
    _of_package.cache_clear()


def _home(module: str) -> str:
    """The outermost package of a module that is no namespace, or the module itself."""
    parts = module.split(".")
    for count in range(1, len(parts)):
        package = ".".join(parts[:count])
        found = sys.modules.get(package)
        if getattr(found, "__file__", None) is not None and not _is_namespace(found):
            return package
    return module


def _is_namespace(module: Any) -> bool:
    """Whether several distributions share the package: by PEP 420, or as `commons_events` does by ``extend_path``."""
    return len(getattr(module, "__path__", ())) > 1


@cache
def _of_package(home: str) -> Locks:
    module = sys.modules.get(home)
    if getattr(module, "__file__", None) is None:
        return {}  # an interactive session, a notebook
    try:
        data = _read(home, module)
    except OSError:
        return {}
    return {} if data is None else parse(data, f"{LOCK_NAME} of {home}")


def _read(home: str, module: Any) -> bytes | None:
    if hasattr(module, "__path__"):
        return get_data(home, LOCK_NAME)  # from a zip file, too
    path = Path(module.__file__).parent / LOCK_NAME
    return path.read_bytes() if path.is_file() else None


# --- the file --------------------------------------------------------------------------------------------------


def parse(data: bytes | str, where: str) -> Locks:
    """What a lock file says.

    Raises:
        EventDefinitionError: it is not one; the message says what is wrong.
    """
    try:
        document = json.loads(data, object_pairs_hook=_members)
    except ValueError as error:
        raise EventDefinitionError(f"{where} is not JSON: {error}. Settle the conflict, if it has one.") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise EventDefinitionError(
            f"{where}: 'format' has to be {_FORMAT}; update commons-events-core, or write it anew with "
            "`commons-events schema lock`."
        )
    try:
        return {
            package: LockedTypes(
                {name: _message(entry, "fields") for name, entry in types.get("messages", {}).items()},
                {name: _message(entry, "members") for name, entry in types.get("enums", {}).items()},
            )
            for package, types in document["protobuf"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EventDefinitionError(f"{where} is damaged: {type(error).__name__}: {error}.") from error


def _message(entry: Mapping[str, Any], members: str) -> LockedMessage:
    found = LockedMessage(dict(entry[members]), dict(entry.get("reserved", {})))
    for name, number in (*found.numbers.items(), *found.reserved.items()):
        if type(number) is not int or not (is_free(number) if members == "fields" else 0 < number < 1 << 31):
            raise ValueError(f"{name!r} has the number {number!r}")
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, which a merge of two files may have left with the same name twice."""
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return members


def render(locks: Locks) -> str:
    """The text of a lock file: the same for the same numbers, whatever order they came in."""
    document = {
        "format": _FORMAT,
        "protobuf": {
            package: {
                "messages": {name: _entry(entry, "fields") for name, entry in types.messages.items()},
                **({"enums": {n: _entry(e, "members") for n, e in types.enums.items()}} if types.enums else {}),
            }
            for package, types in locks.items()
        },
    }
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _entry(entry: LockedMessage, members: str) -> dict[str, Any]:
    return {members: entry.numbers, **({"reserved": entry.reserved} if entry.reserved else {})}
