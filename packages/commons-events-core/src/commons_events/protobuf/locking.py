"""The lock file's content: for `commons-events schema lock`, and for build tools that check it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from commons_events.event import Event
from commons_events.protobuf._agreement import unsettled
from commons_events.protobuf._lock import LOCK_NAME, lock_path, parse, render
from commons_events.protobuf._locking import updated

__all__ = ["LOCK_NAME", "unsettled", "updated_files"]


def updated_files(event_classes: Iterable[type[Event]]) -> dict[Path, str]:
    """The text that the lock file of each package should have, with the numbers of these classes.

    Args:
        event_classes: all of their event types and major versions: what no class has any more is reserved.

    Raises:
        EventDefinitionError: numbers clash, a file is damaged, or a class is in no file; the message says where.
    """
    by_path: dict[Path, list[type[Event]]] = {}
    for event_class in event_classes:
        by_path.setdefault(lock_path(event_class.__module__), []).append(event_class)
    return {
        path: render(updated(parse(path.read_bytes(), str(path)) if path.is_file() else {}, classes))
        for path, classes in by_path.items()
    }
