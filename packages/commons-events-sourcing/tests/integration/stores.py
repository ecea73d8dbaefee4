"""One store of each kind, for tests that are about all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from commons_events.sourcing import EventStore
from commons_events.testing.services import RunningPostgres

KINDS = ("memory", "sqlite", "postgresql")


class Place:
    """An empty database; `store` opens a store on it."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url

    def store(self, **settings: int) -> EventStore:
        return EventStore(self.url, **settings)

    @asynccontextmanager
    async def opened(self, **settings: int) -> AsyncIterator[EventStore]:
        async with self.store(**settings) as store:
            yield store


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind: str = request.param
    if kind == "memory":
        yield Place(kind, "memory://")
    elif kind == "sqlite":
        (tmp_path / "events.db").touch()
        yield Place(kind, f"sqlite:///{tmp_path / 'events.db'}?synchronous=NORMAL")
    else:
        service: RunningPostgres = request.getfixturevalue("postgres_service")
        with service.database("store") as url:
            yield Place(kind, url)
