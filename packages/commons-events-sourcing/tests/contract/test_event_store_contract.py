"""Every database keeps the contract of an event store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from commons_events.sourcing import EventStore, MemoryBackend
from commons_events.testing.contracts import EventStoreContract
from commons_events.testing.services import RunningPostgres


class TestMemory(EventStoreContract):
    has_sql: ClassVar[bool] = False

    @pytest.fixture(autouse=True)
    def _backend(self) -> None:
        self.backend: MemoryBackend | None = None

    async def make_store(self, **settings: Any) -> EventStore:
        self.backend = self.backend or MemoryBackend()
        return EventStore(backend=self.backend, **settings)


class TestSqliteInItsThread(EventStoreContract):
    limit: ClassVar[float] = 0.0
    """Seconds for which an append may keep the event loop."""

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "events.db"

    async def make_store(self, **settings: Any) -> EventStore:
        return EventStore(f"sqlite:///{self.path}", synchronous="NORMAL", blocking_limit=self.limit, **settings)


class TestSqliteInTheEventLoop(TestSqliteInItsThread):
    limit: ClassVar[float] = math.inf


@pytest.fixture(scope="module")
def database(postgres_service: RunningPostgres) -> Iterator[str]:
    with postgres_service.database("contract") as url:
        yield url


class TestPostgres(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _database(self, database: str) -> None:
        self.url = database
        self.emptied = False

    async def make_store(self, **settings: Any) -> EventStore:
        if not self.emptied:
            await empty(self.url)
            self.emptied = True
        return EventStore(self.url, **settings)


async def empty(url: str) -> None:
    """Take everything out of the store's tables, which is quicker than making a database for each test."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        names = await connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND starts_with(relname, 'commons_events_') "
            "AND relname <> 'commons_events_version'"
        )
        tables = ", ".join(name for (name,) in await names.fetchall())
        if tables:
            await connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")  # type: ignore[arg-type]
