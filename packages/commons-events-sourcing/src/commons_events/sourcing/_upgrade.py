"""`upgrade`: bring a store's tables to this version of the package, by Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from commons_events.errors import ConfigurationError, NewerStoreError, StoreUnavailableError, UnknownDatabaseError
from commons_events.sourcing import _tables as t

__all__ = ["upgrade"]

_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(connection_string: str, revision: str = "head") -> str:
    """Bring the store's tables to this version of the package, or make them; nothing else of the database is touched.

    Make a backup before, and stop what writes to the store. Blocks until it is done.

    Args:
        connection_string: as for `EventStore`.
        revision: the revision to go to; by default the newest.

    Returns:
        the tables' revision.

    Raises:
        ConfigurationError: the connection string is of no database with tables, the revision is none, or an index or
            trigger that the program has made on the store's tables in SQLite does not fit the new ones.
        UnknownDatabaseError: there is no such database.
        StoreUnavailableError: the database is out of reach.
        NewerStoreError: a newer version of the package has changed the tables.
    """
    from alembic import command  # which takes longer to import than all else here
    from alembic.config import Config
    from alembic.util.exc import CommandError

    url = _url(connection_string)
    shown = url.render_as_string(hide_password=True)
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            if url.get_backend_name() == "sqlite":  # of itself sqlite3 begins only where rows are written
                # a view of the program's own would keep a table from being put in the place of an older one
                connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            _refuse_newer(connection)
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
    except DatabaseError as error:
        said = " ".join(str(error.orig).split())
        if "does not exist" in said or "unable to open" in said or "not a database" in said:
            raise UnknownDatabaseError(f"{shown}: there is no such database ({said}). Correct its name.") from error
        if not isinstance(error, OperationalError):
            raise
        raise StoreUnavailableError(f"{shown} is out of reach: {said}.") from error
    finally:
        engine.dispose()


def _url(connection_string: str) -> URL:
    """The URL for SQLAlchemy.

    Raises:
        ConfigurationError: it is none, or of no database with tables.
    """
    try:
        url = make_url(connection_string)
    except ArgumentError as error:
        raise ConfigurationError(f"The connection string is no URL: {error}.") from None
    scheme = url.drivername.partition("+")[0]
    if scheme in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if scheme == "sqlite":
        return url.set(drivername="sqlite", query={})  # the store's settings, of which the tables know nothing
    raise ConfigurationError(f"A store on {scheme!r} has no tables to upgrade; there are: postgresql, sqlite.")


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


def _refuse_newer(connection: Connection) -> None:
    found = _revision(connection)
    if found > t.SCHEMA_VERSION:
        raise NewerStoreError(
            f"The store's tables are of revision {found}, and this package knows up to {t.SCHEMA_VERSION}: a newer one "
            'has changed them. Type: pip install --upgrade "commons-events-sourcing".'
        )
