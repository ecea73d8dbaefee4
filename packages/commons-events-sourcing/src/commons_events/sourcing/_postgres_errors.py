"""What psycopg and the server say, as errors of this package: the store's and `upgrade`'s alike."""

from __future__ import annotations

import psycopg

from commons_events.errors import (
    AuthenticationError,
    AuthorizationError,
    CommonsEventsError,
    ConfigurationError,
    StoreUnavailableError,
    TransactionAbortedError,
    UnknownDatabaseError,
)
from commons_events.sourcing._url import is_refused

__all__ = ["failure_of", "is_trouble", "not_connected", "unreachable"]

_READ_ONLY = "25006"
_FORBIDDEN = "42501"
_NO_SCHEMA = "3F000"
_TROUBLES = ("08", "53", "57P", "58")
"""Classes of SQLSTATE: connection, insufficient resources, shutdown, and system errors."""
_PASSING = ("40001", "40P01", "26000")
"""Serialization failure, deadlock, and a session that was reset in between: the same again may succeed."""


def failure_of(place: str, error: BaseException) -> CommonsEventsError | None:
    """What to raise in the place of an error of psycopg's; None where it says something of the statement itself.

    Args:
        place: the database's address, without the password.
        error: what was raised.
    """
    if not isinstance(error, psycopg.Error):
        return None
    said, state = _said(error), error.sqlstate
    if state == _FORBIDDEN:
        return AuthorizationError(
            f"{place}: the server does not allow the user this ({said}). Give it the right. The store "
            "needs CREATE on the schema to make its tables, unless another user makes them by upgrade(); SELECT, "
            "INSERT, UPDATE and DELETE on them, and USAGE and SELECT on their sequences. To rebuild a projection needs "
            "CREATE on the database."
        )
    if state == _NO_SCHEMA:
        return ConfigurationError(
            f"{place}: there is no schema for the store's tables ({said}). Make it, by CREATE SCHEMA, or correct the "
            "session's search_path."
        )
    if state in _PASSING:
        return TransactionAbortedError(
            f"{place}: the server has broken this off for a reason that passes ({said}). Nothing of it is "
            "stored: do all of it again, from the transaction's beginning."
        )
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.ReadOnlySqlTransaction):
        return unreachable(place, error)
    return None


def unreachable(place: str, error: BaseException) -> CommonsEventsError:
    """What to raise where no statement can be sent, or none that writes."""
    said, state = _said(error), getattr(error, "sqlstate", None)
    if state == "3D000" or ('database "' in said and "does not exist" in said):
        return UnknownDatabaseError(
            f"{place}: there is no such database ({said}). Make it, with createdb, or correct the name."
        )
    if state in ("28000", "28P01") or "authentication failed" in said or 'role "' in said:
        return AuthenticationError(f"{place}: the server refuses the user ({said}).")
    if state == _READ_ONLY:
        return StoreUnavailableError(
            f"{place} takes no writes ({said}): it is a standby, or set to be read-only. Name the primary "
            "server; with several hosts, by target_session_attrs=read-write."
        )
    return StoreUnavailableError(f"{place} is out of reach, or the connection to it broke: {said}.")


def not_connected(place: str, error: BaseException) -> CommonsEventsError:
    """What to raise where no connection came about."""
    said = _said(error)
    if isinstance(error, psycopg.ProgrammingError) or is_refused(said):
        return ConfigurationError(f"{place} cannot be used so: {said}. Correct the setting.")
    return unreachable(place, error)


def is_trouble(error: BaseException | None) -> bool:
    """Whether it is not the statement's fault: a lost connection, a full disk, a deadlock, missing rights."""
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state in (_READ_ONLY, _FORBIDDEN, *_PASSING) or state.startswith(_TROUBLES)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())
