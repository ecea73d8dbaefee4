"""The page's block on event sourcing runs as printed, on every store; only its address is another one."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from commons_events.event import registry
from commons_events.sourcing import DomainEvent

BLOCK = Path(__file__).with_name("event_sourcing.py")

# The block's datetime.utcnow() is deprecated since Python 3.12.
pytestmark = [pytest.mark.asyncio, pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")]


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the block leaves out."""
    with registry.isolated():

        class UserCreated(DomainEvent):
            email: str

        class UserActivated(DomainEvent):
            pass

        yield {"datetime": datetime, "UserCreated": UserCreated, "UserActivated": UserActivated}


@pytest.mark.parametrize("where", ["sqlite", "postgresql", "memory"])
async def test_event_sourcing(
    where: str, names: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if where == "postgresql":
        url = request.getfixturevalue("postgres_database")
    else:
        url = {"sqlite": f"sqlite:///{tmp_path}/events.db", "memory": "memory://"}[where]
    text = BLOCK.read_text("utf-8").replace("postgresql://localhost/events", url)
    code = compile(text, str(BLOCK), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    running = eval(code, names)
    assert inspect.isawaitable(running)
    await running

    created, activated = names["events"]
    assert (created.aggregate_id, created.email) == ("user_123", "user@example.com")
    assert [type(created).__name__, type(activated).__name__] == ["UserCreated", "UserActivated"]
    assert [created.aggregate_version, activated.aggregate_version] == [1, 2]
    assert timedelta(0) <= datetime.now(UTC) - created.timestamp < timedelta(minutes=5)  # naive means UTC
    with pytest.raises(ValueError, match="Already active"):
        names["loaded"].activate()
    await names["store"].close()
