"""What SQLite says, as errors of this package: the store's and `upgrade`'s alike."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError

from commons_events.errors import CommonsEventsError, StoreSchemaError, StoreUnavailableError, UnknownDatabaseError

__all__ = ["failure_of", "find_trouble", "is_busy"]

_TROUBLES = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB,
    }
)  # fmt: skip
"""SQLite's result codes that say nothing of the statement."""


def failure_of(place: str, error: sqlite3.Error, waited: float) -> CommonsEventsError:
    """What to raise in the place of an error of SQLite's.

    Args:
        place: the file.
        error: what was raised.
        waited: seconds for which it waits for another process that writes.
    """
    said = str(error)
    if "unable to open" in said:
        return UnknownDatabaseError(f"{place} cannot be opened: its folder is missing, or not to be written in.")
    if "not a database" in said:
        return UnknownDatabaseError(f"{place} is not an SQLite file.")
    if "locked" in said:
        return StoreUnavailableError(
            f"{place}: another process has been writing for {waited:g} s (busy_timeout): {said}."
        )
    if _of_other_tables(error):
        return StoreSchemaError(
            f"{place}: the store's tables are no longer those that this package opened ({said}): a newer one has "
            "changed them meanwhile, by upgrade(). Stop this process, and start it with that version."
        )
    return StoreUnavailableError(f"{place}: {said}.")


def find_trouble(error: BaseException, *, own: bool = False) -> sqlite3.Error | None:
    """SQLite's error, where it is the database's trouble, such as a full disk, and not the statement's.

    Args:
        error: what was raised.
        own: the statement is the store's own, so that it fits the tables unless somebody has changed these.
    """
    found = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(found, sqlite3.Error):
        return None
    code = getattr(found, "sqlite_errorcode", None)
    in_trouble = code is not None and code & 0xFF in _TROUBLES
    return found if in_trouble or (own and _of_other_tables(found)) else None


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process is writing."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY


def _of_other_tables(error: sqlite3.Error) -> bool:
    """Whether it says that there is no such table or column."""
    said = str(error)
    return said.startswith(("no such table", "no such column")) or " has no column named " in said
