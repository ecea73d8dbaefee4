"""`upgrade`: bring a store's tables to this version of the package, by Alembic."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from commons_events.errors import ConfigurationError, StoreUnavailableError
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
        StoreUnavailableError: the database is out of reach.
    """
    from alembic import command  # which takes longer to import than all else here
    from alembic.config import Config

    try:
        url = make_url(connection_string)
    except ArgumentError as error:
        raise ConfigurationError(f"The connection string is no URL: {error}.") from None
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            if url.get_backend_name() == "sqlite":  # of itself sqlite3 begins only where rows are written
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            config = Config()
            config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        with engine.connect() as connection:
            if t.versions.name not in inspect(connection).get_table_names():
                return ""
            return str(connection.execute(t.versions.select()).scalar_one())
    except OperationalError as error:
        raise StoreUnavailableError(
            f"{url.render_as_string(hide_password=True)} is out of reach: {error.orig}."
        ) from error
    finally:
        engine.dispose()
