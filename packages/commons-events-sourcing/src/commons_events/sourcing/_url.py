"""Connection strings: as SQLAlchemy's URL, as the path of an SQLite file, and what servers say of wrong ones."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from commons_events.errors import ConfigurationError, UnknownDatabaseError

__all__ = ["check_file", "file_of", "is_refused", "read_url"]

_REFUSED = re.compile(
    r"invalid (connection option|URI|port number|integer value|value for parameter|\S+ value: )"
    r"|parameter must be an integer|bad value for |unrecognized configuration parameter"
)


def read_url(connection_string: str) -> URL:
    """The URL for SQLAlchemy.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        url = make_url(connection_string)
    except (ArgumentError, ValueError):  # both may show a part of the password
        raise ConfigurationError(
            "The connection string is no URL, or its port no number. It is such as "
            "postgresql://user:password@host:5432/database, with @, : and / in the password as %40, %3A and %2F."
        ) from None
    if url.port is not None and not 0 < url.port < 2**16:
        raise ConfigurationError(
            f"{url.render_as_string(hide_password=True)}: there is no port {url.port}; they go from 1 to 65535."
        )
    return url


def file_of(connection_string: str) -> str:
    """The path of an SQLite file; "" for a database in memory.

    Raises:
        ConfigurationError: there can be no such file.
    """
    path = connection_string.partition("://")[2].partition("?")[0]
    if path and not path.startswith("/"):
        raise ConfigurationError(
            f"{connection_string}: the path of an SQLite file comes after three slashes (sqlite:///file.db), an "
            "absolute one after four (sqlite:////tmp/file.db)."
        )
    path = unquote(path[1:])
    if "\0" in path:
        raise ConfigurationError(f"{connection_string}: the path of a file has no null character (%00). Leave it out.")
    return path if path != ":memory:" else ""


def check_file(connection_string: str) -> None:
    """Refuse an SQLite file that is not there, where nobody means to make one.

    Raises:
        UnknownDatabaseError: it is not there.
    """
    if connection_string.startswith("sqlite"):
        file = file_of(connection_string)
        if file and not Path(file).is_file():
            raise UnknownDatabaseError(
                f"{connection_string}: there is no such file, seen from {Path.cwd()}. Check the path."
            )


def is_refused(said: str) -> bool:
    """Whether libpq or the server says that a setting is wrong, by which trying again would never succeed."""
    return _REFUSED.search(said) is not None
