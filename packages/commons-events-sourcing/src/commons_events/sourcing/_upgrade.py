"""`upgrade`: bring a store's tables to this version of the package, by Alembic."""

from __future__ import annotations

import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, inspect
from sqlalchemy.exc import DBAPIError, OperationalError

from commons_events.errors import (
    CommonsEventsError,
    ConfigurationError,
    OlderStoreError,
    StoreSchemaError,
)
from commons_events.sourcing import _tables as t
from commons_events.sourcing._sql import check_schema, take_turns
from commons_events.sourcing._sqlite_errors import failure_of, find_trouble
from commons_events.sourcing._url import check_file, file_of, read_url

__all__ = ["upgrade"]

_SCRIPTS = Path(__file__).parent / "migrations"
_WAIT = 30.0
"""Seconds for another process that writes to an SQLite file, as a store waits: it may be upgrading, and be slow."""
_OTHER_TABLES = re.compile(
    r"no such (table|column|index)|(table|column|index|relation|constraint) .*(already exists|does not exist)"
)


def upgrade(connection_string: str, revision: str = "head") -> str:
    """Bring the store's tables to this version of the package, or make them; nothing else of the database is touched.

    The database has to be there; an SQLite file may be empty. Make a backup before, and stop what writes to the store.
    Blocks until it is done.

    Args:
        connection_string: as for `EventStore`.
        revision: the revision to go to; by default the newest.

    Returns:
        the tables' revision.

    Raises:
        ConfigurationError: the connection string is of no database with tables, or one that cannot hold all
            characters; the revision is none; or an index or trigger that the program has made on the store's tables in
            SQLite does not fit the new ones.
        UnknownDatabaseError: there is no such database, or file.
        StoreUnavailableError: the database is out of reach, or another process is writing to it.
        AuthenticationError: the server refuses the user.
        AuthorizationError: the user has not the right to change the tables.
        TransactionAbortedError: it and others have waited for each other; nothing was changed.
        NewerStoreError: a newer version of the package has changed the tables.
        StoreSchemaError: the tables do not say of which revision they are, or are not those of that revision.
    """
    from alembic import command  # which takes longer to import than all else here
    from alembic.config import Config
    from alembic.util.exc import CommandError

    url = _url(connection_string)
    shown = url.render_as_string(hide_password=True)
    settings: dict[str, Any] = {"connect_args": {"timeout": _WAIT}}
    if (
        url.get_backend_name() == "postgresql"
    ):  # what others have committed is to be seen, whatever the server's default
        settings = {"isolation_level": "READ COMMITTED"}
    engine = create_engine(url, **settings)
    try:
        with engine.begin() as connection:
            if url.get_backend_name() == "sqlite":  # of itself sqlite3 begins only where rows are written
                # a view of the program's own would keep a table from being put in the place of an older one
                connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            take_turns(connection)
            _check(connection)
            own = _own(connection)
            config = Config()
            config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            _put_back(connection, own, shown)
        with engine.connect() as connection:
            return _revision(connection)
    except CommandError as error:
        raise ConfigurationError(
            f"{shown} cannot be brought to the revision {revision!r}: {error}. The newest is {t.SCHEMA_VERSION}."
        ) from error
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        if _OTHER_TABLES.match(said):
            raise StoreSchemaError(
                f"{shown}: the tables are not those of the revision that they name ({said}). Nothing was changed: take "
                "out of the way what is there beside them, or restore them from a backup."
            ) from error
        failure = _failure_of(url, error)
        if failure is None:
            raise
        raise failure from error
    finally:
        engine.dispose()


def _url(connection_string: str) -> URL:
    """The URL for SQLAlchemy.

    Raises:
        ConfigurationError: it is none, or of no database with tables.
        UnknownDatabaseError: it is an SQLite file that is not there.
    """
    url = read_url(connection_string)
    scheme = url.drivername.partition("+")[0]
    if scheme in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg").update_query_dict({"client_encoding": "UTF8"})
    if scheme == "sqlite":
        check_file(connection_string)
        return URL.create("sqlite", database=file_of(connection_string))
    raise ConfigurationError(f"A store on {scheme!r} has no tables to upgrade; there are: postgresql, sqlite.")


def _failure_of(url: URL, error: DBAPIError) -> CommonsEventsError | None:
    """What to raise in its place; None where it says something of a statement."""
    if isinstance(error.orig, sqlite3.Error):
        if (trouble := find_trouble(error)) is None:
            return None
        return failure_of(url.database or "sqlite://", trouble, _WAIT)
    from commons_events.sourcing import _postgres_errors as postgres  # with psycopg, which takes long to import

    assert error.orig is not None
    shown = url.render_as_string(hide_password=True)
    if getattr(error.orig, "sqlstate", None) is None:
        return postgres.not_connected(shown, error.orig)
    return postgres.failure_of(shown, error.orig)


def _own(connection: Connection) -> dict[str, str]:
    """Indexes and triggers that the program has made on the store's tables; on SQLite they go with a table."""
    if connection.dialect.name != "sqlite":
        return {}
    rows = connection.exec_driver_sql(
        "SELECT name, tbl_name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
    )
    return {name: sql for name, table, sql in rows if table in t.NAMES and not name.startswith("commons_events_")}


def _put_back(connection: Connection, own: dict[str, str], shown: str) -> None:
    """Make those anew that went with their tables."""
    present = _own(connection)
    for name, sql in own.items():
        if name in present:
            continue
        try:
            connection.exec_driver_sql(sql)
        except OperationalError as error:
            raise ConfigurationError(
                f"{shown}: {name} does not fit the new tables ({error.orig}). Nothing was changed: drop it, upgrade, "
                "and make it anew as it is to be."
            ) from error


def _revision(connection: Connection) -> str:
    """The tables' revision; "" where there are none."""
    if t.versions.name not in inspect(connection).get_table_names():
        return ""
    return str(connection.execute(t.versions.select()).scalar_one_or_none() or "")


def _check(connection: Connection) -> None:
    """Raise where the tables are of no revision that can be brought up."""
    present = t.NAMES & set(inspect(connection).get_table_names())
    if present and (present != {t.versions.name} or _revision(connection)):  # else what a downgrade to "base" leaves
        with suppress(OlderStoreError):
            check_schema(connection, present)
