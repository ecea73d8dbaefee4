"""`EventStore`: the store that users make, from a connection string."""

from __future__ import annotations

import inspect
from typing import Any

from commons_events.errors import ConfigurationError, MissingDistributionError, StreamNotFoundError
from commons_events.event import Event
from commons_events.sourcing._aggregate_store import AggregateStore, events_of
from commons_events.sourcing._backend import Backend
from commons_events.sourcing._memory import MemoryBackend
from commons_events.sourcing._store_transaction import MAX_EVENT_BYTES, bounds
from commons_events.sourcing._types import StreamId

__all__ = ["EventStore"]


class EventStore(AggregateStore):
    """Events of aggregates and of any other stream, in a database.

    Args:
        connection_string: ``postgresql://user:password@host/database``, ``sqlite:///file.db`` (a path after the third
            slash), ``sqlite://`` (a database in memory) or ``memory://`` (without SQL).
        backend: a database of another kind, in the place of a connection string.
        max_event_bytes: the largest event it takes.
        page_size: how many events reading holds in memory at once.
        options: settings of the backend.

    Raises:
        ConfigurationError: the connection string is none, or its scheme is unknown.
        MissingDistributionError: psycopg is not installed, or does not load.
    """

    def __init__(
        self,
        connection_string: str = "sqlite:///events.db",
        *,
        backend: Backend | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
        page_size: int = 500,
        **options: object,
    ) -> None:
        if backend is None:
            backend = make_backend(connection_string, **options)
        elif options:
            raise ConfigurationError(f"Settings that are given with a backend: {', '.join(options)}. Give it to that.")
        super().__init__(backend, max_event_bytes=max_event_bytes, page_size=page_size)

    async def get_events(
        self, aggregate_id: str | StreamId, from_version: int = 0, to_version: int | None = None
    ) -> list[Event]:
        """The events of a stream, decoded; none where there is no such stream.

        Args:
            aggregate_id: the stream's id, in whatever category; or its whole name.
            from_version: the first ``aggregate_version``, included; 0 and 1 both mean the beginning.
            to_version: the last one, included; None for the end.

        Raises:
            AmbiguousStreamError: streams of several categories have this id.
        """
        bounds(from_version, to_version, "version")
        try:
            stream = aggregate_id if isinstance(aggregate_id, StreamId) else await self.find_stream(aggregate_id)
        except StreamNotFoundError:
            return []
        found = await self.fetch_stream(stream, from_version=from_version, to_version=to_version)
        return events_of(found)


def make_backend(connection_string: str, **options: object) -> Backend:
    """The backend that a connection string names.

    Raises:
        ConfigurationError: it is none, or its scheme is unknown.
    """
    given: Any = connection_string
    if not isinstance(given, str) or "://" not in given:
        raise ConfigurationError(
            'EventStore takes a connection string such as "postgresql://host/database" or "sqlite:///file.db"'
            f"{'' if isinstance(given, str) else f', not {type(given).__name__}: {given!r:.100}'}."
        )
    scheme = given.partition("://")[0].partition("+")[0].lower()
    if scheme == "memory":
        if options:
            raise ConfigurationError(f"A store in memory has no settings: {', '.join(options)}.")
        return MemoryBackend()
    if scheme in ("postgresql", "postgres", "sqlite"):
        return _database(scheme, connection_string, options)
    raise ConfigurationError(f"No event store is known for {scheme!r}; there are: memory, postgresql, sqlite.")


def _database(scheme: str, connection_string: str, options: dict[str, Any]) -> Backend:
    backend: Any
    if scheme == "sqlite":
        from commons_events.sourcing._sqlite import SqliteBackend as backend  # noqa: N813
    else:
        try:
            import psycopg  # noqa: F401  # without it, or its libpq, what follows would say nothing of use
        except ImportError as error:
            raise MissingDistributionError(
                f'PostgreSQL needs psycopg, which does not load ({error}). Type: pip install "psycopg[binary]"',
                name="psycopg",
            ) from error
        from commons_events.sourcing._postgres import PostgresBackend as backend  # noqa: N813

        connection_string = f"postgresql{connection_string[connection_string.index('://') :]}"
    known = inspect.signature(backend).parameters.keys() - {"url"}
    if unknown := sorted(options.keys() - known):
        raise ConfigurationError(
            f"A store on {scheme} has no setting {', '.join(unknown)}; there are: {', '.join(sorted(known))}."
        )
    made: Backend = backend(connection_string, **options)
    return made
